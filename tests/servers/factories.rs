//! What these tests show: factories and protocols that fail, and the context that they run in.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use asyncio::{ContextVar, ErrorKind, PEERNAME};

use crate::{
    Count, NETS, Net, On, Plan, client, has_ended, lost, silent,
    support::{
        Record,
        transports::{Log, PairKind, Recorder, Told},
    },
};

on_each_selector! {
    a_factory_that_panics_costs_one_connection
    a_factory_that_panics_counts_for_no_limit
    a_factory_that_panics_fails_the_opening
    a_connection_made_that_panics_is_reported_only
    connections_run_in_a_copy_of_the_server_s_context
    a_connection_runs_in_a_copy_of_its_opener_s_context
    a_factory_may_do_what_it_likes
    the_factory_is_called_before_the_protocol_is_told
}

/// SRV-015
fn a_factory_that_panics_costs_one_connection(on: On) {
    for debug in [false, true] {
        let event_loop = on.event_loop();
        event_loop.set_debug(debug);
        for net in NETS {
            let calls = Count::default();
            let count = calls.clone();
            let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
                count.up();
                assert!(count.get() != 1, "the first one fails");
                recorder.on_data(|transport, data| transport.write(data))
            });
            let first = client(&server);
            event_loop.until(|| calls.get() == 1);
            event_loop.ticks(2);
            assert!(has_ended(&first));
            assert!(server.is_serving());
            let reports = event_loop.reports.take();
            assert_eq!(reports.len(), 1);
            assert!(reports[0].message.contains("transport creation"), "{:?}", reports[0]);
            assert_eq!(reports[0].exception.as_ref().unwrap().kind(), ErrorKind::Panicked);
            let second = client(&server);
            second.send(b"hello");
            event_loop.until(|| logs.len() == 2 && logs.items()[1].received_len() == 5);
            assert_eq!(second.read_exactly(5), b"hello");
            server.close();
            server.close_clients();
            event_loop.run(server.wait_closed());
        }
    }
}

fn a_factory_that_panics_counts_for_no_limit(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let calls = Count::default();
        let count = calls.clone();
        let plan = Plan { max_connections: Some(1), ..Plan::default() };
        let (server, _) = net.serve_with(&event_loop, plan, move |recorder| {
            count.up();
            assert!(count.get() > 3);
            recorder
        });
        let clients: Vec<_> = (0..4).map(|_| client(&server)).collect();
        event_loop.until(|| calls.get() == 4);
        event_loop.ticks(2);
        assert!(clients[..3].iter().all(has_ended));
        assert!(!clients[3].ended());
        assert_eq!(event_loop.reports.take().len(), 3);
        server.close();
        server.close_clients();
    }
    // Closed and then panicking, too.
    let place: Rc<RefCell<Option<asyncio::Server>>> = Rc::default();
    let ours = place.clone();
    let (server, _) = Net::Tcp.serve_with(&event_loop, Plan::default(), move |_| {
        ours.borrow().as_ref().unwrap().close();
        panic!("after the end");
    });
    *place.borrow_mut() = Some(server.clone());
    let peer = client(&server);
    event_loop.run(server.wait_closed());
    assert!(has_ended(&peer));
    assert_eq!(event_loop.reports.take().len(), 1);
    place.take();
}

fn a_factory_that_panics_fails_the_opening(on: On) {
    fn wrong() -> Recorder {
        panic!("no protocol")
    }
    let event_loop = on.event_loop();
    for index in 0..3 {
        for in_task in [false, true] {
            let pair = PairKind::Unix.pair();
            let opening = match index {
                0 => IntoFuture::into_future(event_loop.create_connection(wrong, ()).sock(pair.ours)),
                1 => IntoFuture::into_future(event_loop.create_unix_connection(wrong, ()).sock(pair.ours)),
                _ => IntoFuture::into_future(event_loop.connect_accepted_socket(wrong, pair.ours)),
            };
            if in_task {
                let error = event_loop.fails(async { event_loop.create_task(opening).await });
                assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "no protocol".into()));
            } else {
                let main = AssertUnwindSafe(|| event_loop.run_until_complete(opening).map(drop));
                match catch_unwind(main) {
                    Err(payload) => assert_eq!(payload.downcast_ref::<&str>(), Some(&"no protocol")),
                    Ok(ended) => assert_eq!(ended.unwrap_err().kind(), ErrorKind::Panicked),
                }
            }
            assert!(has_ended(&pair.peer));
        }
    }
    // With an address, and a listener that sees the end of it.
    let (listener, address) = crate::listener();
    let opening = event_loop.create_connection(wrong, address);
    let error = event_loop.fails(async { event_loop.create_task(opening).await });
    assert_eq!(error.kind(), ErrorKind::Panicked);
    let peer = crate::Peer::new(listener.accept().unwrap().0);
    assert!(has_ended(&peer));
}

fn a_connection_made_that_panics_is_reported_only(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), |recorder| {
            recorder.on_made(|_| panic!("in connection_made")).on_data(|transport, data| transport.write(data))
        });
        let peer = client(&server);
        peer.send(b"hello");
        event_loop.until(|| logs.len() == 1 && logs.items()[0].received_len() == 5);
        assert_eq!(peer.read_exactly(5), b"hello");
        let reports = event_loop.reports.take();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].message.contains("connection_made"), "{:?}", reports[0]);
        server.close();
        server.close_clients();
        event_loop.run(server.wait_closed());
        assert_eq!(logs.items()[0].joined(), [Told::Made, Told::Data(5), lost()]);
    }
}

fn connections_run_in_a_copy_of_the_server_s_context(on: On) {
    static PLACE: std::sync::LazyLock<ContextVar<u32>> = std::sync::LazyLock::new(|| ContextVar::new("place"));
    let event_loop = on.event_loop();
    for net in NETS {
        let seen = Record::default();
        let record = seen.clone();
        let get = || PLACE.get().ok();
        let make = move |recorder: Recorder| {
            let (made, data) = (record.clone(), record.clone());
            record.push(("factory", get()));
            recorder
                .on_made(move |_| {
                    made.push(("made", get()));
                    PLACE.set(7);
                })
                .on_data(move |_, _| data.push(("data", get())))
        };
        let context = asyncio::copy_context();
        let (server, _) = context
            .run(|| {
                PLACE.set(3);
                net.serve_with(&event_loop, Plan::default(), make)
            })
            .unwrap();
        assert_eq!(get(), None);
        for _ in 0..2 {
            let peer = client(&server);
            peer.send(b"x");
            event_loop.until(|| seen.len() == 3);
            assert_eq!(seen.take(), [("factory", Some(3)), ("made", Some(3)), ("data", Some(7))], "{net:?}");
        }
        server.close();
        server.abort_clients();
    }
}

fn a_connection_runs_in_a_copy_of_its_opener_s_context(on: On) {
    static PLACE: std::sync::LazyLock<ContextVar<u32>> = std::sync::LazyLock::new(|| ContextVar::new("opener"));
    let event_loop = on.event_loop();
    let (pair, seen) = (PairKind::Tcp.pair(), Record::default());
    let record = seen.clone();
    let task = event_loop.create_task({
        let event_loop = event_loop.event_loop.clone();
        async move {
            PLACE.set(5);
            let record = record.clone();
            let made = record.clone();
            let factory = move || {
                silent()
                    .on_made(move |_| {
                        made.push(PLACE.get().ok());
                        PLACE.set(6);
                    })
                    .on_data(move |_, _| record.push(PLACE.get().ok()))
            };
            event_loop.create_connection(factory, ()).sock(pair.ours).await?;
            PLACE.get()
        }
    });
    assert_eq!(event_loop.run(task), 5);
    pair.peer.send(b"x");
    event_loop.until(|| seen.len() == 2);
    assert_eq!(seen.take(), [Some(5), Some(6)]);
}

fn a_factory_may_do_what_it_likes(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (done, inner) = (Record::default(), event_loop.event_loop.clone());
        let record = done.clone();
        let (server, _) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let record = record.clone();
            // A server and a task more for each connection.
            let event_loop = inner.clone();
            let task = inner.create_task(async move {
                let server = event_loop.create_server(silent, ("127.0.0.1", 0)).await?;
                record.push(server.sockets().len());
                server.close();
                server.wait_closed().await
            });
            drop(task);
            recorder
        });
        let _clients = [client(&server), client(&server)];
        event_loop.until(|| done.len() == 2);
        server.close();
        server.close_clients();
        event_loop.run(server.wait_closed());
    }
}

fn the_factory_is_called_before_the_protocol_is_told(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let log = Log::default();
        let logged = log.clone();
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            logged.note("factory");
            let logged = logged.clone();
            recorder.on_made(move |transport| {
                assert!(transport.get_extra_info(PEERNAME).is_some());
                logged.note("made");
            })
        });
        let peer = client(&server);
        peer.send(b"hello");
        event_loop.until(|| logs.len() == 1 && logs.items()[0].received_len() == 5);
        assert_eq!(log.take(), [Told::Note("factory"), Told::Note("made")]);
        assert_eq!(logs.items()[0].take(), [Told::Made, Told::Data(5)]);
        server.close();
        server.abort_clients();
    }
}
