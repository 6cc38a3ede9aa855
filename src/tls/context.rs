//! The configuration of TLS connections.

use std::{fmt, net::Ipv6Addr, sync::Arc, time::Duration};

use ::rustls::{ClientConfig, ServerConfig, pki_types::ServerName};

use crate::{
    error::{Error, Result},
    tls::{rustls, session::Session},
};

/// The configuration of TLS connections: whom to trust, what to show, what to speak. A cheap handle; clones share it,
/// and what they remember of sessions to resume.
///
/// One is for clients or for servers, never for both. It goes to the setter `ssl` of what opens connections and
/// servers, and to [`start_tls`](crate::EventLoop::start_tls). rustls does the work: TLS 1.2 and 1.3, and nothing that
/// is known to be unsafe. Where the [builder](crate::SslContextBuilder) does not go far enough (certificates by name,
/// revocation lists, keys in hardware), make a configuration of [rustls](crate::rustls) and turn it into this with
/// `From`.
///
/// The environment variable `SSLKEYLOGFILE` names a file to append the secrets of all connections to, for debuggers
/// such as Wireshark; a configuration that was made by rustls itself has its own `key_log`.
///
/// `Threads:` any.
///
/// # Examples
///
/// A client that trusts whom the system trusts. [`SslContextBuilder`](crate::SslContextBuilder) shows one with a server of its own.
///
/// ```no_run
/// # struct Ignore;
/// # impl asyncio::Protocol for Ignore {
/// #     fn data_received(&mut self, _data: &[u8]) {}
/// # }
/// use asyncio::{CIPHER, SslContext};
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let context = SslContext::client()?;
///     let (transport, _) = event_loop.create_connection(|| Ignore, ("example.org", 443)).ssl(&context).await?;
///     println!("{}", transport.get_extra_info(CIPHER).expect("it is a TLS transport"));
///     transport.close();
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `ssl.SSLContext`.
#[derive(Clone)]
pub struct SslContext {
    pub(super) side: Side,
    /// Whether a client needs a name to check.
    pub(super) checks_hostname: bool,
}

#[derive(Clone)]
pub(super) enum Side {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl SslContext {
    /// The configuration of rustls in it, if it is for clients.
    ///
    /// asyncio: has none.
    pub fn client_config(&self) -> Option<&Arc<ClientConfig>> {
        match &self.side {
            Side::Client(config) => Some(config),
            Side::Server(_) => None,
        }
    }

    /// The configuration of rustls in it, if it is for servers.
    ///
    /// asyncio: has none.
    pub fn server_config(&self) -> Option<&Arc<ServerConfig>> {
        match &self.side {
            Side::Client(_) => None,
            Side::Server(config) => Some(config),
        }
    }
}

/// For clients. The name of the server is always needed, and goes to the configuration's verifier.
impl From<Arc<ClientConfig>> for SslContext {
    fn from(config: Arc<ClientConfig>) -> Self {
        SslContext { side: Side::Client(config), checks_hostname: true }
    }
}

/// For clients. The name of the server is always needed, and goes to the configuration's verifier.
impl From<ClientConfig> for SslContext {
    fn from(config: ClientConfig) -> Self {
        Arc::new(config).into()
    }
}

/// For servers. Early data (0-RTT) is not supported: `max_early_data_size` must be 0, as it is unless it is set.
impl From<Arc<ServerConfig>> for SslContext {
    fn from(config: Arc<ServerConfig>) -> Self {
        SslContext { side: Side::Server(config), checks_hostname: false }
    }
}

/// For servers. Early data (0-RTT) is not supported: `max_early_data_size` must be 0, as it is unless it is set.
impl From<ServerConfig> for SslContext {
    fn from(config: ServerConfig) -> Self {
        Arc::new(config).into()
    }
}

impl fmt::Debug for SslContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match &self.side {
            Side::Client(_) => "client",
            Side::Server(_) => "server",
        };
        f.debug_struct("SslContext").field("side", &side).finish_non_exhaustive()
    }
}

/// One end of a connection to be, checked before anything is opened.
#[derive(Clone, Debug)]
pub(crate) struct TlsOptions {
    pub(super) context: SslContext,
    /// Whom a client wants to talk to.
    hostname: Option<ServerName<'static>>,
    pub(super) handshake_timeout: Duration,
    pub(super) shutdown_timeout: Duration,
}

impl TlsOptions {
    /// The end that connects. `hostname` was asked for; `host` is what it is otherwise.
    pub(crate) fn client(
        context: &SslContext,
        hostname: Option<&str>,
        host: Option<&str>,
        [handshake_timeout, shutdown_timeout]: [Duration; 2],
    ) -> Result<Self> {
        if let Side::Server(_) = context.side {
            return Err(Error::Value("a client needs an SslContext for clients, this one is for servers".into()));
        }
        let checks = context.checks_hostname;
        let name = match (hostname, host) {
            (Some(""), _) if checks => {
                let text = "server_hostname must not be empty; what switches the check of the name off is \
                            SslContextBuilder::dangerous_disable_hostname_check()";
                return Err(Error::Value(text.into()));
            }
            (None, None | Some("")) if checks => {
                return Err(Error::Value("You must set server_hostname when using ssl without a host".into()));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => "",
        };
        // The zone of an address is this machine's own business.
        let zoned = name.split_once('%').filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        let bare = zoned.map_or(name, |(address, _)| address);
        let hostname = match ServerName::try_from(bare) {
            Ok(name) => name.to_owned(),
            Err(_) if !checks => rustls::nobody(),
            Err(_) => {
                let text = format!(
                    "server_hostname {name:?} is no name and no address that a certificate may have: it is without \
                     scheme, port and brackets, and in ASCII (xn--…)"
                );
                return Err(Error::Value(text.into()));
            }
        };
        Ok(TlsOptions { context: context.clone(), hostname: Some(hostname), handshake_timeout, shutdown_timeout })
    }

    /// The end that accepts.
    pub(crate) fn server(context: &SslContext, [handshake_timeout, shutdown_timeout]: [Duration; 2]) -> Result<Self> {
        match &context.side {
            Side::Client(_) => {
                return Err(Error::Value("a server needs an SslContext for servers, this one is for clients".into()));
            }
            // Whoever replays it has it delivered again.
            Side::Server(config) if config.max_early_data_size > 0 => {
                return Err(Error::Value("early data (0-RTT) is not supported: max_early_data_size must be 0".into()));
            }
            Side::Server(_) => {}
        }
        Ok(TlsOptions { context: context.clone(), hostname: None, handshake_timeout, shutdown_timeout })
    }

    pub(super) fn session(&self) -> Result<Box<dyn Session>> {
        match (&self.context.side, &self.hostname) {
            (Side::Client(config), Some(name)) => rustls::connect(config.clone(), name.clone()),
            (Side::Server(config), None) => rustls::accept(config.clone()),
            _ => Err(Error::Runtime("a context of one side and options of the other".into())),
        }
    }
}
