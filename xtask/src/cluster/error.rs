use std::path::PathBuf;

/// Why a part of the test cluster is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the machine is missing or too old.
    #[error("{program} is needed: {reason}; on Debian: apt-get install -y {packages}")]
    Prerequisite {
        program: &'static str,
        reason: String,
        packages: &'static str,
    },

    #[error("{what} could not be downloaded in {tries} tries (log: {})\n{tail}", log.display())]
    Download {
        what: String,
        tries: u32,
        log: PathBuf,
        tail: String,
    },

    /// The process ended, or did not answer in time.
    #[error("{what}: {reason} (log: {})\n{tail}", log.display())]
    NotReady {
        what: String,
        reason: String,
        log: PathBuf,
        tail: String,
    },

    /// The other side speaks something else, or refuses.
    #[error("unexpected answer: {0}")]
    Answer(String),

    #[error("{context}: {source}")]
    Io {
        context: String,
        source: std::io::Error,
    },
}

/// Says what was tried when the operating system refused.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            context: what(),
            source,
        })
    }
}
