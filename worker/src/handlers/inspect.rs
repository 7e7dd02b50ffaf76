//! `guestkit.inspect`: a thin handler over the inspector.

use super::{Context, Handler, HandlerError, Output};
use crate::engine::outcome::Failure;
use guestkit_protocol::JobEnvelope;

pub(super) struct Inspect;

impl Handler for Inspect {
    fn run(&self, _job: &JobEnvelope, _context: &Context) -> Result<Output, HandlerError> {
        Err(Failure::lasting("UNSUPPORTED", "not wired yet").into())
    }
}
