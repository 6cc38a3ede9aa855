//! What these tests show: OpenSSL and CPython as the other side, where they are installed: test programs of their own.

use std::{
    future::IntoFuture,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    ALPN_PROTOCOL, CIPHER, CLOSE_NOTIFY, ErrorKind, PEERCERT, SESSION_REUSED, SSL_VERSION, Server, SslContext,
    SslContextBuilder, TlsVersion, Transport, VerifyMode,
};

use crate::{
    certificates::{self, Authority},
    support::{
        Record,
        loops::{On, TestLoop},
        transports::{Log, Recorder, Told, pattern},
    },
};

on_each_selector! {
    s_client_is_served
    s_client_sends_and_gets_a_mebibyte
    s_client_and_the_protocols_over_tls
    s_client_shows_a_certificate
    s_client_resumes_its_session
    s_client_must_not_renegotiate
    s_client_updates_its_keys
    s_client_ends_in_every_way
    s_client_does_not_trust_us
    s_client_begins_in_clear
    s_server_is_asked
    s_server_sends_and_gets_a_mebibyte
    s_server_and_the_protocols_over_tls
    s_server_is_shown_a_certificate
    s_server_resumes_our_session
    s_server_must_not_renegotiate
    s_server_updates_its_keys
    s_server_is_not_trusted
    python_is_served
    python_is_asked
    python_closes_in_every_way
    python_does_not_trust_us
    python_is_not_trusted
    python_clients_begin_in_clear
    python_servers_begin_in_clear
}

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];
const MEBIBYTE: usize = 1 << 20;

/// A program that is somebody's other side. It ends with this, at the latest.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    /// What it has written, to either stream.
    output: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// `None` where it is not installed, which is said then.
    fn start(command: &mut Command) -> Option<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("not tested: {:?} is not installed", command.get_program());
                return None;
            }
            child => child.unwrap(),
        };
        let output = Arc::<Mutex<Vec<u8>>>::default();
        collect(child.stdout.take().unwrap(), output.clone());
        collect(child.stderr.take().unwrap(), output.clone());
        Some(Program { input: child.stdin.take(), child, output })
    }

    fn output(&self) -> Vec<u8> {
        self.output.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output()).into_owned()
    }

    /// Runs the loop until the program has written this.
    #[track_caller]
    fn until_says(&self, event_loop: &TestLoop, text: &str) {
        let begin = Instant::now();
        event_loop.until(|| {
            assert!(begin.elapsed() < Duration::from_secs(30), "no {text:?} in {:?}", self.text());
            self.text().contains(text)
        });
    }

    /// Runs the loop until the program has written this so many times.
    fn until_says_times(&self, event_loop: &TestLoop, text: &str, times: usize) {
        event_loop.until(|| self.text().matches(text).count() >= times);
    }

    fn type_in(&mut self, text: &str) {
        let mut input = self.input.as_ref().unwrap();
        match input.write_all(text.as_bytes()) {
            // What it said before it ended is what counts.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            typed => typed.unwrap(),
        }
    }

    /// Hands it `data` as it takes it; nothing else can be typed in after that.
    fn feed(&mut self, data: Vec<u8>) {
        let mut input = self.input.take().unwrap();
        // It breaks off when the program ends.
        thread::spawn(move || input.write_all(&data).map(|()| input));
    }

    fn end_input(&mut self) {
        self.input = None;
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end in a thread of its own.
fn collect(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) {
    thread::spawn(move || {
        let mut chunk = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            to.lock().unwrap().extend_from_slice(&chunk[..count]);
        }
    });
}

/// Certificates in files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        let stranger = Authority::new("somebody else");
        let client = certificates::authority().issue(&["a client"]);
        let strange = stranger.issue(&["localhost"]);
        let texts = [
            ("authority.pem", &certificates::authority().pem),
            ("chain.pem", &certificates::localhost().chain),
            ("key.pem", &certificates::localhost().key),
            ("client-chain.pem", &client.chain),
            ("client-key.pem", &client.key),
            ("stranger.pem", &stranger.pem),
            ("strange-chain.pem", &strange.chain),
            ("strange-key.pem", &strange.key),
        ];
        for (name, text) in texts {
            std::fs::write(folder.path(name), text).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// `openssl`, with its certificates where this is.
fn openssl(folder: &Folder, command: &str, version: TlsVersion) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(&folder.0).arg(command);
    openssl.arg(if version == TlsVersion::V1_2 { "-tls1_2" } else { "-tls1_3" });
    openssl
}

fn s_client(folder: &Folder, address: SocketAddr, version: TlsVersion, more: &[&str]) -> Option<Program> {
    let mut command = openssl(folder, "s_client", version);
    command.args(["-connect", &address.to_string(), "-servername", "localhost"]);
    if !more.contains(&"-CAfile") {
        command.args(["-CAfile", "authority.pem"]);
    }
    Program::start(command.args(["-verify_return_error", "-verify_hostname", "localhost"]).args(more))
}

/// With the address where it listens.
fn s_server(
    event_loop: &TestLoop,
    folder: &Folder,
    version: TlsVersion,
    more: &[&str],
) -> Option<(Program, SocketAddr)> {
    let mut command = openssl(folder, "s_server", version);
    command.args(["-accept", "127.0.0.1:0"]);
    if !more.contains(&"-cert") {
        command.args(["-cert", "chain.pem", "-key", "key.pem"]);
    }
    let program = Program::start(command.args(more))?;
    let mut address = None;
    event_loop.until(|| {
        let text = program.text();
        let line = text.lines().find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        address = line.filter(|_| text.ends_with('\n')).map(|line| line.parse().unwrap());
        address.is_some()
    });
    Some((program, address.unwrap()))
}

fn named(version: TlsVersion) -> &'static str {
    if version == TlsVersion::V1_2 { "TLSv1.2" } else { "TLSv1.3" }
}

/// A server of ours that sends back what it gets.
struct Ours {
    server: Server,
    address: SocketAddr,
    logs: Record<Log>,
    ends: Record<Transport>,
}

impl Ours {
    fn new(event_loop: &TestLoop, context: &SslContext) -> Self {
        let (logs, ends) = (Record::<Log>::default(), Record::default());
        let (made, begun) = (logs.clone(), ends.clone());
        let factory = move || {
            let log = Log::default();
            made.push(log.clone());
            let begun = begun.clone();
            Recorder::new(&log)
                .on_made(move |transport| begun.push(transport.clone()))
                .on_data(|transport, data| transport.write(data))
        };
        let creating = event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(context);
        let server = event_loop.run(creating);
        let address = server.sockets()[0].address().as_inet().unwrap();
        Ours { server, address, logs, ends }
    }

    /// The connection of this number, once its handshake is over.
    fn end(&self, event_loop: &TestLoop, number: usize) -> (Transport, Log) {
        event_loop.until(|| self.ends.len() > number);
        (self.ends.items()[number].clone(), self.logs.items()[number].clone())
    }

    /// Nobody is there any more.
    fn finish(self, event_loop: &TestLoop) {
        self.server.close();
        event_loop.run(self.server.wait_closed());
    }
}

/// A client of ours.
fn connect(event_loop: &TestLoop, address: SocketAddr, context: &SslContext) -> (Transport, Log) {
    let log = Log::default();
    let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(context);
    let (transport, _) = event_loop.run(connecting.server_hostname("localhost"));
    (transport, log)
}

fn assert_closed_in_order(log: &Log) {
    let told = log.joined();
    assert_eq!(told[told.len() - 2..], [Told::Eof, Told::Lost(None)], "{told:?}");
    assert_eq!(log.count(&Told::Made), 1);
}

fn of_version(builder: SslContextBuilder, version: TlsVersion) -> SslContextBuilder {
    builder.minimum_version(version).maximum_version(version)
}

fn s_client_is_served(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let ours = Ours::new(&event_loop, &certificates::server());
        let Some(mut client) = s_client(&folder, ours.address, version, &[]) else { return };
        let (transport, log) = ours.end(&event_loop, 0);
        client.until_says(&event_loop, "Verify return code: 0 (ok)");
        let cipher = transport.get_extra_info(CIPHER).unwrap();
        assert_eq!(transport.get_extra_info(SSL_VERSION), Some(named(version)));
        // OpenSSL has names of its own for the suites of TLS 1.2.
        let expected = if version == TlsVersion::V1_3 { cipher.name } else { "Cipher is ECDHE-ECDSA" };
        assert!(client.text().contains(expected), "{} {cipher}", client.text());
        client.type_in("what is said\n");
        client.until_says(&event_loop, "what is said\n");
        client.type_in("Q\n");
        event_loop.until(|| log.lost());
        assert_closed_in_order(&log);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
        event_loop.until(|| client.has_ended());
        ours.finish(&event_loop);
    }
}

fn s_client_sends_and_gets_a_mebibyte(on: On) {
    let (event_loop, folder, data) = (on.event_loop(), Folder::new(), pattern(MEBIBYTE));
    for version in VERSIONS {
        let ours = Ours::new(&event_loop, &certificates::server());
        let Some(mut client) = s_client(&folder, ours.address, version, &["-quiet", "-verify_quiet"]) else { return };
        client.feed(data.clone());
        let (transport, log) = ours.end(&event_loop, 0);
        event_loop.until(|| client.output().len() >= data.len());
        assert!(log.received() == data, "{version:?}");
        assert!(client.output() == data);
        transport.close();
        event_loop.until(|| log.lost());
        assert_closed_in_order(&log);
        event_loop.until(|| client.has_ended());
        ours.finish(&event_loop);
    }
}

fn s_client_and_the_protocols_over_tls(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let context = certificates::localhost().server_builder().set_alpn_protocols(["h2", "echo"]).build().unwrap();
    for version in VERSIONS {
        for (offered, agreed) in [("echo", Some("echo")), ("other,echo,h2", Some("h2")), ("other", None), ("", None)] {
            let ours = Ours::new(&event_loop, &context);
            let arguments = if offered.is_empty() { vec![] } else { vec!["-alpn", offered] };
            let Some(mut client) = s_client(&folder, ours.address, version, &arguments) else { return };
            if offered == "other" {
                // They have nothing in common.
                client.until_says(&event_loop, "no application protocol");
                event_loop.until(|| client.has_ended() && ours.logs.len() == 1);
                ours.server.close();
                event_loop.run(ours.server.wait_closed());
                assert_eq!(ours.logs.items()[0].items(), []);
                continue;
            }
            let (transport, log) = ours.end(&event_loop, 0);
            let known = transport.get_extra_info(ALPN_PROTOCOL).map(|name| String::from_utf8(name).unwrap());
            assert_eq!(known.as_deref(), agreed, "{version:?}");
            let said = agreed.map_or("No ALPN negotiated".to_owned(), |name| format!("ALPN protocol: {name}\n"));
            client.until_says(&event_loop, &said);
            client.end_input();
            event_loop.until(|| log.lost());
            ours.finish(&event_loop);
        }
    }
}

fn s_client_shows_a_certificate(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let shown: [&[&str]; 3] = [
        &["-cert", "client-chain.pem", "-key", "client-key.pem"],
        &[],
        &["-cert", "strange-chain.pem", "-key", "strange-key.pem"],
    ];
    for version in VERSIONS {
        for mode in [VerifyMode::Optional, VerifyMode::Required] {
            let builder = certificates::localhost().server_builder().verify_mode(mode);
            let context = builder.verify_pem(&certificates::authority().pem).build().unwrap();
            for (index, shown) in shown.into_iter().enumerate() {
                let ours = Ours::new(&event_loop, &context);
                let Some(mut client) = s_client(&folder, ours.address, version, shown) else { return };
                if index == 0 || (index == 1 && mode == VerifyMode::Optional) {
                    let (transport, log) = ours.end(&event_loop, 0);
                    assert_eq!(transport.get_extra_info(PEERCERT).is_some(), index == 0);
                    client.until_says(&event_loop, "Verify return code: 0 (ok)");
                    client.type_in("hello\n");
                    client.until_says(&event_loop, "hello\n");
                    client.end_input();
                    event_loop.until(|| log.lost());
                    assert_closed_in_order(&log);
                } else {
                    // By an alert that says why.
                    client.until_says(&event_loop, if index == 1 { "certificate required" } else { "unknown ca" });
                    event_loop.until(|| client.has_ended());
                }
                ours.server.close();
                event_loop.run(ours.server.wait_closed());
            }
        }
    }
}

fn s_client_resumes_its_session(on: On) {
    let event_loop = on.event_loop();
    for version in VERSIONS {
        for resumes in [true, false] {
            let folder = Folder::new();
            let builder = certificates::localhost().server_builder().session_resumption(resumes);
            let ours = Ours::new(&event_loop, &builder.build().unwrap());
            let Some(mut client) = s_client(&folder, ours.address, version, &["-sess_out", "session.pem"]) else {
                return;
            };
            let (transport, log) = ours.end(&event_loop, 0);
            assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(false));
            client.type_in("hello\n");
            client.until_says(&event_loop, "hello\n");
            client.end_input();
            event_loop.until(|| log.lost() && client.has_ended());
            if !folder.path("session.pem").exists() {
                assert!(!resumes, "{}", client.text());
                ours.finish(&event_loop);
                continue; // there is nothing to come back with
            }
            let Some(mut client) = s_client(&folder, ours.address, version, &["-sess_in", "session.pem"]) else {
                return;
            };
            let (transport, log) = ours.end(&event_loop, 1);
            client.until_says(&event_loop, if resumes { "Reused, TLSv1." } else { "New, TLSv1." });
            assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(resumes), "{version:?}");
            client.type_in("hello\n");
            client.until_says(&event_loop, "hello\n");
            client.end_input();
            event_loop.until(|| log.lost());
            ours.finish(&event_loop);
        }
    }
}

/// Whether a connection goes on, or has ended with an error that says what was wrong.
fn goes_on_or_says_why(log: &Log, program: &Program) -> bool {
    match log.error() {
        Some(error) => {
            assert_eq!(error.kind(), ErrorKind::Ssl, "{error}");
            let text = error.to_string();
            assert!(text.contains("alert") || text.contains("renegotiation"), "{text}");
            true
        }
        None => program.text().contains("after that\n"),
    }
}

fn s_client_must_not_renegotiate(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let ours = Ours::new(&event_loop, &certificates::server());
    let Some(mut client) = s_client(&folder, ours.address, TlsVersion::V1_2, &[]) else { return };
    let (transport, log) = ours.end(&event_loop, 0);
    client.type_in("before\n");
    client.until_says(&event_loop, "before\n");
    client.type_in("R\n");
    client.until_says(&event_loop, "RENEGOTIATING");
    client.type_in("after that\n");
    event_loop.until(|| goes_on_or_says_why(&log, &client));
    if log.lost() {
        client.until_says(&event_loop, "no renegotiation");
    }
    assert_eq!((log.count(&Told::Made), ours.logs.len()), (1, 1));
    transport.abort();
    event_loop.until(|| log.lost());
    ours.finish(&event_loop);
}

fn s_client_updates_its_keys(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let ours = Ours::new(&event_loop, &certificates::server());
    let Some(mut client) = s_client(&folder, ours.address, TlsVersion::V1_3, &[]) else { return };
    let (transport, log) = ours.end(&event_loop, 0);
    // It asks for new keys of ours as well, or has only new ones of its own.
    for (round, letter) in ["K", "k", "K", "K", "k"].into_iter().enumerate() {
        client.type_in(&format!("{letter}\n"));
        client.until_says_times(&event_loop, "KEYUPDATE", round + 1);
        let line = format!("line number {round}\n");
        client.type_in(&line);
        client.until_says(&event_loop, &line);
        transport.write(format!("and number {round} from us\n").as_bytes());
        client.until_says(&event_loop, &format!("and number {round} from us\n"));
    }
    assert!(!transport.is_closing());
    client.end_input();
    event_loop.until(|| log.lost());
    assert_closed_in_order(&log);
    ours.finish(&event_loop);
}

fn s_client_ends_in_every_way(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        for case in 0..4 {
            let ours = Ours::new(&event_loop, &certificates::server());
            let Some(mut client) = s_client(&folder, ours.address, version, &[]) else { return };
            let (transport, log) = ours.end(&event_loop, 0);
            client.type_in("hello\n");
            client.until_says(&event_loop, "hello\n");
            match case {
                0 => client.end_input(),
                1 => client.kill(),
                2 => transport.close(),
                _ => transport.abort(),
            }
            event_loop.until(|| log.lost() && client.has_ended());
            let told = log.joined();
            match case {
                3 => assert_eq!(told, [Told::Made, Told::Data(6), Told::Lost(None)]),
                _ => assert_eq!(told, [Told::Made, Told::Data(6), Told::Eof, Told::Lost(None)], "{version:?}, {case}"),
            }
            // Whoever is killed does not say that it has said all.
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(case == 0 || case == 2), "{version:?}, {case}");
            ours.finish(&event_loop);
        }
    }
}

fn s_client_does_not_trust_us(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let ours = Ours::new(&event_loop, &certificates::server());
        let Some(mut client) = s_client(&folder, ours.address, version, &["-CAfile", "stranger.pem"]) else { return };
        client.until_says(&event_loop, "certificate verify failed");
        event_loop.until(|| client.has_ended() && ours.logs.len() == 1);
        ours.server.close();
        event_loop.run(ours.server.wait_closed());
        assert_eq!(ours.logs.items()[0].items(), [], "{version:?}");
    }
}

/// Accepts while the loop runs.
fn accept(event_loop: &TestLoop, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    event_loop.until(|| {
        accepted = listener.accept().ok().map(|(stream, _)| stream);
        accepted.is_some()
    });
    accepted.unwrap()
}

/// STL-001, with OpenSSL.
fn s_client_begins_in_clear(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for version in VERSIONS {
        let arguments = ["-starttls", "smtp"];
        let address = listener.local_addr().unwrap();
        let Some(mut client) = s_client(&folder, address, version, &arguments) else { return };
        let (log, accepted) = (Log::default(), accept(&event_loop, &listener));
        let opening = event_loop.connect_accepted_socket(|| Recorder::new(&log), accepted);
        let (clear, _) = event_loop.run(opening);
        clear.write(b"220 localhost ESMTP\r\n");
        event_loop.until(|| log.received().starts_with(b"EHLO") && log.received().ends_with(b"\r\n"));
        clear.write(b"250-localhost\r\n250 STARTTLS\r\n");
        event_loop.until(|| log.received().ends_with(b"STARTTLS\r\n"));
        clear.pause_reading();
        clear.write(b"220 Ready to start TLS\r\n");
        let transport = event_loop.run(event_loop.start_tls(&clear, &certificates::server()));
        assert_eq!(transport.get_extra_info(SSL_VERSION), Some(named(version)));
        client.until_says(&event_loop, "Verify return code: 0 (ok)");
        client.type_in("hello\n");
        event_loop.until(|| log.received().ends_with(b"hello\n"));
        transport.write(b"welcome\n");
        client.until_says(&event_loop, "welcome\n");
        client.end_input();
        event_loop.until(|| log.lost());
        assert_closed_in_order(&log);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
    }
}

fn s_server_is_asked(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let Some((mut server, address)) = s_server(&event_loop, &folder, version, &["-naccept", "1"]) else { return };
        let (transport, log) = connect(&event_loop, address, &certificates::client());
        assert_eq!(transport.get_extra_info(SSL_VERSION), Some(named(version)));
        assert!(transport.get_extra_info(PEERCERT).is_some());
        transport.write(b"what is said\n");
        server.until_says(&event_loop, "what is said\n");
        server.type_in("and what is answered\n");
        event_loop.until(|| log.received() == b"and what is answered\n");
        match version {
            // It just goes.
            TlsVersion::V1_2 => server.type_in("Q\n"),
            _ => transport.close(),
        }
        event_loop.until(|| log.lost() && server.has_ended());
        assert_closed_in_order(&log);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(version == TlsVersion::V1_3), "{version:?}");
    }
}

fn s_server_sends_and_gets_a_mebibyte(on: On) {
    let (event_loop, folder, data) = (on.event_loop(), Folder::new(), pattern(MEBIBYTE));
    for version in VERSIONS {
        let path = folder.path(named(version));
        let mut command = openssl(&folder, "s_server", version);
        command.args(["-quiet", "-naccept", "1", "-cert", "chain.pem", "-key", "key.pem", "-unix"]).arg(&path);
        let Some(mut server) = Program::start(&mut command) else { return };
        let log = Log::default();
        let context = certificates::client();
        // As soon as it listens.
        let mut opened = None;
        event_loop.until(|| {
            let opening = event_loop.create_unix_connection(|| Recorder::new(&log), &path).ssl(&context);
            opened = event_loop.run_until_complete(opening.server_hostname("localhost")).ok();
            opened.is_some()
        });
        let (transport, _) = opened.unwrap();
        transport.write(&data);
        event_loop.until(|| server.output().len() >= data.len());
        assert!(server.output() == data, "{version:?}");
        server.feed(data.clone());
        event_loop.until(|| log.received_len() == data.len());
        assert!(log.received() == data);
        transport.close();
        event_loop.until(|| log.lost() && server.has_ended());
        assert_closed_in_order(&log);
    }
}

fn s_server_and_the_protocols_over_tls(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        for (offered, agreed) in [(vec!["other", "echo"], Some("echo")), (vec!["other"], None), (vec![], None)] {
            let Some((_server, address)) = s_server(&event_loop, &folder, version, &["-alpn", "echo,h2"]) else {
                return;
            };
            let context = certificates::client_builder().set_alpn_protocols(&offered).build().unwrap();
            if offered == ["other"] {
                let connecting = event_loop.create_connection(|| Recorder::new(&Log::default()), address).ssl(&context);
                let error = event_loop.fails(connecting.server_hostname("localhost"));
                assert_eq!(error.kind(), ErrorKind::Ssl);
                assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
                continue;
            }
            let (transport, log) = connect(&event_loop, address, &context);
            let known = transport.get_extra_info(ALPN_PROTOCOL).map(|name| String::from_utf8(name).unwrap());
            assert_eq!(known.as_deref(), agreed, "{version:?}");
            transport.close();
            event_loop.until(|| log.lost());
        }
    }
}

fn s_server_is_shown_a_certificate(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let arguments = ["-Verify", "1", "-CAfile", "authority.pem", "-verify_return_error"];
    for version in VERSIONS {
        for shown in ["client", "strange", ""] {
            let Some((server, address)) = s_server(&event_loop, &folder, version, &arguments) else { return };
            let mut builder = certificates::client_builder();
            if !shown.is_empty() {
                let [chain, key] = ["chain", "key"].map(|what| folder.path(&format!("{shown}-{what}.pem")));
                builder = builder.load_cert_chain(chain, key);
            }
            let log = Log::default();
            let context = builder.build().unwrap();
            let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(&context);
            let opened = event_loop.run_until_complete(connecting.server_hostname("localhost"));
            match opened {
                Ok((transport, _)) if shown == "client" => {
                    transport.write(b"hello\n");
                    server.until_says(&event_loop, "hello\n");
                    transport.close();
                    event_loop.until(|| log.lost());
                    assert_closed_in_order(&log);
                }
                // In TLS 1.3 a client has said its last before the server has looked at its certificate.
                Ok(_) => {
                    assert_eq!(version, TlsVersion::V1_3);
                    event_loop.until(|| log.lost());
                    let error = log.error().unwrap();
                    assert_eq!((error.kind(), log.has(&Told::Eof)), (ErrorKind::Ssl, false), "{error}");
                    assert!(error.to_string().contains("alert"), "{error}");
                }
                Err(error) => {
                    assert_eq!((version, error.kind()), (TlsVersion::V1_2, ErrorKind::Ssl), "{error}");
                    assert!(error.to_string().contains("alert") && shown != "client", "{error}");
                    assert_eq!(log.items(), []);
                }
            }
        }
    }
}

fn s_server_resumes_our_session(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        for resumes in [true, false] {
            let Some((mut server, address)) = s_server(&event_loop, &folder, version, &[]) else { return };
            let context = certificates::client_builder().session_resumption(resumes).build().unwrap();
            for round in 0..3 {
                let (transport, log) = connect(&event_loop, address, &context);
                assert_eq!(
                    transport.get_extra_info(SESSION_REUSED),
                    Some(resumes && round > 0),
                    "{version:?}, {round}"
                );
                // What comes back comes behind the ticket.
                server.type_in("hello\n");
                event_loop.until(|| log.received() == b"hello\n");
                transport.close();
                event_loop.until(|| log.lost());
            }
        }
    }
}

fn s_server_must_not_renegotiate(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let Some((mut server, address)) = s_server(&event_loop, &folder, TlsVersion::V1_2, &[]) else { return };
    let (transport, log) = connect(&event_loop, address, &certificates::client());
    transport.write(b"before\n");
    server.until_says(&event_loop, "before\n");
    server.type_in("r\n");
    event_loop.until(|| {
        transport.write(b"after that\n");
        goes_on_or_says_why(&log, &server)
    });
    assert_eq!(log.count(&Told::Made), 1);
    transport.abort();
    event_loop.until(|| log.lost());
}

fn s_server_updates_its_keys(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let Some((mut server, address)) = s_server(&event_loop, &folder, TlsVersion::V1_3, &[]) else { return };
    let (transport, log) = connect(&event_loop, address, &certificates::client());
    for (round, letter) in ["K", "k", "K", "K", "k"].into_iter().enumerate() {
        server.type_in(&format!("{letter}\n"));
        let line = format!("line number {round}\n");
        // What it reads together with the letter it does not send: it is typed in again, then.
        let mut typed: Option<Instant> = None;
        event_loop.until(|| {
            if typed.is_none_or(|typed| typed.elapsed() > Duration::from_millis(300)) {
                server.type_in(&line);
                typed = Some(Instant::now());
            }
            log.received().windows(line.len()).any(|window| window == line.as_bytes())
        });
        transport.write(format!("and number {round} from us\n").as_bytes());
        server.until_says(&event_loop, &format!("and number {round} from us\n"));
    }
    transport.close();
    event_loop.until(|| log.lost());
    assert_closed_in_order(&log);
}

fn s_server_is_not_trusted(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        for (chain, key, name) in
            [("strange-chain.pem", "strange-key.pem", "localhost"), ("chain.pem", "key.pem", "another.test")]
        {
            let Some((server, address)) = s_server(&event_loop, &folder, version, &["-cert", chain, "-key", key])
            else {
                return;
            };
            let log = Log::default();
            let context = certificates::client();
            let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(&context);
            let error = event_loop.fails(connecting.server_hostname(name));
            assert_eq!(error.kind(), ErrorKind::Ssl);
            assert!(error.to_string().contains("certificate verify failed"), "{error}");
            assert_eq!(log.items(), []);
            // It was told why.
            server.until_says(&event_loop, "alert");
        }
    }
}

/// A Python program over a plain socket. `arguments` come after the folder and the version.
fn python(folder: &Folder, program: &str, version: TlsVersion, arguments: &[&str]) -> Option<Program> {
    let version = if version == TlsVersion::V1_2 { "TLSv1_2" } else { "TLSv1_3" };
    let program = format!("import asyncio, socket, ssl, sys\nversion = ssl.TLSVersion['{version}']\n{program}");
    Program::start(Command::new("python3").current_dir(&folder.0).args(["-c", &program]).args(arguments))
}

/// The port that a Python program has printed.
fn port_of(event_loop: &TestLoop, program: &Program) -> SocketAddr {
    let mut port = None;
    let begin = Instant::now();
    event_loop.until(|| {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", program.text());
        port = program.text().split_once('\n').and_then(|(line, _)| line.trim().parse::<u16>().ok());
        port.is_some()
    });
    ([127, 0, 0, 1], port.unwrap()).into()
}

const PYTHON_CLIENT: &str = r"
port, size, end, authority = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = context.maximum_version = version
context.load_verify_locations(authority)
context.load_cert_chain('client-chain.pem', 'client-key.pem')
context.set_alpn_protocols(['other', 'echo'])
session = None
for _ in range(2):
    connection = socket.create_connection(('127.0.0.1', port), 40)
    try:
        tls = context.wrap_socket(connection, server_hostname='localhost', session=session)
    except ssl.SSLError as error:
        print('refused', type(error).__name__)
        break
    data = bytes(index * 7 % 251 for index in range(size))
    sent = received = 0
    answer = b''
    while len(answer) < size:
        if sent < size:
            sent += tls.send(data[sent:sent + 50_000])
        answer += tls.recv(min(sent, size) - len(answer)) if sent > len(answer) else b''
    print(tls.version(), tls.selected_alpn_protocol(), tls.session_reused, answer == data, flush=True)
    session = tls.session
    if end == 'unwrap':
        tls.unwrap().close()
        print('unwrapped', flush=True)
    elif end == 'wait':
        print('rest', tls.recv(1), flush=True)
        tls.close()
    else:
        tls.close()
";

fn python_is_served(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let builder = certificates::localhost().server_builder().set_alpn_protocols(["echo"]);
        let builder = builder.verify_pem(&certificates::authority().pem).verify_mode(VerifyMode::Required);
        let ours = Ours::new(&event_loop, &builder.build().unwrap());
        let port = ours.address.port().to_string();
        let size = MEBIBYTE.to_string();
        let arguments = [&port, &size, "unwrap", "authority.pem"];
        let Some(mut client) = python(&folder, PYTHON_CLIENT, version, &arguments) else { return };
        for number in 0..2 {
            let (transport, log) = ours.end(&event_loop, number);
            event_loop.until(|| log.lost());
            assert_eq!(transport.get_extra_info(SSL_VERSION), Some(named(version)));
            assert_eq!(transport.get_extra_info(ALPN_PROTOCOL).as_deref(), Some(&b"echo"[..]));
            assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(number == 1));
            assert!(transport.get_extra_info(PEERCERT).is_some());
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
            assert_eq!(log.received_len(), MEBIBYTE);
            assert_closed_in_order(&log);
        }
        event_loop.until(|| client.has_ended());
        client.until_says_times(&event_loop, "unwrapped", 2);
        let version = named(version);
        let expected = format!("{version} echo False True\nunwrapped\n{version} echo True True\nunwrapped\n");
        assert_eq!(client.text(), expected);
        ours.finish(&event_loop);
    }
}

const PYTHON_SERVER: &str = r"
size, end, chain, key = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = version
context.load_cert_chain(chain, key)
context.load_verify_locations('authority.pem')
context.verify_mode = ssl.CERT_REQUIRED
context.set_alpn_protocols(['echo', 'other'])
listener = socket.create_server(('127.0.0.1', 0))
listener.settimeout(40)
print(listener.getsockname()[1], flush=True)
for _ in range(2):
    connection, _ = listener.accept()
    connection.settimeout(40)
    try:
        tls = context.wrap_socket(connection, server_side=True)
    except ssl.SSLError as error:
        print('refused', error.reason, flush=True)
        break
    data = b''
    while len(data) < size:
        some = tls.recv(65536)
        data += some
        tls.sendall(some)
    print(tls.version(), tls.selected_alpn_protocol(), tls.session_reused, bool(tls.getpeercert()), flush=True)
    if end == 'unwrap':
        tls.unwrap().close()
        print('unwrapped', flush=True)
    elif end == 'wait':
        print('rest', tls.recv(1), flush=True)
        tls.close()
    else:
        tls.close()
";

/// A client that shows a certificate and offers protocols.
fn showing(folder: &Folder, version: TlsVersion) -> SslContext {
    let builder = of_version(certificates::client_builder(), version).set_alpn_protocols(["echo"]);
    builder.load_cert_chain(folder.path("client-chain.pem"), folder.path("client-key.pem")).build().unwrap()
}

fn python_is_asked(on: On) {
    let (event_loop, folder, data) = (on.event_loop(), Folder::new(), pattern(MEBIBYTE));
    for version in VERSIONS {
        let size = MEBIBYTE.to_string();
        let arguments = [&size, "unwrap", "chain.pem", "key.pem"];
        let Some(mut server) = python(&folder, PYTHON_SERVER, version, &arguments) else { return };
        let address = port_of(&event_loop, &server);
        let context = showing(&folder, version);
        for round in 0..2 {
            let (transport, log) = connect(&event_loop, address, &context);
            assert_eq!(transport.get_extra_info(SESSION_REUSED), Some(round == 1), "{version:?}");
            assert_eq!(transport.get_extra_info(ALPN_PROTOCOL).as_deref(), Some(&b"echo"[..]));
            transport.write(&data);
            event_loop.until(|| log.lost());
            assert!(log.received() == data);
            assert_closed_in_order(&log);
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
            server.until_says_times(&event_loop, "unwrapped", round + 1);
        }
        event_loop.until(|| server.has_ended());
        let version = named(version);
        let expected = format!("{version} echo False True\nunwrapped\n{version} echo True True\nunwrapped\n");
        assert!(server.text().ends_with(&expected), "{}", server.text());
    }
}

fn python_closes_in_every_way(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        for end in ["unwrap", "wait", "drop"] {
            // As the client of a server of ours.
            let ours = Ours::new(&event_loop, &certificates::server());
            let port = ours.address.port().to_string();
            let arguments = [&port, "10", end, "authority.pem"];
            let Some(client) = python(&folder, PYTHON_CLIENT, version, &arguments) else { return };
            for number in 0..2 {
                let (transport, log) = ours.end(&event_loop, number);
                if end == "wait" {
                    client.until_says_times(&event_loop, named(version), number + 1);
                    transport.close();
                    client.until_says_times(&event_loop, "rest b''", number + 1);
                }
                event_loop.until(|| log.lost());
                assert_eq!(
                    log.joined(),
                    [Told::Made, Told::Data(10), Told::Eof, Told::Lost(None)],
                    "{version:?} {end}"
                );
                assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(end == "unwrap"), "{version:?} {end}");
            }
            ours.finish(&event_loop);
            // And as the server of a client of ours.
            let arguments = ["10", end, "chain.pem", "key.pem"];
            let Some(server) = python(&folder, PYTHON_SERVER, version, &arguments) else { return };
            let address = port_of(&event_loop, &server);
            let (transport, log) = connect(&event_loop, address, &showing(&folder, version));
            transport.write(&[7; 10]);
            event_loop.until(|| log.received_len() == 10);
            if end == "wait" {
                transport.close();
                server.until_says(&event_loop, "rest b''");
            }
            event_loop.until(|| log.lost());
            assert_closed_in_order(&log);
            assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(end == "unwrap"), "{version:?} {end}");
        }
    }
}

fn python_does_not_trust_us(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let ours = Ours::new(&event_loop, &certificates::server());
        let port = ours.address.port().to_string();
        let arguments = [&port, "10", "unwrap", "stranger.pem"];
        let Some(mut client) = python(&folder, PYTHON_CLIENT, version, &arguments) else { return };
        client.until_says(&event_loop, "refused SSLCertVerificationError");
        event_loop.until(|| client.has_ended());
        ours.server.close();
        event_loop.run(ours.server.wait_closed());
        assert!(ours.logs.items().iter().all(|log| log.items().is_empty()), "{version:?}");
    }
}

fn python_is_not_trusted(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let arguments = ["10", "unwrap", "strange-chain.pem", "strange-key.pem"];
        let Some(server) = python(&folder, PYTHON_SERVER, version, &arguments) else { return };
        let address = port_of(&event_loop, &server);
        let connecting = event_loop.create_connection(|| Recorder::new(&Log::default()), address);
        let error = event_loop.fails(connecting.ssl(&showing(&folder, version)).server_hostname("localhost"));
        assert_eq!(error.kind(), ErrorKind::Ssl);
        assert!(error.to_string().contains("certificate verify failed"), "{error}");
        server.until_says(&event_loop, "refused");
        server.until_says(&event_loop, "ALERT_UNKNOWN_CA");
    }
}

/// Streams have `start_tls` since Python 3.11.
const PYTHON_STARTS_TLS: &str = r"
if not hasattr(asyncio.StreamWriter, 'start_tls'):
    sys.exit('too old')
side = sys.argv[1]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == 'server' else ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = context.maximum_version = version
if side == 'server':
    context.load_cert_chain('chain.pem', 'key.pem')
else:
    context.load_verify_locations('authority.pem')

async def serve(reader, writer):
    assert await reader.readline() == b'STARTTLS\n'
    writer.write(b'OK\n')
    await writer.start_tls(context)
    line = await reader.readline()
    print('server got', line, writer.get_extra_info('cipher')[1], flush=True)
    writer.write(line)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    print('closed', flush=True)

async def server():
    done = asyncio.Event()
    async def once(reader, writer):
        await serve(reader, writer)
        done.set()
    listening = await asyncio.start_server(once, '127.0.0.1', 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.wait_for(done.wait(), 40)

async def client():
    reader, writer = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))
    writer.write(b'STARTTLS\n')
    assert await reader.readline() == b'OK\n'
    await writer.start_tls(context, server_hostname='localhost')
    writer.write(b'from python\n')
    print('client got', await reader.readline(), writer.get_extra_info('cipher')[1], flush=True)
    writer.close()
    await writer.wait_closed()
    print('closed', flush=True)

asyncio.run(server() if side == 'server' else client())
";

/// Whether this Python is too old, which is said then.
fn is_too_old(event_loop: &TestLoop, program: &mut Program) -> bool {
    event_loop.until(|| !program.output().is_empty() || program.has_ended());
    let too_old = program.text().contains("too old");
    if too_old {
        eprintln!("not tested: python3 is too old to have start_tls in its streams");
    }
    too_old
}

/// STL-001, with CPython.
fn python_clients_begin_in_clear(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for version in VERSIONS {
        let port = listener.local_addr().unwrap().port().to_string();
        let Some(mut client) = python(&folder, PYTHON_STARTS_TLS, version, &["client", &port]) else { return };
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        event_loop.until(|| {
            accepted = listener.accept().ok().map(|(stream, _)| stream);
            accepted.is_some() || client.has_ended()
        });
        let Some(accepted) = accepted else {
            assert!(is_too_old(&event_loop, &mut client), "{}", client.text());
            return;
        };
        let log = Log::default();
        let opening = event_loop.connect_accepted_socket(|| Recorder::new(&log), accepted);
        let (clear, _) = event_loop.run(opening);
        event_loop.until(|| log.received() == b"STARTTLS\n");
        clear.pause_reading();
        clear.write(b"OK\n");
        let transport = event_loop.run(event_loop.start_tls(&clear, &certificates::server()));
        event_loop.until(|| log.received().ends_with(b"from python\n"));
        transport.write(b"from Rust\n");
        client.until_says(&event_loop, &format!("client got b'from Rust\\n' {}", named(version)));
        client.until_says(&event_loop, "closed");
        event_loop.until(|| log.lost());
        assert_closed_in_order(&log);
    }
}

/// STL-001, with CPython.
fn python_servers_begin_in_clear(on: On) {
    let (event_loop, folder) = (on.event_loop(), Folder::new());
    for version in VERSIONS {
        let Some(mut server) = python(&folder, PYTHON_STARTS_TLS, version, &["server"]) else { return };
        if is_too_old(&event_loop, &mut server) {
            return;
        }
        let log = Log::default();
        let address = port_of(&event_loop, &server);
        let (clear, _) = event_loop.run(event_loop.create_connection(|| Recorder::new(&log), address));
        clear.write(b"STARTTLS\n");
        event_loop.until(|| log.received() == b"OK\n");
        let starting = event_loop.start_tls(&clear, &certificates::client()).server_hostname("localhost");
        let task = event_loop.create_task(starting.into_future());
        event_loop.until(|| task.done());
        let transport = event_loop.run(task);
        transport.write(b"from Rust\n");
        server.until_says(&event_loop, &format!("server got b'from Rust\\n' {}", named(version)));
        server.until_says(&event_loop, "closed");
        event_loop.until(|| log.lost());
        assert_eq!(log.received(), b"OK\nfrom Rust\n");
        assert_closed_in_order(&log);
        assert_eq!(transport.get_extra_info(CLOSE_NOTIFY), Some(true));
    }
}
