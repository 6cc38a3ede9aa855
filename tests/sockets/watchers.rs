//! add_reader, add_writer and their removal: tests of the watchers.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{Error, ErrorKind, EventLoop};

use crate::{
    On, at_number, begins_to_wait, by_number, fill, listener, own_number, pair, reset,
    support::{self, Record},
    tcp_pair, turn, until_readable,
};

on_each_selector! {
    watching_for_reading_lasts
    watching_for_writing_lasts
    a_second_reader_replaces_the_first
    a_second_writer_replaces_the_first
    what_was_removed_never_runs_again
    the_two_directions_are_independent
    removal_also_takes_back_what_is_queued
    a_queued_reader_is_taken_back_by_a_callback_before_it
    a_number_and_its_owner_are_the_same
    a_closed_loop_watches_nothing
    numbers_that_are_not_open_are_refused
    a_regular_file_is_refused
    a_panicking_reader_stays_and_is_reported
    a_listener_may_be_closed_right_after_its_removal
    a_callback_removes_itself
    a_callback_replaces_itself
    a_callback_adds_and_removes_the_other_direction
    callbacks_are_dropped_when_they_are_removed_replaced_or_closed
    the_drop_of_a_callback_may_use_the_loop
    a_reader_runs_in_a_copy_of_the_context
    the_end_of_the_peer_is_readable
    a_reset_is_readable_and_writable
    nothing_is_called_for_a_descriptor_without_watchers
    duplicates_are_watched_apart
    two_loops_watch_one_descriptor
    a_reused_number_is_not_the_old_reader_s
    a_reused_number_is_not_the_old_writer_s
    removing_one_direction_of_a_closed_descriptor_does_not_watch_its_successor
    a_wait_on_a_reused_number_takes_the_place_of_the_old_watchers
    a_watcher_on_a_reused_number_takes_the_place_of_an_old_wait
    a_wait_on_a_reused_number_takes_the_place_of_an_old_wait
    a_reader_and_a_waiting_call_exclude_each_other
    a_reader_is_refused_for_a_wait_only_while_it_stands
    a_watched_descriptor_holds_a_virtual_clock
    many_readers_at_once
}

/// Calls to count.
fn counter() -> (Rc<Cell<usize>>, impl FnMut() + Clone + 'static) {
    let count = Rc::new(Cell::new(0));
    let counting = count.clone();
    (count, move || counting.set(counting.get() + 1))
}

fn pair_with_a_byte() -> (UnixStream, UnixStream) {
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    (a, b)
}

/// FDW-001
fn watching_for_reading_lasts(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (count, reader) = counter();
    event_loop.add_reader(&a, reader).unwrap();
    event_loop.ticks(4);
    assert!(count.get() >= 2, "{}", count.get());
    event_loop.ticks(4);
    assert!(count.get() >= 6, "{}", count.get());
}

fn watching_for_writing_lasts(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let (count, writer) = counter();
    event_loop.add_writer(&a, writer).unwrap();
    event_loop.ticks(4);
    assert!(count.get() >= 2, "{}", count.get());
    let filled = fill(&a);
    event_loop.ticks(2);
    let before = count.get();
    event_loop.ticks(4);
    assert_eq!(count.get(), before, "it is not writable");
    let mut left = vec![0; filled];
    b.read_exact(&mut left).unwrap();
    event_loop.ticks(4);
    assert!(count.get() > before, "it is writable again");
}

/// FDW-002
fn a_second_reader_replaces_the_first(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (first, r1) = counter();
    let (second, r2) = counter();
    event_loop.add_reader(&a, r1).unwrap();
    event_loop.add_reader(&a, r2).unwrap();
    event_loop.ticks(3);
    assert_eq!(first.get(), 0);
    assert!(second.get() > 0);
    assert!(event_loop.remove_reader(&a).unwrap());
    event_loop.ticks(2);
    assert_eq!(first.get(), 0);
    assert!(!event_loop.remove_reader(&a).unwrap());
}

fn a_second_writer_replaces_the_first(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair();
    let (first, w1) = counter();
    let (second, w2) = counter();
    event_loop.add_writer(&a, w1).unwrap();
    event_loop.ticks(2);
    let before = first.get();
    event_loop.add_writer(&a, w2).unwrap();
    event_loop.ticks(3);
    assert_eq!(first.get(), before);
    assert!(second.get() > 0);
}

/// FDW-003
fn what_was_removed_never_runs_again(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (count, callback) = counter();
    event_loop.add_reader(&a, callback.clone()).unwrap();
    assert!(event_loop.remove_reader(&a).unwrap());
    assert!(!event_loop.remove_reader(&a).unwrap());
    event_loop.add_writer(&a, callback).unwrap();
    assert!(event_loop.remove_writer(&a).unwrap());
    assert!(!event_loop.remove_writer(&a).unwrap());
    event_loop.ticks(3);
    assert_eq!(count.get(), 0);
}

/// FDW-004
fn the_two_directions_are_independent(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (read, r) = counter();
    let (written, w) = counter();
    event_loop.add_reader(&a, r.clone()).unwrap();
    event_loop.add_writer(&a, w.clone()).unwrap();
    assert!(event_loop.remove_writer(&a).unwrap());
    event_loop.ticks(2);
    assert!(read.get() > 0);
    assert_eq!(written.get(), 0);
    assert!(!event_loop.remove_writer(&a).unwrap());
    assert!(event_loop.remove_reader(&a).unwrap());

    let seen = read.get();
    event_loop.add_writer(&a, w).unwrap();
    event_loop.add_reader(&a, r).unwrap();
    assert!(event_loop.remove_reader(&a).unwrap());
    event_loop.ticks(2);
    assert_eq!(read.get(), seen);
    assert!(written.get() > 0);
    assert!(event_loop.remove_writer(&a).unwrap());
}

/// FDW-006
fn removal_also_takes_back_what_is_queued(on: On) {
    let event_loop = on.event_loop();
    let ((a, _b), (c, _d)) = (pair_with_a_byte(), pair_with_a_byte());
    let (a, c) = (Rc::new(a), Rc::new(c));
    let ran = Record::default();
    let remover = |name, other: &Rc<UnixStream>| {
        let (event_loop, ran, other) = (event_loop.event_loop.clone(), ran.clone(), other.clone());
        move || {
            ran.push(name);
            event_loop.remove_reader(&*other).unwrap();
        }
    };
    event_loop.add_reader(&*a, remover("a", &c)).unwrap();
    event_loop.add_reader(&*c, remover("c", &a)).unwrap();
    event_loop.ticks(1);
    assert_eq!(ran.len(), 1);
    let first = ran.items()[0];
    event_loop.ticks(1);
    assert!(ran.take().iter().all(|name| *name == first), "the removed one ran");
    assert_eq!(event_loop.remove_reader(&*a).unwrap(), first == "a");
    assert_eq!(event_loop.remove_reader(&*c).unwrap(), first == "c");
}

fn a_queued_reader_is_taken_back_by_a_callback_before_it(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let a = Rc::new(a);
    let (count, reader) = counter();
    event_loop.add_reader(&*a, reader).unwrap();
    let (remover, fd) = (event_loop.event_loop.clone(), a.clone());
    event_loop.call_soon(move || assert!(remover.remove_reader(&*fd).unwrap()));
    event_loop.ticks(3);
    assert_eq!(count.get(), 0);
}

/// FDW-008
fn a_number_and_its_owner_are_the_same(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let number = a.as_raw_fd();
    let by_number = by_number(number);
    event_loop.add_reader(&a, || ()).unwrap();
    event_loop.add_writer(&a, || ()).unwrap();
    assert!(event_loop.remove_reader(&number).unwrap());
    assert!(event_loop.remove_writer(&number).unwrap());
    event_loop.add_reader(by_number, || ()).unwrap();
    event_loop.add_writer(by_number, || ()).unwrap();
    assert!(event_loop.remove_reader(&a).unwrap());
    assert!(event_loop.remove_writer(&a).unwrap());
}

/// FDW-009
fn a_closed_loop_watches_nothing(on: On) {
    let event_loop = on.event_loop();
    let ((r, _r), (w, _w)) = (pair(), pair());
    let (read, reader) = support::drop_guard();
    let (written, writer) = support::drop_guard();
    event_loop.add_reader(&r, move || _ = &read).unwrap();
    event_loop.add_writer(&w, move || _ = &written).unwrap();
    event_loop.close().unwrap();
    assert!(reader.get() && writer.get(), "close drops the callbacks");
    assert!(!event_loop.remove_reader(&r).unwrap());
    assert!(!event_loop.remove_writer(&w).unwrap());
    for refused in [event_loop.add_reader(&r, || ()), event_loop.add_writer(&w, || ())] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Runtime, "Event loop is closed"));
    }
    event_loop.set_background(&r, true);
}

/// FDW-012
fn numbers_that_are_not_open_are_refused(on: On) {
    let event_loop = on.event_loop();
    for number in [own_number(), 1_000_000_000, RawFd::MAX] {
        for refused in
            [event_loop.add_reader(by_number(number), || ()), event_loop.add_writer(by_number(number), || ())]
        {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBADF), "{number}");
        }
        assert!(!event_loop.remove_reader(&number).unwrap());
        assert!(!event_loop.remove_writer(&number).unwrap());
        event_loop.set_background(&number, true);
    }
    assert_eq!(event_loop.add_reader(by_number(-2), || ()).unwrap_err().kind(), ErrorKind::Value);
    for number in [-1, -2, RawFd::MIN] {
        assert!(!event_loop.remove_reader(&number).unwrap());
        event_loop.set_background(&number, true);
    }
}

/// FDW-013
fn a_regular_file_is_refused(on: On) {
    let event_loop = on.event_loop();
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let (guard, dropped) = support::drop_guard();
    let error = event_loop.add_reader(&file, move || _ = &guard).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert!(dropped.get());
    assert!(!event_loop.remove_reader(&file).unwrap());
    assert_eq!(event_loop.add_writer(&file, || ()).unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert!(!event_loop.remove_writer(&file).unwrap());
    event_loop.ticks(1);
}

/// FDW-014
fn a_panicking_reader_stays_and_is_reported(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (count, mut counting) = counter();
    event_loop
        .add_reader(&a, move || {
            counting();
            panic!("expected");
        })
        .unwrap();
    event_loop.ticks(3);
    let reports = event_loop.reports.take();
    assert!(count.get() >= 2);
    assert_eq!(reports.len(), count.get());
    for report in reports {
        assert!(matches!(&report.exception, Some(Error::Panicked(text)) if &**text == "expected"), "{report:?}");
        assert!(report.message.starts_with("Exception in callback"), "{report:?}");
        assert!(report.handle.is_some());
        assert_eq!(report.socket, Some(a.as_raw_fd()));
    }
    assert!(event_loop.remove_reader(&a).unwrap());
}

/// FDW-016
fn a_listener_may_be_closed_right_after_its_removal(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    event_loop.add_reader(&listener, || ()).unwrap();
    event_loop.run(asyncio::sleep(Duration::from_millis(10)));
    assert!(event_loop.remove_reader(&listener).unwrap());
    drop(listener);
    event_loop.run(asyncio::sleep(Duration::from_millis(10)));
}

fn a_callback_removes_itself(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let a = Rc::new(a);
    let (guard, dropped) = support::drop_guard();
    let (count, mut counting) = counter();
    let (remover, fd, seen) = (event_loop.event_loop.clone(), a.clone(), dropped.clone());
    event_loop
        .add_reader(&*a, move || {
            counting();
            assert!(remover.remove_reader(&*fd).unwrap());
            assert!(!seen.get(), "it still runs");
            _ = &guard;
        })
        .unwrap();
    event_loop.ticks(3);
    assert_eq!(count.get(), 1);
    assert!(dropped.get());
    assert!(!event_loop.remove_reader(&*a).unwrap());
}

fn a_callback_replaces_itself(on: On) {
    fn watch(event_loop: &EventLoop, fd: &Rc<UnixStream>, record: &Record<usize>, number: usize) {
        let (again, fd2, record) = (event_loop.clone(), fd.clone(), record.clone());
        let reader = move || {
            record.push(number);
            watch(&again, &fd2, &record, number + 1);
        };
        event_loop.add_reader(&**fd, reader).unwrap();
    }
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (a, record) = (Rc::new(a), Record::default());
    watch(&event_loop, &a, &record, 0);
    event_loop.ticks(3);
    assert_eq!(record.take(), [0, 1, 2]);
    assert!(event_loop.remove_reader(&*a).unwrap());
}

fn a_callback_adds_and_removes_the_other_direction(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (a, record) = (Rc::new(a), Record::default());
    let (looping, log, fd) = (event_loop.event_loop.clone(), record.clone(), a.clone());
    let reader = move || {
        log.push("reader");
        let (on_writer, log, fd2) = (looping.clone(), log.clone(), fd.clone());
        let writer = move || {
            log.push("writer");
            on_writer.remove_writer(&*fd2).unwrap();
        };
        // The one that is there is queued after this reader: it is taken back, and the new one comes in the next turn.
        looping.add_writer(&*fd, writer).unwrap();
    };
    event_loop.add_reader(&*a, reader).unwrap();
    event_loop.ticks(3);
    assert_eq!(record.take(), ["reader"; 3]);
    let (looping, fd) = (event_loop.event_loop.clone(), a.clone());
    event_loop.add_reader(&*a, move || looping.remove_writer(&*fd).map(drop).unwrap()).unwrap();
    event_loop.ticks(3);
    assert_eq!(record.take(), Vec::<&str>::new(), "removed before it ran");
    assert!(event_loop.remove_reader(&*a).unwrap());
    assert!(!event_loop.remove_writer(&*a).unwrap());
}

fn callbacks_are_dropped_when_they_are_removed_replaced_or_closed(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair();
    let guards: [_; 4] = std::array::from_fn(|_| support::drop_guard());
    let dropped: Vec<_> = guards.iter().map(|(_, dropped)| dropped.clone()).collect();
    let [first, second, third, fourth] = guards.map(|(guard, _)| guard);
    event_loop.add_reader(&a, move || _ = &first).unwrap();
    event_loop.add_reader(&a, move || _ = &second).unwrap();
    assert!(dropped[0].get() && !dropped[1].get());
    event_loop.remove_reader(&a).unwrap();
    assert!(dropped[1].get());
    event_loop.add_reader(&a, move || _ = &third).unwrap();
    event_loop.add_writer(&a, move || _ = &fourth).unwrap();
    event_loop.close().unwrap();
    assert!(dropped[2].get() && dropped[3].get());
}

fn the_drop_of_a_callback_may_use_the_loop(on: On) {
    /// Watches and removes when it is dropped.
    struct Busy(EventLoop, Rc<UnixStream>, Record);
    impl Drop for Busy {
        fn drop(&mut self) {
            self.2.push("dropped");
            self.0.remove_reader(&*self.1).unwrap();
            let _ = self.0.add_writer(&*self.1, || ()); // the loop may be closed
            self.0.remove_writer(&*self.1).unwrap();
        }
    }
    let event_loop = on.event_loop();
    let (a, _b) = pair();
    let (a, record) = (Rc::new(a), Record::default());
    let busy = || Busy(event_loop.event_loop.clone(), a.clone(), record.clone());
    let (first, second, third) = (busy(), busy(), busy());
    event_loop.add_reader(&*a, move || _ = &first).unwrap();
    event_loop.remove_reader(&*a).unwrap();
    event_loop.add_reader(&*a, move || _ = &second).unwrap();
    event_loop.add_reader(&*a, || ()).unwrap();
    assert!(!event_loop.remove_reader(&*a).unwrap(), "the drop has removed it");
    event_loop.add_reader(&*a, move || _ = &third).unwrap();
    event_loop.close().unwrap();
    assert_eq!(record.take(), ["dropped"; 3]);
}

fn a_reader_runs_in_a_copy_of_the_context(on: On) {
    static WHO: asyncio::ContextVar<&str> = asyncio::ContextVar::new("who");
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let (seen, context) = (Record::default(), asyncio::Context::new());
    let log = seen.clone();
    let reader = move || {
        log.push(WHO.get().unwrap());
        WHO.set("changed");
    };
    context
        .run(|| {
            WHO.set("maker");
            event_loop.add_reader(&a, reader).unwrap();
            WHO.set("later");
        })
        .unwrap();
    event_loop.ticks(2);
    assert_eq!(seen.take(), ["maker", "changed"], "it keeps its copy");
    assert_eq!(context.run(|| WHO.get().unwrap()).unwrap(), "later");
}

fn the_end_of_the_peer_is_readable(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = pair();
    let (count, reader) = counter();
    event_loop.add_reader(&a, reader).unwrap();
    event_loop.ticks(2);
    assert_eq!(count.get(), 0);
    drop(b);
    event_loop.ticks(3);
    assert!(count.get() >= 2);
}

fn a_reset_is_readable_and_writable(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = tcp_pair();
    reset(b);
    until_readable(&a);
    let (read, reader) = counter();
    let (written, writer) = counter();
    event_loop.add_reader(&a, reader).unwrap();
    event_loop.ticks(2);
    assert!(read.get() > 0);
    event_loop.remove_reader(&a).unwrap();
    event_loop.add_writer(&a, writer).unwrap();
    event_loop.ticks(2);
    assert!(written.get() > 0);
}

/// epoll reports a hang-up whatever it was asked for: a descriptor without watchers must not be asked about.
fn nothing_is_called_for_a_descriptor_without_watchers(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = pair();
    event_loop.add_reader(&a, || panic!("removed")).unwrap();
    event_loop.add_writer(&a, || panic!("removed")).unwrap();
    event_loop.remove_reader(&a).unwrap();
    event_loop.remove_writer(&a).unwrap();
    drop(b);
    let begin = Instant::now();
    assert_eq!(event_loop.run_once(Duration::from_millis(20)).unwrap(), 0);
    assert!(begin.elapsed() >= Duration::from_millis(20), "it did not wait");
}

fn duplicates_are_watched_apart(on: On) {
    let event_loop = on.event_loop();
    let (a, _b) = pair_with_a_byte();
    let copy = a.try_clone().unwrap();
    let (first, r1) = counter();
    let (second, r2) = counter();
    event_loop.add_reader(&a, r1).unwrap();
    event_loop.add_reader(&copy, r2).unwrap();
    event_loop.ticks(2);
    assert!(first.get() > 0 && second.get() > 0);
    assert!(event_loop.remove_reader(&a).unwrap());
    let (seen, before) = (first.get(), second.get());
    drop(a);
    event_loop.ticks(2);
    assert_eq!(first.get(), seen);
    assert!(second.get() > before, "the duplicate is still watched");
    let received = event_loop.event_loop.run_until_complete(event_loop.sock_recv(&copy, 10));
    assert_eq!(received.unwrap(), b"x", "ready: no wait is needed");
    assert!(event_loop.remove_reader(&copy).unwrap());
}

fn two_loops_watch_one_descriptor(on: On) {
    let (first, second) = (on.event_loop(), on.event_loop());
    let (a, _b) = pair_with_a_byte();
    let (count, reader) = counter();
    first.add_reader(&a, reader.clone()).unwrap();
    second.add_reader(&a, reader).unwrap();
    first.ticks(1);
    assert_eq!(count.get(), 1);
    second.ticks(1);
    assert_eq!(count.get(), 2);
    assert!(first.remove_reader(&a).unwrap());
    second.ticks(1);
    assert_eq!(count.get(), 3);
    assert!(second.remove_reader(&a).unwrap());
}

fn a_reused_number_is_not_the_old_reader_s(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, _b) = pair_with_a_byte();
    let old = at_number(a, number);
    let (first, r1) = counter();
    event_loop.add_reader(&old, r1).unwrap();
    drop(old);
    let (c, _d) = pair_with_a_byte();
    let new = at_number(c, number);
    event_loop.ticks(2);
    assert_eq!(first.get(), 0, "nobody watches the new one");
    let (second, r2) = counter();
    event_loop.add_reader(&new, r2).unwrap();
    event_loop.ticks(2);
    assert_eq!(first.get(), 0);
    assert!(second.get() > 0);
    assert!(event_loop.remove_reader(&new).unwrap());
    assert!(!event_loop.remove_reader(&new).unwrap());
}

fn a_reused_number_is_not_the_old_writer_s(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, _b) = pair();
    let old = at_number(a, number);
    let (guard, dropped) = support::drop_guard();
    event_loop
        .add_writer(&old, move || {
            let _guard = &guard;
            panic!("not this one's");
        })
        .unwrap();
    drop(old);
    let (c, _d) = pair_with_a_byte();
    let new = at_number(c, number);
    let (read, reader) = counter();
    event_loop.add_reader(&new, reader).unwrap();
    assert!(dropped.get(), "the old writer is forgotten");
    event_loop.ticks(3);
    assert!(read.get() > 0);
    assert!(!event_loop.remove_writer(&new).unwrap());
    assert!(event_loop.remove_reader(&new).unwrap());
}

fn removing_one_direction_of_a_closed_descriptor_does_not_watch_its_successor(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, _b) = pair();
    let old = at_number(a, number);
    event_loop.add_reader(&old, || panic!("not this one's")).unwrap();
    event_loop.add_writer(&old, || panic!("not this one's")).unwrap();
    drop(old);
    let (c, _d) = pair_with_a_byte();
    let _new = at_number(c, number);
    assert!(event_loop.remove_reader(&number).unwrap());
    event_loop.ticks(3);
    assert!(!event_loop.remove_writer(&number).unwrap(), "forgotten with its descriptor");
}

fn a_wait_on_a_reused_number_takes_the_place_of_the_old_watchers(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, _b) = pair_with_a_byte();
    let old = at_number(a, number);
    event_loop.add_reader(&old, || panic!("not this one's")).unwrap();
    event_loop.add_writer(&old, || panic!("not this one's")).unwrap();
    drop(old);
    let (c, mut d) = pair();
    let new = at_number(c, number);
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recv(&new, 100));
        begins_to_wait(waiting.as_mut()).await;
        d.write_all(b"for the new one")?;
        assert_eq!(waiting.await?, b"for the new one");
        Ok(())
    });
    event_loop.ticks(2);
    assert!(!event_loop.remove_reader(&new).unwrap());
    assert!(!event_loop.remove_writer(&new).unwrap());
}

/// Waits on what is at a number, whatever it is.
fn wait_at(event_loop: &EventLoop, number: RawFd) -> asyncio::Task<Vec<u8>> {
    let waiting = event_loop.clone();
    event_loop.create_task(async move { waiting.sock_recv(&by_number(number), 100).await })
}

fn a_watcher_on_a_reused_number_takes_the_place_of_an_old_wait(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, b) = pair();
    let mut fd = at_number(a, number);
    let task = wait_at(&event_loop, number);
    event_loop.ticks(1);
    let (c, mut d) = pair();
    rustix::io::dup2(&c, &mut fd).unwrap();
    drop((b, c));
    let (count, writer) = counter();
    event_loop.add_writer(&fd, writer).unwrap();
    event_loop.ticks(2);
    assert!(count.get() > 0);
    assert!(!task.done(), "it waits on what is there now");
    d.write_all(b"new").unwrap();
    assert_eq!(event_loop.run(task), b"new");
    assert!(event_loop.remove_writer(&fd).unwrap());
}

fn a_wait_on_a_reused_number_takes_the_place_of_an_old_wait(on: On) {
    let event_loop = on.event_loop();
    let number = own_number();
    let (a, b) = pair();
    let mut fd = at_number(a, number);
    let old = wait_at(&event_loop, number);
    event_loop.ticks(1);
    let (c, mut d) = pair();
    rustix::io::dup2(&c, &mut fd).unwrap();
    drop((b, c));
    let new = wait_at(&event_loop, number);
    event_loop.ticks(3);
    assert!(!new.done());
    assert_eq!(old.exception().unwrap().map(|error| error.kind()), Some(ErrorKind::Runtime), "it was found out");
    d.write_all(b"new").unwrap();
    assert_eq!(event_loop.run(new), b"new");
}

fn a_reader_and_a_waiting_call_exclude_each_other(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    let (count, reader) = counter();
    event_loop.add_reader(&a, reader).unwrap();
    let error = event_loop.run_until_complete(event_loop.sock_recv(&a, 10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    assert!(error.to_string().contains("has a reader"), "{error}");
    b.write_all(b"x").unwrap();
    event_loop.ticks(2);
    assert!(count.get() > 0, "the reader is still there");
    assert!(event_loop.remove_reader(&a).unwrap());

    fill(&a);
    event_loop.add_writer(&a, || ()).unwrap();
    let error = event_loop.run_until_complete(event_loop.sock_sendall(&a, b"more")).unwrap_err();
    assert!(error.kind() == ErrorKind::Runtime && error.to_string().contains("has a writer"), "{error}");
    assert!(event_loop.remove_writer(&a).unwrap());
}

fn a_reader_is_refused_for_a_wait_only_while_it_stands(on: On) {
    let event_loop = on.event_loop();
    let (a, mut b) = pair();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recv(&a, 10));
        begins_to_wait(waiting.as_mut()).await;
        let error = event_loop.add_reader(&a, || ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(!event_loop.remove_reader(&a)?);
        let (count, writer) = counter();
        event_loop.add_writer(&a, writer)?;
        turn().await;
        turn().await;
        assert!(count.get() > 0, "a wait to read does not disturb a writer");
        b.write_all(b"bytes")?;
        assert_eq!(waiting.await?, b"bytes");
        turn().await;
        assert!(event_loop.remove_writer(&a)?);
        event_loop.add_reader(&a, || ())?;
        assert!(event_loop.remove_reader(&a)?);
        Ok(())
    });
}

fn a_watched_descriptor_holds_a_virtual_clock(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    let (a, mut b) = pair();
    let begin = event_loop.time();
    let record = Record::default();
    let (log, stop) = (record.clone(), event_loop.event_loop.clone());
    event_loop.call_later(Duration::from_secs(3600), move || {
        log.push("timer");
        stop.stop();
    });
    let (log, on_reader, fd) = (record.clone(), event_loop.event_loop.clone(), a.as_fd().try_clone_to_owned().unwrap());
    let number = a.as_raw_fd();
    event_loop
        .add_reader(&a, move || {
            log.push("reader");
            assert!(on_reader.remove_reader(&number).unwrap());
            _ = &fd;
        })
        .unwrap();
    let peer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        b.write_all(b"x").unwrap();
        b
    });
    event_loop.run_forever().unwrap();
    assert_eq!(record.take(), ["reader", "timer"]);
    assert_eq!(event_loop.time() - begin, Duration::from_secs(3600));
    drop(peer.join().unwrap());

    // In the background it holds nothing, until it is said otherwise.
    let (c, _d) = pair();
    event_loop.add_reader(&c, || ()).unwrap();
    event_loop.set_background(&c, true);
    event_loop.run(asyncio::sleep(Duration::from_secs(60)));
    event_loop.set_background(&c, false);
    event_loop.call_later(Duration::from_secs(60), || ());
    event_loop.run_once(Duration::from_millis(5)).unwrap();
    assert_eq!(event_loop.time() - begin, Duration::from_secs(3660), "held");
    assert!(event_loop.remove_reader(&c).unwrap());
    event_loop.ticks(2);
    clock.advance(Duration::from_secs(60));
    event_loop.ticks(1);
}

fn many_readers_at_once(on: On) {
    crate::with_many_descriptors();
    let event_loop = on.event_loop();
    let pairs: Vec<_> = (0..300).map(|_| pair()).collect();
    let seen = Rc::new(RefCell::new(vec![0; pairs.len()]));
    for (index, (a, _)) in pairs.iter().enumerate() {
        let (seen, mut stream) = (seen.clone(), a.try_clone().unwrap());
        let reader = move || {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "level-triggered, so there is something");
            seen.borrow_mut()[index] += 1;
        };
        event_loop.add_reader(a, reader).unwrap();
    }
    for round in 1..=3 {
        pairs.iter().for_each(|(_, b)| (&*b).write_all(&[1]).unwrap());
        while seen.borrow().iter().sum::<usize>() < round * pairs.len() {
            event_loop.run_once(None).unwrap();
        }
        assert!(seen.borrow().iter().all(|count| *count == round));
    }
    pairs.iter().for_each(|(a, _)| assert!(event_loop.remove_reader(a).unwrap()));
}
