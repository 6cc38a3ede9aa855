//! What these tests show: how servers end: close, their clients, and those who wait for it.

use std::{cell::RefCell, io::Read, rc::Rc, time::Duration};

use asyncio::{ErrorKind, EventLoop, Server, Task};

use crate::{
    NETS, Net, On, Plan, client, has_ended, is_open, lost, place, refuses,
    support::{
        self, Record,
        transports::{Peer, Told},
    },
};

on_each_selector! {
    closing_ends_the_listening_only
    closing_is_waited_for
    waiting_ends_with_the_last_connection
    no_wake_up_is_lost
    clients_are_closed_with_their_server
    what_clients_wrote_is_sent_before_they_close
    clients_are_aborted
    a_server_without_clients_has_none_to_close
    waiting_may_be_given_up
    a_waiter_is_told_in_time
    connections_in_the_backlog_are_refused_by_the_end
    a_server_may_be_closed_by_its_factory
    a_server_may_be_closed_by_a_connection
    a_dropped_server_goes_on
    a_dropped_server_that_never_served_lets_its_socket_go
    descriptors_are_closed
    the_factory_is_dropped_with_the_server
    closing_the_loop_ends_its_servers
    protocols_are_let_go
    a_closed_server_lets_its_loop_go
}

fn waiting(event_loop: &EventLoop, server: &Server) -> Task<()> {
    let server = server.clone();
    event_loop.create_task(async move { server.wait_closed().await })
}

/// SRV-018
fn closing_ends_the_listening_only(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan::default());
        let (place, client) = (place(&server), client(&server));
        event_loop.until(|| logs.len() == 1);
        server.close();
        assert_eq!(server.sockets().len(), 0);
        assert!(!server.is_serving());
        assert!(refuses(&place));
        server.close();
        client.send(b"hello");
        event_loop.until(|| logs.items()[0].received_len() == 5);
        assert_eq!(client.read_exactly(5), b"hello");
        drop(client);
        event_loop.until(|| logs.items()[0].lost());
    }
}

/// SRV-019
fn closing_is_waited_for(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let error = event_loop.fails(asyncio::timeout(Duration::from_millis(20), server.wait_closed()));
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(server.is_serving());
        server.close();
        event_loop.run(server.wait_closed());
    }
}

/// SRV-020
fn waiting_ends_with_the_last_connection(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let mut waits = vec![waiting(&event_loop, &server)];
        event_loop.ticks(2);
        let client = client(&server);
        event_loop.until(|| logs.len() == 1);
        waits.push(waiting(&event_loop, &server));
        event_loop.ticks(2);
        assert!(!waits.iter().any(Task::done));
        server.close();
        waits.push(waiting(&event_loop, &server));
        event_loop.ticks(5);
        assert!(!waits.iter().any(Task::done), "the client is still there");
        drop(client);
        event_loop.until(|| waits.iter().all(Task::done));
        assert!(logs.items()[0].lost());
        for wait in waits {
            event_loop.run(wait);
        }
        let again = waiting(&event_loop, &server);
        event_loop.ticks(1);
        assert!(again.done(), "at once");
    }
}

/// SRV-022
fn no_wake_up_is_lost(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        for server_first in [true, false] {
            let ours = Rc::new(RefCell::new(None));
            let place = ours.clone();
            let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
                let place = place.clone();
                recorder.on_made(move |transport| *place.borrow_mut() = Some(transport.clone()))
            });
            let peer = client(&server);
            event_loop.until(|| ours.borrow().is_some());
            let wait = waiting(&event_loop, &server);
            event_loop.ticks(1);
            let (closed, transport) = (server.clone(), ours.take().unwrap());
            let close_server = move || closed.close();
            let close_client = move || transport.close();
            if server_first {
                event_loop.call_soon(close_server);
                event_loop.call_soon(close_client);
            } else {
                event_loop.call_soon(close_client);
                event_loop.call_soon(close_server);
            }
            event_loop.run(asyncio::timeout(Duration::from_secs(30), wait));
            assert_eq!(logs.items()[0].take(), [Told::Made, lost()]);
            assert!(has_ended(&peer));
        }
        // And where it is the other side that closes.
        let (server, logs) = net.serve(&event_loop);
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        let (wait, closed) = (waiting(&event_loop, &server), server.clone());
        event_loop.call_soon(move || drop(peer));
        event_loop.call_soon(move || closed.close());
        event_loop.run(asyncio::timeout(Duration::from_secs(30), wait));
    }
}

/// SRV-023
fn clients_are_closed_with_their_server(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let ours = Record::default();
        let record = ours.clone();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let record = record.clone();
            recorder.on_made(move |transport| record.push(transport.clone()))
        });
        let clients = [client(&server), client(&server), client(&server)];
        event_loop.until(|| ours.len() == 3);
        let wait = waiting(&event_loop, &server);
        server.close();
        server.close_clients();
        assert!(ours.items().iter().all(|transport| transport.is_closing()));
        event_loop.run(wait);
        event_loop.ticks(2);
        for log in logs.items() {
            assert_eq!(log.take(), [Told::Made, lost()]);
        }
        assert!(clients.iter().all(has_ended));
    }
}

/// More than the system takes at once.
const MUCH: usize = 8_000_000;

fn what_clients_wrote_is_sent_before_they_close(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), |recorder| {
            recorder.on_made(|transport| transport.write(&support::transports::pattern(MUCH)))
        });
        let client = client(&server);
        event_loop.until(|| logs.len() == 1 && logs.items()[0].has(&Told::Made));
        let wait = waiting(&event_loop, &server);
        server.close();
        server.close_clients();
        event_loop.ticks(5);
        assert!(!wait.done() && !logs.items()[0].lost());
        let mut received = Vec::new();
        event_loop.until(|| {
            received.extend(client.drain());
            received.len() == MUCH
        });
        assert!(received == support::transports::pattern(MUCH));
        event_loop.run(wait);
        assert_eq!(logs.items()[0].error().map(|error| error.kind()), None);
    }
}

fn clients_are_aborted(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), |recorder| {
            recorder.on_made(|transport| transport.write(&vec![7; MUCH]))
        });
        let client = client(&server);
        event_loop.until(|| logs.len() == 1 && logs.items()[0].has(&Told::Made));
        let wait = waiting(&event_loop, &server);
        server.abort_clients();
        event_loop.until(|| logs.items()[0].lost());
        event_loop.ticks(2);
        assert!(!wait.done(), "the server still serves");
        let told = logs.items()[0].take();
        assert_eq!(told.last(), Some(&lost()));
        let another = crate::client(&server);
        event_loop.until(|| logs.len() == 2 && logs.items()[1].has(&Told::Made));
        server.close();
        server.abort_clients();
        event_loop.run(wait);
        assert!(logs.items()[1].lost());
        let mut received = 0;
        while let Some(count) = recv(&client) {
            received += count;
        }
        assert!(received < MUCH);
        drop(another);
    }
}

/// How much comes; `None` at the end, whichever it is.
fn recv(client: &Peer) -> Option<usize> {
    client.until_readable();
    match (&client.0).read(&mut vec![0; 1 << 20]) {
        Ok(0) | Err(_) => None,
        Ok(count) => Some(count),
    }
}

fn a_server_without_clients_has_none_to_close(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        server.close_clients();
        server.abort_clients();
        assert!(server.is_serving());
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        // Those of another server are left alone.
        let (other, _) = net.serve(&event_loop);
        other.close();
        other.close_clients();
        other.abort_clients();
        event_loop.ticks(3);
        assert!(!peer.ended());
        server.close();
        drop(peer);
        event_loop.run(server.wait_closed());
        server.close_clients();
        server.abort_clients();
    }
}

fn waiting_may_be_given_up(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        let waits: Vec<_> = (0..6).map(|_| waiting(&event_loop, &server)).collect();
        event_loop.ticks(2);
        for (index, wait) in waits.iter().enumerate() {
            assert!(index % 2 == 0 || wait.cancel());
        }
        server.close();
        event_loop.run(async { Ok(crate::polls(server.wait_closed(), 1).await) });
        drop(peer);
        for (index, wait) in waits.into_iter().enumerate() {
            let outcome = event_loop.run_until_complete(wait);
            assert_eq!(outcome.is_ok(), index % 2 == 0);
            assert!(outcome.is_ok() || outcome.unwrap_err().is_cancelled());
        }
    }
}

/// After connection_lost, and once the descriptor is closed.
fn a_waiter_is_told_in_time(on: On) {
    let event_loop = on.event_loop();
    let numbers = Record::default();
    let record = numbers.clone();
    let (server, logs) = Net::Tcp.serve_with(&event_loop, Plan::default(), move |recorder| {
        let record = record.clone();
        recorder.on_made(move |transport| {
            record.push(transport.get_extra_info(asyncio::PEERNAME).unwrap());
        })
    });
    let peer = client(&server);
    event_loop.until(|| numbers.len() == 1);
    let log = logs.items()[0].clone();
    let (noted, waited) = (log.clone(), server.clone());
    let wait = event_loop.create_task(async move {
        waited.wait_closed().await?;
        noted.note("waited");
        Ok(())
    });
    event_loop.ticks(1);
    server.close();
    server.close_clients();
    event_loop.run(wait);
    assert!(has_ended(&peer));
    assert_eq!(log.take(), [Told::Made, lost(), Told::Note("waited")]);
}

fn connections_in_the_backlog_are_refused_by_the_end(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let peers = [client(&server), client(&server)];
        server.close();
        event_loop.run(server.wait_closed());
        assert!(peers.iter().all(has_ended));
        assert_eq!(logs.len(), 0);
    }
}

fn a_server_may_be_closed_by_its_factory(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let ours: Rc<RefCell<Option<Server>>> = Rc::default();
        let place = ours.clone();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            place.borrow().as_ref().unwrap().close();
            recorder
        });
        *ours.borrow_mut() = Some(server.clone());
        let peers = [client(&server), client(&server)];
        event_loop.until(|| logs.len() == 1);
        event_loop.ticks(3);
        assert_eq!(logs.len(), 1, "the other one was not accepted");
        assert_eq!(logs.items()[0].take(), [Told::Made]);
        assert!(has_ended(&peers[1]));
        server.close_clients();
        event_loop.run(server.wait_closed());
        assert!(has_ended(&peers[0]));
    }
}

fn a_server_may_be_closed_by_a_connection(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let ours: Rc<RefCell<Option<Server>>> = Rc::default();
        let place = ours.clone();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let place = place.clone();
            recorder.on_data(move |_, _| {
                let server = place.borrow().clone().unwrap();
                server.close();
                server.close_clients();
            })
        });
        *ours.borrow_mut() = Some(server.clone());
        let peer = client(&server);
        peer.send(b"stop");
        event_loop.run(server.wait_closed());
        assert_eq!(logs.items()[0].take(), [Told::Made, Told::Data(4), lost()]);
    }
}

fn a_dropped_server_goes_on(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan::default());
        let place = place(&server);
        drop(server);
        event_loop.ticks(3);
        for round in 1..=2 {
            let peer = crate::try_connect(&place).unwrap();
            peer.send(b"hello");
            event_loop.until(|| logs.len() == round && logs.items()[round - 1].received_len() == 5);
            assert_eq!(peer.read_exactly(5), b"hello");
        }
    }
}

fn a_dropped_server_that_never_served_lets_its_socket_go(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { start_serving: false, ..Plan::default() };
        let (server, _) = net.serve_with(&event_loop, plan, |recorder| recorder);
        let (place, clone) = (place(&server), server.clone());
        drop(server);
        event_loop.ticks(1);
        assert_eq!(net.socket().bind(&place).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        drop(clone);
        event_loop.ticks(1);
        net.socket().bind(&place).unwrap();
    }
}

fn descriptors_are_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let bound = net.bound();
        let ours = crate::at_own_number(&bound);
        drop(bound);
        let number = std::os::fd::AsRawFd::as_raw_fd(&ours);
        let server = match net {
            Net::Tcp => event_loop.run(event_loop.create_server(crate::silent, ()).sock(ours)),
            Net::Unix => event_loop.run(event_loop.create_unix_server(crate::silent, ()).sock(ours)),
        };
        assert!(is_open(number));
        // Who is lent it keeps it for so long.
        let socket = server.sockets().remove(0);
        socket.with_fd(|_| {
            server.close();
            assert!(is_open(number));
        });
        assert!(!is_open(number));
    }
}

fn the_factory_is_dropped_with_the_server(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (guard, dropped) = support::drop_guard();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let _ = &guard;
            recorder
        });
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        assert!(!dropped.get());
        server.close();
        assert!(dropped.get(), "nobody will be served any more");
        drop(peer);
        event_loop.run(server.wait_closed());
    }
}

fn closing_the_loop_ends_its_servers(on: On) {
    for net in NETS {
        let event_loop = on.event_loop();
        let (guard, dropped) = support::drop_guard();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let _ = &guard;
            recorder
        });
        let (place, peer) = (place(&server), client(&server));
        event_loop.until(|| logs.len() == 1);
        let waits = waiting(&event_loop, &server);
        event_loop.ticks(1);
        waits.cancel();
        event_loop.ticks(2);
        drop(waits);
        event_loop.close().unwrap();
        assert!(dropped.get());
        assert!(!server.is_serving());
        assert_eq!(server.sockets().len(), 0);
        assert!(refuses(&place) && has_ended(&peer));
        server.close();
        server.close_clients();
        server.abort_clients();
        assert_eq!(format!("{server:?}"), "<Server sockets=[]>");
    }
}

fn protocols_are_let_go(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let kept = Rc::new(());
        let given = kept.clone();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let given = given.clone();
            recorder.on_made(move |_| {
                let _ = &given;
            })
        });
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        event_loop.ticks(2);
        assert_eq!(Rc::strong_count(&kept), 3);
        drop(peer);
        event_loop.until(|| logs.items()[0].lost());
        event_loop.ticks(1);
        assert_eq!(Rc::strong_count(&kept), 2, "only the factory has one");
        server.close();
        assert_eq!(Rc::strong_count(&kept), 1);
    }
}

fn a_closed_server_lets_its_loop_go(on: On) {
    let (guard, dropped) = support::drop_guard();
    let server = {
        let event_loop = on.event_loop();
        let (server, _) = Net::Tcp.serve(&event_loop);
        event_loop.set_exception_handler(Some(Rc::new(move |_, _| {
            let _ = &guard;
        })));
        server.close();
        server
    };
    assert!(dropped.get(), "a handle of a server is not one of its loop");
    assert_eq!(server.get_loop().unwrap_err().kind(), ErrorKind::Runtime);
    assert!(!server.is_serving());
}
