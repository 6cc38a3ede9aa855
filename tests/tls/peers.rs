//! The other side, in a thread: rustls over a plain socket, which blocks.

use std::{
    cell::RefCell,
    future::{Future, IntoFuture},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use asyncio::{
    EventLoop, SslContext, StreamProtocol, TlsVersion, Transport,
    rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName},
};

use crate::{
    certificates,
    support::transports::{Log, Pair, PairKind, Peer, Recorder, until},
};

/// How long a peer waits for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// One end of a TLS connection. Calls block.
pub(crate) struct TlsPeer {
    pub(crate) connection: Connection,
    pub(crate) socket: TcpStream,
}

impl TlsPeer {
    /// The client of a server at `address`, whom it knows as `localhost`; the handshake is over.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut peer = TlsPeer::client(TcpStream::connect(address)?);
        peer.handshake()?;
        Ok(peer)
    }

    /// A client whose handshake has not begun.
    pub(crate) fn client(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        let config = certificates::client().client_config().unwrap().clone();
        let name = ServerName::try_from("localhost").unwrap();
        TlsPeer { connection: ClientConnection::new(config, name).unwrap().into(), socket }
    }

    /// A server whose handshake has not begun.
    pub(crate) fn server(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        let config = certificates::server().server_config().unwrap().clone();
        TlsPeer { connection: ServerConnection::new(config).unwrap().into(), socket }
    }

    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.connection.complete_io(&mut self.socket)?;
        }
        // What the handshake made last, such as tickets.
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(1 << 14) {
            self.connection.writer().write_all(piece)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Receives something; nothing after the close alert of the other side, `UnexpectedEof` at an end without one.
    pub(crate) fn receive_some(&mut self, memory: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(memory) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
            self.connection.read_tls(&mut self.socket)?;
            let processed = self.connection.process_new_packets();
            self.flush()?;
            processed.map_err(io::Error::other)?;
        }
    }

    /// Receives exactly so many bytes.
    pub(crate) fn receive(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let (mut data, mut filled) = (vec![0; count], 0);
        while filled < count {
            match self.receive_some(&mut data[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(data)
    }

    /// Receives up to the close alert of the other side.
    pub(crate) fn receive_all(&mut self) -> io::Result<Vec<u8>> {
        let (mut data, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match self.receive_some(&mut chunk)? {
                0 => return Ok(data),
                count => data.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Says that it sends no more.
    pub(crate) fn close_notify(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush()
    }
}

/// A TCP listener, and what a thread does with the first connection to it.
pub(crate) fn serve_one<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || serve(listener.accept().unwrap().0));
    (address, thread)
}

/// The other side of one of our transports, driven by the test itself: it does nothing unless it is told to.
pub(crate) struct Driven {
    pub(crate) connection: Connection,
    pub(crate) socket: Peer,
    /// What it has decrypted.
    pub(crate) received: Vec<u8>,
    /// Whether our side has said that it sends no more.
    pub(crate) close_notify: bool,
    /// Whether our side has ended the connection under TLS, one way or the other.
    pub(crate) ended: bool,
    /// What was wrong with what it received.
    pub(crate) error: Option<rustls::Error>,
    /// What the system has not taken yet.
    outgoing: Vec<u8>,
}

impl Driven {
    pub(crate) fn new(socket: Peer, mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Driven {
            connection,
            socket,
            received: Vec::new(),
            close_notify: false,
            ended: false,
            error: None,
            outgoing: Vec::new(),
        }
    }

    /// Receives all that is there, and sends what there is to send.
    pub(crate) fn turn(&mut self) {
        self.receive(usize::MAX);
        self.flush();
    }

    /// Receives what is there, at most so many bytes of TLS.
    pub(crate) fn receive(&mut self, most: usize) {
        let (mut chunk, mut left) = (vec![0; 1 << 16], most);
        while left > 0 && !self.ended {
            let memory = &mut chunk[..left.min(1 << 16)];
            match (&self.socket.0).read(memory) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.process(&memory[..count]);
                    left -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    fn process(&mut self, mut data: &[u8]) {
        while !data.is_empty() && self.error.is_none() {
            assert!(!self.close_notify, "something came behind the close alert");
            self.connection.read_tls(&mut data).unwrap();
            self.error = self.connection.process_new_packets().err();
            let mut plain = vec![0; 1 << 16];
            loop {
                match self.connection.reader().read(&mut plain) {
                    Ok(0) => self.close_notify = true,
                    Ok(count) => {
                        self.received.extend_from_slice(&plain[..count]);
                        continue;
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                break;
            }
        }
    }

    /// Sends what the system takes of what there is to send.
    pub(crate) fn flush(&mut self) {
        let made = self.made();
        self.outgoing.extend(made);
        while !self.outgoing.is_empty() {
            match (&self.socket.0).write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    fn made(&mut self) -> Vec<u8> {
        let mut made = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut made).unwrap();
        }
        made
    }

    /// What `data` is on the wire; it is not sent.
    pub(crate) fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(data).unwrap();
        self.made()
    }

    /// What the close alert is on the wire; it is not sent.
    pub(crate) fn seal_close_notify(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.made()
    }

    /// Encrypts and sends `data`, as far as the system takes it at once; [`turn`](Self::turn) sends the rest.
    pub(crate) fn send(&mut self, data: &[u8]) {
        let sealed = self.seal(data);
        self.send_sealed(&sealed);
    }

    /// Sends these bytes, in one call if the system takes them.
    pub(crate) fn send_sealed(&mut self, sealed: &[u8]) {
        self.outgoing.extend_from_slice(sealed);
        self.flush();
    }

    /// Whether everything was sent.
    pub(crate) fn has_sent(&self) -> bool {
        self.outgoing.is_empty()
    }
}

/// Which side of a connection is a transport of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// How a connection is made over a pair of sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) ours: Side,
    pub(crate) version: TlsVersion,
    pub(crate) kind: PairKind,
    /// Whether the system takes but little.
    pub(crate) small: bool,
    pub(crate) shutdown_timeout: Option<Duration>,
    /// How long the records of our side are at most, and those of the other.
    pub(crate) our_records: Option<usize>,
    pub(crate) peer_records: Option<usize>,
}

/// Our side can be client or server, of either version of TLS, over TCP and unix sockets.
pub(crate) fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for ours in [Side::Client, Side::Server] {
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            for kind in [PairKind::Tcp, PairKind::Unix] {
                let (shutdown_timeout, our_records, peer_records) = (None, None, None);
                ways.push(Way { ours, version, kind, small: false, shutdown_timeout, our_records, peer_records });
            }
        }
    }
    ways
}

/// Our transport, and who is at the other side.
pub(crate) struct Ends<P = Recorder> {
    pub(crate) transport: Transport,
    pub(crate) protocol: Rc<RefCell<P>>,
    pub(crate) log: Log,
    pub(crate) peer: Driven,
}

type Opening<P> = Pin<Box<dyn Future<Output = asyncio::Result<(Transport, Rc<RefCell<P>>)>>>>;

impl Way {
    fn pair(self) -> Pair {
        if self.small { self.kind.small_pair() } else { self.kind.pair() }
    }

    fn client_config(self, records: Option<usize>) -> Arc<ClientConfig> {
        let context = certificates::client_builder().minimum_version(self.version).maximum_version(self.version);
        let mut config = (**context.build().unwrap().client_config().unwrap()).clone();
        config.max_fragment_size = records;
        Arc::new(config)
    }

    fn server_config(self, records: Option<usize>) -> Arc<ServerConfig> {
        let context = certificates::localhost().server_builder();
        let context = context.minimum_version(self.version).maximum_version(self.version).build().unwrap();
        let mut config = (**context.server_config().unwrap()).clone();
        config.max_fragment_size = records;
        Arc::new(config)
    }

    /// The other side, whose handshake has not begun.
    pub(crate) fn peer(self, socket: Peer) -> Driven {
        let connection = match self.ours {
            Side::Client => ServerConnection::new(self.server_config(self.peer_records)).unwrap().into(),
            Side::Server => {
                let name = ServerName::try_from("localhost").unwrap();
                ClientConnection::new(self.client_config(self.peer_records), name).unwrap().into()
            }
        };
        Driven::new(socket, connection)
    }

    /// Opens our side.
    pub(crate) fn open<P: StreamProtocol<K>, K: 'static>(
        self,
        event_loop: &EventLoop,
        ours: OwnedFd,
        protocol: P,
    ) -> Opening<P> {
        let timeout = self.shutdown_timeout.unwrap_or(asyncio::SSL_SHUTDOWN_TIMEOUT);
        match self.ours {
            Side::Client => {
                let context = SslContext::from(self.client_config(self.our_records));
                let opening = event_loop.create_connection(move || protocol, ()).sock(ours).ssl(&context);
                Box::pin(opening.server_hostname("localhost").ssl_shutdown_timeout(timeout).into_future())
            }
            Side::Server => {
                let context = SslContext::from(self.server_config(self.our_records));
                let opening = event_loop.connect_accepted_socket(move || protocol, ours).ssl(&context);
                Box::pin(opening.ssl_shutdown_timeout(timeout).into_future())
            }
        }
    }

    pub(crate) fn connect(self, event_loop: &EventLoop) -> Ends {
        self.connect_with(event_loop, |recorder| recorder)
    }

    /// Connects a protocol made of a recorder, with hooks for instance.
    pub(crate) fn connect_with<P: StreamProtocol<K>, K: 'static>(
        self,
        event_loop: &EventLoop,
        make: impl FnOnce(Recorder) -> P,
    ) -> Ends<P> {
        let (log, pair) = (Log::default(), self.pair());
        let mut peer = self.peer(pair.peer);
        let opening = self.open(event_loop, pair.ours, make(Recorder::new(&log)));
        let task = event_loop.create_task(opening);
        until(event_loop, || {
            peer.turn();
            task.done() && !peer.connection.is_handshaking()
        });
        let (transport, protocol) = event_loop.run_until_complete(task).unwrap();
        Ends { transport, protocol, log, peer }
    }

    /// Connects two transports of ours: the side that [`ours`](Way::ours) names, and the other.
    pub(crate) fn connect_both(
        self,
        event_loop: &EventLoop,
        one: impl FnOnce(Recorder) -> Recorder,
        other: impl FnOnce(Recorder) -> Recorder,
    ) -> [(Transport, Log); 2] {
        let (logs, pair) = ([Log::default(), Log::default()], self.pair());
        let opposite = Way { ours: if self.ours == Side::Client { Side::Server } else { Side::Client }, ..self };
        let tasks = [
            event_loop.create_task(self.open(event_loop, pair.ours, one(Recorder::new(&logs[0])))),
            event_loop.create_task(opposite.open(event_loop, pair.peer.0.into(), other(Recorder::new(&logs[1])))),
        ];
        until(event_loop, || tasks.iter().all(|task| task.done()));
        let transports = tasks.map(|task| event_loop.run_until_complete(task).unwrap().0);
        let [one, other] = transports;
        let [log, other_log] = logs;
        [(one, log), (other, other_log)]
    }
}
