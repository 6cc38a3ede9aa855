//! Opening datagram endpoints.

use std::{
    cell::RefCell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
};

use crate::{
    endpoints::datagram::{DatagramEndpoint, DatagramOpening},
    error::{Error, Result},
    event_loop::EventLoop,
    net::{
        sock::{Home, bind_failed},
        socket_file::remove_stale,
    },
    sys::{
        addr::{Address, Endpoint, ToAddress},
        resolve::{
            AddrInfo, AddrInfoHints,
            flags::{AF_UNIX, AI_PASSIVE, SOCK_DGRAM, SOCK_STREAM},
        },
        socket,
    },
    transport::datagram::{AnyDatagramProtocol, DatagramProtocol, DatagramTransport},
};

impl EventLoop {
    /// Opens a socket for datagrams and lets a protocol have it.
    ///
    /// The work starts when the value is awaited; setters come before, and at least one of
    /// [`local_addr`](CreateDatagramEndpoint::local_addr), [`remote_addr`](CreateDatagramEndpoint::remote_addr),
    /// [`family`](CreateDatagramEndpoint::family) and [`sock`](CreateDatagramEndpoint::sock) is needed. The first pair of
    /// addresses that can be opened is taken. Then the factory is called, once, and `connection_made` before this
    /// returns; datagrams come after that.
    ///
    /// A path for an address, or the family `AF_UNIX`, makes a unix socket: a socket file that is at the local path is
    /// replaced, and stays there after the end.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves no descriptor behind, and `connection_lost` is called if `connection_made` was.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for arguments that are missing or contradict each other, before anything is opened, and for two
    /// names that have no family in common. [`Error::Resolve`] for a name. [`Error::Io`] of the first address that was
    /// tried, named in the text. [`Error::Runtime`] where no loop runs, [`Error::Value`] in another loop than this one.
    ///
    /// # Panics
    ///
    /// A panic of the factory comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{Address, DatagramProtocol, DatagramTransport, Future, SOCKNAME};
    ///
    /// struct Upper(Option<DatagramTransport>);
    ///
    /// impl DatagramProtocol for Upper {
    ///     fn connection_made(&mut self, transport: &DatagramTransport) {
    ///         self.0 = Some(transport.clone());
    ///     }
    ///
    ///     fn datagram_received(&mut self, data: &[u8], sender: &Address) {
    ///         if let Some(transport) = &self.0 {
    ///             transport.sendto(&data.to_ascii_uppercase(), sender);
    ///         }
    ///     }
    /// }
    ///
    /// struct Ask(Future<Vec<u8>>);
    ///
    /// impl DatagramProtocol for Ask {
    ///     fn connection_made(&mut self, transport: &DatagramTransport) {
    ///         transport.sendto(b"hello", None);
    ///     }
    ///
    ///     fn datagram_received(&mut self, data: &[u8], _sender: &Address) {
    ///         let _ = self.0.set_result(data.into()); // done already if the answer came twice
    ///     }
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (server, _) =
    ///         event_loop.create_datagram_endpoint(|| Upper(None)).local_addr(("127.0.0.1", 0)).await?;
    ///     let address = server.get_extra_info(SOCKNAME).expect("it is bound");
    ///     let answer = event_loop.create_future();
    ///     let (client, _) = event_loop.create_datagram_endpoint(|| Ask(answer.clone())).remote_addr(address).await?;
    ///     assert_eq!(answer.await?, b"HELLO");
    ///     client.close();
    ///     server.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.create_datagram_endpoint`. Differs: a path needs no `family`.
    pub fn create_datagram_endpoint<'f, P: DatagramProtocol>(
        &self,
        factory: impl FnOnce() -> P + 'f,
    ) -> CreateDatagramEndpoint<'f, P> {
        CreateDatagramEndpoint {
            event_loop: self.clone(),
            factory: Box::new(factory),
            sock: None,
            ends: Ends::default(),
        }
    }
}

/// What [`EventLoop::create_datagram_endpoint`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is opened until it is awaited"]
pub struct CreateDatagramEndpoint<'f, P> {
    event_loop: EventLoop,
    factory: Box<dyn FnOnce() -> P + 'f>,
    sock: Option<OwnedFd>,
    ends: Ends,
}

impl<P> CreateDatagramEndpoint<'_, P> {
    /// Receives at this address: one host with a port, of which 0 lets the system choose one, or a path.
    ///
    /// asyncio: `local_addr=`.
    pub fn local_addr(mut self, address: impl ToAddress) -> Self {
        self.ends.local = address.to_address();
        self
    }

    /// Connects to this address: only from there datagrams come, and only there they go.
    ///
    /// With [`allow_broadcast`](Self::allow_broadcast) they go only there, and may come from anywhere.
    ///
    /// asyncio: `remote_addr=`.
    pub fn remote_addr(mut self, address: impl ToAddress) -> Self {
        self.ends.remote = address.to_address();
        self
    }

    /// Only addresses of this family, an `AF_…` of [`socket`](crate::socket).
    ///
    /// asyncio: `family=`.
    pub fn family(mut self, family: i32) -> Self {
        self.ends.family = family;
        self
    }

    /// Only sockets of this protocol, an `IPPROTO_…` of [`socket`](crate::socket).
    ///
    /// asyncio: `proto=`.
    pub fn proto(mut self, proto: i32) -> Self {
        self.ends.proto = proto;
        self
    }

    /// The `AI_…` flags for the look-up of names.
    ///
    /// asyncio: `flags=`.
    pub fn flags(mut self, flags: i32) -> Self {
        self.ends.flags = flags;
        self
    }

    /// Lets several sockets receive at one address: each sender's datagrams go to one of them.
    ///
    /// asyncio: `reuse_port=`.
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.ends.reuse_port = reuse_port;
        self
    }

    /// Lets datagrams go to broadcast addresses. The socket is not connected then, because answers come from others.
    ///
    /// asyncio: `allow_broadcast=`.
    pub fn allow_broadcast(mut self, allow_broadcast: bool) -> Self {
        self.ends.allow_broadcast = allow_broadcast;
        self
    }

    /// Uses this socket, bound and connected as it is. It becomes the endpoint's, non-blocking, and is closed when the
    /// call fails. No other setter goes with it.
    ///
    /// asyncio: `sock=`.
    pub fn sock(mut self, sock: impl Into<OwnedFd>) -> Self {
        self.sock = Some(sock.into());
        self
    }
}

impl<P> fmt::Debug for CreateDatagramEndpoint<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CreateDatagramEndpoint { sock, ends, .. } = self;
        f.debug_struct("CreateDatagramEndpoint").field("sock", sock).field("ends", ends).finish_non_exhaustive()
    }
}

impl<'f, P: DatagramProtocol> IntoFuture for CreateDatagramEndpoint<'f, P> {
    type Output = Result<(DatagramTransport, Rc<RefCell<P>>)>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Self::Output> + 'f>>;

    fn into_future(self) -> Self::IntoFuture {
        let CreateDatagramEndpoint { event_loop, factory, sock, ends } = self;
        let home = Home::of(&event_loop);
        // A future that holds its loop would keep it alive.
        drop(event_loop);
        Box::pin(async move {
            let (fd, remote) = match sock {
                Some(sock) => (given(&ends, sock)?, None),
                None => {
                    ends.validate()?;
                    home.check()?;
                    ends.open(&home).await?
                }
            };
            let event_loop = home.event_loop()?;
            let protocol = Rc::new(RefCell::new(factory()));
            let opener = event_loop.create_future();
            let opening =
                DatagramOpening { fd, remote, protocol: AnyDatagramProtocol(protocol.clone()), opener: opener.clone() };
            let mut endpoint = Unclaimed(Some(DatagramEndpoint::open(&event_loop, opening)?));
            drop(event_loop);
            opener.await?;
            let endpoint = endpoint.0.take().expect("nobody else takes it");
            Ok((DatagramTransport(endpoint), protocol))
        })
    }
}

/// An endpoint that nobody has yet: given up where its opening is.
struct Unclaimed(Option<Rc<DatagramEndpoint>>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(endpoint) = self.0.take() {
            endpoint.abandon();
        }
    }
}

/// Checks and prepares a socket that the caller gave.
fn given(ends: &Ends, sock: OwnedFd) -> Result<OwnedFd> {
    match socket::parameters(sock.as_fd()) {
        Ok((_, socket_type)) if !matches!(socket_type, SOCK_STREAM | libc::SOCK_SEQPACKET) => {}
        _ => return Err(Error::Value(format!("A datagram socket was expected, got {sock:?}").into())),
    }
    let given = ends.given();
    if !given.is_empty() {
        let text = "socket modifier keyword arguments can not be used when sock is specified";
        return Err(Error::Value(format!("{text}. ({})", given.join(", ")).into()));
    }
    socket::set_nonblocking(&sock, true)?;
    Ok(sock)
}

/// Between which addresses datagrams are to go, and how.
#[derive(Debug)]
struct Ends {
    local: Endpoint,
    remote: Endpoint,
    family: i32,
    proto: i32,
    flags: i32,
    reuse_port: bool,
    allow_broadcast: bool,
}

impl Default for Ends {
    fn default() -> Self {
        let (local, remote) = (Endpoint::None, Endpoint::None);
        Ends { local, remote, family: 0, proto: 0, flags: 0, reuse_port: false, allow_broadcast: false }
    }
}

/// What one attempt opens.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    family: i32,
    protocol: i32,
    local: Option<Address>,
    remote: Option<Address>,
}

impl Ends {
    /// The arguments that differ from their defaults, as the caller would write them.
    fn given(&self) -> Vec<String> {
        let Ends { local, remote, family, proto, flags, reuse_port, allow_broadcast } = self;
        let addresses = [("local_addr", local), ("remote_addr", remote)].map(|(name, endpoint)| match endpoint {
            Endpoint::None => None,
            endpoint => Some(format!("{name}={endpoint:?}")),
        });
        let numbers = [("family", family), ("proto", proto), ("flags", flags)];
        let numbers = numbers.map(|(name, number)| (*number != 0).then(|| format!("{name}={number}")));
        let switches = [("reuse_port", reuse_port), ("allow_broadcast", allow_broadcast)];
        let switches = switches.map(|(name, on)| on.then(|| format!("{name}=true")));
        addresses.into_iter().chain(numbers).chain(switches).flatten().collect()
    }

    fn is_unix(&self) -> bool {
        let is_path = |endpoint: &Endpoint| unix_address(endpoint).is_some();
        self.family == AF_UNIX || is_path(&self.local) || is_path(&self.remote)
    }

    fn validate(&self) -> Result<()> {
        let given = [("local_addr", &self.local), ("remote_addr", &self.remote)];
        let mut given = given.into_iter().filter(|(_, endpoint)| **endpoint != Endpoint::None).peekable();
        if given.peek().is_none() && self.family == 0 {
            return Err(Error::Value("unexpected address family: an address or a family is needed".into()));
        }
        let is_unix = self.is_unix();
        if is_unix && !matches!(self.family, 0 | AF_UNIX) {
            return Err(Error::Value(format!("family={} does not go with a path", self.family).into()));
        }
        for (name, endpoint) in given {
            match (endpoint, unix_address(endpoint)) {
                (_, Some(Address::Unnamed)) => return Err(Error::Value(format!("{name} has no name").into())),
                (_, Some(address)) => {
                    // Only whether there is one.
                    address.to_sock_addr()?;
                }
                (_, None) if is_unix => {
                    return Err(Error::Value(format!("{name} must be a path, as the socket is a unix one").into()));
                }
                (Endpoint::Host { hosts, .. }, None) if hosts.len() != 1 => {
                    return Err(Error::Value(format!("{name} needs one host, {} were given", hosts.len()).into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the first place that can be opened: the socket, and where everything is to go.
    async fn open(self, home: &Home) -> Result<(OwnedFd, Option<Address>)> {
        let mut failure = None;
        for place in self.places(home).await? {
            match self.open_one(home, &place).await {
                Ok(socket) => return Ok((socket, place.remote)),
                Err(error @ Error::Io(_)) => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(failure.expect("there is at least one place"))
    }

    /// What can be tried; at least one place.
    async fn places(&self, home: &Home) -> Result<Vec<Place>> {
        let nowhere = self.local == Endpoint::None && self.remote == Endpoint::None;
        if nowhere || self.is_unix() {
            let family = if nowhere { self.family } else { AF_UNIX };
            let (local, remote) = (unix_address(&self.local).cloned(), unix_address(&self.remote).cloned());
            return Ok(vec![Place { family, protocol: self.proto, local, remote }]);
        }
        let mut places: Vec<Place> = Vec::new();
        for (endpoint, is_local) in [(&self.local, true), (&self.remote, false)] {
            if *endpoint == Endpoint::None {
                continue;
            }
            for info in home.resolve_all(endpoint, self.hints(endpoint, is_local)).await? {
                let AddrInfo { family, protocol, address, .. } = info;
                let known = places.iter_mut().find(|place| (place.family, place.protocol) == (family, protocol));
                let place = match known {
                    Some(place) => place,
                    None => {
                        places.push(Place { family, protocol, local: None, remote: None });
                        places.last_mut().expect("it was pushed just now")
                    }
                };
                let end = if is_local { &mut place.local } else { &mut place.remote };
                end.get_or_insert(address.into());
            }
        }
        let (needs_local, needs_remote) = (self.local != Endpoint::None, self.remote != Endpoint::None);
        places.retain(|place| place.local.is_some() == needs_local && place.remote.is_some() == needs_remote);
        if places.is_empty() {
            return Err(Error::Value("can not get address information: no family has both addresses".into()));
        }
        Ok(places)
    }

    /// No host means any interface to receive at, and this machine to send to.
    fn hints(&self, endpoint: &Endpoint, is_local: bool) -> AddrInfoHints {
        let any = matches!(endpoint, Endpoint::Host { hosts, .. }
            if hosts.iter().all(|host| host.as_ref().is_none_or(String::is_empty)));
        let flags = self.flags | if is_local && any { AI_PASSIVE } else { 0 };
        AddrInfoHints::new().family(self.family).socket_type(SOCK_DGRAM).protocol(self.proto).flags(flags)
    }

    async fn open_one(&self, home: &Home, place: &Place) -> Result<OwnedFd> {
        let fd = socket::open(place.family, SOCK_DGRAM, place.protocol)?;
        if self.reuse_port {
            socket::set_reuse_port(fd.as_fd())?;
        }
        if self.allow_broadcast {
            socket::set_broadcast(fd.as_fd())?;
        }
        if let Some(local) = &place.local {
            remove_stale(local);
            socket::bind(fd.as_fd(), local).map_err(|error| bind_failed(local, error))?;
        }
        if let Some(remote) = place.remote.as_ref().filter(|_| !self.allow_broadcast) {
            let connecting = home.event_loop()?.sock_connect(&fd, remote);
            connecting.await?;
        }
        Ok(fd)
    }
}

/// The address of a unix socket, if it is one.
fn unix_address(endpoint: &Endpoint) -> Option<&Address> {
    match endpoint {
        Endpoint::Address(address) if address.as_inet().is_none() => Some(address),
        _ => None,
    }
}
