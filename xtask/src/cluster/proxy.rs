//! A TCP proxy that fails the way networks do, and that can read Kafka's frames.
//!
//! "The coordinator committed, and nobody told the producer" is
//! `proxy.on(api::END_TXN, Fault::CutBeforeResponse)`: the request goes through, the answer
//! arrives at the proxy, and then the connection ends.

use super::error::{Context, Error};
use crate::clock::Deadline;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Larger frames are not Kafka's.
const FRAME_MAX: usize = 256 << 20;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often the accepting thread looks up from its listener.
const ACCEPT_EVERY: Duration = Duration::from_millis(2);

/// The head of a request, as the proxy saw it pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Counts the proxy's connections.
    pub connection: u64,
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: String,
    /// With its head, without the four bytes of its length.
    pub length: usize,
}

/// What happens to a request of a chosen kind, or to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The broker never sees the request; its connection ends.
    CutBeforeRequest,
    /// The broker has done what it was asked; the connection ends before the client hears of it.
    CutBeforeResponse,
    /// As [`Self::CutBeforeRequest`], and the whole proxy is cut until [`TcpProxy::heal`].
    IsolateBeforeRequest,
    /// As [`Self::CutBeforeResponse`], and the whole proxy is cut until [`TcpProxy::heal`].
    IsolateBeforeResponse,
    /// The answer disappears and the connection stays.
    DropResponse,
    /// The request, and what follows it on its connection, waits.
    HoldRequest(Duration),
    /// The answer, and what follows it on its connection, waits.
    HoldResponse(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// Connections are closed and refused.
    Cut,
    /// Connections stay and are accepted; no byte moves.
    Stalled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Kafka,
    Raw,
}

struct Rule {
    id: u64,
    api_key: i16,
    fault: Fault,
    times_left: u64,
    fired: u64,
}

type Watcher = Arc<dyn Fn(&Frame) + Send + Sync>;

struct State {
    link: Link,
    stopped: bool,
    listening: bool,
    next_id: u64,
    connections: BTreeMap<u64, [TcpStream; 2]>,
    accepted: u64,
    rules: Vec<Rule>,
    requests: BTreeMap<i16, u64>,
    responses_left: Option<u64>,
    response_delay: Duration,
    watchers: Vec<Watcher>,
}

struct Shared {
    address: SocketAddr,
    target: SocketAddr,
    protocol: Protocol,
    state: Mutex<State>,
    changed: Condvar,
}

/// The proxy; dropped, it closes everything.
pub struct TcpProxy {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// A rule in force; [`Armed::disarm`] ends it, dropping this does not.
pub struct Armed {
    shared: Arc<Shared>,
    id: u64,
}

impl TcpProxy {
    /// Listens on `port` and passes Kafka's frames to `target`. The broker has to advertise the
    /// proxy: [`KafkaBuilder::start_behind_proxy`](super::KafkaBuilder::start_behind_proxy).
    pub fn kafka(port: u16, target: SocketAddr) -> Result<Self, Error> {
        Self::start(port, target, Protocol::Kafka)
    }

    /// Listens on `port` and passes bytes of any protocol; [`Self::on`] and the counts of
    /// requests mean nothing here.
    pub fn raw(port: u16, target: SocketAddr) -> Result<Self, Error> {
        Self::start(port, target, Protocol::Raw)
    }

    fn start(port: u16, target: SocketAddr, protocol: Protocol) -> Result<Self, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = listen(address).context(|| format!("listen on {address}"))?;
        let shared = Arc::new(Shared {
            address,
            target,
            protocol,
            state: Mutex::new(State {
                link: Link::Up,
                stopped: false,
                listening: true,
                next_id: 0,
                connections: BTreeMap::new(),
                accepted: 0,
                rules: Vec::new(),
                requests: BTreeMap::new(),
                responses_left: None,
                response_delay: Duration::ZERO,
                watchers: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let server = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || server.accept(listener));
        Ok(Self {
            shared,
            accepting: Some(accepting),
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// `127.0.0.1:PORT`, for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.shared.address.to_string()
    }

    /// Closes all connections and refuses new ones until [`Self::heal`].
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
        self.shared.wait_for(|state| !state.listening);
    }

    /// Closes all connections; new ones are welcome.
    pub fn cut_connections(&self) {
        self.shared.lock().close_all();
        self.shared.changed.notify_all();
    }

    /// Keeps connections open, accepts new ones, and moves no byte until [`Self::heal`]:
    /// a switch that drops packets.
    pub fn blackhole(&self) {
        self.shared.lock().link = Link::Stalled;
        self.shared.changed.notify_all();
    }

    /// After `n` more answers, all further ones disappear until [`Self::heal`].
    pub fn drop_responses_after(&self, n: u64) {
        self.shared.lock().responses_left = Some(n);
    }

    /// Every answer arrives that much later, until [`Self::heal`].
    pub fn delay_responses(&self, delay: Duration) {
        self.shared.lock().response_delay = delay;
    }

    /// Ends every state of the network above. Armed rules stay.
    pub fn heal(&self) {
        {
            let mut state = self.shared.lock();
            state.link = Link::Up;
            state.responses_left = None;
            state.response_delay = Duration::ZERO;
        }
        self.shared.changed.notify_all();
        self.shared.wait_for(|state| state.listening);
    }

    /// Once: the next request of this kind meets the fault.
    pub fn on(&self, api_key: i16, fault: Fault) -> Armed {
        self.on_next(api_key, 1, fault)
    }

    /// The next `times` requests of this kind meet the fault. Rules of one kind are used up one
    /// after the other, the oldest first.
    pub fn on_next(&self, api_key: i16, times: u64, fault: Fault) -> Armed {
        let mut state = self.shared.lock();
        let id = state.new_id();
        state.rules.push(Rule {
            id,
            api_key,
            fault,
            times_left: times,
            fired: 0,
        });
        Armed {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    /// [`Self::on`] with [`Fault::CutBeforeResponse`].
    pub fn cut_on_response_of(&self, api_key: i16) -> Armed {
        self.on(api_key, Fault::CutBeforeResponse)
    }

    /// [`Self::on`] with [`Fault::HoldResponse`].
    pub fn hold_response_of(&self, api_key: i16, time: Duration) -> Armed {
        self.on(api_key, Fault::HoldResponse(time))
    }

    /// How many requests of this kind clients sent.
    #[must_use]
    pub fn requests(&self, api_key: i16) -> u64 {
        self.shared.lock().requests_of(api_key)
    }

    /// The counts of all kinds.
    #[must_use]
    pub fn request_counts(&self) -> BTreeMap<i16, u64> {
        self.shared.lock().requests.clone()
    }

    /// Whether that many requests of this kind were seen in time.
    #[must_use]
    pub fn wait_for_requests(&self, api_key: i16, count: u64, time: Duration) -> bool {
        self.shared
            .wait_at_most(time, |state| state.requests_of(api_key) >= count)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Connections since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Calls `see` for every request before it is passed on, on the thread that passes it on.
    pub fn watch(&self, see: impl Fn(&Frame) + Send + Sync + 'static) {
        self.shared.lock().watchers.push(Arc::new(see));
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopped = true;
            state.cut();
        }
        self.shared.changed.notify_all();
        if let Some(thread) = self.accepting.take() {
            drop(thread.join());
        }
    }
}

impl Armed {
    /// How often it struck.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.shared.lock().fired(self.id)
    }

    /// Whether it struck at least once in time.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        self.shared
            .wait_at_most(time, |state| state.fired(self.id) > 0)
    }

    /// It strikes no more.
    pub fn disarm(&self) {
        let mut state = self.shared.lock();
        if let Some(rule) = state.rules.iter_mut().find(|rule| rule.id == self.id) {
            rule.times_left = 0;
        }
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn cut(&mut self) {
        self.link = Link::Cut;
        self.close_all();
    }

    fn close_all(&mut self) {
        for streams in std::mem::take(&mut self.connections).values() {
            close(streams);
        }
    }

    fn close_one(&mut self, connection: u64) {
        if let Some(streams) = self.connections.remove(&connection) {
            close(&streams);
        }
    }

    fn requests_of(&self, api_key: i16) -> u64 {
        self.requests.get(&api_key).copied().unwrap_or(0)
    }

    fn fired(&self, id: u64) -> u64 {
        let rule = self.rules.iter().find(|rule| rule.id == id);
        rule.map_or(0, |rule| rule.fired)
    }

    /// The fault that this request meets: taken from its rule, which strikes when it is done.
    fn take_fault(&mut self, api_key: i16) -> Option<(u64, Fault)> {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.api_key == api_key && rule.times_left > 0)?;
        rule.times_left -= 1;
        Some((rule.id, rule.fault))
    }

    fn strike(&mut self, id: u64) {
        if let Some(rule) = self.rules.iter_mut().find(|rule| rule.id == id) {
            rule.fired += 1;
        }
    }
}

/// What to do with an answer that is still to come.
type Expected = Mutex<HashMap<i32, (u64, Fault)>>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, done: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !done(&state) && !state.stopped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_at_most(&self, time: Duration, done: impl Fn(&State) -> bool) -> bool {
        let deadline = Deadline::after(time);
        let mut state = self.lock();
        while !done(&state) {
            if deadline.passed() {
                return false;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, deadline.left())
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn accept(self: &Arc<Self>, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let (stopped, cut) = {
                let state = self.lock();
                (state.stopped, state.link == Link::Cut)
            };
            if stopped {
                return;
            }
            match (cut, &listener) {
                (true, _) => listener = None,
                (false, None) => listener = listen(self.address).ok(),
                (false, Some(open)) => {
                    while let Ok((client, _)) = open.accept() {
                        let server = Arc::clone(self);
                        std::thread::spawn(move || drop(server.connect(client)));
                    }
                }
            }
            {
                let mut state = self.lock();
                if state.listening != listener.is_some() {
                    state.listening = listener.is_some();
                    drop(state);
                    self.changed.notify_all();
                }
            }
            std::thread::sleep(ACCEPT_EVERY);
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        let upstream = TcpStream::connect_timeout(&self.target, CONNECT_WITHIN)?;
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let connection = {
            let mut state = self.lock();
            if state.link == Link::Cut {
                return client.shutdown(Shutdown::Both);
            }
            let connection = state.new_id();
            state.accepted += 1;
            let streams = [client.try_clone()?, upstream.try_clone()?];
            state.connections.insert(connection, streams);
            connection
        };
        self.changed.notify_all();
        let expected = Arc::new(Expected::default());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (client_out, upstream_out) = (client.try_clone()?, upstream.try_clone()?);
        let answers = Arc::clone(&expected);
        std::thread::spawn(move || {
            drop(up.pump_requests(connection, &client, &upstream_out, &expected));
            up.end(connection);
        });
        std::thread::spawn(move || {
            drop(down.pump_responses(connection, &upstream, &client_out, &answers));
            down.end(connection);
        });
        Ok(())
    }

    fn end(&self, connection: u64) {
        self.lock().close_one(connection);
        self.changed.notify_all();
    }

    fn pump_requests(
        &self,
        connection: u64,
        from: &TcpStream,
        mut to: &TcpStream,
        expected: &Expected,
    ) -> io::Result<()> {
        while let Some(bytes) = self.read(from)? {
            let mut after = None;
            if self.protocol == Protocol::Kafka {
                let frame = parse(connection, &bytes)?;
                let (fault, watchers) = {
                    let mut state = self.lock();
                    *state.requests.entry(frame.api_key).or_default() += 1;
                    (state.take_fault(frame.api_key), state.watchers.clone())
                };
                self.changed.notify_all();
                for see in &watchers {
                    see(&frame);
                }
                after = fault.map(|fault| (frame.correlation_id, fault));
            }
            match after {
                Some((_, (rule, Fault::CutBeforeRequest))) => {
                    return self.strike_and_cut(rule, connection, false);
                }
                Some((_, (rule, Fault::IsolateBeforeRequest))) => {
                    return self.strike_and_cut(rule, connection, true);
                }
                Some((_, (rule, Fault::HoldRequest(time)))) => {
                    self.strike(rule);
                    self.hold(connection, time);
                }
                Some((correlation_id, fault)) => {
                    expected
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(correlation_id, fault);
                }
                None => {}
            }
            self.pass_when_up(connection);
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    fn pump_responses(
        &self,
        connection: u64,
        from: &TcpStream,
        mut to: &TcpStream,
        expected: &Expected,
    ) -> io::Result<()> {
        while let Some(bytes) = self.read(from)? {
            let fault = bytes
                .get(4..8)
                .and_then(|id| id.try_into().ok())
                .map(i32::from_be_bytes)
                .and_then(|id| {
                    expected
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&id)
                });
            match fault {
                Some((rule, Fault::CutBeforeResponse)) => {
                    return self.strike_and_cut(rule, connection, false);
                }
                Some((rule, Fault::IsolateBeforeResponse)) => {
                    return self.strike_and_cut(rule, connection, true);
                }
                Some((rule, Fault::DropResponse)) => {
                    self.strike(rule);
                    continue;
                }
                Some((rule, Fault::HoldResponse(time))) => {
                    self.strike(rule);
                    self.hold(connection, time);
                }
                // Faults of requests never come here.
                Some(_) | None => {}
            }
            let (dropped, delay) = {
                let mut state = self.lock();
                let dropped = match &mut state.responses_left {
                    Some(0) => true,
                    Some(left) => {
                        *left -= 1;
                        false
                    }
                    None => false,
                };
                (dropped, state.response_delay)
            };
            if dropped {
                continue;
            }
            self.hold(connection, delay);
            self.pass_when_up(connection);
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    /// One frame with its length, or whatever is there; `None` at the end of the stream.
    fn read(&self, mut from: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        if self.protocol == Protocol::Raw {
            let mut bytes = vec![0; 64 << 10];
            let count = from.read(&mut bytes)?;
            bytes.truncate(count);
            return Ok((count > 0).then_some(bytes));
        }
        let mut head = [0; 4];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_be_bytes(head) as usize;
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; 4 + length];
        bytes[..4].copy_from_slice(&head);
        from.read_exact(&mut bytes[4..])?;
        Ok(Some(bytes))
    }

    fn strike(&self, rule: u64) {
        self.lock().strike(rule);
        self.changed.notify_all();
    }

    fn strike_and_cut(&self, rule: u64, connection: u64, all: bool) -> io::Result<()> {
        {
            let mut state = self.lock();
            // Closed before it is told: who waits for the strike finds the connection gone.
            if all {
                state.cut();
            } else {
                state.close_one(connection);
            }
            state.strike(rule);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Waits, unless the connection ends before.
    fn hold(&self, connection: u64, time: Duration) {
        if !time.is_zero() {
            self.wait_at_most(time, |state| !state.connections.contains_key(&connection));
        }
    }

    fn pass_when_up(&self, connection: u64) {
        self.wait_for(|state| {
            state.link != Link::Stalled || !state.connections.contains_key(&connection)
        });
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn close(streams: &[TcpStream; 2]) {
    for stream in streams {
        // It may be closed already.
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// Request header: api_key i16, api_version i16, correlation_id i32, client_id nullable string.
fn parse(connection: u64, bytes: &[u8]) -> io::Result<Frame> {
    let body = &bytes[4..];
    let (head, rest) = body
        .split_first_chunk::<8>()
        .ok_or(io::ErrorKind::InvalidData)?;
    let client_id = rest
        .split_first_chunk::<2>()
        .and_then(|(length, rest)| {
            let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
            rest.get(..length)
        })
        .unwrap_or_default();
    Ok(Frame {
        connection,
        api_key: i16::from_be_bytes([head[0], head[1]]),
        api_version: i16::from_be_bytes([head[2], head[3]]),
        correlation_id: i32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        client_id: String::from_utf8_lossy(client_id).into_owned(),
        length: body.len(),
    })
}
