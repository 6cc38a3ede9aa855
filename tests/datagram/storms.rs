//! What these tests show: endpoints that would keep their loop to themselves.

use std::{
    cell::Cell,
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{Address, DatagramProtocol, DatagramTransport, Error};

use crate::{Log, On, TestLoop, support};

on_each_selector! {
    what_error_received_sends_again_leaves_others_their_turns
    a_socket_that_is_shut_down_for_reading_does_not_spin
}

/// Sends what is too large, again and again.
struct Stubborn {
    transport: Option<DatagramTransport>,
    errors: Rc<Cell<usize>>,
}

static TOO_LARGE: [u8; 70_000] = [0; 70_000];

impl DatagramProtocol for Stubborn {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.transport = Some(transport.clone());
    }

    fn datagram_received(&mut self, _data: &[u8], _address: &Address) {}

    fn error_received(&mut self, _error: &Error) {
        self.errors.set(self.errors.get() + 1);
        if let Some(transport) = &self.transport {
            transport.sendto(&TOO_LARGE, None);
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.transport = None;
    }
}

fn what_error_received_sends_again_leaves_others_their_turns(on: On) {
    let event_loop = on.event_loop();
    let errors = Rc::new(Cell::new(0));
    let (count, receiver) = (errors.clone(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let (transport, _) = event_loop.run(
        event_loop
            .create_datagram_endpoint(move || Stubborn { transport: None, errors: count })
            .remote_addr(receiver.local_addr().unwrap()),
    );
    transport.sendto(&TOO_LARGE, None);
    let mut before = errors.get();
    for _ in 0..20 {
        support::tick(&event_loop);
        let per_turn = errors.get() - before;
        assert!((1..=1000).contains(&per_turn), "{per_turn} in one iteration");
        before = errors.get();
    }
    transport.close();
    event_loop.ticks(3);
    assert_eq!(transport.get_protocol::<Stubborn>().map(drop), None);
}

/// How much is done while the loop may rest for `time`.
fn iterations(event_loop: &TestLoop, time: Duration) -> usize {
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < time {
        event_loop.run_once(time.saturating_sub(begin.elapsed())).unwrap();
        count += 1;
    }
    count
}

fn a_socket_that_is_shut_down_for_reading_does_not_spin(on: On) {
    let (event_loop, log) = (on.event_loop(), Log::default());
    let (transport, _theirs) = event_loop.paired(&log);
    transport.with_fd(|fd| rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Read).unwrap());
    // The first looks are quick, and the delays double.
    iterations(&event_loop, Duration::from_millis(100));
    let count = iterations(&event_loop, Duration::from_millis(300));
    assert!(count < 60, "{count} iterations in 0.3 s");
    transport.abort();
    event_loop.ticks(2);
}
