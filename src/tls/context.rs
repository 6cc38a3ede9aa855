//! The configuration of TLS connections.

use std::{fmt, net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use ::rustls::{ClientConfig, ServerConfig, pki_types::ServerName};

use crate::{
    error::{Error, Result},
    tls::{context_builder::SslContextBuilder, rustls, session::Session},
};

/// The configuration of TLS connections: whom to trust, what to show, what to speak. A cheap handle; clones share it,
/// and what they remember of sessions to resume.
///
/// One is for clients or for servers, never for both. It goes to the setter `ssl` of what opens connections and
/// servers, and to [`start_tls`](crate::EventLoop::start_tls). rustls does the work: TLS 1.2 and 1.3, and nothing that
/// is known to be unsafe. Where the [builder](SslContextBuilder) does not go far enough (certificates by name,
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
/// A client that trusts whom the system trusts. [`SslContextBuilder`] shows one with a server of its own.
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
    /// For clients that trust whom this system trusts.
    ///
    /// The authorities' certificates are read once, at this call, from where this system keeps them (on Linux, where
    /// OpenSSL finds them); the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Keep the context
    /// and use it for all connections: to read them takes milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Ssl`] if there are none, as in many small containers: install the system's package `ca-certificates`,
    /// or say whom to trust by [`SslContextBuilder::load_verify_locations`].
    ///
    /// asyncio: `ssl.create_default_context()`.
    pub fn client() -> Result<SslContext> {
        SslContext::client_builder().build()
    }

    /// For servers that show this certificate chain and have its key, both PEM files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the path, if a file cannot be read; [`Error::Ssl`] if it has no certificate or no key, or if
    /// the two do not belong together.
    ///
    /// # Examples
    ///
    /// ```
    /// let missing = asyncio::SslContext::server("no-such-chain.pem", "no-such-key.pem").unwrap_err();
    /// assert!(missing.to_string().contains("no-such-chain.pem"));
    /// ```
    ///
    /// asyncio: `ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)` and `load_cert_chain`.
    pub fn server(certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> Result<SslContext> {
        SslContext::server_builder().load_cert_chain(certfile, keyfile).build()
    }

    /// For clients, setting by setting.
    ///
    /// asyncio: `ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)`.
    pub fn client_builder() -> SslContextBuilder {
        SslContextBuilder::client()
    }

    /// For servers, setting by setting.
    ///
    /// asyncio: `ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)`.
    pub fn server_builder() -> SslContextBuilder {
        SslContextBuilder::server()
    }

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
