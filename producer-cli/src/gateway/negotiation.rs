//! Content negotiation: what a client accepts, and what it sends.

use crate::gateway::problem::Problem;
use axum::http::{HeaderMap, header};

/// Whether a client that sent these headers takes this media type.
///
/// # Errors
/// 406.
pub(crate) fn offer(headers: &HeaderMap, media_type: &str) -> Result<(), Box<Problem>> {
    let mut ranges = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        // What cannot be read says nothing.
        ranges.extend(value.to_str().unwrap_or("*/*").split(','));
    }
    let (kind, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    // The most specific range that matches decides.
    let mut best: Option<(u8, bool)> = None;
    let mut any = false;
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        if name.is_empty() {
            continue;
        }
        any = true;
        let rank = match name.as_str() {
            "*/*" => 1,
            name if name.strip_suffix("/*") == Some(kind) => 2,
            name if name == media_type => 3,
            _ => continue,
        };
        let refused = parts.any(|part| {
            part.to_ascii_lowercase()
                .strip_prefix("q=")
                .is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q <= 0.0))
        });
        if best.is_none_or(|(found, _)| found < rank) {
            best = Some((rank, !refused));
        }
    }
    match best {
        Some((_, true)) => Ok(()),
        None if !any => Ok(()),
        _ => Err(Problem::not_acceptable(media_type)),
    }
}

/// Whether a body is declared as JSON.
///
/// # Errors
/// 415.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Box<Problem>> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let name = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let suffixed = name.starts_with("application/") && name.ends_with("+json");
    if name == "application/json" || suffixed {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_most_specific_range_decides() {
        for (accept, taken) in [
            ("application/json", true),
            ("Application/JSON; q=0.5", true),
            ("text/html, */*;q=0.1", true),
            ("application/*", true),
            ("", true),
            ("text/html", false),
            ("application/json;q=0, */*", false),
            ("*/*;q=0", false),
            ("nonsense", false),
        ] {
            let outcome = offer(&with(header::ACCEPT, accept), "application/json");
            assert_eq!(outcome.is_ok(), taken, "{accept}");
        }
        assert!(offer(&HeaderMap::new(), "text/html").is_ok());
    }

    #[test]
    fn bodies_are_declared_as_json() {
        for (content_type, taken) in [
            ("application/json; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/x+json", false),
        ] {
            let outcome = is_json(&with(header::CONTENT_TYPE, content_type));
            assert_eq!(outcome.is_ok(), taken, "{content_type}");
        }
        assert!(is_json(&HeaderMap::new()).is_err());
    }
}
