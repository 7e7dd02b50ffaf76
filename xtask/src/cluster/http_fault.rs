//! A registry that fails on demand: an HTTP proxy which answers errors itself when told to, and which
//! may stand behind TLS and a password.

use super::certificates::Identity;
use super::error::{Context, Error};
use super::free_port;
use super::http::Request;
use super::registry::API;
use super::tls;
use crate::clock::Deadline;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a hung request is held, if nobody heals the server before.
const HANG_MAX: Duration = Duration::from_secs(120);

/// Stands where clients look for a registry. Healthy, it passes requests on to a real one.
pub struct HttpFault {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: Option<SocketAddr>,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    faults: Vec<(String, Answer)>,
    /// The only `Authorization` that is let in.
    authorization: Option<String>,
    /// Rises at every change of the faults: ends what hangs.
    epoch: u64,
    requests: Vec<String>,
}

#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    Silence,
}

impl HttpFault {
    /// In front of a real registry.
    pub fn in_front_of(upstream: SocketAddr) -> Result<Self, Error> {
        Self::start(Some(upstream), None)
    }

    /// The same behind TLS; set a password with [`Self::demand`].
    pub fn tls_in_front_of(upstream: SocketAddr, identity: &Identity) -> Result<Self, Error> {
        Self::start(Some(upstream), Some(tls::server(identity)?))
    }

    /// Without a registry behind it: what no fault covers is 404.
    pub fn alone() -> Result<Self, Error> {
        Self::start(None, None)
    }

    fn start(
        upstream: Option<SocketAddr>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listener = TcpListener::bind(address).context(|| format!("listen on {address}"))?;
        let shared = Arc::new(Shared {
            upstream,
            tls,
            state: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.lock().stopped {
                    break;
                }
                let server = Arc::clone(&server);
                if let Ok(stream) = stream {
                    // A client that went away is its own business.
                    std::thread::spawn(move || drop(server.accept(stream)));
                }
            }
        });
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As [`Registry::url`](super::Registry::url).
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}{API}", self.address)
    }

    /// From now on only this user with this password is let in (HTTP basic).
    pub fn demand(&self, user: &str, password: &str) {
        let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.shared.lock().authorization = Some(format!("Basic {both}"));
    }

    /// Answers every request with this status and Confluent's error document.
    pub fn fail(&self, status: u16) {
        self.fault("", Answer::Status(status));
    }

    /// The same for requests whose path contains `part`.
    pub fn fail_path(&self, part: &str, status: u16) {
        self.fault(part, Answer::Status(status));
    }

    /// Takes requests and does not answer.
    pub fn hang(&self) {
        self.fault("", Answer::Silence);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.epoch += 1;
    }

    /// All requests so far, as `GET /path`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    fn fault(&self, part: &str, answer: Answer) {
        let mut state = self.shared.lock();
        state.faults.push((part.to_owned(), answer));
        state.epoch += 1;
    }
}

impl Drop for HttpFault {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopped = true;
            state.epoch += 1;
        }
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.accepting.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, mut stream: TcpStream) -> io::Result<()> {
        match &self.tls {
            None => self.serve(&mut stream)?,
            Some(config) => {
                let mut secured = tls::accept(config, stream).map_err(io::Error::other)?;
                self.serve(&mut secured)?;
                secured.conn.send_close_notify();
                secured.flush()?;
                stream = secured.sock;
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    /// One request; then the connection is closed, and every answer says that it will be.
    fn serve(&self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let Some(request) = Request::read(stream)? else {
            return Ok(());
        };
        let (fault, epoch) = {
            let mut state = self.lock();
            let line = format!("{} {}", request.method, request.path);
            state.requests.push(line);
            if state.authorization.is_some()
                && state.authorization.as_deref() != request.header("authorization")
            {
                return stream.write_all(&error(401));
            }
            let newest = state
                .faults
                .iter()
                .rev()
                .find(|(part, _)| request.path.contains(part.as_str()));
            (newest.map(|(_, answer)| *answer), state.epoch)
        };
        match (fault, self.upstream) {
            (Some(Answer::Silence), _) => {
                let deadline = Deadline::after(HANG_MAX);
                while self.lock().epoch == epoch && !deadline.passed() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            (Some(Answer::Status(status)), _) => stream.write_all(&error(status))?,
            (None, Some(upstream)) => match request.send(upstream) {
                Ok(answer) => stream.write_all(&answer)?,
                Err(_) => stream.write_all(&error(502))?,
            },
            (None, None) => stream.write_all(&error(404))?,
        }
        Ok(())
    }
}

fn error(status: u16) -> Vec<u8> {
    // Confluent's codes: 40403 is "schema not found", 50001 "error in the store".
    let code = if status == 404 {
        40_403
    } else {
        u32::from(status) * 100 + 1
    };
    let body = format!("{{\"error_code\":{code},\"message\":\"injected fault\"}}");
    format!(
        "HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::http_get;

    #[test]
    fn faults_come_and_go() {
        let behind = HttpFault::alone().unwrap();
        behind.fail(200);
        let front = HttpFault::in_front_of(behind.address()).unwrap();
        let get = |path| http_get(front.address(), path).unwrap().status;
        assert_eq!(get("/subjects"), 200);
        front.fail_path("/schemas", 500);
        assert_eq!(get("/schemas/ids/1"), 500);
        assert_eq!(get("/subjects"), 200);
        front.heal();
        assert_eq!(get("/schemas/ids/1"), 200);
        assert_eq!(front.requests().len(), 4);
        assert_eq!(behind.requests().len(), 3);
        drop(behind);
        assert_eq!(get("/subjects"), 502);
    }
}
