//! `status`: one screen that answers "is it all right?".

mod backlog;
mod collect;
mod screen;
mod verdict;

use crate::cli::Output;
use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::settings::Settings;
use std::io::IsTerminal;
use std::time::Duration;

/// Between two looks at the committed offsets, from which the rate follows, when it is said only once.
const ONCE: Duration = Duration::from_secs(1);

/// `status`: once, or again every `watch` until the time is up or it is interrupted.
pub(crate) fn run(settings: &Settings, watch: Option<Duration>, wait_max: Duration) -> Outcome {
    let deadline = settings.deadline();
    let mut before = collect::positions(settings)?;
    loop {
        std::thread::sleep(watch.unwrap_or(ONCE));
        let found = match collect::fleet(settings, &before) {
            Ok(found) => found,
            // Who watches wants to see it come back.
            Err(failure) if watch.is_some() && failure.code == 3 => {
                eprintln!("{}", output::clean(&failure.message));
                if deadline.has_passed() {
                    return Err(failure);
                }
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let judged = verdict::judge(&found, wait_max);
        let terminal = std::io::stdout().is_terminal();
        match settings.output {
            Output::Json => output::json_line(&screen::document(&found, &judged))?,
            Output::Table => {
                let text = screen::text(&found, &judged, terminal);
                // A screen that is refreshed stands still.
                let clear = match watch.is_some() && terminal {
                    true => "\x1b[H\x1b[2J",
                    false => "",
                };
                output::line(&format!("{clear}{text}"))?;
            }
        }
        before = found.positions;
        if watch.is_none() || deadline.has_passed() {
            return match judged.problems.is_empty() {
                true => Ok(()),
                // It is on the screen.
                false => Err(Failure::silent(1)),
            };
        }
    }
}

/// When something was, as an age.
fn age_ms(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0))
}

fn now_ms() -> i64 {
    clock::now().as_millis()
}
