//! What these tests show: how servers drain whose connections are encrypted.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{Server, SslContext, Task, TlsVersion, Transport};

use crate::{
    TestLoop,
    certificates::client_builder,
    support::{
        logs,
        loops::On,
        transports::{Log, Peer, Recorder, Told},
    },
    tls_server,
};

on_each_selector! {
    idle_connections_are_closed_in_order
    a_request_is_answered_first
    a_handshake_is_busy
    a_part_of_a_record_is_busy
}

const LONG: Duration = Duration::from_secs(50);

fn drain(event_loop: &TestLoop, server: &Server, deadline: Duration) -> Task<usize> {
    let server = server.clone();
    event_loop.create_task(async move { server.drain(deadline).await })
}

fn client(event_loop: &TestLoop, server: &Server, context: &SslContext) -> (Transport, Log) {
    let (log, address) = (Log::default(), server.sockets()[0].address().as_inet().unwrap());
    let connecting = event_loop.create_connection(|| Recorder::new(&log), address).ssl(context);
    let (transport, _) = event_loop.run(connecting.server_hostname("localhost"));
    (transport, log)
}

/// Of both versions, and resumed, where it is the client that ends the handshake.
fn idle_connections_are_closed_in_order(on: On) {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let event_loop = on.event_loop();
        let context = client_builder().minimum_version(version).maximum_version(version).build().unwrap();
        let served = Log::default();
        let made = served.clone();
        let (server, _) =
            tls_server(&event_loop, move || Recorder::new(&made).on_data(|transport, data| transport.write(data)));
        let (first, first_log) = client(&event_loop, &server, &context);
        first.write(b"hello");
        event_loop.until(|| first_log.received_len() == 5);
        first.close();
        event_loop.until(|| served.lost());
        let clients = [(); 3].map(|()| client(&event_loop, &server, &context));
        assert_eq!(clients[0].0.get_extra_info(asyncio::SESSION_REUSED), Some(true));
        clients[1].0.write(b"hello");
        event_loop.until(|| clients[1].1.received_len() == 5 && served.count(&Told::Made) == 4);
        let (aborted, records) = logs(|| event_loop.run(drain(&event_loop, &server, LONG)));
        assert_eq!((aborted, records), (0, vec![]));
        event_loop.until(|| clients.iter().all(|(_, log)| log.lost()));
        for (transport, log) in clients {
            assert!(log.has(&Told::Eof) && log.has(&Told::Lost(None)), "{:?}", log.items());
            assert_eq!(transport.get_extra_info(asyncio::CLOSE_NOTIFY), Some(true));
        }
    }
}

fn a_request_is_answered_first(on: On) {
    let event_loop = on.event_loop();
    let (served, timers) = (Log::default(), event_loop.event_loop.clone());
    let made = served.clone();
    let (server, _) = tls_server(&event_loop, move || {
        let timers = timers.clone();
        Recorder::new(&made).on_data(move |transport, _| {
            let transport = transport.clone();
            timers.call_later(Duration::from_millis(400), move || transport.write(b"!"));
        })
    });
    let (transport, log) = client(&event_loop, &server, &client_builder().build().unwrap());
    transport.write(b"?");
    event_loop.until(|| served.received_len() == 1);
    assert_eq!(event_loop.run(drain(&event_loop, &server, LONG)), 0);
    event_loop.until(|| log.lost());
    assert_eq!(log.received(), b"!");
    assert!(log.has(&Told::Eof) && log.has(&Told::Lost(None)));
}

fn a_handshake_is_busy(on: On) {
    let event_loop = on.event_loop();
    let (server, address) = tls_server(&event_loop, || Recorder::new(&Log::default()));
    let peer = Peer::new(std::net::TcpStream::connect(address).unwrap());
    event_loop.ticks(3);
    let (aborted, records) = logs(|| event_loop.run(drain(&event_loop, &server, Duration::from_millis(400))));
    assert_eq!((aborted, records.len()), (1, 1), "{records:?}");
    assert!(records[0].1.contains(&peer.0.local_addr().unwrap().as_socket().unwrap().to_string()));
    peer.until_readable();
    assert!(peer.ended());
}

/// Which is the beginning of a request.
fn a_part_of_a_record_is_busy(on: On) {
    let event_loop = on.event_loop();
    let served: Rc<RefCell<Option<Transport>>> = Rc::default();
    let made = served.clone();
    let (server, address) = tls_server(&event_loop, move || {
        let made = made.clone();
        Recorder::new(&Log::default()).on_made(move |transport| *made.borrow_mut() = Some(transport.clone()))
    });
    let peer = Peer::new(std::net::TcpStream::connect(address).unwrap());
    let (end, other) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let log = Log::default();
    // A client of ours whose bytes the test carries.
    let between = Peer::new(other);
    let recorder = Recorder::new(&log);
    let connecting = event_loop.create_connection(|| recorder, ()).sock(end);
    let connecting = connecting.ssl(&client_builder().build().unwrap()).server_hostname("localhost");
    let connecting = event_loop.create_task(async move { connecting.await });
    let carry = || {
        peer.send(&between.drain());
        between.send(&peer.drain());
    };
    event_loop.until(|| {
        carry();
        connecting.done() && served.borrow().is_some()
    });
    let (transport, _) = event_loop.run(connecting);
    event_loop.ticks(3);
    carry();
    transport.write(b"a request");
    let record = between.read_exactly(10);
    peer.send(&record);
    event_loop.ticks(5);
    let (aborted, records) = logs(|| event_loop.run(drain(&event_loop, &server, Duration::from_millis(500))));
    assert_eq!((aborted, records.len()), (1, 1), "{records:?}");
    transport.abort();
    event_loop.until(|| log.lost());
}
