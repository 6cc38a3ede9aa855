//! What these tests show: how servers drain: who is closed at once, who may finish, and who is cut off and named.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, EventLoop, Server, StreamReader, StreamWriter, Task, Transport, VirtualClock};
use tracing::Level;

use crate::{
    NETS, Net, On, Plan, client, has_ended, lost, place, refuses,
    support::{
        Record, logs,
        loops::TestLoop,
        transports::{Peer, Told, pattern},
    },
    until_queued,
};

on_each_selector! {
    idle_connections_are_closed_and_new_ones_refused
    busy_connections_finish_and_are_closed_then
    the_deadline_ends_the_rest_and_names_it
    idle_connections_are_not_named_at_a_deadline_that_comes_before_the_second_look
    what_moves_is_not_idle
    what_is_written_late_is_sent
    a_paused_protocol_is_busy
    a_half_closed_client_gets_its_answer
    connections_of_the_backlog_are_served
    a_second_drain_forces
    aborting_the_clients_forces
    the_first_of_two_deadlines_counts
    what_is_left_of_a_closed_server_is_drained
    a_server_that_has_ended_has_nothing_to_drain
    a_server_that_never_served_is_drained
    a_drain_may_be_given_up
    serving_for_ever_ends_with_the_drain
    connections_that_end_by_themselves_end_the_drain
    another_thread_may_not_drain
    a_drain_without_end_waits_for_the_last_one
    a_stream_that_waits_for_a_request_is_idle
    a_stream_whose_coroutine_is_at_work_is_busy
}

const LONG: Duration = Duration::from_secs(3600);
/// What it takes to see that a connection is idle.
const TWO_LOOKS: Duration = Duration::from_millis(200);

/// A loop whose clock goes on step by step, with the other sides of its connections in between.
struct Timed {
    event_loop: TestLoop,
    clock: VirtualClock,
}

impl Timed {
    const STEP: Duration = Duration::from_millis(10);

    fn new(on: On) -> Self {
        let (event_loop, clock) = on.virtual_loop();
        Timed { event_loop, clock }
    }

    fn step(&self) {
        self.clock.advance(Self::STEP);
        self.event_loop.ticks(4);
    }

    /// Lets this time pass.
    fn pass(&self, time: Duration) {
        let end = self.event_loop.time() + time;
        while self.event_loop.time() < end {
            self.step();
        }
    }

    /// Lets time pass until the task is done.
    fn until_done<T: 'static>(&self, task: &Task<T>) {
        while !task.done() {
            self.step();
        }
    }

    fn run<T: 'static>(&self, task: Task<T>) -> T {
        self.until_done(&task);
        self.event_loop.run(task)
    }

    /// Whether it is so late, as far as the steps tell.
    fn is_at(&self, time: Instant) -> bool {
        self.event_loop.time() >= time && self.event_loop.time() <= time + 3 * Self::STEP
    }
}

fn drain(event_loop: &EventLoop, server: &Server, deadline: Duration) -> Task<usize> {
    let server = server.clone();
    event_loop.create_task(async move { server.drain(deadline).await })
}

/// A server that answers each "?" with "!" when `delay` has passed, and its connections.
fn slow(net: Net, event_loop: &EventLoop, delay: Duration) -> (Server, Record<Transport>) {
    let transports = Record::default();
    let (made, timers) = (transports.clone(), event_loop.clone());
    let (server, _) = net.serve_with(event_loop, Plan::default(), move |recorder| {
        let (made, timers) = (made.clone(), timers.clone());
        recorder.on_made(move |transport| made.push(transport.clone())).on_data(move |transport, data| {
            assert!(data.iter().all(|byte| *byte == b'?'));
            let transport = transport.clone();
            timers.call_later(delay, move || transport.write(b"!"));
        })
    });
    (server, transports)
}

/// Who is connected there.
fn name(peer: &Peer) -> String {
    peer.0
        .local_addr()
        .unwrap()
        .as_socket()
        .map_or_else(|| "an unnamed peer at @".into(), |address| address.to_string())
}

fn idle_connections_are_closed_and_new_ones_refused(on: On) {
    for net in NETS {
        let event_loop = on.event_loop();
        let (server, told) = net.serve_echo(&event_loop, Plan::default());
        let (fresh, answered) = (client(&server), client(&server));
        answered.send(b"hello");
        event_loop.until(|| told.len() == 2 && told.items().iter().any(|log| log.received_len() == 5));
        assert_eq!(answered.read_exactly(5), b"hello");
        let (place, begin) = (place(&server), Instant::now());
        let (_, records) = logs(|| {
            let draining = drain(&event_loop, &server, LONG);
            event_loop.ticks(1);
            assert!(refuses(&place) && !server.is_serving() && server.sockets().is_empty());
            assert_eq!(event_loop.run(draining), 0);
        });
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(has_ended(&fresh) && has_ended(&answered));
        assert!(told.items().iter().all(|log| log.items().last() == Some(&lost())));
        assert_eq!(records, []);
        event_loop.run(server.wait_closed());
    }
}

fn busy_connections_finish_and_are_closed_then(on: On) {
    for net in NETS {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let (server, transports) = slow(net, event_loop, Duration::from_secs(3));
        let (idle, busy) = (client(&server), client(&server));
        busy.send(b"?");
        event_loop.until(|| transports.len() == 2);
        event_loop.ticks(3);
        let begin = event_loop.time();
        let draining = drain(event_loop, &server, LONG);
        timed.pass(TWO_LOOKS);
        assert!(has_ended(&idle));
        assert!(!draining.done() && !busy.ended());
        let (aborted, records) = logs(|| timed.run(draining));
        let taken = event_loop.time() - begin;
        assert_eq!(aborted, 0);
        assert!(taken < Duration::from_secs(3) + 2 * TWO_LOOKS, "{taken:?}");
        assert_eq!(busy.read_exactly(1), b"!");
        assert!(has_ended(&busy));
        assert_eq!(records, []);
    }
}

fn the_deadline_ends_the_rest_and_names_it(on: On) {
    for net in NETS {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let log = Record::default();
        let made = log.clone();
        let (server, told) = net.serve_with(event_loop, Plan::default(), move |recorder| {
            let made = made.clone();
            recorder.on_made(move |transport| made.push(transport.clone()))
        });
        // One that is not answered, one that does not take its answer, one that is idle.
        let [unanswered, unsent, idle] = [(); 3].map(|()| {
            let (peer, before) = (client(&server), log.len());
            event_loop.until(|| log.len() > before);
            peer
        });
        unanswered.send(b"?");
        event_loop.until(|| told.items()[0].received_len() == 1);
        log.items()[1].write(&pattern(32 << 20));
        let size = log.items()[1].get_write_buffer_size();
        assert!(size > 0);
        let deadline = event_loop.time() + Duration::from_secs(5);
        let (aborted, records) = logs(|| timed.run(drain(event_loop, &server, Duration::from_secs(5))));
        assert!(timed.is_at(deadline));
        assert_eq!(aborted, 2);
        assert_eq!(records.len(), 2, "{records:?}");
        for (peer, left) in [(&unanswered, 0), (&unsent, size)] {
            let is_it = |text: &str| text.contains(&name(peer)) && text.contains(&format!("with {left} bytes unsent"));
            assert_eq!(records.iter().filter(|(level, text)| *level == Level::WARN && is_it(text)).count(), 1);
        }
        assert!(has_ended(&unanswered) && has_ended(&idle));
        assert!(told.items().iter().all(|log| log.items().last() == Some(&lost())));
    }
}

fn idle_connections_are_not_named_at_a_deadline_that_comes_before_the_second_look(on: On) {
    for deadline in [Duration::ZERO, Duration::from_millis(50)] {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let (server, told) = Net::Tcp.serve(event_loop);
        let peer = client(&server);
        event_loop.until(|| told.len() == 1);
        let (aborted, records) = logs(|| timed.run(drain(event_loop, &server, deadline)));
        assert_eq!((aborted, records.len()), (0, 0));
        assert!(has_ended(&peer));
        assert_eq!(told.items()[0].take(), [Told::Made, lost()]);
    }
}

fn what_moves_is_not_idle(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let (server, told) = Net::Tcp.serve_echo(event_loop, Plan::default());
    let peer = Rc::new(client(&server));
    event_loop.until(|| told.len() == 1);
    let (talks, pause) = (peer.clone(), event_loop.event_loop.clone());
    let talking = event_loop.create_task(async move {
        for _ in 0..50 {
            talks.send(b"again");
            asyncio::sleep(Duration::from_millis(70)).await?;
        }
        Ok(pause.time())
    });
    let draining = drain(event_loop, &server, LONG);
    let end = timed.run(talking);
    assert!(!draining.done());
    assert_eq!(timed.run(draining), 0);
    assert!(event_loop.time() - end <= 2 * TWO_LOOKS);
    assert_eq!(peer.read_exactly(250), b"again".repeat(50));
    assert!(has_ended(&peer));
}

/// The client takes it slowly, and gets all of it.
fn what_is_written_late_is_sent(on: On) {
    for net in NETS {
        let event_loop = on.event_loop();
        let (server, told) = net.serve_with(&event_loop, Plan::default(), |recorder| {
            recorder.on_data(|transport, _| transport.write(&pattern(16 << 20)))
        });
        let peer = client(&server);
        peer.send(b"?");
        event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
        let draining = drain(&event_loop, &server, LONG);
        event_loop.run(asyncio::sleep(3 * TWO_LOOKS));
        assert!(!draining.done(), "something waits to be written");
        let collected = peer.collect();
        assert_eq!(event_loop.run(draining), 0);
        assert!(collected.join().unwrap().0 == pattern(16 << 20));
    }
}

/// So it says that it is at work where its answer comes in pieces.
fn a_paused_protocol_is_busy(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let timers = event_loop.event_loop.clone();
    let (server, told) = Net::Tcp.serve_with(event_loop, Plan::default(), move |recorder| {
        let timers = timers.clone();
        recorder.on_data(move |transport, _| {
            transport.pause_reading();
            transport.write(b"working");
            let transport = transport.clone();
            timers.call_later(Duration::from_secs(5), move || {
                transport.write(b" done");
                transport.resume_reading();
            });
        })
    });
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
    assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
    assert_eq!(peer.read_exactly(12), b"working done");
    assert!(has_ended(&peer));
}

fn a_half_closed_client_gets_its_answer(on: On) {
    for net in NETS {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let timers = event_loop.event_loop.clone();
        let (server, told) = net.serve_with(event_loop, Plan::default(), move |recorder| {
            let timers = timers.clone();
            recorder.keep_open().on_data(move |transport, _| {
                let transport = transport.clone();
                timers.call_later(Duration::from_secs(1), move || transport.write(b"!"));
            })
        });
        let peer = client(&server);
        peer.send(b"?");
        peer.half_close();
        event_loop.until(|| told.len() == 1 && told.items()[0].has(&Told::Eof));
        assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
        assert_eq!(peer.read_exactly(1), b"!");
        assert!(has_ended(&peer));
    }
}

/// They were connected before, as far as their clients know.
fn connections_of_the_backlog_are_served(on: On) {
    for net in NETS {
        let event_loop = on.event_loop();
        let (server, told) = net.serve_echo(&event_loop, Plan::default());
        let place = place(&server);
        let peers = [(); 5].map(|()| client(&server));
        until_queued(&place, 5);
        peers.iter().for_each(|peer| peer.send(b"hello"));
        assert_eq!(told.len(), 0);
        assert_eq!(event_loop.run(server.drain(LONG)), 0);
        for peer in peers {
            assert_eq!(peer.read_exactly(5), b"hello");
            assert!(has_ended(&peer));
        }
        assert!(refuses(&place));
    }
}

fn a_second_drain_forces(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let (server, transports) = slow(Net::Tcp, event_loop, Duration::from_secs(20));
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| transports.len() == 1);
    event_loop.ticks(2);
    let (first, begin) = (drain(event_loop, &server, LONG), event_loop.time());
    timed.pass(Duration::from_secs(1));
    assert!(!first.done());
    let (second, records) = logs(|| timed.run(drain(event_loop, &server, Duration::ZERO)));
    assert_eq!(second, 1);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(timed.run(first), 0);
    assert!(timed.is_at(begin + Duration::from_secs(1)));
    assert!(has_ended(&peer));
    timed.pass(Duration::from_secs(30)); // what answers it comes too late
}

fn aborting_the_clients_forces(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let (server, told) = Net::Tcp.serve(event_loop);
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
    let begin = event_loop.time();
    let draining = drain(event_loop, &server, LONG);
    timed.pass(Duration::from_secs(1));
    let (aborted, records) = logs(|| {
        server.abort_clients();
        timed.run(draining)
    });
    assert_eq!((aborted, records.len()), (0, 0), "the program did it");
    assert!(timed.is_at(begin + Duration::from_secs(1)));
    assert!(has_ended(&peer));
}

fn the_first_of_two_deadlines_counts(on: On) {
    for first_is_sooner in [true, false] {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let (server, told) = Net::Unix.serve(event_loop);
        let peer = client(&server);
        peer.send(b"?");
        event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
        let begin = event_loop.time();
        let (soon, late) = (Duration::from_secs(2), Duration::from_secs(9));
        let deadlines = if first_is_sooner { [soon, late] } else { [late, soon] };
        let (aborted, records) = logs(|| {
            let [one, two] = deadlines.map(|deadline| drain(event_loop, &server, deadline));
            [timed.run(one), timed.run(two)]
        });
        assert_eq!(aborted, if first_is_sooner { [1, 0] } else { [0, 1] });
        assert_eq!(records.len(), 1, "named once: {records:?}");
        assert!(timed.is_at(begin + soon));
        assert!(has_ended(&peer));
    }
}

fn what_is_left_of_a_closed_server_is_drained(on: On) {
    for net in NETS {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let (server, transports) = slow(net, event_loop, Duration::from_secs(2));
        let (idle, busy) = (client(&server), client(&server));
        busy.send(b"?");
        event_loop.until(|| transports.len() == 2);
        event_loop.ticks(2);
        server.close();
        assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
        assert_eq!(busy.read_exactly(1), b"!");
        assert!(has_ended(&busy) && has_ended(&idle));
    }
}

fn a_server_that_has_ended_has_nothing_to_drain(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let (server, _) = net.serve(&event_loop);
        server.close();
        event_loop.ticks(1);
        assert_eq!(event_loop.run(server.drain(LONG)), 0);
        let (server, _) = net.serve(&event_loop);
        assert_eq!(event_loop.run(server.drain(Duration::ZERO)), 0);
        assert_eq!(event_loop.run(server.drain(Duration::MAX)), 0);
    }
}

fn a_server_that_never_served_is_drained(on: On) {
    let event_loop = on.event_loop();
    for net in NETS {
        let plan = Plan { start_serving: false, ..Plan::default() };
        let (server, _) = net.serve_with(&event_loop, plan, |recorder| recorder);
        assert_eq!(event_loop.run(server.drain(LONG)), 0);
        assert!(!server.is_serving() && server.sockets().is_empty());
        assert_eq!(event_loop.fails(server.start_serving()).kind(), ErrorKind::Runtime);
    }
}

fn a_drain_may_be_given_up(on: On) {
    for cancels in [true, false] {
        let timed = Timed::new(on);
        let event_loop = &timed.event_loop;
        let (server, transports) = slow(Net::Tcp, event_loop, Duration::from_secs(2));
        let (idle, busy) = (client(&server), client(&server));
        busy.send(b"?");
        event_loop.until(|| transports.len() == 2);
        event_loop.ticks(2);
        if cancels {
            let draining = drain(event_loop, &server, LONG);
            event_loop.ticks(2);
            assert!(draining.cancel());
            assert!(event_loop.fails(draining).is_cancelled());
        } else {
            let draining = crate::polls(server.drain(LONG), 1);
            assert!(event_loop.run(async { Ok(draining.await) }).is_none());
        }
        assert!(!server.is_serving());
        timed.pass(Duration::from_secs(60));
        assert_eq!(transports.items().iter().filter(|transport| transport.is_closing()).count(), 0);
        assert_eq!(busy.read_exactly(1), b"!");
        assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
        assert!(has_ended(&busy) && has_ended(&idle));
    }
}

fn serving_for_ever_ends_with_the_drain(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let (server, transports) = slow(Net::Tcp, event_loop, Duration::from_secs(2));
    let same = server.clone();
    let serving = event_loop.create_task(async move { same.serve_forever().await });
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| transports.len() == 1);
    event_loop.ticks(2);
    let draining = drain(event_loop, &server, LONG);
    timed.pass(Duration::from_secs(1));
    assert!(!serving.done(), "it waits for the connection");
    timed.until_done(&serving);
    assert!(event_loop.fails(serving).is_cancelled());
    assert_eq!(timed.run(draining), 0);
    assert_eq!(peer.read_exactly(1), b"!");
}

fn connections_that_end_by_themselves_end_the_drain(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let timers = event_loop.event_loop.clone();
    let (server, told) = Net::Tcp.serve_with(event_loop, Plan::default(), move |recorder| {
        let timers = timers.clone();
        recorder.on_data(move |transport, _| {
            let transport = transport.clone();
            timers.call_later(Duration::from_millis(1250), move || {
                transport.write(b"bye");
                transport.close();
            });
        })
    });
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
    let begin = event_loop.time();
    assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
    assert!(timed.is_at(begin + Duration::from_millis(1250)), "at once");
    assert_eq!(peer.read_exactly(3), b"bye");
}

fn another_thread_may_not_drain(on: On) {
    let event_loop = on.event_loop();
    let (server, _) = Net::Tcp.serve(&event_loop);
    let there = server.clone();
    let failed = std::thread::spawn(move || asyncio::run(async { there.drain(LONG).await }).unwrap_err().kind());
    assert_eq!(failed.join().unwrap(), ErrorKind::Runtime);
    assert!(server.is_serving());
    server.close();
}

fn a_drain_without_end_waits_for_the_last_one(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let (server, told) = Net::Tcp.serve(event_loop);
    let peer = client(&server);
    peer.send(b"?");
    event_loop.until(|| told.len() == 1 && told.items()[0].received_len() == 1);
    let draining = drain(event_loop, &server, Duration::MAX);
    timed.pass(Duration::from_secs(60));
    assert!(!draining.done() && !peer.ended());
    drop(peer);
    assert_eq!(timed.run(draining), 0);
}

fn a_stream_that_waits_for_a_request_is_idle(on: On) {
    let event_loop = on.event_loop();
    let ended = Record::default();
    let handled = ended.clone();
    let server = event_loop.run(async {
        let handle = async move |mut reader: StreamReader, writer: StreamWriter| {
            while let Some(line) = reader.next_line().await? {
                writer.write(&line)?;
                writer.drain().await?;
            }
            handled.push("ended");
            Ok(())
        };
        asyncio::start_server(handle, ("127.0.0.1", 0)).await
    });
    let (fresh, answered) = (client(&server), client(&server));
    answered.send(b"hello\n");
    event_loop.until(|| !answered.ended() && answered.0.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok());
    let (aborted, records) = logs(|| event_loop.run(server.drain(LONG)));
    assert_eq!((aborted, records), (0, vec![]));
    assert_eq!(answered.read_exactly(6), b"hello\n");
    assert!(has_ended(&answered) && has_ended(&fresh));
    event_loop.until(|| ended.len() == 2);
}

/// Although something was written, and nothing moves.
fn a_stream_whose_coroutine_is_at_work_is_busy(on: On) {
    let timed = Timed::new(on);
    let event_loop = &timed.event_loop;
    let server = event_loop.run(async {
        let handle = async |mut reader: StreamReader, writer: StreamWriter| {
            reader.readline().await?;
            writer.write(b"working")?;
            asyncio::sleep(Duration::from_secs(2)).await?;
            writer.write(b" done")?;
            reader.readline().await?;
            Ok(())
        };
        asyncio::start_server(handle, ("127.0.0.1", 0)).await
    });
    let peer = client(&server);
    peer.send(b"?\n");
    event_loop.until(|| !peer.ended() && peer.0.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok());
    assert_eq!(timed.run(drain(event_loop, &server, LONG)), 0);
    assert_eq!(peer.read_exactly(12), b"working done");
    assert!(has_ended(&peer));
    event_loop.ticks(5);
}
