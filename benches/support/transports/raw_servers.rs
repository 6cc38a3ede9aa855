//! Loops over epoll by hand: what the others are measured against.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{DATAGRAM, PIECE, Work};

const LISTENER: u64 = u64::MAX;

const READABLE: EventFlags = EventFlags::IN;
const BOTH: EventFlags = EventFlags::IN.union(EventFlags::OUT);

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> Self {
        Epoll(epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor"))
    }

    fn add(&self, fd: impl AsFd, key: u64, flags: EventFlags) {
        epoll::add(&self.0, fd, EventData::new_u64(key), flags).expect("it is a socket");
    }

    fn modify(&self, fd: impl AsFd, key: u64, flags: EventFlags) {
        epoll::modify(&self.0, fd, EventData::new_u64(key), flags).expect("it was added");
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) {
        events.clear();
        epoll::wait(&self.0, rustix::buffer::spare_capacity(events), None).expect("it waits");
    }
}

struct Connection {
    socket: TcpStream,
    key: u64,
    /// What waits until it can be sent.
    unsent: Vec<u8>,
}

/// What became of a connection.
#[derive(PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

impl Connection {
    fn send(&mut self, epoll: &Epoll, data: &[u8]) {
        let sent = if self.unsent.is_empty() { send(&mut self.socket, data) } else { 0 };
        if sent < data.len() {
            self.unsent.extend_from_slice(&data[sent..]);
            epoll.modify(&self.socket, self.key, BOTH);
        }
    }

    fn send_more(&mut self, epoll: &Epoll) {
        let sent = send(&mut self.socket, &self.unsent);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            epoll.modify(&self.socket, self.key, READABLE);
        }
    }
}

/// Sends what is taken at once.
fn send(socket: &mut TcpStream, data: &[u8]) -> usize {
    match socket.write(data) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("a server cannot send: {error}"),
    }
}

/// Calls `received` with what comes in, and `writable` where something waits to be sent.
fn serve(
    listener: TcpListener,
    work: Work,
    mut received: impl FnMut(&Epoll, &mut Connection, &[u8]),
    mut writable: impl FnMut(&Epoll, &mut Connection) -> State,
) {
    let (epoll, mut buffer, mut events) = (Epoll::new(), vec![0; 256 * 1024], Vec::with_capacity(1024));
    let (mut connections, mut free) = (Vec::<Option<Connection>>::new(), Vec::new());
    epoll.add(&listener, LISTENER, READABLE);
    loop {
        epoll.wait(&mut events);
        for &event in &events {
            let (flags, key) = (event.flags, event.data.u64());
            if key == LISTENER {
                while let Some(socket) = accept(&listener) {
                    let place = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    epoll.add(&socket, place as u64, READABLE);
                    connections[place] = Some(Connection { socket, key: place as u64, unsent: Vec::new() });
                }
                continue;
            }
            let place = usize::try_from(key).expect("it was a usize");
            let Some(connection) = &mut connections[place] else { continue };
            let mut state = State::Open;
            if flags.contains(EventFlags::IN) {
                match connection.socket.read(&mut buffer) {
                    Ok(0) => state = State::Ended,
                    Ok(count) => received(&epoll, connection, &buffer[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if state == State::Open && flags.contains(EventFlags::OUT) {
                state = writable(&epoll, connection);
            }
            if state == State::Ended {
                connections[place] = None;
                free.push(place);
                if work.one_has_ended() {
                    return;
                }
            }
        }
    }
}

/// A connection, if one waits.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let socket = match rustix::net::accept_with(listener, flags) {
        Ok(socket) => TcpStream::from(socket),
        Err(rustix::io::Errno::AGAIN) => return None,
        Err(error) => panic!("a server cannot accept: {error}"),
    };
    socket.set_nodelay(true).expect("it is a TCP socket");
    Some(socket)
}

pub(super) fn echo(listener: TcpListener, work: Work) {
    let writable = |epoll: &Epoll, connection: &mut Connection| {
        connection.send_more(epoll);
        State::Open
    };
    serve(listener, work, |epoll, connection, data| connection.send(epoll, data), writable);
}

pub(super) fn receive(listener: TcpListener, work: Work) {
    serve(listener, work, |_, _, _| {}, |_, _| State::Open);
}

pub(super) fn send_all(listener: TcpListener, work: Work) {
    let mut left = work.bytes;
    let piece = [b'x'; PIECE];
    let writable = move |_: &Epoll, connection: &mut Connection| {
        while left > 0 {
            let wanted = left.min(PIECE as u64) as usize;
            let sent = send(&mut connection.socket, &piece[..wanted]);
            left -= sent as u64;
            if sent < wanted {
                return State::Open;
            }
        }
        State::Ended
    };
    serve(listener, work, |epoll, connection, _| epoll.modify(&connection.socket, connection.key, BOTH), writable);
}

/// As many datagrams for an event as there are.
pub(super) fn datagrams(socket: UdpSocket) {
    let (epoll, mut buffer, mut events) = (Epoll::new(), [0; 2 * DATAGRAM], Vec::with_capacity(16));
    epoll.add(&socket, 0, READABLE);
    loop {
        epoll.wait(&mut events);
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((0, _)) => return,
                Ok((count, address)) => {
                    socket.send_to(&buffer[..count], address).expect("there is room");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a server cannot receive: {error}"),
            }
        }
    }
}
