//! Outgoing connections.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    future::IntoFuture,
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use crate::{
    combine::staggered::staggered_race,
    constants::HAPPY_EYEBALLS_DELAY,
    error::{Error, ExceptionGroup, Result},
    event_loop::{EventLoop, running},
    net::{
        open::{OpenStream, Prepared},
        options::{SslOptions, TlsOptions},
        sock::{Home, bind_failed, copy_of},
    },
    sys::{
        addr::{Address, Endpoint, ToAddress},
        resolve::{AddrInfo, AddrInfoHints, flags::SOCK_STREAM},
        socket,
    },
    transport::{Transport, protocol::StreamProtocol},
};

#[cfg(feature = "tls")]
use crate::net::options::SslContext;

impl EventLoop {
    /// Connects to `address` and lets a protocol have the connection.
    ///
    /// The work starts when the value is awaited; setters come before. A name is resolved; where it has several
    /// addresses they are raced (RFC 8305): the next one starts when the one before it has failed, or has not answered
    /// within [250 ms](CreateConnection::happy_eyeballs_delay); the first to connect wins and the others are closed.
    /// Then the factory is called, once, and `connection_made` before this returns; data comes after that.
    ///
    /// `()` for the address goes with [`sock`](CreateConnection::sock). The setter `ssl` encrypts; it is there with the
    /// feature `tls`.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves no connection and no descriptor behind, and `connection_lost` is called if
    /// `connection_made` was.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for arguments that contradict each other, before anything is opened. [`Error::Resolve`] for the
    /// name. [`Error::Io`] of the address that was tried, named in the text; where several failed in different ways, of
    /// the first, with all of them in the text; with [`all_errors`](CreateConnection::all_errors) an [`Error::Group`].
    /// [`Error::Runtime`] where no loop runs, [`Error::Value`] in another loop than this one.
    ///
    /// # Panics
    ///
    /// A panic of the factory comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{Protocol, Transport};
    ///
    /// #[derive(Default)]
    /// struct Collect {
    ///     received: Vec<u8>,
    /// }
    ///
    /// impl Protocol for Collect {
    ///     fn connection_made(&mut self, transport: &Transport) {
    ///         transport.write(b"GET / HTTP/1.0\r\n\r\n");
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8]) {
    ///         self.received.extend_from_slice(data);
    ///     }
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///     let port = listener.local_addr()?.port();
    ///     let (transport, protocol) = event_loop.create_connection(Collect::default, ("127.0.0.1", port)).await?;
    ///     assert!(protocol.borrow().received.is_empty());
    ///     transport.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_connection`. Differs: address racing is on by default, as `asyncio.open_connection`'s
    /// users ask for.
    pub fn create_connection<P, K, F>(&self, factory: F, address: impl ToAddress) -> CreateConnection<F, P, K>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        CreateConnection::prepare(self.clone(), address).with_factory(factory)
    }

    /// Lets a protocol have a connection that was accepted elsewhere.
    ///
    /// The socket becomes the transport's, non-blocking, and is closed when this fails.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it closes the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if it is no stream socket, and in another loop than this one; [`Error::Runtime`] where no loop
    /// runs.
    ///
    /// # Panics
    ///
    /// A panic of the factory comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::Protocol;
    ///
    /// struct Ignore;
    ///
    /// impl Protocol for Ignore {
    ///     fn data_received(&mut self, _data: &[u8]) {}
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    ///     let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    ///     let (accepted, _) = listener.accept()?;
    ///     let (transport, _) = event_loop.connect_accepted_socket(|| Ignore, accepted).await?;
    ///     transport.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.connect_accepted_socket`.
    pub fn connect_accepted_socket<P, K, F>(
        &self,
        factory: F,
        sock: impl Into<OwnedFd>,
    ) -> ConnectAcceptedSocket<F, P, K>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        ConnectAcceptedSocket {
            event_loop: self.clone(),
            factory,
            sock: sock.into(),
            ssl_options: SslOptions::default(),
            protocol: PhantomData,
        }
    }
}

/// Whom to connect to, and how.
#[derive(Debug)]
struct Target {
    endpoint: Endpoint,
    family: i32,
    proto: i32,
    flags: i32,
    local_addr: Option<Endpoint>,
    happy_eyeballs_delay: Option<Duration>,
    interleave: Option<usize>,
    all_errors: bool,
}

impl Default for Target {
    fn default() -> Self {
        Target {
            endpoint: Endpoint::None,
            family: 0,
            proto: 0,
            flags: 0,
            local_addr: None,
            happy_eyeballs_delay: Some(HAPPY_EYEBALLS_DELAY),
            interleave: None,
            all_errors: false,
        }
    }
}

/// What [`EventLoop::create_connection`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is connected until it is awaited"]
pub struct CreateConnection<F, P, K> {
    event_loop: EventLoop,
    factory: F,
    target: Target,
    sock: Option<OwnedFd>,
    ssl_options: SslOptions,
    protocol: PhantomData<fn() -> (P, K)>,
}

impl CreateConnection<(), (), ()> {
    /// A connection that is to get its factory yet.
    pub(crate) fn prepare(event_loop: EventLoop, address: impl ToAddress) -> Self {
        CreateConnection {
            event_loop,
            factory: (),
            target: Target { endpoint: address.to_address(), ..Target::default() },
            sock: None,
            ssl_options: SslOptions::default(),
            protocol: PhantomData,
        }
    }

    pub(crate) fn with_factory<P, K, F>(self, factory: F) -> CreateConnection<F, P, K> {
        let CreateConnection { event_loop, target, sock, ssl_options, .. } = self;
        CreateConnection { event_loop, factory, target, sock, ssl_options, protocol: PhantomData }
    }
}

impl<F, P, K> CreateConnection<F, P, K> {
    /// Uses this socket, which is connected already. It becomes the transport's, and is closed when the call fails.
    ///
    /// asyncio: `sock=`.
    pub fn sock(mut self, sock: impl Into<OwnedFd>) -> Self {
        self.sock = Some(sock.into());
        self
    }

    /// Only addresses of this family, an `AF_…` of [`socket`](crate::socket).
    ///
    /// asyncio: `family=`.
    pub fn family(mut self, family: i32) -> Self {
        self.target.family = family;
        self
    }

    /// Only sockets of this protocol, an `IPPROTO_…`.
    ///
    /// asyncio: `proto=`.
    pub fn proto(mut self, proto: i32) -> Self {
        self.target.proto = proto;
        self
    }

    /// The `AI_…` flags of the look-up.
    ///
    /// asyncio: `flags=`.
    pub fn flags(mut self, flags: i32) -> Self {
        self.target.flags = flags;
        self
    }

    /// Binds the socket to this address before it connects; a name is resolved. Only remote addresses of its family are
    /// tried.
    ///
    /// asyncio: `local_addr=`.
    pub fn local_addr(mut self, address: impl ToAddress) -> Self {
        self.target.local_addr = Some(address.to_address());
        self
    }

    /// How long an address has before the next one is tried beside it: 250 ms unless said otherwise. `None` tries one
    /// after the other.
    ///
    /// asyncio: `happy_eyeballs_delay=`. Differs: on by default.
    pub fn happy_eyeballs_delay(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.target.happy_eyeballs_delay = delay.into();
        self
    }

    /// How many addresses of the first family come before families take turns; 0 keeps the resolver's order. 1 while
    /// addresses are raced, else 0.
    ///
    /// asyncio: `interleave=`.
    pub fn interleave(mut self, count: usize) -> Self {
        self.target.interleave = Some(count);
        self
    }

    /// Gives the errors of all addresses as an [`Error::Group`], also where it is only one.
    ///
    /// asyncio: `all_errors=`.
    pub fn all_errors(mut self, all_errors: bool) -> Self {
        self.target.all_errors = all_errors;
        self
    }
}

impl<F, P, K> fmt::Debug for CreateConnection<F, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CreateConnection { target, sock, ssl_options, .. } = self;
        f.debug_struct("CreateConnection")
            .field("target", target)
            .field("sock", sock)
            .field("ssl", ssl_options)
            .finish_non_exhaustive()
    }
}

/// What [`EventLoop::connect_accepted_socket`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is done until it is awaited"]
pub struct ConnectAcceptedSocket<F, P, K> {
    event_loop: EventLoop,
    factory: F,
    sock: OwnedFd,
    ssl_options: SslOptions,
    protocol: PhantomData<fn() -> (P, K)>,
}

impl<F, P, K> CreateConnection<F, P, K> {
    /// Encrypts the connection with TLS, by a context for clients. The protocol hears of its connection when the
    /// handshake is done, and the other side's certificate is good and has the [name](Self::server_hostname) of the
    /// host.
    ///
    /// If not, the call fails, and the protocol is dropped: [`Error::Ssl`] with the reason, or [`Error::Io`],
    /// `ConnectionAborted` when the handshake takes too long and `ConnectionReset` when the other side ends it. With TLS
    /// 1.3 a server refuses a client's certificate after that: `connection_lost` gets the [`Error::Ssl`] then.
    ///
    /// asyncio: `ssl=`. Differs: no `True`; that is [`SslContext::client`].
    #[cfg(feature = "tls")]
    pub fn ssl(mut self, context: &SslContext) -> Self {
        self.ssl_options.context = Some(context.clone());
        self
    }

    /// The name or address that the other side's certificate must have; that of the host, unless it is set. Needed with
    /// [`sock`](Self::sock). An empty one is [`Error::Value`]. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `server_hostname=`. Differs: an empty one does not switch the check off.
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

    /// How long [`Transport::close`] waits for the other side's word, while nothing that was written moves; 30 s unless
    /// it is set. After it `connection_lost` gets [`Error::Timeout`]. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.shutdown_timeout = Some(timeout);
        self
    }

    fn validate(&self) -> Result<Option<TlsOptions>> {
        let Target { endpoint, local_addr, .. } = &self.target;
        let host = match (endpoint, &self.sock) {
            (Endpoint::None, None) => {
                return Err(Error::Value("host and port was not specified and no sock specified".into()));
            }
            (Endpoint::None, Some(_)) if local_addr.is_some() => {
                return Err(Error::Value("local_addr can not be specified with sock".into()));
            }
            (Endpoint::None, Some(_)) => None,
            (_, Some(_)) => {
                return Err(Error::Value("host/port and sock can not be specified at the same time".into()));
            }
            (Endpoint::Host { hosts, .. }, None) => match hosts.as_slice() {
                [host] => host.clone(),
                hosts => {
                    return Err(Error::Value(format!("one host is needed, {} were given", hosts.len()).into()));
                }
            },
            (Endpoint::Address(Address::Inet(address)), None) => Some(address.ip().to_string()),
            (Endpoint::Address(_), None) => {
                return Err(Error::Value("a unix address needs create_unix_connection".into()));
            }
        };
        self.ssl_options.client(host.as_deref())
    }
}

impl<F, P, K> ConnectAcceptedSocket<F, P, K> {
    /// Encrypts the connection with TLS, as the server of it, by a context for servers. The protocol hears of its
    /// connection when the handshake is done; if it fails, the call does: see [`CreateConnection::ssl`].
    ///
    /// asyncio: `ssl=`.
    #[cfg(feature = "tls")]
    pub fn ssl(mut self, context: &SslContext) -> Self {
        self.ssl_options.context = Some(context.clone());
        self
    }

    /// See [`CreateConnection::ssl_handshake_timeout`]. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.handshake_timeout = Some(timeout);
        self
    }

    /// See [`CreateConnection::ssl_shutdown_timeout`]. Only with `ssl`, a setter of the feature `tls`.
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.shutdown_timeout = Some(timeout);
        self
    }
}

impl<F, P, K> fmt::Debug for ConnectAcceptedSocket<F, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectAcceptedSocket { sock, ssl_options, .. } = self;
        f.debug_struct("ConnectAcceptedSocket").field("sock", sock).field("ssl", ssl_options).finish_non_exhaustive()
    }
}

impl<F: FnOnce() -> P, P: StreamProtocol<K>, K> IntoFuture for CreateConnection<F, P, K> {
    type Output = Result<(Transport, Rc<RefCell<P>>)>;
    type IntoFuture = OpenStream<F, P>;

    fn into_future(self) -> Self::IntoFuture {
        let valid = self.validate();
        let CreateConnection { event_loop, factory, target, sock, .. } = self;
        let home = Home::of(&event_loop);
        OpenStream::new(factory, async move {
            let tls = valid?;
            home.check()?;
            if let Some(fd) = sock {
                return Ok(Prepared::given(home.event_loop()?, fd)?.with_tls(tls));
            }
            let (fd, peer) = target.connect(&home).await?;
            Ok(Prepared::socket(home.event_loop()?, fd, Some(peer)).with_tls(tls))
        })
    }
}

impl<F: FnOnce() -> P, P: StreamProtocol<K>, K> IntoFuture for ConnectAcceptedSocket<F, P, K> {
    type Output = Result<(Transport, Rc<RefCell<P>>)>;
    type IntoFuture = OpenStream<F, P>;

    fn into_future(self) -> Self::IntoFuture {
        let ConnectAcceptedSocket { event_loop, factory, sock, ssl_options, .. } = self;
        let home = Home::of(&event_loop);
        OpenStream::new(factory, async move {
            let tls = ssl_options.server()?;
            Ok(Prepared::given(home.event_loop()?, sock)?.with_tls(tls))
        })
    }
}

impl Target {
    /// A connected socket, and the address that it is connected to.
    async fn connect(self, home: &Home) -> Result<(OwnedFd, Address)> {
        let hints = AddrInfoHints { socket_type: SOCK_STREAM, ..self.hints() };
        let mut remotes = home.resolve_all(&self.endpoint, hints).await?;
        let locals = match &self.local_addr {
            Some(endpoint) => Some(home.resolve_all(endpoint, hints).await?),
            None => None,
        };
        let interleaved = self.interleave.unwrap_or(usize::from(self.happy_eyeballs_delay.is_some()));
        if interleaved > 0 {
            remotes = interleave(remotes, interleaved);
        }
        let locals: Option<Rc<[AddrInfo]>> = locals.map(Rc::from);
        let errors = match (self.happy_eyeballs_delay, remotes.len()) {
            (Some(delay), 2..) => {
                let attempts = remotes.into_iter().map(|remote| {
                    let locals = locals.clone();
                    move || connect_one(remote, locals)
                });
                let race = staggered_race(attempts, delay).await?;
                if let Some(connected) = race.winner_result {
                    return Ok(connected);
                }
                race.exceptions.into_iter().flatten().collect()
            }
            _ => {
                let mut errors = Vec::new();
                for remote in remotes {
                    match connect_one(remote, locals.clone()).await {
                        Ok(connected) => return Ok(connected),
                        Err(error) if error.is_cancelled() => return Err(error),
                        Err(error) => errors.push(error),
                    }
                }
                errors
            }
        };
        Err(self.failure(errors))
    }

    fn hints(&self) -> AddrInfoHints {
        AddrInfoHints::new().family(self.family).protocol(self.proto).flags(self.flags)
    }

    /// What a connect gives that has failed everywhere; there was at least one address.
    fn failure(&self, mut errors: Vec<Error>) -> Error {
        if self.all_errors {
            let group = ExceptionGroup::new("create_connection failed", errors);
            return group.map_or_else(|error| error, Error::Group);
        }
        let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
        if texts.windows(2).all(|pair| pair[0] == pair[1]) {
            return errors.swap_remove(0);
        }
        let text = format!("Multiple exceptions: {}", texts.join(", "));
        match errors.swap_remove(0) {
            Error::Io(first) => Error::io(copy_of(first.io_error()), text),
            _ => Error::io(io::ErrorKind::Other.into(), text),
        }
    }
}

/// One attempt: a socket of its own, bound if that is wanted, connected.
async fn connect_one(remote: AddrInfo, locals: Option<Rc<[AddrInfo]>>) -> Result<(OwnedFd, Address)> {
    let socket = socket::open(remote.family, remote.socket_type, remote.protocol)?;
    if let Some(locals) = locals {
        bind_one(&socket, remote.family, &locals)?;
    }
    let address = Address::Inet(remote.address);
    let connecting = running::require()?.sock_connect(&socket, &address);
    connecting.await?;
    // Any address of this machine leads to one of them: the system knows which.
    let is_any = remote.address.ip().is_unspecified();
    let peer = is_any.then(|| socket::peer_address(socket.as_fd())).flatten();
    Ok((socket, peer.unwrap_or(address)))
}

/// Binds the socket to the first of these addresses that works.
fn bind_one(socket: &OwnedFd, family: i32, locals: &[AddrInfo]) -> Result<()> {
    let mut failure = Error::io(
        io::ErrorKind::AddrNotAvailable.into(),
        format!("no matching local address with family={family} found"),
    );
    for local in locals.iter().filter(|local| local.family == family) {
        match socket::bind(socket.as_fd(), &Address::Inet(local.address)) {
            Ok(()) => return Ok(()),
            Err(error) => failure = bind_failed(local.address, error),
        }
    }
    Err(failure)
}

/// Lets families take turns, after `first_count` addresses of the first one.
fn interleave(addresses: Vec<AddrInfo>, first_count: usize) -> Vec<AddrInfo> {
    let mut families: Vec<(i32, VecDeque<AddrInfo>)> = Vec::new();
    for address in addresses {
        match families.iter_mut().find(|(family, _)| *family == address.family) {
            Some((_, members)) => members.push_back(address),
            None => families.push((address.family, VecDeque::from([address]))),
        }
    }
    let mut ordered = Vec::new();
    if let Some((_, first)) = families.first_mut() {
        let ahead = first_count.saturating_sub(1).min(first.len());
        ordered.extend(first.drain(..ahead));
    }
    while families.iter().any(|(_, members)| !members.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(|(_, members)| members.pop_front()));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<AddrInfo> {
        texts.iter().map(|text| AddrInfo::new(text.parse().unwrap(), SOCK_STREAM)).collect()
    }

    /// CON-022
    #[test]
    fn families_take_turns() {
        const LIST: [&str; 5] = ["[::a]:1", "[::b]:1", "[::c]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let cases = [
            (1, ["[::a]:1", "1.1.1.1:1", "[::b]:1", "2.2.2.2:1", "[::c]:1"]),
            (2, ["[::a]:1", "[::b]:1", "1.1.1.1:1", "[::c]:1", "2.2.2.2:1"]),
            (9, LIST),
        ];
        for (count, expected) in cases {
            let ordered = interleave(addresses(&LIST), count);
            assert_eq!(ordered, addresses(&expected), "{count}");
        }
        assert!(interleave(Vec::new(), 1).is_empty());
    }
}
