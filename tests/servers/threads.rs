//! What these tests show: servers in the hands of other threads.

use std::{sync::mpsc::channel, thread, time::Duration};

use asyncio::{ErrorKind, Server};
use futures::executor::block_on;

use crate::{
    NETS, Net, On, Plan, client, has_ended, place, refuses,
    support::{Record, transports::Log},
};

on_each_selector! {
    a_server_is_asked_from_another_thread
    a_server_is_closed_from_another_thread
    clients_are_closed_from_another_thread
    waiting_and_starting_belong_to_the_loop_s_thread
    forever_ends_when_another_thread_closes
    many_threads_close_at_once
    the_last_handle_may_be_dropped_anywhere
    a_handle_outlives_its_loop_in_another_thread
    each_thread_has_its_loop_and_server
}

fn is_send_and_sync<T: Send + Sync>(value: T) -> T {
    value
}

fn a_server_is_asked_from_another_thread(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan::default());
        let asked = is_send_and_sync(server.clone());
        // The other thread is a client, too.
        let other = thread::spawn(move || {
            assert!(asked.is_serving());
            let sockets = is_send_and_sync(asked.sockets());
            assert_eq!(sockets.len(), 1);
            let peer = client(&asked);
            peer.send(b"hello");
            assert_eq!(peer.read_exactly(5), b"hello");
            assert!(sockets[0].with_fd(|_| ()).is_some());
            (format!("{asked:?}"), sockets)
        });
        event_loop.until(|| other.is_finished());
        let (text, sockets) = other.join().unwrap();
        assert_eq!(text, format!("{server:?}"));
        assert_eq!(logs.len(), 1);
        server.close();
        thread::spawn(move || {
            assert!(!server.is_serving() && server.sockets().is_empty());
            assert_eq!(sockets[0].with_fd(|_| ()), None);
        })
        .join()
        .unwrap();
    }
}

fn a_server_is_closed_from_another_thread(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let (place, peer) = (place(&server), client(&server));
        event_loop.until(|| logs.len() == 1);
        let closed = server.clone();
        // The loop sleeps for as long as it likes meanwhile.
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            closed.close();
            closed.close();
            closed.close_clients();
        });
        event_loop.run(server.wait_closed());
        other.join().unwrap();
        assert!(refuses(&place) && has_ended(&peer));
        assert!(!server.is_serving() && server.sockets().is_empty());
        assert!(logs.items()[0].lost());
    }
}

fn clients_are_closed_from_another_thread(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        for aborts in [false, true] {
            let before = logs.len();
            let peers = [client(&server), client(&server)];
            event_loop.until(|| logs.len() == before + 2);
            let asked = server.clone();
            thread::spawn(move || if aborts { asked.abort_clients() } else { asked.close_clients() }).join().unwrap();
            event_loop.until(|| logs.items().iter().all(Log::lost));
            assert!(peers.iter().all(has_ended));
            assert!(server.is_serving());
        }
        server.close();
    }
}

fn waiting_and_starting_belong_to_the_loop_s_thread(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { start_serving: false, ..Plan::default() };
        let (server, _) = net.serve_with(&event_loop, plan, |recorder| recorder);
        let refuse = |server: Server| {
            let errors = [
                block_on(server.start_serving()).unwrap_err(),
                block_on(server.serve_forever()).unwrap_err(),
                block_on(server.wait_closed()).unwrap_err(),
                block_on(server.scope(async |_| Ok(()))).unwrap_err(),
                server.get_loop().unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Runtime, "{error}");
            }
        };
        let asked = server.clone();
        thread::spawn(move || refuse(asked)).join().unwrap();
        // Nor in another thread's loop.
        let asked = server.clone();
        thread::spawn(move || {
            let other = on.event_loop();
            let error = other.fails(asked.serve_forever());
            assert!(matches!(error.kind(), ErrorKind::Runtime | ErrorKind::Value), "{error}");
        })
        .join()
        .unwrap();
        assert!(!server.is_serving());
        assert_eq!(server.sockets().len(), 1);
        event_loop.run(server.start_serving());
        server.close();
    }
}

fn forever_ends_when_another_thread_closes(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        let closed = server.clone();
        let other = thread::spawn(move || closed.close());
        assert!(event_loop.fails(server.serve_forever()).is_cancelled() || !server.is_serving());
        other.join().unwrap();
    }
}

fn many_threads_close_at_once(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let servers: Vec<_> = (0..20).map(|_| net.serve(&event_loop).0).collect();
        let peers: Vec<_> = servers.iter().map(client).collect();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let servers = servers.clone();
                thread::spawn(move || {
                    for server in servers {
                        server.close();
                        server.abort_clients();
                    }
                })
            })
            .collect();
        for server in &servers {
            event_loop.run(server.wait_closed());
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(peers.iter().all(has_ended));
    }
}

fn the_last_handle_may_be_dropped_anywhere(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve(&event_loop);
        let place = place(&server);
        thread::spawn(move || drop(server)).join().unwrap();
        event_loop.ticks(3);
        let _peer = crate::try_connect(&place).unwrap();
        event_loop.until(|| logs.len() == 1);
        // One that nobody can start any more ends.
        let plan = Plan { start_serving: false, ..Plan::default() };
        let (server, _) = net.serve_with(&event_loop, plan, |recorder| recorder);
        let place = crate::place(&server);
        thread::spawn(move || drop(server)).join().unwrap();
        event_loop.until(|| net.socket().bind(&place).is_ok());
    }
}

fn a_handle_outlives_its_loop_in_another_thread(on: On) {
    let (give, given) = channel::<Server>();
    let (gone, is_gone) = channel();
    let other = thread::spawn(move || {
        let server = given.recv().unwrap();
        is_gone.recv().unwrap();
        assert!(!server.is_serving() && server.sockets().is_empty());
        server.close();
        server.close_clients();
        server.abort_clients();
        assert_eq!(block_on(server.start_serving()).unwrap_err().kind(), ErrorKind::Runtime);
        assert_eq!(server.get_loop().unwrap_err().kind(), ErrorKind::Runtime);
    });
    {
        let event_loop = on.event_loop();
        let (server, _) = Net::Tcp.serve(&event_loop);
        give.send(server).unwrap();
    }
    gone.send(()).unwrap();
    other.join().unwrap();
}

fn each_thread_has_its_loop_and_server(on: On) {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let event_loop = on.event_loop();
                let (server, logs): (Server, Record<Log>) = Net::Tcp.serve_echo(&event_loop, Plan::default());
                for round in 0..20 {
                    let peer = client(&server);
                    peer.send(b"hello");
                    event_loop.until(|| logs.len() == round + 1 && logs.items()[round].received_len() == 5);
                    assert_eq!(peer.read_exactly(5), b"hello");
                }
                server.close();
                event_loop.run(server.wait_closed());
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
