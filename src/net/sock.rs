//! Awaitables on plain sockets: anything that is `AsFd` and belongs to the caller.

use std::{
    fmt::Display,
    future::Future as StdFuture,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context as Cx, Poll},
};

use crate::{
    combine::sleep::sleep,
    constants::BUSY_DELAY,
    context::Context,
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::check_loop,
        running,
        scope::Leaf,
        threadsafe::{Shared, closed},
        watchers::Direction,
    },
    sys::{
        addr::{Address, Endpoint, ToAddress},
        socket::{self, Connecting},
    },
};

/// The most that one `sock_recv` makes room for: more than any socket holds.
const LARGEST_RECV: usize = 64 << 20;

/// How many bytes of its buffer may stay unused in what a receiving call gives.
const LARGEST_REST: usize = 64 << 10;

/// A call on a socket: tried at each poll, and waiting in between until the socket is ready.
pub(crate) struct SockCall<'s, S, O> {
    socket: &'s S,
    loop_id: u64,
    /// Whether a socket in blocking mode is refused; in debug mode all are.
    check_mode: bool,
    direction: Direction,
    operation: O,
    /// Set while it may stand.
    wait: Option<Wait>,
    leaf: Leaf,
}

/// What a wait is taken away by, from any thread.
struct Wait {
    fd: RawFd,
    /// Tells our wait from others.
    number: u64,
    shared: Arc<Shared>,
}

// The operation is called, never pinned.
impl<S, O> Unpin for SockCall<'_, S, O> {}

impl<T, S: AsFd, O: FnMut(BorrowedFd<'_>) -> io::Result<T>> StdFuture for SockCall<'_, S, O> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.forget();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.attempt(cx);
        if polled.is_ready() {
            this.forget();
            this.leaf.resume();
        }
        polled
    }
}

impl<T, S: AsFd, O: FnMut(BorrowedFd<'_>) -> io::Result<T>> SockCall<'_, S, O> {
    fn attempt(&mut self, cx: &Cx<'_>) -> Poll<Result<T>> {
        let event_loop = self.event_loop()?;
        let fd = self.socket.as_fd();
        if self.wait.is_none() && (self.check_mode || event_loop.get_debug()) {
            check_nonblocking(fd)?;
        }
        match (self.operation)(fd) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return Poll::Ready(result.map_err(Error::from)),
        }
        let number = fd.as_raw_fd();
        let wait = self.wait.get_or_insert_with(|| Wait {
            fd: number,
            number: event_loop.next_wait(),
            shared: event_loop.inner.shared.clone(),
        });
        if let Err(error) = event_loop.wait_ready(number, self.direction, wait.number, cx.waker()) {
            self.wait = None;
            return Poll::Ready(Err(error));
        }
        self.leaf.suspend(Some(&event_loop), cx);
        Poll::Pending
    }

    fn event_loop(&self) -> Result<EventLoop> {
        let event_loop = running::require()?;
        check_loop(self.loop_id, Some(&event_loop))?;
        Ok(event_loop)
    }
}

impl<S, O> SockCall<'_, S, O> {
    /// Takes the wait away, if it is not over.
    fn forget(&mut self) {
        let Some(Wait { fd, number, shared }) = self.wait.take() else { return };
        let direction = self.direction;
        match running::local(&shared) {
            Some(event_loop) => event_loop.forget_wait(fd, direction, number),
            // A closed loop has forgotten it.
            None => drop(shared.push_call(move |event_loop| event_loop.forget_wait(fd, direction, number))),
        }
    }
}

impl<S, O> Drop for SockCall<'_, S, O> {
    fn drop(&mut self) {
        self.forget();
    }
}

pub(crate) fn check_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    if socket::is_nonblocking(fd)? {
        return Ok(());
    }
    Err(Error::Value("the socket must be non-blocking".into()))
}

/// What differs between the calls besides the operation itself.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// The call never blocks, whatever the socket's mode; it is checked in debug mode only.
    AnyMode,
    NonBlocking,
}

impl EventLoop {
    pub(crate) fn sock_call<'s, T, S: AsFd, O: FnMut(BorrowedFd<'_>) -> io::Result<T>>(
        &self,
        socket: &'s S,
        direction: Direction,
        mode: Mode,
        operation: O,
    ) -> SockCall<'s, S, O> {
        let (loop_id, check_mode) = (self.inner.shared.id, matches!(mode, Mode::NonBlocking));
        SockCall { socket, loop_id, check_mode, direction, operation, wait: None, leaf: Leaf::new() }
    }

    /// Receives up to `size` bytes; no bytes mean that the other side has ended.
    ///
    /// What is there already is given at the first poll, without a turn of the loop. A size of zero is no bytes at once,
    /// whatever is there. A socket in blocking mode does not block the loop; in debug mode it is refused.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: a call that is cancelled or dropped has received nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of the system; [`Error::Runtime`] if another call waits to read from the socket, it has a reader, or
    /// the loop is closed or not running; in debug mode [`Error::Value`] "non-blocking".
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{io::Write, os::unix::net::UnixStream};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (ours, mut theirs) = UnixStream::pair()?;
    ///     theirs.write_all(b"hello")?;
    ///     assert_eq!(event_loop.sock_recv(&ours, 1024).await?, b"hello");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sock_recv`.
    pub fn sock_recv<'s, S: AsFd>(
        &self,
        socket: &'s S,
        size: usize,
    ) -> impl StdFuture<Output = Result<Vec<u8>>> + use<'s, S> {
        let mut buffer = Vec::new();
        self.sock_call(socket, Direction::Read, Mode::AnyMode, move |fd| {
            if size == 0 {
                return Ok(Vec::new());
            }
            socket::recv(fd, &mut buffer, size.min(LARGEST_RECV))?;
            Ok(take_filled(&mut buffer))
        })
    }

    /// Receives into `buffer` and gives how many bytes; zero means that the other side has ended.
    ///
    /// As [`sock_recv`](Self::sock_recv), without an allocation.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost.
    ///
    /// # Errors
    ///
    /// See [`sock_recv`](Self::sock_recv).
    ///
    /// asyncio: `loop.sock_recv_into`.
    pub fn sock_recv_into<'s, S: AsFd>(
        &self,
        socket: &'s S,
        buffer: &'s mut [u8],
    ) -> impl StdFuture<Output = Result<usize>> + use<'s, S> {
        self.sock_call(socket, Direction::Read, Mode::AnyMode, move |fd| {
            if buffer.is_empty() { Ok(0) } else { socket::recv_into(fd, buffer) }
        })
    }

    /// Receives one datagram of up to `size` bytes, and who sent it. What does not fit is lost, as the system has it.
    ///
    /// # Cancel safety
    ///
    /// No datagram is lost.
    ///
    /// # Errors
    ///
    /// See [`sock_recv`](Self::sock_recv).
    ///
    /// asyncio: `loop.sock_recvfrom`.
    pub fn sock_recvfrom<'s, S: AsFd>(
        &self,
        socket: &'s S,
        size: usize,
    ) -> impl StdFuture<Output = Result<(Vec<u8>, Address)>> + use<'s, S> {
        let mut buffer = Vec::new();
        self.sock_call(socket, Direction::Read, Mode::AnyMode, move |fd| {
            let address = socket::recv_from(fd, &mut buffer, size.min(LARGEST_RECV))?;
            Ok((take_filled(&mut buffer), address))
        })
    }

    /// Receives one datagram into `buffer`; gives how many bytes, and who sent it. What does not fit is lost.
    ///
    /// # Cancel safety
    ///
    /// No datagram is lost.
    ///
    /// # Errors
    ///
    /// See [`sock_recv`](Self::sock_recv).
    ///
    /// asyncio: `loop.sock_recvfrom_into`. Differs: the size is the buffer's, `&mut buffer[..n]`.
    pub fn sock_recvfrom_into<'s, S: AsFd>(
        &self,
        socket: &'s S,
        buffer: &'s mut [u8],
    ) -> impl StdFuture<Output = Result<(usize, Address)>> + use<'s, S> {
        self.sock_call(socket, Direction::Read, Mode::AnyMode, move |fd| socket::recv_from_into(fd, buffer))
    }

    /// Sends all of `data`. Nothing at all is an empty datagram, where the socket has datagrams.
    ///
    /// # Cancel safety
    ///
    /// What was sent before a cancellation stays sent, and nobody knows how much that was: such a stream cannot go on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of the system (a broken connection is EPIPE, no signal); otherwise as
    /// [`sock_recv`](Self::sock_recv), for writing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{io::Read, os::unix::net::UnixStream};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (ours, mut theirs) = UnixStream::pair()?;
    ///     event_loop.sock_sendall(&ours, b"hello").await?;
    ///     let mut buffer = [0; 5];
    ///     theirs.read_exact(&mut buffer)?;
    ///     assert_eq!(&buffer, b"hello");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sock_sendall`.
    pub fn sock_sendall<'s, S: AsFd>(
        &self,
        socket: &'s S,
        data: &'s [u8],
    ) -> impl StdFuture<Output = Result<()>> + use<'s, S> {
        let mut left = data;
        self.sock_call(socket, Direction::Write, Mode::AnyMode, move |fd| {
            // At least once: nothing at all is an empty datagram, and a look at the connection.
            loop {
                let sent = socket::send(fd, left)?;
                left = &left[sent..];
                if left.is_empty() {
                    return Ok(());
                }
            }
        })
    }

    /// Sends `data` as one datagram to `address`, and gives how many bytes went. A name is resolved.
    ///
    /// # Cancel safety
    ///
    /// A call that is cancelled or dropped has sent nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of the system, [`Error::Resolve`] for the name; otherwise as [`sock_recv`](Self::sock_recv), for
    /// writing.
    ///
    /// asyncio: `loop.sock_sendto`.
    pub fn sock_sendto<'s, S: AsFd, A: ToAddress>(
        &self,
        socket: &'s S,
        data: &'s [u8],
        address: A,
    ) -> impl StdFuture<Output = Result<usize>> + use<'s, S, A> {
        let (home, endpoint) = (Home::of(self), address.to_address());
        async move {
            if home.event_loop()?.get_debug() {
                check_nonblocking(socket.as_fd())?;
            }
            let address = target(&home, socket.as_fd(), endpoint).await?;
            let is_unix = address.as_inet().is_none();
            let address = address.to_sock_addr()?;
            if is_unix {
                // Such a socket counts as writable although its receiver has no room.
                loop {
                    match socket::send_to(socket.as_fd(), data, &address) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY_DELAY).await?,
                        result => return Ok(result?),
                    }
                }
            }
            let send = |fd: BorrowedFd<'_>| socket::send_to(fd, data, &address);
            let call = home.event_loop()?.sock_call(socket, Direction::Write, Mode::AnyMode, send);
            call.await
        }
    }

    /// Connects a socket to `address`. A name is resolved, with the socket's own family and type.
    ///
    /// # Cancel safety
    ///
    /// The socket stays open and the caller's; the system may go on to connect it.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] "non-blocking" for a socket in blocking mode; [`Error::Io`] with the address in its text;
    /// [`Error::Resolve`] for the name; [`Error::Runtime`] as for [`sock_recv`](Self::sock_recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use socket2::{Domain, Socket, Type};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///     let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    ///     socket.set_nonblocking(true)?;
    ///     event_loop.sock_connect(&socket, listener.local_addr()?).await?;
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sock_connect`.
    pub fn sock_connect<'s, S: AsFd, A: ToAddress>(
        &self,
        socket: &'s S,
        address: A,
    ) -> impl StdFuture<Output = Result<()>> + use<'s, S, A> {
        let (home, endpoint) = (Home::of(self), address.to_address());
        async move {
            home.check()?;
            check_nonblocking(socket.as_fd())?;
            let address = target(&home, socket.as_fd(), endpoint).await?;
            let failed = |error| connect_failed(&address, error);
            loop {
                match socket::begin_connect(socket.as_fd(), &address).map_err(failed)? {
                    Connecting::Done => return Ok(()),
                    Connecting::Busy => sleep(BUSY_DELAY).await?,
                    Connecting::InProgress => break,
                }
            }
            // Pending at first, as the system said, so that a connect always takes a turn and can be cancelled.
            let mut begun = false;
            let end = home.event_loop()?.sock_call(socket, Direction::Write, Mode::AnyMode, move |fd| {
                if !mem::replace(&mut begun, true) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                socket::end_connect(fd)
            });
            end.await.map_err(failed)
        }
    }

    /// Accepts a connection from a listening socket: a non-blocking descriptor and the other side's address.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] "non-blocking" for a socket in blocking mode; [`Error::Io`] of the system, such as EMFILE;
    /// [`Error::Runtime`] as for [`sock_recv`](Self::sock_recv).
    ///
    /// # Examples
    ///
    /// ```
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///     listener.set_nonblocking(true)?;
    ///     let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    ///     let (connection, address) = event_loop.sock_accept(&listener).await?;
    ///     assert_eq!(address.as_inet(), Some(client.local_addr()?));
    ///     let connection = std::net::TcpStream::from(connection);
    ///     event_loop.sock_sendall(&connection, b"welcome").await?;
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.sock_accept`.
    pub fn sock_accept<'s, S: AsFd>(
        &self,
        socket: &'s S,
    ) -> impl StdFuture<Output = Result<(OwnedFd, Address)>> + use<'s, S> {
        self.sock_call(socket, Direction::Read, Mode::NonBlocking, socket::accept)
    }
}

/// The loop that a call was made on, from inside its future.
pub(crate) fn local(id: u64) -> Result<EventLoop> {
    let event_loop = running::require()?;
    check_loop(id, Some(&event_loop))?;
    if event_loop.is_closed() { Err(closed()) } else { Ok(event_loop) }
}

/// The loop that an opener was called on, and the context that it was called with: what is opened lives in both.
#[derive(Clone)]
pub(crate) struct Home {
    loop_id: u64,
    context: Option<Context>,
}

impl Home {
    pub(crate) fn of(event_loop: &EventLoop) -> Self {
        Home { loop_id: event_loop.inner.shared.id, context: event_loop.context().cloned() }
    }

    /// Whether the loop is the running one, and open.
    pub(crate) fn check(&self) -> Result<()> {
        local(self.loop_id).map(drop)
    }

    /// The loop, from inside a future, which does not hold it: it would keep it alive.
    pub(crate) fn event_loop(&self) -> Result<EventLoop> {
        let event_loop = local(self.loop_id)?;
        Ok(match &self.context {
            Some(context) => event_loop.in_context(context),
            None => event_loop,
        })
    }
}

/// Where a socket is to connect or send to; a name is resolved for it.
async fn target(home: &Home, socket: BorrowedFd<'_>, endpoint: Endpoint) -> Result<Address> {
    if let Endpoint::Address(address) = endpoint {
        return Ok(address);
    }
    let (family, socket_type) = socket::parameters(socket)?;
    home.resolve_one(endpoint, family, socket_type).await
}

/// Takes what was received out of its buffer, and gives back what a large buffer has left.
fn take_filled(buffer: &mut Vec<u8>) -> Vec<u8> {
    let mut data = mem::take(buffer);
    if data.capacity() - data.len() > LARGEST_REST {
        data.shrink_to_fit();
    }
    data
}

fn connect_failed(address: &Address, error: Error) -> Error {
    match error.io_error() {
        None => error,
        Some(source) => Error::io(copy_of(source), format!("Connect call failed {address}")),
    }
}

/// The error of a bind, with the address that it was about.
pub(crate) fn bind_failed(address: impl Display, error: Error) -> Error {
    match error.io_error() {
        Some(source) => Error::io(copy_of(source), format!("error while attempting to bind on address {address}")),
        None => error,
    }
}

/// An I/O error of the same kind.
pub(crate) fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
