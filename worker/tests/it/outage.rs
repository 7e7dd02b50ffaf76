//! The broker goes away while jobs run: the worker stays, nothing is lost, nothing doubled.

use crate::fleet::{Fleet, by_job, echo, executed_keys};
use std::time::Duration;
use xtask::cluster::KafkaNode;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_broker_restart_while_jobs_run_costs_nothing() {
    let node = KafkaNode::builder().start().unwrap();
    let fleet = Fleet::at(node.bootstrap(), "restart", 4);
    let mut workers = [fleet.worker(&[]), fleet.worker(&[])];
    let total = 400;
    for n in 0..total {
        let key = format!("key-{}", n % 300);
        let data = format!(r#"{{"n":{},"sleep_ms":{}}}"#, n % 300, n % 300 % 40);
        fleet.publish(
            None,
            Some(&n.to_string()),
            &echo(&format!("job-{n:06}"), Some(&key), &data),
        );
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
    let results = fleet.results(total, LIMIT);
    assert_eq!(by_job(&results).len(), total);
    assert_eq!(executed_keys(&results).len(), 300);
    fleet.wait_no_lag(LIMIT);
    for worker in &mut workers {
        assert!(worker.is_running(), "the worker stays");
        assert_eq!(worker.terminate(), 0);
    }
}
