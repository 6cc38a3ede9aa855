//! Files over sockets and transports: by the system where it can, else read and written.

pub(crate) mod sink;
pub(crate) mod source;

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    os::fd::AsFd,
    pin::Pin,
    time::Duration,
};

use crate::{
    combine::sleep::sleep,
    constants::SENDFILE_PER_TURN,
    error::{Error, Result},
    event_loop::EventLoop,
    net::{
        sendfile::{
            sink::{Sink, SocketSink, TransportSink},
            source::{AnySource, Progress, SendfileSource},
        },
        sock::{check_nonblocking, local},
    },
    sys::{sendfile, socket},
    transport::{SendfileMode, Transport},
};

impl EventLoop {
    /// Sends a file over a connected stream socket and gives how many bytes were sent.
    ///
    /// `file` is a `&`[`File`](std::fs::File), which the system sends by itself where it can, or a
    /// [`Reader`](crate::Reader). It is sent from [`offset`](SockSendfile::offset) on, wherever its position is, to its
    /// end, or [`count`](SockSendfile::count) bytes of it. Where the system cannot do it, the file is read (in the
    /// default executor) and what was read is sent, unless [`fallback`](SockSendfile::fallback) is off.
    ///
    /// Afterwards the file's position is behind the last byte that was sent, also if this fails or is cancelled; it is
    /// where it was if nothing was sent. While this runs the position of a `File` does not change.
    ///
    /// # Cancel safety
    ///
    /// The position tells how much was sent; the socket has no watcher any more.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a socket in blocking mode ("non-blocking"), for one that is no stream, and for a count of
    /// zero; [`Error::SendfileNotAvailable`] where the system cannot do it and `fallback` is off, with nothing sent;
    /// [`Error::Io`] of the system or the reader; [`Error::Runtime`] as for [`sock_recv`](Self::sock_recv), for writing.
    ///
    /// # Panics
    ///
    /// A panic of the reader comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{fs::File, io::Read, os::unix::net::UnixStream};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (ours, mut theirs) = UnixStream::pair()?;
    ///     ours.set_nonblocking(true)?;
    ///     let file = File::open("Cargo.toml")?;
    ///     assert_eq!(event_loop.sock_sendfile(&ours, &file).offset(1).count(8).await?, 8);
    ///     let mut received = [0; 8];
    ///     theirs.read_exact(&mut received)?;
    ///     assert_eq!(&received, b"package]");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sock_sendfile`. Differs: without the system's help, too, the offset decides and not the position;
    /// a broken connection is its own error, not `SendfileNotAvailable`.
    pub fn sock_sendfile<'f, S: AsFd>(&self, socket: &'f S, file: impl SendfileSource<'f>) -> SockSendfile<'f, S> {
        SockSendfile { loop_id: self.inner.shared.id, socket, request: Request::new(file.into_source()) }
    }

    /// Sends a file over a transport and gives how many bytes were sent.
    ///
    /// What was written before goes first. Meanwhile nobody else can write (a mistake, see
    /// [`Transport::write`]), and nothing is received: that goes on afterwards. The file, its position and the
    /// setters are those of [`sock_sendfile`](Self::sock_sendfile). When it returns, the system has all of the file; it
    /// ends with an error when the transport is closed or lost meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The position tells how much was sent or will be by the transport, which can be used again at once.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "closing" for a transport that is closing, "not supported" for a pipe, during another
    /// `sendfile`, after `write_eof`, and if `fallback` is off where a transport has nothing else;
    /// [`Error::Value`] for a count of zero; [`Error::SendfileNotAvailable`] where the system cannot do it and
    /// `fallback` is off, with nothing sent; [`Error::Io`] when the connection is closed or lost meanwhile, and of the
    /// reader.
    ///
    /// # Panics
    ///
    /// A panic of the reader comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{fs::File, io::Read, os::unix::net::UnixStream};
    ///
    /// struct Ignore;
    ///
    /// impl asyncio::Protocol for Ignore {
    ///     fn data_received(&mut self, _data: &[u8]) {}
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (ours, mut theirs) = UnixStream::pair()?;
    ///     let (transport, _) = event_loop.create_connection(|| Ignore, ()).sock(ours).await?;
    ///     let file = File::open("Cargo.toml")?;
    ///     transport.write(b"the file: ");
    ///     event_loop.sendfile(&transport, &file).count(9).await?;
    ///     transport.write(b" and so on");
    ///     let mut received = [0; 29];
    ///     theirs.read_exact(&mut received)?;
    ///     assert_eq!(&received, b"the file: [package] and so on");
    ///     transport.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sendfile`. Differs: without the system's help, too, the offset decides and not the position, and
    /// all was written when it returns; closing the transport ends it.
    pub fn sendfile<'f>(&self, transport: &Transport, file: impl SendfileSource<'f>) -> Sendfile<'f> {
        let (loop_id, transport) = (self.inner.shared.id, transport.clone());
        Sendfile { loop_id, transport, request: Request::new(file.into_source()) }
    }
}

/// What [`EventLoop::sock_sendfile`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is sent until it is awaited"]
pub struct SockSendfile<'f, S> {
    loop_id: u64,
    socket: &'f S,
    request: Request<'f>,
}

/// What [`EventLoop::sendfile`] gives: setters, and the work when it is awaited.
///
/// Only byte streams have it:
///
/// ```compile_fail
/// fn send(event_loop: &asyncio::EventLoop, endpoint: &asyncio::DatagramTransport, file: &std::fs::File) {
///     let _ = event_loop.sendfile(endpoint, file);
/// }
/// ```
#[must_use = "nothing is sent until it is awaited"]
pub struct Sendfile<'f> {
    loop_id: u64,
    transport: Transport,
    request: Request<'f>,
}

/// What both have in common.
struct Request<'f> {
    source: AnySource<'f>,
    offset: u64,
    count: Option<u64>,
    fallback: bool,
}

impl<S> SockSendfile<'_, S> {
    /// Where in the file to begin, in bytes: at 0, unless said otherwise. Behind the end there is nothing to send.
    ///
    /// asyncio: `offset=`.
    pub fn offset(mut self, offset: u64) -> Self {
        self.request.offset = offset;
        self
    }

    /// How many bytes to send at most, not zero; `None`, the default, is to the end of the file.
    ///
    /// asyncio: `count=`.
    pub fn count(mut self, count: impl Into<Option<u64>>) -> Self {
        self.request.count = count.into();
        self
    }

    /// Whether the file may be read and sent where the system cannot send it by itself; on, unless said otherwise.
    ///
    /// asyncio: `fallback=`.
    pub fn fallback(mut self, fallback: bool) -> Self {
        self.request.fallback = fallback;
        self
    }
}

impl Sendfile<'_> {
    /// See [`SockSendfile::offset`].
    ///
    /// asyncio: `offset=`.
    pub fn offset(mut self, offset: u64) -> Self {
        self.request.offset = offset;
        self
    }

    /// See [`SockSendfile::count`].
    ///
    /// asyncio: `count=`.
    pub fn count(mut self, count: impl Into<Option<u64>>) -> Self {
        self.request.count = count.into();
        self
    }

    /// See [`SockSendfile::fallback`].
    ///
    /// asyncio: `fallback=`.
    pub fn fallback(mut self, fallback: bool) -> Self {
        self.request.fallback = fallback;
        self
    }
}

impl<'f, S: AsFd> IntoFuture for SockSendfile<'f, S> {
    type Output = Result<u64>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<u64>> + 'f>>;

    fn into_future(self) -> Self::IntoFuture {
        let SockSendfile { loop_id, socket, request } = self;
        Box::pin(async move {
            local(loop_id)?;
            check_nonblocking(socket.as_fd())?;
            if !socket::is_stream(socket.as_fd())? {
                return Err(Error::Value("only SOCK_STREAM type sockets are supported".into()));
            }
            request.check_count()?;
            request.send(&SocketSink { loop_id, socket }).await
        })
    }
}

impl<'f> IntoFuture for Sendfile<'f> {
    type Output = Result<u64>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<u64>> + 'f>>;

    fn into_future(self) -> Self::IntoFuture {
        let Sendfile { loop_id, transport, request } = self;
        Box::pin(async move {
            local(loop_id)?;
            if transport.is_closing() {
                return Err(Error::Runtime("Transport is closing".into()));
            }
            let impossible = match transport.0.sendfile_mode() {
                SendfileMode::Unsupported => Some("sendfile is"),
                SendfileMode::Fallback if !request.fallback => Some("fallback is disabled and native sendfile is"),
                SendfileMode::Fallback | SendfileMode::TryNative => None,
            };
            if let Some(what) = impossible {
                return Err(Error::Runtime(format!("{what} not supported for transport {transport:?}").into()));
            }
            request.check_count()?;
            let sink = TransportSink::begin(loop_id, transport)?;
            request.send(&sink).await
        })
    }
}

impl<'f> Request<'f> {
    fn new(source: AnySource<'f>) -> Self {
        Request { source, offset: 0, count: None, fallback: true }
    }

    fn check_count(&self) -> Result<()> {
        match self.count {
            Some(0) => Err(Error::Value("count must be a positive integer (got 0)".into())),
            _ => Ok(()),
        }
    }

    async fn send(self, sink: &impl Sink) -> Result<u64> {
        let Request { source, offset, count, fallback } = self;
        let mut progress = Progress::new(source, offset, count);
        let outcome = send_all(sink, &mut progress, fallback).await;
        let settled = progress.settle();
        outcome?;
        settled?;
        Ok(progress.sent())
    }
}

async fn send_all(sink: &impl Sink, progress: &mut Progress<'_>, fallback: bool) -> Result<()> {
    if sink.is_native() {
        if send_by_system(sink, progress).await? {
            return Ok(());
        }
        if !fallback {
            return Err(Error::SendfileNotAvailable("the system cannot send this file by itself".into()));
        }
    }
    send_by_reading(sink, progress).await
}

/// False if the system cannot do it; nothing was sent then.
async fn send_by_system(sink: &impl Sink, progress: &mut Progress<'_>) -> Result<bool> {
    let Some(file) = progress.file() else { return Ok(false) };
    let mut in_a_row = 0;
    while !progress.is_complete() {
        if in_a_row == SENDFILE_PER_TURN {
            in_a_row = 0;
            sleep(Duration::ZERO).await?;
        }
        let size = progress.size(SENDFILE_PER_TURN - in_a_row);
        match sink.send_file(file, progress.offset(), size).await {
            Ok(0) => break,
            Ok(count) => {
                progress.advance(count);
                in_a_row += count;
            }
            Err(error) => {
                let unavailable = error.raw_os_error().is_some_and(sendfile::is_unavailable);
                return if unavailable && progress.sent() == 0 { Ok(false) } else { Err(error) };
            }
        }
    }
    Ok(true)
}

async fn send_by_reading(sink: &impl Sink, progress: &mut Progress<'_>) -> Result<()> {
    progress.begin_reading()?;
    let mut buffer = Vec::new();
    while !progress.is_complete() {
        let size = progress.size(sink.chunk());
        buffer = progress.read(sink.loop_id(), buffer, size).await?;
        if buffer.is_empty() {
            break;
        }
        let mut left = &buffer[..];
        while !left.is_empty() {
            let count = sink.write(left).await?;
            progress.advance(count);
            left = &left[count..];
        }
    }
    sink.flush().await
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { source, offset, count, fallback } = self;
        write!(f, "{source:?}, offset={offset}, count={count:?}, fallback={fallback}")
    }
}

impl<S> fmt::Debug for SockSendfile<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SockSendfile").field(&self.request).finish()
    }
}

impl fmt::Debug for Sendfile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sendfile").field(&self.transport).field(&self.request).finish()
    }
}
