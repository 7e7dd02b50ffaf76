//! `./dev VERB`: everything that is done to this workspace.

mod dependencies;
mod fleet;
mod interrupt;
mod observed;
mod packages;
mod prometheus;
mod python;
mod steps;
mod verbs;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Everything that is done to this workspace.
#[derive(Parser)]
#[command(name = "./dev", bin_name = "./dev", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs every check of the project, with a real Apache Kafka and schema registry
    Test(verbs::test::Options),
    /// Shows the product at work, with a Kafka endpoint in the process: no Java
    Demo(verbs::demo::Options),
    /// A real Apache Kafka and schema registry on this machine, to work with
    Kafka(verbs::kafka::Options),
    /// Checks Dockerfile, Compose file, Helm chart, rendered manifests and the autoscaler's settings
    Manifests(verbs::manifests::Options),
    /// Programs in five languages publish jobs and read their results, in three framings
    Interop(verbs::interop::Options),
    /// Holds the documents, the records of a run and the AsyncAPI description against each other
    Contracts,
    /// Results go to other systems: Kafka Connect and SQL engines read them
    Sinks(verbs::sinks::Options),
    /// Recovery procedures and scaling of the operations guide, on a real Kafka
    Operations(verbs::operations::Options),
    /// The checks that run nothing: format, clippy, documentation, dependencies
    Lint,
    /// Simulates the worker under faults, one run a seed
    Sim(verbs::sim::Options),
    /// Kills and pauses workers on a real Kafka while they work
    Chaos(verbs::chaos::Options),
    /// Reads every disk image of the corpus and compares with the answers of reference tools
    Corpus,
    /// Builds guests from distribution packages and compares what the inspector says (needs root)
    Guests(verbs::guests::Options),
    /// Asks the official validators about the bills of materials of guests
    Sbom(verbs::sbom::Options),
    /// Follows a job's trace from a Python service through a worker to another, with a real collector
    Trace,
    /// Fuzzes the readers of the inspector
    Fuzz(verbs::fuzz::Options),
    /// The gateway under load, under a fuzzer, in a browser
    Gateway(verbs::gateway::Options),
    /// Runs a fleet before a real Prometheus and asks what dashboard and alerts ask
    Observe(verbs::observe::Options),
    /// Measures
    Bench(verbs::bench::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Test(options) => verbs::test::run(&options),
        Verb::Demo(options) => verbs::demo::run(&options),
        Verb::Kafka(options) => verbs::kafka::run(&options),
        Verb::Manifests(options) => verbs::manifests::run(&options),
        Verb::Interop(options) => verbs::interop::run(&options),
        Verb::Contracts => verbs::contracts::run(),
        Verb::Sinks(options) => verbs::sinks::run(&options),
        Verb::Operations(options) => verbs::operations::run(&options),
        Verb::Lint => verbs::lint::run(),
        Verb::Sim(options) => verbs::sim::run(&options),
        Verb::Chaos(options) => verbs::chaos::run(&options),
        Verb::Corpus => verbs::corpus::run(),
        Verb::Guests(options) => verbs::guests::run(&options),
        Verb::Sbom(options) => verbs::sbom::run(&options),
        Verb::Trace => verbs::trace::run(),
        Verb::Fuzz(options) => verbs::fuzz::run(&options),
        Verb::Gateway(options) => verbs::gateway::run(&options),
        Verb::Observe(options) => verbs::observe::run(&options),
        Verb::Bench(options) => verbs::bench::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("./dev: {error:#}");
        ExitCode::FAILURE
    })
}
