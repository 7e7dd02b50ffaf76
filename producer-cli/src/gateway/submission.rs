//! A request's body becomes a job: the short form is filled up, keys and ids are set, rules are checked.

use crate::gateway::job_ids::{GatewayId, job_id};
use crate::gateway::problem::{FieldProblem, Problem};
use crate::gateway::tenants::Caller;
use guestkit_kafka::nearest;
use guestkit_protocol::{
    Authorization, DEFAULT_POOL, JobEnvelope, JsonText, NoRegistry, PayloadHash, Timestamp,
    decode_job, is_idempotency_key, slot_of,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Fields of the short form, which has no `version`. A whole envelope may have any others.
const SHORT_FORM: &[&str] = &[
    "$schema",
    "audit",
    "constraints",
    "created_at",
    "execution",
    "idempotency_key",
    "job_id",
    "kind",
    "metadata",
    "observability",
    "operation",
    "payload",
    "routing",
];
/// Stands for a job id until the real one is known; lawful, and never published.
const NO_ID: &str = "gateway-will-give-one";

/// What does not come from the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Who asks.
    pub(crate) caller: &'a Caller,
    /// The header `Idempotency-Key`, as it came.
    pub(crate) header: Option<&'a str>,
    /// The gateway's pool; `None` is the default pool.
    pub(crate) pool: Option<&'a str>,
    /// How many slots there are.
    pub(crate) slots: u32,
    /// Now.
    pub(crate) now: Timestamp,
    /// Makes the key of a request that has none.
    pub(crate) random: u128,
}

/// A job ready to be published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Submission {
    /// The job, valid, under the id and key that the fleet knows.
    pub(crate) job: JobEnvelope,
    /// The key as the client knows it.
    pub(crate) client_key: String,
    /// Whether the gateway made the key.
    pub(crate) key_generated: bool,
    /// What tells payloads apart.
    pub(crate) payload: PayloadHash,
}

/// Reads a body.
///
/// # Errors
/// 400 with all fields that are wrong.
pub(crate) fn read(body: &[u8], context: Context<'_>) -> Result<Submission, Box<Problem>> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::field(
            "body",
            format!("it is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    let text = text.trim_start_matches('\u{feff}');
    match text.trim_start().bytes().next() {
        Some(b'{') => {}
        Some(b'[') => return Err(Problem::field("body", "one job a request, not a list")),
        None => return Err(Problem::field("body", "it is empty; a job is expected")),
        Some(_) => return Err(Problem::field("body", "a JSON object is expected")),
    }
    // The rules that serde_json does not have: names that come twice, half a surrogate pair, depth.
    let checked = JsonText::new(text).map_err(|fault| Problem::field("body", fault.to_string()))?;
    let mut members: BTreeMap<String, Box<RawValue>> = checked
        .read()
        .map_err(|error| Problem::field("body", error.to_string()))?;

    let body_key = take_text(&mut members, "idempotency_key")?;
    let has_id = members
        .get("job_id")
        .is_some_and(|value| value.get() != "null");
    fill(&mut members, context.now)?;
    let text = serde_json::to_string(&members)
        .map_err(|error| Problem::field("body", error.to_string()))?;
    let job = decode_job(text.as_bytes(), &NoRegistry).map_err(|error| refused(&error))?;
    finish(job, has_id, body_key, context)
}

fn finish(
    mut job: JobEnvelope,
    has_id: bool,
    body_key: Option<String>,
    context: Context<'_>,
) -> Result<Submission, Box<Problem>> {
    let header_key = context.header.map(header_key).transpose()?;
    let given = one_key([
        (
            "execution.idempotency_key",
            job.execution.idempotency_key.take(),
        ),
        ("idempotency_key", body_key),
        ("Idempotency-Key", header_key),
    ])?;
    let pool = context.pool.unwrap_or(DEFAULT_POOL);
    if let Some(wanted) = &job.routing.worker_pool
        && wanted != pool
    {
        return Err(Problem::field(
            "routing.worker_pool",
            format!("this gateway serves the pool {pool:?}"),
        ));
    }
    job.routing.worker_pool = context.pool.map(str::to_owned);

    let key_generated = given.is_none() && !has_id;
    let client_key = match given {
        Some(key) => key,
        // The protocol's own rule: without a key the job id is the key.
        None if has_id => job.job_id.clone(),
        None => format!("auto-{:032x}", context.random),
    };
    let prefix = context.caller.key_prefix();
    let key = format!("{prefix}{client_key}");
    if !is_idempotency_key(&key) {
        return Err(Problem::field(
            "idempotency_key",
            format!(
                "it has {} bytes; 1 to {} without control characters are allowed",
                client_key.len(),
                guestkit_protocol::IDEMPOTENCY_KEY_MAX - prefix.len()
            ),
        ));
    }
    let payload = job
        .payload_hash()
        .map_err(|fault| Problem::field("payload.data", fault.to_string()))?;
    let slot = slot_of(&key, context.slots);
    let own = job_id(context.caller.name(), &key, &payload, slot);
    if !has_id || *context.caller != Caller::Anyone {
        // With tokens an id must not be the client's choice: it decides who may ask for it.
        job.job_id = own;
    } else if job.job_id != own && GatewayId::parse(&job.job_id).is_some() {
        // It would be looked for in the slot that it names.
        return Err(Problem::field(
            "job_id",
            "it looks like one that a gateway gives, and is not that of this request; leave it out",
        ));
    }
    job.execution.idempotency_key = Some(key);
    if let Caller::Tenant(name) = context.caller {
        // What a client says of its own authorisation counts for nothing.
        job.audit.authorization = Some(Authorization {
            method: Some("bearer".to_owned()),
            subject: Some(name.clone()),
            extensions: Default::default(),
        });
    }
    Ok(Submission {
        job,
        client_key,
        key_generated,
        payload,
    })
}

/// Adds what the short form leaves out.
fn fill(members: &mut BTreeMap<String, Box<RawValue>>, now: Timestamp) -> Result<(), Box<Problem>> {
    let is_short = !members.contains_key("version");
    if is_short {
        let unknown: Vec<_> = members
            .keys()
            .filter(|name| !SHORT_FORM.contains(&name.as_str()))
            .map(|name| FieldProblem {
                field: name.clone(),
                reason: match nearest(name, SHORT_FORM.iter().copied()) {
                    Some(near) => format!("unknown; did you mean {near}?"),
                    None => "unknown in the short form; a whole envelope has a version".to_owned(),
                },
            })
            .collect();
        if !unknown.is_empty() {
            return Err(Problem::fields(unknown));
        }
        let operation = take_text(members, "operation")?
            .ok_or_else(|| Problem::field("operation", "it is missing"))?;
        let payload = members
            .remove("payload")
            .ok_or_else(|| Problem::field("payload", "it is missing"))?;
        let payload = if is_typed(&payload) {
            payload
        } else {
            let name = text_value(&format!("{operation}.v1"))?;
            raw(&format!(
                "{{\"type\":{},\"data\":{}}}",
                name.get(),
                payload.get()
            ))?
        };
        members.insert(
            "version".to_owned(),
            text_value(guestkit_protocol::VERSION)?,
        );
        members.insert("operation".to_owned(), text_value(&operation)?);
        members.insert("payload".to_owned(), payload);
    }
    for (name, value) in [
        ("kind", guestkit_protocol::KIND.to_owned()),
        ("created_at", now.to_string()),
        ("job_id", NO_ID.to_owned()),
    ] {
        if members.get(name).is_none_or(|value| value.get() == "null") {
            members.insert(name.to_owned(), text_value(&value)?);
        }
    }
    Ok(())
}

/// Whether a short form's payload is written as the envelope has it: exactly `type`, with a version, and `data`.
fn is_typed(payload: &RawValue) -> bool {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(payload.get()) else {
        return false;
    };
    let name = members
        .get("type")
        .and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    members.len() == 2
        && members.contains_key("data")
        && name.is_some_and(|name| {
            name.rsplit_once(".v")
                .is_some_and(|(_, number)| number.parse::<u32>().is_ok())
        })
}

/// Takes a member that is a string; null counts as absent.
fn take_text(
    members: &mut BTreeMap<String, Box<RawValue>>,
    name: &str,
) -> Result<Option<String>, Box<Problem>> {
    match members.remove(name) {
        None => Ok(None),
        Some(value) => serde_json::from_str(value.get())
            .map_err(|_| Problem::field(name, "a string is expected")),
    }
}

fn text_value(text: &str) -> Result<Box<RawValue>, Box<Problem>> {
    serde_json::value::to_raw_value(text).map_err(|error| Problem::internal(error.to_string()))
}

fn raw(text: &str) -> Result<Box<RawValue>, Box<Problem>> {
    RawValue::from_string(text.to_owned()).map_err(|error| Problem::internal(error.to_string()))
}

/// The header's value: bare, or in quotes as its specification has it.
fn header_key(value: &str) -> Result<String, Box<Problem>> {
    let value = value.trim();
    let Some(quoted) = value.strip_prefix('"') else {
        return Ok(value.to_owned());
    };
    let refuse = || Problem::field("Idempotency-Key", "the quotes do not match");
    let inner = quoted.strip_suffix('"').ok_or_else(refuse)?;
    let mut key = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => key.push(letters.next().ok_or_else(refuse)?),
            '"' => return Err(refuse()),
            other => key.push(other),
        }
    }
    Ok(key)
}

/// The key, if the places that name one agree.
fn one_key(places: [(&str, Option<String>); 3]) -> Result<Option<String>, Box<Problem>> {
    let mut found: Option<(&str, String)> = None;
    for (place, key) in places {
        let Some(key) = key else { continue };
        if !is_idempotency_key(&key) {
            return Err(Problem::field(
                place,
                format!(
                    "it has {} bytes; 1 to {} without control characters are allowed",
                    key.len(),
                    guestkit_protocol::IDEMPOTENCY_KEY_MAX
                ),
            ));
        }
        match &found {
            Some((first, other)) if *other != key => {
                return Err(Problem::field(
                    place,
                    format!("it is not the key of {first}"),
                ));
            }
            _ => found = Some((place, key)),
        }
    }
    Ok(found.map(|(_, key)| key))
}

fn refused(error: &guestkit_protocol::DecodeError) -> Box<Problem> {
    let Some(invalid) = error.invalid() else {
        return Problem::internal(error.to_string());
    };
    if invalid.fields.is_empty() {
        let (field, reason) = place(&invalid.reason);
        return Problem::field(field, reason);
    }
    let fields = invalid.fields.iter().map(|error| FieldProblem {
        field: error.field.to_owned(),
        reason: error.reason.clone(),
    });
    Problem::fields(fields.collect())
}

/// The field that a reader's message is about: `execution.priority: …` or ``missing field `x` ``.
fn place(reason: &str) -> (String, String) {
    // Positions are those of the text that was put together here.
    let reason = reason
        .rsplit_once(" at line ")
        .map_or(reason, |(before, _)| before);
    let (path, rest) = match reason.split_once(": ") {
        Some((path, rest)) if !path.is_empty() && !path.contains(' ') => (path, rest),
        _ => ("", reason),
    };
    let missing = rest
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    match (path, missing) {
        ("", Some(name)) => (name.to_owned(), "it is missing".to_owned()),
        (path, Some(name)) => (format!("{path}.{name}"), "it is missing".to_owned()),
        ("", None) => ("body".to_owned(), rest.to_owned()),
        (path, None) => (path.to_owned(), rest.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(caller: &'a Caller, header: Option<&'a str>) -> Context<'a> {
        Context {
            caller,
            header,
            pool: None,
            slots: 12,
            now: Timestamp::from_millis(1_000),
            random: 7,
        }
    }

    fn open(body: &str) -> Result<Submission, Box<Problem>> {
        read(body.as_bytes(), context(&Caller::Anyone, None))
    }

    #[test]
    fn the_short_form_is_filled_up() {
        let found = open(r#"{"operation":"system.echo","payload":{"a":1.50}}"#).unwrap();
        assert_eq!(found.job.payload.r#type, "system.echo.v1");
        assert_eq!(found.job.payload.data.as_str(), r#"{"a":1.50}"#);
        assert!(found.key_generated && found.job.job_id.starts_with("gw-"));
        let typed = open(
            r#"{"operation":"a.b","payload":{"type":"a.b.v2","data":[1]},"idempotency_key":"k"}"#,
        )
        .unwrap();
        assert_eq!(typed.job.payload.r#type, "a.b.v2");
        assert_eq!(
            (typed.client_key.as_str(), typed.key_generated),
            ("k", false)
        );
        let again =
            open(r#"{"payload":{"data":[1],"type":"a.b.v2"},"operation":"a.b","execution":{"idempotency_key":"k","priority":9}}"#)
                .unwrap();
        assert_eq!(
            typed.job.job_id, again.job.job_id,
            "the same request has the same id"
        );
    }

    #[test]
    fn a_whole_envelope_keeps_its_id_where_there_are_no_tokens() {
        let body = include_str!("../../../schemas/examples/echo.json");
        let found = open(body).unwrap();
        assert_eq!(found.job.job_id, "echo-0001");
        assert_eq!(found.job.idempotency_key(), "echo-0001");
        let acme = Caller::Tenant("acme".to_owned());
        let found = read(body.as_bytes(), context(&acme, None)).unwrap();
        assert_eq!(found.job.idempotency_key(), "acme/echo-0001");
        assert_eq!(found.client_key, "echo-0001");
        assert!(found.job.job_id.starts_with("gw-"));
        let subject = found.job.audit.authorization.unwrap().subject;
        assert_eq!(subject.as_deref(), Some("acme"));
    }

    #[test]
    fn ids_of_gateways_are_not_for_others() {
        let body = |id: &str, data: u32| {
            format!(
                r#"{{"operation":"a.b","payload":{data},"idempotency_key":"k","job_id":"{id}"}}"#
            )
        };
        let id = open(r#"{"operation":"a.b","payload":1,"idempotency_key":"k"}"#)
            .unwrap()
            .job
            .job_id;
        assert_eq!(open(&body(&id, 1)).unwrap().job.job_id, id);
        let problem = open(&body(&id, 2)).unwrap_err();
        assert_eq!(problem.field_names(), ["job_id"]);
    }

    #[test]
    fn the_key_may_come_as_header_but_only_one() {
        let with =
            |header, body: &str| read(body.as_bytes(), context(&Caller::Anyone, Some(header)));
        let plain = r#"{"operation":"a.b","payload":1}"#;
        assert_eq!(with("k 1", plain).unwrap().client_key, "k 1");
        assert_eq!(with(r#""k\"1""#, plain).unwrap().client_key, "k\"1");
        let same = r#"{"operation":"a.b","payload":1,"idempotency_key":"k"}"#;
        assert_eq!(with("\"k\"", same).unwrap().client_key, "k");
        for header in ["j", "\"k", "", "\"a\"b\""] {
            let problem = with(header, same).unwrap_err();
            assert_eq!(problem.field_names(), ["Idempotency-Key"], "{header}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            ("", "body"),
            ("[]", "body"),
            ("1", "body"),
            ("{", "body"),
            (r#"{"a":1,"a":2}"#, "body"),
            ("{}", "operation"),
            (r#"{"operation":"a.b"}"#, "payload"),
            (r#"{"operation":"a.b","payload":1,"priorty":3}"#, "priorty"),
            (r#"{"operation":"echo","payload":1}"#, "operation"),
            (r#"{"operation":7,"payload":1}"#, "operation"),
            (
                r#"{"operation":"a.b","payload":1,"idempotency_key":""}"#,
                "idempotency_key",
            ),
            (r#"{"operation":"a.b","payload":1,"job_id":"x"}"#, "job_id"),
            (r#"{"operation":"a.b","payload":1,"job_id":7}"#, "job_id"),
            (
                r#"{"operation":"a.b","payload":1,"execution":{"priority":11}}"#,
                "execution.priority",
            ),
            (
                r#"{"operation":"a.b","payload":1,"execution":{"priority":"x"}}"#,
                "execution.priority",
            ),
            (
                r#"{"operation":"a.b","payload":1,"routing":{"worker_pool":"gpu"}}"#,
                "routing.worker_pool",
            ),
            (r#"{"version":"1.0"}"#, "operation"),
            (
                r#"{"version":null,"operation":"a.b","payload":{"type":"a.b.v1","data":1}}"#,
                "version",
            ),
            (
                r#"{"version":"1.0","operation":"a.b","payload":{"type":"a.b.v1"}}"#,
                "payload.data",
            ),
            (
                r#"{"version":"2.0","operation":"a.b","payload":{"type":"a.b.v1","data":1}}"#,
                "version",
            ),
        ] {
            let problem = open(body).unwrap_err();
            assert_eq!(problem.status(), 400, "{body}");
            assert!(
                problem.field_names().contains(&field),
                "{body}: {problem:?}"
            );
        }
        assert!(read(&[b'{', 0xff], context(&Caller::Anyone, None)).is_err());
        let long = format!(
            r#"{{"operation":"a.b","payload":1,"idempotency_key":"{}"}}"#,
            "k".repeat(510)
        );
        assert!(open(&long).is_ok());
        let acme = Caller::Tenant("acme".to_owned());
        let problem = read(long.as_bytes(), context(&acme, None)).unwrap_err();
        assert_eq!(problem.field_names(), ["idempotency_key"]);
    }
}
