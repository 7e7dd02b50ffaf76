//! Jobs from files: JSON documents, arrays of them, JSON lines, in any mixture.

use crate::failure::{Failure, Outcome};
use guestkit_protocol::{JobEnvelope, NoRegistry, decode_job};
use serde_json::value::RawValue;
use std::io::Read;
use std::path::Path;

/// The largest file that is read at once.
const FILE_MAX: u64 = 1024 * 1024 * 1024;

/// A job of a file, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Found {
    /// File and number of the document in it.
    pub(crate) origin: String,
    /// The job, valid, or why not.
    pub(crate) job: Result<Box<JobEnvelope>, String>,
}

/// Reads all jobs of the files; `-` is stdin.
pub(crate) fn read(files: &[impl AsRef<Path>]) -> Outcome<Vec<Found>> {
    let mut found = Vec::new();
    for file in files {
        let file = file.as_ref();
        let (name, text) = if file.as_os_str() == "-" {
            let mut text = Vec::new();
            std::io::stdin()
                .lock()
                .take(FILE_MAX)
                .read_to_end(&mut text)?;
            ("stdin".to_owned(), text)
        } else {
            let text = std::fs::read(file).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", file.display()))
            })?;
            (file.display().to_string(), text)
        };
        found.extend(split(&name, &text));
    }
    Ok(found)
}

/// All documents of a text.
fn split(name: &str, text: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    for value in serde_json::Deserializer::from_slice(text).into_iter::<Box<RawValue>>() {
        let number = found.len() + 1;
        let origin = format!("{name}, document {number}");
        match value {
            Ok(value) if value.get().starts_with('[') => {
                match serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) {
                    Ok(values) => {
                        for value in values {
                            let number = found.len() + 1;
                            found.push(one(format!("{name}, document {number}"), &value));
                        }
                    }
                    Err(error) => found.push(Found {
                        origin,
                        job: Err(error.to_string()),
                    }),
                }
            }
            Ok(value) => found.push(one(origin, &value)),
            Err(error) => {
                found.push(Found {
                    origin,
                    job: Err(format!("no json: {error}")),
                });
                break;
            }
        }
    }
    if found.is_empty() {
        found.push(Found {
            origin: name.to_owned(),
            job: Err("there is no document in it".to_owned()),
        });
    }
    found
}

fn one(origin: String, value: &RawValue) -> Found {
    let job = decode_job(value.get().as_bytes(), &NoRegistry);
    Found {
        origin,
        job: job.map(Box::new).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = include_str!("../../schemas/examples/echo.json");

    fn valid(text: &str) -> Vec<bool> {
        split("x", text.as_bytes())
            .iter()
            .map(|found| found.job.is_ok())
            .collect()
    }

    #[test]
    fn documents_arrays_and_lines_are_told_apart() {
        assert_eq!(valid(JOB), [true]);
        assert_eq!(valid(&format!("[{JOB},{JOB}]")), [true, true]);
        assert_eq!(
            valid(&format!("{JOB}\n{JOB}\n[{JOB}]\n{{}}")),
            [true, true, true, false]
        );
        assert_eq!(valid(""), [false]);
        assert_eq!(valid(&format!("{JOB} x {JOB}")), [true, false]);
        assert_eq!(valid("[]"), [false]);
    }
}
