//! Feature words of the superblock: which are read, how they are called, what type they make.

pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;

pub(super) const INCOMPAT_COMPRESSION: u32 = 0x1;
pub(super) const INCOMPAT_FILETYPE: u32 = 0x2;
pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
pub(super) const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_EA_INODE: u32 = 0x400;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(super) const INCOMPAT_LARGE_DIR: u32 = 0x4000;

pub(super) const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
pub(super) const RO_COMPAT_LARGE_FILE: u32 = 0x2;
pub(super) const RO_COMPAT_BTREE_DIR: u32 = 0x4;
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x200;
pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;

/// Names as dumpe2fs prints them, by bit.
const COMPAT: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (COMPAT_HAS_JOURNAL, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x40, "lazy_bg"),
    (0x100, "snapshot_bitmap"),
    (COMPAT_SPARSE_SUPER2, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];

/// All of these are read, except where [`UNREAD`] says otherwise.
const INCOMPAT: &[(u32, &str)] = &[
    (INCOMPAT_COMPRESSION, "compression"),
    (INCOMPAT_FILETYPE, "filetype"),
    (INCOMPAT_RECOVER, "needs_recovery"),
    (INCOMPAT_JOURNAL_DEV, "journal_dev"),
    (INCOMPAT_META_BG, "meta_bg"),
    (0x40, "extent"),
    (INCOMPAT_64BIT, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (INCOMPAT_EA_INODE, "ea_inode"),
    (0x1000, "dirdata"),
    (INCOMPAT_CSUM_SEED, "metadata_csum_seed"),
    (INCOMPAT_LARGE_DIR, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];

const RO_COMPAT: &[(u32, &str)] = &[
    (RO_COMPAT_SPARSE_SUPER, "sparse_super"),
    (RO_COMPAT_LARGE_FILE, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x80, "snapshot"),
    (0x100, "quota"),
    (RO_COMPAT_BIGALLOC, "bigalloc"),
    (RO_COMPAT_METADATA_CSUM, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// Incompatible features that are known by name but not read.
const UNREAD: u32 = INCOMPAT_COMPRESSION | INCOMPAT_JOURNAL_DEV;

/// The three feature words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features {
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
}

impl Features {
    /// All names, sorted.
    pub(super) fn names(self) -> Vec<String> {
        let mut names = Vec::new();
        collect(self.compat, COMPAT, 'C', &mut names);
        collect(self.incompat, INCOMPAT, 'I', &mut names);
        collect(self.ro_compat, RO_COMPAT, 'R', &mut names);
        names.sort();
        names
    }

    /// The first incompatible feature that is not read here.
    pub(super) fn unread(self) -> Option<String> {
        let known = INCOMPAT.iter().fold(0, |all, (bit, _)| all | bit) & !UNREAD;
        let mut names = Vec::new();
        collect(self.incompat & !known, INCOMPAT, 'I', &mut names);
        names.into_iter().next()
    }

    /// The type as blkid tells it from the features alone.
    pub(super) fn fs_type(self) -> &'static str {
        let plain_ro = RO_COMPAT_SPARSE_SUPER | RO_COMPAT_LARGE_FILE | RO_COMPAT_BTREE_DIR;
        let plain_incompat = INCOMPAT_FILETYPE | INCOMPAT_META_BG;
        let journal = self.compat & COMPAT_HAS_JOURNAL != 0;
        if self.incompat & INCOMPAT_JOURNAL_DEV != 0 {
            "jbd"
        } else if self.ro_compat & !plain_ro != 0
            || self.incompat & !(plain_incompat | INCOMPAT_RECOVER) != 0
        {
            "ext4"
        } else if journal {
            "ext3"
        } else {
            "ext2"
        }
    }
}

fn collect(word: u32, table: &[(u32, &str)], class: char, names: &mut Vec<String>) {
    for bit in 0..32u32 {
        let mask = 1u32.checked_shl(bit).unwrap_or(0);
        if word & mask != 0 {
            names.push(match table.iter().find(|(known, _)| *known == mask) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("FEATURE_{class}{bit}"),
            });
        }
    }
}
