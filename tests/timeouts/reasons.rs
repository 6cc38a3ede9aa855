//! Who asked for a cancellation and why, however far it was passed on.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{
    Cancelled, Canceller, Error, ErrorKind, Result, TaskGroup, cancellable, create_task, gather, get_running_loop,
    shield, sleep, timeout, wait,
};

use crate::{
    HOUR, MS, cancelled, kind, own, run,
    support::{new_loop, tick, virtual_loop},
    turns,
};

fn own_number() -> u32 {
    own().get_name().strip_prefix("Task-").unwrap().parse().unwrap()
}

/// Message and canceller.
fn reason(cancelled: Cancelled) -> (Option<String>, Option<Canceller>) {
    (cancelled.message.map(|message| message.to_string()), cancelled.by)
}

fn with(message: &str, by: Canceller) -> (Option<String>, Option<Canceller>) {
    (Some(message.into()), Some(by))
}

#[test]
fn a_task() {
    run(async {
        let me = Canceller::Task(own_number());
        for message in [None, Some("m")] {
            let task = create_task(async {
                let slept = sleep(HOUR).await;
                // As the task sees it, and as others see it.
                Ok((reason(cancelled(slept.clone())), slept))
            });
            turns(1).await?;
            match message {
                None => task.cancel(),
                Some(message) => task.cancel_with(message),
            };
            let (inside, slept) = task.await?;
            assert_eq!(inside, (message.map(String::from), Some(me)));
            assert_eq!(reason(cancelled(slept)), (message.map(String::from), Some(me)));
        }
        // The task itself; one that has not begun; a foreign await.
        let task = create_task(async {
            own().cancel_with("self");
            Ok((own_number(), reason(cancelled(sleep(HOUR).await))))
        });
        let (number, inside) = task.await?;
        assert_eq!(inside, with("self", Canceller::Task(number)));
        let task = create_task(async { Ok(()) });
        task.cancel_with("early");
        assert_eq!(reason(cancelled(task.await)), with("early", me));
        let task = create_task(async {
            std::future::pending::<()>().await;
            Ok(())
        });
        turns(1).await?;
        task.any().cancel_with("foreign");
        assert_eq!(reason(cancelled(task.await)), with("foreign", me));
        let task = create_task(sleep(HOUR));
        turns(1).await?;
        task.cancel_with_grace(Duration::ZERO);
        assert_eq!(reason(cancelled(task.await)), (None, Some(me)));
        Ok(())
    });
}

#[test]
fn a_callback_and_code_outside_of_the_loop() {
    let (event_loop, _clock) = virtual_loop();
    let task = event_loop.create_task(sleep(HOUR));
    let any = task.any();
    event_loop.call_later(MS, move || any.cancel_with("from a callback"));
    let outcome = event_loop.run_until_complete(task);
    assert_eq!(reason(cancelled(outcome)), with("from a callback", Canceller::Callback));
    let task = event_loop.create_task(sleep(HOUR));
    tick(&event_loop);
    task.cancel_with("from outside");
    assert_eq!(reason(cancelled(event_loop.run_until_complete(task))), with("from outside", Canceller::Callback));
}

#[test]
fn another_thread() {
    let event_loop = new_loop();
    let mut task = event_loop.create_task(sleep(HOUR));
    tick(&event_loop);
    std::thread::scope(|scope| {
        let task = &task;
        scope.spawn(move || task.cancel_with("elsewhere"));
    });
    let outcome = event_loop.run_until_complete(&mut task);
    assert_eq!(reason(cancelled(outcome)), with("elsewhere", Canceller::Thread));
    // Through a coroutine that was sent.
    let sent = asyncio::run_coroutine_threadsafe(sleep(HOUR), &event_loop.threadsafe());
    tick(&event_loop);
    tick(&event_loop);
    let task = event_loop.all_tasks().pop().unwrap();
    std::thread::spawn(move || sent.cancel()).join().unwrap();
    let outcome = event_loop.run_until_complete(task);
    assert_eq!(cancelled(outcome).by, Some(Canceller::Thread));
}

#[test]
fn a_timeout_and_a_deadline() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sees = |slept: Result<()>| {
            seen.borrow_mut().push(reason(cancelled(slept.clone())));
            slept
        };
        let outcome = timeout(MS, async { sees(sleep(HOUR).await) }).await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        let limit = asyncio::Timeout::new(MS);
        let _ = limit.scope(async |_| sees(sleep(HOUR).await)).await;
        let task = create_task(async { sleep(HOUR).await });
        let _ = timeout(MS, async { sees(task.await) }).await;
        let future = get_running_loop()?.create_future::<()>();
        let _ = timeout(MS, async { sees((&future).await) }).await;
        assert_eq!(reason(cancelled(future.await)), (None, Some(Canceller::Timeout)));
        let group = TaskGroup::builder().timeout(MS).scope(async |_| sees(sleep(HOUR).await));
        assert_eq!(kind(&group.await), Some(ErrorKind::Timeout));
        let _ = timeout(MS, async { sees(cancellable(std::future::pending()).await?) }).await;
        assert_eq!(seen.take(), vec![(None, Some(Canceller::Timeout)); 5]);
        Ok(())
    });
}

#[test]
fn a_group() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let child = || {
            let seen = seen.clone();
            async move {
                let slept = sleep(HOUR).await;
                seen.borrow_mut().push(reason(cancelled(slept.clone())));
                slept
            }
        };
        let failed = TaskGroup::scope(async |group| {
            group.create_task(child());
            group.create_task(async { Err::<(), _>(Error::Value("E".into())) });
            child().await
        });
        assert_eq!(kind(&failed.await), Some(ErrorKind::Group));
        let by_body = TaskGroup::scope(async |group| {
            group.create_task(child());
            turns(1).await?;
            Err::<(), _>(Error::Value("E".into()))
        });
        assert_eq!(kind(&by_body.await), Some(ErrorKind::Group));
        assert_eq!(seen.take(), vec![(None, Some(Canceller::TaskGroup)); 3]);
        let told = TaskGroup::scope(async |group| {
            group.create_task(child());
            turns(1).await?;
            group.cancel_with("enough");
            let _ = child().await;
            Ok(())
        });
        told.await?;
        assert_eq!(seen.take(), vec![with("enough", Canceller::TaskGroup); 2]);
        Ok(())
    });
}

/// Who asked a group's task, or set its limit, is who the group's tasks are told of.
#[test]
fn through_a_group() {
    run(async {
        let me = Canceller::Task(own_number());
        for body_waits in [true, false] {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let sees = seen.clone();
            let task = create_task(TaskGroup::scope(async move |group| {
                group.create_task(async move {
                    let slept = sleep(HOUR).await;
                    sees.borrow_mut().push(reason(cancelled(slept.clone())));
                    slept
                });
                if body_waits { sleep(HOUR).await } else { Ok(()) }
            }));
            turns(3).await?;
            task.cancel_with("why");
            assert_eq!(reason(cancelled(task.await)), with("why", me));
            assert_eq!(seen.take(), [with("why", me)]);
        }
        for body_waits in [true, false] {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let sees = seen.clone();
            let group = TaskGroup::scope(async move |group| {
                group.create_task(async move {
                    let slept = sleep(HOUR).await;
                    sees.borrow_mut().push(reason(cancelled(slept.clone())));
                    slept
                });
                if body_waits { sleep(HOUR).await } else { Ok(()) }
            });
            assert_eq!(kind(&timeout(MS, group).await), Some(ErrorKind::Timeout));
            assert_eq!(seen.take(), [(None, Some(Canceller::Timeout))]);
        }
        Ok(())
    });
}

/// Task awaiting task awaiting future; with scopes on the way; through gather, wait and shield.
#[test]
fn through_chains() {
    run(async {
        let (me, event_loop) = (Canceller::Task(own_number()), get_running_loop()?);
        let future = event_loop.create_future::<()>();
        let inner = create_task(future.clone());
        let middle = create_task(timeout(HOUR, inner)).shared();
        let awaits = middle.clone();
        let outer = create_task(async move { timeout(HOUR, timeout(HOUR, awaits)).await });
        turns(3).await?;
        outer.cancel_with("down");
        assert_eq!(reason(cancelled(outer.await)), with("down", me));
        assert_eq!(reason(cancelled(middle.await)), with("down", me));
        assert_eq!(reason(cancelled(future.await)), with("down", me));

        let (one, two) = (event_loop.create_future::<()>(), create_task(async { sleep(HOUR).await }).shared());
        let (a, b) = (one.clone(), two.clone());
        let all = create_task(async move { gather((a, b)).await.map(drop) });
        turns(2).await?;
        all.cancel_with("all");
        assert_eq!(reason(cancelled(all.await)), with("all", me));
        assert_eq!(reason(cancelled(one.await)), with("all", me));
        assert_eq!(reason(cancelled(two.await)), with("all", me));

        let kept = event_loop.create_future::<()>();
        let waits = kept.clone();
        let waits = create_task(async move { wait([waits]).await.map(drop) });
        let shielded = create_task(shield(kept.clone()));
        turns(1).await?;
        waits.cancel_with("wait");
        shielded.cancel_with("shield");
        assert_eq!(reason(cancelled(waits.await)), with("wait", me));
        assert_eq!(reason(cancelled(shielded.await)), with("shield", me));
        assert!(!kept.done());
        Ok(())
    });
}

/// A timeout around a chain: its tasks are told of the timeout.
#[test]
fn a_timeout_through_chains() {
    run(async {
        let by = (None, Some(Canceller::Timeout));
        let future = get_running_loop()?.create_future::<()>();
        let inner = create_task(future.clone()).shared();
        let outer = create_task(inner.clone()).shared();
        turns(2).await?;
        assert_eq!(kind(&timeout(MS, outer.clone()).await), Some(ErrorKind::Timeout));
        assert_eq!(reason(cancelled(outer.await)), by);
        assert_eq!(reason(cancelled(inner.await)), by);
        assert_eq!(reason(cancelled(future.await)), by);
        let (one, two) = (create_task(sleep(HOUR)).shared(), create_task(sleep(HOUR)).shared());
        let all = gather((one.clone(), two.clone())).start();
        assert_eq!(kind(&timeout(MS, all).await), Some(ErrorKind::Timeout));
        assert_eq!(reason(cancelled(one.await)), by);
        assert_eq!(reason(cancelled(two.await)), by);
        Ok(())
    });
}

#[test]
fn a_future_by_itself() {
    run(async {
        let me = Canceller::Task(own_number());
        let future = get_running_loop()?.create_future::<()>();
        future.cancel_with("fm");
        assert_eq!(reason(cancelled(future.await)), with("fm", me));
        let both = gather((sleep(HOUR), sleep(HOUR))).start();
        turns(1).await?;
        assert!(both.cancel_with("gathering"));
        assert_eq!(reason(cancelled(both.await)), with("gathering", me));
        Ok(())
    });
}

#[test]
fn the_runner() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sees = seen.clone();
    asyncio::run(async move {
        create_task(async move {
            let slept = sleep(HOUR).await;
            sees.borrow_mut().push(reason(cancelled(slept.clone())));
            slept
        });
        turns(1).await
    })
    .unwrap();
    assert_eq!(seen.take(), [(None, Some(Canceller::Runner))]);
}

/// The reason of the later of two requests, where none was delivered between.
#[test]
fn two_who_ask() {
    run(async {
        let me = Canceller::Task(own_number());
        let task = create_task(sleep(HOUR));
        turns(1).await?;
        task.cancel_with("first");
        task.cancel_with("second");
        // asyncio: the first cancels the sleep's future, with its message; the second finds it cancelled.
        let (message, by) = reason(cancelled(task.await));
        assert!(matches!(message.as_deref(), Some("first" | "second")));
        assert_eq!(by, Some(me));
        Ok(())
    });
}

#[test]
fn who_it_was_in_words() {
    let words = [
        (Canceller::Task(7), "Task-7"),
        (Canceller::Callback, "a callback"),
        (Canceller::Thread, "another thread"),
        (Canceller::Timeout, "a timeout"),
        (Canceller::TaskGroup, "a task group"),
        (Canceller::AsyncGenerator, "an async generator"),
        (Canceller::Interrupt, "SIGINT"),
        (Canceller::Runner, "the runner"),
        (Canceller::Workers, "run_workers"),
    ];
    for (canceller, text) in words {
        assert_eq!(canceller.to_string(), text);
    }
    assert_eq!(Cancelled::new(Some("m".into())), Cancelled::new(Some("m".into())));
    assert_ne!(Cancelled::new(Some("m".into())), Cancelled::default());
}
