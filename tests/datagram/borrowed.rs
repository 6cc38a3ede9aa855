//! What these tests show: protocols that somebody else holds when they are to be called.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{Call, Log, Logging, On, TestLoop, address, receive, sockname, udp};

on_each_selector! {
    a_protocol_that_is_held_for_a_moment_misses_nothing
    a_protocol_that_is_held_for_long_is_told_of_once
    who_holds_it_may_send_and_close
    what_comes_up_meanwhile_is_told_in_order
    another_protocol_ends_the_wait
}

type Endpoint = (asyncio::DatagramTransport, Rc<RefCell<Logging>>);

fn bound(event_loop: &TestLoop, log: &Log) -> Endpoint {
    event_loop.run(event_loop.create_datagram_endpoint(log.protocol()).local_addr(("127.0.0.1", 0)))
}

fn a_protocol_that_is_held_for_a_moment_misses_nothing(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, protocol) = bound(&event_loop, &log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    for data in [b"1", b"2"] {
        peer.send_to(data, to).unwrap();
    }
    let held = protocol.borrow_mut();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Call::Made]);
    drop(held);
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take_data(), [b"1", b"2"]);
    assert_eq!(event_loop.take_reports(), []);
}

fn a_protocol_that_is_held_for_long_is_told_of_once(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let log = Log::default();
    let (transport, protocol) = bound(&event_loop, &log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    for _ in 0..2 {
        for data in [b"1", b"2"] {
            peer.send_to(data, to).unwrap();
        }
        log.take();
        let held = protocol.borrow_mut();
        event_loop.ticks(3);
        // By a timer that gets slower, and not in each turn.
        for _ in 0..50 {
            assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0);
        }
        let runs = (0..1000).map(|_| event_loop.run_once(Duration::from_millis(1)).unwrap());
        let ran = runs.sum::<usize>();
        assert!((5..=20).contains(&ran), "{ran} attempts in a second");
        let reports = event_loop.reports.take();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].message.contains("datagram_received"), "{}", reports[0].message);
        assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "protocol is borrowed");
        assert!(reports[0].extra["transport"].contains("DatagramTransport"));
        assert!(!transport.is_closing());
        drop(held);
        while log.len() < 2 {
            event_loop.run_once(Duration::from_millis(100)).unwrap();
        }
        assert_eq!(log.take_data(), [b"1", b"2"]);
        assert_eq!(event_loop.next_deadline(), None);
    }
}

fn who_holds_it_may_send_and_close(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, protocol) = bound(&event_loop, &log);
    let peer = udp();
    peer.send_to(b"unread", sockname(&transport).as_inet().unwrap()).unwrap();
    let held = protocol.borrow_mut();
    held.transport.as_ref().unwrap().sendto(b"x", peer.local_addr().unwrap());
    held.transport.as_ref().unwrap().sendto(&[0; 70_000], peer.local_addr().unwrap());
    held.transport.as_ref().unwrap().close();
    assert_eq!(receive(&peer), (b"x".to_vec(), sockname(&transport)));
    event_loop.ticks(2);
    assert_eq!(log.take(), [Call::Made]);
    drop(held);
    event_loop.until(|| log.len() == 2);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Call::Error(Some(libc::EMSGSIZE)), Call::Lost(None)]);
    assert_eq!(event_loop.take_reports(), []);
}

fn what_comes_up_meanwhile_is_told_in_order(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, protocol) = bound(&event_loop, &log);
    let peer = udp();
    peer.send_to(b"data", sockname(&transport).as_inet().unwrap()).unwrap();
    let held = protocol.borrow_mut();
    transport.sendto(&[0; 70_000], peer.local_addr().unwrap());
    drop(held);
    event_loop.until(|| log.len() == 3);
    let received = Call::Received(b"data".to_vec(), address(&peer));
    assert_eq!(log.take(), [Call::Made, Call::Error(Some(libc::EMSGSIZE)), received]);
    // Held at the first call of all.
    let kept = Rc::new(RefCell::new(None));
    let seen = kept.clone();
    log.set_hook(move |call, transport| {
        if *call == Call::Made {
            *seen.borrow_mut() = Some(transport.clone());
        }
    });
    let second = bound(&event_loop, &log);
    assert_eq!((log.take(), kept.take()), (vec![Call::Made], Some(second.0)));
}

fn another_protocol_ends_the_wait(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let log = Log::default();
    let (transport, protocol) = bound(&event_loop, &log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    peer.send_to(b"x", to).unwrap();
    log.take();
    let held = protocol.borrow_mut();
    event_loop.ticks(3);
    assert_eq!(event_loop.reports.take().len(), 1);
    let other = Log::default();
    transport.set_protocol(Rc::new(RefCell::new(other.protocol()())));
    event_loop.until(|| other.len() == 1);
    assert_eq!(other.take_data(), [b"x"]);
    drop(held);
    assert_eq!(log.take(), []);
    // And closing ends it, too.
    let protocol = transport.get_protocol::<Logging>().unwrap();
    let held = protocol.borrow_mut();
    peer.send_to(b"x", to).unwrap();
    event_loop.ticks(3);
    assert_eq!(event_loop.reports.take().len(), 1);
    transport.close();
    drop(held);
    event_loop.ticks(2);
    assert_eq!(other.take(), [Call::Lost(None)]);
}
