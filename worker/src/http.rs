//! The HTTP endpoint: health, readiness, status and metrics.

use crate::clock::now_ms;
use crate::metrics;
use crate::status::Status;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, status: Arc<Status>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "http endpoint");
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status_page))
        .route("/metrics", get(metrics_page))
        .with_state(status);
    axum::serve(listener, routes).await
}

async fn healthz(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    let stuck = status.stuck(now_ms());
    if stuck.is_empty() {
        return (StatusCode::OK, "alive\n".to_owned());
    }
    let loops = stuck
        .iter()
        .map(|(name, age)| format!("the {name} loop has not turned for {age} ms\n"))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, loops)
}

async fn readyz(State(status): State<Arc<Status>>) -> (StatusCode, &'static str) {
    if status.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not assigned, not restored, or draining\n",
        )
    }
}

async fn status_page(State(status): State<Arc<Status>>) -> Response {
    axum::Json(status.page()).into_response()
}

async fn metrics_page(State(status): State<Arc<Status>>) -> Response {
    match metrics::render(&status) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
