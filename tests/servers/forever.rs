//! What these tests show: start_serving, serve_forever in all its ends, and the scope of a server.

use std::time::{Duration, Instant};

use asyncio::{Error, ErrorKind, EventLoop, Result, Server, Task};

use crate::{
    NETS, Net, On, Plan, client, has_ended, lost, place, polls, refuses,
    support::{Record, transports::Told},
    turn, turns_until,
};

on_each_selector! {
    it_serves_and_cannot_be_asked_twice
    a_cancellation_ends_it
    a_cancellation_waits_for_the_connections
    a_second_cancellation_ends_the_wait
    closing_ends_it
    closing_ends_it_when_the_last_connection_has_gone
    dropping_it_closes_the_server
    what_was_never_polled_closes_nothing
    a_time_limit_ends_it
    it_may_end_and_the_program_goes_on
    a_closed_server_starts_no_more
    several_servers_are_served_together
    a_scope_closes_and_waits
    a_scope_gives_what_its_body_gives
    a_scope_whose_body_fails_is_closed
    a_scope_whose_body_panics_is_closed
    a_cancellation_goes_to_the_body
    a_second_cancellation_ends_the_wait_of_a_scope
    a_dropped_scope_is_closed
    it_is_served_in_a_scope
    its_loop_is_the_one_that_made_it
}

fn forever(event_loop: &EventLoop, server: &Server) -> Task<()> {
    let server = server.clone();
    event_loop.create_task(async move { server.serve_forever().await })
}

fn unstarted(net: Net, event_loop: &EventLoop) -> Server {
    net.serve_with(event_loop, Plan { start_serving: false, ..Plan::default() }, |recorder| recorder).0
}

fn is_closed(server: &Server) -> bool {
    !server.is_serving() && server.sockets().is_empty()
}

/// SRV-025
fn it_serves_and_cannot_be_asked_twice(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let server = unstarted(net, &event_loop);
        let task = forever(&event_loop, &server);
        event_loop.ticks(1);
        assert!(server.is_serving());
        for _ in 0..2 {
            let error = event_loop.fails(server.serve_forever());
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().contains("already"), "{error}");
        }
        // The first one is not troubled.
        event_loop.run(server.start_serving());
        assert!(server.is_serving() && !task.done());
        let _client = client(&server);
        server.close();
        assert!(event_loop.fails(task).is_cancelled());
    }
}

/// SRV-026
fn a_cancellation_ends_it(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        for starts in [false, true] {
            let plan = Plan { start_serving: starts, ..Plan::default() };
            let (server, _) = net.serve_with(&event_loop, plan, |recorder| recorder);
            let place = place(&server);
            let task = forever(&event_loop, &server);
            event_loop.ticks(2);
            assert!(task.cancel());
            assert!(event_loop.fails(task).is_cancelled());
            assert!(is_closed(&server) && refuses(&place));
            assert!(event_loop.fails(server.serve_forever()).to_string().contains("closed"));
        }
        // Before its first step: it never began.
        let (server, _) = net.serve(&event_loop);
        let task = forever(&event_loop, &server);
        task.cancel();
        assert!(event_loop.fails(task).is_cancelled());
        assert!(server.is_serving());
        server.close();
    }
}

fn a_cancellation_waits_for_the_connections(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let task = forever(&event_loop, &server);
        let client = client(&server);
        event_loop.until(|| logs.len() == 1);
        task.cancel();
        event_loop.ticks(5);
        assert!(is_closed(&server) && !task.done());
        assert!(!client.ended(), "connections are left alone");
        drop(client);
        assert!(event_loop.fails(task).is_cancelled());
        assert!(logs.items()[0].lost());
    }
}

fn a_second_cancellation_ends_the_wait(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let task = forever(&event_loop, &server);
        let client = client(&server);
        event_loop.until(|| logs.len() == 1);
        task.cancel();
        event_loop.ticks(3);
        assert!(!task.done());
        task.cancel();
        assert!(event_loop.fails(task).is_cancelled());
        assert!(!client.ended() && !logs.items()[0].lost());
        server.abort_clients();
        event_loop.run(server.wait_closed());
    }
}

fn closing_ends_it(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let task = forever(&event_loop, &server);
        event_loop.ticks(1);
        server.close();
        assert!(is_closed(&server));
        assert!(event_loop.fails(task).is_cancelled());
        // The task was not asked to end: it could go on.
        let (server, _) = net.serve(&event_loop);
        let closed = server.clone();
        let went_on = event_loop.create_task(async move {
            assert!(closed.serve_forever().await.unwrap_err().is_cancelled());
            turn().await;
            Ok("went on")
        });
        event_loop.ticks(1);
        server.close();
        assert_eq!(event_loop.run(went_on), "went on");
    }
}

fn closing_ends_it_when_the_last_connection_has_gone(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let task = forever(&event_loop, &server);
        let client = client(&server);
        event_loop.until(|| logs.len() == 1);
        server.close();
        event_loop.ticks(5);
        assert!(!task.done());
        // It is over for good, although a task still waits.
        let error = event_loop.fails(server.serve_forever());
        assert_eq!(error.kind(), ErrorKind::Runtime);
        server.close_clients();
        assert!(event_loop.fails(task).is_cancelled());
        assert!(has_ended(&client));
    }
}

fn dropping_it_closes_the_server(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let (place, client) = (place(&server), client(&server));
        event_loop.until(|| logs.len() == 1);
        assert!(event_loop.run(async { Ok(polls(server.serve_forever(), 1).await) }).is_none());
        assert!(is_closed(&server) && refuses(&place) && !client.ended());
        drop(client);
        event_loop.run(server.wait_closed());
    }
}

fn what_was_never_polled_closes_nothing(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let server = unstarted(net, &event_loop);
        drop(server.serve_forever());
        drop(server.start_serving());
        drop(server.scope(async |_| Ok(())));
        assert!(!server.is_serving());
        assert_eq!(server.sockets().len(), 1);
        event_loop.run(server.start_serving());
        server.close();
    }
}

fn a_time_limit_ends_it(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let error = event_loop.fails(asyncio::timeout(Duration::from_millis(5), server.serve_forever()));
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(is_closed(&server));
    }
}

fn it_may_end_and_the_program_goes_on(on: On) {
    let event_loop = on.event_loop();
    let ended = event_loop.run_until_complete(async {
        let server = event_loop.create_server(crate::silent, ("127.0.0.1", 0)).await?;
        let (stopped, main) = (server.clone(), asyncio::current_task()?.unwrap());
        event_loop.call_later(Duration::from_millis(1), move || main.cancel());
        let ended = server.serve_forever().await;
        assert!(is_closed(&stopped));
        turn().await;
        ended
    });
    assert!(ended.unwrap_err().is_cancelled());
}

/// SRV-029
fn a_closed_server_starts_no_more(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        for has_client in [false, true] {
            let (server, logs) = net.serve(&event_loop);
            let client = has_client.then(|| client(&server));
            event_loop.until(|| logs.len() == usize::from(has_client));
            server.close();
            let error = event_loop.fails(server.serve_forever());
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().contains("closed"), "{error}");
            let error = event_loop.fails(server.start_serving());
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().contains("closed"), "{error}");
            assert!(is_closed(&server));
            drop(client);
            event_loop.run(server.wait_closed());
        }
    }
}

fn several_servers_are_served_together(on: On) {
    let event_loop = on.event_loop();
    let (one, logs) = Net::Tcp.serve(&event_loop);
    let (two, other_logs) = Net::Unix.serve(&event_loop);
    let (first, second) = (one.clone(), two.clone());
    let both = event_loop.create_task(async move {
        asyncio::gather((async move { first.serve_forever().await }, async move { second.serve_forever().await })).await
    });
    let clients = [client(&one), client(&two)];
    event_loop.until(|| logs.len() == 1 && other_logs.len() == 1);
    drop(clients);
    event_loop.until(|| logs.items()[0].lost() && other_logs.items()[0].lost());
    both.cancel();
    assert!(event_loop.fails(both).is_cancelled());
    event_loop.ticks(3);
    assert!(is_closed(&one) && is_closed(&two));
}

/// SRV-030
fn a_scope_closes_and_waits(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        let begin = Instant::now();
        let leaver = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(peer);
        });
        event_loop.run(server.scope(async |server| {
            assert!(server.is_serving());
            assert_eq!(server.get_loop()?, *event_loop);
            Ok(())
        }));
        assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
        assert!(is_closed(&server));
        assert_eq!(logs.items()[0].take(), [Told::Made, Told::Eof, lost()]);
        leaver.join().unwrap();
    }
}

fn a_scope_gives_what_its_body_gives(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let server = unstarted(net, &event_loop);
        let given = event_loop.run(server.scope(async |inner| {
            assert_eq!(inner, &server);
            inner.start_serving().await?;
            turn().await;
            Ok(7)
        }));
        assert_eq!(given, 7);
        assert!(is_closed(&server));
        // The body may close by itself.
        let (server, _) = net.serve(&event_loop);
        event_loop.run(server.scope(async |server| {
            server.close();
            server.wait_closed().await
        }));
        assert_eq!(event_loop.fails(server.scope(async |_| Ok(()))).kind(), ErrorKind::Runtime);
    }
}

fn a_scope_whose_body_fails_is_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        let closed = server.clone();
        let task = event_loop
            .create_task(async move { closed.scope(async |_| Err::<(), _>(Error::Value("wrong".into()))).await });
        event_loop.ticks(3);
        assert!(is_closed(&server) && !task.done(), "it waits for the connections all the same");
        drop(peer);
        assert_eq!(event_loop.fails(task).to_string(), "wrong");
    }
}

fn a_scope_whose_body_panics_is_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let closed = server.clone();
        let scope = async move { closed.scope(async |_| -> Result<()> { panic!("wrong") }).await };
        let error = event_loop.fails(async { event_loop.create_task(scope).await });
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(is_closed(&server));
    }
}

fn a_cancellation_goes_to_the_body(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let (closed, seen) = (server.clone(), Record::default());
        let record = seen.clone();
        let task = event_loop.create_task(async move {
            closed
                .scope(async |server| {
                    let outcome = asyncio::sleep(Duration::from_secs(3600)).await;
                    record.push(if server.is_serving() { "serving" } else { "closed" });
                    outcome
                })
                .await
        });
        event_loop.ticks(2);
        task.cancel();
        assert!(event_loop.fails(task).is_cancelled());
        assert_eq!(seen.take(), ["serving"]);
        assert!(is_closed(&server));
        // A body that swallows it ends well.
        let (server, _) = net.serve(&event_loop);
        let closed = server.clone();
        let task = event_loop.create_task(async move {
            closed
                .scope(async |_| {
                    let _ = asyncio::sleep(Duration::from_secs(3600)).await;
                    asyncio::current_task()?.unwrap().uncancel();
                    Ok(5)
                })
                .await
        });
        event_loop.ticks(2);
        task.cancel();
        assert_eq!(event_loop.run(task), 5);
        assert!(is_closed(&server));
    }
}

fn a_second_cancellation_ends_the_wait_of_a_scope(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        let closed = server.clone();
        let task = event_loop.create_task(async move { closed.scope(async |_| Ok(())).await });
        event_loop.ticks(3);
        assert!(!task.done());
        task.cancel();
        assert!(event_loop.fails(task).is_cancelled());
        assert!(!peer.ended());
        server.abort_clients();
    }
}

fn a_dropped_scope_is_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let scope = server.scope(async |_| {
            turns_until(|| false).await;
            Ok(())
        });
        assert!(event_loop.run(async { Ok(polls(scope, 1).await) }).is_none());
        assert!(is_closed(&server));
    }
}

fn it_is_served_in_a_scope(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let closed = server.clone();
        let task =
            event_loop.create_task(async move { closed.scope(async |server| server.serve_forever().await).await });
        let peer = client(&server);
        event_loop.until(|| logs.len() == 1);
        task.cancel();
        event_loop.ticks(3);
        assert!(!task.done());
        drop(peer);
        assert!(event_loop.fails(task).is_cancelled());
        assert!(is_closed(&server));
    }
}

fn its_loop_is_the_one_that_made_it(on: On) {
    let event_loop = on.event_loop();
    let other = on.event_loop();
    let (server, _) = Net::Tcp.serve(&event_loop);
    assert_eq!(server.get_loop().unwrap(), *event_loop);
    // What waits for it must be in its loop.
    let errors = [
        other.fails(server.serve_forever()),
        other.fails(server.start_serving()),
        other.fails(server.wait_closed()),
        other.fails(server.scope(async |_| Ok(()))),
    ];
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::Value | ErrorKind::Runtime), "{error}");
    }
    assert!(server.is_serving());
    // Closing works from there.
    let closed = server.clone();
    other.run(async {
        closed.close();
        Ok(())
    });
    assert!(!server.is_serving());
}
