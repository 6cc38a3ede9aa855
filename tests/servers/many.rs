//! Many connections: at once, and one after the other.

use asyncio::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Count, NETS, Net, On, Plan, client, descriptors, has_ended, silent,
    support::transports::{Log, Peer},
};

on_each_selector! {
    thousands_are_open_at_once
    clients_of_our_own_are_open_at_once
    what_comes_and_goes_leaves_nothing
    a_long_queue_is_accepted
}

/// Gives this process room for so many descriptors; false if it may not have it.
fn make_room(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        eprintln!("not tested: this process may not have {wanted} descriptors");
        return false;
    }
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
    true
}

/// The "5,000 connections open at once".
fn thousands_are_open_at_once(on: On) {
    const MANY: usize = 5000;
    if !on.in_child() || !make_room(2 * MANY as u64 + 200) {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        let before = descriptors();
        let (echoed, ended) = (Count::default(), Count::default());
        let (echo, end) = (echoed.clone(), ended.clone());
        let (server, logs) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let (echo, end) = (echo.clone(), end.clone());
            recorder
                .on_data(move |transport, data| {
                    transport.write(data);
                    echo.up();
                })
                .on_lost(move |_, _| end.up())
        });
        let mut peers: Vec<Peer> = Vec::new();
        while peers.len() < MANY {
            peers.extend((0..50).map(|_| client(&server)));
            event_loop.until(|| logs.len() == peers.len());
        }
        for round in 1..=2 {
            for (index, peer) in peers.iter().enumerate() {
                peer.send(&(index as u32).to_be_bytes());
            }
            event_loop.until(|| echoed.get() == round * MANY);
            for (index, peer) in peers.iter().enumerate() {
                assert_eq!(peer.read_exactly(4), (index as u32).to_be_bytes());
            }
        }
        assert_eq!(ended.get(), 0);
        // Half of them leave, the others are left.
        drop(peers.split_off(MANY / 2));
        event_loop.until(|| ended.get() == MANY / 2);
        server.close();
        server.close_clients();
        event_loop.run(server.wait_closed());
        assert_eq!(ended.get(), MANY);
        assert!(peers.iter().all(has_ended));
        drop(peers);
        assert_eq!(descriptors(), before);
    }
}

/// Both sides are transports.
fn clients_of_our_own_are_open_at_once(on: On) {
    const MANY: usize = 1000;
    if !on.in_child() || !make_room(2 * MANY as u64 + 200) {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan { backlog: 2000, ..Plan::default() });
        let got = Count::default();
        let open = |server: &Server| {
            let (got, event_loop) = (got.clone(), event_loop.event_loop.clone());
            let address = server.sockets()[0].address().clone();
            event_loop.clone().create_task(async move {
                let protocol = || {
                    silent().on_made(|transport| transport.write(b"x")).on_data(move |transport, _| {
                        got.up();
                        transport.close();
                    })
                };
                match net {
                    Net::Tcp => event_loop.create_connection(protocol, address).await?,
                    Net::Unix => event_loop.create_unix_connection(protocol, address).await?,
                };
                Ok(())
            })
        };
        let tasks: Vec<_> = (0..MANY).map(|_| open(&server)).collect();
        event_loop.until(|| got.get() == MANY);
        event_loop.until(|| logs.len() == MANY && logs.items().iter().all(Log::lost));
        assert!(tasks.iter().all(|task| task.done() && task.exception().unwrap().is_none()));
        server.close();
        event_loop.run(server.wait_closed());
    }
}

fn what_comes_and_goes_leaves_nothing(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        let ended = Count::default();
        let end = ended.clone();
        let (server, _) = net.serve_with(&event_loop, Plan::default(), move |recorder| {
            let end = end.clone();
            recorder.on_lost(move |_, _| end.up())
        });
        let mut before = 0;
        for round in 0..1000 {
            if round == 10 {
                before = descriptors();
            }
            let peer = client(&server);
            match round % 3 {
                0 => drop(peer),
                1 => peer.reset(),
                _ => {
                    event_loop.ticks(2);
                    server.abort_clients();
                    event_loop.ticks(1);
                    drop(peer);
                }
            }
            if round % 10 == 9 {
                event_loop.until(|| ended.get() == round + 1);
                event_loop.ticks(1);
            }
        }
        assert_eq!(descriptors(), before);
        server.close();
    }
}

fn a_long_queue_is_accepted(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan { backlog: 300, ..Plan::default() });
        let peers: Vec<Peer> = (0..300).map(|_| client(&server)).collect();
        peers.iter().for_each(|peer| peer.send(b"hello"));
        event_loop.until(|| logs.items().iter().filter(|log| log.received_len() == 5).count() == 300);
        assert!(peers.iter().all(|peer| peer.read_exactly(5) == b"hello"));
        server.close();
        server.abort_clients();
    }
}
