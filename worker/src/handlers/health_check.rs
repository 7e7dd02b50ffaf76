//! `system.health-check`: says that the worker that took the job lives.

use super::{Context, Handler, HandlerError, Output, to_json};
use guestkit_protocol::JobEnvelope;

pub(super) struct HealthCheck;

impl Handler for HealthCheck {
    fn run(&self, _: &JobEnvelope, context: &Context) -> Result<Output, HandlerError> {
        let data = to_json(&serde_json::json!({
            "healthy": true,
            "worker_id": &*context.settings.worker_id,
            "version": env!("CARGO_PKG_VERSION"),
            "incarnation": &*context.incarnation,
        }))?;
        Ok(Output {
            data: Some(data),
            ..Output::default()
        })
    }
}
