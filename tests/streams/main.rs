//! What these tests show: streams, as coroutines read and write them.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod cancelling;
mod connections;
mod faces;
mod feeding;
mod limits;
mod pipes;
mod reading;
mod separators;
mod servers;
mod threads;
mod unix;
mod writing;

use std::{
    fs::File,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use asyncio::{Result, Server, StreamFeeder, StreamReader, StreamWriter};
use support::{
    loops::TestLoop,
    transports::{Pair, PairKind, Peer},
};

/// The default limit of streams, in bytes.
const LIMIT: usize = 1 << 16;

/// Much more than the system takes.
const LARGE: usize = 8_000_000;

/// A reader that is fed by hand, of the running loop.
fn fed(limit: usize) -> (StreamFeeder, StreamReader) {
    StreamReader::new(limit).unwrap()
}

/// What is left in a reader that is fed by hand.
async fn rest(feeder: &StreamFeeder, mut reader: StreamReader) -> Vec<u8> {
    feeder.feed_eof().unwrap();
    reader.read(None).await.unwrap()
}

/// A stream over a pair of sockets, and who is at the other side.
struct Ends {
    reader: StreamReader,
    writer: StreamWriter,
    peer: Peer,
}

impl Ends {
    fn open(event_loop: &TestLoop, pair: Pair) -> Ends {
        Ends::with_limit(event_loop, pair, LIMIT)
    }

    fn tcp(event_loop: &TestLoop) -> Ends {
        Ends::open(event_loop, PairKind::Tcp.pair())
    }

    fn with_limit(event_loop: &TestLoop, pair: Pair, limit: usize) -> Ends {
        let Pair { ours, peer } = pair;
        let (reader, writer) = event_loop.run(async { asyncio::open_connection(()).sock(ours).limit(limit).await });
        Ends { reader, writer, peer }
    }
}

/// Two streams that are connected with each other.
fn joined(event_loop: &TestLoop, kind: PairKind) -> [(StreamReader, StreamWriter); 2] {
    let Pair { ours, peer } = kind.pair();
    event_loop.run(async {
        let ours = asyncio::open_connection(()).sock(ours).await?;
        Ok([ours, asyncio::open_connection(()).sock(peer.0).await?])
    })
}

/// The two ends of a pipe, to read and to write.
fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// A server of streams.
fn serve(
    event_loop: &TestLoop,
    client_connected: impl AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
) -> Server {
    event_loop.run(async { asyncio::start_server(client_connected, ("127.0.0.1", 0)).await })
}

/// A client of a server.
async fn client(server: &Server) -> (StreamReader, StreamWriter) {
    asyncio::open_connection(server.sockets()[0].address()).await.unwrap()
}

/// A client of a server that is not a stream.
fn plain_client(server: &Server) -> Peer {
    let address = server.sockets()[0].address().as_inet().unwrap();
    Peer::new(std::net::TcpStream::connect(address).unwrap())
}

/// Lets the other tasks and callbacks run once.
async fn turn() {
    asyncio::sleep(Duration::ZERO).await.unwrap();
}

/// Lets them run some times.
async fn turns(count: usize) {
    for _ in 0..count {
        turn().await;
    }
}

/// Lets others run until it is so.
async fn turns_until(mut done: impl FnMut() -> bool) {
    while !done() {
        asyncio::sleep(Duration::from_millis(1)).await.unwrap();
    }
}

/// Polls a future so many times at most, and drops it then: `None` if it had not ended.
async fn polls<F: Future>(future: F, most: usize) -> Option<F::Output> {
    Polls { future: Box::pin(future), left: most }.await
}

struct Polls<F> {
    future: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.left <= 1 => Poll::Ready(None),
            Poll::Pending => {
                self.left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Numbers by chance, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
