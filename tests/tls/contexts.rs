//! What these tests show: contexts, what they are made of and what they refuse, and which names a client may ask for.

use std::{
    fs,
    future::IntoFuture,
    io::ErrorKind as IoKind,
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::Arc,
    time::Duration,
};

use asyncio::{
    CLOSE_NOTIFY, ErrorKind, PEERCERT, Result, SERVER_HOSTNAME, SESSION_REUSED, SslContext, SslContextBuilder,
    TlsVersion, VerifyMode,
    rustls::{ClientConfig, ServerConfig, ServerConnection},
};
use rcgen::KeyPair;

use crate::{
    certificates::{self, Authority, Identity, authority, client_builder, localhost},
    handshake::{VERSIONS, der, meet, only},
    peers::{TlsPeer, serve_one},
    support::{
        failure,
        loops::{On, TestLoop},
        run_in_child,
        transports::{self, Log, Pair, PairKind, Recorder, Told},
    },
};

on_each_selector! {
    certificates_and_keys_may_be_texts_or_files
    a_file_that_cannot_be_read_is_named
    what_is_no_certificate_or_no_key_is_refused_with_the_reason
    an_encrypted_key_is_refused_as_such
    a_key_of_another_certificate_is_refused
    a_key_of_a_kind_that_is_not_supported_is_refused_as_such
    errors_of_rustls_are_errors_of_ssl
    settings_that_contradict_each_other_are_refused
    a_context_of_the_wrong_side_is_refused_before_anything_is_opened
    an_empty_name_is_refused_before_anything_is_sent
    a_client_without_a_host_needs_a_name
    the_host_is_the_name_unless_it_is_said
    names_that_no_certificate_can_have_are_refused
    a_trailing_dot_and_capitals_do_not_matter
    an_address_is_checked_as_an_address_and_its_zone_is_not
    arguments_of_tls_without_tls_are_refused
    a_client_may_ignore_the_name_and_nothing_else
    a_client_may_ignore_everything_and_still_the_key_must_fit
    sessions_are_resumed_at_both_sides
    sessions_are_not_resumed_where_either_side_does_not_want_it
    sessions_of_another_context_or_name_are_not_resumed
    a_certificate_is_known_where_a_session_was_resumed
    configurations_of_rustls_are_contexts
    early_data_is_refused_at_a_server
    a_client_that_could_send_early_data_sends_none
    secrets_are_logged_where_the_environment_says
    the_certificates_of_the_system_are_where_the_environment_says
    no_certificates_of_the_system_are_an_error
    debug_shows_no_secrets
}

fn text<T>(result: Result<T>) -> (ErrorKind, String) {
    failure(result.map(|_| ()))
}

#[track_caller]
fn is_refused<T>(result: Result<T>, kind: ErrorKind, parts: &[&str]) {
    let (found, text) = text(result);
    assert_eq!(found, kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// A server that shows this, in the making.
fn server_with(identity: &Identity) -> SslContextBuilder {
    SslContext::server_builder().cert_chain_pem(&identity.chain, &identity.key)
}

/// TLS-002
fn certificates_and_keys_may_be_texts_or_files(on: On) {
    let event_loop = on.event_loop();
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let Identity { chain, key } = localhost();
    let (chain_file, key_file) = (file("chain.pem", chain), file("key.pem", key));
    let noisy =
        |text: &str| format!("Certificate:\n    Data: what openssl x509 -text writes\n{text}\n").replace('\n', "\r\n");
    let both = file("both.pem", &format!("{key}{chain}"));
    let roots = file("roots.pem", &format!("# who is trusted\n{}{}", Authority::new("another").pem, authority().pem));
    let servers = [
        SslContext::server(&chain_file, &key_file).unwrap(),
        SslContext::server(chain_file.to_str().unwrap(), key_file.to_str().unwrap()).unwrap(),
        SslContext::server(&both, &both).unwrap(),
        SslContext::server_builder().cert_chain_pem(noisy(chain), noisy(key).into_bytes()).build().unwrap(),
        // The last one counts.
        SslContext::server_builder().load_cert_chain("missing", "missing").cert_chain_pem(chain, key).build().unwrap(),
    ];
    for server in servers {
        meet(&event_loop, PairKind::Tcp, &certificates::client(), &server).finish(&event_loop);
    }
    let own = authority().issue(&["somebody"]);
    let (own_chain, own_key) = (file("own.pem", &own.chain), file("own-key.pem", &own.key));
    let clients = [
        SslContext::client_builder().load_verify_locations(&roots),
        SslContext::client_builder().verify_pem(Authority::new("another").pem).load_verify_locations(&roots),
        client_builder().load_cert_chain(&own_chain, &own_key),
    ];
    let server = server_with(localhost()).load_verify_locations(&roots).verify_mode(VerifyMode::Optional);
    let server = server.build().unwrap();
    for client in clients {
        meet(&event_loop, PairKind::Unix, &client.build().unwrap(), &server).finish(&event_loop);
    }
}

/// TLS-010
fn a_file_that_cannot_be_read_is_named(on: On) {
    drop(on.event_loop());
    let place = tempfile::tempdir().unwrap();
    let (missing, good) = (place.path().join("missing.pem"), place.path().join("good.pem"));
    fs::write(&good, localhost().chain.clone() + &localhost().key).unwrap();
    let cases = [
        (missing.clone(), IoKind::NotFound),
        (place.path().to_owned(), IoKind::IsADirectory),
        (good.join("below"), IoKind::NotADirectory),
    ];
    for (path, kind) in cases {
        let named = path.to_str().unwrap();
        let results = [
            SslContext::server(&path, &good),
            SslContext::server(&good, &path),
            client_builder().load_cert_chain(&path, &good).build(),
            client_builder().load_cert_chain(&good, &path).build(),
            client_builder().load_verify_locations(&path).build(),
            server_with(localhost()).verify_mode(VerifyMode::Required).load_verify_locations(&path).build(),
            // Also where nobody is going to look at it.
            server_with(localhost()).verify_mode(VerifyMode::None).load_verify_locations(&path).build(),
            SslContext::client_builder()
                .dangerous_disable_certificate_verification()
                .load_verify_locations(&path)
                .build(),
        ];
        for (index, result) in results.into_iter().enumerate() {
            let error = result.err().unwrap_or_else(|| panic!("number {index} was good"));
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(error.io_error().unwrap().kind(), kind);
            // Which one it is, and why, and neither of the two twice.
            assert_eq!(error.to_string(), format!("{named}: {}", error.io_error().unwrap()));
        }
    }
}

/// TLS-010
fn what_is_no_certificate_or_no_key_is_refused_with_the_reason(on: On) {
    drop(on.event_loop());
    let Identity { chain, key } = localhost();
    let server = |chain: &str, key: &str| SslContext::server_builder().cert_chain_pem(chain, key).build();
    let broken = |text: &str| text.replacen("\nMI", "\n!!", 1);
    let truncated = |text: &str| text[..text.len() / 2].to_owned();
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    is_refused(server("", key), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(server("garbage", key), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(server(key, key), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(server(&broken(chain), key), ErrorKind::Ssl, &["no PEM"]);
    is_refused(server(&truncated(chain), key), ErrorKind::Ssl, &["PEM"]);
    is_refused(server(nonsense, key), ErrorKind::Ssl, &["certificate"]);
    is_refused(server(chain, ""), ErrorKind::Ssl, &["no PEM private key in it"]);
    is_refused(server(chain, "garbage"), ErrorKind::Ssl, &["no PEM private key in it"]);
    is_refused(server(chain, chain), ErrorKind::Ssl, &["no PEM private key in it"]);
    is_refused(server(chain, &broken(key)), ErrorKind::Ssl, &["no PEM"]);
    is_refused(server(chain, &truncated(key)), ErrorKind::Ssl, &["PEM"]);
    is_refused(server(chain, no_key), ErrorKind::Ssl, &["key"]);
    let client = |roots: &str| SslContext::client_builder().verify_pem(roots).build();
    is_refused(client(""), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(client("garbage"), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(client(key), ErrorKind::Ssl, &["no PEM certificate in it"]);
    is_refused(client(&broken(&authority().pem)), ErrorKind::Ssl, &["no PEM"]);
    is_refused(client(nonsense), ErrorKind::Ssl, &["a certificate cannot be used"]);
    is_refused(client_builder().cert_chain_pem(chain, "").build(), ErrorKind::Ssl, &["no PEM private key in it"]);

    // A file is named, too; no text of a key is.
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("empty.pem");
    fs::write(&path, "").unwrap();
    is_refused(SslContext::server(&path, &path), ErrorKind::Ssl, &["empty.pem", "no PEM certificate"]);
    fs::write(&path, chain).unwrap();
    is_refused(SslContext::server(&path, &path), ErrorKind::Ssl, &["empty.pem", "no PEM private key"]);
    fs::write(&path, [0xff; 100]).unwrap();
    is_refused(SslContext::server(&path, &path), ErrorKind::Ssl, &["empty.pem", "no PEM certificate"]);
}

/// TLS-010
fn an_encrypted_key_is_refused_as_such(on: On) {
    drop(on.event_loop());
    let Identity { chain, key } = localhost();
    let pkcs8 = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let head = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123456789ABCDEF\n\n";
    let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let traditional = format!("{head}{body}\n-----END EC PRIVATE KEY-----\n");
    for key in [&pkcs8, &traditional] {
        let server = SslContext::server_builder().cert_chain_pem(chain, key).build();
        is_refused(server, ErrorKind::Ssl, &["encrypted", "not supported"]);
        let client = client_builder().cert_chain_pem(chain, key).build();
        is_refused(client, ErrorKind::Ssl, &["encrypted", "not supported"]);
        let place = tempfile::tempdir().unwrap();
        let (chain_file, key_file) = (place.path().join("chain.pem"), place.path().join("locked.pem"));
        fs::write(&chain_file, chain).unwrap();
        fs::write(&key_file, key).unwrap();
        is_refused(SslContext::server(chain_file, key_file), ErrorKind::Ssl, &["encrypted", "locked.pem"]);
    }
}

/// TLS-010
fn a_key_of_another_certificate_is_refused(on: On) {
    drop(on.event_loop());
    let (own, other) = (localhost(), authority().issue(&["localhost"]));
    let server = SslContext::server_builder().cert_chain_pem(&own.chain, &other.key).build();
    is_refused(server, ErrorKind::Ssl, &["certificate and its key"]);
    let client = client_builder().cert_chain_pem(&own.chain, &other.key).build();
    is_refused(client, ErrorKind::Ssl, &["certificate and its key"]);
    let reversed = authority().pem.clone() + &own.chain;
    let server = SslContext::server_builder().cert_chain_pem(reversed, &own.key).build();
    is_refused(server, ErrorKind::Ssl, &["certificate and its key"]);
    // Files are named, both of them.
    let place = tempfile::tempdir().unwrap();
    let (chain, key) = (place.path().join("chain.pem"), place.path().join("key.pem"));
    fs::write(&chain, &own.chain).unwrap();
    fs::write(&key, &other.key).unwrap();
    let wanted = format!(
        "the certificate and its key ({} and {}) cannot be used: they do not belong together (KeyMismatch)",
        chain.display(),
        key.display(),
    );
    let contexts = [SslContext::server(&chain, &key), client_builder().load_cert_chain(&chain, &key).build()];
    for context in contexts {
        assert_eq!(text(context), (ErrorKind::Ssl, wanted.clone()));
    }
    // A key that is damaged.
    let damaged = KeyPair::generate().unwrap().serialize_pem().replace("MIG", "MIH");
    let server = SslContext::server_builder().cert_chain_pem(&own.chain, damaged).build();
    is_refused(server, ErrorKind::Ssl, &[]);
}

/// TLS-010
fn a_key_of_a_kind_that_is_not_supported_is_refused_as_such(on: On) {
    drop(on.event_loop());
    let making = Command::new("openssl").args(["ecparam", "-name", "secp521r1", "-genkey", "-noout"]).output();
    let Ok(made) = making else { return eprintln!("skipped: there is no openssl to make a key") };
    if !made.status.success() {
        return eprintln!("skipped: openssl makes no such keys: {}", String::from_utf8_lossy(&made.stderr));
    }
    let own = localhost();
    let parts = &["its kind of key is not supported", "RSA from 2048 bits on, P-256, P-384 and Ed25519"];
    let server = SslContext::server_builder().cert_chain_pem(&own.chain, &made.stdout).build();
    is_refused(server, ErrorKind::Ssl, parts);
    let client = client_builder().cert_chain_pem(&own.chain, &made.stdout).build();
    is_refused(client, ErrorKind::Ssl, parts);
}

/// TLS-010, of configurations that rustls itself makes.
fn errors_of_rustls_are_errors_of_ssl(on: On) {
    use asyncio::rustls::{
        RootCertStore,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    };
    fn server(roots: RootCertStore, key: &str) -> Result<SslContext> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_client_cert_verifier(verifier);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        Ok(config.with_single_cert(vec![der(&localhost().chain)], key)?.into())
    }
    drop(on.event_loop());
    let mut roots = RootCertStore::empty();
    is_refused(server(roots.clone(), &localhost().key), ErrorKind::Ssl, &["root"]);
    roots.add(der(&authority().pem)).unwrap();
    server(roots.clone(), &localhost().key).unwrap();
    is_refused(server(roots.clone(), "garbage"), ErrorKind::Ssl, &["it is no PEM"]);
    let other = authority().issue(&["localhost"]).key;
    is_refused(server(roots, &other), ErrorKind::Ssl, &["they do not belong together (KeyMismatch)"]);
}

/// TLS-007
fn settings_that_contradict_each_other_are_refused(on: On) {
    drop(on.event_loop());
    let server = || server_with(localhost());
    let oldest = |builder: SslContextBuilder| {
        builder.minimum_version(TlsVersion::V1_3).maximum_version(TlsVersion::V1_2).build()
    };
    is_refused(oldest(client_builder()), ErrorKind::Value, &["minimum_version", "maximum_version"]);
    is_refused(oldest(server()), ErrorKind::Value, &["minimum_version", "maximum_version"]);
    for mode in [VerifyMode::None, VerifyMode::Optional] {
        let client = client_builder().verify_mode(mode).build();
        is_refused(client, ErrorKind::Value, &["dangerous_disable_certificate_verification"]);
    }
    client_builder().verify_mode(VerifyMode::Required).build().unwrap();
    is_refused(SslContext::server_builder().build(), ErrorKind::Value, &["certificate", "load_cert_chain"]);
    for mode in [VerifyMode::Optional, VerifyMode::Required] {
        let context = server().verify_mode(mode).build();
        is_refused(context, ErrorKind::Value, &["trust", "load_verify_locations"]);
    }
    is_refused(server().dangerous_disable_certificate_verification().build(), ErrorKind::Value, &["verify_mode"]);
    is_refused(server().dangerous_disable_hostname_check().build(), ErrorKind::Value, &["verify_mode"]);
    let trusting: [fn(SslContextBuilder) -> SslContextBuilder; 3] = [
        |server| server.verify_pem(&authority().pem),
        |server| server.load_verify_locations("missing"),
        SslContextBuilder::load_default_certs,
    ];
    for trusting in trusting {
        is_refused(trusting(server()).build(), ErrorKind::Value, &["whom to trust was given", "verify_mode"]);
    }
    server().verify_pem(&authority().pem).verify_mode(VerifyMode::None).build().unwrap();
    for protocols in [vec![Vec::new()], vec![b"h2".to_vec(), Vec::new()], vec![vec![b'x'; 256]]] {
        is_refused(client_builder().set_alpn_protocols(&protocols).build(), ErrorKind::Value, &["1 to 255"]);
        is_refused(server().set_alpn_protocols(&protocols).build(), ErrorKind::Value, &["1 to 255"]);
    }
    client_builder().set_alpn_protocols([[b'x'; 255]]).build().unwrap();
}

/// TLS-035, of contexts
fn a_context_of_the_wrong_side_is_refused_before_anything_is_opened(on: On) {
    let event_loop = on.event_loop();
    let (client, server) = (certificates::client(), certificates::server());
    assert!(client.client_config().is_some() && client.server_config().is_none());
    assert!(server.server_config().is_some() && server.client_config().is_none());
    let plain = || -> Recorder { panic!("nobody needs a protocol") };
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let value = ErrorKind::Value;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let connecting = event_loop.create_connection(plain, listener.local_addr().unwrap()).ssl(&server);
    is_refused(event_loop.run_until_complete(connecting), value, &["a client needs", "for servers"]);
    assert_eq!(listener.accept().unwrap_err().kind(), IoKind::WouldBlock, "nobody has connected");
    let connecting = event_loop.create_unix_connection(plain, &path).ssl(&server).server_hostname("localhost");
    is_refused(event_loop.run_until_complete(connecting), value, &["a client needs", "for servers"]);
    let creating = event_loop.create_server(plain, ("127.0.0.1", 0)).ssl(&client);
    is_refused(event_loop.run_until_complete(creating), value, &["a server needs", "for clients"]);
    let creating = event_loop.create_unix_server(plain, &path).ssl(&client);
    is_refused(event_loop.run_until_complete(creating), value, &["a server needs", "for clients"]);
    assert!(!path.exists());
    let accepting = event_loop.connect_accepted_socket(plain, PairKind::Tcp.pair().ours).ssl(&client);
    is_refused(event_loop.run_until_complete(accepting), value, &["a server needs", "for clients"]);

    let connected = transports::connect(&event_loop, PairKind::Tcp.pair());
    let upgrade = || event_loop.start_tls(&connected.transport, &client).server_side(true);
    is_refused(event_loop.run_until_complete(upgrade()), value, &["a server needs", "for clients"]);
    let upgrade = upgrade().server_hostname("localhost");
    is_refused(event_loop.run_until_complete(upgrade), value, &["a server needs", "for clients"]);
    let upgrade = event_loop.start_tls(&connected.transport, &server).server_side(false).server_hostname("localhost");
    is_refused(event_loop.run_until_complete(upgrade), value, &["a client needs", "for servers"]);
    connected.transport.write(b"in clear");
    assert_eq!(connected.peer.read_exactly(8), b"in clear");
    connected.transport.close();
    event_loop.until(|| connected.log.lost());
}

const DANGEROUS: &str = "dangerous_disable_hostname_check";

/// TLS-035
fn an_empty_name_is_refused_before_anything_is_sent(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::client();
    let plain = || -> Recorder { panic!("nobody needs a protocol") };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let connecting = event_loop.create_connection(plain, listener.local_addr().unwrap());
    let connecting = connecting.ssl(&context).server_hostname("");
    is_refused(event_loop.run_until_complete(connecting), ErrorKind::Value, &["server_hostname", "empty", DANGEROUS]);
    assert_eq!(listener.accept().unwrap_err().kind(), IoKind::WouldBlock, "nobody has connected");

    let Pair { ours, peer } = PairKind::Tcp.pair();
    let connecting = event_loop.create_connection(plain, ()).sock(ours).ssl(&context).server_hostname("");
    is_refused(event_loop.run_until_complete(connecting), ErrorKind::Value, &["server_hostname", DANGEROUS]);
    event_loop.until(|| peer.ended());
    assert_eq!(peer.drain(), b"");

    let Pair { ours, peer } = PairKind::Unix.pair();
    let connecting = event_loop.create_unix_connection(plain, ()).sock(ours).ssl(&context).server_hostname("");
    is_refused(event_loop.run_until_complete(connecting), ErrorKind::Value, &["server_hostname", DANGEROUS]);
    event_loop.until(|| peer.ended());
    assert_eq!(peer.drain(), b"");

    let connected = transports::connect(&event_loop, PairKind::Tcp.pair());
    let upgrade = event_loop.start_tls(&connected.transport, &context).server_hostname("");
    is_refused(event_loop.run_until_complete(upgrade), ErrorKind::Value, &["server_hostname", DANGEROUS]);
    assert_eq!(connected.peer.drain(), b"");
    connected.transport.close();
    event_loop.until(|| connected.log.lost());
}

/// TLS-035
fn a_client_without_a_host_needs_a_name(on: On) {
    let event_loop = on.event_loop();
    let context = certificates::client();
    let plain = || -> Recorder { panic!("nobody needs a protocol") };
    // The way around is no advice for whoever has only forgotten it.
    let wanted = "You must set server_hostname when using ssl without a host";
    let needs_a_name = |result: Result<()>| assert_eq!(text(result), (ErrorKind::Value, wanted.to_owned()));
    let connecting = event_loop.create_connection(plain, ()).sock(PairKind::Tcp.pair().ours).ssl(&context);
    needs_a_name(event_loop.run_until_complete(connecting).map(drop));
    let connecting = event_loop.create_unix_connection(plain, "/nowhere/at/all").ssl(&context);
    needs_a_name(event_loop.run_until_complete(connecting).map(drop));
    let connecting = event_loop.create_unix_connection(plain, ()).sock(PairKind::Unix.pair().ours).ssl(&context);
    needs_a_name(event_loop.run_until_complete(connecting).map(drop));
    let connected = transports::connect(&event_loop, PairKind::Tcp.pair());
    let upgrade = event_loop.start_tls(&connected.transport, &context);
    needs_a_name(event_loop.run_until_complete(upgrade).map(drop));
    connected.transport.close();
    event_loop.until(|| connected.log.lost());
}

/// A server that goes on, and its address.
fn serve(event_loop: &TestLoop, context: &SslContext) -> (asyncio::Server, SocketAddr, Log) {
    let log = Log::default();
    let recorded = log.clone();
    let factory = move || Recorder::new(&recorded).on_data(|transport, data| transport.write(data));
    let server = event_loop.run(event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(context));
    let address = server.sockets()[0].address().as_inet().unwrap();
    (server, address, log)
}

fn close(event_loop: &TestLoop, server: &asyncio::Server) {
    server.close();
    event_loop.run(server.wait_closed());
}

/// What a client comes to that asks for this name, over a pair of sockets: the name that it knows its server by.
fn named(
    event_loop: &TestLoop,
    client: &SslContext,
    server: &SslContext,
    name: Option<&str>,
) -> Result<Option<String>> {
    let Pair { ours, peer } = PairKind::Tcp.pair();
    let (client_log, server_log) = (Log::default(), Log::default());
    let mut connecting = event_loop.create_connection(|| Recorder::new(&client_log), ()).sock(ours).ssl(client);
    if let Some(name) = name {
        connecting = connecting.server_hostname(name);
    }
    let accepting = event_loop.connect_accepted_socket(|| Recorder::new(&server_log), peer.0).ssl(server);
    let both = futures::future::join(connecting.into_future(), accepting.into_future());
    let (connected, accepted) = event_loop.run(async { Ok(both.await) });
    if let Ok((transport, _)) = accepted {
        transport.abort();
        event_loop.until(|| server_log.lost());
    }
    let (transport, _) = connected?;
    event_loop.until(|| client_log.lost());
    Ok(transport.get_extra_info(SERVER_HOSTNAME))
}

/// TLS-035
fn the_host_is_the_name_unless_it_is_said(on: On) {
    let event_loop = on.event_loop();
    let (server, address, _) = serve(&event_loop, &certificates::server());
    let log = Log::default();
    let context = certificates::client();
    // By its name, which is resolved.
    let connecting = event_loop.create_connection(|| Recorder::new(&log), ("localhost", address.port())).ssl(&context);
    let (transport, _) = event_loop.run(connecting);
    assert_eq!(transport.get_extra_info(SERVER_HOSTNAME).as_deref(), Some("localhost"));
    transport.close();
    event_loop.until(|| log.lost());
    // By another one, which it does not have.
    let connecting = event_loop.create_connection(|| Recorder::new(&log), ("localhost", address.port())).ssl(&context);
    let connecting = connecting.server_hostname("example.org");
    is_refused(event_loop.run_until_complete(connecting), ErrorKind::Ssl, &["example.org"]);
    close(&event_loop, &server);
}

/// TLS-035
fn names_that_no_certificate_can_have_are_refused(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = (certificates::client(), certificates::server());
    let long = "x".repeat(300);
    let label = format!("{}.org", "x".repeat(64));
    for name in [
        " ",
        "local host",
        "localhost ",
        "localhost:443",
        "https://localhost",
        ".",
        ".localhost",
        "a..b",
        "a\0b",
        "bücher.example",
        "-localhost",
        "localhost%lo",
        "%lo",
        "[::1]",
        &long,
        &label,
    ] {
        is_refused(
            named(&event_loop, &ours, &theirs, Some(name)),
            ErrorKind::Value,
            &["server_hostname", "is no name"],
        );
    }
}

/// TLS-035
fn a_trailing_dot_and_capitals_do_not_matter(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = (certificates::client(), certificates::server());
    for name in ["localhost", "LOCALHOST", "localhost.", "LocalHost."] {
        let known = named(&event_loop, &ours, &theirs, Some(name)).unwrap().unwrap();
        assert_eq!(known.trim_end_matches('.').to_lowercase(), "localhost");
    }
    let wild = authority().issue(&["*.example.org"]).server();
    named(&event_loop, &ours, &wild, Some("www.example.org")).unwrap();
    named(&event_loop, &ours, &wild, Some("www.example.org.")).unwrap();
    for name in ["example.org", "a.b.example.org"] {
        is_refused(named(&event_loop, &ours, &wild, Some(name)), ErrorKind::Ssl, &["not valid for name", name]);
    }
}

/// TLS-010
fn an_address_is_checked_as_an_address_and_its_zone_is_not(on: On) {
    let event_loop = on.event_loop();
    let ours = certificates::client();
    let theirs = authority().issue(&["127.0.0.1", "::1", "fe80::1"]).server();
    for name in ["127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "fe80::1", "fe80::1%lo", "fe80::1%1"] {
        named(&event_loop, &ours, &theirs, Some(name)).unwrap();
    }
    for name in ["127.0.0.2", "::2", "fe80::2%lo", "localhost"] {
        is_refused(named(&event_loop, &ours, &theirs, Some(name)), ErrorKind::Ssl, &["not valid for name"]);
    }
    // The host is an address.
    let (server, address, _) = serve(&event_loop, &theirs);
    let log = Log::default();
    let (transport, _) = event_loop.run(event_loop.create_connection(|| Recorder::new(&log), address).ssl(&ours));
    assert_eq!(transport.get_extra_info(SERVER_HOSTNAME).as_deref(), Some("127.0.0.1"));
    transport.close();
    event_loop.until(|| log.lost());
    close(&event_loop, &server);
}

/// TLS-007
fn arguments_of_tls_without_tls_are_refused(on: On) {
    let event_loop = on.event_loop();
    let plain = || -> Recorder { panic!("nobody needs a protocol") };
    let limit = Duration::from_secs(1);
    let refused = |result: Result<()>, name| is_refused(result, ErrorKind::Value, &[name, "only meaningful with ssl"]);
    let make = || event_loop.create_connection(plain, ("127.0.0.1", 9));
    refused(event_loop.run_until_complete(make().server_hostname("localhost")).map(drop), "server_hostname");
    refused(event_loop.run_until_complete(make().ssl_handshake_timeout(limit)).map(drop), "ssl_handshake_timeout");
    refused(event_loop.run_until_complete(make().ssl_shutdown_timeout(limit)).map(drop), "ssl_shutdown_timeout");
    let make = || event_loop.create_server(plain, ("127.0.0.1", 0));
    refused(event_loop.run_until_complete(make().ssl_handshake_timeout(limit)).map(drop), "ssl_handshake_timeout");
    refused(event_loop.run_until_complete(make().ssl_shutdown_timeout(limit)).map(drop), "ssl_shutdown_timeout");
    let make = || event_loop.create_unix_connection(plain, "/nowhere/at/all");
    refused(event_loop.run_until_complete(make().server_hostname("localhost")).map(drop), "server_hostname");
    let make = || event_loop.connect_accepted_socket(plain, PairKind::Tcp.pair().ours);
    refused(event_loop.run_until_complete(make().ssl_handshake_timeout(limit)).map(drop), "ssl_handshake_timeout");
}

/// TLS-035
fn a_client_may_ignore_the_name_and_nothing_else(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        let ours = only(client_builder(), version).dangerous_disable_hostname_check().build().unwrap();
        let theirs = certificates::server();
        for name in [None, Some(""), Some("example.org"), Some("192.0.2.1"), Some("localhost"), Some("no name")] {
            let known = named(&event_loop, &ours, &theirs, name).unwrap();
            match name {
                Some(name @ ("example.org" | "192.0.2.1" | "localhost")) => assert_eq!(known.as_deref(), Some(name)),
                _ => assert_eq!(known, None, "no name was asked for"),
            }
        }
        let stranger = Authority::new("a stranger").issue(&["localhost"]).server();
        let expired =
            authority().issue_as(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 2, 3)).server();
        for (server, reason) in [(stranger, "not issued by anybody who is trusted"), (expired, "expired")] {
            for name in [None, Some("localhost"), Some("example.org")] {
                let result = named(&event_loop, &ours, &server, name);
                is_refused(result, ErrorKind::Ssl, &["certificate verify failed", reason]);
            }
        }
    }
}

/// TLS-035
fn a_client_may_ignore_everything_and_still_the_key_must_fit(on: On) {
    let event_loop = on.event_loop();
    let expired = Authority::new("a stranger")
        .issue_as(&["example.org"], |params| params.not_after = rcgen::date_time_ymd(2001, 2, 3));
    for (version, _) in VERSIONS {
        let builder = only(SslContext::client_builder(), version).dangerous_disable_certificate_verification();
        let ours = builder.build().unwrap();
        for name in [None, Some(""), Some("localhost")] {
            named(&event_loop, &ours, &expired.server(), name).unwrap();
        }
        // Who shows a certificate must have its key.
        let thief = stolen(localhost(), &authority().issue(&["localhost"]));
        is_refused(named(&event_loop, &ours, &thief, Some("localhost")), ErrorKind::Ssl, &["lacks its key"]);
    }
}

/// A server that shows a certificate whose key it does not have.
fn stolen(shown: &Identity, own: &Identity) -> SslContext {
    use asyncio::rustls::{
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl ResolvesServerCert for Thief {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let shown = Arc::new(CertifiedKey::new(vec![der(&shown.chain)], key));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    config.with_cert_resolver(Arc::new(Thief(shown))).into()
}

/// Whether each of these connections resumes a session, at the client and at the server.
fn resumed(event_loop: &TestLoop, client: &SslContext, server: &SslContext, count: usize) -> Vec<[Option<bool>; 2]> {
    let connections = (0..count).map(|_| {
        let met = meet(event_loop, PairKind::Tcp, client, server);
        let reused = met.ends().map(|end| end.get_extra_info(SESSION_REUSED));
        // With data, so that what follows the handshake has come, too.
        met.finish(event_loop);
        assert_eq!(met.ends().map(|end| end.get_extra_info(SESSION_REUSED)), reused);
        reused
    });
    connections.collect()
}

const ANEW: [Option<bool>; 2] = [Some(false); 2];
const RESUMED: [Option<bool>; 2] = [Some(true); 2];

/// TLS-002
fn sessions_are_resumed_at_both_sides(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        let (ours, theirs) = (only(client_builder(), version).build().unwrap(), certificates::server());
        assert_eq!(resumed(&event_loop, &ours, &theirs, 3), [ANEW, RESUMED, RESUMED]);
        // A clone remembers the same.
        assert_eq!(resumed(&event_loop, &ours.clone(), &theirs.clone(), 1), [RESUMED]);
        let (ours, theirs) = (ours.client_config().unwrap(), theirs.server_config().unwrap());
        assert_eq!(resumed(&event_loop, &ours.clone().into(), &theirs.clone().into(), 1), [RESUMED]);
    }
}

/// TLS-002
fn sessions_are_not_resumed_where_either_side_does_not_want_it(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        for (at_client, at_server) in [(false, true), (true, false), (false, false)] {
            let ours = only(client_builder(), version).session_resumption(at_client).build().unwrap();
            let theirs = server_with(localhost()).session_resumption(at_server).build().unwrap();
            assert_eq!(resumed(&event_loop, &ours, &theirs, 3), [ANEW; 3]);
        }
        let ours = only(client_builder(), version).session_resumption(true).build().unwrap();
        assert_eq!(resumed(&event_loop, &ours, &certificates::server(), 2), [ANEW, RESUMED]);
    }
}

/// TLS-002
fn sessions_of_another_context_or_name_are_not_resumed(on: On) {
    let event_loop = on.event_loop();
    for (version, _) in VERSIONS {
        let ours = only(client_builder(), version).build().unwrap();
        let theirs = certificates::server();
        assert_eq!(resumed(&event_loop, &ours, &theirs, 2), [ANEW, RESUMED]);
        // What another server cannot read is no reason to fail.
        assert_eq!(resumed(&event_loop, &ours, &certificates::server(), 1), [ANEW]);
        let other = only(client_builder(), version).build().unwrap();
        assert_eq!(resumed(&event_loop, &other, &theirs, 1), [ANEW]);
    }
}

/// TLS-002
fn a_certificate_is_known_where_a_session_was_resumed(on: On) {
    let event_loop = on.event_loop();
    let own = authority().issue(&["somebody"]);
    let theirs = server_with(localhost()).verify_pem(&authority().pem).verify_mode(VerifyMode::Required);
    let theirs = theirs.build().unwrap();
    for (version, _) in VERSIONS {
        let ours = only(client_builder(), version).cert_chain_pem(&own.chain, &own.key).build().unwrap();
        assert_eq!(resumed(&event_loop, &ours, &theirs, 1), [ANEW]);
        let met = meet(&event_loop, PairKind::Tcp, &ours, &theirs);
        let [client, server] = met.ends();
        assert_eq!([client, server].map(|end| end.get_extra_info(SESSION_REUSED)), RESUMED);
        assert_eq!(client.get_extra_info(PEERCERT), Some(der(&localhost().chain)));
        assert_eq!(server.get_extra_info(PEERCERT), Some(der(&own.chain)));
        met.finish(&event_loop);
    }
}

/// TLS-002
fn configurations_of_rustls_are_contexts(on: On) {
    let event_loop = on.event_loop();
    let ours: Arc<ClientConfig> = certificates::client().client_config().unwrap().clone();
    let theirs: Arc<ServerConfig> = certificates::server().server_config().unwrap().clone();
    let clients: [SslContext; 2] = [ours.clone().into(), ClientConfig::clone(&ours).into()];
    let servers: [SslContext; 2] = [theirs.clone().into(), ServerConfig::clone(&theirs).into()];
    assert!(Arc::ptr_eq(clients[0].client_config().unwrap(), &ours));
    assert!(Arc::ptr_eq(servers[0].server_config().unwrap(), &theirs));
    for (client, server) in clients.iter().zip(&servers) {
        assert!(client.server_config().is_none() && server.client_config().is_none());
        meet(&event_loop, PairKind::Tcp, client, server).finish(&event_loop);
        is_refused(named(&event_loop, client, server, None), ErrorKind::Value, &["server_hostname"]);
        is_refused(named(&event_loop, client, server, Some("")), ErrorKind::Value, &["server_hostname"]);
        is_refused(named(&event_loop, client, server, Some("example.org")), ErrorKind::Ssl, &["example.org"]);
    }
}

fn with_early_data() -> ServerConfig {
    let mut config = ServerConfig::clone(certificates::server().server_config().unwrap());
    config.max_early_data_size = 1000;
    config
}

/// TLS-007
fn early_data_is_refused_at_a_server(on: On) {
    let event_loop = on.event_loop();
    let context = SslContext::from(with_early_data());
    let plain = || -> Recorder { panic!("nobody needs a protocol") };
    let parts = &["early data", "max_early_data_size"];
    let creating = event_loop.create_server(plain, ("127.0.0.1", 0)).ssl(&context);
    is_refused(event_loop.run_until_complete(creating), ErrorKind::Value, parts);
    let accepting = event_loop.connect_accepted_socket(plain, PairKind::Tcp.pair().ours).ssl(&context);
    is_refused(event_loop.run_until_complete(accepting), ErrorKind::Value, parts);
    let connected = transports::connect(&event_loop, PairKind::Tcp.pair());
    let upgrade = event_loop.start_tls(&connected.transport, &context);
    is_refused(event_loop.run_until_complete(upgrade), ErrorKind::Value, parts);
    connected.transport.close();
    event_loop.until(|| connected.log.lost());
}

/// TLS-002
fn a_client_that_could_send_early_data_sends_none(on: On) {
    let event_loop = on.event_loop();
    let config = Arc::new(with_early_data());
    let mut ours = ClientConfig::clone(certificates::client().client_config().unwrap());
    ours.enable_early_data = true;
    let ours = SslContext::from(ours);
    for expected in [false, true] {
        let theirs = config.clone();
        let (address, thread) = serve_one(move |socket| {
            let mut peer = TlsPeer::server(socket);
            let connection = ServerConnection::new(theirs).unwrap();
            peer.connection = connection.into();
            peer.handshake().unwrap();
            let question = peer.receive(8).unwrap();
            peer.send(b"answer!").unwrap();
            peer.receive_all().unwrap();
            peer.close_notify().unwrap();
            question
        });
        let log = Log::default();
        let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(&ours);
        let (transport, _) = event_loop.run(connecting.server_hostname("localhost"));
        assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(expected));
        transport.write(b"question");
        event_loop.until(|| log.received() == b"answer!");
        transport.close();
        event_loop.until(|| log.lost());
        assert_eq!(log.joined(), [Told::Made, Told::Data(7), Told::Eof, Told::Lost(None)]);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
        assert_eq!(thread.join().unwrap(), b"question");
    }
}

/// What a child process runs, and its parent afterwards.
fn in_child(on: On, variables: &[(&str, Option<&str>)]) -> bool {
    run_in_child(on.path.split_once("::").unwrap().1, variables).is_none()
}

/// TLS-002
fn secrets_are_logged_where_the_environment_says(on: On) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("secrets.log");
    fs::write(&path, "# what was there before\n").unwrap();
    if in_child(on, &[("SSLKEYLOGFILE", path.to_str())]) {
        let event_loop = on.event_loop();
        for (version, _) in VERSIONS {
            let ours = only(client_builder(), version).build().unwrap();
            meet(&event_loop, PairKind::Tcp, &ours, &certificates::server()).finish(&event_loop);
        }
        return;
    }
    let log = fs::read_to_string(&path).unwrap();
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("# what was there before"));
    let labels: Vec<&str> = lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!((words.len(), words[1].len()), (3, 64), "{line}");
            assert!(words[1].chars().chain(words[2].chars()).all(|digit| digit.is_ascii_hexdigit()), "{line}");
            words[0]
        })
        .collect();
    // One of each side, of TLS 1.2 and 1.3.
    for label in ["CLIENT_RANDOM", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"] {
        assert_eq!(labels.iter().filter(|found| **found == label).count(), 2, "{label}: {log}");
    }
}

/// TLS-010
fn the_certificates_of_the_system_are_where_the_environment_says(on: On) {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let folder = path("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(path("folder/0123abcd.0"), &authority().pem).unwrap();
    fs::write(path("roots.pem"), &authority().pem).unwrap();
    fs::write(path("identity.pem"), localhost().chain.clone() + &localhost().key).unwrap();
    let (roots, identity) = (path("roots.pem"), path("identity.pem"));
    const IDENTITY: &str = "ASYNCIO_TEST_IDENTITY";
    let places = [(Some(roots.as_str()), None), (None, Some(folder.as_str()))];
    for (file, folder) in places {
        if in_child(on, &[("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder), (IDENTITY, Some(&identity))]) {
            let event_loop = on.event_loop();
            let identity = std::env::var(IDENTITY).unwrap();
            let server = SslContext::server(&identity, &identity).unwrap();
            let builders = [SslContext::client(), client_builder().load_default_certs().build()];
            for client in builders {
                meet(&event_loop, PairKind::Tcp, &client.unwrap(), &server).finish(&event_loop);
            }
            // Who is told whom to trust trusts nobody else; nor is anybody good for another name.
            let others = named(&event_loop, &certificates::client(), &server, Some("localhost"));
            is_refused(others, ErrorKind::Ssl, &["certificate verify failed"]);
            let others = named(&event_loop, &SslContext::client().unwrap(), &server, Some("example.org"));
            is_refused(others, ErrorKind::Ssl, &["not valid for name"]);
            return;
        }
    }
}

/// TLS-010
fn no_certificates_of_the_system_are_an_error(on: On) {
    let place = tempfile::tempdir().unwrap();
    let (empty, missing) = (place.path().join("empty.pem"), place.path().join("missing.pem"));
    fs::write(&empty, "").unwrap();
    for file in [&empty, &missing] {
        if in_child(on, &[("SSL_CERT_FILE", file.to_str()), ("SSL_CERT_DIR", None)]) {
            let missing = std::env::var("SSL_CERT_FILE").unwrap();
            let parts: &[&str] = if missing.ends_with("missing.pem") {
                &["no certificates to trust", "missing.pem"]
            } else {
                &["no certificates to trust"]
            };
            is_refused(SslContext::client(), ErrorKind::Ssl, parts);
            is_refused(SslContext::client_builder().load_default_certs().build(), ErrorKind::Ssl, parts);
            // Whoever is told whom to trust, or to trust everybody, needs none.
            client_builder().build().unwrap();
            SslContext::client_builder().dangerous_disable_certificate_verification().build().unwrap();
            return;
        }
    }
}

/// TLS-002
fn debug_shows_no_secrets(on: On) {
    let event_loop = on.event_loop();
    let (client, server) = (certificates::client(), certificates::server());
    let Identity { chain, key } = localhost();
    let place = tempfile::tempdir().unwrap();
    let builder = server_with(localhost());
    let creating = event_loop.create_server(|| Recorder::new(&Log::default()), ("127.0.0.1", 0)).ssl(&server);
    let connecting = event_loop.create_connection(|| Recorder::new(&Log::default()), ("localhost", 9)).ssl(&client);
    let by_file = SslContext::server_builder().load_cert_chain(place.path(), place.path());
    let shown = [
        format!("{client:?} {server:?}"),
        format!("{builder:?} {by_file:?} {:?}", client_builder()),
        format!("{creating:?} {connecting:#?}"),
    ];
    assert!(shown[0].contains("client") && shown[0].contains("server"), "{shown:?}");
    let bytes: Vec<String> = key.lines().chain(chain.lines()).map(str::to_owned).collect();
    for text in &shown {
        assert!(text.len() < 2000, "{text}");
        assert!(!text.contains("PRIVATE") && !bytes.iter().any(|line| text.contains(line)), "{text}");
    }
    // A connection says what it is, and nothing of what it knows.
    let met = meet(&event_loop, PairKind::Tcp, &client, &server);
    let text = format!("{:?}", met.ends());
    assert!(text.contains("TlsTransport") && text.len() < 2000, "{text}");
    met.finish(&event_loop);
}
