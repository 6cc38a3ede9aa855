//! Servers under load: CPU time of the server for each operation.
//!
//! One thread plays all clients, the same for every server, which runs on the thread that calls. Its time is that of the
//! whole process without the client's thread, read while the server sleeps: after the connections are made and have been
//! answered once, and again when everything has been answered. Both threads share one processor, as what a wake costs
//! depends on whether it goes to another one, and the system decides that anew for every run.

mod asyncio_servers;
mod clients;
mod raw_servers;
mod smol_servers;
mod streams;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod tokio_servers;

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    rc::Rc,
    thread,
    time::Duration,
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
};
use socket2::{Domain, Socket, Type};

use super::{Group, Peer, scale};
use clients::Channel;
use tls::TlsChannel;

/// All of them; those over TLS where the crate has it.
pub(crate) fn groups() -> impl Iterator<Item = &'static Group> {
    PLAIN.iter().chain(streams::GROUPS).chain(tls::GROUPS)
}

const PLAIN: &[Group] = &[
    echo::<1, 1>("echo_protocol_1x1B", "a request and its echo by a Protocol; 1 connection, 1 B", 20_000),
    echo::<1, KIB>("echo_protocol_1x1KiB", "the same; 1 connection, 1 KiB", 20_000),
    echo::<1, { 100 * KIB }>("echo_protocol_1x100KiB", "the same; 1 connection, 100 KiB", 5_000),
    echo::<10, 1>("echo_protocol_10x1B", "the same; 10 connections, 1 B", 50_000),
    echo::<10, KIB>("echo_protocol_10x1KiB", "the same; 10 connections, 1 KiB", 50_000),
    echo::<10, { 100 * KIB }>("echo_protocol_10x100KiB", "the same; 10 connections, 100 KiB", 5_000),
    echo::<100, 1>("echo_protocol_100x1B", "the same; 100 connections, 1 B", 50_000),
    echo::<100, KIB>("echo_protocol_100x1KiB", "the same; 100 connections, 1 KiB", 50_000),
    echo::<100, { 100 * KIB }>("echo_protocol_100x100KiB", "the same; 100 connections, 100 KiB", 5_000),
    echo::<1000, 1>("echo_protocol_1000x1B", "the same; 1000 connections, 1 B", 50_000),
    echo::<1000, KIB>("echo_protocol_1000x1KiB", "the same; 1000 connections, 1 KiB", 50_000),
    echo::<1000, { 100 * KIB }>("echo_protocol_1000x100KiB", "the same; 1000 connections, 100 KiB", 5_000),
    BULK_RECEIVE,
    BULK_SEND,
    ACCEPT,
    datagrams::<1>("datagram_1", "a datagram of 100 B and its echo; 1 on its way", 20_000),
    datagrams::<16>("datagram_16", "the same; 16 on their way", 50_000),
];

/// The name of the hand-written loop.
pub(crate) const RAW: &str = "raw epoll";

const KIB: usize = 1024;

/// How much one operation of the bulk groups moves.
const PIECE: usize = 64 * KIB;

/// How many connections are made and ended at a time, where that is what is measured.
const ACCEPTED_AT_ONCE: usize = 16;

/// How many clients may wait for the server to accept them.
const BACKLOG: i32 = 4096;

/// What a datagram carries. An empty one ends the server.
const DATAGRAM: usize = 100;

const fn echo<const CONNECTIONS: usize, const SIZE: usize>(
    name: &'static str,
    about: &'static str,
    count: u64,
) -> Group {
    let peers = const {
        &[
            Peer {
                name: "asyncio",
                run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, asyncio_servers::echo),
            },
            Peer {
                name: "asyncio_buffered",
                run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, asyncio_servers::echo_buffered),
            },
            Peer { name: RAW, run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, raw_servers::echo) },
            Peer { name: "tokio", run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, tokio_servers::echo) },
            Peer { name: "smol", run: |count| run_echo::<TcpStream>(count, CONNECTIONS, SIZE, smol_servers::echo) },
        ]
    };
    Group { name, about, count, reach: Some((1.03, RAW)), peers }
}

pub(crate) const BULK_RECEIVE: Group = Group {
    name: "bulk_receive",
    about: "64 KiB of a stream that comes in as fast as it can",
    count: 16_000,
    reach: Some((1.03, RAW)),
    peers: &[
        Peer { name: "asyncio", run: |count| run_bulk_receive(count, asyncio_servers::receive) },
        Peer { name: "asyncio_buffered", run: |count| run_bulk_receive(count, asyncio_servers::receive_buffered) },
        Peer { name: RAW, run: |count| run_bulk_receive(count, raw_servers::receive) },
        Peer { name: "tokio", run: |count| run_bulk_receive(count, tokio_servers::receive) },
        Peer { name: "smol", run: |count| run_bulk_receive(count, smol_servers::receive) },
    ],
};

pub(crate) const BULK_SEND: Group = Group {
    name: "bulk_send",
    about: "64 KiB of a stream that goes out as fast as it is taken",
    count: 16_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| run_bulk_send(count, asyncio_servers::send) },
        Peer { name: RAW, run: |count| run_bulk_send(count, raw_servers::send_all) },
        Peer { name: "tokio", run: |count| run_bulk_send(count, tokio_servers::send) },
        Peer { name: "smol", run: |count| run_bulk_send(count, smol_servers::send) },
    ],
};

pub(crate) const ACCEPT: Group = Group {
    name: "accept",
    about: "a connection that is accepted, ended by the client, and closed; 16 at a time",
    count: 4_000,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| run_accept(count, asyncio_servers::echo) },
        Peer { name: RAW, run: |count| run_accept(count, raw_servers::echo) },
        Peer { name: "tokio", run: |count| run_accept(count, tokio_servers::echo) },
        Peer { name: "smol", run: |count| run_accept(count, smol_servers::echo) },
    ],
};

const fn datagrams<const ON_THEIR_WAY: usize>(name: &'static str, about: &'static str, count: u64) -> Group {
    let peers = const {
        &[
            Peer { name: "asyncio", run: |count| run_datagrams(count, ON_THEIR_WAY, asyncio_servers::datagrams) },
            Peer { name: RAW, run: |count| run_datagrams(count, ON_THEIR_WAY, raw_servers::datagrams) },
            Peer { name: "tokio", run: |count| run_datagrams(count, ON_THEIR_WAY, tokio_servers::datagrams) },
            Peer { name: "smol", run: |count| run_datagrams(count, ON_THEIR_WAY, smol_servers::datagrams) },
        ]
    };
    Group { name, about, count, reach: Some((1.0, "tokio")), peers }
}

/// What a server is to do.
#[derive(Clone)]
struct Work {
    /// How many connections have yet to come to their end; the server ends with the last one.
    left: Rc<Cell<usize>>,
    /// How much room a message needs.
    size: usize,
    /// How much is sent on each connection, where the server sends by itself.
    bytes: u64,
    /// Whether the clients speak TLS.
    secure: bool,
    /// Called when the first connection ends, while the others are idle.
    at_first_end: Rc<Cell<Option<Box<dyn FnOnce()>>>>,
}

impl Work {
    fn new(connections: usize, size: usize) -> Self {
        Work { left: Rc::new(Cell::new(connections)), size, bytes: 0, secure: false, at_first_end: Rc::default() }
    }

    /// Notes that a connection has ended: true if it was the last one.
    fn one_has_ended(&self) -> bool {
        if let Some(look) = self.at_first_end.take() {
            look();
        }
        self.left.set(self.left.get() - 1);
        self.left.get() == 0
    }

    fn buffer(&self) -> Vec<u8> {
        vec![0; 2 * self.size]
    }
}

/// Serves whoever comes to the listener until the work is done.
type Server = fn(TcpListener, Work);

/// On loopback, with room for all who may come, at both of their ends.
fn listen(connections: usize) -> (TcpListener, SocketAddr) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < 2 * connections as u64 + 100) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum it may go");
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&address.into()).expect("a port");
    socket.listen(BACKLOG).expect("it is bound");
    socket.set_nonblocking(true).expect("it is a socket");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Runs the server here and the client, who says how long it took, in a thread; both on one processor.
fn run(client: impl FnOnce() -> Duration + Send + 'static, server: impl FnOnce()) -> Duration {
    let everywhere = sched_getaffinity(None).expect("this thread runs");
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).expect("it runs here already");
    let client = thread::spawn(client);
    server();
    let time = client.join().expect("the client gets what it asked for");
    sched_setaffinity(None, &everywhere).expect("it was so before");
    time
}

fn run_echo<C: Channel>(count: u64, connections: usize, size: usize, server: Server) -> Duration {
    let each = count.div_ceil(connections as u64);
    let (listener, address) = listen(connections);
    let client = move || clients::echo::<C>(address, connections, size, each);
    let work = Work { secure: C::SECURE, ..Work::new(connections, size) };
    let time = run(client, || server(listener, work));
    scale(time, each * connections as u64, count)
}

fn run_bulk_receive(count: u64, server: Server) -> Duration {
    let (listener, address) = listen(1);
    run(move || clients::send(address, &[b'x'; PIECE], count), || server(listener, Work::new(1, 2 * PIECE)))
}

fn run_bulk_send(count: u64, server: Server) -> Duration {
    let (listener, address) = listen(1);
    let work = Work { bytes: count * PIECE as u64, ..Work::new(1, PIECE) };
    run(move || clients::receive(address, count), || server(listener, work))
}

fn run_accept(count: u64, server: Server) -> Duration {
    let batches = usize::try_from(count).expect("it fits").div_ceil(ACCEPTED_AT_ONCE);
    let (listener, address) = listen(ACCEPTED_AT_ONCE);
    // One batch more, to begin with.
    let work = Work::new((batches + 1) * ACCEPTED_AT_ONCE, 1);
    let time = run(move || clients::connect(address, batches), || server(listener, work));
    scale(time, (batches * ACCEPTED_AT_ONCE) as u64, count)
}

fn run_datagrams(count: u64, on_their_way: usize, server: fn(UdpSocket)) -> Duration {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("it is a socket");
    let address = socket.local_addr().expect("it is bound");
    run(move || clients::datagrams(address, on_their_way, count), || server(socket))
}

/// How many bytes of the heap a connection takes on asyncio by a protocol and by a stream, on tokio, smol and the loop by
/// hand, while it waits; `heap` says how many this thread has. The tasks' have a buffer of 1 KiB.
pub(crate) fn idle_connections(connections: usize, heap: fn() -> i64) -> [f64; 5] {
    [asyncio_servers::echo, streams::echo_futures, tokio_servers::echo, smol_servers::echo, raw_servers::echo]
        .map(|server| heap_of_one::<TcpStream>(server, connections, heap))
}

/// The same over TLS, on asyncio and tokio; nothing where the crate is without it.
pub(crate) fn idle_tls_connections(connections: usize, heap: fn() -> i64) -> Vec<f64> {
    tls::ECHO.map(|server| heap_of_one::<TlsChannel>(server, connections, heap)).to_vec()
}

fn heap_of_one<C: Channel>(server: Server, connections: usize, heap: fn() -> i64) -> f64 {
    // Two runs, so that what is there once drops out.
    let [less, more] = [connections, 2 * connections].map(|connections| heap_of::<C>(server, connections, heap));
    (more - less) as f64 / connections as f64
}

fn heap_of<C: Channel>(server: Server, connections: usize, heap: fn() -> i64) -> i64 {
    let (listener, address) = listen(connections);
    let (seen, work) = (Rc::new(Cell::new(0)), Work { secure: C::SECURE, ..Work::new(connections, KIB / 2) });
    let see = seen.clone();
    work.at_first_end.set(Some(Box::new(move || see.set(heap()))));
    let before = heap();
    run(move || clients::echo::<C>(address, connections, KIB / 2, 1), || server(listener, work));
    seen.get() - before
}
