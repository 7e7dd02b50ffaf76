//! Directory blocks, and directories in inline data.

use crate::bytes::Record;
use crate::error::Result;
use crate::fs::{DirEntry, NodeId, NodeKind};
use std::ops::ControlFlow;

/// Calls `visit` for each entry of one block (or of a piece of inline data) except `.` and `..`.
pub(super) fn entries(
    block: &[u8],
    position: u64,
    typed: bool,
    visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let r = Record::new("ext directory block", position, block);
    let mut at = 0usize;
    // A record takes 8 bytes at least, so the block bounds the loop.
    while at.saturating_add(8) <= block.len() {
        let inode = r.u32_le(at)?;
        let raw_len = r.u16_le(at.saturating_add(4))?;
        // Blocks of 64 KiB: the whole block does not fit 16 bits.
        let len = match raw_len {
            0 | 0xffff if block.len() >= 0x1_0000 => 0x1_0000,
            n => usize::from(n),
        };
        let name_len = usize::from(r.u8(at.saturating_add(6))?);
        let past = at.saturating_add(len);
        if len < 8usize.saturating_add(name_len) || len & 3 != 0 || past > block.len() {
            return Err(r.corrupt(
                at,
                format!("rec_len {raw_len} with a name of {name_len} bytes"),
            ));
        }
        if inode != 0 && name_len > 0 {
            let name = r.slice(at.saturating_add(8), name_len)?;
            if name != b"." && name != b".." {
                let kind = if typed {
                    kind_of_type(r.u8(at.saturating_add(7))?)
                } else {
                    None
                };
                let entry = DirEntry {
                    name: name.to_vec(),
                    node: NodeId(u64::from(inode)),
                    kind,
                };
                if visit(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        at = past;
    }
    Ok(ControlFlow::Continue(()))
}

/// The upper half of the byte belongs to Lustre's `dirdata`.
fn kind_of_type(byte: u8) -> Option<NodeKind> {
    Some(match byte & 0xf {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 => NodeKind::Symlink,
        _ => return None,
    })
}
