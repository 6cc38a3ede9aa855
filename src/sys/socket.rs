//! Calls on sockets that belong to the users: none of them blocks, whatever mode the socket is in.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown},
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::{error::Result, sys::addr::Address};

/// An address in the system's form: `Address::to_sock_addr` makes one.
pub(crate) type SystemAddress = SockAddr;

/// The family of unix sockets.
pub(crate) const AF_UNIX: i32 = libc::AF_UNIX;

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

/// Sends one datagram, in two pieces of which the second one may be empty: to `address`, or to where the socket is
/// connected.
pub(crate) fn send_datagram(
    fd: BorrowedFd<'_>,
    pieces: [IoSlice<'_>; 2],
    address: Option<&SockAddr>,
) -> io::Result<usize> {
    match (address, pieces[1].is_empty()) {
        (None, true) => send(fd, &pieces[0]),
        (None, false) => send_vectored(fd, &pieces),
        (Some(address), true) => send_to(fd, &pieces[0], address),
        (Some(address), false) => {
            let socket = SockRef::from(&fd);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            uninterrupted(|| socket.send_to_vectored_with_flags(&pieces, address, flags))
        }
    }
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
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// The family, type and protocol of a socket, for the resolver.
pub(crate) fn parameters(fd: BorrowedFd<'_>) -> io::Result<(i32, i32)> {
    let socket = SockRef::from(&fd);
    Ok((socket.local_addr()?.family().into(), socket.r#type()?.into()))
}

/// Whether it is a socket that carries a stream of bytes.
pub(crate) fn is_stream(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&fd).r#type()? == Type::STREAM)
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends what the system takes of `pieces`, in their order.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut control = SendAncillaryBuffer::default();
    uninterrupted(|| Ok(rustix::net::sendmsg(fd, pieces, &mut control, SEND_FLAGS)?))
}

/// Ends the sending side; an other side that is gone already needs no telling.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(fd, Shutdown::Write);
}

pub(crate) fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    let wanted = if nonblocking { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
    if flags != wanted {
        rustix::fs::fcntl_setfl(&fd, wanted)?;
    }
    Ok(())
}

/// The address of this side; `None` where the system does not tell.
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> Option<Address> {
    SockRef::from(&fd).local_addr().ok().map(|address| Address::from_sock_addr(&address))
}

/// The address of the other side, if there is one.
pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> Option<Address> {
    SockRef::from(&fd).peer_addr().ok().map(|address| Address::from_sock_addr(&address))
}

/// Whether a write would fail because nobody reads any more.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut ended = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let polled = uninterrupted(|| Ok(poll(&mut ended, Some(&Timespec::default()))?));
    polled.is_ok() && ended[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Whether something waits to be received; the end of the input is nothing.
pub(crate) fn has_input(fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0_u8];
    let peek = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    uninterrupted(|| Ok(rustix::net::recv(fd, &mut byte, peek)?.0)).is_ok_and(|count| count > 0)
}

/// A new socket, non-blocking and not inherited.
pub(crate) fn open(family: i32, socket_type: i32, protocol: i32) -> io::Result<OwnedFd> {
    let protocol = (protocol != 0).then(|| Protocol::from(protocol));
    let socket = Socket::new(Domain::from(family), Type::from(socket_type), protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(crate) fn bind(fd: BorrowedFd<'_>, address: &Address) -> Result<()> {
    let address = address.to_sock_addr()?;
    Ok(SockRef::from(&fd).bind(&address)?)
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    SockRef::from(&fd).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Sends small pieces at once.
pub(crate) fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_nodelay(true)
}

pub(crate) fn set_keepalive(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_keepalive(true)
}

pub(crate) fn set_reuse_address(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_reuse_address(true)
}

/// An error where the system lacks it.
pub(crate) fn set_reuse_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_reuse_port(true)
}

pub(crate) fn set_broadcast(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_broadcast(true)
}

/// Keeps a socket of IPv6 from taking connections of IPv4 as well.
pub(crate) fn set_only_v6(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_only_v6(true)
}
