//! Topics, schemas and cancelling.

use crate::acls;
use crate::cli::{Output, SchemasCommand, TopicsCommand};
use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::publish::framing;
use crate::settings::Settings;
use guestkit_kafka::acls::{Operation, Permission};
use guestkit_kafka::metadata::{cluster, cluster_with};
use guestkit_kafka::produce::{Outgoing, Producer};
use guestkit_kafka::registry::{COMPATIBILITY, subjects};
use guestkit_kafka::topics::{self, Created};
use guestkit_protocol::{JobControl, encode, is_job_id, slot_of};
use serde_json::json;

/// `topics`.
pub(crate) fn topics(settings: &Settings, command: &TopicsCommand) -> Outcome {
    if let TopicsCommand::Acls(options) = command {
        return acls::run(settings, options);
    }
    let connection = settings.connection()?;
    let question = settings.question();
    let names = &settings.names;
    match command {
        TopicsCommand::Create {
            partitions,
            replication_factor,
        } => {
            let created = topics::create(
                &connection,
                names,
                *partitions,
                *replication_factor,
                question,
            )?;
            for (topic, created) in created {
                let (word, count) = match created {
                    Created::New(count) => ("created", count),
                    Created::Found(count) => ("found", count),
                };
                match settings.output {
                    Output::Json => output::json_line(
                        &json!({"topic": topic, "state": word, "partitions": count}),
                    )?,
                    Output::Table => {
                        output::line(&format!("{word:<8} {topic} ({count} partitions)"))?
                    }
                }
            }
            let ledger = cluster(&connection, question)?.partitions(&names.ledger)?;
            if ledger != *partitions {
                eprintln!(
                    "the ledger has {ledger} partitions, which is fixed; {partitions} were asked for"
                );
            }
        }
        TopicsCommand::Check | TopicsCommand::Acls(_) => {}
    }
    // What create found may be wrong too.
    let findings = topics::check(&connection, names, question)?;
    for finding in &findings {
        match (settings.output, command) {
            (Output::Json, TopicsCommand::Check) => output::json_line(&json!({
                "topic": finding.topic,
                "error": finding.is_error,
                "problem": finding.problem,
                "remedy": finding.remedy,
            }))?,
            (Output::Table, TopicsCommand::Check) => output::line(&finding.to_string())?,
            _ => eprintln!("{finding}"),
        }
    }
    match findings.iter().filter(|finding| finding.is_error).count() {
        0 => {
            if findings.is_empty() && matches!(command, TopicsCommand::Check) {
                eprintln!("all topics are as they should be");
            }
            Ok(())
        }
        errors => Err(Failure::error(format!("{errors} errors in the topics"))),
    }
}

/// `schemas`.
pub(crate) fn schemas(settings: &Settings, command: &SchemasCommand) -> Outcome {
    let registry = settings.registry()?;
    let mut wrong = 0;
    for subject in subjects(&settings.names) {
        let (state, id) = match command {
            SchemasCommand::Register => {
                let id = registry.register(&subject.name, subject.schema)?;
                ("registered".to_owned(), Some(id))
            }
            SchemasCommand::Check => {
                let id = registry.resolve(&subject.name, subject.schema)?;
                let compatibility = registry.compatibility(&subject.name)?;
                let breaches = match id {
                    Some(_) => Vec::new(),
                    None => registry.breaches(&subject.name, subject.schema)?,
                };
                let state = match (id, compatibility.as_deref()) {
                    (None, _) if !breaches.is_empty() => {
                        format!("not {COMPATIBILITY}: {}", breaches.join("; "))
                    }
                    (None, _) => "missing: run `guestkit-jobs schemas register`".to_owned(),
                    (Some(_), Some(COMPATIBILITY)) => "ok".to_owned(),
                    (Some(_), found) => format!(
                        "its compatibility is {}, not {COMPATIBILITY}: run `guestkit-jobs schemas register`",
                        found.unwrap_or("not set")
                    ),
                };
                wrong += usize::from(state != "ok");
                (state, id)
            }
        };
        match settings.output {
            Output::Json => output::json_line(&json!({
                "subject": subject.name,
                "document": subject.document,
                "id": id,
                "state": state,
            }))?,
            Output::Table => {
                let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                output::line(&format!("{:<40} {id:>5}  {state}", subject.name))?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::error(format!(
            "{wrong} subjects are not as they should be"
        ))),
    }
}

/// `cancel`.
pub(crate) fn cancel(settings: &Settings, job_id: &str, reason: Option<String>) -> Outcome {
    if !is_job_id(job_id) {
        return Err(Failure::usage(format!("{job_id:?} is no job id")));
    }
    let connection = settings.connection()?;
    let topic = &settings.names.control;
    let count = {
        let need = [Permission::topic(Operation::Write, topic)];
        cluster_with(&connection, &need, settings.question())?.partitions(topic)?
    };
    let mut request = JobControl::cancel(job_id, clock::now());
    request.reason = reason;
    let framing = framing::<JobControl>(settings, None, topic)?;
    let producer = Producer::new(&connection, settings.question())?;
    let record = Outgoing {
        topic: topic.clone(),
        partition: i32::try_from(slot_of(job_id, count)).unwrap_or(0),
        key: Some(job_id.as_bytes().to_vec()),
        value: Some(encode(&request, framing).map_err(Failure::error)?),
        headers: Vec::new(),
    };
    producer.send(&record, 0)?;
    for delivery in producer.finish() {
        delivery.outcome?;
    }
    eprintln!("asked to cancel {job_id}");
    Ok(())
}
