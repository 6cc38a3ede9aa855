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
    sync::OnceLock,
    thread,
};

use asyncio::{Error, Event, Protocol, Result, Transport, Worker, get_running_loop, run_workers};
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

/// Serves until the worker is cancelled, and gives how many connections there were.
async fn serve(worker: Worker, port: u16, first: &OnceLock<SocketAddr>, bound: &Event) -> Result<usize> {
    if worker.index() > 0 {
        bound.wait().await?; // the first one finds out which port it is, where that is 0
    }
    let address = *first.get().unwrap_or(&SocketAddr::from(([127, 0, 0, 1], port)));
    let index = worker.index();
    let greeted = Rc::new(Cell::new(0));
    let count = greeted.clone();
    let factory = move || Greeter { worker: worker.clone(), greeted: count.clone() };
    let server = get_running_loop()?.create_server(factory, address).reuse_port(true).await?;
    let address = *first.get_or_init(|| server.sockets()[0].address().as_inet().expect("it is IPv4"));
    bound.set();
    if index == 0 {
        println!("serving on {address}");
        if port == 0 {
            thread::spawn(move || connect(address).expect("it answers"));
        }
    }
    match server.serve_forever().await {
        Err(Error::Cancelled(_)) => Ok(greeted.get()), // SIGTERM or SIGINT; the server is closed
        ended => ended.map(|()| 0),
    }
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
    let (first, bound) = (OnceLock::new(), Event::new());
    let cores = thread::available_parallelism()?.get();
    let greeted = run_workers(cores, |worker| serve(worker, port, &first, &bound))?;
    println!("connections of each worker: {greeted:?}");
    Ok(())
}
