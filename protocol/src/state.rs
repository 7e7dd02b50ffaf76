//! The states of a job, and which may follow which.

use crate::document::result::JobStatus;
use std::fmt;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobState {
    /// Made, not yet published.
    Pending,
    /// On the jobs topic.
    Queued,
    /// A worker has it.
    Assigned,
    /// A handler runs it.
    Running,
    /// Succeeded; terminal.
    Completed,
    /// Failed for good; terminal.
    Failed,
    /// Its time ran out; terminal.
    Timeout,
    /// Cancelled; terminal.
    Cancelled,
}

/// A step that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} can't become {to}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: JobState,
    /// The state it should have gone to.
    pub to: JobState,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled
        )
    }

    /// The next state, if the step is lawful. Forward: pending, queued, assigned, running, completed. Back to
    /// queued: from assigned (its worker left) and running (retry, or its worker died). Failed, timeout and
    /// cancelled follow every state that is not terminal.
    ///
    /// # Errors
    /// The step is not in the machine.
    pub const fn to(self, next: Self) -> Result<Self, IllegalTransition> {
        use JobState::{Assigned, Cancelled, Completed, Failed, Pending, Queued, Running, Timeout};
        let lawful = match (self, next) {
            (Pending, Queued)
            | (Queued, Assigned)
            | (Assigned, Running)
            | (Assigned | Running, Queued)
            | (Running, Completed) => true,
            (from, Failed | Timeout | Cancelled) => !from.is_terminal(),
            _ => false,
        };
        if lawful {
            Ok(next)
        } else {
            Err(IllegalTransition {
                from: self,
                to: next,
            })
        }
    }

    /// The word for `status`; queued is pending there, because results do not know it.
    pub const fn status(self) -> JobStatus {
        match self {
            Self::Pending | Self::Queued => JobStatus::Pending,
            Self::Assigned => JobStatus::Assigned,
            Self::Running => JobStatus::Running,
            Self::Completed => JobStatus::Completed,
            Self::Failed => JobStatus::Failed,
            Self::Timeout => JobStatus::Timeout,
            Self::Cancelled => JobStatus::Cancelled,
        }
    }
}

impl JobStatus {
    /// Whether it is the job's last one.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            other => other.status().as_str(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_is_terminal() {
        for from in JobState::ALL {
            let next: Vec<_> = JobState::ALL
                .into_iter()
                .filter(|to| from.to(*to).is_ok())
                .collect();
            assert_eq!(next.is_empty(), from.is_terminal(), "{from} to {next:?}");
            assert_eq!(from.is_terminal(), from.status().is_terminal());
            assert!(!next.contains(&from), "{from} to itself");
        }
    }

    #[test]
    fn the_way_of_a_job() {
        use JobState::*;
        let way = [
            Queued, Assigned, Running, Queued, Assigned, Running, Completed,
        ];
        let end = way
            .into_iter()
            .try_fold(Pending, |state, next| state.to(next));
        assert_eq!(end, Ok(Completed));
        assert_eq!(
            Pending.to(Running),
            Err(IllegalTransition {
                from: Pending,
                to: Running
            })
        );
        assert_eq!(
            Completed.to(Failed).unwrap_err().to_string(),
            "a job that is completed can't become failed"
        );
        let lawful = JobState::ALL
            .iter()
            .flat_map(|from| JobState::ALL.iter().map(move |to| from.to(*to)))
            .filter(Result::is_ok)
            .count();
        assert_eq!(lawful, 6 + 4 * 3);
    }
}
