//! Describes an image, walks its file systems and says what that cost:
//! `cargo run --release -p guestkit-inspector --example walk -- IMAGE [--hash]`.

use guestkit_inspector::budget::{Budget, Limits};
use guestkit_inspector::fs::{FileSystem, NodeKind};
use guestkit_inspector::source::{HostOpener, HostRoots, Reading};
use guestkit_inspector::{Result, clock, container, layers};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().unwrap_or_default();
    let content = arguments.next().is_some_and(|a| a == "--hash");
    let path = Path::new(&image);
    let root = path.parent().filter(|p| !p.as_os_str().is_empty());
    let roots = HostRoots::new([root.unwrap_or(Path::new("."))])?;
    let name = Path::new(path.file_name().unwrap_or_default());
    for run in 0..5 {
        let budget = Budget::new(
            Limits::default(),
            clock::monotonic(),
            Arc::new(AtomicBool::new(false)),
        );
        let reading = Reading::new(Arc::clone(&budget));
        let opener = HostOpener {
            roots: &roots,
            path: name,
            reading: &reading,
        };
        let opened = container::open(&opener, None)?;
        let examined = layers::examine(&opened)?;
        if run == 0 {
            println!("{:#?}", examined.layers);
        }
        println!("layers: {:?}", budget.spent());
        for mountable in &examined.mountable {
            let (entries, bytes) = walk(mountable.reader.as_ref(), content)?;
            println!(
                "{}: {entries} entries, {bytes} bytes; {:?}",
                mountable.device,
                budget.spent()
            );
        }
    }
    Ok(())
}

fn walk(fs: &dyn FileSystem, content: bool) -> Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 256 << 10];
    while let Some(dir) = todo.pop() {
        let mut nodes = Vec::new();
        fs.read_dir(dir, &mut |entry| {
            nodes.push(entry.node);
            ControlFlow::Continue(())
        })?;
        for node in nodes {
            entries += 1;
            let metadata = fs.metadata(node)?;
            match metadata.kind {
                NodeKind::Directory => todo.push(node),
                NodeKind::File if content && metadata.size < 64 << 20 => {
                    let mut at = 0;
                    loop {
                        let n = fs.read_file_at(node, at, &mut buf)?;
                        if n == 0 {
                            break;
                        }
                        at += n as u64;
                        bytes += n as u64;
                    }
                }
                _ => {}
            }
        }
    }
    Ok((entries, bytes))
}
