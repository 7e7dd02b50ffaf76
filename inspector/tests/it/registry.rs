//! Registry hives against what hivex and regipy say of them.

use crate::support::{Plain, corpus, decompress, hex, unpack_fixtures};
use guestkit_inspector::error::DiskError;
use guestkit_inspector::layer::Memory;
use guestkit_inspector::read_at::Layer;
use guestkit_inspector::registry::{Hive, Key, Recovery};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deepest tree that Windows allows.
const DEPTH_MAX: usize = 512;
/// Keys of one walk: hostile cells may make a tree without end.
const KEYS_MAX: usize = 300_000;

/// Everything of a hive, summed up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walked {
    keys: usize,
    values: usize,
    errors: usize,
    /// Sum over all names, types and data.
    sum: String,
}

/// Walks all keys and values. `errors` counts what could not be read.
fn walk(hive: &Hive) -> Walked {
    let mut out = Walked::default();
    let mut lines = Vec::new();
    let Ok(root) = hive.root() else {
        out.errors = 1;
        return out;
    };
    let mut todo = vec![(root, String::new(), 0)];
    while let Some((key, path, depth)) = todo.pop() {
        out.keys += 1;
        if depth > DEPTH_MAX || out.keys > KEYS_MAX {
            out.errors += 1;
            break;
        }
        lines.push(format!("{path}\n"));
        out.errors += values(&key, &path, &mut out.values, &mut lines);
        match key.subkeys() {
            Ok(subkeys) => {
                for subkey in subkeys {
                    match subkey {
                        Ok(subkey) => {
                            let path = format!("{path}\\{}", subkey.name());
                            todo.push((subkey, path, depth + 1));
                        }
                        Err(_) => out.errors += 1,
                    }
                }
            }
            Err(_) => out.errors += 1,
        }
    }
    lines.sort_unstable();
    let mut sum = Sha256::new();
    for line in lines {
        sum.update(line);
    }
    out.sum = hex(&sum.finalize());
    out
}

fn values(key: &Key<'_>, path: &str, count: &mut usize, lines: &mut Vec<String>) -> usize {
    let Ok(values) = key.values() else {
        return 1;
    };
    let mut errors = 0;
    for value in values {
        let Ok(value) = value else {
            errors += 1;
            continue;
        };
        *count += 1;
        match value.data(16 << 20) {
            Ok(data) => lines.push(format!(
                "{path}\t{}\t{}\t{}\n",
                value.name(),
                value.kind().number(),
                hex(&data)
            )),
            Err(_) => errors += 1,
        }
    }
    errors
}

fn open(dir: &Path, name: &str, logs: &[&str]) -> Result<Hive, DiskError> {
    let layer = |name: &str| -> Layer { Plain::layer(decompress(&dir.join(name)).unwrap()) };
    Hive::open(layer(name), || {
        Ok(logs.iter().map(|log| layer(log)).collect())
    })
}

/// Each hive of the corpus has as many keys and values as hivex finds.
#[test]
fn corpus_hives_agree_with_hivex() {
    let Some(dir) = corpus("registry hives") else {
        return;
    };
    let table = std::fs::read_to_string(dir.join("expected/hives.tsv")).unwrap();
    let mut checked = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let path = dir.join(fields[0]);
        if !path.is_file() {
            continue;
        }
        checked += 1;
        let opened = open(&dir, fields[0], &[]);
        if fields.get(5).is_none_or(|opens| *opens != "yes") {
            // Logs, text, damage: an error, or what can still be read.
            if let Ok(hive) = opened {
                let walked = walk(&hive);
                println!("{}: {walked:?}", fields[0]);
                assert!(walked.errors > 0, "{}", fields[0]);
            }
            continue;
        }
        let hive = opened.unwrap_or_else(|e| panic!("{}: {e}", fields[0]));
        let dirty = fields[4] == "False";
        assert_eq!(hive.recovery() == Recovery::Clean, !dirty, "{}", fields[0]);
        let walked = walk(&hive);
        let expected = (fields[7].parse().unwrap(), fields[8].parse().unwrap(), 0);
        assert_eq!(
            (walked.keys, walked.values, walked.errors),
            expected,
            "{}",
            fields[0]
        );
        let name = fields[10].split('|').collect::<Vec<_>>();
        if let [computer, current] = name[..]
            && !current.is_empty()
        {
            let set: u32 = current.parse().unwrap();
            let select = hive.key("select").unwrap().unwrap();
            let found = select.value("CURRENT").unwrap().unwrap().number().unwrap();
            assert_eq!(found, Some(u64::from(set)));
            let path = format!("controlset{set:03}\\Control\\ComputerName\\ComputerName");
            let key = hive.key(&path).unwrap().unwrap();
            let value = key.value("computername").unwrap().unwrap();
            assert_eq!(value.text().unwrap().as_deref(), Some(computer));
        }
    }
    println!("{checked} files of hives.tsv");
    assert!(checked >= 12);
}

/// Name, type and data of every value, as hivex dumps them (a sum over sorted lines).
#[test]
fn every_value_of_the_corpus_agrees_with_hivex() {
    let Some(dir) = corpus("registry values") else {
        return;
    };
    for (name, sum) in [
        (
            "hivex/minimal",
            "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b",
        ),
        (
            "regipy/BCD.xz",
            "78929d106cb4c3cefc0ee6511ef547bf8e72bac9025d80116c04c270e8d113d0",
        ),
        (
            "regipy/NTUSER.DAT.xz",
            "e5b1e319896eddfb877207f27f770f18e088693a674db330692cd428a06af721",
        ),
        (
            "regipy/SAM.xz",
            "a8cff1ce7a06e4bdcf8500720040b657c141f098aa6f64002aad1dfefce67c68",
        ),
        (
            "regipy/SECURITY.xz",
            "d902bf539a72aef021714a19dc895c6d229e3b43924acaead8654b32bfc47d3f",
        ),
        (
            "regipy/SYSTEM.xz",
            "7a1ba52a0bf1266f8dd114822fc6e78d36bcf1f90f05f98208c5e5f163f89359",
        ),
        (
            "regipy/transactions_NTUSER.DAT.xz",
            "f0e742255489af13ade3ad22842b4dab9527f29cb23c39e4c10a9e805e8a1d12",
        ),
        (
            "hivex/special",
            "da58e2b672722cee33d0f45015d5d465b3bf096b7d5954d479334389980c2360",
        ),
    ] {
        let walked = walk(&open(&dir, name, &[]).unwrap());
        assert_eq!((walked.errors, walked.sum.as_str()), (0, sum), "{name}");
    }
}

/// regipy 6.5 replays the same 132 pages; hivex reads the result.
#[test]
fn a_dirty_hive_of_windows_10_is_replayed_from_its_logs() {
    let Some(dir) = corpus("a dirty hive with logs") else {
        return;
    };
    let primary = "regipy/transactions_NTUSER.DAT.xz";
    let log1 = "regipy/transactions_ntuser.dat.log1.xz";
    let log2 = "regipy/transactions_ntuser.dat.log2.xz";
    for logs in [vec![log1, log2], vec![log2, log1], vec![log1]] {
        let hive = open(&dir, primary, &logs).unwrap();
        let Recovery::Replayed { entries, .. } = hive.recovery() else {
            panic!("{:?}", hive.recovery());
        };
        assert_eq!(
            entries, 23,
            "the entry of LOG2 is older than the primary file"
        );
        let walked = walk(&hive);
        assert_eq!((walked.keys, walked.values, walked.errors), (3105, 4695, 0));
        let sum = "4220afa846058be9c3dc91a83069d0b24daefcb3ca62c2b854b4d3cd88dcde7c";
        assert_eq!(walked.sum, sum);
    }
    for logs in [vec![], vec![log2]] {
        let hive = open(&dir, primary, &logs).unwrap();
        assert_eq!(hive.recovery(), Recovery::NotRecovered);
    }
}

/// As the fixtures' tables have it: hivex' dump, long data as a sum.
fn table(hive: &Hive) -> String {
    let mut lines = Vec::new();
    let mut todo = vec![(hive.root().unwrap(), String::new())];
    while let Some((key, path)) = todo.pop() {
        lines.push(path.clone());
        for value in key.values().unwrap() {
            let value = value.unwrap();
            let data = value.data(1 << 20).unwrap();
            let shown = if data.len() < 400 {
                hex(&data)
            } else {
                hex(&Sha256::digest(&data))
            };
            lines.push(format!(
                "{path}\t{}\t{}\t{shown}",
                value.name(),
                value.kind().number()
            ));
        }
        for subkey in key.subkeys().unwrap() {
            let subkey = subkey.unwrap();
            let path = format!("{path}\\{}", subkey.name());
            todo.push((subkey, path));
        }
    }
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn expected(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(format!("{name}.tsv"))).unwrap()
}

/// Opens bytes with the logs of these names in `dir`.
fn open_bytes(bytes: Vec<u8>, dir: &Path, logs: &[&str]) -> Result<Hive, DiskError> {
    let logs: Vec<Layer> = logs
        .iter()
        .map(|name| Arc::new(Memory(std::fs::read(dir.join(name)).unwrap())) as Layer)
        .collect();
    Hive::open(Arc::new(Memory(bytes)), || Ok(logs))
}

#[test]
fn fixture_hives_agree_with_hivex() {
    let dir = unpack_fixtures("windows");
    for name in ["SOFTWARE", "SYSTEM", "SAM", "NTUSER.DAT"] {
        let hive = open(dir.path(), name, &[]).unwrap();
        assert_eq!(hive.recovery(), Recovery::Clean);
        assert!(table(&hive) == expected(dir.path(), name), "{name}");
    }
}

/// Both log formats; what the logs hold is the newer state that hivex wrote.
#[test]
fn dirty_fixtures_become_the_newer_state() {
    let dir = unpack_fixtures("windows");
    let dir = dir.path();
    let (before, after) = (expected(dir, "SYSTEM"), expected(dir, "later"));
    assert!(before != after);
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let new = ["SYSTEM.new.LOG1", "SYSTEM.new.LOG2"];
    let old = ["SYSTEM.old.LOG2", "SYSTEM.old.LOG1"];
    for (primary, logs, count) in [("SYSTEM.new", new, 2), ("SYSTEM.old", old, 1)] {
        let hive = open_bytes(read(primary), dir, &logs).unwrap();
        assert!(
            matches!(hive.recovery(), Recovery::Replayed { entries, .. } if entries == count),
            "{:?}",
            hive.recovery()
        );
        assert!(table(&hive) == after, "{primary}");
        // A base block with a wrong checksum is taken from the log; the old format then goes by the
        // time in the first bin.
        let mut damaged = read(primary);
        damaged[44] ^= 0x40;
        damaged[4096 + 20..4096 + 28].copy_from_slice(&read(primary)[12..20]);
        let hive = open_bytes(damaged, dir, &logs).unwrap();
        assert!(table(&hive) == after, "{primary} with a damaged base block");
        let hive = open_bytes(read(primary), dir, &[]).unwrap();
        assert_eq!(hive.recovery(), Recovery::NotRecovered);
        assert!(table(&hive) == before, "{primary} without logs");
    }
    // A flipped bit in an entry ends the replay before it.
    let mut log = read("SYSTEM.new.LOG2");
    *log.last_mut().unwrap() ^= 1;
    let log: Layer = Arc::new(Memory(log));
    let hive = Hive::open(Arc::new(Memory(read("SYSTEM.new"))), || Ok(vec![log])).unwrap();
    assert_eq!(hive.recovery(), Recovery::NotRecovered);
}

/// Logs of a hive that is whole are not even looked for.
#[test]
fn a_clean_hive_asks_for_no_log() {
    let dir = unpack_fixtures("windows");
    let bytes = std::fs::read(dir.path().join("SYSTEM")).unwrap();
    let hive = Hive::open(Arc::new(Memory(bytes)), || panic!("logs were asked for")).unwrap();
    assert_eq!(hive.recovery(), Recovery::Clean);
}

/// hivex writes hash leaves; here they become the other kinds of list in place.
#[test]
fn every_kind_of_list() {
    let dir = unpack_fixtures("windows");
    let bytes = std::fs::read(dir.path().join("SYSTEM")).unwrap();
    let name_of = |at: usize| bytes[4096 + at + 4 + 76..][..4].to_vec();
    for kind in [*b"lf", *b"li"] {
        let mut changed = bytes.clone();
        let mut lists = 0;
        for at in (4096..bytes.len() - 8).step_by(8) {
            let size = i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            if bytes[at + 4..at + 6] != *b"lh" || size >= 0 {
                continue;
            }
            lists += 1;
            let count = u16::from_le_bytes(bytes[at + 6..at + 8].try_into().unwrap()) as usize;
            changed[at + 4..at + 6].copy_from_slice(&kind);
            for n in 0..count {
                let element = &bytes[at + 8 + n * 8..][..8];
                let target = u32::from_le_bytes(element[..4].try_into().unwrap()) as usize;
                if kind == *b"li" {
                    changed[at + 8 + n * 4..][..4].copy_from_slice(&element[..4]);
                } else {
                    let hint = name_of(target);
                    changed[at + 8 + n * 8 + 4..][..4].copy_from_slice(&hint);
                }
            }
        }
        assert!(lists > 50);
        let hive = open_bytes(changed, dir.path(), &[]).unwrap();
        assert!(table(&hive) == expected(dir.path(), "SYSTEM"));
        let path = "controlset003\\SERVICES\\vioSCSI";
        assert_eq!(hive.key(path).unwrap().unwrap().name(), "vioscsi");
        assert!(hive.key("ControlSet003\\Services\\none").unwrap().is_none());
    }
}

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// A walk that keeps nothing and ends after `keys` keys.
fn wander(hive: &Hive, keys: usize) -> usize {
    let mut todo = Vec::from_iter(hive.root());
    let mut seen = 0;
    while let Some(key) = todo.pop() {
        seen += 1;
        if seen > keys {
            break;
        }
        // Errors are fine here; panics and endless work are not.
        drop(key.class());
        for value in key.values().into_iter().flatten().flatten().take(1_000) {
            drop(value.data(1 << 16));
            drop((value.text(), value.number(), value.texts()));
        }
        drop(key.value("ImagePath"));
        drop(key.subkey("Services"));
        todo.extend(key.subkeys().into_iter().flatten().flatten().take(1_000));
    }
    seen
}

/// A layer that fails as a used-up budget does, once it is told to.
struct Late(Memory, std::sync::atomic::AtomicBool);

impl guestkit_inspector::read_at::ReadAt for Late {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, position: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(DiskError::OverBudget {
                budget: "1 ms".to_owned(),
            });
        }
        self.0.read_exact_at(position, buf)
    }
}

/// Pages of a hive are kept, so its cells cost no reads below: lateness must stop it all the same.
#[test]
fn a_budget_stops_work_that_reads_nothing() {
    let dir = unpack_fixtures("windows");
    let bytes = std::fs::read(dir.path().join("SYSTEM")).unwrap();
    let late = Arc::new(Late(
        Memory(bytes),
        std::sync::atomic::AtomicBool::new(false),
    ));
    let hive = Hive::open(late.clone(), || Ok(Vec::new())).unwrap();
    assert_eq!(walk(&hive).errors, 0);
    late.1.store(true, std::sync::atomic::Ordering::Relaxed);
    let failed = (0..300).find(|_| hive.root().is_err());
    assert!(failed.is_some_and(|n| n <= 256), "{failed:?}");
    assert!(
        (0..300).all(|_| hive.root().is_err()),
        "and nothing after it"
    );
}

/// 6,000 hives with flipped bytes, their logs too.
#[test]
fn mutated_hives_end() {
    let dir = unpack_fixtures("windows");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let (logs_new, logs_old) = (
        [read("SYSTEM.new.LOG1"), read("SYSTEM.new.LOG2")],
        [read("SYSTEM.old.LOG1"), read("SYSTEM.old.LOG2")],
    );
    let inputs = [
        (read("SYSTEM"), None),
        (read("SAM"), None),
        (read("SYSTEM.new"), Some(&logs_new)),
        (read("SYSTEM.old"), Some(&logs_old)),
    ];
    let mut opened = 0;
    let mut slowest = Duration::ZERO;
    for (input, (primary, logs)) in inputs.iter().enumerate() {
        for seed in 0..1_500_u64 {
            let flip = |bytes: &[u8], salt: u64| {
                let mut bytes = bytes.to_vec();
                // From one flip to some hundreds, half of them among the first bins.
                for n in 0..1_u64 << (seed % 9) {
                    let random = mix(seed << 20 | n << 4 | salt << 50 | input as u64);
                    let range = if n % 2 == 0 {
                        bytes.len()
                    } else {
                        bytes.len().min(8192)
                    };
                    let at = (random >> 8) as usize % range;
                    bytes[at] = match random & 3 {
                        0 => 0xff,
                        1 => 0,
                        _ => bytes[at] ^ (1 << (random >> 2 & 7)),
                    };
                }
                bytes
            };
            let primary = flip(primary, 1);
            let logs: Vec<Layer> = logs
                .iter()
                .copied()
                .flatten()
                .zip(2..)
                .map(|(log, salt)| {
                    let log = if seed % 2 == 0 {
                        flip(log, salt)
                    } else {
                        log.to_vec()
                    };
                    Arc::new(Memory(log)) as Layer
                })
                .collect();
            #[allow(clippy::disallowed_methods)] // a test may look at the clock
            let start = Instant::now();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Hive::open(Arc::new(Memory(primary)), || Ok(logs)).map(|hive| wander(&hive, 3_000))
            }));
            let outcome = outcome.unwrap_or_else(|_| panic!("input {input} seed {seed} panicked"));
            opened += usize::from(outcome.is_ok_and(|keys| keys > 1));
            slowest = slowest.max(start.elapsed());
        }
    }
    println!("6000 mutated hives, {opened} readable in part, slowest {slowest:?}");
    assert!(opened > 1_000, "{opened}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
