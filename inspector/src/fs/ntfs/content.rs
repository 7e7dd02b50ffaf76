//! Values of attributes: resident, in clusters, sparse, compressed by NTFS or by WOF.

use super::inode::Inode;
use super::record::{Attribute, Clusters, Content, kind};
use super::{Ntfs, lznt1, lzx, xpress};
use crate::bytes::{Record, narrow, read_vec, wide};
use crate::error::{DiskError, Result};
use crate::read_at::ReadAt;
use std::sync::Arc;

/// Windows compresses units of 16 clusters of at most 4 KiB; larger ones are refused.
const UNIT_MAX: u64 = 1 << 20;
/// The stream that WOF keeps its chunks in.
const WOF_STREAM: &[u8] = b"W\0o\0f\0C\0o\0m\0p\0r\0e\0s\0s\0e\0d\0D\0a\0t\0a\0";

/// Reads from clusters; the range lies within the attribute's size.
pub(super) fn read_clusters(
    device: &dyn ReadAt,
    cluster: u64,
    clusters: &Clusters,
    position: u64,
    buf: &mut [u8],
) -> Result<()> {
    let written = narrow(clusters.initialized.saturating_sub(position)).min(buf.len());
    let (mut rest, unwritten) = buf.split_at_mut(written);
    unwritten.fill(0);
    let mut at = position;
    while !rest.is_empty() {
        let vcn = at.checked_div(cluster).unwrap_or(0);
        let skip = at.checked_rem(cluster).unwrap_or(0);
        let run = clusters.runs.at(vcn).ok_or_else(|| DiskError::Corrupt {
            structure: "NTFS runs",
            position: vcn,
            problem: "no run for this cluster".to_owned(),
        })?;
        let room = run.len.saturating_mul(cluster).saturating_sub(skip);
        let len = narrow(room).min(rest.len());
        let (head, tail) = rest.split_at_mut(len);
        match run.lcn {
            None => head.fill(0),
            Some(lcn) => {
                let start = lcn.saturating_mul(cluster).saturating_add(skip);
                device.read_exact_at(start, head)?;
            }
        }
        at = at.saturating_add(wide(len));
        rest = tail;
    }
    // Zeros cost no read, but they are work: an empty read charges a step of the budget.
    device.read_exact_at(0, &mut [])
}

impl Ntfs {
    /// Reads from an attribute of a file; the range lies within the attribute's size.
    pub(super) fn read_attribute(
        &self,
        inode: &Inode,
        index: usize,
        position: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let attribute = inode
            .attribute(index)
            .ok_or_else(|| inode.corrupt("no such attribute"))?;
        match &attribute.content {
            Content::Resident(value) => {
                let from = value.get(narrow(position)..).unwrap_or_default();
                let len = from.len().min(buf.len());
                let (head, tail) = buf.split_at_mut(len);
                head.copy_from_slice(from.get(..len).unwrap_or_default());
                tail.fill(0);
                Ok(())
            }
            Content::Clusters(clusters) => {
                if attribute.flags & Attribute::ENCRYPTED != 0 {
                    return Err(DiskError::Unsupported {
                        feature: "ntfs encrypted file".to_owned(),
                    });
                }
                if attribute.flags & Attribute::COMPRESSED != 0 && clusters.unit > 0 {
                    return self.read_units(inode, index, clusters, position, buf);
                }
                read_clusters(
                    self.device.as_ref(),
                    self.boot.cluster,
                    clusters,
                    position,
                    buf,
                )
            }
        }
    }

    fn read_units(
        &self,
        inode: &Inode,
        index: usize,
        clusters: &Clusters,
        position: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let unit = self
            .boot
            .cluster
            .checked_shl(u32::from(clusters.unit))
            .filter(|unit| (1..=UNIT_MAX).contains(unit))
            .ok_or_else(|| inode.corrupt(format!("compression unit {}", clusters.unit)))?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let number = at.checked_div(unit).unwrap_or(0);
            let skip = narrow(at.checked_rem(unit).unwrap_or(0));
            let room = narrow(unit).saturating_sub(skip);
            let len = room.min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            if number.saturating_mul(unit) >= clusters.initialized {
                head.fill(0);
                self.device.read_exact_at(0, &mut [])?;
            } else {
                let key = (inode.number, index, number);
                let piece = self.units.get_or(&key, Vec::len, || {
                    self.unit(inode, clusters, number, narrow(unit))
                })?;
                let from = piece.get(skip..).unwrap_or_default().iter();
                for (to, from) in head.iter_mut().zip(from.chain(std::iter::repeat(&0))) {
                    *to = *from;
                }
            }
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }

    /// One compression unit: all its clusters are there (stored), none (zeros), or the first ones,
    /// compressed.
    fn unit(&self, inode: &Inode, clusters: &Clusters, number: u64, len: usize) -> Result<Vec<u8>> {
        let cluster = self.boot.cluster;
        let per_unit = 1u64.checked_shl(u32::from(clusters.unit)).unwrap_or(1);
        let first = number.saturating_mul(per_unit);
        let past = first.saturating_add(per_unit);
        let mut stored = Vec::new();
        let mut vcn = first;
        while let Some(run) = clusters.runs.at(vcn).filter(|_| vcn < past) {
            let Some(lcn) = run.lcn else { break };
            let count = run.len.min(past.saturating_sub(vcn));
            let bytes = narrow(count.saturating_mul(cluster));
            let start = lcn.saturating_mul(cluster);
            stored.extend(read_vec(self.device.as_ref(), start, bytes)?);
            vcn = vcn.saturating_add(count);
        }
        if stored.len() >= len || (vcn < past && clusters.runs.end() <= vcn) {
            // Whole, or cut where the file ends.
            stored.truncate(len);
            return Ok(stored);
        }
        let mut out = vec![0; len];
        if !stored.is_empty() {
            lznt1::decode(inode.position, &stored, &mut out)?;
        } else {
            self.device.read_exact_at(0, &mut [])?;
        }
        Ok(out)
    }

    /// Reads from a file that WOF compressed: a table of where chunks end, then the chunks.
    pub(super) fn read_wof(
        &self,
        inode: &Inode,
        algorithm: u32,
        size: u64,
        position: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let chunk = match algorithm {
            0 => 4096u64,
            1 => 32 << 10,
            2 => 8192,
            3 => 16 << 10,
            n => {
                return Err(DiskError::Unsupported {
                    feature: format!("ntfs WOF compression {n}"),
                });
            }
        };
        let stream = inode
            .find(kind::DATA, WOF_STREAM)
            .ok_or_else(|| inode.corrupt("compressed by WOF, but without its stream"))?;
        let mut at = position;
        let mut rest = buf;
        while !rest.is_empty() {
            let number = at.checked_div(chunk).unwrap_or(0);
            let skip = narrow(at.checked_rem(chunk).unwrap_or(0));
            let key = (inode.number, stream, number);
            let piece = self.units.get_or(&key, Vec::len, || {
                self.wof_chunk(inode, stream, algorithm, (number, chunk, size))
            })?;
            let from = piece.get(skip..).unwrap_or_default();
            let len = from.len().min(rest.len());
            if len == 0 {
                return Err(inode.corrupt("a chunk of no bytes"));
            }
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(from.get(..len).unwrap_or_default());
            at = at.saturating_add(wide(len));
            rest = tail;
        }
        Ok(())
    }

    fn wof_chunk(
        &self,
        inode: &Inode,
        stream: usize,
        algorithm: u32,
        (number, chunk, size): (u64, u64, u64),
    ) -> Result<Vec<u8>> {
        // Offsets of all chunks but the first, from the end of the table on.
        let width = if size > u64::from(u32::MAX) { 8u64 } else { 4 };
        let chunks = size.div_ceil(chunk);
        let table = chunks.saturating_sub(1).saturating_mul(width);
        let total = inode.attribute(stream).map_or(0, Attribute::len);
        let start = match number.checked_sub(1) {
            None => 0,
            Some(entry) => self.wof_offset(inode, stream, entry.saturating_mul(width), width)?,
        };
        let end = if number.saturating_add(1) < chunks {
            self.wof_offset(inode, stream, number.saturating_mul(width), width)?
        } else {
            total.saturating_sub(table)
        };
        let want = chunk.min(size.saturating_sub(number.saturating_mul(chunk)));
        let len = end
            .checked_sub(start)
            .filter(|len| *len <= want && *len > 0 && table.saturating_add(end) <= total)
            .ok_or_else(|| inode.corrupt(format!("chunk {number} from {start} to {end}")))?;
        let mut stored = vec![0; narrow(len)];
        self.read_attribute(inode, stream, table.saturating_add(start), &mut stored)?;
        if len == want {
            return Ok(stored);
        }
        let mut out = vec![0; narrow(want)];
        let decoded = match algorithm {
            1 => lzx::decode(&stored, &mut out),
            _ => xpress::decode(&stored, &mut out),
        };
        decoded.ok_or_else(|| inode.corrupt(format!("chunk {number} does not decompress")))?;
        Ok(out)
    }

    fn wof_offset(&self, inode: &Inode, stream: usize, at: u64, width: u64) -> Result<u64> {
        let total = inode.attribute(stream).map_or(0, Attribute::len);
        if at.saturating_add(width) > total {
            return Err(inode.corrupt("chunk table"));
        }
        let mut raw = [0; 8];
        let (used, _) = raw.split_at_mut(narrow(width).min(8));
        self.read_attribute(inode, stream, at, used)?;
        Ok(u64::from_le_bytes(raw))
    }

    /// The table of upper case of the volume, read when a name needs more than ASCII.
    pub(super) fn upper(&self, unit: u16) -> Result<u16> {
        if unit < 0x80 {
            return Ok(u16::from(
                u8::try_from(unit).unwrap_or(0).to_ascii_uppercase(),
            ));
        }
        let table = self.upcase.get_or(
            &(),
            |t: &Vec<u16>| t.len().saturating_mul(2),
            || Ok(self.read_upcase().unwrap_or_default()),
        )?;
        let known = table.get(usize::from(unit)).copied();
        Ok(known.unwrap_or_else(|| super::name::simple_upper(unit)))
    }

    fn read_upcase(&self) -> Result<Vec<u16>> {
        const UPCASE_FILE: u64 = 10;
        const LENGTH: usize = 128 << 10;
        let inode: Arc<Inode> = self.inode(UPCASE_FILE)?;
        let data = inode
            .find(kind::DATA, b"")
            .ok_or_else(|| inode.corrupt("no data"))?;
        let left = inode.attribute(data).map_or(0, Attribute::len);
        let mut raw = vec![0; narrow(left).min(LENGTH)];
        self.read_attribute(&inode, data, 0, &mut raw)?;
        Ok(super::name::units(&raw).collect())
    }

    /// A small value of an attribute, whole; `None` when it is larger than `cap`.
    pub(super) fn small_value(
        &self,
        inode: &Inode,
        index: usize,
        cap: u64,
    ) -> Result<Option<Vec<u8>>> {
        let len = inode.attribute(index).map_or(0, Attribute::len);
        if len > cap {
            return Ok(None);
        }
        let mut value = vec![0; narrow(len)];
        self.read_attribute(inode, index, 0, &mut value)?;
        Ok(Some(value))
    }

    pub(super) fn parse_reparse(&self, inode: &Inode) -> Result<Option<super::reparse::Reparse>> {
        /// [MS-FSCC] section 2.1.2: 16 KiB at most.
        const REPARSE_MAX: u64 = 16 << 10;
        let Some(index) = inode.find(kind::REPARSE_POINT, b"") else {
            return Ok(None);
        };
        let value = self
            .small_value(inode, index, REPARSE_MAX)?
            .ok_or_else(|| inode.corrupt("reparse point of more than 16 KiB"))?;
        let r = Record::new("NTFS reparse point", inode.position, &value);
        super::reparse::parse(&r).map(Some)
    }
}
