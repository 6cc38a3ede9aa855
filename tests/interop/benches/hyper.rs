//! A server of hyper's on asyncio and on tokio: `cargo bench -p asyncio-interop [-- <filter>]`.
//!
//! Both serve from a thread each, in one process; one client of plain sockets asks them in turn. CPU time of the serving
//! thread in µs a request, the best of several runs that take turns. tokio runs as `current_thread`, with `tokio::spawn`.

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use asyncio::{Error, Stream, hyper_rt};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 25;
const LARGE: usize = 100 << 10;

struct Work {
    name: &'static str,
    path: &'static str,
    /// The length of what is sent along.
    upload: usize,
    /// The length of what comes back.
    download: usize,
    header_timeout: bool,
    connections: &'static [usize],
    /// How many requests a measurement makes.
    count: usize,
}

#[rustfmt::skip] // a table
const WORK: &[Work] = &[
    Work { name: "hello world", path: "/", upload: 0, download: 13, header_timeout: false, connections: &[1, 10, 100], count: 6_000 },
    Work { name: "hello world, header timeout", path: "/", upload: 0, download: 13, header_timeout: true, connections: &[1, 10, 100], count: 6_000 },
    Work { name: "100 KiB down", path: "/large", upload: 0, download: LARGE, header_timeout: false, connections: &[1, 10], count: 1_000 },
    Work { name: "100 KiB up", path: "/", upload: LARGE, download: 13, header_timeout: false, connections: &[1, 10], count: 1_000 },
];

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static ANSWER: [u8; LARGE] = [b'x'; LARGE];
    let large = request.uri().path() == "/large";
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        drop(frame.expect("the client sends it whole"));
    }
    let body = if large { &ANSWER[..] } else { b"Hello, World!" };
    Ok(Response::new(Full::new(Bytes::from_static(body))))
}

fn asyncio_server(header_timeout: bool, started: mpsc::Sender<SocketAddr>) {
    let handler = async move |reader, writer| {
        let mut http = http1::Builder::new();
        if header_timeout {
            http.timer(hyper_rt::Timer);
        } else {
            http.header_read_timeout(None);
        }
        let connection = http.serve_connection(Stream::join(reader, writer)?, service_fn(answer));
        connection.await.map_err(Error::other)
    };
    let served = asyncio::run(async {
        let server = asyncio::start_server(handler, ("127.0.0.1", 0)).await?;
        started.send(server.sockets()[0].address().as_inet().expect("it is IPv4")).expect("it is awaited");
        server.serve_forever().await
    });
    served.expect("it serves to the end of the process");
}

fn tokio_server(header_timeout: bool, started: mpsc::Sender<SocketAddr>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it is a socket");
        started.send(listener.local_addr().expect("it is bound")).expect("it is awaited");
        let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("it is TCP");
            tokio::spawn(async move {
                let mut http = http1::Builder::new();
                if header_timeout {
                    http.timer(TokioTimer::new());
                } else {
                    http.header_read_timeout(None);
                }
                let connection = http.serve_connection(TokioIo::new(stream), service_fn(answer));
                connection.await.expect("the client ends it well");
            });
        }
    });
}

fn start(server: fn(bool, mpsc::Sender<SocketAddr>), header_timeout: bool) -> SocketAddr {
    let (started, address) = mpsc::channel();
    thread::spawn(move || server(header_timeout, started));
    address.recv().expect("it starts")
}

fn read_clock(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("clocks do not run before their beginning")
}

/// CPU time of the process without this thread, which is the client.
fn time_of_the_others() -> Duration {
    read_clock(ClockId::ProcessCPUTime) - read_clock(ClockId::ThreadCPUTime)
}

/// CPU time that `count` requests over so many connections cost the server.
fn ask(server: SocketAddr, work: &Work, connections: usize, count: usize) -> Duration {
    let head = if work.upload == 0 {
        format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", work.path)
    } else {
        format!("POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", work.path, work.upload)
    };
    let request = [head.into_bytes(), vec![b'x'; work.upload]].concat();
    let mut buffer = vec![0; 256 << 10];
    let mut sockets: Vec<_> = (0..connections)
        .map(|_| {
            let socket = TcpStream::connect(server).expect("loopback");
            socket.set_nodelay(true).expect("it is TCP");
            socket
        })
        .collect();
    let mut round = |sockets: &mut [TcpStream]| {
        for socket in &mut *sockets {
            socket.write_all(&request).expect("the server takes it");
        }
        for socket in sockets {
            read_response(socket, &mut buffer, work.download);
        }
    };
    for _ in 0..3 {
        round(&mut sockets);
    }
    let before = time_of_the_others();
    for _ in 0..count / connections {
        round(&mut sockets);
    }
    time_of_the_others() - before
}

fn read_response(socket: &mut TcpStream, buffer: &mut [u8], length: usize) {
    let (mut got, mut expected) = (0, usize::MAX);
    while got < expected {
        let count = socket.read(&mut buffer[got..]).expect("the server answers");
        assert_ne!(count, 0, "the server closed the connection");
        got += count;
        if expected == usize::MAX {
            let end = buffer[..got].windows(4).position(|four| four == b"\r\n\r\n");
            expected = end.map_or(usize::MAX, |end| end + 4 + length);
        }
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n") && got == expected);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let rounds = if test { 1 } else { ROUNDS };
    println!("| work | connections | asyncio, µs | tokio, µs | of tokio |\n|---|--:|--:|--:|--:|");
    for work in WORK.iter().filter(|work| filter.is_none_or(|filter| work.name.contains(filter.as_str()))) {
        let servers = [start(asyncio_server, work.header_timeout), start(tokio_server, work.header_timeout)];
        for connections in work.connections {
            let count = if test { *connections } else { work.count };
            let mut best = [f64::INFINITY; 2];
            for _ in 0..rounds {
                for (server, best) in servers.iter().zip(&mut best) {
                    let time = ask(*server, work, *connections, count).as_secs_f64() * 1e6 / count as f64;
                    *best = best.min(time);
                }
            }
            let [ours, tokios] = best;
            println!("| {} | {connections} | {ours:.2} | {tokios:.2} | {:.2} |", work.name, ours / tokios);
        }
    }
}
