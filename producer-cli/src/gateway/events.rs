//! The event stream of a job: its progress, then its result.
//!
//! Events are not queued: the stream is woken, looks at the board and sends what is newer than what it sent
//! last. A slow client thus costs no memory and misses nothing but progress that is out of date.

use crate::gateway::Gateway;
use crate::gateway::board::Watcher;
use crate::gateway::index::{Entry, position};
use axum::response::sse::Event;
use futures_util::Stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The id of the last event of a stream.
pub(crate) const RESULT_ID: &str = "result";
/// How often a stream looks even without news: the job may have left the memory.
const LOOK: Duration = Duration::from_secs(15);
/// How long a stream lives; clients come back with `Last-Event-ID`.
const STREAM_MAX: Duration = Duration::from_secs(3600);

/// Where a client's last stream ended: run, attempt, sequence.
pub(crate) fn resume(id: &str) -> Option<(u32, u32, u64)> {
    let mut parts = id.split('.');
    let position = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(position)
}

struct Stand {
    gateway: Arc<Gateway>,
    watcher: Watcher,
    job_id: String,
    sent: Option<(u32, u32, u64)>,
    is_first: bool,
    is_over: bool,
    end: Duration,
    draining: watch::Receiver<bool>,
}

/// The stream of a job from after `sent`.
pub(crate) fn stream(
    gateway: Arc<Gateway>,
    watcher: Watcher,
    job_id: String,
    sent: Option<(u32, u32, u64)>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let draining = gateway.draining.clone();
    let stand = Stand {
        gateway,
        watcher,
        job_id,
        sent,
        is_first: true,
        is_over: false,
        end: crate::clock::uptime() + STREAM_MAX,
        draining,
    };
    futures_util::stream::unfold(stand, |mut stand| async move {
        let event = stand.next().await?;
        Some((Ok(event), stand))
    })
}

impl Stand {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_over {
                return None;
            }
            if !std::mem::take(&mut self.is_first) {
                // The look comes after the news: none is missed, because the watcher remembers it.
                tokio::select! {
                    () = self.watcher.changed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    _ = self.draining.wait_for(|draining| *draining) => return None,
                }
            }
            if crate::clock::uptime() > self.end {
                return None;
            }
            // A failed look-up is tried again at the next look.
            let Ok(Some(entry)) = self.gateway.entry(&self.job_id).await else {
                continue;
            };
            if let Some(event) = self.newer(&entry) {
                // There may be more: look again at once.
                self.is_first = true;
                return Some(event);
            }
            if entry.ending.is_some() {
                self.is_over = true;
                return self.result(&entry).await;
            }
        }
    }

    fn newer(&mut self, entry: &Entry) -> Option<Event> {
        let next = entry
            .progress
            .iter()
            .find(|event| self.sent.is_none_or(|sent| sent < position(event)))?;
        let (run, attempt, sequence) = position(next);
        self.sent = Some((run, attempt, sequence));
        Some(
            Event::default()
                .event("progress")
                .id(format!("{run}.{attempt}.{sequence}"))
                .data(serde_json::to_string(&**next).ok()?),
        )
    }

    async fn result(&self, entry: &Entry) -> Option<Event> {
        let text = self.gateway.result_text(&self.job_id, entry).await.ok()??;
        Some(Event::default().event("result").id(RESULT_ID).data(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_where_it_ended() {
        assert_eq!(resume("2.1.17"), Some((2, 1, 17)));
        for id in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", RESULT_ID] {
            assert_eq!(resume(id), None, "{id}");
        }
    }
}
