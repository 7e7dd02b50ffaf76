use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xtask::clock;
use xtask::cluster::{Fault, TcpProxy, free_port};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(10);

/// Answers every frame with its correlation id, as a broker would.
fn broker() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while let Ok(request) = read(&mut stream) {
                    let mut answer = vec![0, 0, 0, 6];
                    answer.extend(&request[4..8]);
                    answer.extend(b"ok");
                    stream.write_all(&answer).unwrap();
                }
            });
        }
    });
    address
}

fn proxy() -> TcpProxy {
    TcpProxy::kafka(free_port(), broker()).unwrap()
}

fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn connect(proxy: &TcpProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, api_key: i16, correlation_id: i32) -> std::io::Result<()> {
    let mut request = Vec::new();
    request.extend(api_key.to_be_bytes());
    request.extend(7_i16.to_be_bytes());
    request.extend(correlation_id.to_be_bytes());
    request.extend(4_i16.to_be_bytes());
    request.extend(b"test");
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &request].concat())
}

fn call(stream: &mut TcpStream, api_key: i16, correlation_id: i32) -> std::io::Result<i32> {
    send(stream, api_key, correlation_id)?;
    let answer = read(stream)?;
    Ok(i32::from_be_bytes(answer[..4].try_into().unwrap()))
}

#[test]
fn frames_are_counted_and_seen() {
    let proxy = proxy();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    proxy.watch(move |frame| list.lock().unwrap().push(frame.clone()));
    let mut client = connect(&proxy);
    for id in 0..5 {
        assert_eq!(call(&mut client, 26, id).unwrap(), id);
    }
    assert_eq!(call(&mut client, 0, 5).unwrap(), 5);
    assert_eq!(proxy.requests(26), 5);
    assert_eq!(proxy.request_counts(), [(0, 1), (26, 5)].into());
    let seen = seen.lock().unwrap();
    assert_eq!((seen[5].api_key, seen[5].api_version), (0, 7));
    assert_eq!(
        (seen[5].correlation_id, seen[5].client_id.as_str()),
        (5, "test")
    );
    assert_eq!((proxy.accepted(), proxy.connections()), (1, 1));
}

#[test]
fn an_answer_is_cut_off_once() {
    let proxy = proxy();
    let armed = proxy.cut_on_response_of(26);
    let mut client = connect(&proxy);
    assert_eq!(call(&mut client, 3, 1).unwrap(), 1);
    assert_eq!(armed.fired(), 0);
    call(&mut client, 26, 2).unwrap_err();
    assert!(armed.wait(LATER));
    let mut client = connect(&proxy);
    assert_eq!(call(&mut client, 26, 3).unwrap(), 3);
    assert_eq!(armed.fired(), 1);
    assert_eq!(proxy.requests(26), 2);
}

#[test]
fn isolation_refuses_until_healed() {
    let proxy = proxy();
    let armed = proxy.on(26, Fault::IsolateBeforeResponse);
    let mut client = connect(&proxy);
    call(&mut client, 26, 1).unwrap_err();
    assert!(armed.wait(LATER));
    proxy.cut(); // waits until the listener is closed
    TcpStream::connect(proxy.address()).unwrap_err();
    proxy.heal();
    assert_eq!(call(&mut connect(&proxy), 26, 2).unwrap(), 2);
}

#[test]
fn held_dropped_and_delayed_answers() {
    let proxy = proxy();
    let mut client = connect(&proxy);
    let start = clock::now();
    let armed = proxy.hold_response_of(26, Duration::from_millis(120));
    assert_eq!(call(&mut client, 26, 1).unwrap(), 1);
    assert!(start.elapsed() >= Duration::from_millis(120));
    assert_eq!(armed.fired(), 1);

    proxy.on(26, Fault::DropResponse);
    call(&mut client, 26, 2).unwrap_err();
    assert_eq!(call(&mut client, 26, 3).unwrap(), 3);

    proxy.drop_responses_after(1);
    assert_eq!(call(&mut client, 3, 4).unwrap(), 4);
    call(&mut client, 3, 5).unwrap_err();
    proxy.heal();
    assert_eq!(call(&mut client, 3, 6).unwrap(), 6);
}

#[test]
fn a_black_hole_keeps_what_it_swallowed() {
    let proxy = proxy();
    let mut old = connect(&proxy);
    assert_eq!(call(&mut old, 3, 1).unwrap(), 1);
    proxy.blackhole();
    call(&mut old, 3, 2).unwrap_err();
    let mut new = connect(&proxy);
    call(&mut new, 3, 3).unwrap_err();
    proxy.heal();
    let answer = read(&mut old).unwrap();
    assert_eq!(answer[..4], 2_i32.to_be_bytes());
}

#[test]
fn connections_are_cut_and_new_ones_welcome() {
    let proxy = proxy();
    let mut client = connect(&proxy);
    assert_eq!(call(&mut client, 3, 1).unwrap(), 1);
    proxy.cut_connections();
    call(&mut client, 3, 2).unwrap_err();
    assert_eq!(call(&mut connect(&proxy), 3, 3).unwrap(), 3);
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn raw_bytes_pass() {
    let proxy = TcpProxy::raw(free_port(), broker()).unwrap();
    assert_eq!(call(&mut connect(&proxy), 3, 9).unwrap(), 9);
}
