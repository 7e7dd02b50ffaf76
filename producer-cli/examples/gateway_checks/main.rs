//! Checks of the gateway that are too long for every test run: `./dev gateway` calls them.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/it/gateway/load.rs"]
mod load;
mod page;
// Shared with the tests, which use more of it.
#[allow(dead_code)]
#[path = "../../tests/it/gateway/stand.rs"]
mod stand;
mod web_driver;

use clap::{Parser, Subcommand};
use load::Load;
use stand::Stand;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Checks of the gateway on a real Kafka.
#[derive(Parser)]
enum Check {
    #[command(flatten)]
    Of(What),
}

#[derive(Subcommand)]
enum What {
    /// Many clients while gateways and a worker are killed
    Soak {
        #[arg(long, default_value_t = 100)]
        clients: usize,
        #[arg(long, default_value_t = 10_000)]
        jobs: usize,
        #[arg(long, default_value_t = 6)]
        restarts: usize,
    },
    /// The page in Chromium
    Page {
        /// Where the picture goes
        #[arg(long)]
        screenshot: PathBuf,
    },
    /// Runs a command with a gateway; `{url}` in its arguments is the gateway's address
    With {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let Check::Of(what) = Check::parse();
    let bootstrap = xtask::cluster::bootstrap_servers().unwrap().to_owned();
    let stand = Stand::on("checks", 12, bootstrap, stand::programs());
    match what {
        What::Soak {
            clients,
            jobs,
            restarts,
        } => stand::block_on(async {
            let load = Load {
                clients,
                jobs,
                restarts,
                sleep_ms: 0,
            };
            println!("{}", load::run(&stand, load).await);
            ExitCode::SUCCESS
        }),
        What::Page { screenshot } => {
            stand::block_on(page::check(&stand, &screenshot));
            ExitCode::SUCCESS
        }
        What::With { command } => {
            let gateway = stand::block_on(stand.gateway(&[]));
            let _worker = stand.worker("checks-1", &[]);
            let words: Vec<_> = command
                .iter()
                .map(|word| word.replace("{url}", &gateway.url))
                .collect();
            let status = Command::new(&words[0]).args(&words[1..]).status().unwrap();
            println!(
                "the gateway's memory at the end: {} MiB",
                gateway.program.resident() / 1024 / 1024
            );
            ExitCode::from(u8::from(!status.success()))
        }
    }
}
