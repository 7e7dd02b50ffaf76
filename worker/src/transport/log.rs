//! An append-only log whose entries are whole or not there.
//!
//! Each entry is its length and CRC-32C in 4 bytes little-endian each, then JSON. It is on disk when
//! [`Log::append`] returns. A torn tail, all that a crash can leave, is cut when the log is opened.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length and checksum.
const HEAD: u64 = 8;
/// A transaction of the largest results; anything longer is a damaged length.
const ENTRY_MAX: u32 = 1 << 30;

/// The log, open for appending.
pub(super) struct Log {
    file: File,
    end: u64,
}

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("the log: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the log is damaged at byte {position}, before its last entry: restore it from a backup, or move the results directory's .guestkit away and accept that old keys run again"
    )]
    Damaged { position: u64 },
    #[error("a log entry has no json form: {0}")]
    Json(#[from] serde_json::Error),
}

impl Log {
    /// Opens a log, calls `take` for each entry with its position, cuts a torn tail.
    pub(super) fn open<T: DeserializeOwned>(
        path: &Path,
        mut take: impl FnMut(u64, T),
    ) -> Result<Self, LogError> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        let length = file.metadata()?.len();
        let mut reader = io::BufReader::new(&mut file);
        let mut position = 0;
        while position < length {
            let Some(body) = read_entry(&mut reader, length - position)? else {
                break;
            };
            let next = position + HEAD + body.len() as u64;
            match serde_json::from_slice(&body) {
                Ok(entry) => take(position, entry),
                Err(_) => return Err(LogError::Damaged { position }),
            }
            position = next;
        }
        if position < length {
            // Only what was never acknowledged may be cut: nothing whole may follow.
            if holds_an_entry_beyond(&file, position, length)? {
                return Err(LogError::Damaged { position });
            }
            tracing::warn!(position, length, "a torn entry at the log's end was cut");
            file.set_len(position)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(position))?;
        Ok(Self {
            file,
            end: position,
        })
    }

    /// Appends an entry and waits until it is on disk. Answers with its position.
    pub(super) fn append<T: Serialize>(&mut self, entry: &T) -> Result<u64, LogError> {
        let body = serde_json::to_vec(entry)?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|length| *length < ENTRY_MAX)
            .ok_or_else(|| io::Error::other("a transaction over 1 GiB"))?;
        let mut bytes = Vec::with_capacity(body.len() + 8);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let position = self.end;
        self.file.write_all_at(&bytes, position)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        self.file.flush()?;
        Ok(position)
    }

    /// Reads one entry back.
    pub(super) fn read<T: DeserializeOwned>(&self, position: u64) -> Result<Option<T>, LogError> {
        if position >= self.end {
            return Ok(None);
        }
        let mut reader = PositionReader {
            file: &self.file,
            position,
        };
        let body = read_entry(&mut reader, self.end - position)?;
        body.map(|body| serde_json::from_slice(&body))
            .transpose()
            .map_err(|_| LogError::Damaged { position })
    }
}

struct PositionReader<'a> {
    file: &'a File,
    position: u64,
}

impl Read for PositionReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// The next entry's body; `None` when it is not whole.
fn read_entry(reader: &mut impl Read, left: u64) -> io::Result<Option<Vec<u8>>> {
    if left < HEAD {
        return Ok(None);
    }
    let mut head = [0_u8; HEAD as usize];
    reader.read_exact(&mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_le_bytes([a, b, c, d]);
    let sum = u32::from_le_bytes([e, f, g, h]);
    if length >= ENTRY_MAX || u64::from(length) > left - HEAD {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    reader.read_exact(&mut body)?;
    Ok((crc32c::crc32c(&body) == sum).then_some(body))
}

/// Whether a whole entry follows a broken one whose length can be believed: then the log was damaged
/// in its middle, not torn at its end.
fn holds_an_entry_beyond(file: &File, position: u64, length: u64) -> io::Result<bool> {
    let mut reader = PositionReader { file, position };
    if length - position < HEAD {
        return Ok(false);
    }
    let mut head = [0_u8; HEAD as usize];
    reader.read_exact(&mut head)?;
    let [a, b, c, d, ..] = head;
    let next = position + HEAD + u64::from(u32::from_le_bytes([a, b, c, d]));
    if next >= length {
        return Ok(false);
    }
    let mut reader = PositionReader {
        file,
        position: next,
    };
    Ok(read_entry(&mut reader, length - next)?.is_some_and(|body| !body.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> Result<Vec<(u64, String)>, LogError> {
        let mut all = Vec::new();
        Log::open(path, |position, entry: String| all.push((position, entry)))?;
        Ok(all)
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length_and_whole_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, |_, _: String| {}).unwrap();
        log.append(&"first").unwrap();
        let second = log.append(&"second").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in second..whole.len() as u64 {
            std::fs::write(&path, &whole[..length as usize]).unwrap();
            let found = entries(&path).unwrap();
            assert_eq!(found, [(0, "first".to_owned())], "cut at {length}");
            let mut log = Log::open(&path, |_, _: String| {}).unwrap();
            log.append(&"again").unwrap();
            assert_eq!(entries(&path).unwrap().len(), 2);
        }
    }

    #[test]
    fn damage_before_the_last_entry_is_no_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, |_, _: String| {}).unwrap();
        log.append(&"first").unwrap();
        log.append(&"second").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            entries(&path),
            Err(LogError::Damaged { position: 0 })
        ));
    }

    #[test]
    fn entries_are_read_back_by_position() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("log"), |_, _: String| {}).unwrap();
        log.append(&"first").unwrap();
        let second = log.append(&"second").unwrap();
        assert_eq!(
            log.read::<String>(second).unwrap().as_deref(),
            Some("second")
        );
        assert_eq!(log.read::<String>(9_999).unwrap(), None);
    }
}
