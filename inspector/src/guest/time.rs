//! Times as ISO 8601 text in UTC.

/// FILETIME counts 100 ns from 1601-01-01; 1970-01-01 is this many seconds later.
const EPOCH: u64 = 11_644_473_600;
const DAY: i64 = 86_400;

/// `None` for zero and for "never", which is the largest number.
pub(super) fn filetime(ticks: u64) -> Option<String> {
    let seconds = (ticks / 10_000_000).checked_sub(EPOCH)?;
    (ticks < 0x7fff_ffff_ffff_ffff).then(|| iso(i64::try_from(seconds).ok()))?
}

/// Seconds since 1970.
pub(super) fn unix(seconds: u64) -> Option<String> {
    iso(i64::try_from(seconds).ok().filter(|seconds| *seconds > 0))
}

/// Proleptic Gregorian calendar. Years count from March, so that leap days stand at their end; an
/// era has 400 of them and 146,097 days.
fn iso(seconds: Option<i64>) -> Option<String> {
    let seconds = seconds?;
    let (day, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let from_march = day.checked_add(719_468)?;
    let (era, of_era) = (
        from_march.div_euclid(146_097),
        from_march.rem_euclid(146_097),
    );
    // Leap days before this one: one each 1,460 days, none each 36,524, one each 146,096.
    let leap = (of_era / 1_460)
        .saturating_sub(of_era / 36_524)
        .saturating_add(of_era / 146_096);
    let year_of_era = of_era.saturating_sub(leap) / 365;
    let before = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let of_year = of_era.saturating_sub(before);
    // Months from March alternate so that 153 days are five of them.
    let month = of_year.saturating_mul(5).saturating_add(2) / 153;
    let first = month.saturating_mul(153).saturating_add(2) / 5;
    let day = of_year.saturating_sub(first).saturating_add(1);
    let (month, carry) = if month < 10 {
        (month.saturating_add(3), 0)
    } else {
        (month.saturating_sub(9), 1)
    };
    let year = era
        .checked_mul(400)?
        .checked_add(year_of_era)?
        .checked_add(carry)?;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let day = |seconds| unix(seconds).unwrap();
        assert_eq!(day(0x6553_f100), "2023-11-14T22:13:20Z");
        assert_eq!(day(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(day(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(day(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(unix(0), None);
        assert_eq!(
            filetime(133_444_736_000_000_000).unwrap(),
            "2023-11-14T22:13:20Z"
        );
        assert_eq!((filetime(0), filetime(u64::MAX >> 1)), (None, None));
        assert!(filetime((u64::MAX >> 1) - 1).is_some());
    }
}
