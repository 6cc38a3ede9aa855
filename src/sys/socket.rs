//! Calls on sockets that belong to the users: none of them blocks, whatever mode the socket is in.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};
use socket2::{SockAddr, SockRef, Socket};

use crate::{error::Result, sys::addr::Address};

/// Receives into `buffer`. `WouldBlock` if nothing is there.
pub(crate) fn recv_into(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| Ok(rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT)?.0))
}

/// Receives up to `size` bytes, which replace what is in `buffer`.
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, size: usize) -> io::Result<()> {
    let room = make_room(buffer, size)?;
    let count = uninterrupted(|| Ok(rustix::net::recv(fd, &mut *room, RecvFlags::DONTWAIT)?.0.0.len()))?;
    // SAFETY: so many bytes were written to the beginning of the room, which is the vector's own.
    unsafe { buffer.set_len(count) };
    Ok(())
}

/// Receives one datagram of up to `size` bytes, which replaces what is in `buffer`, and says who sent it.
pub(crate) fn recv_from(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, size: usize) -> io::Result<Address> {
    let (count, address) = recv_datagram(fd, make_room(buffer, size)?)?;
    // SAFETY: so many bytes were written to the beginning of the room, which is the vector's own.
    unsafe { buffer.set_len(count) };
    Ok(address)
}

/// Empties `buffer` and gives its first `size` bytes.
fn make_room(buffer: &mut Vec<u8>, size: usize) -> io::Result<&mut [MaybeUninit<u8>]> {
    buffer.clear();
    buffer.try_reserve_exact(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(&mut buffer.spare_capacity_mut()[..size])
}

/// Receives one datagram into `buffer`, cutting off what does not fit, and says who sent it.
pub(crate) fn recv_from_into(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
    // SAFETY: initialised bytes may be seen as perhaps uninitialised ones; socket2 promises to write nothing else into
    // them but initialised bytes.
    recv_datagram(fd, unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) })
}

/// The first so many bytes of `buffer` are written.
fn recv_datagram(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
    let socket = SockRef::from(&fd);
    uninterrupted(|| {
        let (count, address) = socket.recv_from_with_flags(buffer, libc::MSG_DONTWAIT)?;
        Ok((count, Address::from_sock_addr(&address)))
    })
}

/// Sends what the system takes of `data`; a broken connection is an error, not a signal.
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    uninterrupted(|| Ok(rustix::net::send(fd, data, SEND_FLAGS)?))
}

#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// There is no such flag here; std lets every Rust program ignore the signal.
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

/// Sends a datagram.
pub(crate) fn send_to(fd: BorrowedFd<'_>, data: &[u8], address: &SockAddr) -> io::Result<usize> {
    let socket = SockRef::from(&fd);
    uninterrupted(|| socket.send_to_with_flags(data, address, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))
}

/// Accepts a connection, which is non-blocking and not inherited. A connection that is gone again is passed over.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let socket = SockRef::from(&fd);
    loop {
        match accept_once(&socket) {
            Ok((connection, address)) => return Ok((connection.into(), Address::from_sock_addr(&address))),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// One call where the system can do it in one.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn accept_once(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    socket.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn accept_once(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    let (connection, address) = socket.accept()?;
    connection.set_nonblocking(true)?;
    Ok((connection, address))
}

/// How a connect stands after its first call.
pub(crate) enum Connecting {
    Done,
    /// Writable when it has ended.
    InProgress,
    /// The other side's queue is full (unix sockets): to be begun again later.
    Busy,
}

pub(crate) fn begin_connect(fd: BorrowedFd<'_>, address: &Address) -> Result<Connecting> {
    let target = address.to_sock_addr()?;
    match SockRef::from(&fd).connect(&target) {
        Ok(()) => Ok(Connecting::Done),
        Err(error) => match error.raw_os_error() {
            // An interrupted connect goes on by itself.
            Some(libc::EINPROGRESS | libc::EINTR | libc::EALREADY) => Ok(Connecting::InProgress),
            Some(libc::EAGAIN) if address.as_inet().is_none() => Ok(Connecting::Busy),
            _ => Err(error.into()),
        },
    }
}

/// What became of a connect that was in progress. `WouldBlock` if it still is: then there is no error yet either.
pub(crate) fn end_connect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut ended = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    if uninterrupted(|| Ok(poll(&mut ended, Some(&Timespec::default()))?))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    match SockRef::from(&fd).take_error()? {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

pub(crate) fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// The family, type and protocol of a socket, for the resolver.
pub(crate) fn parameters(fd: BorrowedFd<'_>) -> io::Result<(i32, i32)> {
    let socket = SockRef::from(&fd);
    Ok((socket.local_addr()?.family().into(), socket.r#type()?.into()))
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
