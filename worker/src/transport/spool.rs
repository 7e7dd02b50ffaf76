//! The two directories: jobs come in as files, results go out as files.

use crate::engine::record::Millis;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Largest job file that is read: the jobs topic's largest record.
pub(super) const JOB_BYTES_MAX: u64 = 1 << 20;

/// A job file that is whole.
pub(super) struct JobFile {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: String,
}

/// Where a job file goes when its record is settled.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Move {
    pub(super) file: String,
    /// What the file held: a later file of the same name is another job.
    pub(super) sha256: String,
    /// Why it goes to `failed/`; without a reason it goes to `done/`.
    pub(super) reason: Option<String>,
}

/// The directories.
pub(super) struct Spool {
    jobs: PathBuf,
    results: PathBuf,
    /// Size and modification time of files seen but not taken yet.
    seen: BTreeMap<String, (u64, std::time::SystemTime, Millis)>,
}

/// A file is taken when it did not change for this long: who drops it may still be writing.
const SETTLE_MS: Millis = 150;
/// One that is no JSON gets this long: a slow copy looks like that.
pub(super) const BROKEN_SETTLE_MS: Millis = 2_000;

impl Spool {
    pub(super) fn open(jobs: &Path, results: &Path) -> io::Result<Self> {
        for dir in [
            jobs.to_path_buf(),
            jobs.join("done"),
            jobs.join("failed"),
            results.to_path_buf(),
        ] {
            fs::create_dir_all(&dir).map_err(|error| named(&dir, error))?;
        }
        Ok(Self {
            jobs: jobs.to_path_buf(),
            results: results.to_path_buf(),
            seen: BTreeMap::new(),
        })
    }

    /// Job files that did not change for a while and are not `known`, in the order of their names.
    pub(super) fn scan(
        &mut self,
        now: Millis,
        known: impl Fn(&str) -> bool,
    ) -> io::Result<Vec<JobFile>> {
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.jobs)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Taken away between listing and looking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if name.starts_with('.')
                || !name.ends_with(".json")
                || !metadata.is_file()
                || known(&name)
            {
                continue;
            }
            let state = (metadata.len(), metadata.modified()?);
            let since = match self.seen.get(&name) {
                Some((size, modified, since)) if (*size, *modified) == state => *since,
                _ => now,
            };
            present.insert(name, (state.0, state.1, since));
        }
        self.seen = present;
        let mut taken = Vec::new();
        for (name, (size, _, since)) in &self.seen {
            let wait = if *size > JOB_BYTES_MAX {
                BROKEN_SETTLE_MS
            } else {
                SETTLE_MS
            };
            if now - since < wait {
                continue;
            }
            let Some(file) = self.read(name, *size)? else {
                continue;
            };
            let broken = serde_json::from_slice::<serde::de::IgnoredAny>(&file.bytes).is_err();
            if broken && now - since < BROKEN_SETTLE_MS {
                continue;
            }
            taken.push(file);
        }
        for file in &taken {
            self.seen.remove(&file.name);
        }
        Ok(taken)
    }

    /// Too large a file is taken with its first bytes only: it will be refused.
    fn read(&self, name: &str, size: u64) -> io::Result<Option<JobFile>> {
        use io::Read;
        let mut bytes = Vec::new();
        let file = match File::open(self.jobs.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let limit = size.min(JOB_BYTES_MAX + 1);
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(JobFile {
            name: name.to_owned(),
            sha256: hex::encode(Sha256::digest(&bytes)),
            bytes,
        }))
    }

    /// Writes a result under its final name, whole or not at all.
    pub(super) fn write_result(&self, job_id: &str, document: &str) -> io::Result<()> {
        let name = format!("{job_id}-result.json");
        write_whole(&self.results, &name, format!("{document}\n").as_bytes())
    }

    /// Moves a job file away. One that is not there, or holds something else by now, was moved
    /// before.
    pub(super) fn settle(&self, to: &Move) -> io::Result<()> {
        let from = self.jobs.join(&to.file);
        let size = match fs::metadata(&from) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let same = self
            .read(&to.file, size)?
            .is_some_and(|file| file.sha256 == to.sha256);
        if !same {
            return Ok(());
        }
        let dir = self.jobs.join(if to.reason.is_some() {
            "failed"
        } else {
            "done"
        });
        if let Some(reason) = &to.reason {
            let name = format!("{}.reason.txt", to.file);
            write_whole(&dir, &name, format!("{reason}\n").as_bytes())?;
        }
        fs::rename(&from, dir.join(&to.file))?;
        File::open(&dir)?.sync_all()
    }
}

fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.partial"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// An error that says which path it is about.
pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
