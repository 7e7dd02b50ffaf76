use std::time::Duration;
use xtask::cluster::{
    Fault, KafkaNode, api, create_topic, is_kafka, process, three_nodes, topic_names,
};

#[test]
fn a_killed_broker_comes_back_on_its_port_with_its_data() {
    let kafka = KafkaNode::builder().start().unwrap();
    let address = kafka.address();
    create_topic(address, "kept", 3).unwrap();
    let first = kafka.pid().unwrap();
    let name = std::fs::read_to_string(format!("/proc/{first}/comm")).unwrap();
    assert_eq!(name.trim(), "java", "kill must reach Java itself");

    kafka.kill().unwrap();
    assert!(!process::is_alive(first));
    assert!(!is_kafka(address));
    kafka.restart().unwrap();
    assert_eq!(topic_names(address).unwrap(), ["kept"]);

    kafka.stop().unwrap();
    kafka.restart().unwrap();
    assert_eq!(topic_names(address).unwrap(), ["kept"]);
}

#[test]
fn clients_behind_the_proxy_stay_there() {
    let (kafka, proxy) = KafkaNode::builder().start_behind_proxy().unwrap();
    create_topic(kafka.address(), "plain", 1).unwrap();
    assert_eq!(proxy.requests(api::CREATE_TOPICS), 0);

    // The broker obeys, the client does not hear of it.
    let armed = proxy.on(api::CREATE_TOPICS, Fault::CutBeforeResponse);
    create_topic(proxy.address(), "unheard", 1).unwrap_err();
    assert_eq!(armed.fired(), 1);
    // A new topic shows in the broker's metadata a moment after the controller made it.
    for _ in 0..100 {
        if topic_names(kafka.address()).unwrap().len() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(topic_names(kafka.address()).unwrap(), ["plain", "unheard"]);

    // The broker never saw it.
    let armed = proxy.on(api::CREATE_TOPICS, Fault::CutBeforeRequest);
    create_topic(proxy.address(), "unsent", 1).unwrap_err();
    assert_eq!(armed.fired(), 1);
    assert_eq!(topic_names(kafka.address()).unwrap(), ["plain", "unheard"]);

    create_topic(proxy.address(), "third", 1).unwrap();
    assert!(proxy.wait_for_requests(api::CREATE_TOPICS, 3, Duration::ZERO));
}

#[test]
fn three_nodes_serve_while_one_is_down() {
    let nodes = three_nodes(|node| node.heap_mb(256)).unwrap();
    create_topic(nodes[0].address(), "replicated", 1).unwrap();
    nodes[2].kill().unwrap();
    assert_eq!(topic_names(nodes[1].address()).unwrap(), ["replicated"]);
    nodes[2].restart().unwrap();
}
