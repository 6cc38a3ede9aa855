//! Streams over outgoing connections.

use std::{
    cell::RefCell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use crate::{
    constants::LIMIT,
    error::Result,
    event_loop::{EventLoop, running},
    net::{
        connect::CreateConnection,
        open::OpenStream,
        unix::{CreateUnixConnection, ToUnixAddress},
    },
    streams::{
        core::{Half, StreamCore},
        protocol::StreamSide,
        reader::{StreamReader, check_limit},
        store::StreamKey,
        writer::StreamWriter,
    },
    sys::addr::ToAddress,
};

#[cfg(feature = "tls")]
use crate::net::options::SslContext;

/// Connects to `address`, and gives the two halves of a stream.
///
/// As [`EventLoop::create_connection`], with all its setters, in the running loop. `()` for the address goes with
/// [`sock`](OpenConnection::sock).
///
/// # Cancel safety
///
/// Cancelled or dropped, it leaves no connection and no descriptor behind.
///
/// # Errors
///
/// Those of [`EventLoop::create_connection`]; [`Error::Value`](crate::Error::Value) for a limit of zero;
/// [`Error::Runtime`](crate::Error::Runtime) without a running loop.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let server = asyncio::start_server(
///         async |mut reader, writer| {
///             let line = reader.readline().await?;
///             writer.write(line)?;
///             writer.drain().await
///         },
///         ("127.0.0.1", 0),
///     )
///     .await?;
///     let (mut reader, writer) = asyncio::open_connection(server.sockets()[0].address()).await?;
///     writer.write("hello world!\n")?;
///     assert_eq!(reader.readline().await?, b"hello world!\n");
///     writer.close();
///     writer.wait_closed().await
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.open_connection`.
pub fn open_connection(address: impl ToAddress) -> OpenConnection {
    let inner = running::require().map(|event_loop| CreateConnection::prepare(event_loop, address));
    OpenConnection { inner, limit: LIMIT }
}

/// Connects to a unix socket, and gives the two halves of a stream.
///
/// As [`EventLoop::create_unix_connection`], with all its setters, in the running loop. `()` for the path goes with
/// [`sock`](OpenUnixConnection::sock).
///
/// # Cancel safety
///
/// Cancelled or dropped, it leaves no connection and no descriptor behind.
///
/// # Errors
///
/// Those of [`EventLoop::create_unix_connection`]; [`Error::Value`](crate::Error::Value) for a limit of
/// zero; [`Error::Runtime`](crate::Error::Runtime) without a running loop.
///
/// # Examples
///
/// See [`Stream`](crate::Stream).
///
/// asyncio: `asyncio.open_unix_connection`.
pub fn open_unix_connection(path: impl ToUnixAddress) -> OpenUnixConnection {
    let inner = running::require().map(|event_loop| CreateUnixConnection::prepare(event_loop, path));
    OpenUnixConnection { inner, limit: LIMIT }
}

/// What [`open_connection`] gives: setters, and the work when it is awaited, which gives the halves of a stream.
#[must_use = "nothing is connected until it is awaited"]
#[derive(Debug)]
pub struct OpenConnection {
    inner: Result<CreateConnection<(), (), ()>>,
    limit: usize,
}

/// What [`open_unix_connection`] gives: setters, and the work when it is awaited, which gives the halves of a stream.
#[must_use = "nothing is connected until it is awaited"]
#[derive(Debug)]
pub struct OpenUnixConnection {
    inner: Result<CreateUnixConnection<(), (), ()>>,
    limit: usize,
}

impl OpenConnection {
    /// What a line may have, and half of what is held before reading pauses, in bytes; 65,536 unless said. Zero is
    /// [`Error::Value`](crate::Error::Value).
    ///
    /// asyncio: `limit=`.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// See [`CreateConnection::sock`](crate::CreateConnection::sock).
    ///
    /// asyncio: `sock=`.
    pub fn sock(self, sock: impl Into<OwnedFd>) -> Self {
        self.with(|inner| inner.sock(sock))
    }

    /// See [`CreateConnection::family`](crate::CreateConnection::family).
    ///
    /// asyncio: `family=`.
    pub fn family(self, family: i32) -> Self {
        self.with(|inner| inner.family(family))
    }

    /// See [`CreateConnection::proto`](crate::CreateConnection::proto).
    ///
    /// asyncio: `proto=`.
    pub fn proto(self, proto: i32) -> Self {
        self.with(|inner| inner.proto(proto))
    }

    /// See [`CreateConnection::flags`](crate::CreateConnection::flags).
    ///
    /// asyncio: `flags=`.
    pub fn flags(self, flags: i32) -> Self {
        self.with(|inner| inner.flags(flags))
    }

    /// See [`CreateConnection::local_addr`](crate::CreateConnection::local_addr).
    ///
    /// asyncio: `local_addr=`.
    pub fn local_addr(self, address: impl ToAddress) -> Self {
        self.with(|inner| inner.local_addr(address))
    }

    /// See [`CreateConnection::happy_eyeballs_delay`](crate::CreateConnection::happy_eyeballs_delay).
    ///
    /// asyncio: `happy_eyeballs_delay=`.
    pub fn happy_eyeballs_delay(self, delay: impl Into<Option<Duration>>) -> Self {
        self.with(|inner| inner.happy_eyeballs_delay(delay))
    }

    /// See [`CreateConnection::interleave`](crate::CreateConnection::interleave).
    ///
    /// asyncio: `interleave=`.
    pub fn interleave(self, count: usize) -> Self {
        self.with(|inner| inner.interleave(count))
    }

    /// See [`CreateConnection::all_errors`](crate::CreateConnection::all_errors).
    ///
    /// asyncio: `all_errors=`.
    pub fn all_errors(self, all_errors: bool) -> Self {
        self.with(|inner| inner.all_errors(all_errors))
    }

    /// See [`CreateConnection::ssl`](crate::CreateConnection::ssl).
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(self, context: &SslContext) -> Self {
        self.with(|inner| inner.ssl(context))
    }

    /// See [`CreateConnection::server_hostname`](crate::CreateConnection::server_hostname).
    ///
    /// asyncio: `server_hostname=`.
    pub fn server_hostname(self, name: impl Into<String>) -> Self {
        self.with(|inner| inner.server_hostname(name))
    }

    /// See [`CreateConnection::ssl_handshake_timeout`](crate::CreateConnection::ssl_handshake_timeout).
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_handshake_timeout(timeout))
    }

    /// See [`CreateConnection::ssl_shutdown_timeout`](crate::CreateConnection::ssl_shutdown_timeout).
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_shutdown_timeout(timeout))
    }

    fn with(mut self, set: impl FnOnce(CreateConnection<(), (), ()>) -> CreateConnection<(), (), ()>) -> Self {
        self.inner = self.inner.map(set);
        self
    }
}

impl OpenUnixConnection {
    /// What a line may have, and half of what is held before reading pauses, in bytes; 65,536 unless said. Zero is
    /// [`Error::Value`](crate::Error::Value).
    ///
    /// asyncio: `limit=`.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// See [`CreateUnixConnection::sock`](crate::CreateUnixConnection::sock).
    ///
    /// asyncio: `sock=`.
    pub fn sock(self, sock: impl Into<OwnedFd>) -> Self {
        self.with(|inner| inner.sock(sock))
    }

    /// See [`CreateUnixConnection::ssl`](crate::CreateUnixConnection::ssl).
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(self, context: &SslContext) -> Self {
        self.with(|inner| inner.ssl(context))
    }

    /// See [`CreateUnixConnection::server_hostname`](crate::CreateUnixConnection::server_hostname).
    ///
    /// asyncio: `server_hostname=`.
    pub fn server_hostname(self, name: impl Into<String>) -> Self {
        self.with(|inner| inner.server_hostname(name))
    }

    /// See [`CreateUnixConnection::ssl_handshake_timeout`](crate::CreateUnixConnection::ssl_handshake_timeout).
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_handshake_timeout(timeout))
    }

    /// See [`CreateUnixConnection::ssl_shutdown_timeout`](crate::CreateUnixConnection::ssl_shutdown_timeout).
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_shutdown_timeout(timeout))
    }

    fn with(mut self, set: impl FnOnce(CreateUnixConnection<(), (), ()>) -> CreateUnixConnection<(), (), ()>) -> Self {
        self.inner = self.inner.map(set);
        self
    }
}

impl IntoFuture for OpenConnection {
    type Output = Result<(StreamReader, StreamWriter)>;
    type IntoFuture = Opening;

    fn into_future(self) -> Opening {
        let opening = begin(self.inner, self.limit).map(|(inner, side)| inner.with_factory(side).into_future());
        Opening::new(opening)
    }
}

impl IntoFuture for OpenUnixConnection {
    type Output = Result<(StreamReader, StreamWriter)>;
    type IntoFuture = Opening;

    fn into_future(self) -> Opening {
        let opening = begin(self.inner, self.limit).map(|(inner, side)| inner.with_factory(side).into_future());
        Opening::new(opening)
    }
}

/// Makes a stream when there is a connection.
type MakeSide = Box<dyn FnOnce() -> StreamSide>;

/// Checks what needs no connection.
fn begin<B>(inner: Result<B>, limit: usize) -> Result<(B, MakeSide)> {
    let inner = inner?;
    check_limit(limit)?;
    let side = move || {
        let event_loop = running::current().expect("a connection is made in a running loop");
        StreamSide(StreamCore::new(&event_loop, limit))
    };
    Ok((inner, Box::new(side)))
}

/// The work of [`open_connection`] and [`open_unix_connection`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Opening(Pin<Box<dyn StdFuture<Output = Result<(StreamReader, StreamWriter)>>>>);

impl Opening {
    fn new(opening: Result<OpenStream<MakeSide, StreamSide>>) -> Self {
        Opening(Box::pin(async move {
            let (_, side) = opening?.await?;
            Ok(split(&running::require()?, &side))
        }))
    }
}

impl StdFuture for Opening {
    type Output = Result<(StreamReader, StreamWriter)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

/// Gives the halves of a connected stream.
fn split(event_loop: &EventLoop, side: &Rc<RefCell<StreamSide>>) -> (StreamReader, StreamWriter) {
    let core = side.borrow().0.clone();
    halves(event_loop, &core)
}

pub(super) fn halves(event_loop: &EventLoop, core: &Rc<StreamCore>) -> (StreamReader, StreamWriter) {
    let key = StreamKey::share(event_loop, core, &[Half::Reader, Half::Writer]);
    (StreamReader::of(key.clone()), StreamWriter::of(key))
}
