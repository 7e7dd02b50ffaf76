//! Publishing: straight to the slot, and waiting for the results.

use crate::cli::{FramingChoice, Output, Publishing};
use crate::documents::Found;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Bar};
use crate::sending::Sending;
use crate::settings::Settings;
use crate::watch::{self, decode_result, result_row};
use guestkit_kafka::Fault;
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_kafka::metadata::{Cluster, Extent, cluster_with, extents};
use guestkit_kafka::produce::{Delivery, Outgoing, Producer};
use guestkit_kafka::reader::{Reader, Start, Step, Until};
use guestkit_kafka::{Connection, TopicNames};
use guestkit_protocol::{
    Document, Framing, JobEnvelope, JobResult, JobStatus, TraceContext, encode, headers, slot_of,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All jobs, if all are valid; else says what is wrong with each.
pub(crate) fn valid(found: Vec<Found>) -> Outcome<Vec<JobEnvelope>> {
    let mut jobs = Vec::new();
    let mut invalid = 0;
    for Found { origin, job } in found {
        match job {
            Ok(job) => {
                for warning in job.validate().unwrap_or_default() {
                    eprintln!("warning: {origin}: {warning}");
                }
                jobs.push(*job);
            }
            Err(reason) => {
                invalid += 1;
                eprintln!("invalid: {origin}: {}", output::clean(&reason));
            }
        }
    }
    if invalid > 0 {
        let all = invalid + jobs.len();
        return Err(Failure::usage(format!(
            "{invalid} of {all} jobs are invalid"
        )));
    }
    Ok(jobs)
}

/// The framing that a choice means for a topic's subject.
pub(crate) fn framing<D: Document>(
    settings: &Settings,
    choice: Option<FramingChoice>,
    topic: &str,
) -> Outcome<Framing> {
    Ok(match choice {
        Some(FramingChoice::Json) => Framing::Json,
        Some(FramingChoice::SingleObject) => Framing::SingleObject,
        None if settings.schema_registry_url.is_none() => Framing::Json,
        None | Some(FramingChoice::Confluent) => {
            let subject = format!("{topic}-value");
            let id = settings.registry()?.resolve(&subject, D::SCHEMA)?;
            let schema_id = id.ok_or_else(|| {
                Fault::Config(format!(
                    "subject {subject} has no such schema: run `guestkit-jobs schemas register`"
                ))
            })?;
            Framing::Confluent { schema_id }
        }
    })
}

/// The record for a job.
pub(crate) fn record(
    job: &JobEnvelope,
    topic: &str,
    slots: u32,
    framing: Framing,
) -> Outcome<Outgoing> {
    let value = encode(job, framing)
        .map_err(|error| Failure::usage(format!("job {}: {error}", job.job_id)))?;
    if value.len() as u64 > guestkit_kafka::topics::JOB_BYTES_MAX - 1024 {
        return Err(Failure::usage(format!(
            "job {}: its record has {} bytes, at most 1 MiB with headers can be published",
            job.job_id,
            value.len()
        )));
    }
    let key = job.idempotency_key();
    let slot = slot_of(key, slots);
    let mut list = Vec::new();
    let mut push = |name: &str, text: String| list.push((name.to_owned(), Some(text.into_bytes())));
    push(headers::CE_SPECVERSION, "1.0".to_owned());
    push(headers::CE_ID, job.job_id.clone());
    push(headers::CE_TYPE, "io.guestkit.job.v1".to_owned());
    push(headers::CE_SOURCE, "/guestkit/jobs".to_owned());
    push(headers::CE_TIME, job.created_at.to_string());
    push(headers::CONTENT_TYPE, framing.content_type().to_owned());
    if let Some(context) = TraceContext::of_document(&job.observability) {
        push(headers::TRACEPARENT, context.to_string());
    }
    Ok(Outgoing {
        topic: topic.to_owned(),
        partition: i32::try_from(slot).unwrap_or(0),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers: list,
    })
}

/// Jobs with the names of the topics of their pools.
fn pools(settings: &Settings, jobs: &mut [JobEnvelope]) -> Outcome<Vec<TopicNames>> {
    jobs.iter_mut()
        .map(|job| {
            if job.routing.worker_pool.is_none() {
                job.routing.worker_pool.clone_from(&settings.names.pool);
            }
            let pool = job.routing.worker_pool.as_deref();
            Ok(TopicNames::new(&settings.names.prefix, pool)?)
        })
        .collect()
}

/// Publishes valid jobs; with `--wait` prints their results.
pub(crate) fn publish(
    settings: &Settings,
    mut jobs: Vec<JobEnvelope>,
    how: &Publishing,
) -> Outcome {
    let connection = settings.connection()?;
    let deadline = settings.deadline();
    let names = pools(settings, &mut jobs)?;
    let wanted: BTreeSet<Permission> = names
        .iter()
        .flat_map(|names| {
            [
                Permission::topic(Operation::Describe, &names.ledger),
                Permission::topic(Operation::Write, &names.jobs),
            ]
        })
        .collect();
    let wanted: Vec<Permission> = wanted.into_iter().collect();
    let cluster = cluster_with(&connection, &wanted, settings.question())?;
    let mut sending = Sending::begin(settings, &mut jobs)?;
    let mut records = records(settings, &cluster, &jobs, &names, how)?;
    if let Some(sending) = &sending {
        sending.mark(&mut records);
    }
    // Before anything is published: a result can't be older than this.
    let ends = match how.wait {
        true => Some(extents(
            &connection,
            &settings.names.results,
            settings.question(),
        )?),
        false => None,
    };
    let published = send(
        &connection,
        settings,
        &jobs,
        &records,
        how.wait,
        sending.as_mut(),
    );
    if let Some(sending) = &sending {
        sending.close();
    }
    let published = published?;
    match ends {
        Some(ends) => wait(settings, &connection, &jobs, &ends, deadline),
        None => {
            eprintln!("{published} jobs published");
            Ok(())
        }
    }
}

fn records(
    settings: &Settings,
    cluster: &Cluster,
    jobs: &[JobEnvelope],
    names: &[TopicNames],
    how: &Publishing,
) -> Outcome<Vec<Outgoing>> {
    let mut framings = BTreeMap::new();
    let mut records = Vec::with_capacity(jobs.len());
    for (job, names) in jobs.iter().zip(names) {
        let slots = cluster.partitions(&names.ledger)?;
        let jobs_count = cluster.partitions(&names.jobs)?;
        if jobs_count < slots {
            return Err(Failure::usage(format!(
                "topic {} has {jobs_count} partitions, its ledger {slots}: see `guestkit-jobs topics check`",
                names.jobs
            )));
        }
        let framing = match framings.get(&names.jobs) {
            Some(framing) => *framing,
            None => {
                let framing = framing::<JobEnvelope>(settings, how.framing, &names.jobs)?;
                framings.insert(names.jobs.clone(), framing);
                framing
            }
        };
        records.push(record(job, &names.jobs, slots, framing)?);
    }
    Ok(records)
}

fn send(
    connection: &Connection,
    settings: &Settings,
    jobs: &[JobEnvelope],
    records: &[Outgoing],
    quiet: bool,
    mut sending: Option<&mut Sending>,
) -> Outcome<usize> {
    let producer = Producer::new(connection, settings.question())?;
    let mut deliveries = Vec::new();
    let traced = |sending: Option<&Sending>, came: &[Delivery]| {
        let Some(sending) = sending else { return };
        for delivery in came {
            let at = delivery.tag;
            if let (Some(job), Some(record)) = (jobs.get(at), records.get(at)) {
                sending.answered(at, &job.job_id, &record.topic, &delivery.outcome);
            }
        }
    };
    for (tag, record) in records.iter().enumerate() {
        if let Some(sending) = &mut sending {
            sending.queued(tag);
        }
        producer.send(record, tag)?;
        let came = producer.deliveries();
        traced(sending.as_deref(), &came);
        deliveries.extend(came);
    }
    let came = producer.finish();
    traced(sending.as_deref(), &came);
    deliveries.extend(came);
    deliveries.sort_by_key(|delivery| delivery.tag);
    let mut fault = None;
    for delivery in &deliveries {
        let (Some(job), Some(record)) = (jobs.get(delivery.tag), records.get(delivery.tag)) else {
            continue;
        };
        match &delivery.outcome {
            Ok(_) if quiet => {}
            Ok((partition, offset)) => match settings.output {
                Output::Json => output::json_line(&serde_json::json!({
                    "job_id": job.job_id,
                    "topic": record.topic,
                    "partition": partition,
                    "offset": offset,
                }))?,
                Output::Table => {
                    let id = output::clean(&job.job_id);
                    output::line(&format!("{id}  {} {partition}/{offset}", record.topic))?;
                }
            },
            Err(error) => {
                eprintln!("job {}: {error}", job.job_id);
                fault.get_or_insert_with(|| error.clone());
            }
        }
    }
    match fault {
        Some(fault) => Err(fault.into()),
        None => Ok(deliveries.len()),
    }
}

/// Whether a job ended well.
pub(crate) fn is_good(result: &JobResult) -> bool {
    result.status == JobStatus::Completed
}

fn wait(
    settings: &Settings,
    connection: &Connection,
    jobs: &[JobEnvelope],
    ends: &[Extent],
    deadline: crate::clock::Deadline,
) -> Outcome {
    let schemas = settings.schemas()?;
    let mut missing: BTreeSet<&str> = jobs.iter().map(|job| job.job_id.as_str()).collect();
    let all = missing.len();
    let start = Start::Offsets(ends.iter().map(|extent| extent.end).collect());
    let question = settings.question();
    let results = &settings.names.results;
    let mut reader = Reader::open(connection, results, &start, Until::Follow, question)?;
    let mut progress = Reader::open(
        connection,
        &settings.names.progress,
        &Start::End,
        Until::Follow,
        question,
    )
    .ok();
    let mut bar = Bar::new();
    let mut rows = Vec::new();
    let mut note = String::new();
    let mut bad = 0;
    while !missing.is_empty() {
        bar.show(all - missing.len(), all, &note);
        if let Some(Step::Record(record)) = progress
            .as_mut()
            .and_then(|reader| reader.next(Duration::ZERO).ok())
            && let Some(event) = watch::decode_progress(&record, &*schemas)
            && missing.contains(event.job_id.as_str())
        {
            note = watch::progress_words(&event);
        }
        if let Step::Record(record) = reader.next(Duration::from_millis(50))?
            && let Some(result) = decode_result(&record, &*schemas)
            && missing.remove(result.job_id.as_str())
        {
            bad += usize::from(!is_good(&result));
            match settings.output {
                Output::Json => {
                    bar.clear();
                    output::json_line(&result)?;
                }
                Output::Table => rows.push(result_row(&result)),
            }
        }
        if deadline.has_passed() && !missing.is_empty() {
            bar.clear();
            if !rows.is_empty() {
                output::table(&watch::RESULT_HEAD, &rows)?;
            }
            let because = reader
                .last_fault()
                .map_or_else(String::new, |fault| format!(" ({fault})"));
            return Err(Failure::out_of_time(format!(
                "{} of {all} results did not come in time{because}; they can be read later: guestkit-jobs results --job-id {}",
                missing.len(),
                missing.iter().next().copied().unwrap_or_default()
            )));
        }
    }
    bar.clear();
    if settings.output == Output::Table {
        output::table(&watch::RESULT_HEAD, &rows)?;
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::error(format!(
            "{bad} of {all} jobs did not complete"
        ))),
    }
}
