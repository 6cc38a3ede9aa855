//! Running, stopping, nesting, and what a closed loop still does.
use std::{
    cell::Cell,
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, get_running_loop, sleep};

use crate::{
    MINUTE, MS, SECOND, assert_error, push, start_chain,
    support::{Record, deadline, drop_guard, handler, new_loop, tick, virtual_loop},
    value_error,
};

const STOPPED: &str = "Event loop stopped before Future completed.";
const CLOSED: &str = "Event loop is closed";

/// LOOP-001
#[test]
fn run_until_complete_gives_the_result_and_runs_only_meanwhile() {
    let event_loop = new_loop();
    assert!(!event_loop.is_running());
    let result = event_loop.run_until_complete(async {
        let was_running = event_loop.is_running();
        sleep(Duration::ZERO).await?;
        Ok((42, was_running, event_loop.is_running()))
    });
    assert_eq!(result.unwrap(), (42, true, true));
    assert!(!event_loop.is_running());
}

/// LOOP-002
#[test]
fn a_failed_run_leaves_a_loop_that_runs_again() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let failed = event_loop.run_until_complete(async { Err::<(), _>(value_error("aaa")) });
    assert_error(failed, ErrorKind::Value, "aaa");
    assert!(!event_loop.is_running());
    let seven = event_loop.run_until_complete(async {
        sleep(Duration::ZERO).await?;
        Ok(7)
    });
    assert_eq!(seven.unwrap(), 7);
    assert!(reports.take().is_empty(), "whoever runs it receives the error");
}

/// LOOP-003
#[test]
fn a_done_main_future_takes_two_iterations() {
    let (event_loop, record) = (new_loop(), Record::default());
    let future = event_loop.create_future();
    future.set_result(1).unwrap();
    start_chain(&event_loop, &record);
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 1);
    assert_eq!(record.take(), [0, 1]);
}

#[test]
fn a_coroutine_that_ends_at_once_takes_two_iterations_as_well() {
    let (event_loop, record) = (new_loop(), Record::default());
    start_chain(&event_loop, &record);
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
    assert_eq!(record.take(), [0, 1]);
}

#[test]
fn what_the_last_step_of_main_schedules_still_runs() {
    let (event_loop, record) = (new_loop(), Record::default());
    let main = async {
        event_loop.call_soon(push(&record, "scheduled by the last step"));
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
    assert_eq!(record.take(), ["scheduled by the last step"]);
}

/// LOOP-005
#[test]
fn a_stopped_run_leaves_its_task_to_the_next_one() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let stopper = event_loop.clone();
    let mut task = event_loop.create_task(async move {
        stopper.stop();
        sleep(100 * MS).await?;
        Ok(5)
    });
    assert_error(event_loop.run_until_complete(&mut task), ErrorKind::Runtime, STOPPED);
    assert!(!task.done() && !task.cancelled());
    assert_eq!(event_loop.run_until_complete(&mut task).unwrap(), 5);
}

#[test]
fn a_stopped_run_drops_a_main_future_that_it_owns_before_it_returns() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = drop_guard();
    let stopper = event_loop.clone();
    let stopped = event_loop.run_until_complete(async move {
        let _guard = guard;
        stopper.stop();
        sleep(MINUTE).await
    });
    assert_error(stopped, ErrorKind::Runtime, STOPPED);
    assert!(dropped.get());
    assert_eq!(event_loop.all_tasks(), []);
    tick(&event_loop);
    assert_eq!(event_loop.next_deadline(), None, "its timer is gone with it");
    assert_eq!(event_loop.run_until_complete(async { Ok(3) }).unwrap(), 3);
    assert!(reports.take().is_empty());
}

/// LOOP-007
#[test]
fn a_loop_stopped_before_it_runs_makes_one_iteration() {
    let (event_loop, record) = (new_loop(), Record::default());
    start_chain(&event_loop, &record);
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(record.items(), [0]);
    tick(&event_loop);
    assert_eq!(record.take(), [0, 1], "the rest stayed queued");
}

#[test]
fn two_stops_are_one() {
    let (event_loop, record) = (new_loop(), Record::default());
    start_chain(&event_loop, &record);
    event_loop.stop();
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
    assert_eq!(record.take(), [0, 1, 2]);
}

/// LOOP-008
#[test]
fn a_loop_stopped_before_it_runs_does_not_wait() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let timer = event_loop.call_later(MINUTE, || ());
    event_loop.stop();
    let begin = Instant::now();
    event_loop.run_forever().unwrap();
    assert!(begin.elapsed() < SECOND / 2);
    assert!(!timer.cancelled());
    assert_eq!(event_loop.next_deadline(), Some(timer.when()), "it has not run");
}

#[test]
fn a_stopped_virtual_loop_does_not_jump() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    event_loop.call_later(MINUTE, push(&record, "a minute later"));
    let begin = event_loop.time();
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(event_loop.time(), begin);
    assert_eq!(record.len(), 0);
}

/// LOOP-010
#[test]
fn stop_lets_the_rest_of_the_batch_run_and_no_more() {
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.call_soon(push(&record, 1));
    let stopper = event_loop.clone();
    event_loop.call_soon(move || stopper.stop());
    let (scheduler, numbers) = (event_loop.clone(), record.clone());
    event_loop.call_soon(move || {
        numbers.push(2);
        scheduler.call_soon(push(&numbers, 3));
    });
    event_loop.run_forever().unwrap();
    assert_eq!(record.items(), [1, 2]);
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2, 3]);
}

/// LOOP-011
#[test]
fn the_one_iteration_of_a_stopped_loop_runs_timers_that_are_due() {
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.call_at(event_loop.time() - SECOND, push(&record, "t"));
    event_loop.call_soon(push(&record, "s"));
    event_loop.stop();
    event_loop.run_forever().unwrap();
    assert_eq!(record.take(), ["s", "t"]);
}

/// LOOP-012
#[test]
fn run_until_complete_on_a_stopped_loop_fails_once() {
    let _deadline = deadline();
    let event_loop = new_loop();
    event_loop.stop();
    assert_error(event_loop.run_until_complete(sleep(10 * MS)), ErrorKind::Runtime, STOPPED);
    let seven = event_loop.run_until_complete(async {
        sleep(10 * MS).await?;
        Ok(7)
    });
    assert_eq!(seven.unwrap(), 7);
}

/// LOOP-013
#[test]
fn a_running_loop_cannot_be_run_again() {
    const RUNNING: &str = "This event loop is already running";
    let event_loop = new_loop();
    let flag = Cell::new(false);
    let main = async {
        let nested = event_loop.run_until_complete(async {
            flag.set(true);
            Ok(())
        });
        assert_error(nested, ErrorKind::Runtime, RUNNING);
        assert_error(event_loop.run_forever(), ErrorKind::Runtime, RUNNING);
        assert_error(event_loop.run_once(Duration::ZERO), ErrorKind::Runtime, RUNNING);
        assert!(event_loop.is_running());
        sleep(Duration::ZERO).await
    };
    event_loop.run_until_complete(main).unwrap();
    assert!(!flag.get());
}

#[test]
fn a_running_loop_cannot_be_run_again_from_a_callback() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (nested, errors) = (event_loop.clone(), record.clone());
    event_loop.call_soon(move || errors.push(nested.run_forever().unwrap_err().to_string()));
    tick(&event_loop);
    assert_eq!(record.take(), ["This event loop is already running"]);
    tick(&event_loop);
}

/// LOOP-014
#[test]
fn another_loop_cannot_run_inside_a_running_one() {
    const ANOTHER: &str = "Cannot run the event loop while another loop is running";
    let event_loop = new_loop();
    let result = event_loop.run_until_complete(async {
        let other = new_loop();
        assert_error(other.run_forever(), ErrorKind::Runtime, ANOTHER);
        assert_error(other.run_until_complete(async { Ok(()) }), ErrorKind::Runtime, ANOTHER);
        assert_error(other.run_once(Duration::ZERO), ErrorKind::Runtime, ANOTHER);
        assert!(!other.is_running());
        assert!(get_running_loop()? == event_loop);
        other.close()?;
        assert!(get_running_loop()? == event_loop, "closing another loop changes nothing either");
        sleep(Duration::ZERO).await?;
        assert!(get_running_loop()? == event_loop);
        Ok(9)
    });
    assert_eq!(result.unwrap(), 9);
}

/// LOOP-015
#[test]
fn a_running_loop_cannot_be_closed() {
    let (event_loop, record) = (new_loop(), Record::default());
    let main = async {
        assert_error(event_loop.close(), ErrorKind::Runtime, "Cannot close a running event loop");
        assert!(!event_loop.is_closed());
        event_loop.call_soon(push(&record, "still works"));
        sleep(Duration::ZERO).await
    };
    event_loop.run_until_complete(main).unwrap();
    assert_eq!(record.take(), ["still works"]);
    event_loop.close().unwrap();
}

/// LOOP-016
#[test]
fn a_loop_can_be_closed_again_but_not_run_again() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    for _ in 0..3 {
        event_loop.close().unwrap();
        assert!(event_loop.is_closed());
    }
    assert_error(event_loop.run_forever(), ErrorKind::Runtime, CLOSED);
    assert_error(event_loop.run_until_complete(future), ErrorKind::Runtime, CLOSED);
    assert_error(event_loop.run_once(Duration::ZERO), ErrorKind::Runtime, CLOSED);
    assert!(!event_loop.is_running());
}

/// Polls once, without a loop.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// LOOP-017
#[test]
fn a_closed_loop_takes_no_work() {
    let event_loop = new_loop();
    event_loop.close().unwrap();
    let reports = handler(&event_loop);
    let guards: Vec<_> = (0..6).map(|_| drop_guard()).collect();
    let (guards, dropped): (Vec<_>, Vec<_>) = guards.into_iter().unzip();
    let mut guards = guards.into_iter();
    let mut guard = || guards.next().unwrap();
    let (g0, g1, g2, g3, g4, g5) = (guard(), guard(), guard(), guard(), guard(), guard());

    let soon = event_loop.call_soon(move || drop(g0));
    let threadsafe = event_loop.call_soon_threadsafe(move || drop(g1));
    let later = event_loop.call_later(SECOND, move || drop(g2));
    let at = event_loop.call_at(event_loop.time(), move || drop(g3));
    let task = event_loop.create_task(async move {
        drop(g4);
        Ok(())
    });
    let job = event_loop.run_in_executor(None, move || drop(g5));
    let dropped: Vec<_> = dropped.iter().map(|dropped| dropped.get()).collect();
    assert_eq!(dropped, [true; 6], "what cannot run is dropped at once");
    assert!(task.done() && job.done());

    assert_error(poll_once(soon).unwrap(), ErrorKind::Runtime, CLOSED);
    assert_error(poll_once(threadsafe).unwrap(), ErrorKind::Runtime, CLOSED);
    assert_error(poll_once(later).unwrap(), ErrorKind::Runtime, CLOSED);
    assert_error(poll_once(at).unwrap(), ErrorKind::Runtime, CLOSED);
    assert_error(poll_once(task).unwrap(), ErrorKind::Runtime, CLOSED);
    assert_error(poll_once(job).unwrap(), ErrorKind::Runtime, CLOSED);
    // This is no main thread, and yet it is the loop's state that is complained of.
    assert_error(event_loop.add_signal_handler(libc::SIGTERM, || ()), ErrorKind::Runtime, CLOSED);
    assert!(reports.take().is_empty(), "everything was looked at");
}

#[test]
fn a_refusal_of_a_closed_loop_that_nobody_looks_at_is_reported() {
    let event_loop = new_loop();
    event_loop.close().unwrap();
    let reports = handler(&event_loop);
    drop(event_loop.call_soon(|| ()));
    drop(event_loop.call_later(SECOND, || ()));
    drop(event_loop.create_task(async { Ok(()) }));
    let errors: Vec<_> = reports.take().into_iter().map(|report| report.exception.unwrap().to_string()).collect();
    assert_eq!(errors, [CLOSED; 3]);
}

#[test]
fn a_closed_loop_watches_no_descriptors() {
    let event_loop = new_loop();
    event_loop.close().unwrap();
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_error(event_loop.add_reader(&one, || ()), ErrorKind::Runtime, CLOSED);
    assert_error(event_loop.add_writer(&one, || ()), ErrorKind::Runtime, CLOSED);
    assert!(!event_loop.remove_reader(&one).unwrap());
    assert!(!event_loop.remove_writer(&one).unwrap());
}

/// LOOP-019
#[test]
fn close_drops_what_is_scheduled_and_runs_none_of_it() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (soon, later) = (drop_guard(), drop_guard());
    let (ran, guard) = (record.clone(), soon.0);
    event_loop.call_soon(move || {
        ran.push("soon");
        drop(guard);
    });
    let (ran, guard) = (record.clone(), later.0);
    event_loop.call_later(MINUTE, move || {
        ran.push("later");
        drop(guard);
    });
    assert!(!soon.1.get() && !later.1.get());
    event_loop.close().unwrap();
    assert!(soon.1.get() && later.1.get());
    assert_eq!(record.len(), 0);
}

#[test]
fn close_drops_done_callbacks_readers_and_calls_of_other_threads() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let (done, reader, remote) = (drop_guard(), drop_guard(), drop_guard());
    let future = event_loop.create_future::<()>();
    let (ran, guard) = (record.clone(), done.0);
    future.add_done_callback(move |_| {
        ran.push("done callback");
        drop(guard);
    });
    let (ran, guard) = (record.clone(), reader.0);
    event_loop
        .add_reader(&one, move || {
            ran.push("reader");
            let _ = &guard;
        })
        .unwrap();
    let (threadsafe, guard) = (event_loop.threadsafe(), remote.0);
    thread::spawn(move || drop(threadsafe.call_soon_threadsafe(move || drop(guard)))).join().unwrap();
    event_loop.close().unwrap();
    assert!(done.1.get() && reader.1.get() && remote.1.get());
    assert_eq!(record.len(), 0);
}

/// LOOP-020
#[test]
fn a_closed_loop_still_has_futures_and_time() {
    let event_loop = new_loop();
    let before = event_loop.time();
    event_loop.close().unwrap();
    let future = event_loop.create_future();
    future.set_result(3).unwrap();
    assert_eq!(future.result().unwrap(), 3);
    assert!(event_loop.time() >= before);
    event_loop.stop();
    assert!(!event_loop.is_running());
}

/// LOOP-022
#[test]
fn a_loop_does_not_wait_for_a_future_of_another() {
    const DIFFERENT: &str = "The future belongs to a different loop than the one specified as the loop argument";
    let _deadline = deadline();
    let (a, b) = (new_loop(), new_loop());
    let mut future = a.create_future::<u8>();
    assert_error(b.run_until_complete(&mut future), ErrorKind::Value, DIFFERENT);
    assert!(!future.done());
    assert_error(b.run_until_complete(async { (&future).await }), ErrorKind::Value, DIFFERENT);
    assert!(!future.done());

    let mut task = a.create_task(async { Ok(1) });
    assert_error(b.run_until_complete(&mut task), ErrorKind::Value, DIFFERENT);
    assert!(!task.done());
    let mut handle = a.call_soon(|| 2);
    assert_error(b.run_until_complete(&mut handle), ErrorKind::Value, DIFFERENT);

    let (setter, value) = (future.clone(), 3);
    a.call_soon(move || setter.set_result(value));
    assert_eq!(a.run_until_complete(future).unwrap(), 3, "in its own loop it goes on");
    assert_eq!(a.run_until_complete(task).unwrap(), 1);
    assert_eq!(a.run_until_complete(handle).unwrap(), 2);
}

/// LOOP-026
#[test]
fn a_second_thread_runs_a_loop_of_its_own_meanwhile() {
    let _deadline = deadline();
    let a = new_loop();
    let (threadsafe, (send, receive)) = (a.threadsafe(), mpsc::channel());
    let main = async {
        let thread = thread::spawn(move || {
            let b = new_loop();
            let result = b.run_until_complete(async {
                sleep(10 * MS).await?;
                Ok((5, get_running_loop()? == b))
            });
            send.send(result.unwrap()).unwrap();
            threadsafe.stop();
        });
        a.run_in_executor(None, move || thread.join().unwrap()).await?;
        assert!(get_running_loop()? == a);
        Ok(())
    };
    // The stop of the other thread comes in some iteration of this one, perhaps the last.
    let _ = a.run_until_complete(main);
    assert_eq!(receive.recv().unwrap(), (5, true));
}

#[test]
fn stop_inside_a_coroutine_ends_run_forever() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (stopper, seen) = (event_loop.clone(), record.clone());
    let _task = event_loop.create_task(async move {
        stopper.stop();
        seen.push("stopped");
        Ok(())
    });
    event_loop.run_forever().unwrap();
    assert_eq!(record.take(), ["stopped"]);
}

#[test]
fn the_last_handle_of_an_open_loop_closes_it() {
    let event_loop = new_loop();
    let threadsafe = event_loop.threadsafe();
    let (guard, dropped) = drop_guard();
    event_loop.call_soon(move || drop(guard));
    let clone = event_loop.clone();
    drop(event_loop);
    assert!(!threadsafe.is_closed() && !dropped.get());
    drop(clone);
    assert!(threadsafe.is_closed() && dropped.get());
}

#[test]
fn handles_of_one_loop_are_equal_and_of_two_are_not() {
    let (a, b) = (new_loop(), new_loop());
    assert!(a == a.clone() && a != b);
    assert!(a.threadsafe() == a.clone().threadsafe() && a.threadsafe() != b.threadsafe());
    assert!(a.in_context(&asyncio::copy_context()) == a);
}

#[test]
fn debug_says_how_the_loop_stands() {
    let event_loop = asyncio::EventLoop::builder().name("worker").debug(false).build().unwrap();
    assert_eq!(format!("{event_loop:?}"), "<EventLoop \"worker\" open debug=false>");
    assert_eq!(event_loop.name(), Some("worker"));
    event_loop
        .run_until_complete(async {
            assert_eq!(format!("{event_loop:?}"), "<EventLoop \"worker\" running debug=false>");
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(format!("{event_loop:?}"), "<EventLoop \"worker\" closed debug=false>");
}

#[test]
fn main_may_borrow_and_is_gone_when_the_run_returns() {
    let event_loop = new_loop();
    let text = String::from("borrowed");
    let mut seen = Vec::new();
    event_loop
        .run_until_complete(async {
            sleep(Duration::ZERO).await?;
            seen.push(text.as_str());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, ["borrowed"]);
    let counted = Rc::new(());
    let held = counted.clone();
    event_loop
        .run_until_complete(async move {
            let _held = held;
            Ok(())
        })
        .unwrap();
    assert_eq!(Rc::strong_count(&counted), 1);
}
