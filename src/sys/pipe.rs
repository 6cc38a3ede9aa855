//! Calls on pipes and terminals, which are no sockets.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{fs::FileType, io::Errno};

use crate::sys::{
    fork,
    socket::{is_nonblocking, set_nonblocking},
};

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

/// Reads into `buffer`; zero is the end. A terminal whose other side is gone has ended, too. The descriptor must be
/// non-blocking.
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

/// Writes what the system takes of `pieces`, in their order. The descriptor must be non-blocking.
pub(crate) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match rustix::io::writev(fd, pieces) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A descriptor that is non-blocking for a transport.
struct Unblocked {
    /// Invariant: it is open, in the process of this generation.
    number: RawFd,
    /// Whether it is to be blocking again afterwards.
    was_blocking: bool,
    generation: u32,
}

/// The mode is not a descriptor's own: those that were duplicated from one another have one mode together, as the
/// standard input and output of a program in a terminal do. It is blocking again when the last one of this process is
/// done.
static UNBLOCKED: Mutex<Vec<Unblocked>> = Mutex::new(Vec::new());

/// Those of this process.
fn unblocked() -> MutexGuard<'static, Vec<Unblocked>> {
    let mut unblocked = UNBLOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    unblocked.retain(|one| one.generation == fork::generation());
    unblocked
}

/// Makes a descriptor non-blocking. [`block_again`] is to be called before it is closed.
pub(crate) fn unblock(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut unblocked = unblocked();
    let was_blocking = !is_nonblocking(fd)?;
    set_nonblocking(fd, true)?;
    unblocked.push(Unblocked { number: fd.as_raw_fd(), was_blocking, generation: fork::generation() });
    Ok(())
}

/// Makes a descriptor as it was found, or leaves that to another one with the same mode. A second call does nothing.
pub(crate) fn block_again(fd: BorrowedFd<'_>) {
    let mut unblocked = unblocked();
    let Some(index) = unblocked.iter().position(|one| one.number == fd.as_raw_fd()) else { return };
    if unblocked.swap_remove(index).was_blocking {
        // Nobody is left to tell if that fails.
        let _ = set_nonblocking(fd, false);
        unblocked.iter_mut().for_each(Unblocked::stay_nonblocking);
    }
}

impl Unblocked {
    /// Takes over from one that has just been made blocking, if the two have one mode.
    fn stay_nonblocking(&mut self) {
        // SAFETY: it is open, by the invariant, and stays so: `block_again` is called before it is closed, and waits
        // for the lock that the caller holds.
        let fd = unsafe { BorrowedFd::borrow_raw(self.number) };
        if is_nonblocking(fd).is_ok_and(|nonblocking| !nonblocking) {
            self.was_blocking = true;
            // It has the mode of one for which that has worked before.
            let _ = set_nonblocking(fd, true);
        }
    }
}
