//! A server itself: its listeners, the connections that came through them, and its end.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future as StdFuture,
    mem,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use slab::Slab;

use crate::{
    context::{self, ContextRef, Vars},
    endpoints::{
        Attached,
        stream::{Kind, Opening},
    },
    error::{Error, Result},
    event_loop::{EventLoop, exceptions::ExceptionContext, running::WeakLoop, slots},
    future::Future,
    net::{
        open::open_transport,
        options::TlsOptions,
        server::{Server, ServerShared, ServerState, drain::Draining, listener::Listener},
        socket_file::SocketFile,
    },
    sys::addr::Address,
    transport::{Transport, protocol::AnyStreamProtocol},
};

/// What a server is made of.
pub(crate) struct Plan {
    /// Bound; may listen already.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) make: MakeProtocol,
    pub(crate) backlog: u32,
    pub(crate) max_connections: Option<usize>,
    pub(crate) tls: Option<TlsOptions>,
    /// A file to remove at the end.
    pub(crate) file: Option<SocketFile>,
}

pub(crate) type MakeProtocol = Box<dyn FnMut() -> AnyStreamProtocol>;

/// What a loop keeps of its servers.
#[derive(Default)]
pub(super) struct Servers {
    /// By their keys, until they have ended.
    pub(super) cores: RefCell<HashMap<u64, Rc<ServerCore>>>,
    pub(super) draining: Draining,
}

pub(super) fn servers(event_loop: &EventLoop) -> Rc<Servers> {
    event_loop.slots().get_or_init(slots::SERVERS, Servers::default)
}

/// A server, as its loop keeps it.
pub(super) struct ServerCore {
    pub(super) key: u64,
    event_loop: WeakLoop,
    state: Arc<ServerState>,
    pub(super) listeners: RefCell<Vec<Rc<Listener>>>,
    /// Taken while it runs: it is other people's code.
    make: Cell<Option<MakeProtocol>>,
    pub(super) backlog: u32,
    max_connections: Option<usize>,
    tls: Option<TlsOptions>,
    /// What connections run in: a copy for each.
    context: Vars,
    pub(super) clients: RefCell<Slab<Transport>>,
    /// Set while a connection becomes a client.
    connecting: Cell<bool>,
    waiters: RefCell<Vec<Future<()>>>,
    /// What serve_forever() waits for.
    pub(super) forever: RefCell<Option<Future<()>>>,
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
        tls: plan.tls,
        context,
        clients: RefCell::default(),
        connecting: Cell::new(false),
        waiters: RefCell::default(),
        forever: RefCell::new(None),
        file: RefCell::new(plan.file),
    });
    for fd in plan.sockets {
        let listener = Listener::new(&core, fd);
        core.listeners.borrow_mut().push(listener);
    }
    let sockets = core.listeners.borrow().iter().map(|listener| listener.as_socket()).collect();
    *state.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    servers(event_loop).cores.borrow_mut().insert(key, core);
    Ok(Server(Arc::new(ServerShared { key, shared: event_loop.inner.shared.clone(), state })))
}

impl ServerCore {
    pub(super) fn event_loop(&self) -> Result<EventLoop> {
        let gone = || Error::Runtime("the event loop is gone".into());
        self.event_loop.upgrade().map(EventLoop::from_inner).ok_or_else(gone)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.state.serving.load(Ordering::Relaxed)
    }

    pub(super) fn start_serving(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Runtime("server is closed".into()));
        }
        if self.is_serving() {
            return Ok(());
        }
        let event_loop = self.event_loop()?;
        let listeners = self.listeners.borrow().clone();
        let start = |listener: &Rc<Listener>| listener.start(&event_loop, self);
        if let Err(error) = listeners.iter().try_for_each(start) {
            listeners.iter().for_each(|listener| listener.undo_start(&event_loop));
            return Err(error);
        }
        self.state.serving.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.max_connections.is_some_and(|most| self.clients.borrow().len() >= most)
    }

    fn update_interest(&self) {
        let Ok(event_loop) = self.event_loop() else { return };
        let listeners = self.listeners.borrow().clone();
        listeners.iter().for_each(|listener| listener.go_on(&event_loop, self));
    }

    pub(super) fn close(&self) {
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
            let ended = servers(&event_loop).cores.borrow_mut().remove(&self.key);
            drop(ended);
        }
    }

    /// Whether it is closed and no connection is left.
    pub(super) fn has_ended(&self) -> bool {
        self.is_closed() && self.clients.borrow().is_empty()
    }

    pub(super) fn wait_closed(self: &Rc<Self>) -> impl StdFuture<Output = Result<()>> + use<> {
        let core = self.clone();
        async move {
            if core.has_ended() {
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

    pub(super) fn clients(&self) -> Vec<Transport> {
        self.clients.borrow().iter().map(|(_, client)| client.clone()).collect()
    }

    /// Makes the protocol and the transport of a connection.
    pub(super) fn connect(self: &Rc<Self>, event_loop: &EventLoop, fd: OwnedFd, peer: Address) {
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
            let transport = open_transport(event_loop, opening, self.tls.clone())?;
            self.clients.borrow_mut().insert(transport);
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
    fn replace(&self, key: usize, layer: Transport) {
        let before = self.clients.borrow_mut().get_mut(key).map(|place| mem::replace(place, layer));
        drop(before);
    }

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
pub(super) struct CloseOnDrop<'a> {
    pub(super) core: &'a Rc<ServerCore>,
    /// Whether it served for ever.
    pub(super) forever: bool,
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
