//! An echo server in four ways, on one core or several, for load generators. SIGTERM and Ctrl-C end it well.
//!
//! Try it: `cargo run --release --example echo_server -- --protocol 8888 2` (or `--buffered`, `--streams` or `--sock`, then
//! the port and the number of workers), and `nc 127.0.0.1 8888` in another terminal. With `--demo` it asks itself once and ends.
//!
//! With TLS: `cargo run --release --features tls --example echo_server -- --tls --protocol 8888 | tee server.pem` shows
//! the certificate, too; and then `openssl s_client -CAfile server.pem -verify_return_error -connect localhost:8888`.

use std::{
    env,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use self::tls::Tls;
use asyncio::{Barrier, BufferedProtocol, Error, Event, Protocol, Result, Transport, Worker};
use asyncio::{StreamReader, StreamWriter, create_task, get_running_loop, run_workers, sleep, start_server};
use futures::{AsyncReadExt, AsyncWriteExt};
use socket2::{Domain, Socket, Type};

/// Sends back what it is lent.
#[derive(Default)]
struct Echo(Option<Transport>);

#[rustfmt::skip] // a line a call
impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) { self.0 = Some(transport.clone()); }
    fn data_received(&mut self, data: &[u8]) { self.0.iter().for_each(|transport| transport.write(data)); }
    fn connection_lost(&mut self, _error: Option<&Error>) { self.0 = None; }
    // Who does not read is not read from.
    fn pause_writing(&mut self) { self.0.iter().for_each(Transport::pause_reading); }
    fn resume_writing(&mut self) { self.0.iter().for_each(Transport::resume_reading); }
}

/// Sends back what comes into memory of its own.
struct Buffered(Echo, Box<[u8]>);

#[rustfmt::skip]
impl BufferedProtocol for Buffered {
    fn connection_made(&mut self, transport: &Transport) { self.0.connection_made(transport); }
    fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] { &mut self.1 }
    fn buffer_updated(&mut self, count: usize) { self.0.data_received(&self.1[..count]); }
    fn connection_lost(&mut self, error: Option<&Error>) { self.0.connection_lost(error); }
    fn pause_writing(&mut self) { self.0.pause_writing(); }
    fn resume_writing(&mut self) { self.0.resume_writing(); }
}

/// A task for a connection, by streams.
async fn echo_stream(mut reader: StreamReader, mut writer: StreamWriter) -> Result<()> {
    let mut buffer = vec![0; SIZE];
    while let Ok(count @ 1..) = AsyncReadExt::read(&mut reader, &mut buffer).await {
        if writer.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A task for a connection, on a plain socket.
async fn echo(connection: OwnedFd) -> Result<()> {
    let (event_loop, mut buffer) = (get_running_loop()?, vec![0; SIZE]);
    // Until the other side ends, well or not, or the task is cancelled.
    while let Ok(count @ 1..) = event_loop.sock_recv_into(&connection, &mut buffer).await {
        if event_loop.sock_sendall(&connection, &buffer[..count]).await.is_err() {
            break;
        }
    }
    Ok(())
}

const SIZE: usize = 64 << 10;

struct Options {
    mode: String,
    demo: bool,
    tls: Option<Tls>,
    /// Where 0 was asked for, the first worker finds out which it is.
    port: AtomicU16,
    bound: Event,
    /// All of them listen.
    listening: Barrier,
}

async fn serve(worker: Worker, options: &Options) -> Result<()> {
    if worker.index() > 0 {
        options.bound.wait().await?;
    }
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_reuse_port(worker.count() > 1)?;
    listener.set_tcp_nodelay(true)?; // connections inherit it
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], options.port.load(Ordering::SeqCst))).into())?;
    listener.listen(4096)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.as_socket().expect("it is IPv4");
    if worker.index() == 0 {
        options.port.store(address.port(), Ordering::SeqCst);
        options.bound.set();
    }
    options.listening.wait().await?;
    if worker.index() == 0 {
        println!("{address}");
        options.tls.iter().for_each(|tls| print!("{}", tls.certificate()));
        if options.demo {
            let tls = options.tls.clone();
            thread::spawn(move || demo(address, tls).expect("it answers"));
        }
    }
    let event_loop = get_running_loop()?;
    let server = match &*options.mode {
        "--sock" => loop {
            let (connection, _) = event_loop.sock_accept(&listener).await?;
            create_task(echo(connection)); // cancelled when the loop ends
        },
        "--buffered" => {
            let factory = || Buffered(Echo::default(), vec![0; SIZE].into());
            tls::over(event_loop.create_server(factory, ()).sock(listener).backlog(4096), &options.tls).await?
        }
        "--streams" => {
            tls::over_streams(start_server(echo_stream, ()).sock(listener).backlog(4096), &options.tls).await?
        }
        _ => tls::over(event_loop.create_server(Echo::default, ()).sock(listener).backlog(4096), &options.tls).await?,
    };
    let cancelled = sleep(Duration::MAX).await; // by run_workers, which passes signals on
    server.close();
    server.close_clients(); // what was written is sent
    server.wait_closed().await?;
    cancelled
}

/// Asks once, from a thread, and then ends the program as a supervisor would.
fn demo(address: SocketAddr, tls: Option<Tls>) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let answer = match tls {
        Some(tls) => ask(tls.connect(stream)?)?,
        None => ask(stream)?,
    };
    println!("{answer}");
    Ok(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?)
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    let mut answer = [0; 5];
    stream.write_all(b"hello")?;
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(feature = "tls")]
mod tls {
    use std::io::{self, Read, Write};

    use asyncio::rustls::{ClientConnection, StreamOwned};
    use asyncio::{CreateServer, Error, Result, SslContext, StartServer};

    #[derive(Clone)]
    pub(super) struct Tls {
        server: SslContext,
        client: SslContext,
        certificate: String,
    }

    impl Tls {
        /// With a certificate that nobody else has issued.
        pub(super) fn new() -> Result<Self> {
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let made = rcgen::generate_simple_self_signed(names).map_err(Error::other)?;
            let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let server = SslContext::server_builder().cert_chain_pem(&certificate, key).build()?;
            let client = SslContext::client_builder().verify_pem(&certificate).build()?;
            Ok(Tls { server, client, certificate })
        }

        /// PEM, for clients to trust.
        pub(super) fn certificate(&self) -> &str {
            &self.certificate
        }

        /// A client without a loop, whose calls block.
        pub(super) fn connect<S: Read + Write>(&self, stream: S) -> io::Result<StreamOwned<ClientConnection, S>> {
            let config = self.client.client_config().expect("it is for clients").clone();
            let name = "localhost".try_into().expect("it is a name");
            Ok(StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, stream))
        }
    }

    /// The same server, with TLS if there is any.
    pub(super) fn over_streams<C>(opening: StartServer<C>, tls: &Option<Tls>) -> StartServer<C> {
        match tls {
            Some(tls) => opening.ssl(&tls.server),
            None => opening,
        }
    }

    /// The same server, with TLS if there is any.
    pub(super) fn over<F, P, K>(opening: CreateServer<F, P, K>, tls: &Option<Tls>) -> CreateServer<F, P, K> {
        match tls {
            Some(tls) => opening.ssl(&tls.server),
            None => opening,
        }
    }
}

/// A program without TLS says so, and does the rest.
#[cfg(not(feature = "tls"))]
mod tls {
    use asyncio::{CreateServer, Error, Result, StartServer};

    #[derive(Clone)]
    pub(super) enum Tls {}

    impl Tls {
        pub(super) fn new() -> Result<Self> {
            Err(Error::Value("--tls needs the feature tls: cargo run --features tls --example echo_server".into()))
        }

        pub(super) fn certificate(&self) -> &str {
            match *self {}
        }

        pub(super) fn connect<S>(&self, _stream: S) -> std::io::Result<S> {
            match *self {}
        }
    }

    pub(super) fn over_streams<C>(opening: StartServer<C>, _tls: &Option<Tls>) -> StartServer<C> {
        opening
    }

    pub(super) fn over<F, P, K>(opening: CreateServer<F, P, K>, _tls: &Option<Tls>) -> CreateServer<F, P, K> {
        opening
    }
}

fn main() -> Result<()> {
    let (flags, numbers): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let number = |index| numbers.get(index).map(|text: &String| text.parse::<u16>()).transpose().map_err(Error::other);
    let workers = number(1)?.unwrap_or(1).into();
    let given = |name| flags.iter().any(|flag| flag == name);
    if given("--tls") && given("--sock") {
        return Err(Error::Value("--sock cannot have --tls: TLS is for transports, not for plain sockets".into()));
    }
    let options = Options {
        mode: flags.iter().find(|flag| !["--demo", "--tls"].contains(&&***flag)).cloned().unwrap_or_default(),
        demo: given("--demo"),
        tls: if given("--tls") { Some(Tls::new()?) } else { None },
        port: AtomicU16::new(number(0)?.unwrap_or(0)),
        bound: Event::new(),
        listening: Barrier::new(workers)?,
    };
    let worker = async |worker| match serve(worker, &options).await {
        Err(Error::Cancelled(_)) => Ok(()), // ended as it was asked to
        ended => ended,
    };
    run_workers(workers, worker).map(drop)
}
