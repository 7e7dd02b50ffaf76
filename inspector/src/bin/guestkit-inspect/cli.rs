//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Reads a virtual machine disk image: what it is, and what the guest on it is. Needs no root, mounts
/// nothing, writes nothing.
#[derive(Debug, Parser)]
#[command(
    name = "guestkit-inspect",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  guestkit-inspect debian-12.qcow2
  guestkit-inspect --output json debian-12.qcow2 | jq '.packages[].purl'
  guestkit-inspect --output cyclonedx debian-12.qcow2 > debian-12.cdx.json
  guestkit-inspect --section packages --section users debian-12.qcow2
  guestkit-inspect --deep debian-12.qcow2
  guestkit-inspect ls debian-12.qcow2 /etc
  guestkit-inspect cat debian-12.qcow2 /etc/os-release
  guestkit-inspect tree --sha256 debian-12.qcow2 /boot
  guestkit-inspect layers debian-12.qcow2
  guestkit-inspect self-check

Exit codes: 0 done, 1 an error, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

/// The report, when no verb is named.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The disk image
    #[arg(required = true)]
    pub(crate) image: Option<PathBuf>,
    /// Form of the report; cyclonedx (1.6) and spdx (2.3) are bills of materials: systems, packages
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Only these sections: packages, services, users, network, security, storage, databases, kernels
    #[arg(long = "section", value_name = "NAME")]
    pub(crate) sections: Vec<String>,
    /// Walks every file: set-uid and world-writable files, file capabilities
    #[arg(long)]
    pub(crate) deep: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists a directory of the guest
    Ls(PlaceArguments),
    /// Writes a file of the guest to standard output
    Cat(PlaceArguments),
    /// Lists everything beneath a directory of the guest
    Tree {
        /// Adds the SHA-256 of each file's content
        #[arg(long)]
        sha256: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Shows container, partitions, volumes and file systems
    Layers {
        /// The disk image
        image: PathBuf,
        /// Form of the answer
        #[arg(long, value_enum, default_value = "table")]
        output: PlainOutput,
        #[command(flatten)]
        common: Common,
    },
    /// Tries, from inside the confined child, what must not be possible there
    SelfCheck {
        /// For tests: a child that never answers
        #[arg(long, hide = true)]
        hang: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlaceArguments {
    /// The disk image
    pub(crate) image: PathBuf,
    /// Path in the guest
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// The file system to look in, as `layers` names it [default: the guest's root and its mounts]
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Form of the answer
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: PlainOutput,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// A further directory beneath which backing files may lie; that of the image always counts
    #[arg(long = "root", value_name = "DIR")]
    pub(crate) roots: Vec<PathBuf>,
    /// A further disk of the same machine, in order: its volumes may span them
    #[arg(long = "add", value_name = "IMAGE")]
    pub(crate) further: Vec<PathBuf>,
    /// Format of the image; it must agree with what is found
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Reads block devices too
    #[arg(long)]
    pub(crate) allow_devices: bool,
    /// Longest time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Most bytes read from the image, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub(crate) read_limit: u64,
    /// Reads the image in this process, without a confined child
    #[arg(long, conflicts_with = "require_sandbox")]
    pub(crate) no_sandbox: bool,
    /// Refuses to read when the kernel does not give the child every part of its confinement
    #[arg(long)]
    pub(crate) require_sandbox: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    #[value(name = "cyclonedx")]
    CycloneDx,
    Spdx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainOutput {
    Table,
    Json,
}
