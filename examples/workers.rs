//! A server on every core: `run_workers` with a loop a thread, and one port that all of them listen on.
//!
//! Try it: `cargo run --example workers`, which connects to itself a few times; or `-- 8888`, then `nc 127.0.0.1 8888` in
//! another terminal, until Ctrl-C or SIGTERM.
//!
//! Past one machine nothing changes here: each machine runs this program, behind a load balancer if clients connect to
//! it, or as one of many consumers of a message bus.

use std::{
    cell::Cell,
    env,
    io::{self, Read as _},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use asyncio::{Barrier, Error, Event, Protocol, Result, Transport, Worker, get_running_loop, run_workers};
use rustix::process::{Signal, getpid, kill_process};

struct Greeter {
    worker: Worker,
    /// Of this worker: nothing is shared, so nothing is locked.
    greeted: Rc<Cell<usize>>,
}

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) {
        self.greeted.set(self.greeted.get() + 1);
        transport.write(format!("worker {} of {}\n", self.worker.index() + 1, self.worker.count()).as_bytes());
        transport.close();
    }

    fn data_received(&mut self, _data: &[u8]) {}
}

/// Where they listen: the first worker finds out the port, where 0 was asked for.
struct Place {
    port: AtomicU16,
    bound: Event,
    /// All of them do.
    listening: Barrier,
}

/// Serves until the worker is cancelled.
async fn serve(worker: Worker, place: &Place, greeted: Rc<Cell<usize>>) -> Result<()> {
    if worker.index() > 0 {
        place.bound.wait().await?;
    }
    let (index, port) = (worker.index(), place.port.load(Ordering::SeqCst));
    let factory = move || Greeter { worker: worker.clone(), greeted: greeted.clone() };
    let server = get_running_loop()?.create_server(factory, ("127.0.0.1", port)).reuse_port(true).await?;
    let address = server.sockets()[0].address().as_inet().expect("it is IPv4");
    place.port.store(address.port(), Ordering::SeqCst);
    place.bound.set();
    place.listening.wait().await?;
    if index == 0 {
        println!("serving on {address}");
        if port == 0 {
            thread::spawn(move || connect(address).expect("it answers"));
        }
    }
    server.serve_forever().await
}

/// The clients, and then a SIGTERM such as a supervisor sends.
fn connect(address: SocketAddr) -> io::Result<()> {
    for _ in 0..8 {
        let mut text = String::new();
        TcpStream::connect(address)?.read_to_string(&mut text)?;
        print!("{text}");
    }
    Ok(kill_process(getpid(), Signal::TERM)?)
}

fn main() -> Result<()> {
    let port = env::args().nth(1).map_or(Ok(0), |port| port.parse()).map_err(Error::other)?;
    let cores = thread::available_parallelism()?.get();
    let place = Place { port: AtomicU16::new(port), bound: Event::new(), listening: Barrier::new(cores)? };
    let greeted = run_workers(cores, async |worker| {
        let greeted = Rc::default();
        match serve(worker, &place, Rc::clone(&greeted)).await {
            Err(Error::Cancelled(_)) => Ok(greeted.get()), // ended as it was asked to
            ended => ended.map(|()| 0),
        }
    })?;
    println!("connections of each worker: {greeted:?}");
    Ok(())
}
