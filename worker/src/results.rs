//! Results that are too large for a record.

use crate::engine::outcome::{ArtifactFile, Failure};
use crate::engine::record::Job;
use crate::handlers::{HandlerError, Output};
use guestkit_protocol::error_code;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest inline result data (protocol.md): one common decoder refuses strings over 1 MiB, and
/// brokers refuse such records.
pub const INLINE_MAX: usize = 512 * 1024;

/// Where large results go, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct Artifacts {
    dir: Option<PathBuf>,
    incarnation: String,
}

impl Artifacts {
    /// Writes large results beneath `dir`; without one they fail with `RESULT_TOO_LARGE`.
    #[must_use]
    pub fn new(dir: Option<PathBuf>, incarnation: &str) -> Self {
        Self {
            dir,
            incarnation: incarnation.to_owned(),
        }
    }

    /// Makes an output fit a record: large data becomes a file with a pointer.
    pub(crate) fn fit(
        &self,
        job: &Job,
        run: u32,
        mut output: Output,
    ) -> Result<Output, HandlerError> {
        let Some(data) = output.data.take_if(|data| data.len() > INLINE_MAX) else {
            return Ok(output);
        };
        let Some(dir) = &self.dir else {
            let failure = Failure::lasting(
                error_code::RESULT_TOO_LARGE,
                format!(
                    "the result has {} bytes, over the inline limit of {INLINE_MAX}: start the worker with --artifact-dir",
                    data.len()
                ),
            );
            return Err(HandlerError::Failed(Box::new(failure), output.cost));
        };
        match self.write(dir, job, run, data.as_bytes()) {
            Ok(file) => {
                output.artifacts.insert(0, file);
                Ok(output)
            }
            Err(error) => {
                let mut failure = Failure::lasting(
                    error_code::INTERNAL,
                    format!("cannot write the result's artifact: {error}"),
                );
                failure.recoverable = true;
                Err(HandlerError::Failed(Box::new(failure), output.cost))
            }
        }
    }

    /// Writes to a temporary name, syncs and renames: a file under the final name is whole. The
    /// process life is part of the name: the same run may happen in two processes, and the checksum
    /// in a committed result must stay true.
    fn write(&self, dir: &Path, job: &Job, run: u32, data: &[u8]) -> std::io::Result<ArtifactFile> {
        let name = format!("{}-{run}-{}.json", job.job_id, self.incarnation);
        let target = dir.join(&name);
        let temporary = dir.join(format!(".{name}.partial"));
        fs::create_dir_all(dir)?;
        let mut file = File::create(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)?;
        File::open(dir)?.sync_all()?;
        Ok(ArtifactFile {
            name: "result".to_owned(),
            location: target.to_string_lossy().into_owned(),
            size_bytes: data.len() as u64,
            sha256: hex::encode(Sha256::digest(data)),
            content_type: "application/json".to_owned(),
        })
    }
}
