//! Room for request bodies: the sum of all is bounded, however many connections send one.

use crate::gateway::problem::Problem;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of bodies at a time. A body is held some three times while it is read, checked and encoded.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Claims are counted in pieces of this size.
const PIECE: usize = 1024;
/// How long a request waits for room.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Bodies(Semaphore);

impl Bodies {
    /// Nothing claimed.
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(BYTES_MAX / PIECE))
    }

    /// Room for a body of at most this size, until the claim is dropped.
    ///
    /// # Errors
    /// 503: no room in time.
    pub(crate) async fn claim(&self, size: usize) -> Result<SemaphorePermit<'_>, Box<Problem>> {
        // A limit above the whole room means one body at a time.
        let pieces = size.div_ceil(PIECE).clamp(1, BYTES_MAX / PIECE);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        match tokio::time::timeout(WAIT_MAX, self.0.acquire_many(pieces)).await {
            Ok(Ok(claim)) => Ok(claim),
            _ => Err(Problem::unavailable("too many jobs are being sent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(async {
            let bodies = Bodies::new();
            let all = bodies.claim(usize::MAX).await.unwrap();
            assert_eq!(bodies.0.available_permits(), 0);
            drop(all);
            let _small = bodies.claim(0).await.unwrap();
            assert_eq!(bodies.0.available_permits(), BYTES_MAX / PIECE - 1);
        });
    }
}
