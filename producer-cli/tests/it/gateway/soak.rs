//! Many clients, restarts in the middle: nothing lost, nothing doubled. `./dev gateway` runs it larger.

use super::load::{Load, run};
use super::stand::{Stand, block_on};

#[test]
fn many_clients_and_restarts_lose_and_double_nothing() {
    block_on(async {
        let stand = Stand::new("soak", 4);
        let report = run(
            &stand,
            Load {
                clients: 20,
                jobs: 300,
                restarts: 2,
                sleep_ms: 20,
            },
        )
        .await;
        println!("{report}");
    });
}
