//! The broker goes away while jobs run: the worker stays, nothing is lost, nothing doubled.

use crate::agreement::{Jobs, Published, judge};
use crate::fleet::{Fleet, echo};
use std::time::Duration;
use xtask::cluster::KafkaNode;

#[test]
fn a_broker_restart_while_jobs_run_costs_nothing() {
    let node = KafkaNode::builder().start().unwrap();
    let fleet = Fleet::at(node.bootstrap(), "restart", 4);
    let mut workers = [fleet.worker(&[]), fleet.worker(&[])];
    let mut jobs = Jobs::new();
    for n in 0..400 {
        let (id, key) = (format!("job-{n:06}"), format!("key-{}", n % 300));
        let data = format!(r#"{{"n":{},"sleep_ms":{}}}"#, n % 300, n % 300 % 40);
        fleet.publish(None, Some(&id), &echo(&id, Some(&key), &data));
        jobs.insert(id, Published { key, data });
        if n == 150 {
            fleet.flush();
            node.stop().unwrap();
            std::thread::sleep(Duration::from_secs(2));
            node.restart().unwrap();
        }
        if n == 300 {
            fleet.flush();
            node.kill().unwrap();
            node.restart().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    fleet.flush();
    assert_eq!(judge(&fleet, &jobs).executed, 300);
    for worker in &mut workers {
        assert!(worker.is_running(), "the worker stays");
        assert_eq!(worker.terminate(), 0);
    }
}
