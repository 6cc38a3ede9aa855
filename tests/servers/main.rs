//! Connections and servers, over IP and unix sockets: on every selector that waits for descriptors.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod accepted;
mod cancelling;
mod closing;
mod connect;
mod drain;
mod factories;
mod forever;
mod limits;
mod listen;
mod many;
mod peers;
mod racing;
mod threads;
mod unix;

use std::{
    future::{Future as StdFuture, IntoFuture},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use asyncio::{AddrInfo, AddrInfoHints, Address, EventLoop, Port, Resolver, Result, Server};
use rustix::process::{Resource, Rlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use support::{
    Record,
    loops::{On, TestLoop},
    transports::{Log, Peer, Recorder, Told},
};

/// What a server listens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Net {
    Tcp,
    Unix,
}

const NETS: [Net; 2] = [Net::Tcp, Net::Unix];

/// The arguments that servers of both kinds have.
#[derive(Clone, Copy)]
struct Plan {
    backlog: u32,
    start_serving: bool,
    max_connections: Option<usize>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { backlog: 100, start_serving: true, max_connections: None }
    }
}

impl Net {
    /// An address that is free.
    fn address(self) -> SockAddr {
        match self {
            Net::Tcp => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
            Net::Unix => SockAddr::unix(abstract_name()).unwrap(),
        }
    }

    /// A bound socket that does not listen.
    fn bound(self) -> Socket {
        let socket = self.socket();
        socket.bind(&self.address()).unwrap();
        socket
    }

    fn socket(self) -> Socket {
        let domain = if self == Net::Tcp { Domain::IPV4 } else { Domain::UNIX };
        Socket::new(domain, Type::STREAM, None).unwrap()
    }

    /// A server whose connections get what `make` makes of a recorder; and their logs, in the order of the connections.
    fn serve_with(
        self,
        event_loop: &EventLoop,
        plan: Plan,
        mut make: impl FnMut(Recorder) -> Recorder + 'static,
    ) -> (Server, Record<Log>) {
        let logs = Record::default();
        let made = logs.clone();
        let factory = move || {
            let log = Log::default();
            made.push(log.clone());
            make(Recorder::new(&log))
        };
        let Plan { backlog, start_serving, max_connections } = plan;
        let server = event_loop.run_until_complete(async {
            match self {
                Net::Tcp => {
                    let server = event_loop.create_server(factory, ("127.0.0.1", 0)).backlog(backlog);
                    server.start_serving(start_serving).max_connections(max_connections).await
                }
                Net::Unix => {
                    let server = event_loop.create_unix_server(factory, abstract_name()).backlog(backlog);
                    server.start_serving(start_serving).max_connections(max_connections).await
                }
            }
        });
        (server.unwrap(), logs)
    }

    fn serve(self, event_loop: &EventLoop) -> (Server, Record<Log>) {
        self.serve_with(event_loop, Plan::default(), |recorder| recorder)
    }

    /// A server that sends back what it gets.
    fn serve_echo(self, event_loop: &EventLoop, plan: Plan) -> (Server, Record<Log>) {
        self.serve_with(event_loop, plan, |recorder| recorder.on_data(|transport, data| transport.write(data)))
    }
}

/// A name in the abstract namespace that nobody else has.
fn abstract_name() -> String {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    format!("\0asyncio-servers-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

fn system_address(address: &Address) -> SockAddr {
    match address {
        Address::Inet(address) => (*address).into(),
        Address::UnixPath(path) => SockAddr::unix(path).unwrap(),
        Address::UnixAbstract(name) => {
            SockAddr::unix(format!("\0{}", String::from_utf8(name.clone()).unwrap())).unwrap()
        }
        address => panic!("{address}"),
    }
}

/// Where a server listens.
fn place(server: &Server) -> SockAddr {
    system_address(server.sockets()[0].address())
}

/// Connects without the help of a loop; a listener that has room in its queue needs not accept for that.
fn try_connect(address: &SockAddr) -> io::Result<Peer> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect(address)?;
    Ok(Peer::new(socket))
}

/// A client of a server.
#[track_caller]
fn client(server: &Server) -> Peer {
    try_connect(&place(server)).unwrap()
}

/// Whether the other side has ended, which the system may need a moment to tell.
#[track_caller]
fn has_ended(peer: &Peer) -> bool {
    peer.until_readable();
    peer.ended()
}

/// Waits until so many connections can be accepted, which the system may need a moment for.
fn until_queued(place: &SockAddr, count: usize) {
    let Some(address) = place.as_socket() else { return };
    let local = format!(":{:04X} 00000000:0000 0A ", address.port());
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let listening = table.lines().find(|line| line.contains(&local)).expect("it listens");
        let queue = listening.split(&local).nth(1).unwrap().split([':', ' ']).nth(1).unwrap();
        if usize::from_str_radix(queue, 16).unwrap() == count {
            return;
        }
        std::thread::yield_now();
    }
}

/// Whether nobody listens there.
fn refuses(address: &SockAddr) -> bool {
    match try_connect(address) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            true
        }
    }
}

/// An address where nobody listens, and who keeps it so.
fn refusing() -> (Socket, SocketAddr) {
    let holder = Net::Tcp.bound();
    let address = holder.local_addr().unwrap().as_socket().unwrap();
    (holder, address)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener that lets no further connection in, and the one that fills it.
fn full_listener() -> (TcpListener, SocketAddr, TcpStream) {
    let holder = Net::Tcp.bound();
    holder.listen(0).unwrap();
    let listener = TcpListener::from(holder);
    let address = listener.local_addr().unwrap();
    let first = TcpStream::connect(address).unwrap();
    (listener, address, first)
}

/// Accepts what waits.
fn accepted(listener: &TcpListener) -> Vec<Peer> {
    listener.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| Peer::new(stream)).collect()
}

/// A resolver of names that stand for fixed addresses, in the family that is asked for.
struct Names(Vec<(&'static str, Vec<SocketAddr>)>);

impl Resolver for Names {
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        let found = self.0.iter().find(|(name, _)| Some(*name) == host);
        let Some((_, addresses)) = found else {
            return Err(asyncio::Error::resolve(asyncio::socket::EAI_NONAME, format!("{host:?}")));
        };
        let infos = addresses.iter().map(|address| {
            let mut address = *address;
            if let Port::Number(port) = port {
                if address.port() == 0 {
                    address.set_port(*port);
                }
            }
            AddrInfo::new(address, hints.socket_type)
        });
        Ok(infos.filter(|info| hints.family == 0 || hints.family == info.family).collect())
    }
}

/// "both.test" is this machine, by IPv6 first.
fn both() -> Names {
    Names(vec![("both.test", vec![(Ipv6Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()])])
}

/// Lets the other tasks and callbacks run once.
async fn turn() {
    asyncio::sleep(Duration::ZERO).await.unwrap();
}

/// Lets others run until it is so.
async fn turns_until(mut done: impl FnMut() -> bool) {
    while !done() {
        asyncio::sleep(Duration::from_millis(1)).await.unwrap();
    }
}

/// Whether this number is a descriptor of the process.
fn is_open(number: i32) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok()
}

/// How many descriptors the process has.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Moves a descriptor to a number that nobody else takes.
fn at_own_number(fd: impl AsFd) -> std::os::fd::OwnedFd {
    static NEXT: AtomicUsize = AtomicUsize::new(3000);
    static RAISED: std::sync::Once = std::sync::Once::new();
    RAISED.call_once(|| {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < 4096) {
            let raised = Rlimit { current: Some(4096), maximum: limit.maximum };
            rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
        }
    });
    let wanted = NEXT.fetch_add(1, Ordering::Relaxed) as i32;
    let moved = rustix::io::fcntl_dupfd_cloexec(fd, wanted).unwrap();
    assert_eq!(moved.as_raw_fd(), wanted);
    moved
}

fn socket_option<R>(server: &Server, look: impl Fn(socket2::SockRef<'_>) -> io::Result<R>) -> Vec<R> {
    let sockets = server.sockets();
    let looked = sockets.iter().map(|socket| socket.with_fd(|fd| look(socket2::SockRef::from(&fd)).unwrap()).unwrap());
    looked.collect()
}

/// Polls a future up to so many times; `None` if it was not done then, and it is dropped.
struct Polls<F> {
    future: Option<Pin<Box<F>>>,
    left: usize,
}

fn polls<F: StdFuture>(future: impl IntoFuture<IntoFuture = F, Output = F::Output>, most: usize) -> Polls<F> {
    Polls { future: Some(Box::pin(future.into_future())), left: most }
}

impl<F: StdFuture> StdFuture for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (left, Some(future)) = (self.left, &mut self.future) else { return Poll::Ready(None) };
        if left == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 1 => {
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.left -= 1;
                Poll::Pending
            }
        }
    }
}

/// A protocol that records nothing.
fn silent() -> Recorder {
    Recorder::new(&Log::default())
}

fn lost() -> Told {
    Told::Lost(None)
}

/// A counter that a factory can take along.
#[derive(Clone, Default)]
struct Count(Rc<std::cell::Cell<usize>>);

impl Count {
    fn up(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn get(&self) -> usize {
        self.0.get()
    }
}
