//! Connections and servers over unix sockets.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    event_loop::EventLoop,
    net::{
        listen::Serving,
        open::{OpenStream, Prepared},
        options::{SslOptions, TlsOptions},
        server::{Plan, Server},
        sock::{Home, bind_failed},
        socket_file::{SocketFile, remove_stale},
    },
    sys::{
        addr::Address,
        resolve::flags::SOCK_STREAM,
        socket::{self, AF_UNIX},
    },
    transport::{Transport, protocol::StreamProtocol},
};

#[cfg(feature = "tls")]
use crate::net::options::SslContext;

/// The address of a unix socket: a path, or on Linux a name in the abstract namespace, which begins with a zero byte.
///
/// Strings, bytes and paths are all good; `()` is none, beside the setter `sock`.
///
/// asyncio: the argument `path`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the address of a unix socket",
    label = "expected a path as a string, as bytes or as a `Path`, or an `Address`"
)]
pub trait ToUnixAddress {
    /// The address as a value of its own; `None` beside a socket.
    fn to_unix_address(self) -> Option<Address>;
}

impl ToUnixAddress for () {
    fn to_unix_address(self) -> Option<Address> {
        None
    }
}

impl ToUnixAddress for PathBuf {
    fn to_unix_address(self) -> Option<Address> {
        Some(self.into())
    }
}

impl ToUnixAddress for &PathBuf {
    fn to_unix_address(self) -> Option<Address> {
        self.clone().to_unix_address()
    }
}

impl ToUnixAddress for &Path {
    fn to_unix_address(self) -> Option<Address> {
        self.to_path_buf().to_unix_address()
    }
}

impl ToUnixAddress for &OsStr {
    fn to_unix_address(self) -> Option<Address> {
        Path::new(self).to_unix_address()
    }
}

impl ToUnixAddress for &str {
    fn to_unix_address(self) -> Option<Address> {
        Path::new(self).to_unix_address()
    }
}

impl ToUnixAddress for String {
    fn to_unix_address(self) -> Option<Address> {
        PathBuf::from(self).to_unix_address()
    }
}

impl ToUnixAddress for &String {
    fn to_unix_address(self) -> Option<Address> {
        self.as_str().to_unix_address()
    }
}

impl ToUnixAddress for &[u8] {
    fn to_unix_address(self) -> Option<Address> {
        OsStr::from_bytes(self).to_unix_address()
    }
}

impl<const N: usize> ToUnixAddress for &[u8; N] {
    fn to_unix_address(self) -> Option<Address> {
        self.as_slice().to_unix_address()
    }
}

impl ToUnixAddress for Vec<u8> {
    fn to_unix_address(self) -> Option<Address> {
        self.as_slice().to_unix_address()
    }
}

impl ToUnixAddress for Address {
    fn to_unix_address(self) -> Option<Address> {
        Some(self)
    }
}

impl ToUnixAddress for &Address {
    fn to_unix_address(self) -> Option<Address> {
        Some(self.clone())
    }
}

impl EventLoop {
    /// Connects to the unix socket at `path` and lets a protocol have the connection.
    ///
    /// As [`create_connection`](Self::create_connection) otherwise. `()` for the path goes with
    /// [`sock`](CreateUnixConnection::sock).
    ///
    /// # Cancel safety
    ///
    /// See [`create_connection`](Self::create_connection).
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for arguments that contradict each other; [`Error::Io`] with the path in its text (`NotFound`:
    /// no such file; `ConnectionRefused`: nobody listens there any more).
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
    ///     let path = std::env::temp_dir().join(format!("asyncio-doc-{}", std::process::id()));
    ///     let server = event_loop.create_unix_server(|| Ignore, &path).await?;
    ///     let (transport, _) = event_loop.create_unix_connection(|| Ignore, &path).await?;
    ///     transport.close();
    ///     server.close();
    ///     assert!(!path.exists());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_unix_connection`.
    pub fn create_unix_connection<P, K, F>(&self, factory: F, path: impl ToUnixAddress) -> CreateUnixConnection<F, P, K>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        CreateUnixConnection::prepare(self.clone(), path).with_factory(factory)
    }

    /// Listens on the unix socket at `path`; each connection gets a protocol of the factory's.
    ///
    /// A socket file that is there already is replaced, as its server is gone or has been superseded. The file is
    /// removed when the server is closed, if it is still the server's own. As [`create_server`](Self::create_server)
    /// otherwise; `()` for the path goes with [`sock`](CreateUnixServer::sock).
    ///
    /// # Cancel safety
    ///
    /// See [`create_server`](Self::create_server).
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for arguments that contradict each other; [`Error::Io`] with the path in its text (`AddrInUse`:
    /// something that is no socket is there, or an abstract name is taken).
    ///
    /// asyncio: `loop.create_unix_server`.
    pub fn create_unix_server<P, K, F>(&self, factory: F, path: impl ToUnixAddress) -> CreateUnixServer<F, P, K>
    where
        F: FnMut() -> P + 'static,
        P: StreamProtocol<K>,
    {
        CreateUnixServer::prepare(self.clone(), path).with_factory(factory)
    }
}

/// What [`EventLoop::create_unix_connection`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is connected until it is awaited"]
pub struct CreateUnixConnection<F, P, K> {
    event_loop: EventLoop,
    factory: F,
    address: Option<Address>,
    sock: Option<OwnedFd>,
    ssl_options: SslOptions,
    protocol: PhantomData<fn() -> (P, K)>,
}

impl CreateUnixConnection<(), (), ()> {
    /// A connection that is to get its factory yet.
    pub(crate) fn prepare(event_loop: EventLoop, path: impl ToUnixAddress) -> Self {
        CreateUnixConnection {
            event_loop,
            factory: (),
            address: path.to_unix_address(),
            sock: None,
            ssl_options: SslOptions::default(),
            protocol: PhantomData,
        }
    }

    pub(crate) fn with_factory<P, K, F>(self, factory: F) -> CreateUnixConnection<F, P, K> {
        let CreateUnixConnection { event_loop, address, sock, ssl_options, .. } = self;
        CreateUnixConnection { event_loop, factory, address, sock, ssl_options, protocol: PhantomData }
    }
}

impl<F, P, K> CreateUnixConnection<F, P, K> {
    /// Uses this unix socket, which is connected already. It becomes the transport's, and is closed when the call
    /// fails.
    ///
    /// asyncio: `sock=`.
    pub fn sock(mut self, sock: impl Into<OwnedFd>) -> Self {
        self.sock = Some(sock.into());
        self
    }

    /// Encrypts the connection with TLS: see [`CreateConnection::ssl`](crate::CreateConnection::ssl). The
    /// [name](Self::server_hostname) must be given.
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(mut self, context: &SslContext) -> Self {
        self.ssl_options.context = Some(context.clone());
        self
    }

    /// The name that the other side's certificate must have; needed, for a path is no name. Only with `ssl`, a setter
    /// of the feature `tls`.
    ///
    /// asyncio: `server_hostname=`.
    pub fn server_hostname(mut self, name: impl Into<String>) -> Self {
        self.ssl_options.server_hostname = Some(name.into());
        self
    }

    /// How long the TLS handshake may take; 60 s unless it is set. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.handshake_timeout = Some(timeout);
        self
    }

    /// See [`CreateConnection::ssl_shutdown_timeout`](crate::CreateConnection::ssl_shutdown_timeout). Only with `ssl`,
    /// a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.shutdown_timeout = Some(timeout);
        self
    }

    fn validate(&self) -> Result<Option<TlsOptions>> {
        check_place(self.address.as_ref(), self.sock.as_ref())?;
        self.ssl_options.client(None)
    }
}

/// Refuses what is no place of a unix socket: exactly one of the two is needed.
fn check_place(address: Option<&Address>, sock: Option<&OwnedFd>) -> Result<()> {
    match (address, sock) {
        (Some(_), Some(_)) => Err(Error::Value("path and sock can not be specified at the same time".into())),
        (None, None) => Err(Error::Value("no path and sock were specified".into())),
        (Some(Address::UnixPath(_) | Address::UnixAbstract(_)), None) => Ok(()),
        (Some(address), None) => Err(Error::Value(format!("{address} is not the address of a unix socket").into())),
        (None, Some(fd)) => match socket::parameters(fd.as_fd()) {
            Ok((AF_UNIX, SOCK_STREAM)) => Ok(()),
            _ => Err(Error::Value(format!("A UNIX Domain Stream Socket was expected, got {fd:?}").into())),
        },
    }
}

impl<F, P, K> fmt::Debug for CreateUnixConnection<F, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CreateUnixConnection { address, sock, ssl_options, .. } = self;
        f.debug_struct("CreateUnixConnection")
            .field("address", address)
            .field("sock", sock)
            .field("ssl", ssl_options)
            .finish_non_exhaustive()
    }
}

impl<F: FnOnce() -> P, P: StreamProtocol<K>, K> IntoFuture for CreateUnixConnection<F, P, K> {
    type Output = Result<(Transport, Rc<RefCell<P>>)>;
    type IntoFuture = OpenStream<F, P>;

    fn into_future(self) -> Self::IntoFuture {
        let valid = self.validate();
        let CreateUnixConnection { event_loop, factory, address, sock, .. } = self;
        let home = Home::of(&event_loop);
        OpenStream::new(factory, async move {
            let tls = valid?;
            home.check()?;
            if let Some(fd) = sock {
                return Ok(Prepared::given(home.event_loop()?, fd)?.with_tls(tls));
            }
            let address = address.expect("one of the two was given");
            let fd = socket::open(AF_UNIX, SOCK_STREAM, 0)?;
            let connecting = home.event_loop()?.sock_connect(&fd, &address);
            connecting.await?;
            Ok(Prepared::socket(home.event_loop()?, fd, Some(address)).with_tls(tls))
        })
    }
}

/// What [`EventLoop::create_unix_server`] gives: setters, and the work when it is awaited.
#[must_use = "nothing listens until it is awaited"]
pub struct CreateUnixServer<F, P, K> {
    event_loop: EventLoop,
    factory: F,
    address: Option<Address>,
    sock: Option<OwnedFd>,
    cleanup_socket: bool,
    serving: Serving,
    protocol: PhantomData<fn() -> (P, K)>,
}

impl CreateUnixServer<(), (), ()> {
    /// A server that is to get its factory yet.
    pub(crate) fn prepare(event_loop: EventLoop, path: impl ToUnixAddress) -> Self {
        CreateUnixServer {
            event_loop,
            factory: (),
            address: path.to_unix_address(),
            sock: None,
            cleanup_socket: true,
            serving: Serving::default(),
            protocol: PhantomData,
        }
    }

    pub(crate) fn with_factory<P, K, F>(self, factory: F) -> CreateUnixServer<F, P, K> {
        let CreateUnixServer { event_loop, address, sock, cleanup_socket, serving, .. } = self;
        CreateUnixServer { event_loop, factory, address, sock, cleanup_socket, serving, protocol: PhantomData }
    }
}

impl<F, P, K> CreateUnixServer<F, P, K> {
    /// Uses this bound unix stream socket. It becomes the server's, and is closed when the call fails.
    ///
    /// asyncio: `sock=`.
    pub fn sock(mut self, sock: impl Into<OwnedFd>) -> Self {
        self.sock = Some(sock.into());
        self
    }

    /// Whether the socket file is removed when the server is closed; it is, unless this is switched off.
    ///
    /// asyncio: `cleanup_socket=`.
    pub fn cleanup_socket(mut self, cleanup: bool) -> Self {
        self.cleanup_socket = cleanup;
        self
    }

    /// See [`CreateServer::backlog`](crate::CreateServer::backlog).
    ///
    /// asyncio: `backlog=`.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.serving.backlog = backlog;
        self
    }

    /// See [`CreateServer::start_serving`](crate::CreateServer::start_serving).
    ///
    /// asyncio: `start_serving=`.
    pub fn start_serving(mut self, start: bool) -> Self {
        self.serving.start_serving = start;
        self
    }

    /// See [`CreateServer::max_connections`](crate::CreateServer::max_connections).
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
        check_place(self.address.as_ref(), self.sock.as_ref())?;
        self.serving.validate()
    }
}

impl<F, P, K> fmt::Debug for CreateUnixServer<F, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CreateUnixServer { address, sock, cleanup_socket, serving, .. } = self;
        f.debug_struct("CreateUnixServer")
            .field("address", address)
            .field("sock", sock)
            .field("cleanup_socket", cleanup_socket)
            .field("serving", serving)
            .finish_non_exhaustive()
    }
}

impl<F, P, K> IntoFuture for CreateUnixServer<F, P, K>
where
    F: FnMut() -> P + 'static,
    P: StreamProtocol<K>,
{
    type Output = Result<Server>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Server>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let valid = self.validate();
        let CreateUnixServer { event_loop, mut factory, address, sock, cleanup_socket, serving, .. } = self;
        let home = Home::of(&event_loop);
        drop(event_loop);
        let make = Box::new(move || P::erase(Rc::new(RefCell::new(factory()))));
        Box::pin(async move {
            let tls = valid?;
            let event_loop = home.event_loop()?;
            let fd = match (sock, address) {
                (Some(fd), _) => fd,
                (None, address) => bind(&address.expect("one of the two was given"))?,
            };
            socket::set_nonblocking(&fd, true)?;
            let address = socket::local_address(fd.as_fd()).filter(|_| cleanup_socket);
            let file = address.and_then(|address| SocketFile::of(&address));
            let Serving { backlog, max_connections, .. } = serving;
            let plan = Plan { sockets: vec![fd], make, backlog, max_connections, tls, file };
            serving.serve(&event_loop, plan)
        })
    }
}

/// A socket that is bound to `address`, in the place of a socket that was there.
fn bind(address: &Address) -> Result<OwnedFd> {
    let fd = socket::open(AF_UNIX, SOCK_STREAM, 0)?;
    remove_stale(address);
    match socket::bind(fd.as_fd(), address) {
        Ok(()) => Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
            let in_use = io::Error::from_raw_os_error(libc::EADDRINUSE);
            Err(Error::io(in_use, format!("Address {address} is already in use")))
        }
        Err(error) => Err(bind_failed(address, error)),
    }
}
