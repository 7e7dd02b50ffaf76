//! What the fleet promises in documents, held against the documents and against a run: the AsyncAPI
//! description before its own parser, CloudEvents before their own SDK, JSON and Avro before libraries
//! of other languages than the product's. Needs Python and Node.

use crate::fleet::{self, Fleet};
use crate::interrupt;
use crate::packages::npm_ci;
use crate::python;
use crate::steps::{Steps, run_within};
use crate::verbs::test::Services;
use anyhow::Result;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use xtask::cluster::{check_prerequisites, provision};
use xtask::workspace::root;

/// Longest time for one check. They take seconds, but a first start on a busy machine does not.
const CHECK: Duration = Duration::from_secs(180);

pub(crate) fn run() -> Result<ExitCode> {
    interrupt::install()?;
    check_prerequisites()?;
    let mut steps = Steps::default();
    if steps.run("build", fleet::build).is_some() {
        let services = steps.run("Kafka and schema registry", || {
            provision()?;
            Services::start()
        });
        if let Some(services) = services {
            let mut fleets = fleet::of_all_results(&mut steps, &services, "contracts");
            check(&mut steps, &mut fleets);
        }
    }
    Ok(steps.finish())
}

/// Asks for fleets that nobody has used yet: it counts what they publish.
pub(crate) fn check(steps: &mut Steps, fleets: &mut [Fleet]) {
    let folder = folder();
    steps.run("contracts: AsyncAPI", || {
        npm_ci(&folder)?;
        let mut node = Command::new("node");
        node.arg(folder.join("asyncapi.js"))
            .arg(root().join("schemas/asyncapi.yaml"));
        run_within(&mut node, CHECK)
    });
    let python = steps.run("contracts: Python packages", || {
        python::environment("interop/contracts", &folder.join("requirements.txt"))
    });
    let Some(python) = python else { return };
    let script = |name: &str| {
        let mut command = Command::new(&python);
        // No byte code beside the sources.
        command.arg("-B").arg(folder.join(name));
        command
    };
    steps.run("contracts: documents", || {
        run_within(&mut script("documents.py"), CHECK)
    });
    for fleet in fleets {
        let framing = fleet.results().framing();
        steps.run(&format!("contracts: records, {framing}"), || {
            let mut check = script("records.py");
            check.arg(framing).envs(fleet.environment());
            let checked = run_within(&mut check, CHECK);
            fleet.check()?;
            checked
        });
    }
}

fn folder() -> PathBuf {
    root().join("interop/contracts")
}
