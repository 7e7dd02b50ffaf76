//! The page for people: three files of this binary, and no other request than to this API.

use crate::gateway::negotiation::offer;
use crate::gateway::problem::Problem;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/app.js");
const STYLE: &str = include_str!("page/style.css");

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

type Answer = Result<Response, Box<Problem>>;

fn file(headers: &HeaderMap, media_type: &'static str, text: &'static str) -> Answer {
    let (name, _) = media_type.split_once(';').unwrap_or((media_type, ""));
    offer(headers, name)?;
    Ok((
        [
            (header::CONTENT_TYPE, media_type),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            // A new gateway brings new files.
            (header::CACHE_CONTROL, "no-cache"),
        ],
        text,
    )
        .into_response())
}

/// `GET /`
pub(crate) async fn index(headers: HeaderMap) -> Answer {
    file(&headers, "text/html; charset=utf-8", INDEX)
}

/// `GET /app.js`
pub(crate) async fn script(headers: HeaderMap) -> Answer {
    file(&headers, "text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /style.css`
pub(crate) async fn style(headers: HeaderMap) -> Answer {
    file(&headers, "text/css; charset=utf-8", STYLE)
}
