//! TLS on both sides: a server whose certificate is made on the fly, and a client that trusts it and nobody else.
//!
//! Try it: `cargo run --features tls --example tls_echo`.

use asyncio::{
    ALPN_PROTOCOL, CIPHER, Error, Future, PEERCERT, Protocol, Result, SslContext, Transport, get_running_loop,
};

/// Sends back what it receives.
#[derive(Default)]
struct Echo {
    transport: Option<Transport>,
}

impl Protocol for Echo {
    /// Comes when the handshake is done: what fails before that is never seen here.
    fn connection_made(&mut self, transport: &Transport) {
        self.transport = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.transport.iter().for_each(|transport| transport.write(data));
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.transport = None;
    }
}

struct Client {
    answer: Future<String>,
    lost: Future<()>,
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"hello, secret world");
    }

    fn data_received(&mut self, data: &[u8]) {
        let answer = String::from_utf8_lossy(data).into_owned();
        let _ = self.answer.set_result(answer); // only the first piece counts here
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        // They fail if main has gone already.
        let _ = self.lost.set_result(());
        if let Some(error) = error {
            let _ = self.answer.set_exception(error.clone());
        }
    }
}

fn main() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let for_server = SslContext::server_builder().cert_chain_pem(&chain, &key).set_alpn_protocols(["echo"]).build()?;
    let for_client = SslContext::client_builder().verify_pem(&chain).set_alpn_protocols(["echo"]).build()?;

    asyncio::run(async move {
        let event_loop = get_running_loop()?;
        let server = event_loop.create_server(Echo::default, ("localhost", 0)).ssl(&for_server).await?;
        let address = server.sockets()[0].address().clone();

        let (answer, lost) = (event_loop.create_future(), event_loop.create_future());
        let factory = || Client { answer: answer.clone(), lost: lost.clone() };
        let connecting = event_loop.create_connection(factory, &address).ssl(&for_client);
        let (transport, _) = connecting.server_hostname("localhost").await?;
        println!("cipher:      {}", transport.get_extra_info(CIPHER).expect("the handshake is done"));
        println!("protocol:    {:?}", transport.get_extra_info(ALPN_PROTOCOL).map(String::from_utf8));
        println!("certificate: {} bytes", transport.get_extra_info(PEERCERT).map_or(0, |der| der.len()));
        println!("answer:      {}", (&answer).await?);
        transport.close(); // says so to the other side, and waits for its word
        (&lost).await?;

        // A certificate is for names. Where it has another one, the client refuses, and no protocol hears of it.
        let connecting = event_loop.create_connection(Echo::default, &address).ssl(&for_client);
        let refused = connecting.server_hostname("elsewhere").await.err();
        println!("elsewhere:   {}", refused.expect("it is for localhost alone"));

        server.close();
        server.wait_closed().await
    })
}
