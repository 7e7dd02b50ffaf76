//! SIGTERM and SIGINT drain; a second one leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Exit code of a worker that was told twice.
const LEFT_AT_ONCE: i32 = 130;

/// Turns true with the first signal.
///
/// # Errors
/// When the system does not let us listen.
pub fn listen() -> std::io::Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
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
    Ok(told)
}
