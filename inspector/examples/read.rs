//! Reads a whole virtual disk in order, then at random places, and prints its sum and what both
//! cost: `cargo run --release --example read -- DIRECTORY NAME`.
#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::clock;
use guestkit_inspector::container;
use guestkit_inspector::source::{HostOpener, HostRoots, Reading};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Random reads, of 4 KiB each.
const RANDOM: u64 = 2000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(name)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: read DIRECTORY NAME");
        std::process::exit(2);
    };
    let roots = HostRoots::new([&root]).unwrap();
    for random in [false, true] {
        let limits = Limits {
            bytes: u64::MAX,
            reads: u64::MAX,
            steps: u64::MAX,
            wall: std::time::Duration::from_secs(600),
            ..Limits::default()
        };
        let never = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(limits, clock::monotonic(), never);
        let reading = Reading::new(Arc::clone(&budget));
        let opener = HostOpener {
            roots: &roots,
            path: Path::new(&name),
            reading: &reading,
        };
        let disk = container::open(&opener, None).unwrap().disk;
        let opened = budget.spent();
        let mut sum = Sha256::new();
        let mut buf = vec![0; if random { 4 << 10 } else { 1 << 20 }];
        let mut at = 0u64;
        let mut seed = 1u64;
        let mut count = 0;
        while if random {
            count < RANDOM
        } else {
            at < disk.len()
        } {
            if random {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                at = (seed >> 16) % disk.len().saturating_sub(4096).max(1);
            }
            let len = (disk.len() - at).min(buf.len() as u64) as usize;
            disk.read_exact_at(at, &mut buf[..len]).unwrap();
            if !random {
                sum.update(&buf[..len]);
            }
            at += len as u64;
            count += 1;
        }
        let spent = budget.spent();
        println!(
            "{name} {}: {count} reads asked for, {} made (open: {}), {} KiB of the file, {:.0} ms{}",
            if random { "random" } else { "sequential" },
            spent.reads,
            opened.reads,
            spent.bytes_read >> 10,
            spent.elapsed.as_secs_f64() * 1000.0,
            if random {
                String::new()
            } else {
                format!(
                    ", {} bytes, sha256 {}",
                    disk.len(),
                    hex::encode(sum.finalize())
                )
            }
        );
    }
}
