//! Servers of ours: a protocol for each connection.

use std::{
    net::{TcpListener, UdpSocket},
    rc::Rc,
};

use asyncio::{
    Address, BufferedProtocol, DatagramProtocol, DatagramTransport, Error, Future, Protocol, StreamProtocol, Transport,
};

use super::{super::on_asyncio, BACKLOG, PIECE, Work, tls};

/// What every protocol here knows.
struct Connection {
    serving: Rc<Serving>,
    transport: Option<Transport>,
}

struct Serving {
    work: Work,
    over: Future<()>,
}

impl Connection {
    fn write(&self, data: &[u8]) {
        self.transport.as_ref().expect("it is connected").write(data);
    }

    fn lost(&mut self, error: Option<&Error>) {
        assert!(error.is_none(), "{error:?}");
        self.transport = None;
        if self.serving.work.one_has_ended() {
            self.serving.over.set_result(()).expect("it is the only one");
        }
    }
}

fn serve<P: StreamProtocol<Kind>, Kind: 'static>(
    listener: TcpListener,
    work: Work,
    make: impl Fn(Connection) -> P + 'static,
) {
    on_asyncio(async move {
        let event_loop = asyncio::get_running_loop()?;
        let serving = Rc::new(Serving { work, over: event_loop.create_future() });
        let (work, over) = (serving.work.clone(), serving.over.clone());
        let factory = move || make(Connection { serving: serving.clone(), transport: None });
        let server = event_loop.create_server(factory, ()).sock(listener).backlog(BACKLOG as u32);
        let server = tls::secure(server, &work).await?;
        over.await?;
        server.close();
        server.wait_closed().await
    });
}

struct Echo(Connection);

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.transport = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.0.write(data);
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.0.lost(error);
    }
}

pub(super) fn echo(listener: TcpListener, work: Work) {
    serve(listener, work, Echo);
}

struct EchoBuffered {
    connection: Connection,
    buffer: Vec<u8>,
}

impl BufferedProtocol for EchoBuffered {
    fn connection_made(&mut self, transport: &Transport) {
        self.connection.transport = Some(transport.clone());
    }

    fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] {
        &mut self.buffer
    }

    fn buffer_updated(&mut self, count: usize) {
        self.connection.write(&self.buffer[..count]);
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.connection.lost(error);
    }
}

pub(super) fn echo_buffered(listener: TcpListener, work: Work) {
    serve(listener, work, |connection| EchoBuffered { buffer: connection.serving.work.buffer(), connection });
}

struct Receive(Connection);

impl Protocol for Receive {
    fn data_received(&mut self, _data: &[u8]) {}

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.0.lost(error);
    }
}

pub(super) fn receive(listener: TcpListener, work: Work) {
    serve(listener, work, Receive);
}

struct ReceiveBuffered {
    connection: Connection,
    buffer: Vec<u8>,
}

impl BufferedProtocol for ReceiveBuffered {
    fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] {
        &mut self.buffer
    }

    fn buffer_updated(&mut self, _count: usize) {}

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.connection.lost(error);
    }
}

pub(super) fn receive_buffered(listener: TcpListener, work: Work) {
    serve(listener, work, |connection| ReceiveBuffered { buffer: connection.serving.work.buffer(), connection });
}

/// Writes as long as it is not told to pause.
struct Send {
    connection: Connection,
    left: u64,
}

impl Send {
    fn write(&mut self) {
        let transport = self.connection.transport.as_ref().expect("it is connected");
        while self.left > 0 && !transport.is_write_paused() {
            self.left -= PIECE as u64;
            transport.write(&[b'x'; PIECE]);
        }
        if self.left == 0 {
            transport.close();
        }
    }
}

impl Protocol for Send {
    fn connection_made(&mut self, transport: &Transport) {
        self.connection.transport = Some(transport.clone());
    }

    fn data_received(&mut self, _data: &[u8]) {
        self.write();
    }

    fn resume_writing(&mut self) {
        self.write();
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.connection.lost(error);
    }
}

pub(super) fn send(listener: TcpListener, work: Work) {
    serve(listener, work, |connection| Send { left: connection.serving.work.bytes, connection });
}

struct EchoDatagrams {
    over: Future<()>,
    transport: Option<DatagramTransport>,
}

impl DatagramProtocol for EchoDatagrams {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.transport = Some(transport.clone());
    }

    fn datagram_received(&mut self, data: &[u8], address: &Address) {
        if data.is_empty() {
            self.over.set_result(()).expect("it is the last one");
        } else {
            self.transport.as_ref().expect("it is connected").sendto(data, address);
        }
    }
}

pub(super) fn datagrams(socket: UdpSocket) {
    on_asyncio(async move {
        let event_loop = asyncio::get_running_loop()?;
        let over = event_loop.create_future();
        let factory = || EchoDatagrams { over: over.clone(), transport: None };
        let (transport, _) = event_loop.create_datagram_endpoint(factory).sock(socket).await?;
        over.await?;
        transport.close();
        Ok(())
    });
}
