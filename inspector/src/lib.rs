//! Reads virtual machine disk images in pure userland: `ReadAt` → container → partitions and
//! volumes → file system → guest facts.
