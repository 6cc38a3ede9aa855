//! Datagrams: a server that sends back what it gets, and a client that measures the way there and back.
//!
//! Try it: `cargo run --example udp_echo`; with `-- 127.0.0.1:9999` it serves there until Ctrl-C, for `nc -u`.

use std::time::Instant;

use asyncio::{
    Address, DatagramProtocol, DatagramTransport, Error, EventLoop, Future, Result, SOCKNAME, get_running_loop,
};

/// How often the client asks.
const ROUNDS: u32 = 1000;

#[derive(Default)]
struct Echo {
    transport: Option<DatagramTransport>,
}

impl DatagramProtocol for Echo {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.transport = Some(transport.clone());
    }

    fn datagram_received(&mut self, data: &[u8], sender: &Address) {
        if let Some(transport) = &self.transport {
            transport.sendto(data, sender);
        }
    }
}

struct Ask {
    transport: Option<DatagramTransport>,
    answers: u32,
    done: Future<()>,
}

impl DatagramProtocol for Ask {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        transport.sendto(b"hello", None);
        self.transport = Some(transport.clone());
    }

    fn datagram_received(&mut self, data: &[u8], _sender: &Address) {
        self.answers += 1;
        match &self.transport {
            Some(transport) if self.answers < ROUNDS => transport.sendto(data, None),
            _ => drop(self.done.set_result(())),
        }
    }

    fn error_received(&mut self, error: &Error) {
        let _ = self.done.set_exception(error.clone()); // such as: nobody is there
    }
}

async fn ask(event_loop: &EventLoop, server: Address) -> Result<()> {
    let (begin, done) = (Instant::now(), event_loop.create_future());
    let protocol = || Ask { transport: None, answers: 0, done: done.clone() };
    let (transport, _) = event_loop.create_datagram_endpoint(protocol).remote_addr(server).await?;
    done.await?;
    println!("{ROUNDS} answers, {:?} each", begin.elapsed() / ROUNDS);
    transport.close();
    Ok(())
}

fn main() -> Result<()> {
    let argument = std::env::args().nth(1);
    let (host, port) = argument.as_deref().and_then(|text| text.rsplit_once(':')).unwrap_or(("127.0.0.1", "0"));
    asyncio::run(async {
        let event_loop = get_running_loop()?;
        let (server, _) = event_loop.create_datagram_endpoint(Echo::default).local_addr((host, port)).await?;
        let name = server.get_extra_info(SOCKNAME).expect("it is bound");
        println!("serving on {name}");
        match argument {
            Some(_) => event_loop.create_future().await, // until Ctrl-C
            None => ask(&event_loop, name).await,
        }
    })
}
