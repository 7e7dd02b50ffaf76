//! Open files over a socket, and an answer that is not without end.

use super::wire::FILES_PER_MESSAGE;
use crate::bytes::wide;
use crate::container::FILES_MAX;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

const SPACE: usize = rustix::cmsg_space!(ScmRights(FILES_PER_MESSAGE));

/// Hands files over, some with each byte.
pub(super) fn send(socket: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.len() > FILES_MAX {
        return Err(io::Error::other(format!(
            "an image of more than {FILES_MAX} files"
        )));
    }
    for some in files.chunks(FILES_PER_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::Error::other("no room for the files"));
        }
        sendmsg(
            socket,
            &[IoSlice::new(&[0])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
    Ok(())
}

/// Takes `count` files.
pub(super) fn receive(socket: &UnixStream, count: usize) -> io::Result<Vec<File>> {
    if count > FILES_MAX {
        return Err(io::Error::other("too many files"));
    }
    let mut files = Vec::new();
    while files.len() < count {
        let before = files.len();
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                files.extend(some.map(File::from));
            }
        }
        if files.len() == before {
            return Err(io::Error::other("fewer files than were announced"));
        }
    }
    Ok(files)
}

/// An answer of at most so many bytes.
pub(super) struct Capped<'a> {
    out: &'a mut dyn Write,
    left: u64,
    max: u64,
}

impl<'a> Capped<'a> {
    pub(super) fn new(out: &'a mut dyn Write, max: u64) -> Self {
        Self {
            out,
            left: max,
            max,
        }
    }
}

impl Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(wide(bytes.len())).ok_or_else(|| {
            io::Error::other(format!("the answer is longer than {} bytes", self.max))
        })?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
