//! Servers as users hold them: handles that any thread may have.

mod core;
mod drain;
mod listener;

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    combine::timeout::timeout,
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::{check_loop, other_thread},
        running,
        threadsafe::Shared,
    },
    net::server::{
        core::{CloseOnDrop, ServerCore, servers},
        drain::drain,
    },
    sys::addr::{Address, Endpoint, ToAddress},
};

pub(crate) use self::core::{Plan, make_server};

/// A server: listening sockets whose connections each get a protocol of their own. Clones are the same server.
///
/// ```text
/// Bound --start_serving, serve_forever--> Serving --close--> Closed --the last connection ends--> Ended (wait_closed)
/// ```
///
/// Dropping the handle does not close: the loop keeps a server that serves. One that has not begun to is closed with its
/// last handle. Closing stops listening and leaves the connections alone; [`wait_closed`](Self::wait_closed) waits for
/// their ends, which [`close_clients`](Self::close_clients) and [`abort_clients`](Self::abort_clients) bring about.
///
/// Where the system runs out of descriptors or memory, accepting pauses for a second and is reported once; clients wait in
/// the backlog meanwhile.
///
/// `Threads:` may cross them: everything can be asked, and closing works from every thread; waiting and starting are for
/// the loop's own thread.
///
/// # Examples
///
/// ```
/// use asyncio::{Protocol, Transport};
///
/// struct Greet;
///
/// impl Protocol for Greet {
///     fn connection_made(&mut self, transport: &Transport) {
///         transport.write(b"hello\n");
///         transport.close();
///     }
///
///     fn data_received(&mut self, _data: &[u8]) {}
/// }
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let server = event_loop.create_server(|| Greet, ("127.0.0.1", 0)).await?;
///     let address = server.sockets()[0].address().clone();
///     println!("serving on {address}");
///     server.close();
///     server.wait_closed().await
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Server`.
#[derive(Clone)]
pub struct Server(Arc<ServerShared>);

/// What the clones of a server share.
struct ServerShared {
    key: u64,
    shared: Arc<Shared>,
    state: Arc<ServerState>,
}

/// What any thread may ask.
#[derive(Default)]
struct ServerState {
    serving: AtomicBool,
    /// Set by close(); never cleared.
    closed: AtomicBool,
    sockets: Mutex<Vec<ServerSocket>>,
}

/// A listening socket of a [`Server`].
///
/// `Threads:` may cross them.
///
/// asyncio: `asyncio.TransportSocket`.
#[derive(Clone, Debug)]
pub struct ServerSocket {
    address: Address,
    number: RawFd,
    fd: Weak<OwnedFd>,
}

impl ServerSocket {
    /// The address that it listens on, with the real port.
    ///
    /// asyncio: `sock.getsockname()`.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Lends the descriptor, to look at it or to set options; `None` once the server is closed.
    ///
    /// asyncio: `TransportSocket` has the methods of a socket instead.
    pub fn with_fd<R>(&self, look: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        let fd = self.fd.upgrade()?;
        Some(look(fd.as_fd()))
    }
}

/// Where its clients connect to.
impl ToAddress for &ServerSocket {
    fn to_address(self) -> Endpoint {
        self.address.clone().to_address()
    }
}

impl AsRawFd for ServerSocket {
    /// The number, which belongs to the server and may be another descriptor's once that is closed.
    fn as_raw_fd(&self) -> RawFd {
        self.number
    }
}

impl Server {
    /// Starts to listen, if that has not begun yet.
    ///
    /// # Cancel safety
    ///
    /// It does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the server is closed, or on another thread; [`Error::Io`] of the system. It may be called again
    /// then; sockets that have begun to listen keep what comes in their backlog meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// # struct Ignore;
    /// # impl asyncio::Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("127.0.0.1", 0)).start_serving(false).await?;
    ///     assert!(!server.is_serving()); // its port is taken already
    ///     server.start_serving().await?;
    ///     assert!(server.is_serving());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `Server.start_serving`.
    pub async fn start_serving(&self) -> Result<()> {
        self.start()
    }

    pub(crate) fn start(&self) -> Result<()> {
        self.core("start_serving")?.start_serving()
    }

    /// Starts to listen, and serves until the task is cancelled or the server is closed: it then closes the server, waits
    /// for its connections to end, however long that takes, and gives [`Error::Cancelled`].
    /// [`drain`](Self::drain) on another handle puts a limit to it. Under
    /// [`Runner::graceful_shutdown`](crate::Runner::graceful_shutdown) it waits for the connections of all servers of the loop.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the task is the way to end it. A second cancellation ends the wait for the connections. Dropped, it
    /// closes the server.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] in the end; [`Error::Runtime`] if it is being awaited already, if the server is closed, or on
    /// another thread; [`Error::Io`] of the system.
    ///
    /// # Examples
    ///
    /// A server that ends in order on SIGTERM:
    ///
    /// ```
    /// # struct Ignore;
    /// # impl asyncio::Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// use asyncio::{Error, Signal};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("127.0.0.1", 0)).await?;
    ///     let closer = server.clone();
    ///     # let stop = closer.clone();
    ///     # event_loop.call_soon(move || stop.close());
    ///     # if false {
    ///     event_loop.add_signal_handler(Signal::Term, move || closer.close())?;
    ///     # }
    ///     match server.serve_forever().await {
    ///         Err(Error::Cancelled(_)) => Ok(()), // closed, and its last connection has ended
    ///         other => other,
    ///     }
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `Server.serve_forever`.
    pub async fn serve_forever(&self) -> Result<()> {
        if let Some(event_loop) = running::local(&self.0.shared).filter(|_| self.is_closed()) {
            let servers = servers(&event_loop);
            if servers.draining.is_going_on() {
                // It was closed before it came to this.
                servers.draining.wait_over(&event_loop).await?;
                return Err(Error::cancelled());
            }
        }
        let core = self.core("serve_forever")?;
        if core.forever.borrow().is_some() {
            let text = format!("server {self:?} is already being awaited on serve_forever()");
            return Err(Error::Runtime(text.into()));
        }
        core.start_serving()?;
        let ended = core.event_loop()?.create_future::<()>();
        *core.forever.borrow_mut() = Some(ended.clone());
        let closing = CloseOnDrop { core: &core, forever: true };
        let outcome = ended.await;
        drop(closing);
        core.wait_closed().await?;
        let event_loop = core.event_loop()?;
        servers(&event_loop).draining.wait_over(&event_loop).await?;
        outcome
    }

    /// Runs `body` and then closes the server and waits for its connections to end: asyncio's `async with`. Also where the
    /// body failed; [`shutdown`](Self::shutdown) in the body puts a limit to it.
    ///
    /// # Cancel safety
    ///
    /// A cancellation goes to where the body waits, or ends the wait for the connections. Dropped, it closes the server.
    ///
    /// # Errors
    ///
    /// Those of the body; [`Error::Runtime`] on another thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asyncio::Protocol;
    /// # struct Ignore;
    /// # impl Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("127.0.0.1", 0)).await?;
    ///     server.scope(async |server| {
    ///         assert!(server.is_serving());
    ///         Ok(())
    ///     }).await?;
    ///     assert!(!server.is_serving());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `async with server`.
    pub async fn scope<T>(&self, body: impl AsyncFnOnce(&Server) -> Result<T>) -> Result<T> {
        let core = self.core("scope")?;
        let closing = CloseOnDrop { core: &core, forever: false };
        let outcome = body(self).await;
        drop(closing);
        core.wait_closed().await?;
        outcome
    }

    /// Stops listening. Connections stay; a task in [`serve_forever`](Self::serve_forever) is cancelled. Again, it does
    /// nothing.
    ///
    /// On another thread it is done as soon as the loop comes to it.
    ///
    /// asyncio: `Server.close`.
    pub fn close(&self) {
        self.0.ask(|core| core.close());
    }

    /// Closes the connections that came through this server: what they have written is sent first.
    ///
    /// asyncio: `Server.close_clients`.
    pub fn close_clients(&self) {
        self.0.ask(|core| core.clients().iter().for_each(|client| client.close()));
    }

    /// Closes the connections that came through this server at once.
    ///
    /// asyncio: `Server.abort_clients`.
    pub fn abort_clients(&self) {
        self.0.ask(|core| core.clients().iter().for_each(|client| client.abort()));
    }

    /// Waits until the server is closed and its last connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by cancelling or dropping it.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Runtime`] on another thread.
    ///
    /// # Examples
    ///
    /// See [`Server`]; with a limit, `asyncio::timeout(limit, server.wait_closed())`.
    ///
    /// asyncio: `Server.wait_closed`.
    pub async fn wait_closed(&self) -> Result<()> {
        match self.core("wait_closed") {
            Ok(core) => core.wait_closed().await,
            Err(_) if self.has_surely_ended() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the server in good order, for at most `deadline` from the first poll on, and gives how many connections it had to
    /// abort: 0 says that nothing was cut off.
    ///
    /// New connections are refused. Those that are idle are closed as [`Transport::close`](crate::Transport::close) does,
    /// those that are busy when they become idle or end by themselves. At the deadline the rest is aborted: each that had
    /// something to do is named in a warning (`tracing`, target `asyncio`), with its peer and how much was unsent.
    ///
    /// A connection is idle that owes nothing: nothing has been received since what was written last, nothing waits to be
    /// written or to be received, its protocol has not paused reading, no file is being sent, no TLS handshake is going on;
    /// and so it was, with nothing moving, a tenth of a second before. A connection that has not said anything yet is idle.
    /// What a protocol thinks about cannot be seen: one that answers in pieces with longer pauses between them keeps the
    /// connection busy by [`pause_reading`](crate::Transport::pause_reading) until the last one. A stream is idle only while
    /// its coroutine waits in a read and has left nothing unread. Where quiet connections are not done (subscriptions, a
    /// library such as hyper that reads on while an answer is made), [`shutdown`](Self::shutdown) leaves them alone until the
    /// limit. Coroutines are not cancelled: one whose connection was aborted hears of it at its next read or `drain`.
    ///
    /// Several drains of one server go on side by side, and the first deadline counts: `drain(Duration::ZERO)` forces, and
    /// so does [`abort_clients`](Self::abort_clients), which says nothing in the log. A server that is closed already is
    /// drained of what is left. [`Runner::graceful_shutdown`](crate::Runner::graceful_shutdown) drains all servers of a
    /// loop on SIGTERM and SIGINT.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves the server closed and its connections alone; another call goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Runtime`] on another thread.
    ///
    /// # Examples
    ///
    /// A server that ends in good order on SIGTERM, and at once on a second one:
    ///
    /// ```
    /// # struct Ignore;
    /// # impl asyncio::Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("127.0.0.1", 0)).await?;
    ///     let terminated = asyncio::Event::new();
    ///     let (again, first) = (server.clone(), terminated.clone());
    ///     # let first_time = first.clone();
    ///     # event_loop.call_soon(move || first_time.set());
    ///     # if false {
    ///     event_loop.add_signal_handler(asyncio::Signal::Term, move || {
    ///         if first.is_set() { again.abort_clients() } else { first.set() }
    ///     })?;
    ///     # }
    ///     terminated.wait().await?;
    ///     let aborted = server.drain(Duration::from_secs(10)).await?;
    ///     assert_eq!(aborted, 0);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: has none.
    pub async fn drain(&self, deadline: Duration) -> Result<usize> {
        match self.core("drain") {
            Ok(core) => {
                let event_loop = core.event_loop()?;
                drain(&event_loop, || vec![core.clone()], event_loop.deadline_in(deadline)).await
            }
            Err(_) if self.has_surely_ended() => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Closes the server and waits for its connections to end by themselves, for `grace` at most: those that are left are
    /// aborted then, without a word. [`drain`](Self::drain) closes those that are idle, so that it need not wait for them,
    /// and says whom it cut off.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves the server closed and its connections alone.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::Runtime`] on another thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # struct Ignore;
    /// # impl asyncio::Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("127.0.0.1", 0)).await?;
    ///     server.shutdown(Duration::from_secs(10)).await
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: has none; `close()`, `wait_for(wait_closed(), grace)` and `abort_clients()`.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        self.close();
        match timeout(grace, self.wait_closed()).await {
            Err(Error::Timeout(_)) => {}
            ended => return ended,
        }
        self.abort_clients();
        self.wait_closed().await
    }

    /// Whether new connections are accepted.
    ///
    /// asyncio: `Server.is_serving`.
    pub fn is_serving(&self) -> bool {
        self.0.state.serving.load(Ordering::Acquire)
    }

    /// The sockets that it listens on; none once it is closed.
    ///
    /// asyncio: `Server.sockets`.
    pub fn sockets(&self) -> Vec<ServerSocket> {
        self.0.state.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The loop that it belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread, and if every handle of the loop is gone.
    ///
    /// asyncio: `Server.get_loop`.
    pub fn get_loop(&self) -> Result<EventLoop> {
        running::local(&self.0.shared).ok_or_else(|| other_thread("getting the loop of a server"))
    }

    /// Whether nothing is left of it that could be found.
    fn has_surely_ended(&self) -> bool {
        self.0.shared.on_its_thread() && self.is_closed()
    }

    fn is_closed(&self) -> bool {
        self.0.state.closed.load(Ordering::Acquire)
    }

    /// The server itself, for a call that belongs to the loop's thread.
    fn core(&self, call: &str) -> Result<Rc<ServerCore>> {
        let event_loop =
            running::local(&self.0.shared).ok_or_else(|| other_thread(&format!("{call}() of a server")))?;
        check_loop(self.0.shared.id, running::current().as_ref())?;
        let core = servers(&event_loop).cores.borrow().get(&self.0.key).cloned();
        core.ok_or_else(|| Error::Runtime(format!("server {self:?} is closed").into()))
    }
}

impl ServerShared {
    /// Does something with the server, if it is still there, now or as soon as its loop comes to it.
    fn ask(&self, ask: impl FnOnce(&Rc<ServerCore>) + Send + 'static) {
        let key = self.key;
        let ask = move |event_loop: &EventLoop| {
            let core = servers(event_loop).cores.borrow().get(&key).cloned();
            if let Some(core) = core {
                ask(&core);
            }
        };
        match running::local(&self.shared) {
            Some(event_loop) => ask(&event_loop),
            None => drop(self.shared.push_call(ask)), // a closed loop has no servers
        }
    }
}

impl Drop for ServerShared {
    /// Nobody can start it any more.
    fn drop(&mut self) {
        if !self.state.serving.load(Ordering::Acquire) && !self.state.closed.load(Ordering::Acquire) {
            self.ask(|core| core.close());
        }
    }
}

impl PartialEq for Server {
    /// Whether both are handles of one server.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Server {}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Server sockets=[")?;
        for (index, socket) in self.sockets().iter().enumerate() {
            write!(f, "{}{}", if index > 0 { ", " } else { "" }, socket.address)?;
        }
        f.write_str("]>")
    }
}
