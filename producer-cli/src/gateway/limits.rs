//! The rate limit: a token bucket for each caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Callers that are told apart at a time; beyond that strangers share one bucket, so that memory is bounded.
const CALLERS_MAX: usize = 10_000;
/// One request, in the unit of the buckets.
const ONE: u64 = 1_000_000;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// A tenant.
    Tenant(String),
    /// An address without a (right) token.
    Address(IpAddr),
    /// Everybody for whom there is no room.
    Rest,
}

/// Buckets that fill by `rate` requests a second and hold one second's worth.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: u64,
    buckets: HashMap<Counted, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Millionths of requests.
    left: u64,
    /// When it was looked at, since any fixed point.
    at: Duration,
}

impl RateLimit {
    /// `rate` requests a second; 0 limits nothing.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate: u64::from(rate),
            buckets: HashMap::new(),
        }
    }

    /// Counts a request at `now`.
    ///
    /// # Errors
    /// The seconds after which it is worth while to try again.
    pub(crate) fn admit(&mut self, who: Counted, now: Duration) -> Result<(), u64> {
        if self.rate == 0 {
            return Ok(());
        }
        let full = self.rate.saturating_mul(ONE);
        let who = if self.buckets.contains_key(&who) || self.make_room(now) {
            who
        } else {
            Counted::Rest
        };
        let rate = self.rate;
        let bucket = self.buckets.entry(who).or_insert(Bucket {
            left: full,
            at: now,
        });
        bucket.left = bucket.after(now, rate).min(full);
        bucket.at = now;
        match bucket.left.checked_sub(ONE) {
            Some(left) => {
                bucket.left = left;
                Ok(())
            }
            // A bucket fills within one second.
            None => Err(1),
        }
    }

    /// Forgets callers whose buckets are full again: they are as good as new.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.buckets.len() >= CALLERS_MAX {
            let (rate, full) = (self.rate, self.rate.saturating_mul(ONE));
            self.buckets
                .retain(|_, bucket| bucket.after(now, rate) < full);
        }
        self.buckets.len() < CALLERS_MAX
    }
}

impl Bucket {
    fn after(self, now: Duration, rate: u64) -> u64 {
        // One request a second is one millionth of a request a microsecond.
        let micros = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        self.left.saturating_add(micros.saturating_mul(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Counted {
        Counted::Address(IpAddr::V4(number.into()))
    }

    #[test]
    fn a_second_of_requests_and_then_as_they_fill() {
        let mut limit = RateLimit::new(2);
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(limit.admit(address(1), at(0)), Ok(()));
        assert_eq!(limit.admit(address(1), at(0)), Ok(()));
        assert_eq!(limit.admit(address(1), at(499)), Err(1));
        assert_eq!(limit.admit(address(2), at(499)), Ok(()));
        assert_eq!(limit.admit(address(1), at(501)), Ok(()));
        assert_eq!(limit.admit(address(1), at(502)), Err(1));
        // A clock that went back fills nothing and breaks nothing.
        assert_eq!(limit.admit(address(1), at(0)), Err(1));
        assert_eq!(RateLimit::new(0).admit(address(1), at(0)), Ok(()));
    }

    #[test]
    fn many_callers_take_no_more_room() {
        let mut limit = RateLimit::new(1);
        let callers = u32::try_from(CALLERS_MAX).unwrap();
        for number in 0..callers * 2 {
            limit.admit(address(number), Duration::ZERO).ok();
        }
        assert!(limit.buckets.len() <= CALLERS_MAX + 1);
        // Seconds later all are full again, and forgotten when somebody new comes.
        assert_eq!(
            limit.admit(address(callers * 3), Duration::from_secs(4)),
            Ok(())
        );
        assert!(limit.buckets.len() < 10);
    }
}
