//! The other side, in a thread: rustls over a plain socket, which blocks.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use asyncio::rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName};

use crate::certificates;

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

    /// Ends the TCP connection in the direction of the other side.
    pub(crate) fn shutdown(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
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

/// A server that is a peer: its handshake is over when `serve` begins.
pub(crate) fn serve_tls<T: Send + 'static>(
    serve: impl FnOnce(TlsPeer) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    serve_one(move |socket| {
        let mut peer = TlsPeer::server(socket);
        peer.handshake().unwrap();
        serve(peer)
    })
}
