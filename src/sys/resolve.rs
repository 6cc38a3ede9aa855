//! Names to addresses and back: what a resolver is, and the system's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
};

use dns_lookup::LookupError;

use crate::{
    error::{Error, Result},
    sys::addr::Port,
};

/// Turns host names into addresses and addresses into names: the system's, or one of your own.
///
/// The calls may wait: the loop makes them on threads of its own, several at a time.
///
/// # Examples
///
/// A resolver for a test that must not ask the network:
///
/// ```
/// use asyncio::{AddrInfo, AddrInfoHints, Error, Port, Resolver, Result, socket};
///
/// struct OneHost;
///
/// impl Resolver for OneHost {
///     fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
///         match (host, port) {
///             (Some("server.test"), Port::Number(port)) => {
///                 Ok(vec![AddrInfo::new(([127, 0, 0, 1], *port).into(), hints.socket_type)])
///             }
///             _ => Err(Error::resolve(socket::EAI_NONAME, "Name or service not known")),
///         }
///     }
/// }
///
/// let found = OneHost.getaddrinfo(Some("server.test"), &Port::Number(80), AddrInfoHints::new())?;
/// assert_eq!(found[0].address.to_string(), "127.0.0.1:80");
/// # asyncio::ok(())
/// ```
///
/// asyncio: an override of `loop.getaddrinfo` and `loop.getnameinfo`.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a resolver", label = "cannot look up names")]
pub trait Resolver: Send + Sync {
    /// The addresses of a host and port, best first.
    ///
    /// No host means this machine: any interface with the flag `AI_PASSIVE`, loopback without it.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with one of the codes `EAI_…`: `EAI_AGAIN` may pass by itself, the others will not.
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>>;

    /// The names of an address: host and service.
    ///
    /// Asks the system, if not overridden.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with one of the codes `EAI_…`.
    fn getnameinfo(&self, address: SocketAddr, flags: i32) -> Result<(String, String)> {
        SystemResolver.getnameinfo(address, flags)
    }
}

/// One address that a name stands for, with what a socket for it is made of.
///
/// `Threads:` may cross them.
///
/// asyncio: a tuple of `getaddrinfo`'s list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrInfo {
    /// The address family, for example `AF_INET`.
    pub family: i32,
    /// The socket type, for example `SOCK_STREAM`.
    pub socket_type: i32,
    /// The protocol, for example `IPPROTO_TCP`.
    pub protocol: i32,
    /// The canonical name of the host, on the first entry if `AI_CANONNAME` asked for it; else empty.
    pub canonical_name: String,
    /// The address with the port.
    pub address: SocketAddr,
}

impl AddrInfo {
    /// An answer of an own [`Resolver`], with the family of `address` and the usual protocol of `socket_type`.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{AddrInfo, socket};
    ///
    /// let info = AddrInfo::new(([127, 0, 0, 1], 80).into(), socket::SOCK_STREAM);
    /// assert_eq!((info.family, info.protocol), (socket::AF_INET, socket::IPPROTO_TCP));
    /// ```
    ///
    /// asyncio: a tuple `(family, type, proto, canonname, sockaddr)`.
    pub fn new(address: SocketAddr, socket_type: i32) -> Self {
        let family = if address.is_ipv4() { flags::AF_INET } else { flags::AF_INET6 };
        let protocol = match socket_type {
            flags::SOCK_STREAM => flags::IPPROTO_TCP,
            flags::SOCK_DGRAM => flags::IPPROTO_UDP,
            _ => 0,
        };
        AddrInfo { family, socket_type, protocol, canonical_name: String::new(), address }
    }
}

/// Which addresses [`Resolver::getaddrinfo`] shall give; 0 is no wish.
///
/// # Examples
///
/// ```
/// use asyncio::{AddrInfoHints, socket};
///
/// let hints = AddrInfoHints::new().family(socket::AF_INET).socket_type(socket::SOCK_STREAM);
/// assert_eq!(hints.protocol, 0);
/// ```
///
/// asyncio: the arguments `family`, `type`, `proto` and `flags` of `getaddrinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrInfoHints {
    /// The address family, for example `AF_INET`.
    pub family: i32,
    /// The socket type, for example `SOCK_STREAM`.
    pub socket_type: i32,
    /// The protocol, for example `IPPROTO_TCP`.
    pub protocol: i32,
    /// Flags `AI_…`, joined by `|`.
    pub flags: i32,
}

impl AddrInfoHints {
    /// No wishes at all.
    ///
    /// asyncio: `getaddrinfo` without keyword arguments.
    pub fn new() -> Self {
        AddrInfoHints::default()
    }

    /// Asks for one address family, for example `AF_INET`.
    ///
    /// asyncio: `family`.
    #[must_use]
    pub fn family(mut self, family: i32) -> Self {
        self.family = family;
        self
    }

    /// Asks for one socket type, for example `SOCK_STREAM`; without it every address comes once for each type.
    ///
    /// asyncio: `type`.
    #[must_use]
    pub fn socket_type(mut self, socket_type: i32) -> Self {
        self.socket_type = socket_type;
        self
    }

    /// Asks for one protocol, for example `IPPROTO_TCP`.
    ///
    /// asyncio: `proto`.
    #[must_use]
    pub fn protocol(mut self, protocol: i32) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets the flags `AI_…`, all at once.
    ///
    /// asyncio: `flags`.
    #[must_use]
    pub fn flags(mut self, flags: i32) -> Self {
        self.flags = flags;
        self
    }
}

/// The resolver of the system: its files and name servers, in its order.
///
/// # Examples
///
/// ```
/// use asyncio::{AddrInfoHints, Port, Resolver, SystemResolver, socket};
///
/// let hints = AddrInfoHints::new().socket_type(socket::SOCK_STREAM);
/// let found = SystemResolver.getaddrinfo(Some("127.0.0.1"), &Port::Number(80), hints)?;
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0].address, ([127, 0, 0, 1], 80).into());
/// # asyncio::ok(())
/// ```
///
/// asyncio: `socket.getaddrinfo`, `socket.getnameinfo`. Differs: host names are passed on as they are, so that names
/// beyond ASCII must be written in their `xn--` form.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    /// Asks the system, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with the system's code; an empty host and one of more than 255 bytes is `EAI_NONAME` on every
    /// system. [`Error::Io`] if a system call failed. [`Error::Value`] for a zero byte and for a port beyond 65535.
    fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
        if let Some(host) = host {
            check_host(host)?;
        }
        let service = service(port)?;
        let wishes = dns_lookup::AddrInfoHints {
            flags: hints.flags,
            address: hints.family,
            socktype: hints.socket_type,
            protocol: hints.protocol,
        };
        lookup(|| {
            let found = dns_lookup::getaddrinfo(host, Some(&service), Some(wishes))?;
            Ok(found.map(|entry| entry.map(AddrInfo::from)).collect::<io::Result<_>>()?)
        })
    }

    /// Asks the system, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] with the system's code, [`Error::Io`] if a system call failed.
    fn getnameinfo(&self, address: SocketAddr, flags: i32) -> Result<(String, String)> {
        lookup(|| dns_lookup::getnameinfo(&address, flags))
    }
}

impl From<dns_lookup::AddrInfo> for AddrInfo {
    fn from(entry: dns_lookup::AddrInfo) -> Self {
        AddrInfo {
            family: entry.address,
            socket_type: entry.socktype,
            protocol: entry.protocol,
            canonical_name: entry.canonname.unwrap_or_default(),
            address: entry.sockaddr,
        }
    }
}

/// What the system would answer, where that is certain without asking it: a literal address with a number for its port.
///
/// `None` for everything else, which includes whatever is out of the ordinary: scope ids, both socket types at once,
/// flags that look at the machine's interfaces or ask for names. Never waits.
///
/// asyncio: `base_events._ipaddr_info`.
pub(crate) fn numeric(host: Option<&str>, port: &Port, hints: AddrInfoHints) -> Option<Result<Vec<AddrInfo>>> {
    let ip: IpAddr = host?.parse().ok()?;
    let address = SocketAddr::new(ip, port.number()?);
    let socket_type = match (hints.socket_type, hints.protocol) {
        (flags::SOCK_STREAM, 0) | (flags::SOCK_STREAM | 0, flags::IPPROTO_TCP) => flags::SOCK_STREAM,
        (flags::SOCK_DGRAM, 0) | (flags::SOCK_DGRAM | 0, flags::IPPROTO_UDP) => flags::SOCK_DGRAM,
        _ => return None,
    };
    if hints.flags & !(flags::AI_PASSIVE | flags::AI_NUMERICHOST | flags::AI_NUMERICSERV) != 0 {
        return None;
    }
    match (hints.family, ip) {
        (flags::AF_UNSPEC, _) | (flags::AF_INET, IpAddr::V4(_)) | (flags::AF_INET6, IpAddr::V6(_)) => {
            Some(Ok(vec![AddrInfo::new(address, socket_type)]))
        }
        (flags::AF_INET, IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => None,
        (flags::AF_INET | flags::AF_INET6, _) => Some(refuse(WRONG_FAMILY)),
        _ => None,
    }
}

/// What the system calls a literal address of the other family.
#[cfg(target_os = "linux")]
const WRONG_FAMILY: i32 = flags::EAI_ADDRFAMILY;
#[cfg(not(target_os = "linux"))]
const WRONG_FAMILY: i32 = flags::EAI_NONAME;

/// Bytes; no name in the DNS is longer (RFC 1035, 2.3.4), and systems differ on what they do with one that is.
const LONGEST_NAME: usize = 255;

fn check_host(host: &str) -> Result<()> {
    if host.contains('\0') {
        Err(Error::Value("embedded null character".into()))
    } else if host.is_empty() || host.len() > LONGEST_NAME {
        refuse(flags::EAI_NONAME)
    } else {
        Ok(())
    }
}

/// The port in the form that the system takes. The system would cut a number beyond 65535 down to 16 bits.
fn service(port: &Port) -> Result<String> {
    if let Some(number) = port.number() {
        return Ok(number.to_string());
    }
    let name = port.to_string();
    let number = name.trim_start().trim_start_matches('+');
    if name.contains('\0') {
        Err(Error::Value("embedded null character".into()))
    } else if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse::<u16>().is_err() {
        Err(Error::Value("port must be 0-65535".into()))
    } else {
        Ok(name)
    }
}

/// The answer that the system gives with this code, and with its text.
fn refuse<T>(code: i32) -> Result<T> {
    lookup(|| Err(LookupError::new(code)))
}

/// Makes a call of `dns_lookup`, which panics on a canonical name or an error text that is not UTF-8.
fn lookup<T>(call: impl FnOnce() -> Result<T, LookupError>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(
            |_| Err(io::Error::new(io::ErrorKind::InvalidData, "the resolver's answer is not UTF-8").into()),
        )
        .map_err(lookup_error)
}

fn lookup_error(error: LookupError) -> Error {
    let code = error.error_num();
    let error = io::Error::from(error);
    if code == 0 || code == libc::EAI_SYSTEM {
        return error.into(); // not the resolver's, or errno
    }
    let text = error.to_string();
    Error::resolve(code, text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
}

/// The system's numbers for [`AddrInfoHints`], [`AddrInfo`], [`Resolver::getnameinfo`] and
/// [`ResolveError::code`](crate::ResolveError::code).
///
/// # Examples
///
/// ```
/// use asyncio::{AddrInfoHints, socket};
///
/// let listen = AddrInfoHints::new().socket_type(socket::SOCK_STREAM).flags(socket::AI_PASSIVE);
/// assert_ne!(listen.flags, 0);
/// ```
///
/// asyncio: the constants of the module `socket`.
pub mod flags {
    /// Any address family.
    pub const AF_UNSPEC: i32 = libc::AF_UNSPEC;
    /// IPv4.
    pub const AF_INET: i32 = libc::AF_INET;
    /// IPv6.
    pub const AF_INET6: i32 = libc::AF_INET6;
    /// Sockets of this machine, by path.
    pub const AF_UNIX: i32 = libc::AF_UNIX;

    /// A stream of bytes.
    pub const SOCK_STREAM: i32 = libc::SOCK_STREAM;
    /// Datagrams.
    pub const SOCK_DGRAM: i32 = libc::SOCK_DGRAM;

    /// TCP, the usual protocol of [`SOCK_STREAM`].
    pub const IPPROTO_TCP: i32 = libc::IPPROTO_TCP;
    /// UDP, the usual protocol of [`SOCK_DGRAM`].
    pub const IPPROTO_UDP: i32 = libc::IPPROTO_UDP;

    /// The addresses are to be listened on: no host means any interface.
    pub const AI_PASSIVE: i32 = libc::AI_PASSIVE;
    /// The canonical name is wanted too.
    pub const AI_CANONNAME: i32 = libc::AI_CANONNAME;
    /// The host is a literal address: no look-up, `EAI_NONAME` for a name.
    pub const AI_NUMERICHOST: i32 = libc::AI_NUMERICHOST;
    /// The port is a number: no look-up, `EAI_NONAME` for a name.
    pub const AI_NUMERICSERV: i32 = libc::AI_NUMERICSERV;
    /// Only families for which this machine has an address besides loopback.
    pub const AI_ADDRCONFIG: i32 = libc::AI_ADDRCONFIG;

    /// The host as a literal address: no look-up.
    pub const NI_NUMERICHOST: i32 = libc::NI_NUMERICHOST;
    /// The service as a number: no look-up.
    pub const NI_NUMERICSERV: i32 = libc::NI_NUMERICSERV;
    /// A host without a name is `EAI_NONAME`, where else it comes as a literal address.
    pub const NI_NAMEREQD: i32 = libc::NI_NAMEREQD;
    /// The service is one of datagrams.
    pub const NI_DGRAM: i32 = libc::NI_DGRAM;

    /// There is no such host or service.
    pub const EAI_NONAME: i32 = libc::EAI_NONAME;
    /// No name server answered: try again later.
    pub const EAI_AGAIN: i32 = libc::EAI_AGAIN;
    /// There is no such service for the socket type.
    pub const EAI_SERVICE: i32 = libc::EAI_SERVICE;
    /// There is no such address family.
    pub const EAI_FAMILY: i32 = libc::EAI_FAMILY;
    /// The host has no address of the family; the `libc` crate lacks the number, which is glibc's and musl's.
    #[cfg(target_os = "linux")]
    pub const EAI_ADDRFAMILY: i32 = -9;
    /// There is no such socket type, or not with the protocol.
    pub const EAI_SOCKTYPE: i32 = libc::EAI_SOCKTYPE;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::{flags::*, *};
    use crate::ErrorKind;

    const STREAM: AddrInfoHints = AddrInfoHints { family: 0, socket_type: SOCK_STREAM, protocol: 0, flags: 0 };

    fn ask(
        host: impl Into<Option<&'static str>>,
        port: impl Into<Port>,
        hints: AddrInfoHints,
    ) -> Result<Vec<AddrInfo>> {
        SystemResolver.getaddrinfo(host.into(), &port.into(), hints)
    }

    fn without_asking(
        host: &'static str,
        port: impl Into<Port>,
        hints: AddrInfoHints,
    ) -> Option<Result<Vec<AddrInfo>>> {
        numeric(Some(host), &port.into(), hints)
    }

    fn addresses(found: Result<Vec<AddrInfo>>) -> Vec<String> {
        found.unwrap().iter().map(|info| info.address.to_string()).collect()
    }

    fn code(found: Result<Vec<AddrInfo>>) -> i32 {
        match found.unwrap_err() {
            Error::Resolve(error) => error.code(),
            other => panic!("{other:?}"),
        }
    }

    /// DNS-001
    #[test]
    fn a_literal_address_is_its_only_entry() {
        let expected = [AddrInfo {
            family: AF_INET,
            socket_type: SOCK_STREAM,
            protocol: IPPROTO_TCP,
            canonical_name: String::new(),
            address: ([127, 0, 0, 1], 80).into(),
        }];
        for port in [Port::Number(80), Port::Service("80".into())] {
            assert_eq!(ask("127.0.0.1", port.clone(), STREAM).unwrap(), expected);
            assert_eq!(without_asking("127.0.0.1", port, STREAM).unwrap().unwrap(), expected);
        }
    }

    /// DNS-002
    #[test]
    fn no_host_is_this_machine() {
        assert_eq!(addresses(ask(None, 0, STREAM.family(AF_INET).flags(AI_PASSIVE))), ["0.0.0.0:0"]);
        let found = ask(None, 80, STREAM).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|info| info.address.ip().is_loopback() && info.address.port() == 80), "{found:?}");
    }

    /// DNS-003
    #[test]
    fn a_service_has_a_name_too() {
        assert_eq!(addresses(ask("127.0.0.1", "http", STREAM)), ["127.0.0.1:80"]);
        assert_eq!(code(ask("127.0.0.1", "nonsense", STREAM)), EAI_SERVICE);
        assert_eq!(code(ask("127.0.0.1", "http", STREAM.flags(AI_NUMERICSERV))), EAI_NONAME);
        assert_eq!(addresses(ask("127.0.0.1", "", STREAM)), ["127.0.0.1:0"]);
    }

    /// DNS-004
    #[test]
    fn what_is_not_found_keeps_the_code_of_the_system() {
        let unknown = code(ask("no.such.host.invalid", 80, STREAM));
        assert!([EAI_NONAME, EAI_AGAIN].contains(&unknown), "{unknown}");
        assert!([WRONG_FAMILY, EAI_NONAME].contains(&code(ask("::1", 80, STREAM.family(AF_INET)))));
        assert_eq!(code(ask("localhost", 80, STREAM.flags(AI_NUMERICHOST))), EAI_NONAME);
        assert_eq!(code(ask("127.0.0.1", 80, STREAM.family(9999))), EAI_FAMILY);
        assert_eq!(code(ask("127.0.0.1", 80, STREAM.protocol(IPPROTO_UDP))), EAI_SOCKTYPE);
        let error = ask("127.0.0.1", "nonsense", STREAM).unwrap_err().to_string();
        assert!(error.starts_with("[Errno -8] Servname not supported") || cfg!(not(target_env = "gnu")), "{error}");
    }

    #[test]
    fn hosts_that_can_have_no_address_are_refused() {
        assert_eq!(code(ask("", 80, STREAM)), EAI_NONAME);
        let long: &str = "x".repeat(256).leak();
        assert_eq!(code(ask(long, 80, STREAM)), EAI_NONAME);
        for (host, port) in [("a\0b", "80"), ("a\0b", "http"), ("127.0.0.1", "ht\0tp"), ("127.0.0.1", "80\0")] {
            assert_eq!(ask(host, port, STREAM).unwrap_err().kind(), ErrorKind::Value);
        }
    }

    #[test]
    fn a_number_too_large_for_a_port_is_not_cut_down() {
        for port in ["65536", "70000", "+70000", " 70000", "99999999999999999999"] {
            let error = ask("127.0.0.1", port, STREAM).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "port must be 0-65535".to_owned()));
            assert!(without_asking("127.0.0.1", port, STREAM).is_none());
        }
        for port in ["-1", "0x50", "+", "80 "] {
            assert_eq!(code(ask("127.0.0.1", port, STREAM)), EAI_SERVICE, "{port:?}");
        }
    }

    /// Every combination that is answered without asking has the system's answer.
    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn numeric_says_what_the_system_says() {
        let mut answered = 0;
        let hosts = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "::", "fe80::1", "::ffff:1.2.3.4", "2001:db8::"];
        for host in hosts {
            for port in ["0", "80", "080", "+80", "65535", "", "http", "-1", " 80"] {
                for family in [AF_UNSPEC, AF_INET, AF_INET6, libc::AF_UNIX] {
                    for socket_type in [0, SOCK_STREAM, SOCK_DGRAM, libc::SOCK_RAW, 99] {
                        for protocol in [0, IPPROTO_TCP, IPPROTO_UDP, 132] {
                            for flags in [0, AI_PASSIVE, AI_NUMERICHOST, AI_NUMERICSERV, AI_CANONNAME, AI_ADDRCONFIG] {
                                let hints = AddrInfoHints { family, socket_type, protocol, flags };
                                if let Some(answer) = without_asking(host, port, hints) {
                                    let (ours, system) =
                                        (format!("{answer:?}"), format!("{:?}", ask(host, port, hints)));
                                    assert_eq!(ours, system, "{host} {port} {hints:?}");
                                    answered += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(answered > 1000, "{answered}");
    }

    #[test]
    fn numeric_leaves_the_rest_to_the_system() {
        assert!(numeric(None, &Port::Number(80), STREAM).is_none());
        for host in ["localhost", "", "fe80::1%lo", "127.1", "010.0.0.1", "[::1]", "127.0.0.1 "] {
            assert!(without_asking(host, 80, STREAM).is_none(), "{host}");
        }
        assert!(without_asking("127.0.0.1", "http", STREAM).is_none());
        assert!(without_asking("127.0.0.1", 80, AddrInfoHints::new()).is_none());
        assert!(without_asking("::ffff:1.2.3.4", 80, STREAM.family(AF_INET)).is_none());
        assert!(without_asking("127.0.0.1", 80, STREAM.flags(AI_CANONNAME)).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_scope_is_resolved_by_the_system() {
        let found = ask("fe80::1%lo", 80, STREAM).unwrap();
        assert!(matches!(found[0].address, SocketAddr::V6(address) if address.scope_id() == 1), "{found:?}");
    }

    #[test]
    fn without_a_socket_type_every_address_comes_once_for_each() {
        let found = ask("127.0.0.1", 80, AddrInfoHints::new()).unwrap();
        for expected in [SOCK_STREAM, SOCK_DGRAM].map(|kind| AddrInfo::new(([127, 0, 0, 1], 80).into(), kind)) {
            assert!(found.contains(&expected), "{found:?}");
        }
    }

    #[test]
    fn the_canonical_name_comes_when_asked_for() {
        assert_eq!(ask("127.0.0.1", 80, STREAM.flags(AI_CANONNAME)).unwrap()[0].canonical_name, "127.0.0.1");
        assert_eq!(ask("127.0.0.1", 80, STREAM).unwrap()[0].canonical_name, "");
    }

    /// DNS-007
    #[test]
    fn an_address_has_names() {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        let names = SystemResolver.getnameinfo(v4, NI_NUMERICHOST | NI_NUMERICSERV).unwrap();
        assert_eq!(names, ("127.0.0.1".to_owned(), "80".to_owned()));
        assert_eq!(SystemResolver.getnameinfo(v6, NI_NUMERICHOST).unwrap(), ("::1".to_owned(), "http".to_owned()));
    }

    #[test]
    fn an_own_resolver_asks_the_system_for_names() {
        struct Own;
        impl Resolver for Own {
            fn getaddrinfo(&self, _: Option<&str>, _: &Port, hints: AddrInfoHints) -> Result<Vec<AddrInfo>> {
                Ok(vec![AddrInfo::new((Ipv6Addr::LOCALHOST, 1).into(), hints.socket_type)])
            }
        }
        let own: &dyn Resolver = &Own;
        let found = own.getaddrinfo(None, &Port::Number(1), AddrInfoHints::new().socket_type(SOCK_DGRAM)).unwrap();
        assert_eq!((found[0].family, found[0].protocol), (AF_INET6, IPPROTO_UDP));
        let names = own.getnameinfo(found[0].address, NI_NUMERICHOST | NI_NUMERICSERV).unwrap();
        assert_eq!(names, ("::1".to_owned(), "1".to_owned()));
    }

    #[test]
    fn errors_beside_the_resolvers_own_are_system_errors() {
        let error = lookup::<()>(|| panic!("expected: as dns_lookup does")).unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::InvalidData);
        let error = lookup::<()>(|| Err(LookupError::new(EAI_AGAIN))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resolve);
        let error = lookup::<()>(|| Err(LookupError::new(libc::EAI_SYSTEM))).unwrap_err();
        assert!(error.raw_os_error().is_some());
    }
}
