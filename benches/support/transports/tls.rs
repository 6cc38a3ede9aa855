//! The same under TLS 1.3: our transports beside tokio-rustls, with one configuration, AES-256-GCM and the same rustls.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, LazyLock},
    time::Duration,
};

use asyncio::{
    CreateServer, SslContext,
    rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
        client::Resumption,
        crypto::{
            CryptoProvider,
            ring::{Ticketer, cipher_suite::TLS13_AES_256_GCM_SHA384, default_provider},
        },
        version::TLS13,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{Group, Peer, scale},
    ACCEPTED_AT_ONCE, KIB, Server, Work, asyncio_servers,
    clients::{Channel, time_of_the_others},
    listen, run, run_echo, tokio_servers,
};

pub(super) const GROUPS: &[Group] = &[
    echo::<1, KIB>("echo_tls_1x1KiB", "a request and its echo over TLS; 1 connection, 1 KiB", 20_000),
    echo::<1, { 100 * KIB }>("echo_tls_1x100KiB", "the same; 1 connection, 100 KiB", 2_000),
    echo::<10, KIB>("echo_tls_10x1KiB", "the same; 10 connections, 1 KiB", 50_000),
    echo::<10, { 100 * KIB }>("echo_tls_10x100KiB", "the same; 10 connections, 100 KiB", 2_000),
    echo::<100, KIB>("echo_tls_100x1KiB", "the same; 100 connections, 1 KiB", 50_000),
    echo::<100, { 100 * KIB }>("echo_tls_100x100KiB", "the same; 100 connections, 100 KiB", 2_000),
    handshakes::<false>(
        "handshake_tls",
        "a connection that is accepted, shakes hands, and closes; 16 at a time",
        2_000,
    ),
    handshakes::<true>("handshake_tls_resumed", "the same; its session is an earlier one's", 4_000),
];

/// The servers whose idle connections are looked at: ours and tokio's.
pub(super) const ECHO: [Server; 2] = [asyncio_servers::echo, tokio_echo];

const fn echo<const CONNECTIONS: usize, const SIZE: usize>(
    name: &'static str,
    about: &'static str,
    count: u64,
) -> Group {
    let peers = const {
        &[
            Peer {
                name: "asyncio",
                run: |count| run_echo::<TlsChannel>(count, CONNECTIONS, SIZE, asyncio_servers::echo),
            },
            Peer {
                name: "asyncio_buffered",
                run: |count| run_echo::<TlsChannel>(count, CONNECTIONS, SIZE, asyncio_servers::echo_buffered),
            },
            Peer { name: "tokio", run: |count| run_echo::<TlsChannel>(count, CONNECTIONS, SIZE, tokio_echo) },
        ]
    };
    Group { name, about, count, reach: Some((1.0, "tokio")), peers }
}

const fn handshakes<const RESUMED: bool>(name: &'static str, about: &'static str, count: u64) -> Group {
    let peers = const {
        &[
            Peer { name: "asyncio", run: |count| run_handshakes(count, RESUMED, asyncio_servers::echo) },
            Peer { name: "tokio", run: |count| run_handshakes(count, RESUMED, tokio_echo) },
        ]
    };
    Group { name, about, count, reach: Some((1.0, "tokio")), peers }
}

/// What both sides are configured with: every server is given this one.
static CONFIGS: LazyLock<(Arc<ServerConfig>, ClientConfig)> = LazyLock::new(|| {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
    let (certificate, key) = (identity.cert.der().clone(), identity.signing_key.into());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it is a certificate");
    let provider = CryptoProvider { cipher_suites: vec![TLS13_AES_256_GCM_SHA384], ..default_provider() };
    let provider = Arc::new(provider);
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
    let server = server.expect("it has a cipher for it").with_no_client_auth();
    let mut server = server.with_single_cert(vec![certificate], key).expect("they belong together");
    server.ticketer = Ticketer::new().expect("there are random numbers");
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let mut client = client.expect("it has a cipher for it").with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    (Arc::new(server), client)
});

/// Makes a server of ours speak TLS where the work asks for it.
pub(super) fn secure<F, P, K>(server: CreateServer<F, P, K>, work: &Work) -> CreateServer<F, P, K> {
    if work.secure { server.ssl(&SslContext::from(CONFIGS.0.clone())) } else { server }
}

fn tokio_echo(listener: TcpListener, work: Work) {
    let acceptor = TlsAcceptor::from(CONFIGS.0.clone());
    tokio_servers::serve(listener, work, move |socket, work| {
        let accepted = acceptor.accept(socket);
        async move {
            let mut stream = accepted.await?;
            let mut buffer = work.buffer();
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return stream.shutdown().await,
                    count => stream.write_all(&buffer[..count]).await?,
                }
                stream.flush().await?;
            }
        }
    });
}

/// A client's end.
pub(super) struct TlsChannel {
    socket: TcpStream,
    connection: ClientConnection,
    /// Whether it has said that it sends no more.
    ended: bool,
}

impl TlsChannel {
    /// Connects, and sends the beginning of a handshake.
    fn begin(server: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let name = "localhost".try_into().expect("it is a name");
        let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        // Whole messages are encrypted at once.
        connection.set_buffer_limit(None);
        connection.write_tls(&mut socket)?;
        Ok(TlsChannel { socket, connection, ended: false })
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.connection.complete_io(&mut self.socket)?;
        }
        Ok(())
    }

    /// Takes what the server sends: false at its end.
    fn hear(&mut self) -> io::Result<bool> {
        let count = self.connection.read_tls(&mut self.socket)?;
        self.connection.process_new_packets().map_err(io::Error::other)?;
        Ok(count > 0)
    }

    /// Says that it sends no more.
    fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.connection.send_close_notify();
        self.connection.write_tls(&mut self.socket)?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// How many bytes have been decrypted, which are forgotten.
    fn forget_plain(&mut self) -> usize {
        let (mut reader, mut all) = (self.connection.reader(), 0);
        while let Some(count) = reader.fill_buf().ok().map(<[u8]>::len).filter(|count| *count > 0) {
            reader.consume(count);
            all += count;
        }
        all
    }
}

impl Channel for TlsChannel {
    const SECURE: bool = true;

    fn connect(server: SocketAddr) -> io::Result<Self> {
        let mut channel = TlsChannel::begin(server, &Arc::new(CONFIGS.1.clone()))?;
        channel.shake_hands()?;
        channel.socket.set_nonblocking(true)?;
        Ok(channel)
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        // Where something is left of it, it is the same data's.
        if !self.connection.wants_write() {
            self.connection.writer().write_all(data)?;
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(data.len())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.socket.read(buffer)?;
            let (mut encrypted, mut plain) = (&buffer[..count], 0);
            while !encrypted.is_empty() {
                self.connection.read_tls(&mut encrypted)?;
                self.connection.process_new_packets().map_err(io::Error::other)?;
                plain += self.forget_plain();
            }
            if count == 0 || plain > 0 {
                return Ok(plain);
            }
        }
    }
}

/// To the end of the server, which may have something to say to it.
impl Drop for TlsChannel {
    fn drop(&mut self) {
        let mut end = || {
            self.socket.set_nonblocking(false)?;
            self.end()?;
            while self.hear()? {}
            Ok(())
        };
        let ended: io::Result<()> = end();
        ended.expect("the server closes in order");
    }
}

fn run_handshakes(count: u64, resumed: bool, server: Server) -> Duration {
    let batches = usize::try_from(count).expect("it fits").div_ceil(ACCEPTED_AT_ONCE);
    let (listener, address) = listen(ACCEPTED_AT_ONCE);
    // One batch more, to begin with.
    let work = Work { secure: true, ..Work::new((batches + 1) * ACCEPTED_AT_ONCE, 1) };
    let time = run(move || play_handshakes(address, batches, resumed), || server(listener, work));
    scale(time, (batches * ACCEPTED_AT_ONCE) as u64, count)
}

/// Shakes hands, some at a time; one batch is not measured: from it come the first sessions to resume.
fn play_handshakes(server: SocketAddr, batches: usize, resumed: bool) -> Duration {
    let remember = || if resumed { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    // Each remembers its own sessions.
    let mut configs = vec![CONFIGS.1.clone(); ACCEPTED_AT_ONCE];
    configs.iter_mut().for_each(|config| config.resumption = remember());
    let configs: Vec<_> = configs.into_iter().map(Arc::new).collect();
    let batch = |kind| {
        let channels = configs.iter().map(|config| TlsChannel::begin(server, config));
        let mut channels: Vec<_> = channels.collect::<io::Result<_>>().expect("loopback");
        for channel in &mut channels {
            channel.shake_hands().expect("the server shakes hands");
            assert_eq!(channel.connection.handshake_kind(), Some(kind));
        }
        for channel in &mut channels {
            // Its tickets: it knows of the end of the handshake.
            assert!(channel.hear().expect("the server is there"));
        }
        channels.iter_mut().for_each(|channel| channel.end().expect("the server is there"));
    };
    batch(HandshakeKind::Full);
    let before = time_of_the_others();
    (0..batches).for_each(|_| batch(if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full }));
    time_of_the_others() - before
}
