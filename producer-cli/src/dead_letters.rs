//! Dead letters: list, show, replay. Their bytes and headers are as the producer sent them.

use crate::cli::{DeadLettersCommand, Output};
use crate::clock::Deadline;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::settings::{Settings, since};
use guestkit_kafka::produce::{Outgoing, Producer};
use guestkit_kafka::reader::{Reader, Record, Start, Step, Until};
use guestkit_protocol::headers;
use serde_json::json;
use std::io::Write;
use std::time::Duration;

/// `dead-letters`.
pub(crate) fn run(settings: &Settings, command: &DeadLettersCommand) -> Outcome {
    match command {
        DeadLettersCommand::List { since } => list(settings, since.as_deref()),
        DeadLettersCommand::Show { id, raw } => show(settings, id, *raw),
        DeadLettersCommand::Replay { ids } => replay(settings, ids),
    }
}

fn list(settings: &Settings, since_text: Option<&str>) -> Outcome {
    let start = match since_text {
        Some(text) => Start::Timestamp(since(text)?),
        None => Start::Beginning,
    };
    let mut rows = Vec::new();
    read(settings, &start, |record| {
        if settings.output == Output::Json {
            output::json_line(&describe(&record))?;
        } else {
            let header = |name| record.header(name).unwrap_or_default();
            rows.push(vec![
                format!("{}/{}", record.partition, record.offset),
                header(headers::TIME),
                header(headers::REASON),
                key_text(&record),
                header(headers::ERROR),
            ]);
        }
        Ok(true)
    })?;
    if settings.output == Output::Table {
        output::table(&["ID", "TIME", "REASON", "KEY", "ERROR"], &rows)?;
    }
    Ok(())
}

fn show(settings: &Settings, id: &str, raw: bool) -> Outcome {
    let record = fetch(settings, id)?;
    let value = record.value.as_deref().unwrap_or_default();
    if raw {
        let mut out = std::io::stdout().lock();
        out.write_all(value)?;
        return Ok(out.flush()?);
    }
    if settings.output == Output::Json {
        let mut document = describe(&record);
        document["value_hex"] = json!(hex::encode(value));
        return output::json_line(&document);
    }
    output::line(&format!("id       {id}"))?;
    output::line(&format!("key      {}", output::clean(&key_text(&record))))?;
    for (name, value) in &record.headers {
        let value = String::from_utf8_lossy(value.as_deref().unwrap_or_default());
        output::line(&format!(
            "header   {}: {}",
            output::clean(name),
            output::clean(&value)
        ))?;
    }
    output::line(&format!("value    {} bytes", value.len()))?;
    for (row, bytes) in value.chunks(16).enumerate() {
        let text: String = bytes
            .iter()
            .map(|byte| {
                if (0x20..0x7f).contains(byte) {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        output::line(&format!(
            "{:08x}  {:<32}  {text}",
            row * 16,
            hex::encode(bytes)
        ))?;
    }
    Ok(())
}

fn replay(settings: &Settings, ids: &[String]) -> Outcome {
    let connection = settings.connection()?;
    let records = ids
        .iter()
        .map(|id| again(id, fetch(settings, id)?))
        .collect::<Outcome<Vec<_>>>()?;
    let producer = Producer::new(&connection, settings.question())?;
    for (tag, record) in records.iter().enumerate() {
        producer.send(record, tag)?;
    }
    for delivery in producer.finish() {
        let (partition, offset) = delivery.outcome?;
        if let (Some(id), Some(record)) = (ids.get(delivery.tag), records.get(delivery.tag)) {
            output::line(&format!("{id}  {} {partition}/{offset}", record.topic))?;
        }
    }
    Ok(())
}

/// The record as it came, for where it came from.
fn again(id: &str, record: Record) -> Outcome<Outgoing> {
    let missing = |name: &str| Failure::error(format!("dead letter {id} has no header {name}"));
    let topic = record
        .header(headers::SOURCE_TOPIC)
        .ok_or_else(|| missing(headers::SOURCE_TOPIC))?;
    let partition = record
        .header(headers::SOURCE_PARTITION)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| missing(headers::SOURCE_PARTITION))?;
    let own = record.headers.into_iter();
    Ok(Outgoing {
        topic,
        partition,
        key: record.key,
        value: record.value,
        headers: own
            .filter(|(name, _)| !name.starts_with("guestkit_"))
            .collect(),
    })
}

fn key_text(record: &Record) -> String {
    match record.key.as_deref() {
        None => "-".to_owned(),
        Some(key) => std::str::from_utf8(key).map_or_else(|_| hex::encode(key), str::to_owned),
    }
}

fn describe(record: &Record) -> serde_json::Value {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| {
            json!([
                name,
                value
                    .as_deref()
                    .map(|value| String::from_utf8_lossy(value).into_owned())
            ])
        })
        .collect();
    json!({
        "id": format!("{}/{}", record.partition, record.offset),
        "partition": record.partition,
        "offset": record.offset,
        "time": record.header(headers::TIME),
        "reason": record.header(headers::REASON),
        "error": record.header(headers::ERROR),
        "source_topic": record.header(headers::SOURCE_TOPIC),
        "source_partition": record.header(headers::SOURCE_PARTITION),
        "source_offset": record.header(headers::SOURCE_OFFSET),
        "key": key_text(record),
        "value_bytes": record.value.as_ref().map(Vec::len),
        "headers": headers,
    })
}

/// `PARTITION/OFFSET`.
fn parse_id(id: &str) -> Outcome<(i32, i64)> {
    id.split_once('/')
        .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)))
        .ok_or_else(|| Failure::usage(format!("{id:?} is not PARTITION/OFFSET, such as 3/17")))
}

fn fetch(settings: &Settings, id: &str) -> Outcome<Record> {
    let (partition, offset) = parse_id(id)?;
    let mut found = None;
    read(settings, &Start::Record { partition, offset }, |record| {
        if record.offset == offset {
            found = Some(record);
        }
        Ok(false)
    })?;
    found.ok_or_else(|| {
        Failure::usage(format!(
            "there is no dead letter at {id}: see `guestkit-jobs dead-letters list`"
        ))
    })
}

fn read(
    settings: &Settings,
    start: &Start,
    mut each: impl FnMut(Record) -> Outcome<bool>,
) -> Outcome {
    let connection = settings.connection()?;
    let topic = &settings.names.dead_letters;
    let question = settings.question();
    let mut reader = Reader::open(&connection, topic, start, Until::End, question)?;
    let mut deadline = Deadline::of(Some(question));
    loop {
        match reader.next(Duration::from_millis(100))? {
            Step::Done => return Ok(()),
            Step::Idle if deadline.has_passed() => {
                return Err(match reader.last_fault() {
                    Some(fault) => fault.clone().into(),
                    None => Failure::out_of_time("the time ran out"),
                });
            }
            Step::Idle => {}
            Step::Record(record) => {
                if !each(record)? {
                    return Ok(());
                }
                deadline = Deadline::of(Some(question));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_partition_and_offset() {
        assert_eq!(parse_id("3/17").unwrap(), (3, 17));
        for id in ["3", "3/", "a/1", "3/17/2", ""] {
            assert_eq!(parse_id(id).unwrap_err().code, 2, "{id}");
        }
    }

    #[test]
    fn a_replay_is_the_record_as_it_came() {
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let record = Record {
            partition: 0,
            offset: 1,
            timestamp_ms: None,
            key: None,
            value: Some(vec![1, 2]),
            headers: vec![
                header("mine", "1"),
                header(headers::SOURCE_TOPIC, "vm.jobs"),
                header(headers::SOURCE_PARTITION, "7"),
            ],
        };
        let outgoing = again("0/1", record.clone()).unwrap();
        assert_eq!((&*outgoing.topic, outgoing.partition), ("vm.jobs", 7));
        assert_eq!(outgoing.headers, [header("mine", "1")]);
        assert_eq!(outgoing.value, record.value);
        let headless = Record {
            headers: Vec::new(),
            ..record
        };
        assert!(again("0/1", headless).is_err());
    }
}
