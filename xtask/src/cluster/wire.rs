//! The few words of Kafka's protocol that readiness checks and tests of this crate need.
//! Versions without tagged fields only.

use super::error::{Context, Error};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Kinds of requests, as in the protocol: what [`TcpProxy`](super::TcpProxy) rules name.
pub mod api {
    pub const PRODUCE: i16 = 0;
    pub const FETCH: i16 = 1;
    pub const LIST_OFFSETS: i16 = 2;
    pub const METADATA: i16 = 3;
    pub const OFFSET_COMMIT: i16 = 8;
    pub const OFFSET_FETCH: i16 = 9;
    pub const FIND_COORDINATOR: i16 = 10;
    pub const JOIN_GROUP: i16 = 11;
    pub const HEARTBEAT: i16 = 12;
    pub const LEAVE_GROUP: i16 = 13;
    pub const SYNC_GROUP: i16 = 14;
    pub const API_VERSIONS: i16 = 18;
    pub const CREATE_TOPICS: i16 = 19;
    pub const INIT_PRODUCER_ID: i16 = 22;
    pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
    pub const ADD_OFFSETS_TO_TXN: i16 = 25;
    pub const END_TXN: i16 = 26;
    pub const TXN_OFFSET_COMMIT: i16 = 28;
    pub const DESCRIBE_ACLS: i16 = 29;
    pub const CREATE_ACLS: i16 = 30;
    pub const DELETE_ACLS: i16 = 31;
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer beyond this is not one to the questions below.
const ANSWER_MAX: usize = 16 << 20;

/// Whether something that speaks Kafka's protocol answers there.
#[must_use]
pub fn is_kafka(address: SocketAddr) -> bool {
    call(address, api::API_VERSIONS, 0, &[])
        .and_then(|answer| Reader(&answer).i16())
        .is_ok_and(|error| error == 0)
}

/// Creates a topic with replication factor 1; one that exists is fine.
pub fn create_topic(address: SocketAddr, name: &str, partitions: i32) -> Result<(), Error> {
    const TOPIC_ALREADY_EXISTS: i16 = 36;
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    string(&mut body, name);
    body.extend(partitions.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend([0; 8]); // no assignments, no settings
    body.extend(10_000_i32.to_be_bytes());
    body.push(0); // not only validate
    let answer = call(address, api::CREATE_TOPICS, 4, &body)?;
    let mut answer = Reader(&answer);
    answer.i32()?; // throttle time
    answer.i32()?; // one topic
    answer.string()?;
    match answer.i16()? {
        0 | TOPIC_ALREADY_EXISTS => Ok(()),
        code => Err(Error::Answer(format!(
            "topic {name} refused with error {code}"
        ))),
    }
}

/// The names of all topics.
pub fn topic_names(address: SocketAddr) -> Result<Vec<String>, Error> {
    let answer = call(address, api::METADATA, 1, &(-1_i32).to_be_bytes())?;
    let mut answer = Reader(&answer);
    for _ in 0..answer.i32()? {
        answer.i32()?; // node id
        answer.string()?; // host
        answer.i32()?; // port
        answer.string()?; // rack
    }
    answer.i32()?; // controller
    let mut names = Vec::new();
    for _ in 0..answer.i32()? {
        answer.i16()?; // error
        names.push(answer.string()?);
        answer.take(1)?; // internal
        for _ in 0..answer.i32()? {
            answer.take(2 + 4 + 4)?; // error, index, leader
            for _ in 0..2 {
                for _ in 0..answer.i32()? {
                    answer.i32()?; // replica
                }
            }
        }
    }
    Ok(names)
}

/// One request on a connection of its own; the answer without its header.
fn call(address: SocketAddr, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>, Error> {
    let what = || format!("request {key} to {address}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context(what)?;
    stream.set_read_timeout(Some(TIMEOUT)).context(what)?;
    call_on(&mut stream, key, version, body)
}

/// The same on a connection that is there.
pub(crate) fn call_on(
    stream: &mut (impl Read + Write),
    key: i16,
    version: i16,
    body: &[u8],
) -> Result<Vec<u8>, Error> {
    const CORRELATION: i32 = 1;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    string(&mut request, "xtask");
    request.extend(body);
    let what = || format!("request {key}");
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes()).context(what)?;
    stream.write_all(&request).context(what)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context(what)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=ANSWER_MAX).contains(&length) {
        return Err(Error::Answer(format!("{} has {length} bytes", what())));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context(what)?;
    Ok(answer.split_off(4)) // after the correlation id
}

pub(crate) fn string(bytes: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| Error::Answer("it ends too early".to_owned()))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(
            self.take(2)?.try_into().unwrap_or_default(),
        ))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(
            self.take(4)?.try_into().unwrap_or_default(),
        ))
    }

    /// Empty for null.
    pub(crate) fn string(&mut self) -> Result<String, Error> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }
}
