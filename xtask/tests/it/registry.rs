use xtask::cluster::{HttpFault, Registry, http_get, http_send};

const SUBJECT: &str = "/apis/ccompat/v7/subjects/kept-value/versions";

#[test]
fn schemas_survive_a_restart_and_faults_are_on_demand() {
    let registry = Registry::start().unwrap();
    let body = br#"{"schema": "{\"type\": \"string\"}"}"#;
    let answer = http_send(registry.address(), "POST", SUBJECT, body).unwrap();
    assert_eq!(answer.status, 200);
    registry.restart().unwrap();
    let answer = http_get(registry.address(), SUBJECT).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"[1]"[..]));

    let front = HttpFault::in_front_of(registry.address()).unwrap();
    let get = || http_get(front.address(), SUBJECT).unwrap();
    assert_eq!(get().body, b"[1]");
    front.fail(500);
    assert_eq!(get().status, 500);
    front.heal();
    assert_eq!(get().body, b"[1]");
    registry.kill().unwrap();
    assert_eq!(get().status, 502);
}
