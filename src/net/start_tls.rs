//! TLS over a connection that was in clear before.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    pin::Pin,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    event_loop::EventLoop,
    net::{open::Unclaimed, options::SslOptions, sock::Home},
    tls::{context::SslContext, protocol::TlsTransport},
    transport::Transport,
};

impl EventLoop {
    /// Encrypts a connection that stands, and gives the transport to use from now on.
    ///
    /// The protocol stays the same and hears nothing of it: no second `connection_made`. Tell it of the new transport
    /// when this returns; nothing is received before that. What was written before goes first, in clear. The old
    /// transport belongs to the new one then: writing to it is a mistake, and closing or aborting it ends the
    /// connection without a word to the other side. A TLS transport can be encrypted once more, which is how one gets
    /// through a proxy that speaks TLS itself.
    ///
    /// A context for servers makes this side the server. A client needs
    /// [`server_hostname`](StartTls::server_hostname).
    ///
    /// Both sides must agree on the byte after which TLS begins: a client asks, waits for the server's consent, and
    /// writes nothing in between; a server pauses reading when it consents, so that what follows is left to the
    /// handshake. What either has received in clear behind the request or the consent may be anybody's: refuse it, and
    /// never take it for encrypted. (Where a handshake may begin without consent, it is for
    /// [`buffered`](StartTls::buffered).) Forget what was said in clear, and say it again. The example `starttls_smtp_like`
    /// does all this.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it aborts the connection, and `connection_lost(None)` is called.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a transport that is no socket ("not supported") and for arguments that contradict each
    /// other; [`Error::Runtime`] for one that is closing, that has ended writing, that sends a file, and that
    /// `start_tls` has taken over already. Nothing has changed then. [`Error::Ssl`] when the handshake fails,
    /// [`Error::Io`] `ConnectionAborted` when it takes too long, `ConnectionReset` when the other side ends the
    /// connection; `connection_lost` gets the same error, so a task that does nothing else need not return it.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{CIPHER, Protocol, SslContext};
    ///
    /// struct Ignore;
    ///
    /// impl Protocol for Ignore {
    ///     fn data_received(&mut self, _data: &[u8]) {}
    /// }
    ///
    /// let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    /// let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let for_server = SslContext::server_builder().cert_chain_pem(&chain, &key).build()?;
    /// let for_client = SslContext::client_builder().verify_pem(&chain).build()?;
    ///
    /// asyncio::run(async move {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ///     let (server, _) = event_loop.create_connection(|| Ignore, ()).sock(ours).await?;
    ///     let (client, _) = event_loop.create_connection(|| Ignore, ()).sock(theirs).await?;
    ///     let (server, client) = asyncio::gather((
    ///         event_loop.start_tls(&server, &for_server),
    ///         event_loop.start_tls(&client, &for_client).server_hostname("localhost"),
    ///     ))
    ///     .await?;
    ///     assert_eq!(server.get_extra_info(CIPHER), client.get_extra_info(CIPHER));
    ///     client.close();
    ///     Ok(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// asyncio: `loop.start_tls`. Differs: the protocol is the transport's, not an argument; a transport that is
    /// closing is an error, not `None`.
    pub fn start_tls(&self, transport: &Transport, context: &SslContext) -> StartTls {
        StartTls {
            event_loop: self.clone(),
            transport: transport.clone(),
            server_side: None,
            buffered: Vec::new(),
            ssl_options: SslOptions { context: Some(context.clone()), ..SslOptions::default() },
        }
    }
}

/// What [`EventLoop::start_tls`] gives: setters, and the work when it is awaited, which gives the new [`Transport`].
#[must_use = "nothing is encrypted until it is awaited"]
pub struct StartTls {
    event_loop: EventLoop,
    transport: Transport,
    server_side: Option<bool>,
    buffered: Vec<u8>,
    ssl_options: SslOptions,
}

impl StartTls {
    /// Whether this side is the server. The context says so already, and need not be repeated; to contradict it is
    /// [`Error::Value`].
    ///
    /// asyncio: `server_side=`.
    pub fn server_side(mut self, server_side: bool) -> Self {
        self.server_side = Some(server_side);
        self
    }

    /// The name that the server's certificate must have. A client needs it, for it was not said to whom the transport
    /// is connected; a server has none.
    ///
    /// asyncio: `server_hostname=`.
    pub fn server_hostname(mut self, name: impl Into<String>) -> Self {
        self.ssl_options.server_hostname = Some(name.into());
        self
    }

    /// See [`CreateConnection::ssl_handshake_timeout`](crate::CreateConnection::ssl_handshake_timeout).
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.handshake_timeout = Some(timeout);
        self
    }

    /// See [`CreateConnection::ssl_shutdown_timeout`](crate::CreateConnection::ssl_shutdown_timeout).
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.ssl_options.shutdown_timeout = Some(timeout);
        self
    }

    /// What the protocol has received behind the last byte in clear, where the other side may begin its handshake
    /// without waiting: it is taken as the beginning of that. If it is anything else, the handshake fails; it is never
    /// delivered.
    ///
    /// asyncio: has none for protocols; `StreamWriter.start_tls` does it with what its reader holds.
    pub fn buffered(mut self, received: impl Into<Vec<u8>>) -> Self {
        self.buffered = received.into();
        self
    }
}

impl fmt::Debug for StartTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StartTls { transport, ssl_options, .. } = self;
        f.debug_struct("StartTls").field("transport", transport).field("ssl", ssl_options).finish_non_exhaustive()
    }
}

impl IntoFuture for StartTls {
    type Output = Result<Transport>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<Transport>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let StartTls { event_loop, transport, server_side, buffered, ssl_options } = self;
        let home = Home::of(&event_loop);
        drop(event_loop);
        Box::pin(async move {
            let is_server = ssl_options.context.as_ref().is_some_and(|context| context.server_config().is_some());
            let server_side = server_side.unwrap_or(is_server);
            let options = if server_side { ssl_options.server()? } else { ssl_options.client(None)? };
            if server_side && ssl_options.server_hostname.is_some() {
                return Err(Error::Value("server_hostname is only meaningful for a client".into()));
            }
            let options = options.ok_or_else(|| Error::Value("start_tls() needs an SslContext".into()))?;
            let event_loop = home.event_loop()?;
            let protocol = transport.0.protocol();
            let protocol =
                protocol.ok_or_else(|| Error::Runtime("start_tls() on a transport that is closed".into()))?;
            let opener = event_loop.create_future();
            let tls = TlsTransport::new(&event_loop, options, protocol, Some(opener.clone()))?;
            // A future that holds its loop would keep it alive.
            drop(event_loop);
            tls.take_over(transport)?;
            let mut unclaimed = Unclaimed(Some(Transport(tls.clone())));
            tls.start(&buffered);
            drop(tls);
            opener.await?;
            Ok(unclaimed.0.take().expect("nobody else takes it"))
        })
    }
}
