//! An echo server in three ways, on one core or several, for load generators. SIGTERM and Ctrl-C end it well.
//!
//! Try it: `cargo run --release --example echo_server -- --protocol 8888 2` (or `--buffered` or `--sock`, then the port and
//! the number of workers), and `nc 127.0.0.1 8888` in another terminal. With `--demo` it asks itself once and ends.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use asyncio::{Barrier, BufferedProtocol, Error, Event, Protocol, Result, Transport, Worker};
use asyncio::{create_task, get_running_loop, run_workers, sleep};
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
        if options.demo {
            thread::spawn(move || demo(address).expect("it answers"));
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
            event_loop.create_server(factory, ()).sock(listener).backlog(4096).await?
        }
        _ => event_loop.create_server(Echo::default, ()).sock(listener).backlog(4096).await?,
    };
    let cancelled = sleep(Duration::MAX).await; // by run_workers, which passes signals on
    server.close();
    server.close_clients(); // what was written is sent
    server.wait_closed().await?;
    cancelled
}

/// Asks once, from a thread, and then ends the program as a supervisor would.
fn demo(address: SocketAddr) -> io::Result<()> {
    let (mut stream, mut answer) = (TcpStream::connect(address)?, [0; 5]);
    stream.write_all(b"hello")?;
    stream.read_exact(&mut answer)?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?)
}

fn main() -> Result<()> {
    let (flags, numbers): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let number = |index| numbers.get(index).map(|text: &String| text.parse::<u16>()).transpose().map_err(Error::other);
    let workers = number(1)?.unwrap_or(1).into();
    let options = Options {
        mode: flags.iter().find(|flag| *flag != "--demo").cloned().unwrap_or_default(),
        demo: flags.iter().any(|flag| flag == "--demo"),
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
