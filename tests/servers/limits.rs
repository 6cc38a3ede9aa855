//! What these tests show: how much a server takes on: a limit of its own, and the system's.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Count, NETS, Net, On, Plan, TestLoop, client, has_ended, place, refuses,
    support::{
        Record,
        transports::{Log, Peer},
    },
};

on_each_selector! {
    no_more_are_accepted_than_the_limit_allows
    the_limit_is_for_all_sockets_together
    a_full_server_does_not_spin
    connections_that_end_at_once_make_room
    a_limit_of_one_serves_one_after_the_other
    a_full_server_may_be_closed
    the_limit_may_be_reached_before_serving_begins
    without_descriptors_accepting_pauses
    a_pause_that_is_cut_short_leaves_no_timer
    trouble_that_comes_again_is_reported_again
}

fn limited(net: Net, event_loop: &TestLoop, most: usize) -> (Server, Record<Log>) {
    net.serve_echo(event_loop, Plan { max_connections: Some(most), ..Plan::default() })
}

/// Lets a loop run for a little while, in which something must not happen.
fn linger(event_loop: &TestLoop) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(10) {
        event_loop.run_once(Duration::from_millis(1)).unwrap();
    }
}

fn no_more_are_accepted_than_the_limit_allows(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = limited(net, &event_loop, 2);
        let mut peers: Vec<Peer> = (0..5).map(|_| client(&server)).collect();
        peers.iter().for_each(|peer| peer.send(b"hello"));
        event_loop.until(|| logs.items().iter().filter(|log| log.received_len() == 5).count() == 2);
        linger(&event_loop);
        assert_eq!(logs.len(), 2, "the others wait");
        assert!(server.is_serving());
        for round in 1..=3 {
            drop(peers.remove(0));
            event_loop.until(|| logs.len() == 2 + round && logs.items()[1 + round].received_len() == 5);
            linger(&event_loop);
            assert_eq!(logs.len(), 2 + round);
            assert_eq!(peers[1].read_exactly(5), b"hello", "its turn has come");
        }
        server.close();
        server.close_clients();
        event_loop.run(server.wait_closed());
        assert!(peers.iter().all(has_ended));
    }
}

fn the_limit_is_for_all_sockets_together(on: On) {
    let event_loop = on.event_loop();
    let logs = Record::<Log>::default();
    let made = logs.clone();
    let factory = move || {
        let log = Log::default();
        made.push(log.clone());
        crate::Recorder::new(&log)
    };
    let opening = event_loop.create_server(factory, (["127.0.0.1", "127.0.0.2", "127.0.0.3"], 0)).max_connections(2);
    let server = event_loop.run(opening);
    let connect = |index: usize| crate::try_connect(&crate::system_address(server.sockets()[index].address())).unwrap();
    let peers: Vec<Peer> = [0, 1, 2, 0, 1, 2].into_iter().map(connect).collect();
    for count in [2, 4, 6] {
        event_loop.until(|| logs.len() == count);
        linger(&event_loop);
        assert_eq!(logs.len(), count);
        server.close_clients();
    }
    event_loop.until(|| logs.items().iter().all(Log::lost));
    assert!(peers.iter().all(has_ended));
    server.close();
}

fn a_full_server_does_not_spin(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = limited(net, &event_loop, 1);
        let _peers = [client(&server), client(&server), client(&server)];
        event_loop.until(|| logs.len() == 1);
        event_loop.ticks(3);
        // Nothing wakes it although connections wait.
        let begin = Instant::now();
        event_loop.run_once(Duration::from_millis(30)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(29));
        assert_eq!(logs.len(), 1);
        server.close();
        server.abort_clients();
    }
}

fn connections_that_end_at_once_make_room(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { max_connections: Some(1), ..Plan::default() };
        let (server, logs) =
            net.serve_with(&event_loop, plan, |recorder| recorder.on_made(|transport| transport.close()));
        let peers: Vec<Peer> = (0..20).map(|_| client(&server)).collect();
        event_loop.until(|| logs.len() == 20 && logs.items().iter().all(Log::lost));
        assert!(peers.iter().all(has_ended));
        server.close();
    }
}

fn a_limit_of_one_serves_one_after_the_other(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (now, most) = (Count::default(), Record::default());
        let (counted, record) = (now.clone(), most.clone());
        let plan = Plan { max_connections: Some(1), ..Plan::default() };
        let (server, logs) = net.serve_with(&event_loop, plan, move |recorder| {
            let (up, down, record) = (counted.clone(), counted.clone(), record.clone());
            recorder
                .on_made(move |_| {
                    up.up();
                    record.push(up.get());
                })
                .on_data(|transport, data| {
                    transport.write(data);
                    transport.close();
                })
                .on_lost(move |_, _| down.0.set(down.get() - 1))
        });
        let peers: Vec<Peer> = (0..30).map(|_| client(&server)).collect();
        peers.iter().rev().for_each(|peer| peer.send(b"hello"));
        event_loop.until(|| logs.len() == 30 && logs.items().iter().all(Log::lost));
        assert!(peers.iter().all(|peer| peer.read_exactly(5) == b"hello"));
        assert_eq!(most.take(), [1; 30]);
        server.close();
    }
}

fn a_full_server_may_be_closed(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = limited(net, &event_loop, 1);
        let (place, peers) = (place(&server), [client(&server), client(&server)]);
        event_loop.until(|| logs.len() == 1);
        server.close();
        assert!(refuses(&place) && has_ended(&peers[1]) && !peers[0].ended());
        let [first, _] = peers;
        drop(first);
        event_loop.run(server.wait_closed());
        assert_eq!(logs.len(), 1);
    }
}

fn the_limit_may_be_reached_before_serving_begins(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { max_connections: Some(1), start_serving: false, ..Plan::default() };
        let (server, logs) = net.serve_with(&event_loop, plan, |recorder| recorder);
        event_loop.ticks(2);
        event_loop.run(server.start_serving());
        let (first, _second) = (client(&server), client(&server));
        event_loop.until(|| logs.len() == 1);
        event_loop.run(server.start_serving());
        linger(&event_loop);
        assert_eq!(logs.len(), 1);
        drop(first);
        event_loop.until(|| logs.len() == 2);
        server.close();
        server.abort_clients();
    }
}

/// Takes all the descriptors that this process may have.
fn exhaust() -> Vec<File> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: limit.maximum }).unwrap();
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// How often a loop runs, that runs whenever there is a reason to.
fn iterations(event_loop: &TestLoop, time: Duration) -> usize {
    let (begin, mut count) = (Instant::now(), 0);
    while let Some(left) = time.checked_sub(begin.elapsed()) {
        event_loop.run_once(left).unwrap();
        count += 1;
    }
    count
}

/// The second point.
fn without_descriptors_accepting_pauses(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, logs) = net.serve_echo(&event_loop, Plan::default());
        let peers: Vec<Peer> = (0..5).map(|_| client(&server)).collect();
        peers.iter().for_each(|peer| peer.send(b"hello"));
        let mut taken = exhaust();
        // Each second one attempt, which is a timer and an event.
        let count = iterations(&event_loop, Duration::from_millis(1500));
        assert!((2..=20).contains(&count), "{count}");
        let reports = event_loop.reports.take();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].message.contains("out of system resource"), "{:?}", reports[0]);
        let error = reports[0].exception.as_ref().unwrap();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EMFILE)));
        assert!(server.is_serving());
        assert_eq!(logs.len(), 0);
        // Room for two of them.
        taken.truncate(taken.len() - 2);
        let begin = Instant::now();
        event_loop.until(|| logs.items().iter().filter(|log| log.received_len() == 5).count() == 2);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        // And for all.
        drop(taken);
        event_loop.until(|| logs.items().iter().filter(|log| log.received_len() == 5).count() == 5);
        assert!(peers.iter().all(|peer| peer.read_exactly(5) == b"hello"));
        event_loop.reports.take();
        // It is as before.
        let another = client(&server);
        let begin = Instant::now();
        event_loop.until(|| logs.len() == 6);
        assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
        drop((peers, another));
        server.close();
        event_loop.run(server.wait_closed());
    }
}

fn a_pause_that_is_cut_short_leaves_no_timer(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    for net in NETS {
        for closes_loop in [false, true] {
            let event_loop = if closes_loop { &on.event_loop() } else { &event_loop };
            let (server, logs) = net.serve(event_loop);
            let peers = [client(&server), client(&server)];
            let taken = exhaust();
            event_loop.until(|| event_loop.reports.len() == 1);
            event_loop.reports.take();
            assert!(event_loop.next_deadline().is_some());
            drop(taken);
            if closes_loop {
                event_loop.close().unwrap();
            } else {
                server.close();
                event_loop.run(server.wait_closed());
                event_loop.ticks(1);
                assert_eq!(event_loop.next_deadline(), None);
            }
            assert!(peers.iter().all(has_ended));
            assert_eq!(logs.len(), 0);
        }
    }
    // A connection that leaves, or serving that begins again, does not end the pause before its time.
    let (server, logs) = limited(Net::Tcp, &event_loop, 3);
    let first = client(&server);
    event_loop.until(|| logs.len() == 1);
    let second = client(&server);
    let taken = exhaust();
    event_loop.until(|| event_loop.reports.len() == 1);
    let deadline = event_loop.next_deadline();
    drop(first);
    event_loop.run(server.start_serving());
    event_loop.until(|| logs.items()[0].lost());
    assert_eq!(event_loop.next_deadline(), deadline);
    drop(taken);
    event_loop.until(|| logs.len() == 2);
    event_loop.reports.take();
    drop(second);
    server.close();
    server.abort_clients();
}

fn trouble_that_comes_again_is_reported_again(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    let (server, logs) = Net::Tcp.serve(&event_loop);
    let mut peers = Vec::new();
    for round in 1..=2 {
        peers.push(client(&server));
        let taken = exhaust();
        event_loop.until(|| event_loop.reports.len() == 1);
        drop(taken);
        event_loop.until(|| logs.len() == round);
        assert_eq!(event_loop.reports.take().len(), 1);
    }
    server.close();
    server.abort_clients();
}
