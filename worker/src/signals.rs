//! SIGTERM and SIGINT drain; a second one leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code of a worker that was told twice.
const LEFT_AT_ONCE: i32 = 130;

/// Turns true with the first signal.
#[must_use]
pub fn listen() -> watch::Receiver<bool> {
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            tracing::error!("signals cannot be listened to: stop this worker with SIGKILL");
            std::future::pending::<()>().await;
            return;
        };
        for n in 1.. {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if n == 1 {
                if tell.send(true).is_err() {
                    return;
                }
            } else {
                tracing::warn!("told twice: leaving at once");
                std::process::exit(LEFT_AT_ONCE);
            }
        }
    });
    told
}
