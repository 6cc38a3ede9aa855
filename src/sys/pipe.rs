//! Calls on pipes and terminals, which are no sockets. The descriptor must be non-blocking.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
};

use rustix::{fs::FileType, io::Errno};

/// What a descriptor is, as far as a pipe transport asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipeKind {
    /// A pipe, a FIFO or a socket: its other side can go away.
    Channel,
    /// A terminal or another device.
    Device,
    /// A file or directory, which is no pipe.
    NoPipe,
}

pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<PipeKind> {
    Ok(match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::Fifo | FileType::Socket => PipeKind::Channel,
        FileType::CharacterDevice => PipeKind::Device,
        _ => PipeKind::NoPipe,
    })
}

/// Reads into `buffer`; zero is the end. A terminal whose other side is gone has ended, too.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Ok(count) => return Ok(count),
            Err(Errno::IO) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes what the system takes of `pieces`, in their order.
pub(crate) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match rustix::io::writev(fd, pieces) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
