//! What parent and child say to each other.
//!
//! Parent to child, on a socket: a length (u32, little endian) and an [`Order`] in JSON, then the
//! open files, [`FILES_PER_MESSAGE`] at most with each further byte. Child to parent, on a pipe:
//! frames of a tag, a length (u32, little endian) and that many bytes.

use super::attempt::{Attempt, Outcome};
use super::failure::RefusalKind;
use crate::budget::Limits;
use crate::report::InspectMetrics;
use crate::source::Link;
use crate::task::Task;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::time::Duration;

/// Longest order: 250 links with names of 4 KiB, each byte as a number in JSON.
pub(super) const ORDER_MAX: usize = 8 << 20;
/// Linux takes 253 at most (`SCM_MAX_FD`).
pub(super) const FILES_PER_MESSAGE: usize = 64;
/// Longest frame; a child that announces more is broken.
pub(super) const FRAME_MAX: usize = 256 << 10;

/// What the child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Process id of the parent: when that is gone the child must not go on.
    pub(super) parent: u32,
    /// What each of the open files that follow is.
    pub(super) links: Vec<Link>,
    /// Whether to refuse without full confinement.
    pub(super) require: bool,
    /// Memory in bytes.
    pub(super) memory: u64,
    /// Processor time in seconds.
    pub(super) cpu_s: u64,
    pub(super) work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// Answer a task.
    Task {
        task: Box<Task>,
        /// How many of the files each disk of the machine has.
        disks: Vec<usize>,
        format: Option<String>,
        limits: WireLimits,
    },
    /// Say how confined it is, no more.
    Level,
    /// Try what must fail.
    Attempt { attempt: Attempt, seccomp: bool },
}

/// [`Limits`] with times in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct WireLimits {
    bytes: u64,
    reads: u64,
    steps: u64,
    wall_ms: u64,
    output: u64,
}

impl From<Limits> for WireLimits {
    fn from(limits: Limits) -> Self {
        Self {
            bytes: limits.bytes,
            reads: limits.reads,
            steps: limits.steps,
            wall_ms: u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX),
            output: limits.output,
        }
    }
}

impl From<WireLimits> for Limits {
    fn from(wire: WireLimits) -> Self {
        Self {
            bytes: wire.bytes,
            reads: wire.reads,
            steps: wire.steps,
            wall: Duration::from_millis(wire.wall_ms),
            output: wire.output,
            // The kernel holds these two.
            ..Self::default()
        }
    }
}

/// What the child says.
#[derive(Debug)]
pub(super) enum Frame {
    /// The confinement it reached.
    Level(String),
    /// A phase begins.
    Phase(String),
    /// A part of the answer.
    Output(Vec<u8>),
    /// It cannot confine itself as required.
    Unavailable(String),
    /// The image, or policy, refuses.
    Refused(RefusalKind, String),
    /// It panicked.
    Panicked(String),
    /// What became of an attempt.
    Attempted(Outcome),
    /// The answer is whole.
    Done(InspectMetrics),
}

const LEVEL: u8 = b'l';
const PHASE: u8 = b'p';
const OUTPUT: u8 = b'o';
const UNAVAILABLE: u8 = b'u';
const REFUSED: u8 = b'r';
const PANICKED: u8 = b'x';
const ATTEMPTED: u8 = b'a';
const DONE: u8 = b'd';

#[derive(Serialize, Deserialize)]
struct Refused {
    kind: RefusalKind,
    message: String,
}

impl Frame {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Level(level) => write_frame(out, LEVEL, level.as_bytes()),
            Self::Phase(phase) => write_frame(out, PHASE, phase.as_bytes()),
            Self::Output(bytes) => write_frame(out, OUTPUT, bytes),
            Self::Unavailable(reason) => write_frame(out, UNAVAILABLE, reason.as_bytes()),
            Self::Refused(kind, message) => {
                let refused = Refused {
                    kind: *kind,
                    message: message.clone(),
                };
                write_frame(out, REFUSED, &serde_json::to_vec(&refused)?)
            }
            Self::Panicked(message) => write_frame(out, PANICKED, message.as_bytes()),
            Self::Attempted(outcome) => write_frame(out, ATTEMPTED, &serde_json::to_vec(outcome)?),
            Self::Done(metrics) => write_frame(out, DONE, &serde_json::to_vec(metrics)?),
        }
    }

    fn parse(tag: u8, payload: &[u8]) -> Result<Self, String> {
        let bad = |error: serde_json::Error| error.to_string();
        Ok(match tag {
            LEVEL => Self::Level(words(payload)),
            PHASE => Self::Phase(words(payload)),
            OUTPUT => Self::Output(payload.to_vec()),
            UNAVAILABLE => Self::Unavailable(words(payload)),
            REFUSED => {
                let refused: Refused = serde_json::from_slice(payload).map_err(bad)?;
                Self::Refused(refused.kind, words(refused.message.as_bytes()))
            }
            PANICKED => Self::Panicked(words(payload)),
            ATTEMPTED => Self::Attempted(serde_json::from_slice(payload).map_err(bad)?),
            DONE => Self::Done(serde_json::from_slice(payload).map_err(bad)?),
            other => return Err(format!("a frame with tag {other}")),
        })
    }
}

/// One frame from raw bytes, without building a [`Frame`] around a copy of them.
pub(super) fn write_output(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(FRAME_MAX) {
        write_frame(out, OUTPUT, piece)?;
    }
    Ok(())
}

fn write_frame(out: &mut dyn Write, tag: u8, payload: &[u8]) -> io::Result<()> {
    let payload = payload.get(..FRAME_MAX).unwrap_or(payload);
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    out.write_all(&[tag])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(payload)
}

/// What a child says is not to be trusted: one line, not without end.
pub(super) fn words(bytes: &[u8]) -> String {
    const WORDS_MAX: usize = 2_000;
    String::from_utf8_lossy(bytes)
        .chars()
        .take(WORDS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Puts frames together from what a pipe gives.
#[derive(Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [tag, a, b, c, d] = *head;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(format!("a frame of {length} bytes"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::parse(tag, payload)?;
        self.buffer.drain(..length.saturating_add(head.len()));
        Ok(Some(frame))
    }
}

/// Writes an order.
pub(super) fn send(out: &mut impl Write, order: &Order) -> io::Result<()> {
    let text = serde_json::to_vec(order)?;
    if text.len() > ORDER_MAX {
        return Err(io::Error::other("the task is longer than an order may be"));
    }
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&text)
}

/// Reads an order.
pub(super) fn receive(from: &mut impl Read) -> io::Result<Order> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > ORDER_MAX {
        return Err(io::Error::other("the order is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        Frame::Level("l".to_owned()).write(&mut bytes).unwrap();
        Frame::Phase("packages".to_owned())
            .write(&mut bytes)
            .unwrap();
        write_output(&mut bytes, &vec![7; FRAME_MAX + 3]).unwrap();
        Frame::Refused(RefusalKind::Denied, "no\u{1b}[1m".to_owned())
            .write(&mut bytes)
            .unwrap();
        for cut in [1, 2, 5, 1000] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                while let Some(frame) = frames.next().unwrap() {
                    seen.push(frame);
                }
            }
            let [
                Frame::Level(l),
                Frame::Phase(p),
                Frame::Output(a),
                Frame::Output(b),
                Frame::Refused(RefusalKind::Denied, no),
            ] = &seen[..]
            else {
                panic!("{cut}: {} frames", seen.len());
            };
            assert_eq!((l.as_str(), p.as_str()), ("l", "packages"));
            assert_eq!((a.len(), b.len()), (FRAME_MAX, 3));
            assert_eq!(no, "no [1m");
        }
    }

    #[test]
    fn a_frame_without_end_is_refused_before_it_is_stored() {
        let mut frames = Frames::default();
        frames.push(&[b'o', 0xff, 0xff, 0xff, 0x7f]);
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.push(&[b'?', 0, 0, 0, 0]);
        assert!(frames.next().is_err());
    }
}
