//! `system.capability-probe`: what the worker that took the job can do.

use super::{Context, Handler, HandlerError, Output, to_json};
use crate::capabilities;
use guestkit_protocol::JobEnvelope;

pub(super) struct CapabilityProbe;

impl Handler for CapabilityProbe {
    fn run(&self, _: &JobEnvelope, context: &Context) -> Result<Output, HandlerError> {
        let data = to_json(&capabilities::describe(&context.settings))?;
        Ok(Output {
            data: Some(data),
            ..Output::default()
        })
    }
}
