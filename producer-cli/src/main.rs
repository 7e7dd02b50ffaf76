//! `guestkit-jobs`: publishes jobs, follows them, reads results; looks after topics and schemas.

mod acls;
mod admin;
mod cli;
mod clock;
mod dead_letters;
#[cfg(feature = "demo")]
mod demo;
mod documents;
mod failure;
mod gateway;
mod ids;
mod jobs;
mod output;
mod publish;
mod sending;
mod settings;
mod status;
mod watch;
mod workers;

use clap::Parser;
use cli::{Cli, Command, Publishing};
use failure::Outcome;
use guestkit_protocol::{compare_job, convert_job, fix_job, profile_job};
use jobs::Draft;
use settings::Settings;
use std::process::ExitCode;
use std::time::Duration;
use watch::Wanted;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("guestkit-jobs: {}", output::clean(&failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Outcome {
    if let Command::Validate { files } = &cli.command {
        let count = publish::valid(documents::read(files)?)?.len();
        eprintln!("{count} jobs are valid");
        return Ok(());
    }
    #[cfg(feature = "demo")]
    if let Command::Demo(options) = &cli.command {
        return demo::run(options);
    }
    // Variables that are not UTF-8 are nobody's configuration.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = Settings::new(cli.common, environment)?;
    let shorthand = |drafts: Vec<Draft>, how: &Publishing| {
        publish::publish(&settings, jobs::build(drafts, how)?, how)
    };
    match &cli.command {
        Command::Topics { command } => admin::topics(&settings, command),
        Command::Schemas { command } => admin::schemas(&settings, command),
        Command::Publish { files, how } => {
            let jobs = publish::valid(documents::read(files)?)?;
            publish::publish(&settings, jobs, how)
        }
        Command::Inspect { images, deep, how } => shorthand(
            images
                .iter()
                .map(|image| jobs::inspect(image, *deep))
                .collect(),
            how,
        ),
        Command::Profile { images, how } => shorthand(
            images
                .iter()
                .map(|image| ("profile", profile_job(image)))
                .collect(),
            how,
        ),
        Command::Fix { images, how } => shorthand(
            images
                .iter()
                .map(|image| ("fixjob", fix_job(image)))
                .collect(),
            how,
        ),
        Command::Convert {
            image,
            destination,
            format,
            how,
        } => shorthand(
            vec![("convert", convert_job(image, format, destination))],
            how,
        ),
        Command::Compare {
            image,
            baseline,
            how,
        } => shorthand(vec![("compare", compare_job(image, baseline))], how),
        Command::Echo { data, how } => shorthand(vec![jobs::echo(data)?], how),
        Command::Results {
            follow,
            job_id,
            since,
        } => watch::results(&settings, wanted(*follow, job_id, since.as_deref())),
        Command::Progress {
            follow,
            job_id,
            since,
        } => watch::progress(&settings, wanted(*follow, job_id, since.as_deref())),
        Command::Cancel { job_id, reason } => admin::cancel(&settings, job_id, reason.clone()),
        Command::DeadLetters { command } => dead_letters::run(&settings, command),
        Command::Workers { all } => workers::list(&settings, *all),
        Command::Status { watch, max_wait } => {
            let watch = watch.map(|seconds| Duration::from_secs(u64::from(seconds)));
            status::run(&settings, watch, settings::duration(max_wait)?)
        }
        Command::Gateway(options) => gateway::run(&settings, options),
        // Done above: they need no cluster.
        Command::Validate { .. } => Ok(()),
        #[cfg(feature = "demo")]
        Command::Demo(_) => Ok(()),
    }
}

fn wanted<'a>(follow: bool, job_ids: &'a [String], since: Option<&'a str>) -> Wanted<'a> {
    Wanted {
        follow,
        job_ids,
        since,
    }
}
