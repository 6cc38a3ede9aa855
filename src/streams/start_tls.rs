//! TLS over a stream that was in clear before.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::start_tls::StartTls,
    streams::{core::StreamCore, writer::StreamWriter},
    tls::context::SslContext,
    transport::Transport,
};

impl StreamWriter {
    /// Encrypts the connection, for both halves.
    ///
    /// What was written before goes first, in clear. What the reader holds unread is fed to the handshake, and never
    /// given to a read: where it is anything else than the beginning of one, the handshake fails. So read the other
    /// side's consent before, and write nothing in between.
    ///
    /// A context for servers makes this side the server. A client needs
    /// [`server_hostname`](StreamStartTls::server_hostname). See [`EventLoop::start_tls`](crate::EventLoop::start_tls)
    /// for what both sides have to agree on.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it aborts the connection once the handshake has begun.
    ///
    /// # Errors
    ///
    /// Those of [`drain`](Self::drain) and [`EventLoop::start_tls`](crate::EventLoop::start_tls).
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{CIPHER, SslContext};
    ///
    /// let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    /// let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let for_server = SslContext::server_builder().cert_chain_pem(&chain, &key).build()?;
    /// let for_client = SslContext::client_builder().verify_pem(&chain).build()?;
    ///
    /// asyncio::run(async move {
    ///     let server = asyncio::start_server(
    ///         async move |mut reader, writer| {
    ///             assert_eq!(reader.readline().await?, b"STARTTLS\n");
    ///             writer.write("go ahead\n")?;
    ///             writer.start_tls(&for_server).await?;
    ///             writer.write(reader.readline().await?)?;
    ///             writer.drain().await
    ///         },
    ///         ("127.0.0.1", 0),
    ///     )
    ///     .await?;
    ///     let (mut reader, writer) = asyncio::open_connection(server.sockets()[0].address()).await?;
    ///     writer.write("STARTTLS\n")?;
    ///     assert_eq!(reader.readline().await?, b"go ahead\n");
    ///     writer.start_tls(&for_client).server_hostname("localhost").await?;
    ///     assert!(writer.get_extra_info(CIPHER).is_some());
    ///     writer.write("a secret\n")?;
    ///     assert_eq!(reader.readline().await?, b"a secret\n");
    ///     Ok(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// asyncio: `StreamWriter.start_tls`.
    pub fn start_tls<'w>(&'w self, context: &SslContext) -> StreamStartTls<'w> {
        StreamStartTls {
            writer: self,
            context: context.clone(),
            server_hostname: None,
            handshake_timeout: None,
            shutdown_timeout: None,
        }
    }
}

/// What [`StreamWriter::start_tls`] gives: setters, and the work when it is awaited.
#[must_use = "nothing is encrypted until it is awaited"]
pub struct StreamStartTls<'w> {
    writer: &'w StreamWriter,
    context: SslContext,
    server_hostname: Option<String>,
    handshake_timeout: Option<Duration>,
    shutdown_timeout: Option<Duration>,
}

impl StreamStartTls<'_> {
    /// See [`StartTls::server_hostname`].
    ///
    /// asyncio: `server_hostname=`.
    pub fn server_hostname(mut self, name: impl Into<String>) -> Self {
        self.server_hostname = Some(name.into());
        self
    }

    /// See [`StartTls::ssl_handshake_timeout`].
    ///
    /// asyncio: `ssl_handshake_timeout=`.
    pub fn ssl_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = Some(timeout);
        self
    }

    /// See [`StartTls::ssl_shutdown_timeout`].
    ///
    /// asyncio: `ssl_shutdown_timeout=`.
    pub fn ssl_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    async fn start(self) -> Result<()> {
        self.writer.drain().await?;
        let core = self.writer.key.core("start_tls()")?;
        let transport = core.transport().ok_or_else(|| Error::Runtime("the stream has no transport".into()))?;
        if !core.is_told_by(&transport) {
            let text = "start_tls() on a stream whose transport another start_tls() or set_protocol() has taken over";
            return Err(Error::Runtime(text.into()));
        }
        // A pause because of what was unread is over, whatever comes of this.
        let (paused, unread) = core.look(|buffer| (buffer.resumes_for_more(), buffer.take_all()));
        let reads = paused || transport.is_reading();
        transport.pause_reading();
        core.upgrading.set(true);
        let upgrading = Upgrading { core: &core, transport: &transport, unread: &unread, reads };
        let outcome = self.options(&core, &transport)?.buffered(unread.clone()).await;
        drop(upgrading);
        core.set_transport(&outcome?);
        core.pause_if_unread();
        Ok(())
    }

    fn options(&self, core: &Rc<StreamCore>, transport: &Transport) -> Result<StartTls> {
        let event_loop = core.event_loop().ok_or_else(|| Error::Runtime("Event loop is closed".into()))?;
        let mut start = event_loop.start_tls(transport, &self.context);
        if let Some(name) = &self.server_hostname {
            start = start.server_hostname(name.clone());
        }
        if let Some(timeout) = self.handshake_timeout {
            start = start.ssl_handshake_timeout(timeout);
        }
        if let Some(timeout) = self.shutdown_timeout {
            start = start.ssl_shutdown_timeout(timeout);
        }
        Ok(start)
    }
}

impl<'w> IntoFuture for StreamStartTls<'w> {
    type Output = Result<()>;
    type IntoFuture = Pin<Box<dyn StdFuture<Output = Result<()>> + 'w>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl fmt::Debug for StreamStartTls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamStartTls").field("writer", self.writer).finish_non_exhaustive()
    }
}

/// A stream between its transports.
struct Upgrading<'a> {
    core: &'a Rc<StreamCore>,
    transport: &'a Transport,
    unread: &'a [u8],
    /// Whether it is to read again.
    reads: bool,
}

impl Drop for Upgrading<'_> {
    /// Where nothing has begun, all is as before.
    fn drop(&mut self) {
        self.core.upgrading.set(false);
        if self.core.is_told_by(self.transport) && !self.transport.is_closing() {
            let pauses = self.core.look(|buffer| buffer.put_back(self.unread.to_vec()));
            if self.reads && !pauses {
                self.transport.resume_reading();
            }
        }
    }
}
