//! What can be gathered, mixed as it comes.

use std::{cell::Cell, rc::Rc};

use asyncio::{
    ErrorKind, Event, Future, Queue, Result, SharedTask, ThreadsafeFuture, Timeout, all_tasks, create_task, gather,
    get_running_loop, shield, sleep, sleep_until, wait_for,
};

use crate::{
    FOREVER, MS, SECOND, after, assert_cancelled, assert_error, error, fails, run,
    support::{self, failure},
    turns,
};

#[test]
fn everything_that_can_be_awaited_is_gathered_together() {
    let (_, took) = run(async {
        let event_loop = get_running_loop()?;
        let task = create_task(after(1, 1));
        let future = Future::new();
        let shared_future = Future::new().shared();
        let shared_task = create_task(after(5, "shared")).shared();
        let any = create_task(after(2, vec![0])).any();
        let (setter, shared_setter) = (future.clone(), shared_future.clone());
        let timer = event_loop.call_later(MS * 3, move || {
            setter.set_result("future").unwrap();
            shared_setter.set_result("shared future").unwrap();
            "timer"
        });
        let queue = Rc::new(Queue::new(0));
        let getter = queue.clone();
        event_loop.call_later(MS * 4, move || queue.put_nowait('q').unwrap());
        let handle = event_loop.call_soon(|| "handle");
        let values = gather((
            after(6, "coroutine"),
            task,
            future,
            shared_future.clone(),
            shared_task.clone(),
            any,
            handle,
            timer,
            gather((after(1, "inner"), after(7, 7_u8))),
            sleep(MS * 8),
            async move { getter.get().await },
            wait_for(after(9, "limited"), SECOND),
        ))
        .await?;
        let (coroutine, one, future, shared, shared_task, (), handle, timer, inner, (), item, limited) = values;
        assert_eq!(
            (coroutine, one, future, shared, shared_task),
            ("coroutine", 1, "future", "shared future", "shared")
        );
        assert_eq!((handle, timer, inner, item, limited), ("handle", "timer", ("inner", 7), 'q', "limited"));
        assert_eq!(shared_future.await?, "shared future");
        Ok(())
    });
    assert_eq!(took, MS * 9);
}

#[test]
fn more_that_can_be_awaited_is_gathered() {
    run(async {
        let event_loop = get_running_loop()?;
        let event = Event::new();
        let (setter, waiter) = (event.clone(), event.clone());
        let (far, far_setter) = ThreadsafeFuture::pair();
        event_loop.call_later(MS, move || {
            setter.set();
            far_setter.set_result("far").unwrap();
        });
        let boxed: std::pin::Pin<Box<dyn std::future::Future<Output = Result<u8>>>> = Box::pin(async { Ok(3) });
        let values = gather((
            sleep_until(event_loop.time() + MS * 2),
            async move { waiter.wait().await },
            far,
            boxed,
            shield(after(2, "shielded")),
            event_loop.task(after(1, "built")).name("mine").start(),
            async { Timeout::new(SECOND).scope(async |_| after(1, "scope").await).await },
            std::future::ready(asyncio::ok("std")),
            futures::future::lazy(|_| asyncio::ok("lazy")),
        ))
        .await?;
        assert_eq!(values, ((), (), "far", 3, "shielded", "built", "scope", "std", "lazy"));
        Ok(())
    });
}

/// Tasks, futures and their shared forms are awaited as they are: no task is made for them.
#[test]
fn only_what_is_no_task_or_future_becomes_a_task() {
    run(async {
        let before = all_tasks()?.len();
        let (future, shared) = (Future::<u8>::new(), Future::<u8>::new().shared());
        let task = create_task(after(1, 1_u8));
        let shared_task = create_task(after(1, 2_u8)).shared();
        let any = create_task(after(1, 3_u8)).any();
        let all = gather((future.clone(), shared.clone(), task, shared_task, any)).start();
        assert_eq!(all_tasks()?.len(), before + 3);
        future.set_result(1)?;
        shared.set_result(2)?;
        all.await?;
        let all = gather((after(1, ()), sleep(MS), get_running_loop()?.call_soon(|| ()))).start();
        assert_eq!(all_tasks()?.len(), before + 3);
        all.await?;
        Ok(())
    });
}

/// `AnyTask` gives no value; its error is a result like any other.
#[test]
fn erased_tasks_fail_like_tasks() {
    run(async {
        let (good, bad) = (create_task(after(1, 1)).any(), create_task(fails::<()>(2, "E")).any());
        assert_error(gather(vec![good.clone(), bad.clone()]).await, "E");
        let outcomes = gather(vec![good, bad]).return_exceptions().await?;
        assert!(outcomes[0].is_ok() && outcomes[1].is_err());
        Ok(())
    });
}

/// A callback that is cancelled and one that panics are children that fail: what awaits it then is the task around it.
#[test]
fn handles_fail_like_tasks() {
    run(async {
        let event_loop = get_running_loop()?;
        let timer = event_loop.call_later(FOREVER, || ());
        timer.cancel();
        assert_cancelled(gather((timer, after(1, ()))).await);
        let panics = event_loop.call_later(MS, || {
            if true {
                panic!("boom");
            }
        });
        let (panicked, fine) = gather((panics, event_loop.call_soon(|| 1))).return_exceptions().await?;
        assert_eq!(failure(panicked), (ErrorKind::Panicked, "boom".into()));
        assert_eq!(fine?, 1);
        // A callback is not cancelled with who awaits it.
        let ran = Rc::new(Cell::new(false));
        let runs = ran.clone();
        let all = gather((event_loop.call_later(MS * 5, move || runs.set(true)),)).start();
        turns(2).await?;
        assert!(all.cancel());
        assert_cancelled(all.await);
        sleep(MS * 10).await?;
        assert!(ran.get());
        Ok(())
    });
}

/// A task given in its shared form is a handle of many: after the gathering the others still have it.
#[test]
fn shared_handles_outlive_the_gathering() {
    run(async {
        let task: SharedTask<_> = create_task(after(3, 5)).shared();
        let all = gather(vec![task.clone(); 4]).start();
        let awaits = create_task(task.clone());
        assert_eq!(all.await?, [5; 4]);
        assert_eq!(awaits.await?, 5);
        assert_eq!(task.result()?, 5);
        let failed = create_task(fails::<u8>(1, "E")).shared();
        assert_error(gather(vec![failed.clone(), failed.clone()]).await, "E");
        assert_error(failed.await, "E");
        Ok(())
    });
}

/// A future that somebody polled before, here or elsewhere, can be given.
#[test]
fn a_future_that_was_polled_before_can_be_given() {
    run(async {
        let future = Future::<u8>::new();
        let mut polled = future.clone();
        assert!(futures::poll!(&mut polled).is_pending());
        let mut task = create_task(after(2, "t"));
        assert!(futures::poll!(&mut task).is_pending());
        let all = gather((polled, task, after(1, ()))).start();
        turns(2).await?;
        future.set_result(1)?;
        assert_eq!(all.await?, (1, "t", ()));
        // And cancelled through the gathering, once.
        let task = create_task(async {
            let mut inner = create_task(sleep(FOREVER));
            assert!(futures::poll!(&mut inner).is_pending());
            gather((inner, sleep(FOREVER))).await
        });
        turns(3).await?;
        task.cancel();
        assert_cancelled(task.await);
        Ok(())
    });
}

/// A value's drop may look at the loop, and start and await others.
#[test]
fn values_that_nobody_takes_are_dropped_with_the_gathering() {
    let (guards, dropped): (Vec<_>, Vec<_>) = (0..3).map(|_| support::drop_guard()).unzip();
    run(async {
        let mut guards = guards.into_iter().map(|guard| async move { Ok(guard) });
        let all = gather((guards.next().unwrap(), guards.next().unwrap(), guards.next().unwrap())).start();
        turns(3).await?;
        assert!(all.done() && dropped.iter().all(|dropped| !dropped.get()));
        drop(all);
        assert!(dropped.iter().all(support::Dropped::get));
        Ok(())
    });
    // Of one that failed: the values go with it as well.
    let (guard, dropped) = support::drop_guard();
    run(async {
        let all = gather((async move { Ok(guard) }, async { Err::<(), _>(error("E")) }));
        assert_error(all.await.map(drop), "E");
        assert!(dropped.get());
        Ok(())
    });
}

/// Children that start gatherings of their own, some of which fail.
#[test]
fn a_tree_of_gatherings_adds_up() {
    fn sum(depth: u32, count: Rc<Cell<u32>>) -> std::pin::Pin<Box<dyn std::future::Future<Output = Result<u32>>>> {
        Box::pin(async move {
            count.set(count.get() + 1);
            if depth == 0 {
                return after(count.get() % 3, 1).await;
            }
            let children = (0..3).map(|_| sum(depth - 1, count.clone())).collect::<Vec<_>>();
            Ok(gather(children).await?.into_iter().sum())
        })
    }
    let count = Rc::new(Cell::new(0));
    let (total, took) = run(sum(5, count.clone()));
    assert_eq!((total, count.get(), took), (243, 364, MS * 2));
}
