//! Files sent by the system itself, where it can.

use std::{fs::File, io, os::unix::fs::FileExt};

pub(crate) use native::send;

/// Where no file reaches.
const END: u64 = i64::MAX as u64;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod native {
    use std::{fs::File, io, os::fd::BorrowedFd};

    /// Sends up to `size` bytes of `file`, from `offset` on, to a socket, which must be non-blocking. Zero is the end of
    /// the file; its position is neither looked at nor changed.
    pub(crate) fn send(socket: BorrowedFd<'_>, file: &File, mut offset: u64, size: usize) -> io::Result<usize> {
        if !super::is_within(offset, size) {
            return Ok(0);
        }
        loop {
            match rustix::fs::sendfile(socket, file, Some(&mut offset), size) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod native {
    use std::{fs::File, io, os::fd::BorrowedFd};

    /// Is not available here: see [`is_unavailable`](super::is_unavailable).
    pub(crate) fn send(_socket: BorrowedFd<'_>, _file: &File, _offset: u64, _size: usize) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// Whether an error says that this file or socket cannot be sent from or to by the system, rather than that it failed.
pub(crate) fn is_unavailable(code: i32) -> bool {
    // EPERM is what sandboxes say.
    [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::ESPIPE, libc::EPERM].contains(&code)
}

/// Reads from `offset` on; zero is the end. The position is neither looked at nor changed.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    if !is_within(offset, buffer.len()) {
        return Ok(0);
    }
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether the system's numbers reach so far; no file does.
fn is_within(offset: u64, size: usize) -> bool {
    offset.checked_add(size as u64).is_some_and(|end| end <= END)
}
