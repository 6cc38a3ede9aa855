//! What the clients do, in a thread of their own, and how long the server takes for it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use rustix::{
    event::epoll,
    time::{ClockId, clock_gettime},
};

use super::{ACCEPTED_AT_ONCE, DATAGRAM, PIECE};

/// CPU time of all threads but this one.
///
/// The clock of a process is exact for the thread that asks and for those that sleep: this waits until they do.
pub(super) fn time_of_the_others() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).expect("clocks do not run before their beginning");
    thread::sleep(Duration::from_millis(2));
    read(ClockId::ProcessCPUTime) - read(ClockId::ThreadCPUTime)
}

/// A client's end of a connection: plain, or encrypted. It does not wait once it is connected.
pub(super) trait Channel: Sized {
    /// Whether the server has to speak TLS.
    const SECURE: bool;

    fn connect(server: SocketAddr) -> io::Result<Self>;
    fn socket(&self) -> &TcpStream;
    /// Sends what is taken of `data`, or fails for now: `data` comes again then.
    fn send(&mut self, data: &[u8]) -> io::Result<usize>;
    /// How much of the server's messages has come; `buffer` is room for it.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Channel for TcpStream {
    const SECURE: bool = false;

    fn connect(server: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn socket(&self) -> &TcpStream {
        self
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write(data)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }
}

/// A connection that sends a message, waits until it has all of it back, and sends again.
struct Client<C> {
    channel: C,
    to_send: usize,
    to_receive: usize,
    requests: u64,
}

impl<C: Channel> Client<C> {
    fn begin(&mut self, message: &[u8]) {
        (self.to_send, self.to_receive) = (message.len(), message.len());
        self.send(message);
    }

    fn send(&mut self, message: &[u8]) {
        while self.to_send > 0 {
            match self.channel.send(&message[message.len() - self.to_send..]) {
                Ok(count) => self.to_send -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a client cannot send: {error}"),
            }
        }
    }

    /// Goes on after an event, of which there is one for each change: true if all requests have been answered.
    fn go_on(&mut self, message: &[u8], buffer: &mut [u8]) -> bool {
        self.send(message);
        while self.to_receive > 0 {
            match self.channel.receive(buffer) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(count) => self.to_receive -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("a client cannot receive: {error}"),
            }
        }
        self.requests -= 1;
        if self.requests > 0 {
            self.begin(message);
        }
        self.requests == 0
    }
}

pub(super) fn echo<C: Channel>(server: SocketAddr, connections: usize, size: usize, requests: u64) -> Duration {
    let (message, mut buffer) = (vec![b'x'; size], vec![0; 256 * 1024]);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
    let mut clients: Vec<_> = (0..connections)
        .map(|key| {
            let channel = C::connect(server).expect("loopback");
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(key as u64);
            epoll::add(&epoll, channel.socket(), data, flags).expect("it is a socket");
            Client { channel, to_send: 0, to_receive: 0, requests: 0 }
        })
        .collect();
    let mut events = Vec::with_capacity(256);
    let mut play = |requests| {
        let mut busy = clients.len();
        for client in &mut clients {
            client.requests = requests;
            client.begin(&message);
        }
        while busy > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).expect("it waits");
            for event in &events {
                let client = &mut clients[usize::try_from(event.data.u64()).expect("it was a usize")];
                if client.requests > 0 && client.go_on(&message, &mut buffer) {
                    busy -= 1;
                }
            }
        }
    };
    play(1);
    let before = time_of_the_others();
    play(requests);
    let time = time_of_the_others() - before;
    // One goes before the others: the server's memory is looked at then.
    drop(clients.pop());
    time_of_the_others();
    time
}

/// Sends a piece so many times, and waits until the server has seen the end.
pub(super) fn send(server: SocketAddr, piece: &[u8], pieces: u64) -> Duration {
    let mut socket = TcpStream::connect(server).expect("loopback");
    let before = time_of_the_others();
    for _ in 0..pieces {
        socket.write_all(piece).expect("the server takes it");
    }
    socket.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(socket.read(&mut [0]).expect("it is connected"), 0);
    time_of_the_others() - before
}

/// Receives so many pieces, which the server sends as soon as it has seen a byte.
pub(super) fn receive(server: SocketAddr, pieces: u64) -> Duration {
    let mut socket = TcpStream::connect(server).expect("loopback");
    let (mut buffer, mut left) = (vec![0; 4 * PIECE], pieces * PIECE as u64);
    let before = time_of_the_others();
    socket.write_all(b"x").expect("there is room for a byte");
    while left > 0 {
        let count = socket.read(&mut buffer).expect("the server sends");
        assert_ne!(count, 0, "the server closed the connection");
        left -= count as u64;
    }
    time_of_the_others() - before
}

/// Makes connections and ends them, some at a time; one batch is not measured.
pub(super) fn connect(server: SocketAddr, batches: usize) -> Duration {
    let batch = || {
        let sockets: Vec<_> = (0..ACCEPTED_AT_ONCE).map(|_| TcpStream::connect(server).expect("loopback")).collect();
        sockets.iter().for_each(|socket| socket.shutdown(Shutdown::Write).expect("it is connected"));
        for mut socket in sockets {
            assert_eq!(socket.read(&mut [0]).expect("the server closes"), 0);
        }
    };
    batch();
    let before = time_of_the_others();
    (0..batches).for_each(|_| batch());
    time_of_the_others() - before
}

/// Keeps so many datagrams on their way until so many have come back.
pub(super) fn datagrams(server: SocketAddr, on_their_way: usize, count: u64) -> Duration {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("it is a socket");
    let mut buffer = [0; 2 * DATAGRAM];
    let mut exchange = |count: u64| {
        let ahead = count.min(on_their_way as u64);
        for _ in 0..ahead {
            socket.send(&[b'x'; DATAGRAM]).expect("there is room");
        }
        for number in 0..count {
            assert_eq!(socket.recv(&mut buffer).expect("nothing is lost"), DATAGRAM);
            if number + ahead < count {
                socket.send(&[b'x'; DATAGRAM]).expect("there is room");
            }
        }
    };
    exchange(10);
    let before = time_of_the_others();
    exchange(count);
    let time = time_of_the_others() - before;
    socket.send(&[]).expect("there is room");
    time
}
