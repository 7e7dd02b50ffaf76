//! Flags of the gateway.

use crate::cli::FramingChoice;
use crate::failure::{Failure, Outcome};
use crate::settings::duration;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The smallest body limit: less than any job needs is a mistake.
const BODY_LIMIT_MIN: usize = 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Flags of `gateway`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatewayOptions {
    /// Where to listen
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    /// Who may speak to it: lines tenant:token or tenant:sha256:HEX; tenant * is the operator. Without it
    /// everybody may
    #[arg(long, env = "GUESTKIT_GATEWAY_TOKENS_FILE", value_name = "FILE")]
    pub(crate) tokens_file: Option<PathBuf>,
    /// Certificate chain, PEM
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key, PEM
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// The largest request body
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_BODY_LIMIT",
        value_name = "BYTES",
        default_value_t = 1024 * 1024
    )]
    pub(crate) body_limit: usize,
    /// Requests a second of each token, or of each address where there are no tokens; 0: no limit
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_RATE_LIMIT",
        value_name = "N",
        default_value_t = 1000
    )]
    pub(crate) rate_limit: u32,
    /// Connections at a time; further ones wait
    #[arg(long, env = "GUESTKIT_GATEWAY_MAX_CONNECTIONS", value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_connections: u32,
    /// Jobs kept in memory; others are looked up in the topics
    #[arg(long, env = "GUESTKIT_GATEWAY_RECENT_JOBS", value_name = "N", default_value_t = 50_000,
        value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) recent_jobs: u32,
    /// How long requests may still take after SIGTERM
    #[arg(
        long,
        env = "GUESTKIT_GATEWAY_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "20s"
    )]
    pub(crate) drain_timeout: String,
    /// How to frame jobs [default: confluent with a registry, else json]
    #[arg(long, env = "GUESTKIT_GATEWAY_FRAMING", value_name = "FRAMING")]
    pub(crate) framing: Option<FramingChoice>,
    /// How log lines look
    #[arg(
        long,
        env = "GUESTKIT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
}

impl GatewayOptions {
    /// What clap cannot check.
    pub(crate) fn check(&self) -> Outcome<Duration> {
        if self.body_limit < BODY_LIMIT_MIN {
            return Err(Failure::usage(format!(
                "--body-limit {}: at least {BODY_LIMIT_MIN} bytes",
                self.body_limit
            )));
        }
        duration(&self.drain_timeout)
            .map_err(|failure| Failure::usage(format!("--drain-timeout: {}", failure.message)))
    }
}
