//! A server and 100 clients, timers, a thread, a cancellation and a panic: the main things in one program.
//!
//! Try it: `cargo run --release --example quickstart`; or `-- serve 127.0.0.1:8888` and then `nc 127.0.0.1 8888` in
//! another terminal, until Ctrl-C.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    Error, EventLoop, Protocol, Result, Server, ThreadsafeFuture, Transport, create_task, get_running_loop, sleep,
};

const CLIENTS: usize = 100;
/// Each client sends this much, this often, and wants it back before it goes on.
const CHUNK: usize = 16 * 1024;
const CHUNKS: usize = 4;
const TICK: Duration = Duration::from_millis(5);

/// What the server has done. Protocols stay on one thread: no lock, no atomics.
#[derive(Default)]
struct Served {
    connections: Cell<usize>,
    bytes: Cell<usize>,
}

/// Sends back what comes, until the other side has ended: one for each connection.
struct Echo {
    served: Rc<Served>,
    transport: Option<Transport>,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        self.served.connections.set(self.served.connections.get() + 1);
        self.transport = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        if let Some(transport) = &self.transport {
            transport.write(data);
            self.served.bytes.set(self.served.bytes.get() + data.len());
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.transport = None;
    }
}

async fn serve(address: SocketAddr, served: Rc<Served>) -> Result<Server> {
    let factory = move || Echo { served: served.clone(), transport: None };
    get_running_loop()?.create_server(factory, address).backlog(CLIENTS as u32).await
}

fn address_of(server: &Server) -> Result<SocketAddr> {
    let address = server.sockets().first().and_then(|socket| socket.address().as_inet());
    address.ok_or_else(|| Error::other("the server is closed"))
}

/// A client that knows nothing of event loops: a thread, a blocking socket. Gives how many bytes it checked.
fn client(number: usize, server: SocketAddr) -> io::Result<usize> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answer = vec![0; CHUNK];
    for round in 0..CHUNKS {
        let question: Vec<u8> = (0..CHUNK).map(|index| (index * 31 + number * 7 + round) as u8).collect();
        socket.write_all(&question)?;
        socket.read_exact(&mut answer)?;
        if answer != question {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("client {number} got other bytes back")));
        }
    }
    Ok(CHUNK * CHUNKS)
}

/// Runs every few milliseconds: a callback that schedules itself again.
fn tick(event_loop: &EventLoop, ticks: &Rc<Cell<u32>>) {
    ticks.set(ticks.get() + 1);
    let (again, count) = (event_loop.clone(), ticks.clone());
    event_loop.call_later(TICK, move || tick(&again, &count));
}

/// The server under 100 clients.
async fn serve_clients() -> Result<String> {
    let begin = Instant::now();
    let served = Rc::new(Served::default());
    let server = serve(SocketAddr::from(([127, 0, 0, 1], 0)), served.clone()).await?;
    let address = address_of(&server)?;

    let clients: Vec<ThreadsafeFuture<usize>> = (0..CLIENTS)
        .map(|number| {
            let (done, setter) = ThreadsafeFuture::pair();
            thread::spawn(move || match client(number, address) {
                Ok(count) => setter.set_result(count),
                Err(error) => setter.set_exception(error),
            });
            done
        })
        .collect();
    let mut checked = 0;
    for done in clients {
        checked += done.await?; // the threads wake this task
    }
    server.close();
    server.wait_closed().await?; // the last connection has ended
    if (served.connections.get(), served.bytes.get()) != (CLIENTS, checked) {
        return Err(Error::other("the server and its clients do not agree"));
    }
    let (mebibytes, time) = (checked as f64 / f64::from(1 << 20), begin.elapsed());
    Ok(format!("{CLIENTS} clients, {mebibytes:.2} MiB sent, echoed and checked in {} ms", time.as_millis()))
}

/// A blocking job, in a thread of the loop's executor.
async fn use_executor() -> Result<String> {
    let job = || (thread::current().id(), (1..=20_u64).product::<u64>());
    let (thread, factorial) = get_running_loop()?.run_in_executor(None, job).await?;
    let place = if thread == thread::current().id() { "this" } else { "another" };
    Ok(format!("20! = {factorial}, computed in {place} thread"))
}

/// A coroutine sees its cancellation where it waits, and may clean up.
async fn cancel_a_task() -> Result<String> {
    let task = create_task(async {
        match sleep(Duration::from_secs(3600)).await {
            Err(Error::Cancelled(_)) => Ok("an hour's sleep was cut short, and its task has cleaned up"),
            other => other.map(|()| "slept for an hour"),
        }
    });
    sleep(Duration::ZERO).await?; // lets the task begin
    task.cancel();
    task.await.map(str::to_owned)
}

/// A panic ends its callback and nothing else. Nobody awaits this one, so the exception handler is told.
async fn survive_a_panic() -> Result<String> {
    let (event_loop, reported) = (get_running_loop()?, Rc::new(RefCell::new(String::new())));
    let report = reported.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |_, context| {
        let panic = context.exception.as_ref().map(Error::to_string).unwrap_or_default();
        report.replace(format!("the exception handler was told {panic:?}, and the loop goes on"));
    })));
    let print_panics = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ())); // this one is no accident
    event_loop.call_soon(|| panic!("a bug in a callback"));
    sleep(Duration::ZERO).await?;
    std::panic::set_hook(print_panics);
    event_loop.set_exception_handler(None);
    Ok(reported.take())
}

async fn show_all() -> Result<()> {
    let (event_loop, ticks) = (get_running_loop()?, Rc::new(Cell::new(0)));
    tick(&event_loop, &ticks);
    println!("echo server   {}", serve_clients().await?);
    println!("executor      {}", use_executor().await?);
    println!("cancellation  {}", cancel_a_task().await?);
    println!("panic         {}", survive_a_panic().await?);
    while ticks.get() < 5 {
        sleep(TICK).await?;
    }
    println!("call_later    {} ticks of {} ms meanwhile", ticks.get(), TICK.as_millis());
    println!("all is well");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => return asyncio::run(show_all()),
        [command, address] if command == "serve" => address,
        _ => return Err(Error::Value("nothing, or: serve 127.0.0.1:8888".into())),
    };
    let address: SocketAddr = address.parse().map_err(Error::other)?;
    let served = asyncio::run(async {
        let server = serve(address, Rc::default()).await?;
        let address = address_of(&server)?;
        println!("echoing on {address}; try: nc {} {}; Ctrl-C ends it", address.ip(), address.port());
        server.serve_forever().await
    });
    match served {
        Err(Error::KeyboardInterrupt) => println!("\ninterrupted"),
        other => other?,
    }
    Ok(())
}
