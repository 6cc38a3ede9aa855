//! Names to addresses and back, without blocking the loop.

use std::{
    cell::RefCell,
    future::{Future as StdFuture, IntoFuture},
    net::SocketAddr,
    panic::Location,
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use crate::{
    constants::RESOLVER_THREADS,
    error::{Error, Result},
    event_loop::{EventLoop, slots},
    future::Future,
    net::sock::Home,
    sys::{
        addr::{Address, Endpoint, Port},
        resolve::{self, AddrInfo, AddrInfoHints, Resolver, SystemResolver},
        thread_pool::{Executor, ThreadPool},
    },
};

/// A loop's resolver and the threads it runs in: few, and apart from the executor's.
struct Names {
    resolver: RefCell<Arc<dyn Resolver>>,
    /// Whether literal addresses may be answered without asking the resolver.
    threads: ThreadPool,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            resolver: RefCell::new(Arc::new(SystemResolver)),
            threads: ThreadPool::with_name(RESOLVER_THREADS, "asyncio-resolver"),
        }
    }
}

impl EventLoop {
    /// Resolves a host and a port, as the system's `getaddrinfo`: in a thread, unless both are numbers.
    ///
    /// The port is a number or the name of a service. Setters narrow the answer; `.await` starts the work.
    ///
    /// # Cancel safety
    ///
    /// A lookup that has begun goes on in its thread; its answer is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with the resolver's code; [`Error::Value`] for what can be no name; [`Error::Runtime`] if the
    /// loop is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::socket::{AF_INET, SOCK_STREAM};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let found = event_loop.getaddrinfo("127.0.0.1", 80).family(AF_INET).socket_type(SOCK_STREAM).await?;
    ///     assert_eq!(found[0].address, "127.0.0.1:80".parse().expect("an address"));
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.getaddrinfo`. Differs: `type` is a word of Rust's, so it is `socket_type`.
    #[track_caller]
    pub fn getaddrinfo<'h>(&self, host: impl Into<Option<&'h str>>, port: impl Into<Port>) -> GetAddrInfo {
        GetAddrInfo {
            event_loop: self.clone(),
            host: host.into().map(str::to_owned),
            port: port.into(),
            hints: AddrInfoHints::new(),
            created: Location::caller(),
        }
    }

    /// Gives the names of an address's host and service, as the system's `getnameinfo`, in a thread.
    ///
    /// `flags` are the `NI_…` of [`socket`](crate::socket), zero for none. The work starts at once.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with the resolver's code; [`Error::Runtime`] if the loop is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::socket::{NI_NUMERICHOST, NI_NUMERICSERV};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let address = "127.0.0.1:80".parse().expect("an address");
    ///     let names = event_loop.getnameinfo(address, NI_NUMERICHOST | NI_NUMERICSERV).await?;
    ///     assert_eq!(names, ("127.0.0.1".into(), "80".into()));
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.getnameinfo`.
    #[track_caller]
    pub fn getnameinfo(
        &self,
        address: SocketAddr,
        flags: i32,
    ) -> impl StdFuture<Output = Result<(String, String)>> + use<> {
        let created = Location::caller();
        let answer = self.names().map(|names| {
            let resolver = names.resolver.borrow().clone();
            self.submit(&names.threads, move || resolver.getnameinfo(address, flags), created)
        });
        async move { answer?.await? }
    }

    /// Lets `resolver` answer this loop's lookups, in the resolver's threads.
    ///
    /// Literal addresses with numeric ports are answered without it.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{AddrInfo, AddrInfoHints, Port, Resolver, Result, socket};
    ///
    /// struct Fixed;
    ///
    /// impl Resolver for Fixed {
    ///     fn getaddrinfo(&self, _host: Option<&str>, _port: &Port, _hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
    ///         let address = "127.0.0.1:80".parse().expect("an address");
    ///         Ok(vec![AddrInfo::new(address, socket::SOCK_STREAM)])
    ///     }
    /// }
    ///
    /// let event_loop = asyncio::new_event_loop()?;
    /// event_loop.set_resolver(Fixed)?;
    /// let found = event_loop.run_until_complete(event_loop.getaddrinfo("example.org", 80))?;
    /// assert_eq!(found.len(), 1);
    /// # asyncio::ok(())
    /// ```
    pub fn set_resolver(&self, resolver: impl Resolver + 'static) -> Result<()> {
        let before = self.names()?.resolver.replace(Arc::new(resolver));
        drop(before);
        Ok(())
    }

    fn names(&self) -> Result<Rc<Names>> {
        self.check_open()?;
        Ok(self.slots().get_or_init(slots::RESOLVER, Names::default))
    }

    fn look_up(
        &self,
        host: Option<String>,
        port: Port,
        hints: AddrInfoHints,
        created: &'static Location<'static>,
    ) -> Result<LookUp> {
        let names = self.names()?;
        if let Some(answer) = resolve::numeric(host.as_deref(), &port, hints) {
            return Ok(LookUp::Known(answer));
        }
        let resolver = names.resolver.borrow().clone();
        let job = move || resolver.getaddrinfo(host.as_deref(), &port, hints);
        let threads: &dyn Executor = &names.threads;
        Ok(LookUp::Asked(self.submit(threads, job, created)))
    }
}

impl Home {
    /// All addresses of `endpoint`: at least one.
    pub(crate) async fn resolve_all(&self, endpoint: &Endpoint, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        let (hosts, port) = match endpoint {
            Endpoint::Address(Address::Inet(address)) => {
                let family = family_of(address);
                if hints.family != 0 && hints.family != family {
                    let text = format!("{address} is not an address of family {}", hints.family);
                    return Err(Error::resolve(resolve::flags::EAI_NONAME, text));
                }
                let mut info = AddrInfo::new(*address, hints.socket_type);
                if hints.protocol != 0 {
                    info.protocol = hints.protocol;
                }
                return Ok(vec![info]);
            }
            Endpoint::Host { hosts, port } => (hosts, port),
            Endpoint::Address(address) => {
                return Err(Error::Value(format!("{address} is not an address of IP").into()));
            }
            Endpoint::None => return Err(Error::Value("an address is needed".into())),
        };
        let mut found = Vec::new();
        for host in hosts {
            let host = host.clone().filter(|host| !host.is_empty());
            let asked = self.event_loop()?.look_up(host, port.clone(), hints, Location::caller())?;
            for info in asked.answer().await? {
                // A resolver may take the family for a wish.
                let wanted = hints.family == 0 || hints.family == info.family;
                // A name and its address, or two names of one machine, are one place.
                if wanted && !found.contains(&info) {
                    found.push(info);
                }
            }
        }
        if found.is_empty() {
            return Err(Error::io(std::io::ErrorKind::NotFound.into(), "getaddrinfo() returned empty list"));
        }
        Ok(found)
    }

    /// The address that a socket of this family and type is to use for `endpoint`.
    pub(crate) async fn resolve_one(&self, endpoint: Endpoint, family: i32, socket_type: i32) -> Result<Address> {
        let (hosts, port) = match endpoint {
            Endpoint::Address(address) => return Ok(address),
            Endpoint::Host { hosts, port } => (hosts, port),
            Endpoint::None => return Err(Error::Value("an address is needed".into())),
        };
        let host = match <[_; 1]>::try_from(hosts) {
            Ok([host]) => host,
            Err(hosts) => {
                return Err(Error::Value(format!("one host is needed, {} were given", hosts.len()).into()));
            }
        };
        let name = host.clone().unwrap_or_default();
        let hints = AddrInfoHints::new().family(family).socket_type(socket_type);
        let asked = self.event_loop()?.look_up(host, port, hints, Location::caller())?;
        let found = asked.answer().await?;
        let first = found.into_iter().find(|info| family_of(&info.address) == family || family == 0);
        let none =
            || Error::resolve(resolve::flags::EAI_NONAME, format!("no address of the socket's family for {name:?}"));
        first.map(|info| Address::Inet(info.address)).ok_or_else(none)
    }
}

fn family_of(address: &SocketAddr) -> i32 {
    if address.is_ipv4() { resolve::flags::AF_INET } else { resolve::flags::AF_INET6 }
}

enum LookUp {
    Known(Result<Vec<AddrInfo>>),
    Asked(Future<Result<Vec<AddrInfo>>>),
}

impl LookUp {
    async fn answer(self) -> Result<Vec<AddrInfo>> {
        match self {
            LookUp::Known(answer) => answer,
            LookUp::Asked(future) => future.await?,
        }
    }
}

/// What [`EventLoop::getaddrinfo`] gives: setters, and the work when it is awaited.
#[derive(Debug)]
#[must_use = "nothing is looked up until it is awaited"]
pub struct GetAddrInfo {
    event_loop: EventLoop,
    host: Option<String>,
    port: Port,
    hints: AddrInfoHints,
    created: &'static Location<'static>,
}

impl GetAddrInfo {
    /// Only addresses of this family, an `AF_…`.
    ///
    /// asyncio: `family=`.
    pub fn family(mut self, family: i32) -> Self {
        self.hints = self.hints.family(family);
        self
    }

    /// Only for sockets of this type, a `SOCK_…`.
    ///
    /// asyncio: `type=`.
    pub fn socket_type(mut self, socket_type: i32) -> Self {
        self.hints = self.hints.socket_type(socket_type);
        self
    }

    /// Only for this protocol, an `IPPROTO_…`.
    ///
    /// asyncio: `proto=`.
    pub fn proto(mut self, proto: i32) -> Self {
        self.hints = self.hints.protocol(proto);
        self
    }

    /// The `AI_…` flags.
    ///
    /// asyncio: `flags=`.
    pub fn flags(mut self, flags: i32) -> Self {
        self.hints = self.hints.flags(flags);
        self
    }
}

impl IntoFuture for GetAddrInfo {
    type Output = Result<Vec<AddrInfo>>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Vec<AddrInfo>>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let GetAddrInfo { event_loop, host, port, hints, created } = self;
        Box::pin(async move {
            let asked = event_loop.look_up(host, port, hints, created);
            // A future that holds its loop would keep it alive.
            drop(event_loop);
            asked?.answer().await
        })
    }
}
