//! Servers of IP.

use std::{
    cell::RefCell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    io,
    marker::PhantomData,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use crate::{
    constants::BACKLOG,
    error::{Error, Result},
    event_loop::EventLoop,
    net::{
        options::{SslOptions, TlsOptions, check_stream, is_inet},
        server::{Plan, Server, make_server},
        sock::{Home, bind_failed},
    },
    report,
    sys::{
        addr::{Address, Endpoint, ToAddress},
        resolve::{
            AddrInfo, AddrInfoHints,
            flags::{AF_INET6, AI_PASSIVE, SOCK_STREAM},
        },
        socket,
    },
    transport::protocol::StreamProtocol,
};

#[cfg(feature = "tls")]
use crate::net::options::SslContext;

impl EventLoop {
    /// Listens on `address`; each connection gets a protocol of the factory's.
    ///
    /// Several hosts, or a name with several addresses, are several sockets; no host (a bare port) is every interface,
    /// of IPv4 and IPv6. Port 0 lets the system choose, one port for each socket; [`Server::sockets`] says which.
    /// Setters come before the await, which starts the work. `()` for the address goes with
    /// [`sock`](CreateServer::sock).
    ///
    /// Small writes are sent at once (TCP_NODELAY). The setter `ssl` encrypts; it is there with the feature `tls`.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves no socket behind.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for arguments that contradict each other, before anything is opened. [`Error::Io`] with the
    /// address in its text, such as EADDRINUSE. [`Error::Resolve`] for a name. [`Error::Runtime`] where no loop runs,
    /// [`Error::Value`] in another loop than this one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// use asyncio::{Protocol, Transport};
    ///
    /// struct Count {
    ///     served: Rc<std::cell::Cell<usize>>, // a factory may hand on what is not `Send`
    /// }
    ///
    /// impl Protocol for Count {
    ///     fn connection_made(&mut self, transport: &Transport) {
    ///         self.served.set(self.served.get() + 1);
    ///         transport.close();
    ///     }
    ///
    ///     fn data_received(&mut self, _data: &[u8]) {}
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let served = Rc::default();
    ///     let factory = move || Count { served: Rc::clone(&served) };
    ///     let server = event_loop.create_server(factory, (["127.0.0.1", "::1"], 0)).backlog(1024).await?;
    ///     assert_eq!(server.sockets().len(), 2);
    ///     server.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_server`.
    pub fn create_server<P, K, F>(&self, factory: F, address: impl ToAddress) -> CreateServer<F, P, K>
    where
        F: FnMut() -> P + 'static,
        P: StreamProtocol<K>,
    {
        CreateServer::prepare(self.clone(), address).with_factory(factory)
    }
}

/// Where to listen.
#[derive(Debug)]
struct Listening {
    endpoint: Endpoint,
    family: i32,
    flags: i32,
    sock: Option<OwnedFd>,
    reuse_address: bool,
    reuse_port: bool,
    keep_alive: bool,
}

impl Default for Listening {
    fn default() -> Self {
        Listening {
            endpoint: Endpoint::None,
            family: 0,
            flags: AI_PASSIVE,
            sock: None,
            reuse_address: true,
            reuse_port: false,
            keep_alive: false,
        }
    }
}

/// What holds for servers of every kind.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) backlog: u32,
    pub(crate) max_connections: Option<usize>,
    pub(crate) start_serving: bool,
    pub(crate) ssl: SslOptions,
}

impl Default for Serving {
    fn default() -> Self {
        Serving { backlog: BACKLOG, max_connections: None, start_serving: true, ssl: SslOptions::default() }
    }
}

/// What [`EventLoop::create_server`] gives: setters, and the work when it is awaited.
#[must_use = "nothing listens until it is awaited"]
pub struct CreateServer<F, P, K> {
    event_loop: EventLoop,
    factory: F,
    listening: Listening,
    serving: Serving,
    protocol: PhantomData<fn() -> (P, K)>,
}

impl CreateServer<(), (), ()> {
    /// A server that is to get its factory yet.
    pub(crate) fn prepare(event_loop: EventLoop, address: impl ToAddress) -> Self {
        CreateServer {
            event_loop,
            factory: (),
            listening: Listening { endpoint: address.to_address(), ..Listening::default() },
            serving: Serving::default(),
            protocol: PhantomData,
        }
    }

    pub(crate) fn with_factory<P, K, F>(self, factory: F) -> CreateServer<F, P, K> {
        let CreateServer { event_loop, listening, serving, .. } = self;
        CreateServer { event_loop, factory, listening, serving, protocol: PhantomData }
    }
}

impl<F, P, K> CreateServer<F, P, K> {
    /// Only addresses of this family, an `AF_…` of [`socket`](crate::socket).
    ///
    /// asyncio: `family=`.
    pub fn family(mut self, family: i32) -> Self {
        self.listening.family = family;
        self
    }

    /// The `AI_…` flags of the look-up; `AI_PASSIVE` unless they are set.
    ///
    /// asyncio: `flags=`.
    pub fn flags(mut self, flags: i32) -> Self {
        self.listening.flags = flags;
        self
    }

    /// Uses this bound stream socket, which may listen already. It becomes the server's, and is closed when the call
    /// fails.
    ///
    /// asyncio: `sock=`.
    pub fn sock(mut self, sock: impl Into<OwnedFd>) -> Self {
        self.listening.sock = Some(sock.into());
        self
    }

    /// How many connections may wait to be accepted, 100 unless it is set; so many are accepted in one go, too. Clients
    /// that find no room try again after a second: a server under load wants 1024 or more.
    ///
    /// asyncio: `backlog=`.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.serving.backlog = backlog;
        self
    }

    /// Takes over an address that the system still keeps for connections of a former server; on unless switched off.
    ///
    /// asyncio: `reuse_address=`.
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.listening.reuse_address = reuse;
        self
    }

    /// Shares the port with other servers that ask for the same; the system spreads connections among them.
    ///
    /// asyncio: `reuse_port=`.
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.listening.reuse_port = reuse;
        self
    }

    /// Lets the system probe connections that are silent for long.
    ///
    /// asyncio: `keep_alive=`.
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.listening.keep_alive = keep_alive;
        self
    }

    /// Whether it listens at once; else [`Server::start_serving`] or [`Server::serve_forever`] begins.
    ///
    /// asyncio: `start_serving=`.
    pub fn start_serving(mut self, start: bool) -> Self {
        self.serving.start_serving = start;
        self
    }

    /// Accepts no more than this many connections at a time; others wait in the backlog. `None`, the rule, is no limit.
    ///
    /// asyncio: has none.
    pub fn max_connections(mut self, most: impl Into<Option<usize>>) -> Self {
        self.serving.max_connections = most.into();
        self
    }

    /// Encrypts the connections with TLS, by a context for servers. A protocol hears of its connection when the
    /// handshake is done; where it fails, the connection is closed, and the protocol is dropped without a call. That is
    /// no failure of this program, and not reported; `tracing` has a line of it at the level debug.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{Protocol, SslContext, Transport};
    ///
    /// struct Greet;
    ///
    /// impl Protocol for Greet {
    ///     fn connection_made(&mut self, transport: &Transport) {
    ///         transport.write(b"hello");
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8]) {
    ///         assert_eq!(data, b"hello");
    ///     }
    /// }
    ///
    /// let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    /// let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let for_server = SslContext::server_builder().cert_chain_pem(&chain, &key).build()?;
    /// let for_client = SslContext::client_builder().verify_pem(&chain).build()?; // trusts it, and nobody else
    ///
    /// asyncio::run(async move {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Greet, ("localhost", 0)).ssl(&for_server).await?;
    ///     let address = server.sockets()[0].address().clone();
    ///     let connecting = event_loop.create_connection(|| Greet, &address).ssl(&for_client);
    ///     let (transport, _) = connecting.server_hostname("localhost").await?;
    ///     transport.close();
    ///     server.close();
    ///     server.wait_closed().await
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(mut self, context: &SslContext) -> Self {
        self.serving.ssl.context = Some(context.clone());
        self
    }

    /// How long a TLS handshake may take before the connection is closed; 60 s unless it is set. Only with `ssl`, a
    /// setter of the feature `tls`.
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.serving.ssl.handshake_timeout = Some(timeout);
        self
    }

    /// How long [`Transport::close`](crate::Transport::close) waits for the other side's word, while nothing that was
    /// written moves; 30 s unless it is set. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.serving.ssl.shutdown_timeout = Some(timeout);
        self
    }

    fn validate(&self) -> Result<Option<TlsOptions>> {
        match (&self.listening.endpoint, &self.listening.sock) {
            (Endpoint::None, None) => {
                return Err(Error::Value("Neither host/port nor sock were specified".into()));
            }
            (Endpoint::None, Some(fd)) => check_stream(fd)?,
            (_, Some(_)) => {
                return Err(Error::Value("host/port and sock can not be specified at the same time".into()));
            }
            (Endpoint::Address(address), None) if address.as_inet().is_none() => {
                return Err(Error::Value("a unix address needs create_unix_server".into()));
            }
            _ => {}
        }
        self.serving.validate()
    }
}

impl Serving {
    pub(crate) fn validate(&self) -> Result<Option<TlsOptions>> {
        if self.max_connections == Some(0) {
            return Err(Error::Value("max_connections must not be zero".into()));
        }
        self.ssl.server()
    }

    /// A server of bound sockets, serving if that is wanted.
    pub(crate) fn serve(self, event_loop: &EventLoop, plan: Plan) -> Result<Server> {
        let server = make_server(event_loop, plan)?;
        if self.start_serving {
            server.start().inspect_err(|_| server.close())?;
        }
        Ok(server)
    }
}

impl<F, P, K> fmt::Debug for CreateServer<F, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CreateServer { listening, serving, .. } = self;
        f.debug_struct("CreateServer").field("listening", listening).field("serving", serving).finish_non_exhaustive()
    }
}

impl<F, P, K> IntoFuture for CreateServer<F, P, K>
where
    F: FnMut() -> P + 'static,
    P: StreamProtocol<K>,
{
    type Output = Result<Server>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Server>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let valid = self.validate();
        let CreateServer { event_loop, mut factory, listening, serving, .. } = self;
        let home = Home::of(&event_loop);
        drop(event_loop);
        let make = Box::new(move || P::erase(Rc::new(RefCell::new(factory()))));
        Box::pin(async move {
            let tls = valid?;
            home.check()?;
            let sockets = listening.bind(&home).await?;
            let Serving { backlog, max_connections, .. } = serving;
            let plan = Plan { sockets, make, backlog, max_connections, tls, file: None };
            serving.serve(&home.event_loop()?, plan)
        })
    }
}

impl Listening {
    async fn bind(self, home: &Home) -> Result<Vec<OwnedFd>> {
        if let Some(fd) = self.sock {
            socket::set_nonblocking(&fd, true)?;
            set_nodelay(&fd);
            return Ok(vec![fd]);
        }
        let hints = AddrInfoHints::new().family(self.family).socket_type(SOCK_STREAM).flags(self.flags);
        let infos = home.resolve_all(&self.endpoint, hints).await?;
        let mut sockets = Vec::new();
        for info in &infos {
            match self.bind_one(info) {
                Ok(fd) => sockets.push(fd),
                // The machine may not have the family, or not at this moment.
                Err(error) if infos.len() > 1 && is_missing(&error) => {
                    if home.event_loop()?.get_debug() {
                        report::warning(&format!("create_server: {error}"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if sockets.is_empty() {
            let addresses: Vec<SocketAddr> = infos.iter().map(|info| info.address).collect();
            return Err(Error::io(
                io::ErrorKind::AddrNotAvailable.into(),
                format!("could not bind on any address out of {addresses:?}"),
            ));
        }
        Ok(sockets)
    }

    fn bind_one(&self, info: &AddrInfo) -> Result<OwnedFd> {
        let fd = socket::open(info.family, info.socket_type, info.protocol)?;
        if self.reuse_address {
            socket::set_reuse_address(fd.as_fd())?;
        }
        if self.reuse_port {
            socket::set_reuse_port(fd.as_fd())?;
        }
        if self.keep_alive {
            socket::set_keepalive(fd.as_fd())?;
        }
        if info.family == AF_INET6 {
            socket::set_only_v6(fd.as_fd())?;
        }
        set_nodelay(&fd);
        let bound = socket::bind(fd.as_fd(), &Address::Inet(info.address));
        bound.map_err(|error| bind_failed(info.address, error))?;
        Ok(fd)
    }
}

/// What is set on a listening socket holds for the connections that come through it.
fn set_nodelay(fd: &OwnedFd) {
    if is_inet(fd) {
        // Only a wish: some sockets of IP have no such option.
        let _ = socket::set_nodelay(fd.as_fd());
    }
}

/// Whether an address could not be had because the machine does not have its family.
fn is_missing(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}
