//! Reading results and progress.

use crate::cli::Output;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::settings::{Settings, since};
use guestkit_kafka::reader::{Reader, Record, Start, Step, Until};
use guestkit_protocol::{Document, JobProgress, JobResult, SchemaSource, decode};
use std::collections::BTreeSet;
use std::time::Duration;

/// Columns of results.
pub(crate) const RESULT_HEAD: [&str; 5] = ["JOB", "STATUS", "OPERATION", "DUPLICATE OF", "NOTE"];
const RESULT_WIDTHS: [usize; 5] = [28, 10, 20, 28, 0];
const PROGRESS_WIDTHS: [usize; 4] = [28, 16, 5, 0];

/// Which records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) follow: bool,
    pub(crate) job_ids: &'a [String],
    pub(crate) since: Option<&'a str>,
}

fn document<D: Document>(record: &Record, schemas: &dyn SchemaSource) -> Option<D> {
    let value = record.value.as_deref()?;
    match decode(value, schemas) {
        Ok(document) => Some(document),
        Err(error) => {
            let (partition, offset) = (record.partition, record.offset);
            eprintln!(
                "{partition}/{offset}: {}",
                output::clean(&error.to_string())
            );
            None
        }
    }
}

pub(crate) fn decode_result(record: &Record, schemas: &dyn SchemaSource) -> Option<JobResult> {
    document(record, schemas)
}

pub(crate) fn decode_progress(record: &Record, schemas: &dyn SchemaSource) -> Option<JobProgress> {
    document(record, schemas)
}

/// A result in a line of a table.
pub(crate) fn result_row(result: &JobResult) -> Vec<String> {
    let note = match (&result.error, &result.data) {
        (Some(error), _) => format!("{}: {}", error.code, error.message),
        (None, Some(data)) => data.as_str().chars().take(60).collect(),
        (None, None) => result
            .outputs
            .as_ref()
            .and_then(|outputs| outputs.primary.as_ref())
            .map_or_else(String::new, |artifact| artifact.path.clone()),
    };
    vec![
        result.job_id.clone(),
        result.status.to_string(),
        result.operation.clone().unwrap_or_default(),
        result.duplicate_of.clone().unwrap_or_default(),
        note,
    ]
}

/// Phase, percent and message in a few words.
pub(crate) fn progress_words(event: &JobProgress) -> String {
    let percent = event
        .progress_percent
        .map_or_else(String::new, |percent| format!(" {percent:.0} %"));
    let message = event.message.as_deref().unwrap_or_default();
    format!("{}{percent} {message}", event.phase)
}

fn start(since_text: Option<&str>) -> Outcome<Start> {
    Ok(match since_text {
        Some(text) => Start::Timestamp(since(text)?),
        None => Start::Beginning,
    })
}

/// Calls `each` with every record; ends at the end, when `each` says so, or when the time is up.
fn scan(
    settings: &Settings,
    topic: &str,
    wanted: Wanted<'_>,
    mut each: impl FnMut(&Record) -> Outcome<bool>,
) -> Outcome {
    let connection = settings.connection()?;
    let deadline = settings.deadline();
    let until = if wanted.follow {
        Until::Follow
    } else {
        Until::End
    };
    let mut start = start(wanted.since)?;
    // Following without anything to look for begins with what is new.
    if wanted.follow && wanted.since.is_none() && wanted.job_ids.is_empty() {
        start = Start::End;
    }
    let mut reader = Reader::open(&connection, topic, &start, until, settings.question())?;
    let mut silent = 0_u32;
    loop {
        match reader.next(Duration::from_millis(100))? {
            Step::Record(record) => {
                silent = 0;
                if !each(&record)? {
                    return Ok(());
                }
            }
            Step::Done => return Ok(()),
            Step::Idle => silent = silent.saturating_add(1),
        }
        if deadline.has_passed() {
            return Err(match reader.last_fault() {
                Some(fault) => fault.clone().into(),
                None => Failure::out_of_time("the time ran out"),
            });
        }
        // A bounded read of a cluster that went away ends, even without --timeout.
        if until == Until::End
            && silent > 300
            && let Some(fault) = reader.last_fault()
        {
            return Err(fault.clone().into());
        }
    }
}

/// `results`.
pub(crate) fn results(settings: &Settings, wanted: Wanted<'_>) -> Outcome {
    let schemas = settings.schemas()?;
    let mut missing: BTreeSet<&str> = wanted.job_ids.iter().map(String::as_str).collect();
    let all = missing.is_empty();
    if settings.output == Output::Table {
        output::row(&RESULT_HEAD.map(str::to_owned), &RESULT_WIDTHS)?;
    }
    let outcome = scan(settings, &settings.names.results, wanted, |record| {
        // The key is the job id: most records need not be decoded.
        let key = record.key.as_deref().unwrap_or_default();
        if !all && !missing.iter().any(|id| id.as_bytes() == key) {
            return Ok(true);
        }
        if let Some(result) = decode_result(record, &*schemas) {
            missing.remove(result.job_id.as_str());
            match settings.output {
                Output::Json => output::json_line(&result)?,
                Output::Table => output::row(&result_row(&result), &RESULT_WIDTHS)?,
            }
        }
        Ok(all || !missing.is_empty())
    });
    outcome?;
    match missing.iter().next() {
        None => Ok(()),
        Some(first) => Err(Failure::error(format!(
            "{} results are not there (yet), for example of job {first}",
            missing.len()
        ))),
    }
}

/// `progress`.
pub(crate) fn progress(settings: &Settings, wanted: Wanted<'_>) -> Outcome {
    let schemas = settings.schemas()?;
    if settings.output == Output::Table {
        let head = ["JOB", "PHASE", "%", "MESSAGE"];
        output::row(&head.map(str::to_owned), &PROGRESS_WIDTHS)?;
    }
    scan(settings, &settings.names.progress, wanted, |record| {
        let Some(event) = decode_progress(record, &*schemas) else {
            return Ok(true);
        };
        if !wanted.job_ids.is_empty() && !wanted.job_ids.contains(&event.job_id) {
            return Ok(true);
        }
        match settings.output {
            Output::Json => output::json_line(&event)?,
            Output::Table => {
                let percent = event.progress_percent;
                let cells = [
                    event.job_id,
                    event.phase,
                    percent.map_or_else(String::new, |percent| format!("{percent:.0}")),
                    event.message.unwrap_or_default(),
                ];
                output::row(&cells, &PROGRESS_WIDTHS)?;
            }
        }
        Ok(true)
    })
}
