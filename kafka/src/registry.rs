//! Schemas from a registry that speaks Confluent's API.
//!
//! schema_registry_converter fetches and parses; this module decides what to believe. A schema is kept for
//! ever; a fault is not: it is answered from memory only for a short, growing while, so that a registry that
//! is down is not flooded and a blip makes no id undecodable. "Unknown" is final only when the registry
//! proves, for a while, that it has its schemas and not this one.
//!
//! Calls run on one small runtime of their own; the synchronous side waits a bounded time and finds the
//! answer in the cache when it asks again.

use crate::fault::Fault;
use crate::registry_access::RegistryAccess;
use crate::secret::Secret;
use guestkit_protocol::compatibility::breaches;
use guestkit_protocol::{
    Document, JobControl, JobEnvelope, JobOutcome, JobProgress, JobResult, LedgerEntry,
    SchemaFault, SchemaSource, WorkerAdvertisement, WriterSchema,
};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::schema_registry_common::SchemaType;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::topics::TopicNames;

/// The compatibility that every subject gets.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// How patient the registry's client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a synchronous question waits before it says "unavailable".
    pub answer: Duration,
    /// How long one HTTP request may take.
    pub request: Duration,
    /// For how long the registry must keep saying that an id is unknown.
    pub unknown: Duration,
    /// The first pause after a fault; it doubles.
    pub pause_min: Duration,
    /// The longest pause after a fault, and how long a final "unknown" is kept.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(2),
            request: Duration::from_secs(5),
            unknown: Duration::from_secs(60),
            pause_min: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// A subject with the schema that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `<topic>-value`.
    pub name: String,
    /// The document, for example `JobEnvelope`.
    pub document: &'static str,
    /// The exact bytes to register.
    pub schema: &'static str,
}

/// The subjects of all topics that carry our documents. Dead letters are the producers' bytes and have none.
pub fn subjects(names: &TopicNames) -> Vec<Subject> {
    fn subject<D: Document>(topic: &str) -> Subject {
        Subject {
            name: format!("{topic}-value"),
            document: D::NAME,
            schema: D::SCHEMA,
        }
    }
    vec![
        subject::<JobEnvelope>(&names.jobs),
        subject::<LedgerEntry>(&names.ledger),
        subject::<JobResult>(&names.results),
        subject::<JobProgress>(&names.progress),
        subject::<JobOutcome>(&names.outcomes),
        subject::<JobControl>(&names.control),
        subject::<WorkerAdvertisement>(&names.workers),
    ]
}

/// A [`SchemaSource`] over a registry.
pub struct RegistrySchemas {
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    url: String,
    access: RegistryAccess,
    http: reqwest::Client,
    converter: SrSettings,
    patience: Patience,
    entries: Mutex<HashMap<u32, Entry>>,
    changed: Condvar,
}

/// What is known about an id.
enum Entry {
    /// For ever.
    Known(Arc<WriterSchema>),
    /// For ever too: the text behind an id never changes.
    Unsuitable(String),
    /// A request is under way.
    Asking { history: History },
    /// Not known; ask again from `retry` on.
    Fault {
        fault: SchemaFault,
        retry: Moment,
        history: History,
    },
}

/// What earlier answers were.
#[derive(Clone, Copy, Default)]
struct History {
    /// Faults in a row.
    faults: u32,
    /// Since when every answer was a proven "unknown".
    unknown_since: Option<Moment>,
}

/// One answer of the registry.
enum Answer {
    Schema(String),
    /// It has no such id, answers `/subjects` and has a schema known to us.
    ProvenUnknown,
    Fault(String),
}

/// Ids that are remembered; hostile producers can name 2^32 of them.
const ENTRIES_MAX: usize = 10_000;
/// Versions of a subject that a new one is compared with here; the registry compares with all.
const VERSIONS_MAX: usize = 100;

impl RegistrySchemas {
    /// A client of the registry at `url`, which may hold `user:password@`.
    ///
    /// # Errors
    /// [`Fault::Config`] for a text that is no URL.
    pub fn new(url: &str, patience: Patience) -> Result<Self, Fault> {
        Self::with(url, &RegistryAccess::default(), patience)
    }

    /// The same for a registry that does not let everybody in.
    ///
    /// # Errors
    /// [`Fault::Config`] for a text that is no URL, and for certificates that cannot be read.
    pub fn with(url: &str, access: &RegistryAccess, patience: Patience) -> Result<Self, Fault> {
        let mut parsed = reqwest::Url::parse(url)
            .map_err(|error| Fault::Config(format!("schema registry URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Fault::Config(
                "schema registry URL: it begins with http:// or https://".to_owned(),
            ));
        }
        let access = access.take_from(&mut parsed)?;
        let url = parsed.as_str().trim_end_matches('/').to_owned();
        let built = |error: &dyn std::fmt::Display| {
            Fault::Config(format!("schema registry client: {error}"))
        };
        let http = access
            .client()?
            .timeout(patience.request)
            .build()
            .map_err(|error| built(&error))?;
        let mut converter = SrSettings::new_builder(url.clone());
        converter.set_timeout(patience.request);
        if let Some(user) = &access.user {
            let password = access.password.as_ref().map(Secret::reveal);
            converter.set_basic_authorization(user, password);
        }
        let converter = converter
            .build_with(access.client()?)
            .map_err(|error| built(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("schema-registry")
            .enable_all()
            .build()
            .map_err(|error| Fault::other("start the schema registry's thread", error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                url,
                access,
                http,
                converter,
                patience,
                entries: Mutex::default(),
                changed: Condvar::new(),
            }),
            runtime: Some(runtime),
        })
    }

    /// Registers a schema, exactly these bytes, with [`COMPATIBILITY`]; the answer is its id. Idempotent.
    ///
    /// A registry says that a schema is incompatible, at best with the number of a field; so the versions
    /// are compared here first, and what is refused has a name.
    ///
    /// # Errors
    /// See [`Fault`]; [`Fault::Config`] when it is not compatible with a version that is there, or when the
    /// registry does not keep the compatibility that it was told.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, Fault> {
        let path = format!("/config/{subject}");
        let body = json!({ "compatibility": COMPATIBILITY });
        self.run(self.shared.call(Method::Put, &path, Some(&body)))?;
        let kept = self.compatibility(subject)?;
        if kept.as_deref() != Some(COMPATIBILITY) {
            let kept = kept.as_deref().unwrap_or("not set");
            return Err(Fault::Config(format!(
                "the compatibility of subject {subject} stays {kept}: the schema registry does not keep {COMPATIBILITY}"
            )));
        }
        if let Some(id) = self.resolve(subject, schema)? {
            return Ok(id);
        }
        let breaches = self.breaches(subject, schema)?;
        if !breaches.is_empty() {
            return Err(Fault::Config(format!(
                "the schema of subject {subject} is not {COMPATIBILITY}: {}",
                breaches.join("; ")
            )));
        }
        self.run(async {
            let path = format!("/subjects/{subject}/versions");
            let body = json!({ "schema": schema });
            let answer = self.shared.call(Method::Post, &path, Some(&body)).await?;
            id_of(&answer)
        })
    }

    /// What a schema breaks with the versions of a subject, in both directions, with the names of the
    /// fields; empty when nothing, or when there is no version.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn breaches(&self, subject: &str, schema: &str) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        for (version, registered) in self.versions(subject)? {
            for (writer, reader, way) in [
                (&registered[..], schema, "cannot read records of"),
                (schema, &registered[..], "writes what is not readable by"),
            ] {
                let breaches = breaches(writer, reader).unwrap_or_else(|reason| vec![reason]);
                let named = breaches
                    .iter()
                    .map(|breach| format!("it {way} version {version}: {breach}"));
                found.extend(named);
            }
        }
        Ok(found)
    }

    /// The newest versions of a subject with their texts; none when there is no such subject.
    fn versions(&self, subject: &str) -> Result<Vec<(u64, String)>, Fault> {
        self.run(async {
            let path = format!("/subjects/{subject}/versions");
            let numbers = match self.shared.request(Method::Get, &path, None).await? {
                (200, Value::Array(numbers)) => numbers,
                (404, _) => return Ok(Vec::new()),
                (status, answer) => return Err(refused(&path, status, &answer)),
            };
            let mut versions = Vec::new();
            for number in numbers
                .iter()
                .rev()
                .take(VERSIONS_MAX)
                .filter_map(Value::as_u64)
            {
                let path = format!("{path}/{number}");
                let answer = self.shared.call(Method::Get, &path, None).await?;
                if let Some(text) = answer.get("schema").and_then(Value::as_str) {
                    versions.push((number, text.to_owned()));
                }
            }
            Ok(versions)
        })
    }

    /// The id of exactly this schema in a subject; `None` when it is not registered there.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn resolve(&self, subject: &str, schema: &str) -> Result<Option<u32>, Fault> {
        self.run(async {
            let path = format!("/subjects/{subject}");
            let body = json!({ "schema": schema });
            match self
                .shared
                .request(Method::Post, &path, Some(&body))
                .await?
            {
                (200, answer) => id_of(&answer).map(Some),
                (404, _) => Ok(None),
                (status, answer) => Err(refused(&path, status, &answer)),
            }
        })
    }

    /// The compatibility that is set for a subject; `None` when it has none of its own.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn compatibility(&self, subject: &str) -> Result<Option<String>, Fault> {
        self.run(async {
            let path = format!("/config/{subject}");
            match self.shared.request(Method::Get, &path, None).await? {
                (200, answer) => Ok(["compatibilityLevel", "compatibility"]
                    .iter()
                    .find_map(|name| answer.get(name)?.as_str())
                    .map(str::to_owned)),
                (404, _) => Ok(None),
                (status, answer) => Err(refused(&path, status, &answer)),
            }
        })
    }

    /// Whatever may come of it, within the time that all requests of one question may take.
    fn run<T: Send>(
        &self,
        work: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let Some(runtime) = &self.runtime else {
            return Err(Fault::other("ask the schema registry", "it is closed"));
        };
        crate::wait::block_on(runtime, work)
    }
}

impl Drop for RegistrySchemas {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl SchemaSource for RegistrySchemas {
    fn writer_schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        let unavailable = || SchemaFault::Unavailable {
            reason: format!("it did not answer in time about schema id {id}"),
        };
        let runtime = self.runtime.as_ref().ok_or_else(unavailable)?;
        let shared = &self.shared;
        let deadline = Moment::now().after(shared.patience.answer);
        let mut entries = shared.entries();
        loop {
            let now = Moment::now();
            let history = match entries.get(&id) {
                Some(Entry::Known(schema)) => return Ok(schema.clone()),
                Some(Entry::Unsuitable(reason)) => {
                    let reason = reason.clone();
                    return Err(SchemaFault::Unsuitable { id, reason });
                }
                Some(Entry::Fault { fault, retry, .. }) if now < *retry => {
                    return Err(fault.clone());
                }
                Some(Entry::Asking { .. }) => {
                    let Some(left) = deadline.since(now) else {
                        return Err(unavailable());
                    };
                    entries = shared
                        .changed
                        .wait_timeout(entries, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    continue;
                }
                Some(Entry::Fault { history, .. }) => *history,
                None => History::default(),
            };
            make_room(&mut entries, now);
            entries.insert(id, Entry::Asking { history });
            let shared = shared.clone();
            runtime.spawn(async move {
                let answer = shared.ask(id).await;
                shared.note(id, answer);
            });
        }
    }
}

/// Forgets faults whose time has come when there are too many; schemas stay.
fn make_room(entries: &mut HashMap<u32, Entry>, now: Moment) {
    if entries.len() >= ENTRIES_MAX {
        entries.retain(|_, entry| !matches!(entry, Entry::Fault { retry, .. } if *retry <= now));
    }
    if entries.len() >= ENTRIES_MAX {
        entries.retain(|_, entry| matches!(entry, Entry::Known(_) | Entry::Asking { .. }));
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, id: u32) -> Answer {
        let failed = match get_schema_by_id(id, &self.converter).await {
            Ok(found) if found.schema_type != SchemaType::Avro => {
                return Answer::Schema(format!("\"no avro schema: {:?}\"", found.schema_type));
            }
            Ok(found) => return Answer::Schema(found.schema),
            Err(error) => error.to_string(),
        };
        // The converter does not keep the status apart from the text: ask ourselves.
        match self
            .request(Method::Get, &format!("/schemas/ids/{id}"), None)
            .await
        {
            Ok((404, _)) => match self.knows_ours(id).await {
                Ok(true) => Answer::ProvenUnknown,
                Ok(false) => Answer::Fault(format!(
                    "it does not know schema id {id}, but none of our schemas either: is it empty?"
                )),
                Err(fault) => Answer::Fault(fault.to_string()),
            },
            Ok((200, _)) => Answer::Fault(failed),
            Ok((status, answer)) => {
                Answer::Fault(refused("/schemas/ids", status, &answer).to_string())
            }
            Err(fault) => Answer::Fault(fault.to_string()),
        }
    }

    /// Whether the registry still has a schema that we know: one in the cache, else one of our subjects'.
    async fn knows_ours(&self, unknown: u32) -> Result<bool, Fault> {
        let subjects = match self.request(Method::Get, "/subjects", None).await? {
            (200, Value::Array(subjects)) => subjects,
            (status, answer) => return Err(refused("/subjects", status, &answer)),
        };
        let known = self.entries().iter().find_map(|(id, entry)| {
            (matches!(entry, Entry::Known(_)) && *id != unknown).then_some(*id)
        });
        if let Some(known) = known {
            let path = format!("/schemas/ids/{known}");
            return Ok(self.request(Method::Get, &path, None).await?.0 == 200);
        }
        let candidates = subjects.iter().filter_map(Value::as_str);
        for subject in candidates
            .filter(|subject| subject.contains(".jobs"))
            .take(16)
        {
            let path = format!("/subjects/{subject}/versions/latest");
            let (status, answer) = self.request(Method::Get, &path, None).await?;
            let text = answer.get("schema").and_then(Value::as_str);
            if status == 200 && text.is_some_and(|text| WriterSchema::parse(text).is_ok()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn note(&self, id: u32, answer: Answer) {
        let now = Moment::now();
        let mut entries = self.entries();
        let mut history = match entries.get(&id) {
            Some(Entry::Asking { history }) => *history,
            _ => History::default(),
        };
        let entry = match answer {
            Answer::Schema(text) => match WriterSchema::parse(&text) {
                Ok(schema) => Entry::Known(Arc::new(schema)),
                Err(reason) => Entry::Unsuitable(reason),
            },
            Answer::ProvenUnknown => {
                let since = *history.unknown_since.get_or_insert(now);
                let left = since.after(self.patience.unknown).since(now);
                history.faults = history.faults.saturating_add(1);
                let (fault, pause) = match left {
                    None => (SchemaFault::Unknown { id }, self.patience.pause_max),
                    Some(left) => {
                        let reason = format!("it does not know schema id {id}; asking again");
                        let pause = self.pause(history.faults).min(left);
                        (SchemaFault::Unavailable { reason }, pause)
                    }
                };
                Entry::Fault {
                    fault,
                    retry: now.after(pause),
                    history,
                }
            }
            Answer::Fault(reason) => {
                history.unknown_since = None;
                history.faults = history.faults.saturating_add(1);
                Entry::Fault {
                    fault: SchemaFault::Unavailable { reason },
                    retry: now.after(self.pause(history.faults)),
                    history,
                }
            }
        };
        entries.insert(id, entry);
        drop(entries);
        self.changed.notify_all();
    }

    fn pause(&self, faults: u32) -> Duration {
        let doubled = self
            .patience
            .pause_min
            .saturating_mul(1 << faults.saturating_sub(1).min(16));
        doubled.min(self.patience.pause_max)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Fault> {
        match self.request(method, path, body).await? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(refused(path, status, &answer)),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Fault> {
        let url = format!("{}{path}", self.url);
        let request = match method {
            Method::Get => self.http.get(url),
            Method::Post => self.http.post(url),
            Method::Put => self.http.put(url),
        };
        let request = match &self.access.user {
            Some(user) => {
                let password = self.access.password.as_ref().map(Secret::reveal);
                request.basic_auth(user, password)
            }
            None => request,
        };
        let request = match body {
            Some(body) => request
                .header("content-type", "application/vnd.schemaregistry.v1+json")
                .body(body.to_string()),
            None => request,
        };
        // Without the URL: it may hold a password.
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            let mut reason = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                reason = format!("{reason}: {inner}");
                cause = inner.source();
            }
            Fault::unreachable("ask the schema registry", reason)
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(failed)?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Post,
    Put,
}

fn id_of(answer: &Value) -> Result<u32, Fault> {
    answer
        .get("id")
        .and_then(Value::as_u64)
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| Fault::other("ask the schema registry", "its answer has no id"))
}

/// A status that is no success.
fn refused(path: &str, status: u16, answer: &Value) -> Fault {
    let message = answer.get("message").and_then(Value::as_str).unwrap_or("");
    let what = format!("ask the schema registry ({path})");
    let reason = format!("status {status} {message}");
    match status {
        401 => Fault::Unauthenticated {
            what,
            reason: "it does not take the user and password that it was given, or was given none (status 401)".to_owned(),
        },
        403 => Fault::Denied { what, reason },
        409 | 422 => Fault::Config(format!("the schema registry refuses ({path}): {message}")),
        408 | 429 | 500..=599 => Fault::unreachable(what, reason),
        _ => Fault::other(what, reason),
    }
}
