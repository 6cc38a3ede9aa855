//! Closing a loop with everything still pending: all is dropped, on the loop's thread, and nothing is lost.
use std::{
    cell::{Cell, RefCell},
    future::pending,
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::Waker,
    thread::{self, ThreadId},
    time::Duration,
};

use asyncio::{ErrorKind, EventLoop, Result, create_task, get_running_loop, sleep};

use crate::{
    MINUTE, assert_error, push,
    support::{Gate, Record, deadline, drop_guard, handler, new_loop, tick},
};

const DESTROYED: &str = "Task was destroyed but it is pending!";

/// Counts drops, and those that happen on another thread than the one it was made on.
struct Guard {
    home: ThreadId,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicUsize,
    elsewhere: AtomicUsize,
}

impl Guard {
    fn new(counts: &Arc<Counts>) -> Self {
        Guard { home: thread::current().id(), counts: counts.clone() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        if thread::current().id() != self.home {
            self.counts.elsewhere.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Counts {
    #[track_caller]
    fn assert_all_here(&self, expected: usize) {
        assert_eq!(self.dropped.load(Ordering::SeqCst), expected);
        assert_eq!(self.elsewhere.load(Ordering::SeqCst), 0, "dropped on a foreign thread");
    }
}

/// Counts the reports of destroyed tasks, each of which must come once.
fn count_destroyed(event_loop: &EventLoop) -> Rc<RefCell<Vec<usize>>> {
    let destroyed = Rc::new(RefCell::new(Vec::new()));
    let record = destroyed.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |_, report| {
        assert_eq!(report.message, DESTROYED);
        record.borrow_mut().push(report.task.as_ref().unwrap().id());
    })));
    destroyed
}

#[track_caller]
fn assert_distinct(ids: &RefCell<Vec<usize>>, expected: usize) {
    let mut ids = ids.take();
    assert_eq!(ids.len(), expected);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), expected, "a task was reported twice");
}

const TASKS: usize = 100_000;

fn close_with_tasks<F: Future<Output = Result<()>> + 'static>(make: impl Fn(&EventLoop, Guard, usize) -> F) {
    let _deadline = deadline();
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let counts = Arc::default();
    for number in 0..TASKS {
        drop(event_loop.create_task(make(&event_loop, Guard::new(&counts), number)));
    }
    tick(&event_loop);
    assert_eq!(event_loop.all_tasks().len(), TASKS);
    counts.assert_all_here(0);
    event_loop.close().unwrap();
    counts.assert_all_here(TASKS);
    assert_eq!(event_loop.all_tasks(), []);
    assert_distinct(&destroyed, TASKS);
}

#[test]
fn a_hundred_thousand_sleeping_tasks_are_closed() {
    close_with_tasks(|_, guard, number| async move {
        let _guard = guard;
        sleep(MINUTE + Duration::from_millis(number as u64 % 1000)).await
    });
}

#[test]
fn a_hundred_thousand_tasks_that_wait_for_one_future_are_closed() {
    let shared = RefCell::new(None);
    close_with_tasks(|event_loop, guard, _| {
        let mut shared = shared.borrow_mut();
        let future = shared.get_or_insert_with(|| event_loop.create_future::<()>()).clone();
        async move {
            let _guard = guard;
            (&future).await
        }
    });
}

#[test]
fn a_hundred_thousand_tasks_that_wait_for_each_other_are_closed() {
    let before = RefCell::new(None);
    close_with_tasks(|event_loop, guard, _| {
        let task = before.replace(Some(event_loop.create_future::<()>()));
        async move {
            let _guard = guard;
            match task {
                Some(before) => before.await,
                None => pending().await,
            }
        }
    });
}

#[test]
fn a_hundred_thousand_tasks_with_foreign_wakers_are_closed() {
    let gates = RefCell::new(Vec::new());
    close_with_tasks(|_, guard, _| {
        let gate = Gate::default();
        gates.borrow_mut().push(gate.clone());
        async move {
            let _guard = guard;
            gate.await;
            Ok(())
        }
    });
    // Their wakers are all still there.
    gates.take().iter().for_each(Gate::open);
}

#[test]
fn tasks_that_never_ran_are_dropped_and_reported_as_well() {
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let counts = Arc::default();
    let kept: Vec<_> = (0..10)
        .map(|_| {
            let guard = Guard::new(&counts);
            event_loop.create_task(async move {
                let _guard = guard;
                unreachable!("it never runs");
                #[expect(unreachable_code, reason = "fixes the type")]
                asyncio::ok(())
            })
        })
        .collect();
    event_loop.close().unwrap();
    counts.assert_all_here(10);
    assert_distinct(&destroyed, 10);
    for task in kept {
        assert!(task.done() && task.cancelled());
        assert_error(task.result(), ErrorKind::Cancelled, "cancelled");
    }
}

#[test]
fn a_detached_task_that_nothing_can_wake_is_dropped_and_reported() {
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let counts = Arc::default();
    for _ in 0..10 {
        let guard = Guard::new(&counts);
        drop(event_loop.create_task(async move {
            let _guard = guard;
            pending::<Result<()>>().await
        }));
    }
    tick(&event_loop);
    tick(&event_loop);
    event_loop.close().unwrap();
    counts.assert_all_here(10);
    assert_distinct(&destroyed, 10);
}

#[test]
fn a_cancelled_task_that_has_not_noticed_is_dropped() {
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let counts = Arc::default();
    let guard = Guard::new(&counts);
    let task = event_loop.create_task(async move {
        let _guard = guard;
        // It would swallow the cancellation and go on for ever.
        while sleep(MINUTE).await.is_err() {}
        Ok(())
    });
    tick(&event_loop);
    task.cancel();
    event_loop.close().unwrap();
    counts.assert_all_here(1);
    assert_distinct(&destroyed, 1);
    assert!(task.cancelled());
}

#[test]
fn a_task_that_ends_while_the_loop_closes_is_reported_once() {
    // One task's drop completes another's future: the other must not run any more.
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let (record, future) = (Record::default(), event_loop.create_future());
    struct SetResult(asyncio::Future<()>);
    impl Drop for SetResult {
        fn drop(&mut self) {
            let _ = self.0.set_result(());
        }
    }
    let setter = SetResult(future.clone());
    drop(event_loop.create_task(async move {
        let _setter = setter;
        pending::<Result<()>>().await
    }));
    let ran = push(&record, "went on");
    drop(event_loop.create_task(async move {
        future.await?;
        ran();
        Ok(())
    }));
    tick(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(record.len(), 0);
    assert_distinct(&destroyed, 2);
}

/// What foreign threads do with a waker while its loop closes.
fn disturb(wakers: &mpsc::Receiver<Waker>) {
    let mut kept = Vec::new();
    for (number, waker) in wakers.iter().enumerate() {
        match number % 5 {
            0 => waker.wake(),
            1 => waker.wake_by_ref(),
            2 => drop(waker),
            3 => {
                let clone = waker.clone();
                waker.wake();
                kept.push(clone);
            }
            _ => {
                kept.push(waker);
                if kept.len() > 20 {
                    kept.drain(..).for_each(Waker::wake);
                }
            }
        }
    }
}

#[test]
fn foreign_threads_wake_and_drop_wakers_while_loops_close() {
    let _deadline = deadline();
    const ROUNDS: usize = 10_000;
    const TASKS: usize = 3;
    let counts = Arc::default();
    let (senders, threads): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (send, receive) = mpsc::channel();
            (send, thread::spawn(move || disturb(&receive)))
        })
        .unzip();
    for round in 0..ROUNDS {
        let selector = asyncio::selector::ParkSelector::new();
        let event_loop = EventLoop::builder().selector(selector).build().unwrap();
        let destroyed = count_destroyed(&event_loop);
        let gates: Vec<_> = (0..TASKS).map(|_| Gate::default()).collect();
        let mut tasks = Vec::new();
        for (number, gate) in gates.iter().enumerate() {
            let (guard, gate) = (Guard::new(&counts), gate.clone());
            let task = event_loop.create_task(async move {
                let _guard = guard;
                gate.await;
                Ok(())
            });
            // Some are detached, so that a foreign thread may hold the last reference.
            if (round + number) % 2 == 0 {
                tasks.push(task);
            }
        }
        tick(&event_loop);
        for gate in gates {
            let waker = gate.waker().unwrap();
            drop(gate);
            for sender in &senders {
                sender.send(waker.clone()).unwrap();
            }
        }
        match round % 3 {
            0 => event_loop.close().unwrap(),
            // The coroutines are polled again before they are dropped.
            1 => tick(&event_loop),
            _ => {}
        }
        // The last handle closes the loop.
        drop(event_loop);
        assert!(tasks.iter().all(|task| task.done() && task.cancelled()));
        counts.assert_all_here((round + 1) * TASKS);
        assert_distinct(&destroyed, TASKS);
    }
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    counts.assert_all_here(ROUNDS * TASKS);
}

#[test]
fn foreign_threads_hand_in_work_while_loops_close() {
    let _deadline = deadline();
    const ROUNDS: usize = 1000;
    let ran_elsewhere = Arc::new(AtomicUsize::new(0));
    let (send, receive) = mpsc::channel::<(asyncio::ThreadsafeLoop, ThreadId, mpsc::Sender<()>)>();
    let wrong = ran_elsewhere.clone();
    let thread = thread::spawn(move || {
        for (threadsafe, home, ready) in receive {
            let mut calls = Vec::new();
            let mut coroutines = Vec::new();
            for number in 0..20 {
                let wrong = wrong.clone();
                calls.push(threadsafe.call_soon_threadsafe(move || {
                    wrong.fetch_add(usize::from(thread::current().id() != home), Ordering::SeqCst);
                }));
                let counts = Arc::default();
                coroutines.push(threadsafe.run_coroutine_threadsafe(async move || {
                    // Made on the loop's thread, so it must be dropped there.
                    let _guard = Guard::new(&counts);
                    sleep(MINUTE).await
                }));
                if number == 5 {
                    ready.send(()).unwrap();
                }
            }
            // Every one of them is settled when the loop is gone: none may hang.
            for call in calls {
                let _ = call.result(None);
            }
            for coroutine in coroutines {
                let kind = coroutine.result(None).unwrap_err().kind();
                assert!(matches!(kind, ErrorKind::Cancelled | ErrorKind::Runtime), "{kind:?}");
            }
        }
    });
    for round in 0..ROUNDS {
        let selector = asyncio::selector::ParkSelector::new();
        let event_loop = EventLoop::builder().selector(selector).build().unwrap();
        count_destroyed(&event_loop);
        let (ready, is_ready) = mpsc::channel();
        send.send((event_loop.threadsafe(), thread::current().id(), ready)).unwrap();
        is_ready.recv().unwrap();
        for _ in 0..round % 3 {
            tick(&event_loop);
        }
        event_loop.close().unwrap();
        assert_eq!(event_loop.all_tasks(), []);
    }
    drop(send);
    thread.join().unwrap();
    assert_eq!(ran_elsewhere.load(Ordering::SeqCst), 0);
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn what_a_drop_spawns_while_the_loop_closes_is_refused() {
    let _deadline = deadline();
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = handler(&event_loop);
    let ((inner_guard, inner_dropped), (soon_guard, soon_dropped)) = (drop_guard(), drop_guard());
    let mut guards = Some((inner_guard, soon_guard));
    let (inside, log) = (event_loop.clone(), record.clone());
    let on_drop = OnDrop(move || {
        let (inner_guard, soon_guard) = guards.take().unwrap();
        let task = inside.create_task(async move {
            drop(inner_guard);
            Ok(())
        });
        log.push(task.result().unwrap_err().to_string());
        inside.call_soon(move || drop(soon_guard)).cancel();
        log.push(inside.close().map_or_else(|error| error.to_string(), |()| "closed".into()));
        log.push(inside.run_forever().unwrap_err().to_string());
        drop(inside.call_soon_threadsafe(|| ()));
        // Nobody looks at this one.
        drop(create_task(async { Ok(()) }));
    });
    drop(event_loop.create_task(async move {
        let _on_drop = on_drop;
        pending::<Result<()>>().await
    }));
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(inner_dropped.get() && soon_dropped.get());
    assert_eq!(record.take(), ["Event loop is closed", "closed", "Event loop is closed"]);
    assert_eq!(event_loop.all_tasks(), []);
    let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages[0], DESTROYED);
    assert!(messages[1..].iter().all(|message| message.contains("never retrieved")), "{messages:?}");
}

#[test]
fn drops_that_touch_other_tasks_and_callbacks_do_no_harm() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let destroyed = count_destroyed(&event_loop);
    let counts = Arc::default();
    let gates: Vec<_> = (0..20).map(|_| Gate::default()).collect();
    let tasks: Rc<RefCell<Vec<asyncio::Task<()>>>> = Rc::default();
    for number in 0..20 {
        let (guard, gate, gates, others) = (Guard::new(&counts), gates[number].clone(), gates.clone(), tasks.clone());
        let task = event_loop.create_task(async move {
            let _on_drop = OnDrop(move || {
                let _held = &guard;
                gates[(number + 7) % 20].open();
                if let Some(other) = others.borrow().get((number + 3) % 20) {
                    other.cancel();
                }
                assert!(get_running_loop().is_ok());
            });
            gate.await;
            Ok(())
        });
        tasks.borrow_mut().push(task);
    }
    tick(&event_loop);
    event_loop.close().unwrap();
    counts.assert_all_here(20);
    assert_distinct(&destroyed, 20);
    assert!(tasks.take().iter().all(asyncio::Task::cancelled));
}

#[test]
fn a_drop_that_schedules_more_and_more_ends() {
    let _deadline = deadline();
    fn again(event_loop: EventLoop, left: usize) -> impl FnOnce() + 'static {
        let on_drop = OnDrop(move || {
            if left > 0 {
                event_loop.call_soon(again(event_loop.clone(), left - 1)).cancel();
            }
        });
        move || drop(on_drop)
    }
    let event_loop = new_loop();
    event_loop.call_soon(again(event_loop.clone(), 100));
    event_loop.call_later(MINUTE, again(event_loop.clone(), 100));
    event_loop.close().unwrap();
}

#[test]
fn panics_in_drops_are_reported_one_by_one_while_the_rest_is_closed() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let counts = Arc::default();
    let panicking = |text: &'static str| {
        let guard = Guard::new(&counts);
        OnDrop(move || {
            let _held = &guard;
            panic!("{text}");
        })
    };
    let sockets: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
    let futures: Vec<_> = (0..2).map(|_| event_loop.create_future::<()>()).collect();
    for round in 0..2 {
        let (a, b, c, d, e, f) = (
            panicking("soon"),
            panicking("later"),
            panicking("reader"),
            panicking("done"),
            panicking("task"),
            panicking("writer"),
        );
        event_loop.call_soon(move || drop(a));
        event_loop.call_later(MINUTE, move || drop(b));
        event_loop
            .add_reader(&sockets[round].0, move || {
                let _ = &c;
            })
            .unwrap();
        event_loop
            .add_writer(&sockets[round].0, move || {
                let _ = &f;
            })
            .unwrap();
        futures[round].add_done_callback(move |_| drop(d));
        drop(event_loop.create_task(async move {
            let _panicking = e;
            pending::<Result<()>>().await
        }));
    }
    event_loop.close().unwrap();
    counts.assert_all_here(12);
    let mut panics: Vec<_> = reports
        .take()
        .into_iter()
        .filter(|report| report.message != DESTROYED)
        .map(|report| report.exception.unwrap().to_string())
        .collect();
    panics.sort_unstable();
    let expected = ["done", "later", "reader", "soon", "task", "writer"];
    assert!(panics.iter().eq(expected.iter().flat_map(|text| [text; 2])), "{panics:?}");
    assert!(event_loop.is_closed() && !event_loop.is_running());
    assert!(get_running_loop().is_err());
}

#[test]
fn an_exception_handler_that_panics_does_not_keep_the_loop_from_closing() {
    let event_loop = new_loop();
    let counts = Arc::default();
    event_loop.set_exception_handler(Some(Rc::new(|_, _| panic!("in the handler"))));
    for _ in 0..3 {
        let guard = Guard::new(&counts);
        drop(event_loop.create_task(async move {
            let _guard = guard;
            pending::<Result<()>>().await
        }));
    }
    let ((), logs) = crate::support::logs(|| event_loop.close().unwrap());
    counts.assert_all_here(3);
    assert_eq!(logs.len(), 3);
    assert!(logs.iter().all(|(_, text)| text.starts_with("Unhandled error in exception handler")), "{logs:?}");
}

#[test]
fn without_a_handler_destroyed_tasks_are_logged() {
    let event_loop = new_loop();
    drop(event_loop.create_task(async { pending::<Result<()>>().await }));
    let ((), logs) = crate::support::logs(|| event_loop.close().unwrap());
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].0, tracing::Level::ERROR);
    assert!(logs[0].1.starts_with(DESTROYED), "{logs:?}");
}

#[test]
fn everything_a_loop_holds_is_released_by_close() {
    let held = Rc::new(());
    let event_loop = new_loop();
    handler(&event_loop);
    let (socket, _other) = UnixStream::pair().unwrap();
    let hold = || {
        let held = held.clone();
        move || {
            let _ = &held;
        }
    };
    event_loop.call_soon(hold());
    event_loop.call_later(MINUTE, hold());
    event_loop.add_reader(&socket, hold()).unwrap();
    let (future, callback) = (event_loop.create_future::<()>(), hold());
    future.add_done_callback(move |_| callback());
    let factory = held.clone();
    event_loop.set_task_factory(Some(Rc::new(move |_, _| {
        let _ = &factory;
        Ok(())
    })));
    let (in_task, in_wrapped) = (held.clone(), held.clone());
    drop(event_loop.create_task(async move {
        let _held = in_task;
        sleep(MINUTE).await
    }));
    drop(event_loop.create_task(async move {
        let _held = in_wrapped;
        create_task(async { sleep(MINUTE).await }).await
    }));
    tick(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_task_that_holds_its_own_loop_is_released_by_close() {
    let event_loop = new_loop();
    count_destroyed(&event_loop);
    let threadsafe = event_loop.threadsafe();
    let (inside, polled) = (event_loop.clone(), Rc::new(Cell::new(false)));
    let seen = polled.clone();
    drop(event_loop.create_task(async move {
        seen.set(inside.is_running());
        pending::<()>().await;
        drop(inside);
        Ok(())
    }));
    tick(&event_loop);
    assert!(polled.get());
    event_loop.close().unwrap();
    assert!(threadsafe.is_closed());
    assert_eq!(Rc::strong_count(&polled), 1);
}

/// The step of an eager task runs in its own loop or waits for its turn.
#[test]
fn an_eager_task_made_while_another_loop_is_closed_ends_in_its_own_loop() {
    struct Spawns(EventLoop);
    impl Drop for Spawns {
        fn drop(&mut self) {
            drop(self.0.task(async { asyncio::ok(()) }).eager_start(true).start());
        }
    }
    let _deadline = deadline();
    let (one, other) = (new_loop(), new_loop());
    let reports = handler(&other);
    let spawns = Spawns(one.clone());
    drop(other.create_task(async move {
        let _spawns = spawns;
        pending::<()>().await;
        Ok(())
    }));
    other.run_once(Duration::ZERO).unwrap();
    one.call_soon(move || other.close().unwrap());
    one.run_once(Duration::ZERO).unwrap();
    one.run_once(Duration::ZERO).unwrap();
    assert_eq!(one.all_tasks(), []);
    one.close().unwrap();
    assert_eq!(reports.take().len(), 1, "the pending task of the other loop");
}
