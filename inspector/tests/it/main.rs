//! The storage half against real images: corpus, guests, qcow2 fixtures, leaks, mutations.
#![allow(missing_docs, clippy::unwrap_used)]

mod bombs;
mod build;
mod containers;
mod corpus;
mod document;
mod erofs;
mod ext;
mod fat;
mod guest_disk;
mod guest_tree;
mod guest_truth;
#[path = "../harness/mod.rs"]
mod harness;
mod host;
mod iso;
mod isolate;
mod leaks;
mod loops;
mod mutated_containers;
mod mutated_reports;
mod mutation;
mod ntfs;
mod partitions;
mod qcow2;
mod registry;
mod regressions;
mod squashfs;
mod support;
mod truth;
mod windows;
