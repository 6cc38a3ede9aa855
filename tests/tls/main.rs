//! What these tests show: TLS, on both sides, against ourselves, rustls' own connections, OpenSSL and CPython.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod peers;

mod closing;
mod contexts;
mod drain;
mod endings;
mod failures;
mod flow;
mod handles;
mod handshake;
mod interop;
mod layers;
mod servers;
mod start_tls;
mod streams;

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{Server, StreamProtocol, Transport};
use support::{
    loops::TestLoop,
    transports::{Log, Recorder},
};

/// A server with the usual certificate; each of its connections gets a protocol of the factory's.
fn tls_server<P: StreamProtocol<K>, K: 'static>(
    event_loop: &TestLoop,
    factory: impl FnMut() -> P + 'static,
) -> (Server, SocketAddr) {
    let creating = event_loop.create_server(factory, ("127.0.0.1", 0)).ssl(&certificates::server());
    let server = event_loop.run(creating);
    let address = server.sockets()[0].address().as_inet().unwrap();
    (server, address)
}

/// A client of such a server.
fn tls_client<P: StreamProtocol<K>, K>(
    event_loop: &TestLoop,
    address: SocketAddr,
    factory: impl FnOnce() -> P,
) -> (Transport, Rc<std::cell::RefCell<P>>) {
    let connecting = event_loop.create_connection(factory, address).ssl(&certificates::client());
    event_loop.run(connecting.server_hostname("localhost"))
}

/// A client and the server's end of its connection, both of ours, with a log each. The listener is closed already.
struct Connected {
    client: Transport,
    client_log: Log,
    server: Transport,
    server_log: Log,
}

impl Connected {
    fn new(event_loop: &TestLoop) -> Self {
        Connected::with(event_loop, |recorder| recorder, |recorder| recorder)
    }

    /// With what their protocols do beside recording.
    fn with(
        event_loop: &TestLoop,
        client: impl FnOnce(Recorder) -> Recorder,
        mut server: impl FnMut(Recorder) -> Recorder + 'static,
    ) -> Self {
        let (client_log, server_log) = (Log::default(), Log::default());
        let ends: Rc<std::cell::RefCell<Option<Transport>>> = Rc::default();
        let (log, end) = (server_log.clone(), ends.clone());
        let factory = move || {
            let end = end.clone();
            server(Recorder::new(&log)).on_made(move |transport| *end.borrow_mut() = Some(transport.clone()))
        };
        let (listening, address) = tls_server(event_loop, factory);
        let (client, _) = tls_client(event_loop, address, || client(Recorder::new(&client_log)));
        event_loop.until(|| ends.borrow().is_some());
        listening.close();
        let server = ends.borrow_mut().take().unwrap();
        Connected { client, client_log, server, server_log }
    }
}

impl TestLoop {
    /// The loop must have nothing to do: a wait for the system lasts as long as it may.
    #[track_caller]
    fn sleeps(&self) {
        const WAIT: Duration = Duration::from_millis(20);
        let sleeps = || {
            let begin = Instant::now();
            self.event_loop.run_once(WAIT).unwrap() == 0 && begin.elapsed() >= WAIT
        };
        // What was on its way may come first.
        assert!((0..40).any(|_| sleeps()), "the loop does not come to rest");
    }
}
