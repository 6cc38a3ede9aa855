//! A connection that begins in clear and is encrypted when client and server agree on it, as in SMTP, IMAP or
//! PostgreSQL: a small mail server, a client of it, and one who tries to slip something in.
//!
//! Try it: `cargo run --features tls --example starttls_smtp_like`.

use asyncio::{Address, CIPHER, Error, Protocol, Queue, Result, SslContext, Transport};
use asyncio::{create_task, get_running_loop};

/// What was received and is not a whole line yet.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn next(&mut self) -> Option<String> {
        let end = self.0.windows(2).position(|two| two == b"\r\n")?;
        let line: Vec<u8> = self.0.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

/// The server's end of a connection.
struct Server {
    context: SslContext,
    inbox: Queue<String>,
    transport: Option<Transport>,
    encrypted: bool,
    lines: Lines,
    /// Who the client says it is.
    client: Option<String>,
    /// The lines of a message that is being sent.
    message: Option<Vec<String>>,
}

impl Server {
    fn new(context: SslContext, inbox: Queue<String>) -> Self {
        let (transport, lines, client, message) = (None, Lines::default(), None, None);
        Server { context, inbox, transport, encrypted: false, lines, client, message }
    }

    fn say(&self, reply: &str) {
        self.transport.iter().for_each(|transport| transport.write(format!("{reply}\r\n").as_bytes()));
    }

    fn leave(&self, reply: &str) {
        self.say(reply);
        self.transport.iter().for_each(Transport::close); // what was written is sent
    }

    fn command(&mut self, line: &str) {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match (verb.to_ascii_uppercase().as_str(), self.encrypted) {
            ("EHLO", encrypted) => {
                self.client = Some(argument.to_owned());
                self.say(if encrypted { "250 localhost" } else { "250-localhost\r\n250 STARTTLS" });
            }
            ("STARTTLS", false) => self.start_tls(),
            ("QUIT", _) => self.leave("221 bye"),
            (_, false) => self.say("530 must issue a STARTTLS command first"),
            (_, true) if self.client.is_none() => self.say("503 say EHLO first"),
            ("DATA", true) => {
                self.message = Some(Vec::new());
                self.say("354 end with a dot");
            }
            _ => self.say("500 what?"),
        }
    }

    fn start_tls(&mut self) {
        // Whoever sits between the two could have put this behind the client's STARTTLS. It came in clear, and must
        // never be taken for something that came encrypted.
        if !self.lines.0.is_empty() {
            return self.leave("554 nothing may follow STARTTLS in clear");
        }
        let Some(transport) = self.transport.clone() else { return };
        self.say("220 go ahead");
        // What comes from here on belongs to TLS. If it is clear text all the same, the handshake fails.
        transport.pause_reading();
        let context = self.context.clone();
        create_task(async move {
            let this = transport.get_protocol::<Server>().ok_or_else(|| Error::Runtime("it has gone".into()))?;
            // Where this fails, `connection_lost` is told why.
            if let Ok(encrypted) = get_running_loop()?.start_tls(&transport, &context).await {
                // All state is new: what was said in clear, anybody may have said.
                let mut server = this.borrow_mut();
                let new = Server::new(context, server.inbox.clone());
                *server = Server { transport: Some(encrypted), encrypted: true, ..new };
            }
            Ok(())
        });
    }
}

impl Protocol for Server {
    /// Called once, in clear: `start_tls` changes the transport and not the connection.
    fn connection_made(&mut self, transport: &Transport) {
        self.transport = Some(transport.clone());
        self.say("220 localhost");
    }

    fn data_received(&mut self, data: &[u8]) {
        self.lines.0.extend_from_slice(data);
        while let Some(line) = self.lines.next() {
            match &mut self.message {
                None => self.command(&line),
                Some(message) if line != "." => message.push(line),
                Some(message) => {
                    let from = self.client.as_deref().unwrap_or_default();
                    let _ = self.inbox.put_nowait(format!("from {from}: {}", message.join("\n"))); // it has room
                    self.message = None;
                    self.say("250 taken");
                }
            }
        }
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.transport = None;
        error.into_iter().for_each(|error| println!("server: {error}"));
    }
}

/// The client's end: puts the server's replies into a queue.
struct Client(Queue<String>, Lines);

impl Protocol for Client {
    fn data_received(&mut self, data: &[u8]) {
        self.1.0.extend_from_slice(data);
        while let Some(line) = self.1.next() {
            let _ = self.0.put_nowait(line); // it has room
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.0.shutdown(false);
    }
}

/// Waits for a reply, which has several lines if there is a dash behind its number.
async fn reply(replies: &Queue<String>, expected: &str) -> Result<String> {
    let mut reply = replies.get().await?;
    while reply.lines().last().is_some_and(|line| line.as_bytes().get(3) == Some(&b'-')) {
        reply += &format!("\n{}", replies.get().await?);
    }
    println!("client: {}", reply.replace('\n', " | "));
    if reply.starts_with(expected) { Ok(reply) } else { Err(Error::other(reply)) }
}

/// Sends a message, encrypted or not at all.
async fn send(server: &Address, context: &SslContext, message: &str) -> Result<()> {
    let (event_loop, replies) = (get_running_loop()?, Queue::new(0));
    let factory = || Client(replies.clone(), Lines::default());
    let (clear, protocol) = event_loop.create_connection(factory, server).await?;
    reply(&replies, "220").await?;
    clear.write(b"EHLO client\r\n");
    if !reply(&replies, "250").await?.ends_with("STARTTLS") {
        clear.close(); // to go on in clear is what somebody who took that line away would like
        return Err(Error::other("the server does not encrypt"));
    }
    clear.write(b"STARTTLS\r\n");
    reply(&replies, "220").await?;
    // As at the server: what has followed the consent in clear is nobody's word.
    if !replies.empty() || !protocol.borrow().1.0.is_empty() {
        clear.abort();
        return Err(Error::other("the server went on in clear"));
    }
    let transport = event_loop.start_tls(&clear, context).server_hostname("localhost").await?;
    println!("client: {}", transport.get_extra_info(CIPHER).expect("the handshake is done"));

    transport.write(b"EHLO client\r\n"); // again, for nothing that was said in clear counts
    reply(&replies, "250").await?;
    transport.write(b"DATA\r\n");
    reply(&replies, "354").await?;
    transport.write(format!("{message}\r\n.\r\n").as_bytes());
    reply(&replies, "250").await?;
    transport.write(b"QUIT\r\n");
    reply(&replies, "221").await?;
    transport.close();
    Ok(())
}

/// Sends a command right behind STARTTLS, as one who can change what the client sends in clear would.
async fn slip_in(server: &Address) -> Result<()> {
    let replies = Queue::new(0);
    let factory = || Client(replies.clone(), Lines::default());
    let (clear, _) = get_running_loop()?.create_connection(factory, server).await?;
    reply(&replies, "220").await?;
    clear.write(b"STARTTLS\r\nEHLO mallory\r\n");
    reply(&replies, "554").await.map(drop)
}

fn main() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let for_server = SslContext::server_builder().cert_chain_pem(&chain, &key).build()?;
    let for_client = SslContext::client_builder().verify_pem(&chain).build()?;

    asyncio::run(async move {
        let inbox = Queue::new(0);
        let received = inbox.clone();
        let factory = move || Server::new(for_server.clone(), inbox.clone());
        let server = get_running_loop()?.create_server(factory, ("127.0.0.1", 0)).await?;
        let address = server.sockets()[0].address().clone();
        send(&address, &for_client, "hello over TLS").await?;
        println!("server: {}", received.get().await?);
        slip_in(&address).await?;
        server.close();
        server.wait_closed().await
    })
}
