//! What these tests show: datagram_received: bounds, order, turns.

use std::{cell::Cell, rc::Rc};

use asyncio::{Address, DatagramProtocol};

use crate::{Call, Log, On, address, sockname, udp};

on_each_selector! {
    datagrams_keep_their_bounds_and_order
    many_that_wait_are_received_in_one_turn
    others_have_their_turns_in_a_flood
    close_ends_receiving_at_once
    abort_ends_receiving_at_once
    another_protocol_has_the_next_datagram
    a_datagram_that_waited_comes_after_the_opener_returned
    what_is_received_can_be_answered_at_once
    loop_and_endpoint_go_on_after_a_long_flood
}

fn datagrams_keep_their_bounds_and_order(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    assert_eq!(log.take(), [Call::Made]);
    for size in [0, 1, 2, 1000, 9000, 65_507, 3] {
        let data: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        peer.send_to(&data, to).unwrap();
        event_loop.until(|| log.len() == 1);
        assert_eq!(log.take(), [Call::Received(data, address(&peer))]);
    }
    let data: Vec<Vec<u8>> = (0..30_u8).map(|number| vec![number; usize::from(number)]).collect();
    data.iter().for_each(|data| assert_eq!(peer.send_to(data, to).unwrap(), data.len()));
    event_loop.until(|| log.len() == 30);
    assert_eq!(log.take_data(), data);
}

fn many_that_wait_are_received_in_one_turn(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    assert_eq!(log.take(), [Call::Made]);
    let flood = |count: u8| (0..count).for_each(|number| assert_eq!(peer.send_to(&[number], to).unwrap(), 1));
    flood(100);
    event_loop.ticks(1);
    assert_eq!(log.len(), 64);
    event_loop.ticks(1);
    assert_eq!(log.take_data(), (0..100_u8).map(|number| vec![number]).collect::<Vec<_>>());

    // Single datagrams, for each of which nothing more is looked for; a flood after them is noticed soon.
    for _ in 0..300 {
        flood(1);
        event_loop.ticks(1);
        assert_eq!(log.take_data(), [[0]]);
    }
    flood(100);
    event_loop.ticks(100);
    assert_eq!(log.take().len(), 100);
    flood(64);
    event_loop.ticks(64);
    assert_eq!(log.take().len(), 64);
}

fn others_have_their_turns_in_a_flood(on: On) {
    let event_loop = on.event_loop();
    let order = Rc::new(Cell::new((0, 0)));
    let logs = [0, 1].map(|index| {
        let order = order.clone();
        Log::hooked(move |call, _| {
            if let Call::Received(..) = call {
                let (last, row) = order.get();
                let row = if last == index { row + 1 } else { 1 };
                order.set((index, row));
                assert!(row <= 64, "{row} in a row");
            }
        })
    });
    let ends: Vec<_> = logs.iter().map(|log| event_loop.bound(log)).collect();
    for end in &ends {
        let (peer, to) = (udp(), sockname(end).as_inet().unwrap());
        (0..150).for_each(|_| assert_eq!(peer.send_to(b"flood", to).unwrap(), 5));
    }
    event_loop.ticks(3);
    assert_eq!(logs.each_ref().map(Log::len), [151, 151]);
}

/// UDP-005, beside TCP-007
fn close_ends_receiving_at_once(on: On) {
    let event_loop = on.event_loop();
    let log = Log::hooked(|call, transport| {
        if let Call::Received(..) = call {
            transport.close();
        }
    });
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    (0..5).for_each(|_| assert_eq!(peer.send_to(b"x", to).unwrap(), 1));
    event_loop.until(|| log.len() == 3);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Call::Made, Call::Received(b"x".to_vec(), address(&peer)), Call::Lost(None)]);
}

fn abort_ends_receiving_at_once(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    (0..5).for_each(|_| assert_eq!(peer.send_to(b"x", to).unwrap(), 1));
    transport.abort();
    assert_eq!(log.take(), [Call::Made]);
    event_loop.ticks(1);
    assert_eq!(log.take(), [Call::Lost(None)]);
    event_loop.ticks(3);
    assert_eq!(log.take(), []);
}

fn another_protocol_has_the_next_datagram(on: On) {
    struct Second(Log);
    impl DatagramProtocol for Second {
        fn datagram_received(&mut self, data: &[u8], sender: &Address) {
            self.0.calls.push(Call::Received([b"second ", data].concat(), sender.clone()));
        }

        fn connection_lost(&mut self, _: Option<&asyncio::Error>) {
            self.0.calls.push(Call::Lost(None));
        }
    }
    let event_loop = on.event_loop();
    let log = Log::default();
    let second = Rc::new(std::cell::RefCell::new(Second(log.clone())));
    let next = second.clone();
    log.set_hook(move |call, transport| {
        if let Call::Received(..) = call {
            transport.set_protocol(next.clone());
        }
    });
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    for data in [b"a", b"b", b"c"] {
        peer.send_to(data, to).unwrap();
    }
    event_loop.until(|| log.len() == 4);
    assert_eq!(log.take_data(), [&b"a"[..], b"second b", b"second c"]);
    assert!(transport.get_protocol::<crate::Logging>().is_none());
    assert!(transport.get_protocol::<Second>().is_some_and(|found| Rc::ptr_eq(&found, &second)));
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Call::Lost(None)]);
    assert!(transport.get_protocol::<Second>().is_none());
    assert_eq!(Rc::strong_count(&second), 2, "the hook's and ours");
}

/// UDP-001
fn a_datagram_that_waited_comes_after_the_opener_returned(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (sock, peer) = (udp(), udp());
    peer.send_to(b"early", sock.local_addr().unwrap()).unwrap();
    let seen = log.clone();
    event_loop.run(async {
        let (transport, _) = event_loop.create_datagram_endpoint(log.protocol()).sock(sock).await?;
        assert_eq!(seen.take(), [Call::Made], "and no datagram before this");
        while seen.len() == 0 {
            asyncio::sleep(std::time::Duration::ZERO).await?;
        }
        assert_eq!(seen.take(), [Call::Received(b"early".to_vec(), address(&peer))]);
        transport.close();
        Ok(())
    });
    event_loop.ticks(1);
    assert_eq!(log.take(), [Call::Lost(None)]);
}

fn what_is_received_can_be_answered_at_once(on: On) {
    let event_loop = on.event_loop();
    let log = Log::hooked(|call, transport| {
        if let Call::Received(data, sender) = call {
            transport.sendto(data, sender);
        }
    });
    let transport = event_loop.bound(&log);
    let to = sockname(&transport).as_inet().unwrap();
    let peers: Vec<_> = (0..20).map(|_| udp()).collect();
    for (number, peer) in peers.iter().enumerate() {
        peer.send_to(&[number as u8], to).unwrap();
    }
    event_loop.until(|| log.len() == 21);
    for (number, peer) in peers.iter().enumerate() {
        assert_eq!(crate::receive(peer), (vec![number as u8], sockname(&transport)));
        assert!(crate::nothing_waits(peer));
    }
}

fn loop_and_endpoint_go_on_after_a_long_flood(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0_u32));
    let seen = count.clone();
    let log = Log::default();
    let quiet = log.clone();
    log.set_hook(move |call, _| {
        if let Call::Received(..) = call {
            seen.set(seen.get() + 1);
            quiet.take();
        }
    });
    let transport = event_loop.bound(&log);
    let to = sockname(&transport).as_inet().unwrap();
    let flood = std::thread::spawn(move || {
        let peer = udp();
        (0..20_000_u32).filter(|number| peer.send_to(&number.to_le_bytes(), to).is_ok()).count()
    });
    event_loop.until(|| count.get() > 0);
    // Others have their turns.
    event_loop.run(async { asyncio::sleep(std::time::Duration::from_millis(1)).await });
    assert!(flood.join().unwrap() > 0);
    let before = count.get();
    udp().send_to(b"last", to).unwrap();
    event_loop.until(|| count.get() > before);
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take().last(), Some(&Call::Lost(None)));
}
