//! Errors as RFC 9457 has them: `application/problem+json`, with the fields that are wrong.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Media type of all error answers.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A field of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldProblem {
    /// Dotted path in the body, or the name of a header or parameter.
    pub(crate) field: String,
    /// What was found and what is allowed.
    pub(crate) reason: String,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// What kind of problem, an URN.
    r#type: String,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// The key under which to try again, where the client gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip)]
    retry_after: Option<u64>,
    #[serde(skip)]
    challenge: bool,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(
        status: StatusCode,
        name: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            r#type: format!("urn:guestkit:problem:{name}"),
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            idempotency_key: None,
            retry_after: None,
            challenge: false,
        })
    }

    /// 400: one thing that is wrong, and where.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Box<Self> {
        Self::fields(vec![FieldProblem {
            field: field.into(),
            reason: reason.into(),
        }])
    }

    /// 400: all that is wrong.
    pub(crate) fn fields(errors: Vec<FieldProblem>) -> Box<Self> {
        let detail: Vec<_> = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.reason))
            .collect();
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-request",
            "The request is invalid",
            detail.join("; "),
        );
        problem.errors = errors;
        problem
    }

    /// 401.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Box<Self> {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A token is needed",
            detail,
        );
        problem.challenge = true;
        problem
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Box<Self> {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Box<Self> {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The method is not allowed here",
            "the header Allow lists those that are",
        )
    }

    /// 406.
    pub(crate) fn not_acceptable(offered: &str) -> Box<Self> {
        let mut problem = Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "The header Accept asks for something else",
            format!("only {offered} can be had here"),
        );
        problem.errors = vec![FieldProblem {
            field: "Accept".to_owned(),
            reason: format!("only {offered} can be had here"),
        }];
        problem
    }

    /// 408.
    pub(crate) fn too_slow() -> Box<Self> {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The body did not come in time",
            "send it without pauses",
        )
    }

    /// 413.
    pub(crate) fn too_large(detail: impl Into<String>) -> Box<Self> {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The job is too large",
            detail,
        )
    }

    /// 415.
    pub(crate) fn unsupported_media_type() -> Box<Self> {
        let mut problem = Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is not declared as JSON",
            "send the header Content-Type: application/json",
        );
        problem.errors = vec![FieldProblem {
            field: "Content-Type".to_owned(),
            reason: "application/json is expected".to_owned(),
        }];
        problem
    }

    /// 422: the key is taken.
    pub(crate) fn key_conflict(job_id: &str) -> Box<Self> {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-conflict",
            "The idempotency key was used for another payload",
            format!("job {job_id} has this key and another payload; use a new key for new work"),
        );
        problem.errors = vec![FieldProblem {
            field: "idempotency_key".to_owned(),
            reason: format!("job {job_id} has it, with another payload"),
        }];
        problem
    }

    /// 429.
    pub(crate) fn too_many(retry_after: u64) -> Box<Self> {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            format!("try again in {retry_after} s"),
        );
        problem.retry_after = Some(retry_after);
        problem
    }

    /// 503.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Box<Self> {
        /// Long enough for a broker to be elected, short enough for a person.
        const RETRY_AFTER: u64 = 2;
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not possible now",
            detail,
        );
        problem.retry_after = Some(RETRY_AFTER);
        problem
    }

    /// 500: a fault of ours.
    pub(crate) fn internal(detail: impl Into<String>) -> Box<Self> {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "A fault of the gateway",
            detail,
        )
    }

    /// The key under which the same job can be sent again.
    pub(crate) fn with_key(mut self: Box<Self>, key: &str) -> Box<Self> {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    /// Its status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The names of the wrong fields.
    #[cfg(test)]
    pub(crate) fn field_names(&self) -> Vec<&str> {
        self.errors.iter().map(|error| &*error.field).collect()
    }
}

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response {
        // Strings and numbers: serde has no way to refuse them.
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response =
            (self.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"guestkit\""),
            );
        }
        response
    }
}
