//! An echo server over TCP on loopback: CPU time of the server's thread for each request.
//!
//! One thread plays all clients, over epoll, the same for every server. Each connection sends 1 KiB, waits until it has
//! all of it back, and sends again. The connections are made before the time is taken.

use std::{
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use rustix::event::epoll;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Group, Peer, Stopwatch, on_asyncio, on_smol, on_tokio, scale};

pub(crate) const GROUPS: &[Group] = &[SOCK_ECHO_1, SOCK_ECHO_10, SOCK_ECHO_100];

const MESSAGE: usize = 1024;

pub(crate) const SOCK_ECHO_1: Group = Group {
    name: "sock_echo_1",
    about: "a 1 KiB request and its echo, CPU time of the server; 1 connection",
    count: 20_000,
    reach: Some((1.4, "raw epoll")),
    peers: &[
        Peer { name: "asyncio", run: |count| echo(count, 1, server::asyncio) },
        Peer { name: "tokio", run: |count| echo(count, 1, server::tokio) },
        Peer { name: "smol", run: |count| echo(count, 1, server::smol) },
        Peer { name: "raw epoll", run: |count| echo(count, 1, server::raw) },
    ],
};

pub(crate) const SOCK_ECHO_10: Group = Group {
    name: "sock_echo_10",
    about: "the same; 10 connections",
    count: 50_000,
    reach: Some((1.4, "raw epoll")),
    peers: &[
        Peer { name: "asyncio", run: |count| echo(count, 10, server::asyncio) },
        Peer { name: "tokio", run: |count| echo(count, 10, server::tokio) },
        Peer { name: "smol", run: |count| echo(count, 10, server::smol) },
        Peer { name: "raw epoll", run: |count| echo(count, 10, server::raw) },
    ],
};

pub(crate) const SOCK_ECHO_100: Group = Group {
    name: "sock_echo_100",
    about: "the same; 100 connections",
    count: 50_000,
    reach: Some((1.4, "raw epoll")),
    peers: &[
        Peer { name: "asyncio", run: |count| echo(count, 100, server::asyncio) },
        Peer { name: "tokio", run: |count| echo(count, 100, server::tokio) },
        Peer { name: "smol", run: |count| echo(count, 100, server::smol) },
        Peer { name: "raw epoll", run: |count| echo(count, 100, server::raw) },
    ],
};

/// Serves `sockets` until the clients have closed them all; gives the CPU time of its thread.
type Server = fn(sockets: Vec<TcpStream>) -> Duration;

fn echo(count: u64, connections: u64, server: Server) -> Duration {
    let each = count.div_ceil(connections);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let client = TcpStream::connect(address).expect("loopback");
        let (socket, _) = listener.accept().expect("it is connected");
        for stream in [&client, &socket] {
            stream.set_nonblocking(true).expect("it is a socket");
            stream.set_nodelay(true).expect("it is a TCP socket");
        }
        ours.push(socket);
        theirs.push(client);
    }
    let clients = thread::spawn(move || play_clients(theirs, each));
    let time = server(ours);
    clients.join().expect("the clients get everything back");
    scale(time, each * connections, count)
}

/// A loop over epoll by hand: what the others are measured against.
struct Epoll {
    epoll: std::os::fd::OwnedFd,
    events: Vec<MaybeUninit<epoll::Event>>,
}

impl Epoll {
    fn new(sockets: &[TcpStream]) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        for (key, socket) in (0..).zip(sockets) {
            epoll::add(&epoll, socket, epoll::EventData::new_u64(key), epoll::EventFlags::IN).expect("it is a socket");
        }
        Epoll { epoll, events: vec![MaybeUninit::uninit(); 256] }
    }

    fn wait(&mut self, mut ready: impl FnMut(usize)) {
        let (events, _) = epoll::wait(&self.epoll, &mut self.events[..], None).expect("it waits");
        events.iter().for_each(|event| ready(usize::try_from(event.data.u64()).expect("it was a usize")));
    }
}

fn play_clients(sockets: Vec<TcpStream>, each: u64) {
    struct Client {
        socket: Option<TcpStream>,
        left: u64,
        received: usize,
    }

    let message = [b'x'; MESSAGE];
    let mut buffer = [0; 2 * MESSAGE];
    let mut epoll = Epoll::new(&sockets);
    let mut open = sockets.len();
    let mut clients: Vec<_> =
        sockets.into_iter().map(|socket| Client { socket: Some(socket), left: each, received: 0 }).collect();
    for socket in clients.iter_mut().filter_map(|client| client.socket.as_mut()) {
        socket.write_all(&message).expect("there is room for one message");
    }
    while open > 0 {
        epoll.wait(|key| {
            let client = &mut clients[key];
            let Some(socket) = &mut client.socket else { return };
            let count = socket.read(&mut buffer).expect("it is readable");
            assert_ne!(count, 0, "the server closed the connection");
            client.received += count;
            if client.received < MESSAGE {
                return;
            }
            client.received = 0;
            client.left -= 1;
            if client.left > 0 {
                socket.write_all(&message).expect("there is room for one message");
            } else {
                client.socket = None;
                open -= 1;
            }
        });
    }
}

mod server {
    use super::*;

    pub(super) fn asyncio(sockets: Vec<TcpStream>) -> Duration {
        on_asyncio(async move {
            let event_loop = asyncio::get_running_loop()?;
            let serve = async |event_loop: asyncio::EventLoop, socket: TcpStream| {
                let mut buffer = [0; 2 * MESSAGE];
                loop {
                    match event_loop.sock_recv_into(&socket, &mut buffer).await? {
                        0 => return Ok(()),
                        count => event_loop.sock_sendall(&socket, &buffer[..count]).await?,
                    }
                }
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> =
                sockets.into_iter().map(|socket| event_loop.create_task(serve(event_loop.clone(), socket))).collect();
            for task in tasks {
                task.await?;
            }
            Ok(stopwatch.elapsed())
        })
    }

    pub(super) fn tokio(sockets: Vec<TcpStream>) -> Duration {
        on_tokio(async move {
            let serve = async |socket: TcpStream| {
                let mut socket = tokio::net::TcpStream::from_std(socket)?;
                let mut buffer = [0; 2 * MESSAGE];
                loop {
                    match socket.read(&mut buffer).await? {
                        0 => return std::io::Result::Ok(()),
                        count => socket.write_all(&buffer[..count]).await?,
                    }
                }
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> = sockets.into_iter().map(|socket| tokio::task::spawn_local(serve(socket))).collect();
            for task in tasks {
                task.await.expect("it does not panic").expect("the socket works");
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn smol(sockets: Vec<TcpStream>) -> Duration {
        on_smol(move |executor| async move {
            let serve = async |socket: TcpStream| {
                let mut socket = smol::Async::new_nonblocking(socket)?;
                let mut buffer = [0; 2 * MESSAGE];
                loop {
                    match socket.read(&mut buffer).await? {
                        0 => return std::io::Result::Ok(()),
                        count => socket.write_all(&buffer[..count]).await?,
                    }
                }
            };
            let stopwatch = Stopwatch::thread();
            let tasks: Vec<_> = sockets.into_iter().map(|socket| executor.spawn(serve(socket))).collect();
            for task in tasks {
                task.await.expect("the socket works");
            }
            stopwatch.elapsed()
        })
    }

    pub(super) fn raw(sockets: Vec<TcpStream>) -> Duration {
        let stopwatch = Stopwatch::thread();
        let mut epoll = Epoll::new(&sockets);
        let mut open = sockets.len();
        let mut sockets: Vec<_> = sockets.into_iter().map(Some).collect();
        let mut buffer = [0; 2 * MESSAGE];
        while open > 0 {
            epoll.wait(|key| {
                let Some(socket) = &mut sockets[key] else { return };
                match socket.read(&mut buffer) {
                    Ok(0) => {
                        sockets[key] = None;
                        open -= 1;
                    }
                    Ok(count) => socket.write_all(&buffer[..count]).expect("there is room for one message"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            });
        }
        stopwatch.elapsed()
    }
}
