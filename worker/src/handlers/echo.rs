//! `system.echo`: gives its data back; sleeps, fails, pads and crashes on request. For tests and
//! benchmarks (interface.md, "system.echo.v1").

use super::{Context, Handler, HandlerError, Output, payload, to_json};
use crate::engine::outcome::Failure;
use guestkit_protocol::JobEnvelope;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// Longest single sleep, so that a cancelled job ends soon.
const NAP: Duration = Duration::from_millis(20);
/// A day: longer is a mistake in the job.
const SLEEP_MS_MAX: u64 = 86_400_000;
/// 64 MiB: enough to pass every limit on results.
const RESULT_BYTES_MAX: usize = 64 << 20;
/// More events than anybody watches.
const PROGRESS_STEPS_MAX: u64 = 10_000;

pub(super) struct Echo;

#[derive(Deserialize, Default)]
struct Request {
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    sleep_ms: u64,
    #[serde(default)]
    progress_steps: u64,
    #[serde(default)]
    fail: Option<Fail>,
    #[serde(default)]
    result_bytes: usize,
    #[serde(default)]
    crash: Option<String>,
}

#[derive(Deserialize)]
struct Fail {
    #[serde(default = "default_code")]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    recoverable: bool,
    #[serde(default)]
    times: u32,
}

fn default_code() -> String {
    "ECHO_FAILED".to_owned()
}

impl Handler for Echo {
    fn run(&self, job: &JobEnvelope, context: &Context) -> Result<Output, HandlerError> {
        let request: Request = payload(job)?;
        check(&request)?;
        sleep(&request, context)?;
        if let Some(kind) = &request.crash {
            crash(kind, context)?;
        }
        if let Some(fail) = request.fail
            && (fail.times == 0 || context.attempt <= fail.times)
        {
            let mut failure = Failure::lasting(fail.code, fail.message);
            failure.recoverable = fail.recoverable;
            return Err(failure.into());
        }
        let mut data = request.data.map_or_else(
            || job.payload.data.as_str().to_owned(),
            |data| data.get().to_owned(),
        );
        if request.result_bytes > data.len() {
            let padding = padding(request.result_bytes - data.len());
            data = to_json(&serde_json::json!({ "padding": padding }))?;
        }
        Ok(Output {
            data: Some(data),
            ..Output::default()
        })
    }
}

/// Text that does not compress: limits on results are limits on compressed batches.
fn padding(length: usize) -> String {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state >> 32) as u8 % 26)
    });
    letters.take(length).collect()
}

fn check(request: &Request) -> Result<(), HandlerError> {
    let refuse = |field: &str, limit: u64| {
        Err(Failure::lasting(
            "INVALID_JOB",
            format!("payload.data.{field} is over its limit of {limit}"),
        )
        .into())
    };
    if request.sleep_ms > SLEEP_MS_MAX {
        return refuse("sleep_ms", SLEEP_MS_MAX);
    }
    if request.result_bytes > RESULT_BYTES_MAX {
        return refuse("result_bytes", RESULT_BYTES_MAX as u64);
    }
    if request.progress_steps > PROGRESS_STEPS_MAX {
        return refuse("progress_steps", PROGRESS_STEPS_MAX);
    }
    Ok(())
}

fn sleep(request: &Request, context: &Context) -> Result<(), HandlerError> {
    let steps = request.progress_steps.max(1);
    let total = Duration::from_millis(request.sleep_ms);
    for step in 1..=steps {
        let part = total
            .checked_div(u32::try_from(steps).unwrap_or(u32::MAX))
            .unwrap_or_default();
        nap(part, context)?;
        if request.progress_steps > 0 {
            let percent = step as f64 * 100.0 / steps as f64;
            context.progress(
                "echo",
                Some(percent),
                Some(format!("step {step} of {steps}")),
            );
        }
    }
    Ok(())
}

fn nap(mut left: Duration, context: &Context) -> Result<(), HandlerError> {
    while !left.is_zero() {
        if context.cancelled() {
            return Err(HandlerError::Cancelled);
        }
        let part = left.min(NAP);
        std::thread::sleep(part);
        left = left.saturating_sub(part);
    }
    Ok(())
}

/// Takes the worker down in the way that was asked for, if the worker allows it.
fn crash(kind: &str, context: &Context) -> Result<(), HandlerError> {
    if !context.settings.allow_test_faults {
        return Err(Failure::lasting(
            "INVALID_JOB",
            "payload.data.crash is obeyed only by a worker started with --allow-test-faults",
        )
        .into());
    }
    match kind {
        "panic" => panic!("echo was asked to panic"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(70),
        "oom" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 64 << 20]);
            }
        }
        "overflow" => {
            #[expect(
                unconditional_recursion,
                reason = "a stack overflow is what was asked for"
            )]
            fn deeper(n: u64) -> u64 {
                std::hint::black_box(deeper(std::hint::black_box(n) + 1)) + 1
            }
            Err(Failure::lasting("INTERNAL", format!("overflow ended at {}", deeper(0))).into())
        }
        other => Err(Failure::lasting(
            "INVALID_JOB",
            format!("payload.data.crash is {other:?}: one of panic, abort, exit, oom, overflow"),
        )
        .into()),
    }
}
