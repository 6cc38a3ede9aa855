//! What these tests show: files that are given up on the way.

use std::{
    cell::RefCell,
    future::Future,
    io::Read,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{ErrorKind, Executor, Job, Result};

use crate::{
    Open, Range, SIZE, Source, Target, TestLoop, WHOLE, Way, assert_same, cases, collect, pattern, support::failure,
    transports,
};

on_each_selector! {
    a_cancelled_call_leaves_no_watcher
    the_position_tells_what_was_sent_wherever_it_is_cancelled
    the_position_tells_what_was_sent_wherever_it_is_dropped
    who_sends_can_go_on_when_cancelled
    cancelled_before_its_first_step_it_has_done_nothing
    a_timeout_ends_it
    what_waits_before_the_file_is_sent_although_it_is_cancelled
    cancelled_while_the_file_is_read
    an_executor_that_refuses_is_an_error
    a_future_polled_by_hand_may_be_dropped
}

/// SND-014
fn a_cancelled_call_leaves_no_watcher(event_loop: &TestLoop) {
    for case in cases() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&pattern(SIZE)));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        assert!(task.cancel());
        assert_eq!(event_loop.run_until_complete(task).unwrap_err().kind(), ErrorKind::Cancelled, "{case:?}");
        assert!((1..SIZE as u64).contains(&source.position()), "{case:?}: {}", source.position());
        if let Target::Socket(fd) = &open.target {
            assert!(!event_loop.remove_writer(&**fd).unwrap(), "{case:?}");
            event_loop.linger();
        }
        // Whoever watched it would hear now that it is writable.
        let mut received = vec![0; source.position() as usize];
        std::thread::scope(|scope| {
            let (mut peer, received) = (open.peer.try_clone().unwrap(), &mut received);
            let reader = scope.spawn(move || peer.read_exact(received).unwrap());
            event_loop.until(|| reader.is_finished());
        });
        event_loop.until(|| open.target.is_writable());
        assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0, "{case:?}: somebody is woken");
    }
}

/// Sends something else behind what was sent of the file, and looks at what arrives.
fn assert_continues(event_loop: &TestLoop, open: &Open, source: &Source, data: &[u8], why: &str) {
    let case = open.case;
    if let Target::Socket(fd) = &open.target {
        assert!(!event_loop.remove_writer(&**fd).unwrap(), "{case:?}");
    }
    let sent = source.position() as usize;
    let received = collect(open.peer.try_clone().unwrap());
    event_loop.run(open.target.write(b"SUFFIX"));
    let other = case.source(b"another file");
    event_loop.run(open.target.send(&other, WHOLE));
    open.target.finish();
    event_loop.until(|| received.is_finished());
    let expected = [&data[..sent], b"SUFFIX", b"another file"].concat();
    assert_same(&received.join().unwrap(), &expected, (case, why));
}

fn the_position_tells_what_was_sent_wherever_it_is_cancelled(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        for ticks in [1, 2, 3, 4, 5, 7, 10, 20] {
            for reads in [0, 100_000] {
                let (open, source) = (case.open_with(event_loop, Some(16 << 10)), case.source(&data));
                source.set_position(0);
                let task = event_loop.create_task(open.target.sending(&source, WHOLE));
                let mut begin = vec![0; reads];
                std::thread::scope(|scope| {
                    let mut peer = open.peer.try_clone().unwrap();
                    let reading = begin.as_mut_slice();
                    let reader = scope.spawn(move || peer.read_exact(reading).unwrap());
                    event_loop.until(|| reader.is_finished());
                });
                event_loop.ticks(ticks);
                task.cancel();
                let (kind, _) = failure(event_loop.run_until_complete(task));
                assert_eq!(kind, ErrorKind::Cancelled, "{case:?}");
                assert_same(&begin, &data[..reads], case);
                assert!(source.position() >= reads as u64, "{case:?}");
                // The beginning was read already.
                let rest = source.position() as usize - reads;
                let received = collect(open.peer.try_clone().unwrap());
                event_loop.run(open.target.write(b"SUFFIX"));
                open.target.finish();
                event_loop.until(|| received.is_finished());
                let expected = [&data[reads..reads + rest], b"SUFFIX"].concat();
                assert_same(&received.join().unwrap(), &expected, (case, ticks));
            }
        }
    }
}

fn the_position_tells_what_was_sent_wherever_it_is_dropped(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        for polls in [0, 1, 2, 3, 5, 20] {
            let (open, source) = (case.open_with(event_loop, Some(16 << 10)), case.source(&data));
            source.set_position(0);
            event_loop.run(async {
                let mut sending: Pin<Box<dyn Future<Output = Result<u64>>>> =
                    Box::pin(open.target.sending(&source, WHOLE));
                for _ in 0..polls {
                    std::future::poll_fn(|cx| {
                        assert!(sending.as_mut().poll(cx).is_pending(), "{case:?}");
                        Poll::Ready(())
                    })
                    .await;
                    asyncio::sleep(Duration::ZERO).await?;
                }
                drop(sending);
                Ok(())
            });
            if case.way != Way::Reading {
                assert_eq!(source.position() > 0, polls > 0, "{case:?}");
            }
            assert_continues(event_loop, &open, &source, &data, "dropped");
        }
    }
}

fn who_sends_can_go_on_when_cancelled(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let (target, mine) = (open.target.clone(), source.clone());
        let task = event_loop.create_task(async move {
            let (kind, text) = failure(target.send(&mine, WHOLE).await);
            assert_eq!((kind, text.as_str()), (ErrorKind::Cancelled, "enough"));
            let rest = Range { offset: mine.position(), ..WHOLE };
            let sent = target.send(&mine, rest).await?;
            target.write(b"SUFFIX").await?;
            asyncio::ok(rest.offset + sent)
        });
        open.until_blocked(event_loop);
        assert!(task.cancel_with("enough"));
        event_loop.ticks(2);
        task.uncancel();
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), SIZE as u64, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &[&data[..], b"SUFFIX"].concat(), case);
    }
}

fn cancelled_before_its_first_step_it_has_done_nothing(event_loop: &TestLoop) {
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&pattern(SIZE)));
        source.set_position(5);
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        task.cancel();
        assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled, "{case:?}");
        assert_eq!(source.position(), 5, "{case:?}");
        assert_same(&open.received(event_loop), b"", case);
    }
}

fn a_timeout_ends_it(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        source.set_position(0);
        let limited = asyncio::timeout(Duration::from_millis(20), open.target.send(&source, WHOLE));
        assert_eq!(failure(event_loop.run_until_complete(limited)).0, ErrorKind::Timeout, "{case:?}");
        assert_continues(event_loop, &open, &source, &data, "timeout");
    }
}

fn what_waits_before_the_file_is_sent_although_it_is_cancelled(event_loop: &TestLoop) {
    let prefix = pattern(8_000_000);
    for case in transports() {
        let (open, source) = (case.open(event_loop), case.source(b"content"));
        source.set_position(5);
        event_loop.run(open.target.write(&prefix));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        event_loop.ticks(3);
        task.cancel();
        assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled, "{case:?}");
        assert_eq!(source.position(), 5, "{case:?}");
        let received = collect(open.peer.try_clone().unwrap());
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &prefix, case);
    }
}

/// Keeps jobs until they are asked for.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Job>>>);

impl Executor for Keeper {
    fn submit(&self, job: Job) -> Result<()> {
        self.0.lock().unwrap().push(job);
        Ok(())
    }
}

impl Keeper {
    fn run(&self) {
        let jobs = std::mem::take(&mut *self.0.lock().unwrap());
        jobs.into_iter().for_each(|job| job());
    }
}

fn cancelled_while_the_file_is_read(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    let keeper = Keeper::default();
    event_loop.set_default_executor(keeper.clone()).unwrap();
    for case in cases().filter(|case| case.way == Way::Reading) {
        for chunks in 0..3 {
            for runs in [false, true] {
                let (open, source) = (case.open(event_loop), case.source(&data));
                source.set_position(0);
                let task = event_loop.create_task(open.target.sending(&source, WHOLE));
                event_loop.ticks(2);
                let received = collect(open.peer.try_clone().unwrap());
                for _ in 0..chunks {
                    keeper.run();
                    event_loop.until(|| !keeper.0.lock().unwrap().is_empty());
                }
                task.cancel();
                assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled, "{case:?}");
                let position = source.position();
                assert_eq!(position % (64 << 10), 0, "{case:?}");
                assert_eq!(position > 0, chunks > 0, "{case:?}");
                // Late, and nobody waits for it.
                if runs {
                    keeper.run()
                } else {
                    drop(std::mem::take(&mut *keeper.0.lock().unwrap()))
                }
                event_loop.ticks(2);
                assert_eq!(source.position(), position, "{case:?}");
                open.target.finish();
                event_loop.until(|| received.is_finished());
                assert_same(&received.join().unwrap(), &data[..position as usize], case);
            }
        }
    }
}

struct Refuses;

impl Executor for Refuses {
    fn submit(&self, _job: Job) -> Result<()> {
        Err(asyncio::Error::Runtime("no".into()))
    }
}

fn an_executor_that_refuses_is_an_error(event_loop: &TestLoop) {
    let keeper = Keeper::default();
    for case in cases().filter(|case| case.way == Way::Reading) {
        let (open, source) = (case.open(event_loop), case.source(b"content"));
        source.set_position(3);
        event_loop.set_default_executor(Refuses).unwrap();
        let (kind, text) = failure(event_loop.run_until_complete(open.target.send(&source, WHOLE)));
        assert_eq!((kind, text.as_str(), source.position()), (ErrorKind::Runtime, "no", 3), "{case:?}");

        event_loop.set_default_executor(keeper.clone()).unwrap();
        let task = event_loop.create_task(open.target.sending(&source, Range::new(1, None)));
        event_loop.ticks(2);
        drop(std::mem::take(&mut *keeper.0.lock().unwrap()));
        assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Runtime, "{case:?}");
        assert_eq!(source.position(), 3, "{case:?}");
        event_loop.run(open.target.write(b"and on"));
        assert_same(&open.received(event_loop), b"and on", case);
    }
}

fn a_future_polled_by_hand_may_be_dropped(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases().filter(|case| case.way != Way::Reading) {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let sending = RefCell::new(Box::pin(open.target.sending(&source, WHOLE)));
        event_loop.run(async {
            // With a waker that is nobody's, as some combinators do.
            let polled = sending.borrow_mut().as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "{case:?}");
            Ok(())
        });
        drop(sending); // while no loop runs
        assert_continues(event_loop, &open, &source, &data, "by hand");
    }
}
