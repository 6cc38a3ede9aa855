//! Servers whose connections are streams.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    os::fd::OwnedFd,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, ready},
    time::Duration,
};

use futures::FutureExt;
use pin_project_lite::pin_project;

use crate::{
    constants::LIMIT,
    error::{Error, Result},
    event_loop::{EventLoop, exceptions::ExceptionContext, running},
    net::{
        listen::CreateServer,
        server::Server,
        unix::{CreateUnixServer, ToUnixAddress},
    },
    streams::{
        core::StreamCore,
        open::halves,
        protocol::StreamSide,
        reader::{StreamReader, check_limit},
        writer::StreamWriter,
    },
    sys::addr::ToAddress,
};

#[cfg(feature = "tls")]
use crate::net::options::SslContext;

/// Serves `address`: each connection gets a task of its own, which runs `client_connected` with the halves of its stream.
///
/// As [`EventLoop::create_server`], with all its setters, in the running loop. A task that fails or panics is reported to
/// the exception handler, and its connection closed; one that is cancelled has its connection closed without a report. One
/// that returns closes it by dropping its writer; a writer that was passed on keeps it open. Where a client breaks off,
/// reads and `drain` are `Error::Io`: a coroutine that does not want that reported catches it.
///
/// # Cancel safety
///
/// Cancelled or dropped, it leaves no listening socket behind.
///
/// # Errors
///
/// Those of [`EventLoop::create_server`]; [`Error::Value`] for a limit of zero; [`Error::Runtime`] without a running loop.
///
/// # Examples
///
/// See [`StreamReader`], and `examples/echo_server_streams.rs`.
///
/// asyncio: `asyncio.start_server`. Differs: the callback is a coroutine function always; one that only starts a task
/// does that and returns.
pub fn start_server<C>(client_connected: C, address: impl ToAddress) -> StartServer<C>
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    let inner = running::require().map(|event_loop| CreateServer::prepare(event_loop, address));
    StartServer { inner, client_connected, limit: LIMIT }
}

/// As [`start_server`], on a unix socket; with the setters of [`EventLoop::create_unix_server`].
///
/// # Cancel safety
///
/// Cancelled or dropped, it leaves no listening socket behind.
///
/// # Errors
///
/// Those of [`EventLoop::create_unix_server`]; [`Error::Value`] for a limit of zero; [`Error::Runtime`] without a running
/// loop.
///
/// # Examples
///
/// ```
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("socket");
/// asyncio::run(async {
///     let server = asyncio::start_unix_server(
///         async |mut reader, writer| {
///             writer.write(reader.readline().await?)?;
///             writer.drain().await
///         },
///         &path,
///     )
///     .await?;
///     let (mut reader, writer) = asyncio::open_unix_connection(&path).await?;
///     writer.write(b"hello\n")?;
///     assert_eq!(reader.readline().await?, b"hello\n");
///     server.close();
///     Ok(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// asyncio: `asyncio.start_unix_server`.
pub fn start_unix_server<C>(client_connected: C, path: impl ToUnixAddress) -> StartUnixServer<C>
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    let inner = running::require().map(|event_loop| CreateUnixServer::prepare(event_loop, path));
    StartUnixServer { inner, client_connected, limit: LIMIT }
}

/// What [`start_server`] gives: setters, and the work when it is awaited, which gives the [`Server`].
#[must_use = "nothing listens until it is awaited"]
pub struct StartServer<C> {
    inner: Result<CreateServer<(), (), ()>>,
    client_connected: C,
    limit: usize,
}

/// What [`start_unix_server`] gives: setters, and the work when it is awaited, which gives the [`Server`].
#[must_use = "nothing listens until it is awaited"]
pub struct StartUnixServer<C> {
    inner: Result<CreateUnixServer<(), (), ()>>,
    client_connected: C,
    limit: usize,
}

impl<C> StartServer<C> {
    /// What a line may have, and half of what is held before reading pauses, in bytes; 65,536 unless said. Zero is
    /// [`Error::Value`](crate::Error::Value).
    ///
    /// asyncio: `limit=`.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// See [`CreateServer::sock`](crate::CreateServer::sock).
    ///
    /// asyncio: `sock=`.
    pub fn sock(self, sock: impl Into<OwnedFd>) -> Self {
        self.with(|inner| inner.sock(sock))
    }

    /// See [`CreateServer::family`](crate::CreateServer::family).
    ///
    /// asyncio: `family=`.
    pub fn family(self, family: i32) -> Self {
        self.with(|inner| inner.family(family))
    }

    /// See [`CreateServer::flags`](crate::CreateServer::flags).
    ///
    /// asyncio: `flags=`.
    pub fn flags(self, flags: i32) -> Self {
        self.with(|inner| inner.flags(flags))
    }

    /// See [`CreateServer::backlog`](crate::CreateServer::backlog).
    ///
    /// asyncio: `backlog=`.
    pub fn backlog(self, backlog: u32) -> Self {
        self.with(|inner| inner.backlog(backlog))
    }

    /// See [`CreateServer::reuse_address`](crate::CreateServer::reuse_address).
    ///
    /// asyncio: `reuse_address=`.
    pub fn reuse_address(self, reuse: bool) -> Self {
        self.with(|inner| inner.reuse_address(reuse))
    }

    /// See [`CreateServer::reuse_port`](crate::CreateServer::reuse_port).
    ///
    /// asyncio: `reuse_port=`.
    pub fn reuse_port(self, reuse: bool) -> Self {
        self.with(|inner| inner.reuse_port(reuse))
    }

    /// See [`CreateServer::keep_alive`](crate::CreateServer::keep_alive).
    ///
    /// asyncio: `keep_alive=`.
    pub fn keep_alive(self, keep_alive: bool) -> Self {
        self.with(|inner| inner.keep_alive(keep_alive))
    }

    /// See [`CreateServer::start_serving`](crate::CreateServer::start_serving).
    ///
    /// asyncio: `start_serving=`.
    pub fn start_serving(self, start: bool) -> Self {
        self.with(|inner| inner.start_serving(start))
    }

    /// See [`CreateServer::max_connections`](crate::CreateServer::max_connections).
    ///
    /// asyncio: has none.
    pub fn max_connections(self, most: impl Into<Option<usize>>) -> Self {
        self.with(|inner| inner.max_connections(most))
    }

    /// See [`CreateServer::ssl`](crate::CreateServer::ssl).
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(self, context: &SslContext) -> Self {
        self.with(|inner| inner.ssl(context))
    }

    /// See [`CreateServer::ssl_handshake_timeout`](crate::CreateServer::ssl_handshake_timeout).
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_handshake_timeout(timeout))
    }

    /// See [`CreateServer::ssl_shutdown_timeout`](crate::CreateServer::ssl_shutdown_timeout).
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_shutdown_timeout(timeout))
    }

    fn with(mut self, set: impl FnOnce(CreateServer<(), (), ()>) -> CreateServer<(), (), ()>) -> Self {
        self.inner = self.inner.map(set);
        self
    }
}

impl<C> StartUnixServer<C> {
    /// What a line may have, and half of what is held before reading pauses, in bytes; 65,536 unless said. Zero is
    /// [`Error::Value`](crate::Error::Value).
    ///
    /// asyncio: `limit=`.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// See [`CreateUnixServer::sock`](crate::CreateUnixServer::sock).
    ///
    /// asyncio: `sock=`.
    pub fn sock(self, sock: impl Into<OwnedFd>) -> Self {
        self.with(|inner| inner.sock(sock))
    }

    /// See [`CreateUnixServer::backlog`](crate::CreateUnixServer::backlog).
    ///
    /// asyncio: `backlog=`.
    pub fn backlog(self, backlog: u32) -> Self {
        self.with(|inner| inner.backlog(backlog))
    }

    /// See [`CreateUnixServer::start_serving`](crate::CreateUnixServer::start_serving).
    ///
    /// asyncio: `start_serving=`.
    pub fn start_serving(self, start: bool) -> Self {
        self.with(|inner| inner.start_serving(start))
    }

    /// See [`CreateUnixServer::max_connections`](crate::CreateUnixServer::max_connections).
    ///
    /// asyncio: has none.
    pub fn max_connections(self, most: impl Into<Option<usize>>) -> Self {
        self.with(|inner| inner.max_connections(most))
    }

    /// See [`CreateUnixServer::cleanup_socket`](crate::CreateUnixServer::cleanup_socket).
    ///
    /// asyncio: `cleanup_socket=`.
    pub fn cleanup_socket(self, cleanup: bool) -> Self {
        self.with(|inner| inner.cleanup_socket(cleanup))
    }

    /// See [`CreateUnixServer::ssl`](crate::CreateUnixServer::ssl).
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(self, context: &SslContext) -> Self {
        self.with(|inner| inner.ssl(context))
    }

    /// See [`CreateUnixServer::ssl_handshake_timeout`](crate::CreateUnixServer::ssl_handshake_timeout).
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_handshake_timeout(timeout))
    }

    /// See [`CreateUnixServer::ssl_shutdown_timeout`](crate::CreateUnixServer::ssl_shutdown_timeout).
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.ssl_shutdown_timeout(timeout))
    }

    fn with(mut self, set: impl FnOnce(CreateUnixServer<(), (), ()>) -> CreateUnixServer<(), (), ()>) -> Self {
        self.inner = self.inner.map(set);
        self
    }
}

impl<C> fmt::Debug for StartServer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StartServer { inner, limit, .. } = self;
        f.debug_struct("StartServer").field("server", inner).field("limit", limit).finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for StartUnixServer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StartUnixServer { inner, limit, .. } = self;
        f.debug_struct("StartUnixServer").field("server", inner).field("limit", limit).finish_non_exhaustive()
    }
}

impl<C> IntoFuture for StartServer<C>
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    type Output = Result<Server>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Server>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let StartServer { inner, client_connected, limit } = self;
        let starting =
            begin(inner, client_connected, limit).map(|(inner, make)| inner.with_factory(make).into_future());
        Box::pin(async move { starting?.await })
    }
}

impl<C> IntoFuture for StartUnixServer<C>
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    type Output = Result<Server>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Server>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let StartUnixServer { inner, client_connected, limit } = self;
        let starting =
            begin(inner, client_connected, limit).map(|(inner, make)| inner.with_factory(make).into_future());
        Box::pin(async move { starting?.await })
    }
}

/// Makes a stream for each connection.
type MakeSide = Box<dyn FnMut() -> StreamSide>;

/// Checks what needs no socket.
fn begin<B, C>(inner: Result<B>, client_connected: C, limit: usize) -> Result<(B, MakeSide)>
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    let inner = inner?;
    check_limit(limit)?;
    let client_connected = Rc::new(client_connected);
    let make = move || {
        let event_loop = running::current().expect("connections come to a running loop");
        let core = StreamCore::new(&event_loop, limit);
        let client_connected = client_connected.clone();
        core.on_connected(Box::new(move |event_loop, core| serve(event_loop, &core, client_connected)));
        StreamSide(core)
    };
    Ok((inner, Box::new(make)))
}

/// Starts the task of a connection.
fn serve<C>(event_loop: &EventLoop, core: &Rc<StreamCore>, client_connected: Rc<C>)
where
    C: AsyncFn(StreamReader, StreamWriter) -> Result<()> + 'static,
{
    let (reader, writer) = halves(event_loop, core);
    let body = AssertUnwindSafe(async move { client_connected(reader, writer).await }).catch_unwind();
    let task = event_loop.create_task(Serving { body, unfinished: Unfinished(Some(core.clone())) });
    // It runs on by itself.
    drop(task);
}

pin_project! {
    /// The task of a connection. Not a coroutine: that would have room for its parts twice.
    struct Serving<F> {
        #[pin]
        body: F,
        unfinished: Unfinished,
    }
}

impl<F: StdFuture<Output = std::thread::Result<Result<()>>>> StdFuture for Serving<F> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.project();
        let outcome = ready!(this.body.poll(cx)).unwrap_or_else(|payload| Err(Error::from_panic(payload)));
        let unfinished = this.unfinished.0.take();
        match outcome {
            Ok(()) => drop(unfinished),
            Err(error) if error.is_cancelled() => {
                this.unfinished.0 = unfinished;
                return Poll::Ready(Err(error));
            }
            Err(error) => {
                let mut context = ExceptionContext::new("Unhandled exception in client_connected_cb").exception(error);
                if let Some(transport) = unfinished.as_ref().and_then(|core| core.transport()) {
                    context = context.extra("transport", format!("{transport:?}"));
                }
                this.unfinished.0 = unfinished;
                running::require()?.call_exception_handler(&context);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection whose task has not returned. Where it fails or is given up, the connection is closed, even if its writer
/// was passed on.
struct Unfinished(Option<Rc<StreamCore>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(transport) = self.0.take().and_then(|core| core.transport()) {
            transport.close();
        }
    }
}
