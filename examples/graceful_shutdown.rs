//! A server that ends in good order: SIGTERM and Ctrl-C stop the listening and close who is idle, requests in work are
//! answered, there is a limit, and a second signal forces.
//!
//! Try it: `cargo run --example graceful_shutdown`, which asks itself and then sends itself a SIGTERM; or `-- 8888`, then
//! `nc 127.0.0.1 8888`, a line, and `kill` with its process id while it works on the answer.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process, thread,
    time::Duration,
};

use asyncio::{Error, Protocol, Result, Runner, Transport, create_task, get_running_loop, sleep};
use rustix::process::{Signal, getpid, kill_process};

/// How long the last requests have.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Slow(Option<Transport>);

impl Protocol for Slow {
    fn connection_made(&mut self, transport: &Transport) {
        self.0 = Some(transport.clone());
    }

    /// Whatever comes is a request. Until it is answered the connection is busy; then a drain closes it.
    fn data_received(&mut self, _data: &[u8]) {
        let Some(transport) = self.0.clone() else { return };
        create_task(async move {
            sleep(Duration::from_millis(300)).await?;
            transport.write(b"the answer\n");
            asyncio::ok(())
        });
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.0 = None;
    }
}

async fn serve(port: u16) -> Result<()> {
    let event_loop = get_running_loop()?;
    let server = event_loop.create_server(Slow::default, ("127.0.0.1", port)).await?;
    println!("process {} serves: {server:?}", process::id());
    let address = server.sockets()[0].address().as_inet().expect("it is IPv4");
    let client = (port == 0).then(|| thread::spawn(move || client(address)));
    let ended = server.serve_forever().await;
    println!("all have ended, or were ended");
    client.map_or(Ok(()), |client| client.join().expect("it does not panic"))?;
    ended
}

/// Asks, sends the signal while the answer is in work, and gets it all the same.
fn client(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"a question\n")?;
    thread::sleep(Duration::from_millis(100));
    kill_process(getpid(), Signal::TERM)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("the client reads: {answer}");
    Ok(())
}

fn main() -> Result<()> {
    let port = env::args().nth(1).map_or(Ok(0), |port| port.parse()).map_err(Error::other)?;
    match Runner::new().graceful_shutdown(DEADLINE).run(serve(port)) {
        Err(Error::Cancelled(_)) => Ok(()), // SIGTERM, and all is done: exit 0
        ended => ended,
    }
}
