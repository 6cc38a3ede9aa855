//! Arguments that the openers of connections and servers have in common.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    sys::{
        resolve::flags::{AF_INET, AF_INET6, SOCK_STREAM},
        socket,
    },
};

/// The configuration of TLS connections.
///
/// Not there yet: opening a connection with one is [`Error::Ssl`]. What is passed beside it is checked already.
///
/// asyncio: `ssl.SSLContext`.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct SslContext(());

#[cfg(feature = "tls")]
impl SslContext {
    /// A configuration for the connecting side.
    ///
    /// # Errors
    ///
    /// None yet.
    ///
    /// asyncio: `ssl.create_default_context()`.
    pub fn client() -> Result<SslContext> {
        Ok(SslContext(()))
    }
}

#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum SslContext {}

/// The arguments that belong to TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct SslOptions {
    pub(crate) context: Option<SslContext>,
    pub(crate) server_hostname: Option<String>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Option<Duration>,
}

impl SslOptions {
    /// What holds for all openers. `connects` are those that must know whom they talk to; `host` is their default for it.
    pub(crate) fn validate(&self, connects: bool, host: Option<&str>) -> Result<()> {
        let timeouts =
            [("ssl_handshake_timeout", self.handshake_timeout), ("ssl_shutdown_timeout", self.shutdown_timeout)];
        if self.context.is_none() {
            let given = [("server_hostname", self.server_hostname.is_some())]
                .into_iter()
                .chain(timeouts.map(|(name, timeout)| (name, timeout.is_some())))
                .find(|(_, given)| *given);
            return match given {
                Some((name, _)) => Err(Error::Value(format!("{name} is only meaningful with ssl").into())),
                None => Ok(()),
            };
        }
        if let Some((name, _)) = timeouts.into_iter().find(|(_, timeout)| *timeout == Some(Duration::ZERO)) {
            return Err(Error::Value(format!("{name} should be a positive number, got 0").into()));
        }
        if !connects {
            return Ok(());
        }
        match self.server_hostname.as_deref() {
            None if host.is_none_or(str::is_empty) => {
                Err(Error::Value("You must set server_hostname when using ssl without a host".into()))
            }
            Some("") => Err(Error::Value("server_hostname must not be empty".into())),
            _ => Ok(()),
        }
    }

    /// Refuses what cannot be done yet.
    pub(crate) fn require_plain(&self) -> Result<()> {
        match self.context {
            None => Ok(()),
            Some(_) => Err(Error::Ssl("TLS connections cannot be made by this version".into())),
        }
    }
}

/// Refuses a socket that is no stream.
pub(crate) fn check_stream(fd: &OwnedFd) -> Result<()> {
    match socket::parameters(fd.as_fd()) {
        Ok((_, SOCK_STREAM)) => Ok(()),
        _ => Err(Error::Value(format!("A Stream Socket was expected, got {fd:?}").into())),
    }
}

/// Whether the socket is one of TCP, or another of IP.
pub(crate) fn is_inet(fd: &OwnedFd) -> bool {
    socket::parameters(fd.as_fd()).is_ok_and(|(family, _)| family == AF_INET || family == AF_INET6)
}
