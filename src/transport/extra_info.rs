//! What a transport tells of itself, under typed keys.

use std::{any::Any, fmt, marker::PhantomData, os::fd::RawFd};

use crate::sys::addr::Address;

/// A key of [`Transport::get_extra_info`](crate::Transport::get_extra_info), which knows the type of its value.
///
/// | key | value | given by |
/// |---|---|---|
/// | [`PEERNAME`] | the [`Address`] of the other side | sockets |
/// | [`SOCKNAME`] | the [`Address`] of this side | sockets |
/// | [`SOCKET`] | the descriptor's number | sockets |
/// | [`PIPE`] | the descriptor's number | pipes |
///
/// With the feature `tls` there are `SSLCONTEXT`, `PEERCERT`, `PEERCERT_CHAIN`, `CIPHER`, `SSL_VERSION`,
/// `ALPN_PROTOCOL`, `SERVER_HOSTNAME`, `SESSION_REUSED` and `CLOSE_NOTIFY`; a TLS transport gives those of its socket,
/// too.
///
/// A key that does not exist is refused by the compiler:
///
/// ```compile_fail
/// fn look(transport: &asyncio::Transport) {
///     transport.get_extra_info("nonsense");
/// }
/// ```
///
/// asyncio: the `name` argument of `transport.get_extra_info`.
pub struct ExtraInfo<T> {
    pub(crate) name: ExtraName,
    value: PhantomData<fn() -> T>,
}

impl<T> ExtraInfo<T> {
    pub(crate) const fn new(name: ExtraName) -> Self {
        ExtraInfo { name, value: PhantomData }
    }
}

impl<T> Clone for ExtraInfo<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ExtraInfo<T> {}

impl<T> fmt::Debug for ExtraInfo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtraName {
    PeerName,
    SockName,
    Socket,
    Pipe,
    #[cfg(feature = "tls")]
    Tls(TlsInfo),
}

/// What only TLS knows.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsInfo {
    SslContext,
    PeerCert,
    PeerCertChain,
    Cipher,
    SslVersion,
    AlpnProtocol,
    ServerHostname,
    SessionReused,
    CloseNotify,
}

/// A value of the type that its key names.
pub(crate) type ExtraValue = Box<dyn Any>;

/// The address of the other side. (asyncio: `'peername'`)
pub const PEERNAME: ExtraInfo<Address> = ExtraInfo::new(ExtraName::PeerName);
/// The address of this side. (asyncio: `'sockname'`)
pub const SOCKNAME: ExtraInfo<Address> = ExtraInfo::new(ExtraName::SockName);
/// The number of the socket's descriptor, which belongs to the transport; [`with_fd`](crate::Transport::with_fd) lends
/// it. (asyncio: `'socket'`)
pub const SOCKET: ExtraInfo<RawFd> = ExtraInfo::new(ExtraName::Socket);
/// The number of the pipe's descriptor. (asyncio: `'pipe'`.) What the standard streams of a process are set to is
/// `subprocess::PIPE`.
pub const PIPE: ExtraInfo<RawFd> = ExtraInfo::new(ExtraName::Pipe);
