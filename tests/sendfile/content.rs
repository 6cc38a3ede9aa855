//! What these tests show: what arrives, and where the file's position is then.

use std::{cell::Cell, os::unix::fs::FileExt, rc::Rc, task::Poll, time::Duration};

use crate::{Case, Link, Range, SIZE, Source, TestLoop, WHOLE, Way, assert_same, cases, collect, file, pattern};

on_each_selector! {
    the_whole_file_arrives_wherever_its_position_is
    offset_and_count_choose_a_part
    there_is_nothing_behind_the_end
    a_count_may_be_larger_than_the_file
    no_part_is_off_by_one
    what_the_file_has_lost_meanwhile_is_not_waited_for
    what_the_file_has_gained_meanwhile_is_sent
    the_position_of_a_file_is_not_disturbed_meanwhile
    one_file_goes_to_several_at_once
    a_hundred_mebibytes_go_through_small_buffers
    a_large_file_does_not_keep_the_others_waiting
    no_turn_is_longer_than_a_mebibyte
}

/// SND-001
fn the_whole_file_arrives_wherever_its_position_is(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        for position in [SIZE as u64, 0, 77] {
            let (open, source) = (case.open(event_loop), case.source(&data));
            source.set_position(position);
            let received = collect(open.peer.try_clone().unwrap());
            assert_eq!(event_loop.run(open.target.send(&source, WHOLE)), SIZE as u64, "{case:?}");
            assert_eq!(source.position(), SIZE as u64, "{case:?}");
            open.target.finish();
            event_loop.until(|| received.is_finished());
            assert_same(&received.join().unwrap(), &data, case);
        }
    }
}

/// SND-002
fn offset_and_count_choose_a_part(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&data));
        assert_eq!(event_loop.run(open.target.send(&source, Range::new(1000, 2000))), 2000, "{case:?}");
        assert_eq!(source.position(), 3000, "{case:?}");
        assert_same(&open.received(event_loop), &data[1000..3000], case);
    }
}

/// SND-003
fn there_is_nothing_behind_the_end(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&data));
        source.set_position(5);
        for offset in [SIZE as u64, SIZE as u64 + 10, i64::MAX as u64, u64::MAX] {
            for count in [None, Some(1), Some(u64::MAX)] {
                let range = Range { offset, count, fallback: case.way != Way::System };
                assert_eq!(event_loop.run(open.target.send(&source, range)), 0, "{case:?} {range:?}");
                assert_eq!(source.position(), 5, "{case:?} {range:?}");
            }
        }
        assert_eq!(event_loop.run(open.target.send(&source, Range::new(SIZE - 10, 100))), 10, "{case:?}");
        assert_eq!(source.position(), SIZE as u64, "{case:?}");

        let empty = case.source(b"");
        assert_eq!(event_loop.run(open.target.send(&empty, WHOLE)), 0, "{case:?}");
        assert_eq!(event_loop.run(open.target.send(&empty, Range::new(0, 5))), 0, "{case:?}");
        assert_eq!(empty.position(), 0, "{case:?}");
        assert_same(&open.received(event_loop), &data[SIZE - 10..], case);
    }
}

fn a_count_may_be_larger_than_the_file(event_loop: &TestLoop) {
    let data = pattern(100_000);
    for case in cases() {
        for count in [100_001, 1 << 40, u64::MAX] {
            let (open, source) = (case.open(event_loop), case.source(&data));
            let received = collect(open.peer.try_clone().unwrap());
            let range = Range { offset: 1, count: Some(count), fallback: true };
            assert_eq!(event_loop.run(open.target.send(&source, range)), 99_999, "{case:?}");
            assert_eq!(source.position(), 100_000, "{case:?}");
            open.target.finish();
            event_loop.until(|| received.is_finished());
            assert_same(&received.join().unwrap(), &data[1..], case);
        }
    }
}

fn no_part_is_off_by_one(event_loop: &TestLoop) {
    let data = pattern((1 << 20) + 3);
    for case in cases() {
        let open = case.open(event_loop);
        let received = collect(open.peer.try_clone().unwrap());
        let mut expected = Vec::new();
        for size in [1, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
            for offset in [0, 2] {
                let source = case.source(&data);
                let sent = event_loop.run(open.target.send(&source, Range::new(offset, size)));
                assert_eq!((sent, source.position()), (size as u64, (offset + size) as u64), "{case:?}");
                expected.extend_from_slice(&data[offset..offset + size]);

                let source = case.source(&data[..offset + size]);
                let sent = event_loop.run(open.target.send(&source, Range::new(offset, None)));
                assert_eq!((sent, source.position()), (size as u64, (offset + size) as u64), "{case:?}");
                expected.extend_from_slice(&data[offset..offset + size]);
            }
        }
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &expected, case);
    }
}

/// Changes the file while the peer does not read, and gives how much was sent in the end, and what arrived.
fn send_while(event_loop: &TestLoop, case: Case, data: &[u8], count: Option<u64>, change: impl Fn(&Source)) -> Vec<u8> {
    let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(data));
    let range = Range { offset: 0, count, fallback: true };
    let task = event_loop.create_task(open.target.sending(&source, range));
    open.until_blocked(event_loop);
    assert!(!task.done(), "{case:?}");
    change(&source);
    let received = collect(open.peer.try_clone().unwrap());
    let sent = event_loop.run(task);
    assert_eq!(source.position(), sent, "{case:?}");
    open.target.finish();
    event_loop.until(|| received.is_finished());
    let received = received.join().unwrap();
    assert_eq!(received.len() as u64, sent, "{case:?}");
    received
}

fn what_the_file_has_lost_meanwhile_is_not_waited_for(event_loop: &TestLoop) {
    let data = pattern(4 << 20);
    for case in cases() {
        for count in [None, Some(4 << 20)] {
            let received = send_while(event_loop, case, &data, count, |source| match source {
                Source::File(file) => file.set_len(3 << 20).unwrap(),
                Source::Reader(shared) => shared.0.borrow_mut().get_mut().truncate(3 << 20),
            });
            assert_same(&received, &data[..3 << 20], case);
        }
    }
}

fn what_the_file_has_gained_meanwhile_is_sent(event_loop: &TestLoop) {
    let data = pattern(4 << 20);
    let before = 3 << 20;
    for case in cases() {
        for (count, end) in [(None, 4 << 20), (Some(7 << 19), 7 << 19)] {
            let received = send_while(event_loop, case, &data[..before], count, |source| match source {
                Source::File(file) => file.write_all_at(&data[before..], before as u64).unwrap(),
                Source::Reader(shared) => shared.0.borrow_mut().get_mut().extend_from_slice(&data[before..]),
            });
            assert_same(&received, &data[..end], case);
        }
    }
}

fn the_position_of_a_file_is_not_disturbed_meanwhile(event_loop: &TestLoop) {
    let data = pattern(3 << 20);
    for case in cases().filter(|case| case.way != Way::Reader) {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        source.set_position(123);
        let task = event_loop.create_task(open.target.sending(&source, Range::new(7, None)));
        open.until_blocked(event_loop);
        assert_eq!(source.position(), 123, "{case:?}");
        source.set_position(5); // its owner may read from it
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), (3 << 20) - 7, "{case:?}");
        assert_eq!(source.position(), 3 << 20, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[7..], case);
    }
}

fn one_file_goes_to_several_at_once(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    let source = Source::File(Rc::new(file(&data)));
    let cases = || cases().filter(|case| case.way != Way::Reader);
    let opened: Vec<_> = cases().map(|case| case.open_with(event_loop, Some(16 << 10))).collect();
    let received: Vec<_> = opened.iter().map(|open| collect(open.peer.try_clone().unwrap())).collect();
    let tasks = opened
        .iter()
        .enumerate()
        .map(|(index, open)| event_loop.create_task(open.target.sending(&source, Range::new(index, SIZE - 10))));
    let tasks: Vec<_> = tasks.collect();
    for (task, open) in tasks.into_iter().zip(&opened) {
        assert_eq!(event_loop.run(task), SIZE as u64 - 10);
        open.target.finish();
    }
    for ((index, received), case) in received.into_iter().enumerate().zip(cases()) {
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[index..SIZE - 10 + index], case);
    }
}

fn a_hundred_mebibytes_go_through_small_buffers(event_loop: &TestLoop) {
    let data = pattern(100 << 20);
    for (link, over_transport, way) in
        [(Link::Unix, true, Way::System), (Link::Tcp, true, Way::Reading), (Link::Tcp, false, Way::System)]
    {
        let case = Case { link, over_transport, way };
        let (open, source) = (case.open_with(event_loop, Some(64 << 10)), case.source(&data));
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(open.target.send(&source, WHOLE)), 100 << 20, "{case:?}");
        assert_eq!(source.position(), 100 << 20, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

fn a_large_file_does_not_keep_the_others_waiting(event_loop: &TestLoop) {
    let data = pattern(8 << 20);
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&data));
        let received = collect(open.peer.try_clone().unwrap());
        let turns = Rc::new(Cell::new(0));
        let counter = turns.clone();
        let other = event_loop.create_task(async move {
            loop {
                counter.set(counter.get() + 1);
                asyncio::sleep(Duration::ZERO).await?;
            }
            #[expect(unreachable_code, reason = "it says what type it is")]
            asyncio::ok(())
        });
        event_loop.run(open.target.send(&source, WHOLE));
        // At most a mebibyte in each.
        assert!(turns.get() >= 7, "{case:?}: {}", turns.get());
        other.cancel();
        open.target.finish();
        event_loop.until(|| received.is_finished() && other.done());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

/// The system would take more at once, as the peer's window and our buffer grow.
fn no_turn_is_longer_than_a_mebibyte(event_loop: &TestLoop) {
    let data = pattern(8 << 20);
    for case in cases() {
        let (open, source) = (case.open(event_loop), case.source(&data));
        source.set_position(0);
        event_loop.run(async {
            let mut sending = Box::pin(open.target.send(&source, WHOLE));
            std::future::poll_fn(|cx| {
                assert!(sending.as_mut().poll(cx).is_pending(), "{case:?}");
                Poll::Ready(())
            })
            .await;
            Ok(())
        });
        assert!(source.position() <= 1 << 20, "{case:?}: {}", source.position());
    }
}
