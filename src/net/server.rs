//! Servers: listening sockets, the connections that came through them, and their end.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    future::Future as StdFuture,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex, PoisonError, Weak as SyncWeak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use slab::Slab;

use crate::{
    combine::timeout::timeout,
    constants::ACCEPT_RETRY_DELAY,
    context::{self, ContextRef, Vars},
    endpoints::{
        Attached,
        stream::{Kind, Opening, StreamEndpoint},
    },
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::{ExceptionContext, check_loop, other_thread},
        owned::{IoEvent, IoHandler},
        running::{self, WeakLoop},
        slots,
        threadsafe::Shared,
        timers::TimerKey,
        turn::TimerEntry,
    },
    future::Future,
    net::socket_file::SocketFile,
    sys::{addr::Address, selector::Interest, socket},
    transport::{RawTransport, protocol::AnyStreamProtocol},
};

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
    fd: SyncWeak<OwnedFd>,
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
    /// [`shutdown`](Self::shutdown) on another handle puts a limit to it.
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
            // Nothing is left of it.
            Err(_) if self.0.shared.on_its_thread() && !self.is_open() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Closes the server and waits for its connections to end, for `grace` at most: those that are left are aborted then.
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

    fn is_open(&self) -> bool {
        !self.0.state.closed.load(Ordering::Acquire)
    }

    /// The server itself, for a call that belongs to the loop's thread.
    fn core(&self, call: &str) -> Result<Rc<ServerCore>> {
        let event_loop =
            running::local(&self.0.shared).ok_or_else(|| other_thread(&format!("{call}() of a server")))?;
        check_loop(self.0.shared.id, running::current().as_ref())?;
        let core = servers(&event_loop).borrow().get(&self.0.key).cloned();
        core.ok_or_else(|| Error::Runtime(format!("server {self:?} is closed").into()))
    }
}

impl ServerShared {
    /// Does something with the server, if it is still there, now or as soon as its loop comes to it.
    fn ask(&self, ask: impl FnOnce(&Rc<ServerCore>) + Send + 'static) {
        let key = self.key;
        let ask = move |event_loop: &EventLoop| {
            let core = servers(event_loop).borrow().get(&key).cloned();
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

/// What a server is made of.
pub(crate) struct Plan {
    /// Bound; may listen already.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) make: MakeProtocol,
    pub(crate) backlog: u32,
    pub(crate) max_connections: Option<usize>,
    /// A file to remove at the end.
    pub(crate) file: Option<SocketFile>,
}

pub(crate) type MakeProtocol = Box<dyn FnMut() -> AnyStreamProtocol>;

/// The servers of a loop by their keys, until they have ended.
type Servers = RefCell<HashMap<u64, Rc<ServerCore>>>;

fn servers(event_loop: &EventLoop) -> Rc<Servers> {
    event_loop.slots().get_or_init(slots::SERVERS, Servers::default)
}

struct ServerCore {
    key: u64,
    event_loop: WeakLoop,
    state: Arc<ServerState>,
    listeners: RefCell<Vec<Rc<Listener>>>,
    /// Taken while it runs: it is other people's code.
    make: Cell<Option<MakeProtocol>>,
    backlog: u32,
    max_connections: Option<usize>,
    /// What connections run in: a copy for each.
    context: Vars,
    clients: RefCell<Slab<Rc<StreamEndpoint>>>,
    /// Set while a connection becomes a client.
    connecting: Cell<bool>,
    waiters: RefCell<Vec<Future<()>>>,
    /// What serve_forever() waits for.
    forever: RefCell<Option<Future<()>>>,
    file: RefCell<Option<SocketFile>>,
}

/// Makes a server of bound sockets.
pub(crate) fn make_server(event_loop: &EventLoop, plan: Plan) -> Result<Server> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let key = LAST.fetch_add(1, Ordering::Relaxed);
    let state = Arc::new(ServerState::default());
    let context = match event_loop.capture() {
        ContextRef::Shared(context) => context.vars(),
        ContextRef::Bare(vars) => vars,
    };
    let core = Rc::new(ServerCore {
        key,
        event_loop: Rc::downgrade(&event_loop.inner),
        state: state.clone(),
        listeners: RefCell::default(),
        make: Cell::new(Some(plan.make)),
        backlog: plan.backlog,
        max_connections: plan.max_connections,
        context,
        clients: RefCell::default(),
        connecting: Cell::new(false),
        waiters: RefCell::default(),
        forever: RefCell::new(None),
        file: RefCell::new(plan.file),
    });
    for fd in plan.sockets {
        let listener = Rc::new_cyclic(|this| Listener {
            this: this.clone(),
            server: Rc::downgrade(&core),
            number: fd.as_raw_fd(),
            address: socket::local_address(fd.as_fd()).unwrap_or(Address::Unnamed),
            fd: RefCell::new(Some(Arc::new(fd))),
            pause: Cell::new(None),
            reported: Cell::new(false),
        });
        core.listeners.borrow_mut().push(listener);
    }
    let sockets = core.listeners.borrow().iter().map(|listener| listener.as_socket()).collect();
    *state.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    servers(event_loop).borrow_mut().insert(key, core);
    Ok(Server(Arc::new(ServerShared { key, shared: event_loop.inner.shared.clone(), state })))
}

impl ServerCore {
    fn event_loop(&self) -> Result<EventLoop> {
        let gone = || Error::Runtime("the event loop is gone".into());
        self.event_loop.upgrade().map(EventLoop::from_inner).ok_or_else(gone)
    }

    fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    fn start_serving(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Runtime("server is closed".into()));
        }
        if self.state.serving.load(Ordering::Relaxed) {
            return Ok(());
        }
        let event_loop = self.event_loop()?;
        let listeners = self.listeners.borrow().clone();
        let start = |listener: &Rc<Listener>| listener.start(&event_loop, self);
        if let Err(error) = listeners.iter().try_for_each(start) {
            listeners.iter().for_each(|listener| event_loop.disown(listener.number));
            return Err(error);
        }
        self.state.serving.store(true, Ordering::Release);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.max_connections.is_some_and(|most| self.clients.borrow().len() >= most)
    }

    fn update_interest(&self) {
        let Ok(event_loop) = self.event_loop() else { return };
        let listeners = self.listeners.borrow().clone();
        listeners.iter().for_each(|listener| listener.go_on(&event_loop, self));
    }

    fn close(&self) {
        if self.state.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.state.serving.store(false, Ordering::Release);
        self.state.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Before the socket goes: the path is surely ours until then.
        drop(self.file.take());
        let (listeners, event_loop) = (self.listeners.take(), self.event_loop());
        if let Ok(event_loop) = &event_loop {
            listeners.iter().for_each(|listener| listener.close(event_loop));
        }
        drop(listeners);
        let make = self.make.take();
        let forever = self.forever.borrow().clone();
        if let Some(forever) = forever {
            forever.cancel();
        }
        self.end_if_done();
        drop(make);
    }

    /// Tells those who wait, once the server is closed and has no connection left.
    fn end_if_done(&self) {
        if !self.is_closed() || self.connecting.get() || !self.clients.borrow().is_empty() {
            return;
        }
        for waiter in self.waiters.take() {
            // It may have been given up.
            let _ = waiter.set_result(());
        }
        if let Ok(event_loop) = self.event_loop() {
            let ended = servers(&event_loop).borrow_mut().remove(&self.key);
            drop(ended);
        }
    }

    fn wait_closed(self: &Rc<Self>) -> impl StdFuture<Output = Result<()>> + use<> {
        let core = self.clone();
        async move {
            if core.is_closed() && core.clients.borrow().is_empty() {
                return Ok(());
            }
            let waiter = core.event_loop()?.create_future();
            {
                let mut waiters = core.waiters.borrow_mut();
                // Those that were given up.
                waiters.retain(|waiter| !waiter.done());
                waiters.push(waiter.clone());
            }
            let _given_up = CancelOnDrop(&waiter);
            (&waiter).await
        }
    }

    fn clients(&self) -> Vec<Rc<StreamEndpoint>> {
        self.clients.borrow().iter().map(|(_, client)| client.clone()).collect()
    }

    /// Makes the protocol and the transport of a connection.
    fn connect(self: &Rc<Self>, event_loop: &EventLoop, fd: OwnedFd, peer: Address) {
        let Some(mut make) = self.make.take() else { return };
        self.connecting.set(true);
        let entered = context::enter(ContextRef::Bare(self.context.clone()), context::fresh_identity())
            .expect("a bare context can be entered");
        let made = catch_unwind(AssertUnwindSafe(&mut make)).map_err(Error::from_panic);
        // A factory may close its server.
        let make = if self.is_closed() { Some(make) } else { self.make.replace(Some(make)) };
        let opened = made.and_then(|protocol| {
            let key = self.clients.borrow().vacant_key();
            let opening = Opening {
                fd,
                kind: Kind::Socket,
                peer: Some(peer),
                protocol,
                opener: None,
                attached: Some((self.clone() as Rc<dyn Attached>, key)),
            };
            let endpoint = StreamEndpoint::open(event_loop, opening)?;
            self.clients.borrow_mut().insert(endpoint);
            Ok(())
        });
        drop(entered.leave());
        self.connecting.set(false);
        self.end_if_done();
        if let Err(error) = opened {
            let message = "Error on transport creation for incoming connection";
            event_loop.call_exception_handler(&ExceptionContext::new(message).exception(error));
        }
        // Last, for the drop of a factory is other people's code.
        drop(make);
    }
}

impl Attached for ServerCore {
    fn detach(&self, key: usize) {
        let was_full = self.is_full();
        let client = self.clients.borrow_mut().try_remove(key);
        drop(client);
        if was_full {
            self.update_interest();
        }
        self.end_if_done();
    }
}

impl Drop for ServerCore {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Release);
        self.state.serving.store(false, Ordering::Release);
        self.state.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Closes a server whose user has gone.
struct CloseOnDrop<'a> {
    core: &'a Rc<ServerCore>,
    /// Whether it served for ever.
    forever: bool,
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        if self.forever {
            let forever = self.core.forever.take();
            drop(forever);
        }
        self.core.close();
    }
}

/// Gives up a wait whose awaiter has gone; one that is over is not changed by it.
struct CancelOnDrop<'a>(&'a Future<()>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A listening socket.
struct Listener {
    this: Weak<Listener>,
    server: Weak<ServerCore>,
    number: RawFd,
    address: Address,
    /// Taken at the end.
    fd: RefCell<Option<Arc<OwnedFd>>>,
    /// Set while accepting pauses.
    pause: Cell<Option<TimerKey>>,
    /// Whether the present trouble has been reported.
    reported: Cell<bool>,
}

impl Listener {
    fn as_socket(&self) -> ServerSocket {
        let fd = self.fd.borrow().as_ref().map(Arc::downgrade).unwrap_or_default();
        ServerSocket { address: self.address.clone(), number: self.number, fd }
    }

    fn start(&self, event_loop: &EventLoop, server: &ServerCore) -> Result<()> {
        let Some(this) = self.this.upgrade() else { return Ok(()) };
        let fd = self.fd.borrow().clone();
        let Some(fd) = fd else { return Ok(()) };
        socket::listen(fd.as_fd(), server.backlog)?;
        event_loop.own(self.number, this)?;
        Ok(self.update_interest(event_loop, server)?)
    }

    /// As [`update_interest`](Self::update_interest), after the start: where it cannot be done, it is tried again later.
    fn go_on(&self, event_loop: &EventLoop, server: &ServerCore) {
        if let Err(error) = self.update_interest(event_loop, server) {
            self.pause(event_loop, error);
        }
    }

    /// Listens unless accepting pauses.
    fn update_interest(&self, event_loop: &EventLoop, server: &ServerCore) -> io::Result<()> {
        let pause = self.pause.take();
        let accepts = pause.is_none() && !server.is_full();
        self.pause.set(pause);
        let interest = if accepts { Interest::READABLE } else { Interest::NONE };
        event_loop.watch_owned(self.number, interest)
    }

    fn accept(&self, event_loop: &EventLoop, server: &Rc<ServerCore>) {
        for _ in 0..server.backlog.max(1) {
            if server.is_full() {
                return self.go_on(event_loop, server);
            }
            // Its own handle: a factory may close the server.
            let fd = self.fd.borrow().clone();
            let Some(fd) = fd else { return };
            match socket::accept(fd.as_fd()) {
                Ok((connection, peer)) => {
                    self.reported.set(false);
                    server.connect(event_loop, connection, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return self.pause(event_loop, error),
            }
        }
    }

    /// Nothing can be accepted for now: comes again later, as the connections stay in the backlog.
    #[cold]
    fn pause(&self, event_loop: &EventLoop, error: io::Error) {
        let Some(this) = self.this.upgrade() else { return };
        let deadline = event_loop.deadline_in(ACCEPT_RETRY_DELAY);
        self.pause.set(Some(event_loop.insert_timer(deadline, TimerEntry::Io(this, IoEvent::Retry))));
        // To watch nothing cannot fail in a way that matters.
        let _ = event_loop.watch_owned(self.number, Interest::NONE);
        if !self.reported.replace(true) {
            self.report(event_loop, error);
        }
    }

    fn report(&self, event_loop: &EventLoop, error: io::Error) {
        const OF_RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let is_of_resources = error.raw_os_error().is_some_and(|code| OF_RESOURCES.contains(&code));
        let what = if is_of_resources { "out of system resource" } else { "failed" };
        let context = ExceptionContext::new(format!("socket.accept() {what}"))
            .exception(error.into())
            .socket(self.number)
            .extra("address", &self.address);
        event_loop.call_exception_handler(&context);
    }

    fn close(&self, event_loop: &EventLoop) {
        if let Some(timer) = self.pause.take() {
            let entry = event_loop.inner.timers.borrow_mut().remove(timer);
            drop(entry);
        }
        let this = self.this.upgrade();
        event_loop.disown(self.number);
        drop(self.fd.take());
        drop(this);
    }
}

/// Whether an accept failed because of the connection, which is gone then: the system passes on what happened to it.
fn is_of_the_connection(error: &io::Error) -> bool {
    const OF_IT: [i32; 8] = [
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EPERM,
        libc::ETIMEDOUT,
    ];
    error.raw_os_error().is_some_and(|code| OF_IT.contains(&code))
}

impl IoHandler for Listener {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        let Some(server) = self.server.upgrade() else { return };
        if server.is_closed() {
            return;
        }
        if event == IoEvent::Retry {
            self.pause.set(None);
            return self.go_on(event_loop, &server);
        }
        self.accept(event_loop, &server);
    }

    fn discard(self: Rc<Self>) {
        drop(self.fd.take());
    }

    fn describe(&self) -> String {
        format!("<Server socket fd={} {}>", self.number, self.address)
    }
}
