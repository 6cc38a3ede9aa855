//! Handles that outlive what they belong to, loops that close with open transports, and what is let go of when.

use std::{
    cell::{Cell, RefCell},
    os::fd::AsRawFd,
    rc::{Rc, Weak},
};

use asyncio::{ContextVar, Transport};

use crate::{
    LARGE, TestLoop,
    support::{
        logs,
        transports::{Told::*, *},
    },
};

/// Everything that can be called of a transport, when nothing of it is left.
fn call_everything(transport: &Transport) {
    transport.write(b"late");
    transport.try_write(b"late").unwrap();
    transport.writelines(["late"]);
    transport.write_eof().unwrap();
    transport.pause_reading();
    transport.resume_reading();
    transport.set_write_buffer_limits(0, 0).unwrap();
    transport.close();
    transport.abort();
    assert!(transport.is_closing() && !transport.is_reading());
    assert_eq!(transport.get_write_buffer_size(), 0);
    assert!(transport.with_fd(|_| ()).is_none());
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert!(transport.get_extra_info(asyncio::SOCKNAME).is_some());
    assert!(format!("{transport:?}").contains("closed"));
}

/// TCP-004: an open transport belongs to the loop: without any handle it goes on
fn without_handles_it_goes_on(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
    let weak = Rc::downgrade(&protocol);
    drop((transport, protocol));
    event_loop.ticks(3);
    peer.send(b"data");
    until(event_loop, || log.received_len() == 4);
    assert!(weak.upgrade().is_some());
    drop(peer);
    until(event_loop, || log.lost());
    assert_eq!(log.take(), [Made, Data(4), Eof, Lost(None)]);
    // A protocol that keeps its transport is no cycle any more.
    assert!(weak.upgrade().is_none());
}

/// TCP-010: handles outlive the connection and the loop
fn handles_outlive_the_loop(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
    transport.write(&pattern(LARGE));
    event_loop.close().unwrap();
    // Nobody is told: there is no loop that could.
    assert_eq!(log.take(), [Made, Pause]);
    call_everything(&transport);
    assert_eq!(Rc::strong_count(&protocol), 1);
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
    call_everything(&transport);
    assert_eq!(log.take(), []);
}

/// TCP-004: closing the loop lets go of transports in every state, of their protocols and descriptors
fn closing_the_loop_leaves_nothing(event_loop: &TestLoop, kind: PairKind) {
    let states: [fn(&Transport); 6] = [
        |_| {},
        |transport| transport.pause_reading(),
        |transport| transport.write(&pattern(LARGE)),
        |transport| {
            transport.write(&pattern(LARGE));
            transport.close();
        },
        |transport| transport.close(),
        |transport| transport.write_eof().unwrap(),
    ];
    let connections = states.map(|state| (state, connect(event_loop, kind.pair())));
    let mut left: Vec<(Weak<RefCell<Recorder>>, Peer, Log)> = Vec::new();
    for (state, Connected { transport, protocol, peer, log }) in connections {
        state(&transport);
        left.push((Rc::downgrade(&protocol), peer, log));
    }
    event_loop.close().unwrap();
    for (index, (protocol, peer, log)) in left.into_iter().enumerate() {
        assert!(protocol.upgrade().is_none(), "state {index}");
        assert!(!log.lost(), "state {index}");
        // The other side sees the end.
        let (received, _) = peer.collect().join().unwrap();
        assert!(received.len() < LARGE);
    }
}

/// TCP-004: a loop that is dropped without being closed does the same
fn dropping_the_loop_leaves_nothing(event_loop: &TestLoop, kind: PairKind) {
    let (weak, peer, log, transport) = {
        let own = event_loop_like(event_loop);
        let Connected { transport, protocol, peer, log } = connect(&own, kind.pair());
        transport.write(&pattern(LARGE));
        (Rc::downgrade(&protocol), peer, log, transport)
    };
    assert!(weak.upgrade().is_none());
    assert_eq!(log.take(), [Made, Pause]);
    call_everything(&transport);
    assert!(peer.collect().join().unwrap().0.len() < LARGE);
}

/// A loop beside the test's, for tests that drop it.
fn event_loop_like(_event_loop: &TestLoop) -> asyncio::EventLoop {
    asyncio::EventLoop::builder().debug(false).build().unwrap()
}

/// TCP-004: a protocol that is borrowed when the loop closes is let go of as well
fn a_borrowed_protocol_when_the_loop_closes(event_loop: &TestLoop, kind: PairKind) {
    let Connected { transport, protocol, peer: _peer, log } = connect(event_loop, kind.pair());
    let borrowed = protocol.borrow_mut();
    transport.write(&pattern(LARGE));
    transport.abort();
    event_loop.ticks(3);
    event_loop.close().unwrap();
    drop(borrowed);
    assert_eq!(log.take(), [Made]);
    assert_eq!(Rc::strong_count(&protocol), 1);
    call_everything(&transport);
}

/// TCP-004: in debug mode a loop says which transports were left open
fn unclosed_transports_are_named_in_debug_mode(event_loop: &TestLoop, kind: PairKind) {
    let open = connect(event_loop, kind.pair());
    let closed = connect(event_loop, kind.pair());
    event_loop.set_debug(true);
    closed.transport.close();
    let text = format!("{:?}", open.transport);
    let ((), logged) = logs(|| event_loop.close().unwrap());
    let warnings: Vec<_> = logged.into_iter().filter(|(level, _)| *level == tracing::Level::WARN).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].1.contains(&text) && warnings[0].1.contains("ResourceWarning"), "{warnings:?}");
}

/// TCP-004: a hundred connections come and go, and no descriptor stays
fn connections_leave_no_descriptor(event_loop: &TestLoop, kind: PairKind) {
    for round in 0..100 {
        let Connected { transport, protocol, peer, log } = connect(event_loop, kind.pair());
        let weak = Rc::downgrade(&protocol);
        drop(protocol);
        let number = transport.get_extra_info(asyncio::SOCKET).unwrap();
        if round % 2 == 0 {
            transport.close();
        } else {
            peer.half_close();
        }
        until(event_loop, || log.lost());
        assert!(weak.upgrade().is_none());
        assert!(transport.with_fd(|_| ()).is_none());
        // The other side's end is the proof, whoever has the number now.
        peer.until_readable();
        assert!(peer.ended());
        assert_ne!(peer.0.as_raw_fd(), number);
    }
}

/// TCP-004: an opening that is given up leaves no connection, and no protocol that waits for one
fn an_abandoned_opening_closes_the_socket(event_loop: &TestLoop, kind: PairKind) {
    let Pair { ours, peer } = kind.pair();
    let log = Log::default();
    let protocol = Recorder::new(&log);
    let task = {
        let opening = event_loop.create_connection(|| protocol, ()).sock(ours);
        event_loop.create_task(async move { opening.await.map(|_| ()) })
    };
    event_loop.ticks(1);
    task.cancel();
    until(event_loop, || task.done());
    event_loop.ticks(2);
    peer.until_readable();
    assert!(peer.ended());
    let told = log.take();
    assert!(told.is_empty() || told == [Made, Lost(None)], "{told:?}");
}

static WHO: ContextVar<&str> = ContextVar::with_default("who", || "nobody");

/// TCP-001: callbacks run in the context in which the transport was made, and keep what they set there
fn callbacks_keep_their_context(event_loop: &TestLoop, kind: PairKind) {
    let seen = crate::support::Record::default();
    let protocol = {
        let [made, data, eof, pause, lost] = [(); 5].map(|()| seen.clone());
        move |recorder: Recorder| {
            recorder
                .on_made(move |_| {
                    made.push(("made", WHO.get().unwrap()));
                    WHO.set("made");
                })
                .on_data(move |_, _| {
                    data.push(("data", WHO.get().unwrap()));
                    WHO.set("data");
                })
                .on_eof(move |_| {
                    eof.push(("eof", WHO.get().unwrap()));
                    WHO.set("eof");
                    true
                })
                .on_pause(move |_| {
                    pause.push(("pause", WHO.get().unwrap()));
                    WHO.set("pause");
                })
                .on_lost(move |_, _| lost.push(("lost", WHO.get().unwrap())))
        }
    };
    let log = Log::default();
    let Pair { ours, peer } = kind.pair();
    let transport = event_loop
        .run_until_complete(async {
            WHO.set("opener");
            let recorder = protocol(Recorder::new(&log));
            let (transport, _) = event_loop.create_connection(|| recorder, ()).sock(ours).await?;
            assert_eq!(WHO.get()?, "opener");
            Ok(transport)
        })
        .unwrap();
    assert_eq!(WHO.get().unwrap(), "nobody");
    for count in 1..=2 {
        peer.send(b"x");
        until(event_loop, || log.received_len() == count);
    }
    // Also where a call comes from another context, which keeps its own.
    event_loop
        .run_until_complete(async {
            WHO.set("writer");
            transport.write(&pattern(LARGE));
            assert_eq!(WHO.get()?, "writer");
            Ok(())
        })
        .unwrap();
    peer.half_close();
    until(event_loop, || log.has(&Eof));
    transport.abort();
    event_loop.ticks(1);
    let expected =
        [("made", "opener"), ("data", "made"), ("data", "data"), ("pause", "data"), ("eof", "pause"), ("lost", "eof")];
    assert_eq!(seen.take(), expected);
    assert_eq!(WHO.get().unwrap(), "nobody");
}

/// TCP-001: two transports of one opener do not share what they set
fn contexts_of_transports_are_apart(event_loop: &TestLoop, kind: PairKind) {
    let seen = crate::support::Record::default();
    let count = Rc::new(Cell::new(0));
    let connections = ["one", "two"].map(|name| {
        let (seen, count) = (seen.clone(), count.clone());
        connect_with(event_loop, kind.pair(), |recorder| {
            recorder.on_data(move |_, _| {
                seen.push(WHO.get().unwrap());
                WHO.set(name);
                count.set(count.get() + 1);
            })
        })
    });
    for round in 0..2 {
        for (index, connection) in connections.iter().enumerate() {
            connection.peer.send(b"x");
            until(event_loop, || count.get() == 2 * round + index + 1);
        }
    }
    assert_eq!(seen.take(), ["nobody", "nobody", "one", "two"]);
}

on_each! {
    without_handles_it_goes_on
    handles_outlive_the_loop
    closing_the_loop_leaves_nothing
    dropping_the_loop_leaves_nothing
    a_borrowed_protocol_when_the_loop_closes
    unclosed_transports_are_named_in_debug_mode
    connections_leave_no_descriptor
    an_abandoned_opening_closes_the_socket
    callbacks_keep_their_context
    contexts_of_transports_are_apart
}
