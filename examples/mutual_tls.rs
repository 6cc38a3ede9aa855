//! TLS where both sides show a certificate: an authority of our own vouches for a server and for two clients, whom the
//! server tells apart by theirs. Who has none is refused.
//!
//! Try it: `cargo run --features tls --example mutual_tls`.

use std::{collections::HashMap, error::Error as StdError, fs, path::Path, rc::Rc};

use asyncio::{
    Address, Error, Future, PEERCERT, Protocol, Result, SslContext, Transport, VerifyMode, get_running_loop,
    rustls::pki_types::CertificateDer,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// The server's end of a connection. It knows clients by their certificates; to read a name out of one needs a parser.
struct Greeter(Rc<HashMap<CertificateDer<'static>, &'static str>>);

impl Protocol for Greeter {
    /// Comes when the handshake is done: the authority has vouched for this certificate, and the client has its key.
    fn connection_made(&mut self, transport: &Transport) {
        let certificate = transport.get_extra_info(PEERCERT).expect("it is required");
        let name = self.0.get(&certificate).unwrap_or(&"stranger");
        transport.write(format!("hello, {name}").as_bytes());
        transport.close();
    }

    fn data_received(&mut self, _data: &[u8]) {}
}

struct Client(Future<String>);

impl Protocol for Client {
    fn connection_made(&mut self, _transport: &Transport) {
        println!("connected");
    }

    fn data_received(&mut self, data: &[u8]) {
        let _ = self.0.set_result(String::from_utf8_lossy(data).into_owned()); // only the first piece counts here
    }

    /// With TLS 1.3 a client is connected before the server has looked at its certificate: this is where it is refused.
    fn connection_lost(&mut self, error: Option<&Error>) {
        let error = error.cloned().unwrap_or_else(|| Error::Runtime("closed without a greeting".into()));
        let _ = self.0.set_exception(error); // it fails if there was one
    }
}

async fn greeting(address: &Address, context: &SslContext) -> Result<String> {
    let event_loop = get_running_loop()?;
    let greeting = event_loop.create_future();
    let factory = || Client(greeting.clone());
    event_loop.create_connection(factory, address).ssl(context).server_hostname("localhost").await?;
    greeting.await
}

/// Writes `name.pem` and `name.key`, and gives the certificate.
fn issue(
    authority: &CertifiedIssuer<'_, KeyPair>,
    place: &Path,
    name: &str,
) -> Result<CertificateDer<'static>, Box<dyn StdError>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, authority)?;
    fs::write(place.join(name).with_extension("pem"), certificate.pem())?;
    fs::write(place.join(name).with_extension("key"), key.serialize_pem())?;
    Ok(certificate.der().clone())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let place = tempfile::tempdir()?;
    let file = |name: &str| place.path().join(name);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(file("authority.pem"), authority.pem())?;
    issue(&authority, place.path(), "localhost")?;
    let mut known = HashMap::new();
    for name in ["alice", "bob"] {
        known.insert(issue(&authority, place.path(), name)?, name);
    }

    let for_server = SslContext::server_builder()
        .load_cert_chain(file("localhost.pem"), file("localhost.key"))
        .load_verify_locations(file("authority.pem")) // who vouches for clients
        .verify_mode(VerifyMode::Required)
        .build()?;
    let for_client = || SslContext::client_builder().load_verify_locations(file("authority.pem"));
    let alice = for_client().load_cert_chain(file("alice.pem"), file("alice.key")).build()?;
    let bob = for_client().load_cert_chain(file("bob.pem"), file("bob.key")).build()?;
    let nobody = for_client().build()?;

    asyncio::run(async move {
        let known = Rc::new(known);
        let creating = get_running_loop()?.create_server(move || Greeter(known.clone()), ("localhost", 0));
        let server = creating.ssl(&for_server).await?;
        let address = server.sockets()[0].address().clone();

        println!("{}", greeting(&address, &alice).await?);
        println!("{}", greeting(&address, &bob).await?);
        match greeting(&address, &nobody).await {
            Err(Error::Ssl(reason)) => println!("refused: {reason}"),
            other => panic!("it has no certificate, and got {other:?}"),
        }

        server.close();
        server.wait_closed().await
    })?;
    Ok(())
}
