//! Where a file goes to.

use std::{
    fs::File,
    future::Future as StdFuture,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context as Cx, Poll, ready},
};

use crate::{
    constants::{HIGH_WATER, SENDFILE_FALLBACK_READBUFFER_SIZE},
    error::{Error, Result},
    event_loop::{scope::Leaf, watchers::Direction},
    net::sock::{Mode, local},
    sys::{sendfile, socket},
    transport::{SendfileMode, Transport},
};

pub(crate) trait Sink {
    fn loop_id(&self) -> u64;
    /// Whether the system may be able to send to it by itself.
    fn is_native(&self) -> bool;
    /// How many bytes are read at once for [`write`](Self::write).
    fn chunk(&self) -> usize;
    /// Lets the system send up to `size` bytes of a file, at least one; zero is its end.
    async fn send_file(&self, file: &File, offset: u64, size: usize) -> Result<usize>;
    /// Sends the first bytes of `data`, at least one.
    async fn write(&self, data: &[u8]) -> Result<usize>;
    /// Waits until the system has all that was written.
    async fn flush(&self) -> Result<()>;
}

/// A socket of the caller's.
pub(crate) struct SocketSink<'f, S> {
    pub(crate) loop_id: u64,
    pub(crate) socket: &'f S,
}

impl<S: AsFd> Sink for SocketSink<'_, S> {
    fn loop_id(&self) -> u64 {
        self.loop_id
    }

    fn is_native(&self) -> bool {
        true
    }

    fn chunk(&self) -> usize {
        SENDFILE_FALLBACK_READBUFFER_SIZE
    }

    async fn send_file(&self, file: &File, offset: u64, size: usize) -> Result<usize> {
        let send = |fd: BorrowedFd<'_>| sendfile::send(fd, file, offset, size);
        let call = local(self.loop_id)?.sock_call(self.socket, Direction::Write, Mode::NonBlocking, send);
        call.await
    }

    async fn write(&self, data: &[u8]) -> Result<usize> {
        let send = |fd: BorrowedFd<'_>| socket::send(fd, data);
        let call = local(self.loop_id)?.sock_call(self.socket, Direction::Write, Mode::NonBlocking, send);
        call.await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A transport; nobody else writes to it until this is dropped.
pub(crate) struct TransportSink {
    loop_id: u64,
    transport: Transport,
}

impl TransportSink {
    pub(crate) fn begin(loop_id: u64, transport: Transport) -> Result<Self> {
        transport.0.begin_sendfile()?;
        Ok(TransportSink { loop_id, transport })
    }

    /// Calls `operation` once all that was written has gone, and again whenever it would have blocked.
    fn call<T, O: FnMut(BorrowedFd<'_>) -> io::Result<T>>(&self, operation: O) -> TransportCall<'_, O> {
        TransportCall { sink: self, operation, leaf: Leaf::new() }
    }
}

impl Drop for TransportSink {
    fn drop(&mut self) {
        self.transport.0.end_sendfile();
    }
}

impl Sink for TransportSink {
    fn loop_id(&self) -> u64 {
        self.loop_id
    }

    fn is_native(&self) -> bool {
        self.transport.0.sendfile_mode() == SendfileMode::TryNative
    }

    /// What a transport holds before its protocol is to pause: what was read and not sent yet stays within that.
    fn chunk(&self) -> usize {
        HIGH_WATER
    }

    async fn send_file(&self, file: &File, offset: u64, size: usize) -> Result<usize> {
        self.call(|fd| sendfile::send(fd, file, offset, size)).await
    }

    async fn write(&self, data: &[u8]) -> Result<usize> {
        self.flush().await?;
        self.transport.0.write_for_layer(&[IoSlice::new(data)], true)?;
        Ok(data.len())
    }

    async fn flush(&self) -> Result<()> {
        self.call(|_| Ok(())).await
    }
}

/// Whether an error says that a connection is broken, rather than that a file could not be read.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, NotConnected,
        TimedOut,
    };
    const KINDS: [io::ErrorKind; 8] = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        HostUnreachable,
        NetworkDown,
        NetworkUnreachable,
        NotConnected,
        TimedOut,
    ];
    KINDS.contains(&error.kind())
}

/// A call on a transport's descriptor: tried at each poll, and waiting in between.
struct TransportCall<'s, O> {
    sink: &'s TransportSink,
    operation: O,
    leaf: Leaf,
}

// The operation is called, never pinned.
impl<O> Unpin for TransportCall<'_, O> {}

impl<T, O: FnMut(BorrowedFd<'_>) -> io::Result<T>> StdFuture for TransportCall<'_, O> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.attempt(cx);
        if polled.is_ready() {
            this.leaf.resume();
        }
        polled
    }
}

impl<T, O: FnMut(BorrowedFd<'_>) -> io::Result<T>> TransportCall<'_, O> {
    fn attempt(&mut self, cx: &Cx<'_>) -> Poll<Result<T>> {
        let event_loop = local(self.sink.loop_id)?;
        let polled = self.try_operation(cx);
        if polled.is_pending() {
            self.leaf.suspend(Some(&event_loop), cx);
        }
        polled
    }

    fn try_operation(&mut self, cx: &Cx<'_>) -> Poll<Result<T>> {
        let transport = &self.sink.transport;
        ready!(transport.0.poll_drained(false, cx.waker()))?;
        let closed = || Err(io::ErrorKind::ConnectionAborted.into());
        match transport.with_fd(&mut self.operation).unwrap_or_else(closed) {
            Ok(value) => return Poll::Ready(Ok(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let broken = is_of_connection(&error);
                let error = Error::from(error);
                if broken {
                    transport.0.fail(error.clone());
                }
                return Poll::Ready(Err(error));
            }
        }
        // Pending, or an error.
        ready!(transport.0.poll_drained(true, cx.waker()))?;
        Poll::Pending
    }
}
