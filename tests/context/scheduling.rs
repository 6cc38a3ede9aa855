//! Which context callbacks and tasks run in, and how long it lives.

use std::{
    cell::{Cell, RefCell},
    io::Write,
    os::fd::AsRawFd,
    os::unix::net::UnixStream,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use asyncio::{AnyTask, Context, ContextVar, Error, ErrorKind, copy_context, current_task, sleep};

use crate::support::{self, DropGuard, Record, drop_guard, handler, new_loop, tick, virtual_loop};

fn current() -> AnyTask {
    current_task().unwrap().unwrap()
}

/// CTX-010
#[test]
fn a_task_has_a_copy_of_the_context_it_is_made_in() {
    static V: ContextVar<&str> = ContextVar::with_default("v", || "nope");
    support::run(async {
        let subtask = asyncio::create_task(async {
            sleep(Duration::from_millis(1)).await?;
            let seen = V.get()?;
            V.set("something else");
            Ok(seen)
        });
        V.set("yes");
        assert_eq!(subtask.await?, "nope");
        assert_eq!(V.get()?, "yes");
        Ok(())
    });
}

/// CTX-011
#[test]
fn a_done_callback_does_not_change_the_context_of_who_awaits() {
    static V: ContextVar<&str> = ContextVar::new("v");
    support::run(async {
        V.set("yes");
        let event_loop = asyncio::get_running_loop()?;
        let (future, seen) = (event_loop.create_future(), Rc::new(Cell::new("")));
        let in_callback = seen.clone();
        future.add_done_callback(move |_| {
            in_callback.set(V.get().unwrap());
            V.set("other");
        });
        let setter = future.clone();
        event_loop.call_soon(move || setter.set_result(()).unwrap());
        future.await?;
        assert_eq!(V.get()?, "yes");
        assert_eq!(seen.get(), "yes");
        Ok(())
    });
}

/// CTX-012
#[test]
fn successive_tasks_share_a_context_that_is_given_to_them() {
    static V: ContextVar<i32> = ContextVar::new("v");
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let context = Context::new();
        let work = async |value| {
            sleep(Duration::ZERO).await?;
            V.set(value);
            Ok(())
        };
        let first = event_loop.task(work(1)).context(&context).start();
        assert_eq!(context.get(&V), None);
        first.await?;
        assert_eq!(context.get(&V), Some(1));
        let second = event_loop.in_context(&context).create_task(work(2));
        assert_eq!(second.get_context(), context);
        second.await?;
        assert_eq!(context.get(&V), Some(2));
        assert!(V.get().is_err());
        Ok(())
    });
}

/// Each is in it for a step, so that both can be pending; what one sets the other sees.
#[test]
fn two_tasks_take_turns_in_one_context() {
    static V: ContextVar<Vec<i32>> = ContextVar::with_default("v", Vec::new);
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let context = Context::new();
        let work = async |name| {
            for round in 0..3 {
                let mut values = V.get()?;
                values.push(10 * name + round);
                V.set(values);
                sleep(Duration::ZERO).await?;
            }
            Ok(())
        };
        let first = event_loop.task(work(1)).context(&context).start();
        let second = event_loop.task(work(2)).context(&context).start();
        first.await?;
        second.await?;
        assert_eq!(context.get(&V), Some(vec![10, 20, 11, 21, 12, 22]));
        Ok(())
    });
}

/// CTX-015: all but the signal handler, which needs the main thread and has its test in `tests/signals`.
#[test]
fn callbacks_see_the_context_of_their_registration() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let record = Record::default();
    let note = |what: &'static str| {
        let record = record.clone();
        move || record.push((what, V.get().unwrap()))
    };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();

    V.set(1);
    event_loop.call_soon(note("soon"));
    event_loop.call_later(Duration::from_millis(1), note("later"));
    event_loop.call_at(event_loop.time() + Duration::from_millis(2), note("at"));
    event_loop.call_soon_threadsafe(|| THREADSAFE.with(|seen| seen.set(V.get().unwrap())));
    event_loop.threadsafe().call_soon_threadsafe(|| REMOTE.with(|seen| seen.set(V.get().unwrap())));
    thread_local!(static THREADSAFE: Cell<i32> = const { Cell::new(0) });
    thread_local!(static REMOTE: Cell<i32> = const { Cell::new(0) });
    event_loop.add_reader(&ours, note("reader")).unwrap();
    event_loop.add_writer(&ours, note("writer")).unwrap();
    let future = event_loop.create_future();
    let done = note("done callback");
    future.add_done_callback(move |_| done());
    let task = event_loop.create_task(async { V.get() });
    let task_done = note("task's done callback");
    task.add_done_callback(move |_| task_done());
    V.set(2);

    future.set_result(()).unwrap();
    tick(&event_loop);
    event_loop.remove_reader(&ours).unwrap();
    event_loop.remove_writer(&ours).unwrap();
    event_loop.run_until_complete(sleep(Duration::from_millis(5))).unwrap();
    let mut seen = record.take();
    seen.sort_unstable();
    let all = ["at", "done callback", "later", "reader", "soon", "task's done callback", "writer"];
    assert_eq!(seen, all.map(|what| (what, 1)));
    assert_eq!((THREADSAFE.get(), REMOTE.get()), (1, 1));
    assert_eq!(task.result().unwrap(), 1);
    assert_eq!(V.get().unwrap(), 2);
}

/// From another thread it is the caller's context, and for a coroutine too.
#[test]
fn threads_hand_over_their_context() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 0);
    support::run(async {
        V.set(1);
        let remote = asyncio::get_running_loop()?.threadsafe();
        let thread = std::thread::spawn(move || {
            V.set(2);
            let callback = remote.call_soon_threadsafe(|| V.get().unwrap());
            let coroutine = remote.run_coroutine_threadsafe(async {
                let seen = V.get()?;
                V.set(4);
                sleep(Duration::ZERO).await?;
                Ok((seen, V.get()?))
            });
            V.set(3);
            (callback.result(None).unwrap(), coroutine.result(None).unwrap(), V.get().unwrap())
        });
        let seen = asyncio::to_thread(move || Ok(thread.join().unwrap())).await?;
        assert_eq!(seen, (2, (2, 4), 3));
        assert_eq!(V.get()?, 1);
        Ok(())
    });
}

/// CTX-016
#[test]
fn run_until_complete_leaves_the_context_of_the_caller_alone() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let event_loop = new_loop();
    V.set(1);
    event_loop
        .run_until_complete(async {
            assert_eq!(V.get()?, 1);
            V.set(9);
            sleep(Duration::ZERO).await?;
            assert_eq!(V.get()?, 9);
            Ok(())
        })
        .unwrap();
    assert_eq!(V.get().unwrap(), 1);
}

#[test]
fn run_until_complete_in_a_context_runs_in_that_context() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let event_loop = new_loop();
    let context = Context::new();
    let main = async {
        V.set(9);
        assert_eq!(current().get_context(), copy_of_current());
        sleep(Duration::ZERO).await
    };
    fn copy_of_current() -> Context {
        current().get_context()
    }
    event_loop.in_context(&context).run_until_complete(main).unwrap();
    assert_eq!(context.get(&V), Some(9));
    assert!(V.get().is_err());
}

/// The context itself, not a copy: what the callbacks set stays in it.
#[test]
fn in_context_schedules_in_the_context_itself() {
    static V: ContextVar<Vec<&str>> = ContextVar::with_default("v", Vec::new);
    let _deadline = support::deadline();
    let (event_loop, context) = (new_loop(), Context::new());
    let inside = event_loop.in_context(&context);
    let note = |what: &'static str| {
        move || {
            let mut values = V.get().unwrap();
            values.push(what);
            V.set(values);
        }
    };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    inside.call_soon(note("soon"));
    inside.create_task(async move {
        note("task")();
        sleep(Duration::ZERO).await?;
        note("second step")();
        Ok(())
    });
    inside.call_soon_threadsafe(note("threadsafe"));
    inside.call_later(Duration::ZERO, note("later"));
    inside.call_at(inside.time(), note("at"));
    let (read, remover, number) = (note("reader"), event_loop.clone(), ours.as_raw_fd());
    let read_once = move || {
        read();
        assert!(remover.remove_reader(&number).unwrap());
    };
    inside.add_reader(&ours, read_once).unwrap();
    assert_eq!(inside, event_loop);
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
    let mut values = context.get(&V).unwrap();
    values.sort_unstable();
    assert_eq!(values, ["at", "later", "reader", "second step", "soon", "task", "threadsafe"]);
    assert_eq!(V.get().unwrap(), Vec::<&str>::new());
    // The loop that code inside finds is not bound to the context.
    inside.call_soon(|| drop(asyncio::get_running_loop().unwrap().call_soon(|| drop(V.set(vec!["copy"])))));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(context.get(&V).unwrap().len(), 7);
}

/// Nobody can be in a context twice: the callback is dropped and reported, the task fails.
#[test]
fn what_cannot_enter_its_context_fails() {
    let (event_loop, context) = (new_loop(), Context::new());
    let reports = handler(&event_loop);
    let inside = event_loop.in_context(&context);
    let (guard, dropped) = drop_guard();
    let handle = inside.call_soon(move || drop(guard));
    let task = inside.create_task(async { Ok(()) });
    context.run(|| tick(&event_loop)).unwrap();
    assert!(dropped.get());
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("is already entered"), "{error}");
    };
    refused(task.result().unwrap_err());
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].message.starts_with("Exception in callback"));
    assert_eq!(reports[0].handle, Some(handle.any()));
    refused(reports[0].exception.clone().unwrap());
    // The context is not held by it.
    context.run(|| ()).unwrap();
}

/// A reader that could not enter once stays, and runs when it can.
#[test]
fn a_reader_waits_for_no_context_and_keeps_its_own() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 0);
    let (event_loop, context) = (new_loop(), Context::new());
    let reports = handler(&event_loop);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    event_loop.in_context(&context).add_reader(&ours, || drop(V.set(V.get().unwrap() + 1))).unwrap();
    context.run(|| tick(&event_loop)).unwrap();
    assert_eq!((reports.take().len(), context.get(&V)), (1, None));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!((reports.take().len(), context.get(&V)), (0, Some(2)));
}

/// One context for all runs: what one run sets the next one sees, and its token is still good.
#[test]
fn a_reader_has_one_context_for_all_its_runs() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 0);
    let event_loop = new_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let (record, tokens) = (Record::default(), RefCell::new(Vec::new()));
    let seen = record.clone();
    event_loop
        .add_reader(&ours, move || {
            seen.push(V.get().unwrap());
            let token = tokens.borrow_mut().pop();
            match token {
                None => tokens.borrow_mut().push(V.set(5)),
                Some(token) => V.reset(&token).unwrap(),
            }
        })
        .unwrap();
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(record.take(), [0, 5, 0, 5]);
    assert_eq!(V.get().unwrap(), 0);
}

/// A token fits the task that made it, in a later step too, and nobody else: not its creator, and not a task or callback
/// that comes to lie where the first one lay.
#[test]
fn a_token_fits_the_task_or_callback_that_made_it() {
    static V: ContextVar<i32> = ContextVar::new("v");
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::Value);
        for _ in 0..10 {
            let token = asyncio::create_task(async { Ok(V.set(1)) }).await?;
            refused(V.reset(&token).unwrap_err());
            let token = asyncio::create_task(async move { Ok(V.reset(&token).map(|()| None).unwrap_or(Some(token))) });
            let token = token.await?.expect("another task's token is refused");
            refused(event_loop.call_soon(move || V.reset(&token)).await?.unwrap_err());

            let token = event_loop.call_soon(|| V.set(1)).await?;
            refused(V.reset(&token).unwrap_err());
            refused(event_loop.call_soon(move || V.reset(&token)).await?.unwrap_err());
        }
        asyncio::create_task(async {
            let token = V.set(1);
            sleep(Duration::ZERO).await?;
            V.reset(&token)?;
            assert!(V.get().is_err());
            let token = V.set(2);
            let context = current().get_context();
            assert_eq!(context.get(&V), Some(2));
            sleep(Duration::ZERO).await?;
            V.reset(&token)?;
            assert_eq!(context.get(&V), None);
            Ok(())
        })
        .await
    });
}

/// The context of a task is one: asked for before, inside or between steps, it has what the task sets.
#[test]
fn a_task_may_look_at_its_own_context() {
    static V: ContextVar<i32> = ContextVar::new("v");
    support::run(async {
        V.set(1);
        let context = current().get_context();
        assert_eq!(context.get(&V), Some(1));
        V.set(2);
        assert_eq!(context.get(&V), Some(2));
        assert_eq!(context.run(|| ()).unwrap_err().kind(), ErrorKind::Runtime);
        sleep(Duration::ZERO).await?;
        assert_eq!(V.get()?, 2);
        assert_eq!(current().get_context(), context);
        let other = asyncio::create_task(async move {
            assert_eq!(context.get(&V), Some(2));
            context.run(|| V.set(3))?;
            Ok(())
        });
        other.await?;
        assert_eq!(V.get()?, 3);

        let task = asyncio::create_task(async {
            V.set(4);
            sleep(Duration::ZERO).await?;
            V.get()
        });
        assert_eq!(task.get_context().get(&V), Some(3));
        sleep(Duration::ZERO).await?;
        assert_eq!(task.get_context().get(&V), Some(4));
        assert_eq!(task.get_context(), task.get_context());
        assert_eq!(task.await?, 4);
        Ok(())
    });
}

/// Looking from inside of another context does not cost a task its variables.
#[test]
fn a_task_keeps_its_variables_when_it_looks_from_elsewhere() {
    static V: ContextVar<i32> = ContextVar::new("v");
    support::run(async {
        V.set(1);
        Context::new().run(|| drop(current().get_context()))?;
        sleep(Duration::ZERO).await?;
        assert_eq!(V.get()?, 1);
        let event_loop = asyncio::get_running_loop()?;
        let me = current();
        let eager = event_loop.task(async move {
            drop(me.get_context());
            V.set(2);
            Ok(())
        });
        eager.eager_start(true).start().await?;
        assert_eq!(V.get()?, 1);
        sleep(Duration::ZERO).await?;
        assert_eq!(V.get()?, 1);
        Ok(())
    });
}

/// CTX-018
#[test]
fn what_has_ended_does_not_keep_its_context() {
    static V: ContextVar<Arc<DropGuard>> = ContextVar::new("v");
    let (event_loop, _clock) = virtual_loop();
    let (guard, dropped) = drop_guard();
    let guard = Arc::new(guard);
    let kept = Rc::new(RefCell::new(None));
    let (inner, handle_place) = (guard.clone(), kept.clone());
    let task = event_loop.create_task(async move {
        V.set(inner);
        let event_loop = asyncio::get_running_loop()?;
        let handle = event_loop.call_soon(|| ());
        let timer = event_loop.call_later(Duration::from_millis(1), || ());
        let cancelled = event_loop.call_later(Duration::from_secs(1000), || ());
        cancelled.cancel();
        handle_place.replace(Some((handle, timer, cancelled)));
        Ok(())
    });
    drop(guard);
    event_loop.run_until_complete(sleep(Duration::from_millis(10))).unwrap();
    assert!(task.done() && kept.borrow().is_some(), "task and handles are kept");
    assert!(dropped.get());
}

/// Also what is dropped unrun, and the contexts that were asked for.
#[test]
fn ends_of_all_kinds_give_the_context_back() {
    static V: ContextVar<Arc<DropGuard>> = ContextVar::new("v");
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let context = || {
        let (guard, dropped) = drop_guard();
        let context = Context::new();
        context.run(|| V.set(guard.into())).unwrap();
        (context, dropped)
    };

    let (first, dropped) = context();
    let cancelled = event_loop.in_context(&first).call_soon(|| ());
    drop(first);
    cancelled.cancel();
    assert!(dropped.get());

    let (second, dropped) = context();
    let task = event_loop.in_context(&second).create_task(async { Ok(()) });
    drop(second);
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get());

    let (third, dropped) = context();
    let panics = event_loop.in_context(&third).call_soon(|| panic!("expected"));
    drop(third);
    tick(&event_loop);
    assert!(dropped.get());
    assert_eq!(reports.take().len(), 1);
    drop(panics);

    let (fourth, dropped) = context();
    let fails = event_loop.in_context(&fourth).create_task(async { Err::<(), _>(Error::other("expected")) });
    assert_eq!(fails.get_context(), fourth);
    drop(fourth);
    tick(&event_loop);
    assert!(dropped.get());
    assert!(fails.get_context().is_empty());
    assert!(fails.exception().unwrap().is_some());
}

/// What a context holds is dropped by close, although handles, tasks and futures are kept.
#[test]
fn close_gives_the_contexts_of_all_that_is_pending_back() {
    static V: ContextVar<Arc<DropGuard>> = ContextVar::new("v");
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut all = Vec::new();
    let mut context = || {
        let (guard, dropped) = drop_guard();
        all.push(dropped);
        let context = Context::new();
        context.run(|| V.set(guard.into())).unwrap();
        event_loop.in_context(&context)
    };
    let soon = context().call_soon(|| ());
    let later = context().call_later(Duration::from_secs(60), || ());
    let threadsafe = context().call_soon_threadsafe(|| ());
    let pending = context().create_task(std::future::pending::<asyncio::Result<()>>());
    let unbegun = context().create_task(async { Ok(()) });
    context().add_reader(&ours, || ()).unwrap();
    let future = event_loop.create_future::<()>();
    let (guard, dropped) = drop_guard();
    Context::new()
        .run(|| {
            V.set(guard.into());
            future.add_done_callback(|_| ());
        })
        .unwrap();
    all.push(dropped);
    tick_once_with(&event_loop, &pending);
    event_loop.close().unwrap();
    assert!(all.iter().all(|dropped| dropped.get()), "{:?}", all.iter().map(|d| d.get()).collect::<Vec<_>>());
    drop((soon, later, threadsafe, pending, unbegun, future));
    let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
    assert!(messages.iter().all(|message| message == "Task was destroyed but it is pending!"), "{messages:?}");
}

/// Looks at a task's context while it is pending, so that close finds a shared one too.
fn tick_once_with(event_loop: &asyncio::EventLoop, task: &asyncio::Task<()>) {
    assert_eq!(task.get_context().len(), 1);
    assert_eq!(task.get_loop().unwrap(), *event_loop);
}

/// What drops with a context may use the loop.
#[test]
fn the_drop_of_a_value_may_use_the_loop() {
    static V: ContextVar<Arc<OnDrop>> = ContextVar::new("v");
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let uses = Record::default();
    let value = || {
        let (event_loop, record) = (event_loop.clone(), uses.clone());
        Arc::new(OnDrop::new(move || {
            record.push(event_loop.all_tasks().len());
            event_loop.call_soon(|| ());
            event_loop.call_later(Duration::from_secs(1), || ()).cancel();
            let task = event_loop.create_task(async { Ok(()) });
            assert_eq!(task.get_context().len(), copy_context().len());
            assert_eq!(task.cancel(), !event_loop.is_closed());
        }))
    };
    let inside = |value| {
        let context = Context::new();
        context.run(|| V.set(value)).unwrap();
        event_loop.in_context(&context)
    };
    // A callback, a callback that is cancelled, a task with a bare context, one with a shared one.
    inside(value()).call_soon(|| ());
    inside(value()).call_soon(|| ()).cancel();
    let own = value();
    event_loop.create_task(async {
        V.set(own);
        sleep(Duration::ZERO).await
    });
    inside(value()).create_task(async { Ok(()) });
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(uses.take().len(), 4);
    assert!(reports.take().is_empty());
    // And what close drops.
    inside(value()).call_soon(|| ());
    inside(value()).create_task(async { Ok(()) });
    let own = value();
    event_loop.create_task(async {
        V.set(own);
        std::future::pending::<asyncio::Result<()>>().await
    });
    event_loop.close().unwrap();
    assert_eq!(uses.take().len(), 3);
}

type Action = Box<dyn FnOnce()>;

thread_local!(static ACTIONS: RefCell<Vec<Option<Action>>> = const { RefCell::new(Vec::new()) });

/// Does something on its drop; `Send`, as values of variables must be, because the action stays in the thread.
struct OnDrop(usize);

impl OnDrop {
    fn new(action: impl FnOnce() + 'static) -> Self {
        ACTIONS.with_borrow_mut(|actions| {
            actions.push(Some(Box::new(action)));
            OnDrop(actions.len() - 1)
        })
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let action = ACTIONS.with_borrow_mut(|actions| actions[self.0].take());
        action.expect("it drops once, on its thread")();
    }
}

/// A drop that panics is reported and harms nobody: who waits for the callback or task gets its result.
#[test]
fn the_drop_of_a_value_may_panic() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    static V: ContextVar<Arc<Bomb>> = ContextVar::new("v");
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let armed = || {
        let context = Context::new();
        context.run(|| V.set(Bomb.into())).unwrap();
        event_loop.in_context(&context)
    };
    let handle = armed().call_soon(|| 1);
    assert_eq!(event_loop.run_until_complete(handle).unwrap(), 1);
    let task = armed().create_task(async { Ok(2) });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 2);
    let task = event_loop.create_task(async {
        V.set(Bomb.into());
        sleep(Duration::ZERO).await?;
        Ok(3)
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 3);
    let reports = reports.take();
    let errors: Vec<_> = reports.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["bomb"; 3], "{reports:?}");
    assert_eq!(event_loop.all_tasks(), []);
    assert!(V.get().is_err());
    event_loop.close().unwrap();
}

/// A job of an executor sees the variables only if it was asked for by `to_thread`.
#[test]
fn to_thread_takes_the_context_along() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 0);
    support::run(async {
        V.set(1);
        let job = asyncio::to_thread(|| {
            let seen = V.get()?;
            V.set(7);
            Ok((seen, V.get()?))
        });
        V.set(2);
        assert_eq!(job.await?, (2, 7), "the context of the await");
        assert_eq!(V.get()?, 2);
        let event_loop = asyncio::get_running_loop()?;
        assert_eq!(event_loop.run_in_executor(None, || V.get().unwrap()).await?, 0, "and the thread is left clean");
        Ok(())
    });
}

/// asyncio's `Handle.get_context`.
#[test]
fn a_handle_gives_the_context_that_its_callback_will_see() {
    static SEEN: ContextVar<u32> = ContextVar::new("seen");
    let event_loop = new_loop();
    let given = Context::new();
    let handle = event_loop.in_context(&given).call_soon(|| SEEN.set(2));
    assert_eq!(handle.get_context(), given);
    let timer = copy_context()
        .run(|| {
            SEEN.set(1);
            event_loop.call_later(Duration::ZERO, || SEEN.get())
        })
        .unwrap();
    let context = timer.get_context();
    assert_eq!(context.get(&SEEN), Some(1));
    context.run(|| SEEN.set(3)).unwrap();
    tick(&event_loop);
    assert_eq!(given.get(&SEEN), Some(2));
    assert_eq!(event_loop.run_until_complete(timer).unwrap().unwrap(), 3, "it runs in that very context");
    assert!(handle.get_context().is_empty());
}
