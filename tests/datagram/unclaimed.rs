//! What these tests show: openings that nobody waits for to the end, and those that fail: nothing is left of them.

use std::{
    future::IntoFuture,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
    rc::Rc,
    time::Duration,
};

use asyncio::ErrorKind;
use futures::FutureExt;

use crate::{Call, Log, Logging, On, is_gone, is_there, poll_once};

on_each_selector! {
    an_opener_that_is_dropped_tells_nobody
    an_opener_that_is_cancelled_before_it_begins_opens_nothing
    an_opener_that_is_cancelled_while_it_waits_closes
    an_opener_that_is_cancelled_late_closes
    closing_the_loop_drops_an_opener
    what_connection_made_does_holds
    a_thousand_openings_that_fail_leave_no_descriptor
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    (0..2048).filter(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()).count()
}

fn an_opener_that_is_dropped_tells_nobody(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut opening = event_loop.create_datagram_endpoint(log.protocol()).sock(ours).into_future();
    event_loop.run(async {
        assert!(poll_once(opening.as_mut()).is_pending());
        assert!(is_there(&theirs));
        drop(opening);
        assert!(is_gone(&theirs));
        Ok(())
    });
    event_loop.ticks(2);
    assert_eq!(log.take(), []);
}

fn an_opener_that_is_cancelled_before_it_begins_opens_nothing(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let opening = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).sock(ours);
    let task = event_loop.create_task(async move { opening.await.map(drop) });
    task.cancel();
    assert!(event_loop.fail(task).is_cancelled());
    assert!(is_gone(&theirs));
}

/// The protocol is about to hear of its endpoint when the opener is cancelled, as in asyncio.
fn an_opener_that_is_cancelled_while_it_waits_closes(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let opening = event_loop.create_datagram_endpoint(log.protocol()).sock(ours);
    let task = event_loop.create_task(async move { opening.await.map(drop) });
    let any = task.any();
    event_loop.call_soon(move || assert!(any.cancel()));
    assert!(event_loop.fail(task).is_cancelled());
    event_loop.ticks(2);
    assert_eq!(log.take(), [Call::Made, Call::Lost(None)]);
    assert!(is_gone(&theirs));
}

fn an_opener_that_is_cancelled_late_closes(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let task: Rc<std::cell::RefCell<Option<asyncio::Task<()>>>> = Rc::default();
    let opener = task.clone();
    let log = Log::hooked(move |call, _| {
        if *call == Call::Made {
            assert!(opener.borrow().as_ref().unwrap().cancel());
        }
    });
    let opening = event_loop.create_datagram_endpoint(log.protocol()).sock(ours);
    *task.borrow_mut() = Some(event_loop.create_task(async move { opening.await.map(drop) }));
    event_loop.until(|| task.borrow().as_ref().unwrap().done());
    let task = task.take().unwrap();
    assert!(event_loop.fail(task).is_cancelled());
    event_loop.ticks(2);
    assert_eq!(log.take(), [Call::Made, Call::Lost(None)]);
    assert!(is_gone(&theirs));
}

fn closing_the_loop_drops_an_opener(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let opening = event_loop.create_datagram_endpoint(log.protocol()).sock(ours);
    let task = event_loop.create_task(async move { opening.await.map(drop) });
    event_loop.ticks(1);
    assert!(!task.done() && is_there(&theirs));
    event_loop.close().unwrap();
    assert!(is_gone(&theirs));
    assert_eq!(log.take(), []);
    assert_eq!(event_loop.reports.take().len(), 1, "the task was pending");
    drop(task);
}

fn what_connection_made_does_holds(on: On) {
    let event_loop = on.event_loop();
    for abort in [true, false] {
        let log = Log::hooked(move |call, transport| {
            if *call == Call::Made {
                transport.sendto(b"hello", None);
                if abort { transport.abort() } else { transport.close() }
            }
        });
        let (transport, theirs) = event_loop.paired(&log);
        assert!(transport.is_closing());
        assert_eq!(theirs.recv(&mut [0; 5]).unwrap(), 5);
        event_loop.ticks(1);
        assert_eq!(log.take(), [Call::Made, Call::Lost(None)]);
        assert!(is_gone(&theirs));
    }
}

/// UDP-015
fn a_thousand_openings_that_fail_leave_no_descriptor(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    let open = || event_loop.create_datagram_endpoint(Log::default().protocol());
    let fails = || event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() });
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let copy = || stream.as_fd().try_clone_to_owned().unwrap();
    let rounds = |count| {
        for _ in 0..count {
            let failures = [
                (fails().local_addr(("1.2.3.4", 0)), ErrorKind::Io),
                (fails().remote_addr(Path::new("/nowhere/at/all")), ErrorKind::Io),
                (fails().remote_addr(("127.255.255.255", 9)), ErrorKind::Io),
                (fails().local_addr(("127.0.0.1", 0)).remote_addr(("::1", 9)), ErrorKind::Value),
                (fails().sock(copy()), ErrorKind::Value),
                (fails().sock(copy()).reuse_port(true), ErrorKind::Value),
            ];
            for (opening, kind) in failures {
                assert_eq!(event_loop.fail(opening).kind(), kind);
            }
            event_loop.run(async {
                // Dropped after its first poll.
                let mut opening = open().local_addr(("127.0.0.1", 0)).into_future();
                assert!(poll_once(opening.as_mut()).is_pending());
                drop(opening);
                // Given up by a time limit, which is past.
                let opening = open().local_addr(("127.0.0.1", 0));
                let late = asyncio::timeout(Duration::ZERO, opening.into_future()).await;
                assert!(late.is_err_and(|error| error.kind() == ErrorKind::Timeout));
                // The factory panics.
                let opening = event_loop.create_datagram_endpoint(|| -> Logging { panic!() });
                let panicking = opening.local_addr(("127.0.0.1", 0)).into_future();
                assert!(std::panic::AssertUnwindSafe(panicking).catch_unwind().await.is_err());
                Ok(())
            });
            event_loop.ticks(2);
        }
    };
    std::panic::set_hook(Box::new(|_| ()));
    rounds(1);
    let before = open_descriptors();
    rounds(110);
    let _ = std::panic::take_hook();
    assert_eq!(open_descriptors(), before);
}
