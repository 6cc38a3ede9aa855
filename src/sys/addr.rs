//! Addresses: of sockets, and what callers give for one before its names are looked up.

use std::{
    ffi::OsStr,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use socket2::SockAddr;

use crate::error::{Error, Result};

/// The address of a socket: of an own one, of its peer, or of who sent a datagram.
///
/// Displayed as `127.0.0.1:80`, `[::1]:80`, `/run/server.sock`, `@abstract name` or `unnamed`.
///
/// `Threads:` may cross them.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
///
/// let address = asyncio::Address::from(SocketAddr::from(([127, 0, 0, 1], 80)));
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// assert_eq!(address.as_inet().map(|inet| inet.port()), Some(80));
/// ```
///
/// asyncio: the address of `sock.getsockname()`, a tuple or a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address with its port. (asyncio: a tuple)
    Inet(SocketAddr),
    /// A unix socket in the file system. (asyncio: a string)
    UnixPath(PathBuf),
    /// A unix socket in the abstract namespace of Linux: the name, without the zero byte in front. (asyncio: bytes)
    UnixAbstract(Vec<u8>),
    /// A unix socket that was never bound, or one of a family that this crate does not know. (asyncio: an empty string)
    Unnamed,
}

impl Address {
    /// The IP address and port, unless this is the address of a unix socket.
    ///
    /// asyncio: a tuple for an address.
    pub fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            _ => None,
        }
    }

    /// The address that the system gave.
    pub(crate) fn from_sock_addr(address: &SockAddr) -> Self {
        if let Some(inet) = address.as_socket() {
            Address::Inet(inet)
        } else if let Some(path) = address.as_pathname() {
            Address::UnixPath(path.into())
        } else if let Some(name) = address.as_abstract_namespace() {
            Address::UnixAbstract(name.into())
        } else {
            Address::Unnamed
        }
    }

    /// The address in the system's form. A path or name that is too long is [`Error::Io`], a zero byte inside a path
    /// and an abstract name on a system that has none are [`Error::Value`].
    pub(crate) fn to_sock_addr(&self) -> Result<SockAddr> {
        match self {
            Address::Inet(address) => Ok((*address).into()),
            Address::UnixPath(path) if path.as_os_str().as_bytes().contains(&0) => {
                Err(Error::Value("embedded null byte".into()))
            }
            Address::UnixPath(path) => self.unix_sock_addr(path),
            Address::UnixAbstract(_) if cfg!(not(any(target_os = "linux", target_os = "android"))) => {
                Err(Error::Value("abstract unix addresses exist on Linux only".into()))
            }
            Address::UnixAbstract(name) => {
                let bytes = [&[0], name.as_slice()].concat();
                self.unix_sock_addr(Path::new(OsStr::from_bytes(&bytes)))
            }
            Address::Unnamed => self.unix_sock_addr(Path::new("")),
        }
    }

    fn unix_sock_addr(&self, path: &Path) -> Result<SockAddr> {
        SockAddr::unix(path).map_err(|_| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "AF_UNIX path too long");
            Error::io(error, self.to_string())
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::UnixPath(path) => path.display().fmt(f),
            Address::UnixAbstract(name) => write!(f, "@{}", name.escape_ascii()),
            Address::Unnamed => f.write_str("unnamed"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Inet(address)
    }
}

impl From<PathBuf> for Address {
    /// A path that begins with a zero byte is a name in the abstract namespace, as in Python.
    fn from(path: PathBuf) -> Self {
        match path.as_os_str().as_bytes() {
            [0, name @ ..] => Address::UnixAbstract(name.into()),
            _ => Address::UnixPath(path),
        }
    }
}

/// A port by its number, or by the name of the service in the system's list.
///
/// # Examples
///
/// ```
/// use asyncio::Port;
///
/// assert_eq!(Port::from(443), Port::Number(443));
/// assert_eq!(Port::from("https"), Port::Service("https".into()));
/// ```
///
/// asyncio: the `port` argument, an int or a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// A number; 0 lets the system choose one.
    Number(u16),
    /// A service such as `http`; a number in digits is good too.
    Service(String),
}

impl Port {
    /// The number, if no list of services is needed for it.
    pub(crate) fn number(&self) -> Option<u16> {
        match self {
            Port::Number(number) => Some(*number),
            Port::Service(name) if name.is_empty() => Some(0),
            Port::Service(name) => name.parse().ok(),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(number) => number.fmt(f),
            Port::Service(name) => name.fmt(f),
        }
    }
}

impl From<u16> for Port {
    fn from(number: u16) -> Self {
        Port::Number(number)
    }
}

impl From<&str> for Port {
    fn from(service: &str) -> Self {
        Port::Service(service.into())
    }
}

impl From<String> for Port {
    fn from(service: String) -> Self {
        Port::Service(service)
    }
}

/// Where to connect to or to listen, before names are looked up: what [`ToAddress`] gives.
///
/// `Threads:` may cross them.
///
/// asyncio: the arguments `host` and `port`, or `path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Hosts that share a port.
    Host {
        /// Names or literal addresses; `None` is this machine: any interface to listen on, loopback to connect to.
        hosts: Vec<Option<String>>,
        /// The port of all of them.
        port: Port,
    },
    /// An address that needs no look-up.
    Address(Address),
    /// Nowhere: the call is given a socket instead.
    None,
}

impl Endpoint {
    fn host(host: Option<&str>, port: impl Into<Port>) -> Self {
        Endpoint::Host { hosts: vec![host.map(str::to_owned)], port: port.into() }
    }
}

/// What can be connected to or listened on.
///
/// | type | meaning |
/// |---|---|
/// | `(&str, u16)`, `(String, u16)`, `(&String, u16)` | a host, by name or literal address, with a port |
/// | `(&str, &str)` | the same with the name of a service |
/// | `(Option<&str>, u16)`, `u16` | no host: any interface to listen on, loopback to connect to |
/// | `([&str; N], u16)`, `(&[&str], u16)`, `(Vec<String>, u16)` | several hosts |
/// | `SocketAddr` and its parts with a port, [`Address`] | a ready address |
/// | `&Path`, `PathBuf` | a unix socket, for `sock_connect`, `sock_sendto` and datagrams; on Linux a zero byte in front means the abstract namespace. Streams have `create_unix_connection` and `create_unix_server` |
/// | `()` | nothing, beside a setter such as `sock` |
///
/// # Examples
///
/// ```
/// use asyncio::{Endpoint, ToAddress};
///
/// fn target(address: impl ToAddress) -> Endpoint {
///     address.to_address()
/// }
/// assert!(matches!(target(("example.org", 443)), Endpoint::Host { .. }));
/// assert!(matches!(target(std::path::Path::new("/run/server.sock")), Endpoint::Address(_)));
/// assert_eq!(target(()), Endpoint::None);
/// ```
///
/// asyncio: the arguments `host` and `port`, or `path`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an address",
    label = "expected a host with a port, or an address",
    note = "for example `(\"example.org\", 443)`, `(\"127.0.0.1\", 0)` or a `SocketAddr`"
)]
pub trait ToAddress {
    /// The address as a value of its own.
    fn to_address(self) -> Endpoint;
}

impl ToAddress for Endpoint {
    fn to_address(self) -> Endpoint {
        self
    }
}

impl ToAddress for () {
    fn to_address(self) -> Endpoint {
        Endpoint::None
    }
}

impl ToAddress for u16 {
    fn to_address(self) -> Endpoint {
        Endpoint::host(None, self)
    }
}

impl ToAddress for (&str, u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::host(Some(self.0), self.1)
    }
}

impl ToAddress for (&String, u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::host(Some(self.0), self.1)
    }
}

impl ToAddress for (String, u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::Host { hosts: vec![Some(self.0)], port: self.1.into() }
    }
}

impl ToAddress for (Option<&str>, u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::host(self.0, self.1)
    }
}

impl ToAddress for (&str, &str) {
    fn to_address(self) -> Endpoint {
        Endpoint::host(Some(self.0), self.1)
    }
}

impl ToAddress for (Option<&str>, &str) {
    fn to_address(self) -> Endpoint {
        Endpoint::host(self.0, self.1)
    }
}

impl<const N: usize> ToAddress for ([&str; N], &str) {
    fn to_address(self) -> Endpoint {
        Endpoint::Host { hosts: self.0.iter().map(|&host| Some(host.into())).collect(), port: self.1.into() }
    }
}

impl<const N: usize> ToAddress for ([&str; N], u16) {
    fn to_address(self) -> Endpoint {
        (self.0.as_slice(), self.1).to_address()
    }
}

impl ToAddress for (&[&str], u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::Host { hosts: self.0.iter().map(|&host| Some(host.into())).collect(), port: self.1.into() }
    }
}

impl ToAddress for (Vec<String>, u16) {
    fn to_address(self) -> Endpoint {
        Endpoint::Host { hosts: self.0.into_iter().map(Some).collect(), port: self.1.into() }
    }
}

impl ToAddress for SocketAddr {
    fn to_address(self) -> Endpoint {
        Endpoint::Address(self.into())
    }
}

impl ToAddress for &SocketAddr {
    fn to_address(self) -> Endpoint {
        (*self).to_address()
    }
}

impl ToAddress for SocketAddrV4 {
    fn to_address(self) -> Endpoint {
        SocketAddr::from(self).to_address()
    }
}

impl ToAddress for SocketAddrV6 {
    fn to_address(self) -> Endpoint {
        SocketAddr::from(self).to_address()
    }
}

impl ToAddress for (IpAddr, u16) {
    fn to_address(self) -> Endpoint {
        SocketAddr::from(self).to_address()
    }
}

impl ToAddress for (Ipv4Addr, u16) {
    fn to_address(self) -> Endpoint {
        SocketAddr::from(self).to_address()
    }
}

impl ToAddress for (Ipv6Addr, u16) {
    fn to_address(self) -> Endpoint {
        SocketAddr::from(self).to_address()
    }
}

impl ToAddress for Address {
    fn to_address(self) -> Endpoint {
        Endpoint::Address(self)
    }
}

impl ToAddress for &Address {
    fn to_address(self) -> Endpoint {
        Endpoint::Address(self.clone())
    }
}

impl ToAddress for PathBuf {
    fn to_address(self) -> Endpoint {
        Endpoint::Address(self.into())
    }
}

impl ToAddress for &Path {
    fn to_address(self) -> Endpoint {
        self.to_path_buf().to_address()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn there_and_back(address: &Address) -> Address {
        Address::from_sock_addr(&address.to_sock_addr().unwrap())
    }

    fn hosts(hosts: &[&str], port: impl Into<Port>) -> Endpoint {
        Endpoint::Host { hosts: hosts.iter().map(|&host| Some(host.to_owned())).collect(), port: port.into() }
    }

    #[test]
    fn every_kind_survives_the_way_to_the_system_and_back() {
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 3);
        for address in [
            Address::Inet("1.2.3.4:80".parse().unwrap()),
            Address::Inet("[::1]:0".parse().unwrap()),
            Address::Inet(scoped.into()),
            Address::UnixPath("/tmp/server.sock".into()),
            Address::UnixPath("relative".into()),
            Address::UnixPath(OsStr::from_bytes(b"/not/\xff/utf-8").into()),
            Address::UnixPath("x".repeat(107).into()),
            Address::Unnamed,
        ] {
            assert_eq!(there_and_back(&address), address);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn abstract_names_are_any_bytes() {
        for name in [b"name".to_vec(), vec![], vec![0, 1, 0], vec![0xff; 107]] {
            let address = Address::UnixAbstract(name);
            assert_eq!(there_and_back(&address), address);
        }
        let address = Address::UnixAbstract(format!("asyncio addr test {}", std::process::id()).into());
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).unwrap();
        socket.bind(&address.to_sock_addr().unwrap()).unwrap();
        assert_eq!(Address::from_sock_addr(&socket.local_addr().unwrap()), address);
    }

    #[test]
    fn the_system_names_what_is_bound_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("asyncio addr test {}", std::process::id()));
        let bound = UnixDatagram::bind(&path).unwrap();
        let name = socket2::SockRef::from(&bound).local_addr().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Address::from_sock_addr(&name), Address::UnixPath(path));
        let (unbound, _) = UnixDatagram::pair().unwrap();
        let name = socket2::SockRef::from(&unbound).local_addr().unwrap();
        assert_eq!(Address::from_sock_addr(&name), Address::Unnamed);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for address in [Address::UnixPath("x".repeat(200).into()), Address::UnixAbstract(vec![b'x'; 200])] {
            let error = address.to_sock_addr().unwrap_err();
            assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with("x: AF_UNIX path too long"), "{error}");
        }
        let error = Address::UnixPath("/tmp/a\0b".into()).to_sock_addr().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Value);
    }

    #[test]
    fn a_path_with_a_zero_byte_in_front_is_abstract() {
        assert_eq!(Path::new("\0name").to_address(), Endpoint::Address(Address::UnixAbstract(b"name".into())));
        assert_eq!(Path::new("/name").to_address(), Endpoint::Address(Address::UnixPath("/name".into())));
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let texts = [
            (Address::Inet("127.0.0.1:80".parse().unwrap()), "127.0.0.1:80"),
            (Address::Inet("[::1]:80".parse().unwrap()), "[::1]:80"),
            (Address::UnixPath("/run/s".into()), "/run/s"),
            (Address::UnixAbstract(b"a\x00b".into()), "@a\\x00b"),
            (Address::Unnamed, "unnamed"),
        ];
        for (address, text) in texts {
            assert_eq!(address.to_string(), text);
            assert_eq!(address.as_inet().is_some(), matches!(address, Address::Inet(_)));
        }
    }

    #[test]
    fn hosts_keep_their_names() {
        assert_eq!(("h", 80).to_address(), hosts(&["h"], 80));
        assert_eq!(("127.0.0.1", "http").to_address(), hosts(&["127.0.0.1"], "http"));
        assert_eq!((&"h".to_owned(), 80).to_address(), hosts(&["h"], 80));
        assert_eq!(("h".to_owned(), 80).to_address(), hosts(&["h"], 80));
        assert_eq!((Some("h"), 80).to_address(), hosts(&["h"], 80));
        assert_eq!((["a", "b"], 80).to_address(), hosts(&["a", "b"], 80));
        assert_eq!((&["a", "b"][..], 80).to_address(), hosts(&["a", "b"], 80));
        assert_eq!((vec!["a".to_owned()], 80).to_address(), hosts(&["a"], 80));
        let nobody = Endpoint::Host { hosts: vec![None], port: Port::Number(80) };
        assert_eq!(80.to_address(), nobody);
        assert_eq!((None, 80).to_address(), nobody);
        assert_eq!(().to_address(), Endpoint::None);
        assert_eq!(nobody.clone().to_address(), nobody);
    }

    #[test]
    fn ready_addresses_stay_what_they_are() {
        let v4: SocketAddrV4 = "127.0.0.1:80".parse().unwrap();
        let v6: SocketAddrV6 = "[::1]:80".parse().unwrap();
        for (endpoint, expected) in [
            (v4.to_address(), SocketAddr::V4(v4)),
            (SocketAddr::V4(v4).to_address(), SocketAddr::V4(v4)),
            ((&SocketAddr::V4(v4)).to_address(), SocketAddr::V4(v4)),
            ((*v4.ip(), 80).to_address(), SocketAddr::V4(v4)),
            ((IpAddr::V4(*v4.ip()), 80).to_address(), SocketAddr::V4(v4)),
            (Address::Inet(v4.into()).to_address(), SocketAddr::V4(v4)),
            ((&Address::Inet(v4.into())).to_address(), SocketAddr::V4(v4)),
            (v6.to_address(), SocketAddr::V6(v6)),
            ((*v6.ip(), 80).to_address(), SocketAddr::V6(v6)),
        ] {
            assert_eq!(endpoint, Endpoint::Address(Address::Inet(expected)));
        }
    }

    #[test]
    fn a_port_in_digits_is_a_number() {
        fn number(port: impl Into<Port>) -> Option<u16> {
            port.into().number()
        }
        assert_eq!(number(80), Some(80));
        assert_eq!(["80", "080", "+80", "", "65535"].map(number), [80, 80, 80, 0, 65535].map(Some));
        assert_eq!(["http", "65536", "-1", " 80", "0x50"].map(number), [None; 5]);
        assert_eq!(Port::from("http".to_owned()).to_string() + &Port::Number(80).to_string(), "http80");
    }
}
