//! Points in time: UTC milliseconds on the wire, RFC 3339 in JSON.

use crate::shape::Shape;
use crate::wire::{Input, Output, ReadResult, Wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z, between the years 0000 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no time: {reason}; expected RFC 3339, for example 2026-11-24T14:20:00.123Z")]
pub struct TimestampFault {
    /// The text as it came, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

const DAY_MS: i64 = 86_400_000;

impl Timestamp {
    /// 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since 1970 in UTC; beyond [`MIN`](Self::MIN) and [`MAX`](Self::MAX) it is the
    /// nearer of the two, because RFC 3339 has no more years.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since 1970 in UTC.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time and some milliseconds more (or less).
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; negative when it is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads RFC 3339 with any offset and any number of fractional digits; digits beyond the millisecond
    /// are dropped. A leap second is the first second of the next minute.
    ///
    /// # Errors
    /// The text is not of that form, or lies outside the years 0000 to 9999 in UTC.
    pub fn parse(text: &str) -> Result<Self, TimestampFault> {
        parse(text).map_err(|reason| TimestampFault {
            text: text.chars().take(64).collect(),
            reason,
        })
    }
}

/// RFC 3339, 5.6.
fn parse(text: &str) -> Result<Timestamp, &'static str> {
    let bytes = text.as_bytes();
    let number = |from: usize, length: usize| -> Result<i64, &'static str> {
        let digits = bytes.get(from..from + length).ok_or("it ends too early")?;
        digits.iter().try_fold(0, |value, digit| match digit {
            b'0'..=b'9' => Ok(value * 10 + i64::from(digit - b'0')),
            _ => Err("a digit is expected where there is none"),
        })
    };
    let mark = |at: usize, allowed: &[u8]| -> Result<(), &'static str> {
        match bytes.get(at) {
            Some(byte) if allowed.contains(byte) => Ok(()),
            Some(_) => Err("a separator is wrong"),
            None => Err("it ends too early"),
        }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    mark(4, b"-")?;
    mark(7, b"-")?;
    mark(10, b"Tt ")?;
    mark(13, b":")?;
    mark(16, b":")?;
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return Err("there is no such day");
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err("there is no such time of day");
    }
    let mut at = 19;
    let mut millis = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let digits = bytes
            .iter()
            .skip(at)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return Err("the fraction has no digits");
        }
        let kept = digits.min(3);
        millis = number(at, kept)? * [100, 10, 1][kept - 1];
        at += digits;
    }
    let offset_minutes = match bytes.get(at) {
        Some(b'Z' | b'z') => {
            at += 1;
            0
        }
        Some(sign @ (b'+' | b'-')) => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            mark(at + 3, b":")?;
            if hours > 23 || minutes > 59 {
                return Err("there is no such offset");
            }
            at += 6;
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err("the offset is missing (Z or +hh:mm)"),
    };
    if at != bytes.len() {
        return Err("something follows the time");
    }
    let minutes = hour * 60 + minute - offset_minutes;
    let total =
        days_from_civil(year, month, day) * DAY_MS + minutes * 60_000 + second * 1000 + millis;
    if !(Timestamp::MIN.0..=Timestamp::MAX.0).contains(&total) {
        return Err("in UTC it lies outside the years 0000 to 9999");
    }
    Ok(Timestamp(total))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01. Years are counted from March, so that the leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse: (year, month, day).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY_MS));
        let of_day = self.0.rem_euclid(DAY_MS);
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, millis) = (of_day / 1000 % 60, of_day % 1000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if millis != 0 {
            write!(f, ".{millis:03}")?;
        }
        f.write_str("Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Wire for Timestamp {
    fn write(&self, out: &mut Output) {
        out.long(self.0);
    }
    fn read(input: &mut Input<'_>) -> ReadResult<Self> {
        let millis = input.long()?;
        if (Self::MIN.0..=Self::MAX.0).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(input.fault(format!("{millis} ms lies outside the years 0000 to 9999")))
        }
    }
    fn shape() -> Shape {
        Shape::Timestamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> i64 {
        Timestamp::parse(text).unwrap().as_millis()
    }

    #[test]
    fn any_offset_and_precision_is_utc_milliseconds() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), 0);
        assert_eq!(millis("2026-11-24T14:20:00Z"), 1_795_530_000_000);
        assert_eq!(millis("2026-11-24T15:20:00+01:00"), 1_795_530_000_000);
        assert_eq!(millis("2026-11-24t03:50:00.5-10:30"), 1_795_530_000_500);
        assert_eq!(
            millis("2026-11-24 14:20:00.123456789123z"),
            1_795_530_000_123
        );
        assert_eq!(millis("2000-02-29T23:59:59.99Z"), 951_868_799_990);
        assert_eq!(
            millis("2016-12-31T23:59:60Z"),
            millis("2017-01-01T00:00:00Z")
        );
        assert_eq!(millis("0000-01-01T00:00:00Z"), Timestamp::MIN.as_millis());
        assert_eq!(
            millis("9999-12-31T23:59:59.999Z"),
            Timestamp::MAX.as_millis()
        );
        assert_eq!(millis("1969-12-31T23:59:59.999Z"), -1);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11-24",
            "2026-11-24T14:20:00",
            "2026-11-24T14:20Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T14:60:00Z",
            "2026-11-24T14:20:61Z",
            "2026-11-24T14:20:00.Z",
            "2026-11-24T14:20:00+0100",
            "2026-11-24T14:20:00+24:00",
            "2026-11-24T14:20:00Zx",
            "2026/11/24T14:20:00Z",
            "2026-11-24T14:20:00,5Z",
            "+026-11-24T14:20:00Z",
            "２026-11-24T14:20:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59.999-00:01",
            "1795530000",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_there_and_back() {
        let mut day = Timestamp::MIN.as_millis();
        let (mut last, mut count) = (String::new(), 0);
        while day <= Timestamp::MAX.as_millis() {
            let text = Timestamp::from_millis(day + 7).to_string();
            assert!(text > last, "{last} before {text}");
            assert_eq!(millis(&text), day + 7, "{text}");
            last = text;
            day += DAY_MS;
            count += 1;
        }
        assert_eq!(count, 3_652_425, "25 times 146,097 days in 10,000 years");
    }

    #[test]
    fn beyond_the_years_it_is_the_nearest() {
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.plus_millis(1), Timestamp::MAX);
    }
}
