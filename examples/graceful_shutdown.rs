//! A server that ends in good order: SIGTERM stops the listening, requests in work are answered, and there is a limit.
//!
//! Try it: `cargo run --example graceful_shutdown`, which asks itself and then sends itself a SIGTERM; or `-- 8888`, then
//! `nc 127.0.0.1 8888`, a line, and `kill` with its process id while it works on the answer.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    process, thread,
    time::Duration,
};

use asyncio::{Error, Protocol, Result, Signal, Transport, create_task, get_running_loop, sleep, timeout};
use rustix::process::{Signal as Number, getpid, kill_process};

/// How long the last connections have.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Slow(Option<Transport>);

impl Protocol for Slow {
    fn connection_made(&mut self, transport: &Transport) {
        self.0 = Some(transport.clone());
    }

    /// Whatever comes is a request; its answer is the end of the connection.
    fn data_received(&mut self, _data: &[u8]) {
        let Some(transport) = self.0.take() else { return };
        create_task(async move {
            transport.write(b"working\n");
            sleep(Duration::from_millis(300)).await?;
            transport.write(b"the answer\n");
            transport.close();
            asyncio::ok(())
        });
    }
}

async fn serve(port: u16) -> Result<()> {
    let event_loop = get_running_loop()?;
    let asked = event_loop.create_future();
    let ask = asked.clone();
    event_loop.add_signal_handler(Signal::Term, move || drop(ask.set_result(())))?;

    let server = event_loop.create_server(Slow::default, ("127.0.0.1", port)).await?;
    println!("process {} serves: {server:?}", process::id());
    let address = server.sockets()[0].address().as_inet().expect("it is IPv4");
    let client = (port == 0).then(|| thread::spawn(move || client(address)));
    asked.await?;

    println!("SIGTERM: no new connections, and {GRACE:?} for those that are there");
    server.close();
    if timeout(GRACE, server.wait_closed()).await.is_err() {
        server.abort_clients();
    }
    println!("all have ended, or were ended");
    server.wait_closed().await?;
    Ok(client.map_or(Ok(()), |client| client.join().expect("it does not panic"))?)
}

/// Asks, sends the signal while the answer is in work, and gets it all the same.
fn client(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"a question\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        println!("the client reads: {line}");
        if line == "working" {
            kill_process(getpid(), Number::TERM)?;
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    asyncio::run(serve(env::args().nth(1).map_or(Ok(0), |port| port.parse()).map_err(Error::other)?))
}
