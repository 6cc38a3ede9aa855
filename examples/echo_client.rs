//! A client: connects, says something, prints the answer, and ends when the connection does.
//!
//! Try it: `cargo run --example echo_client`, which talks to a server of its own; or `-- localhost 8888 words to say` beside
//! `cargo run --example echo_server -- 8888`.

use std::env;

use asyncio::{Error, Future, Protocol, Result, ToAddress, Transport, get_running_loop};

struct Client {
    message: String,
    received: String,
    transport: Option<Transport>,
    /// Done when the connection is.
    on_con_lost: Future<()>,
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &Transport) {
        println!("say:  {}", self.message);
        transport.write(self.message.as_bytes());
        self.transport = Some(transport.clone());
    }

    /// A stream has no messages: an answer may come in pieces.
    fn data_received(&mut self, data: &[u8]) {
        self.received.push_str(&String::from_utf8_lossy(data));
        if self.received.len() >= self.message.len() {
            println!("hear: {}", self.received);
            self.transport.iter().for_each(Transport::close);
        }
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.transport = None;
        // It fails if main is gone already, which does not matter then.
        let _ = match error {
            Some(error) => self.on_con_lost.set_exception(error.clone()),
            None => self.on_con_lost.set_result(()),
        };
    }
}

/// The other side, where none was named.
#[derive(Default)]
struct Echo(Option<Transport>);

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        self.0 = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.0.iter().for_each(|transport| transport.write(data));
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    asyncio::run(async {
        let event_loop = get_running_loop()?;
        let own = event_loop.create_server(Echo::default, ("127.0.0.1", 0)).await?;
        let (address, message) = match &*arguments {
            [host, port, words @ ..] => ((&**host, &**port).to_address(), words.join(" ")),
            _ => (own.sockets()[0].address().to_address(), "Hello World!".to_owned()),
        };
        let on_con_lost = event_loop.create_future();
        let client = Client { message, received: String::new(), transport: None, on_con_lost: on_con_lost.clone() };
        event_loop.create_connection(|| client, address).await?;
        on_con_lost.await
    })
}
