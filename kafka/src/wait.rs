//! Waiting for a future in synchronous code, also when the caller is itself inside a runtime.

use crate::fault::Fault;
use tokio::runtime::Runtime;

/// Runs a future to its end. On a thread of its own: tokio panics where runtimes are nested.
pub(crate) fn block_on<T: Send>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, Fault>> + Send,
) -> Result<T, Fault> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| runtime.block_on(work));
        thread
            .join()
            .unwrap_or_else(|_| Err(Fault::other("wait for an answer", "its thread died")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_around_it_does_no_harm() {
        let new = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        };
        let (outer, inner) = (new(), new());
        let answer = outer.block_on(async { block_on(&inner, async { Ok(7) }) });
        assert_eq!(answer, Ok(7));
        outer.block_on(async move { inner.shutdown_background() });
    }
}
