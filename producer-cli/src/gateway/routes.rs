//! The routes: who may, what is asked, what is answered.

use crate::clock::{self, uptime};
use crate::gateway::events::{self, RESULT_ID};
use crate::gateway::limits::Counted;
use crate::gateway::negotiation::{is_json, offer};
use crate::gateway::page;
use crate::gateway::problem::Problem;
use crate::gateway::server::Peer;
use crate::gateway::tenants::Caller;
use crate::gateway::views::{Accepted, JobRow, JobView};
use crate::gateway::{Gateway, metrics, openapi, submission};
use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// How long a body may take: a megabyte at the speed of a bad mobile connection.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest header that holds a key: all of it in quotes and escaped.
const KEY_HEADER_MAX: usize = 2 * guestkit_protocol::IDEMPOTENCY_KEY_MAX + 2;
/// Items of a list when nothing else is said.
const LIST_DEFAULT: usize = 50;
/// The most items of a list.
const LIST_MAX: usize = 500;
/// A comment this often keeps proxies from closing an event stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Answer = Result<Response, Box<Problem>>;
type Shared = State<Arc<Gateway>>;

/// All routes; `/jobs…` is the same as `/v1/jobs…`.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let mut router = Router::new();
    for prefix in ["/v1", ""] {
        router = router
            .route(&format!("{prefix}/jobs"), get(list).post(submit))
            .route(&format!("{prefix}/jobs/{{job_id}}"), get(show))
            .route(&format!("{prefix}/jobs/{{job_id}}/events"), get(follow));
    }
    router
        .route("/v1/workers", get(workers))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/openapi.json", get(describe))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .fallback(async || {
            Problem::not_found("no such path; /openapi.json lists all").into_response()
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed().into_response())
        .layer(from_fn_with_state(gateway.clone(), around))
        .with_state(gateway)
}

/// Around every request: metrics, limits, authentication, headers.
async fn around(State(gateway): Shared, mut request: Request, next: Next) -> Response {
    let start = uptime();
    let route = metrics::route(request.uri().path());
    let method = metrics::method(request.method());
    let mut response = match admit(&gateway, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Answers are of now and of this caller.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let status = response.status();
    gateway
        .metrics
        .requests
        .with_label_values(&[route, method, status.as_str()])
        .inc();
    gateway
        .metrics
        .duration
        .with_label_values(&[route])
        .observe(uptime().saturating_sub(start).as_secs_f64());
    response
}

/// Counts the request and finds out who asks.
fn admit(gateway: &Gateway, request: &Request) -> Result<Caller, Box<Problem>> {
    let path = request.uri().path();
    // Probes and scrapes come from the platform and must not fail because of others.
    if matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return Ok(Caller::Anyone);
    }
    let peer = request.extensions().get::<Peer>();
    let address = peer.map_or(Counted::Rest, |peer| Counted::Address(peer.0.ip()));
    let is_guarded = ["/v1", "/jobs"].iter().any(|prefix| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let found = match gateway.tokens() {
        Some(tokens) if is_guarded => {
            let value = request.headers().get(header::AUTHORIZATION);
            let token = value
                .and_then(|value| value.to_str().ok())
                .and_then(|value| {
                    let (scheme, token) = value.split_once(' ')?;
                    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
                });
            match token {
                None => Err("send the header Authorization: Bearer TOKEN"),
                Some(token) => tokens.find(token).ok_or("the token is not known"),
            }
        }
        _ => Ok(Caller::Anyone),
    };
    let counted = match &found {
        Ok(Caller::Tenant(name)) => Counted::Tenant(name.clone()),
        Ok(Caller::Operator) => Counted::Tenant("*".to_owned()),
        _ => address,
    };
    gateway.count(counted).map_err(Problem::too_many)?;
    found.map_err(Problem::unauthorized)
}

fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_string(value)
        .map_err(|error| Problem::internal(format!("no JSON form: {error}")))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn submit(
    State(gateway): Shared,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    no_query(request.uri())?;
    offer(request.headers(), "application/json")?;
    is_json(request.headers())?;
    let header = idempotency_header(request.headers())?;
    let size = declared_size(request.headers(), gateway.body_limit)?;
    let _room = gateway.bodies.claim(size).await?;
    let body = read_body(request.into_body(), gateway.body_limit).await?;
    let submission = submission::read(
        &body,
        submission::Context {
            caller: &caller,
            header: header.as_deref(),
            pool: gateway.names.pool.as_deref(),
            slots: gateway.slots,
            now: clock::now(),
            random: rand::random(),
        },
    )?;
    drop(body);
    let warnings = submission.job.validate().map_or_else(
        |_| Vec::new(),
        |warnings| warnings.iter().map(ToString::to_string).collect(),
    );
    let (status, known) = gateway.submit(&submission).await?;
    let location = format!("/v1/jobs/{}", submission.job.job_id);
    let mut response = json_response(
        StatusCode::ACCEPTED,
        &Accepted {
            job_id: &submission.job.job_id,
            status,
            idempotency_key: &submission.client_key,
            idempotency_key_generated: submission.key_generated,
            known,
            location: &location,
            warnings,
        },
    )?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn idempotency_header(headers: &HeaderMap) -> Result<Option<String>, Box<Problem>> {
    let name = HeaderName::from_static("idempotency-key");
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::field("Idempotency-Key", "it comes twice"));
    }
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.len() <= KEY_HEADER_MAX);
    let text = text.ok_or_else(|| {
        Problem::field(
            "Idempotency-Key",
            "it is not 1 to 512 printable ASCII characters; others go into the body",
        )
    })?;
    Ok(Some(text.to_owned()))
}

/// How much of a body may come: what the client says, else the limit.
fn declared_size(headers: &HeaderMap, limit: usize) -> Result<usize, Box<Problem>> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match declared {
        Some(size) if size > limit => Err(body_too_large(limit)),
        Some(size) => Ok(size),
        None => Ok(limit),
    }
}

fn body_too_large(limit: usize) -> Box<Problem> {
    Problem::too_large(format!(
        "at most {limit} bytes are read; keep large data in a file"
    ))
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, Box<Problem>> {
    let whole = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_TIME_MAX, whole).await {
        Err(_) => Err(Problem::too_slow()),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(body_too_large(limit)),
        Ok(Err(error)) => Err(Problem::field("body", error.to_string())),
    }
}

/// The id of a path, of those that the caller may ask for.
fn job_id(
    path: Result<Path<String>, PathRejection>,
    caller: &Caller,
) -> Result<String, Box<Problem>> {
    let Path(id) = path.map_err(|error| Problem::field("job_id", error.body_text()))?;
    if !guestkit_protocol::is_job_id(&id) {
        return Err(Problem::field(
            "job_id",
            "it is not 8 to 128 of A-Z a-z 0-9 . _ : -",
        ));
    }
    if let Caller::Tenant(name) = caller
        && !crate::gateway::job_ids::GatewayId::parse(&id).is_some_and(|id| id.is_of(name))
    {
        return Err(unknown(&id));
    }
    Ok(id)
}

fn unknown(id: &str) -> Box<Problem> {
    Problem::not_found(format!(
        "no job {id} was published here, or it is too long ago"
    ))
}

async fn show(
    State(gateway): Shared,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let id = job_id(path, &caller)?;
    no_query(&uri)?;
    offer(&headers, "application/json")?;
    let entry = gateway.entry(&id).await?.ok_or_else(|| unknown(&id))?;
    let text = gateway.result_text(&id, &entry).await?;
    let result = text
        .as_deref()
        .map(serde_json::from_str::<&RawValue>)
        .transpose()
        .map_err(|error| Problem::internal(error.to_string()))?;
    json_response(StatusCode::OK, &JobView::new(&id, &entry, result, &caller))
}

async fn follow(
    State(gateway): Shared,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let id = job_id(path, &caller)?;
    no_query(&uri)?;
    offer(&headers, "text/event-stream")?;
    let last = match headers.get("last-event-id").map(HeaderValue::to_str) {
        None => None,
        Some(Ok("")) => None,
        // The client has everything: this answer tells it not to come again.
        Some(Ok(RESULT_ID)) => {
            gateway.entry(&id).await?.ok_or_else(|| unknown(&id))?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Some(value) => {
            let text = value.unwrap_or_default();
            Some(events::resume(text).ok_or_else(|| {
                Problem::field("Last-Event-ID", "it is no id of an event of this stream")
            })?)
        }
    };
    gateway.entry(&id).await?.ok_or_else(|| unknown(&id))?;
    let watcher = gateway
        .board
        .watch(&id)
        .ok_or_else(|| Problem::unavailable("too many event streams are open"))?;
    let events = events::stream(gateway, watcher, id, last);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // nginx and those like it would hold events back.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn list(
    State(gateway): Shared,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let limit = limit(&uri)?;
    offer(&headers, "application/json")?;
    let rows: Vec<JobRow> = gateway.board.read(|index| {
        let own = index
            .newest()
            .filter(|(_, entry)| caller.owns_key(entry.key.as_deref().unwrap_or_default()));
        own.take(limit)
            .map(|(id, entry)| JobRow::new(id, entry))
            .collect()
    });
    json_response(StatusCode::OK, &json!({ "jobs": rows }))
}

async fn workers(State(gateway): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    no_query(&uri)?;
    offer(&headers, "application/json")?;
    let workers = gateway.workers.list(clock::now());
    json_response(StatusCode::OK, &json!({ "workers": workers }))
}

async fn dead_letters(
    State(gateway): Shared,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let limit = limit(&uri)?;
    offer(&headers, "application/json")?;
    let letters = gateway.letters.newest(&caller, limit);
    json_response(StatusCode::OK, &json!({ "dead_letters": letters }))
}

async fn describe(State(gateway): Shared, headers: HeaderMap) -> Answer {
    offer(&headers, "application/json")?;
    let text = openapi::text(gateway.tokens().is_some())
        .map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn healthz(State(gateway): Shared) -> Answer {
    if gateway.is_alive() {
        Ok("alive\n".into_response())
    } else {
        Err(Problem::unavailable("a follower is stuck"))
    }
}

async fn readyz(State(gateway): Shared) -> Answer {
    match gateway.unready() {
        None => Ok("ready\n".into_response()),
        Some(reason) => Err(Problem::unavailable(reason)),
    }
}

async fn metrics_page(State(gateway): Shared) -> Answer {
    let size = gateway.board.read(|index| index.size());
    let text = gateway
        .metrics
        .render(size)
        .map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn parameters(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn no_query(uri: &Uri) -> Result<(), Box<Problem>> {
    match parameters(uri).next() {
        None => Ok(()),
        Some((name, _)) => Err(Problem::field(name, "there is no such parameter")),
    }
}

fn limit(uri: &Uri) -> Result<usize, Box<Problem>> {
    let mut limit = None;
    for (name, value) in parameters(uri) {
        if name != "limit" {
            return Err(Problem::field(name, "there is no such parameter"));
        }
        if limit.is_some() {
            return Err(Problem::field("limit", "it comes twice"));
        }
        let number = value.parse::<usize>().ok();
        limit = number.filter(|number| (1..=LIST_MAX).contains(number));
        if limit.is_none() {
            return Err(Problem::field(
                "limit",
                format!("it is not a number between 1 and {LIST_MAX}"),
            ));
        }
    }
    Ok(limit.unwrap_or(LIST_DEFAULT))
}
