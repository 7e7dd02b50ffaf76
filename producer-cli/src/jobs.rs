//! The shorthands: command-line arguments to jobs.

use crate::cli::Publishing;
use crate::failure::{Failure, Outcome};
use crate::{clock, ids};
use guestkit_protocol::payload::{ImageRef, InspectOptions, InspectPayload};
use guestkit_protocol::{JobBuilder, JobEnvelope, JsonText};

/// What a shorthand asks for: a name for ids, and a builder.
pub(crate) type Draft = (&'static str, JobBuilder);

/// An inspection.
pub(crate) fn inspect(image: &str, deep: bool) -> Draft {
    let payload = InspectPayload {
        image: ImageRef::at(image),
        options: InspectOptions {
            deep_scan: deep,
            ..InspectOptions::default()
        },
        output: None,
    };
    let builder = JobBuilder::new().operation("guestkit.inspect");
    ("inspect", builder.payload("guestkit.inspect.v1", &payload))
}

/// An echo of a JSON text.
pub(crate) fn echo(data: &str) -> Outcome<Draft> {
    let data = JsonText::new(data).map_err(|fault| Failure::usage(format!("data: {fault}")))?;
    Ok(("echojob", guestkit_protocol::echo_job(&data)))
}

/// Gives the drafts their ids, times and flags.
pub(crate) fn build(drafts: Vec<Draft>, how: &Publishing) -> Outcome<Vec<JobEnvelope>> {
    if how.idempotency_key.is_some() && drafts.len() > 1 {
        return Err(Failure::usage(
            "--idempotency-key is for one job, not for several",
        ));
    }
    drafts
        .into_iter()
        .map(|(name, builder)| {
            let mut builder = builder.job_id(ids::job_id(name)).created_at(clock::now());
            if let Some(key) = &how.idempotency_key {
                builder = builder.idempotency_key(key);
            }
            if let Some(priority) = how.priority {
                builder = builder.priority(priority);
            }
            builder.build().map_err(Failure::usage)
        })
        .collect()
}
