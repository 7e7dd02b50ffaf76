//! HTTP/1.1 as far as the registry needs it: one request a connection.

use super::error::{Context, Error};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_MAX: u64 = 64 << 10;
const BODY_MAX: u64 = 16 << 20;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// GET.
pub fn http_get(address: SocketAddr, path: &str) -> Result<HttpAnswer, Error> {
    http_send(address, "GET", path, b"")
}

/// Any method, with a JSON body.
pub fn http_send(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<HttpAnswer, Error> {
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: vec![
            format!("Host: {address}"),
            "Content-Type: application/vnd.schemaregistry.v1+json".to_owned(),
        ],
        body: body.to_vec(),
    };
    request
        .send(address)
        .and_then(|bytes| parse_answer(&bytes))
        .context(|| format!("{method} http://{address}{path}"))
}

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Without those on the body's length and on the connection.
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// `None`: the client has gone.
    pub(crate) fn read(stream: &mut (impl Read + Write)) -> io::Result<Option<Self>> {
        let mut reader = BufReader::new(stream);
        let lines = read_head(&mut reader)?;
        let Some(first) = lines.first() else {
            return Ok(None);
        };
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        if header(&lines, "expect").is_some() {
            reader
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut reader, &lines, false)?;
        let headers = lines
            .into_iter()
            .skip(1)
            .filter(|line| {
                let name = line.split(':').next().unwrap_or_default();
                ![
                    "connection",
                    "content-length",
                    "transfer-encoding",
                    "expect",
                ]
                .iter()
                .any(|ours| name.eq_ignore_ascii_case(ours))
            })
            .collect();
        Ok(Some(Self {
            method,
            path,
            headers,
            body,
        }))
    }

    /// The value of a header.
    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    /// The answer's bytes as they came.
    pub(crate) fn send(&self, address: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let headers: String = self
            .headers
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect();
        let head = format!(
            "{} {} HTTP/1.1\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.method,
            self.path,
            self.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        let mut answer = Vec::new();
        stream.take(BODY_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn parse_answer(bytes: &[u8]) -> io::Result<HttpAnswer> {
    let mut reader = BufReader::new(bytes);
    let lines = read_head(&mut reader)?;
    let status = lines
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("no HTTP status"))?;
    let body = read_body(&mut reader, &lines, true)?;
    Ok(HttpAnswer { status, body })
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut head = reader.take(HEAD_MAX);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(lines);
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line.to_owned());
    }
}

fn read_body(reader: &mut impl BufRead, head: &[String], to_the_end: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let mut line = String::new();
            reader.take(64).read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if size > BODY_MAX {
                return Err(io::Error::other("chunk too large"));
            }
            reader.take(size).read_to_end(&mut body)?;
            let mut end = String::new();
            reader.take(2).read_line(&mut end)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = header(head, "content-length").and_then(|value| value.parse::<u64>().ok());
    let limit = length.unwrap_or(if to_the_end { BODY_MAX } else { 0 });
    reader.take(limit.min(BODY_MAX)).read_to_end(&mut body)?;
    Ok(body)
}

fn header<'a>(lines: &'a [String], wanted: &str) -> Option<&'a str> {
    lines.iter().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}
