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

#[cfg(feature = "tls")]
pub(crate) use crate::tls::context::{SslContext, TlsOptions};

#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum SslContext {}

#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum TlsOptions {}

/// The arguments that belong to TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct SslOptions {
    pub(crate) context: Option<SslContext>,
    pub(crate) server_hostname: Option<String>,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Option<Duration>,
}

impl SslOptions {
    /// The end that connects; `host` is whom it talks to unless it was said. `None` without TLS.
    pub(crate) fn client(&self, host: Option<&str>) -> Result<Option<TlsOptions>> {
        self.check()?;
        #[cfg(feature = "tls")]
        if let Some(context) = &self.context {
            return TlsOptions::client(context, self.server_hostname.as_deref(), host, self.timeouts()).map(Some);
        }
        let _ = host;
        Ok(None)
    }

    /// The end that accepts. `None` without TLS.
    pub(crate) fn server(&self) -> Result<Option<TlsOptions>> {
        self.check()?;
        #[cfg(feature = "tls")]
        if let Some(context) = &self.context {
            return TlsOptions::server(context, self.timeouts()).map(Some);
        }
        Ok(None)
    }

    #[cfg(feature = "tls")]
    fn timeouts(&self) -> [Duration; 2] {
        use crate::constants::{SSL_HANDSHAKE_TIMEOUT, SSL_SHUTDOWN_TIMEOUT};
        [self.handshake_timeout.unwrap_or(SSL_HANDSHAKE_TIMEOUT), self.shutdown_timeout.unwrap_or(SSL_SHUTDOWN_TIMEOUT)]
    }

    /// What holds for both.
    fn check(&self) -> Result<()> {
        let timeouts =
            [("ssl_handshake_timeout", self.handshake_timeout), ("ssl_shutdown_timeout", self.shutdown_timeout)];
        if self.context.is_some() {
            return match timeouts.into_iter().find(|(_, timeout)| *timeout == Some(Duration::ZERO)) {
                Some((name, _)) => Err(Error::Value(format!("{name} should be a positive number, got 0").into())),
                None => Ok(()),
            };
        }
        let given = [("server_hostname", self.server_hostname.is_some())]
            .into_iter()
            .chain(timeouts.map(|(name, timeout)| (name, timeout.is_some())))
            .find(|(_, given)| *given);
        match given {
            Some((name, _)) => Err(Error::Value(format!("{name} is only meaningful with ssl").into())),
            None => Ok(()),
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
