//! What `wait` gives: when it returns, and what is done then.

use asyncio::{
    ALL_COMPLETED, AnyTask, ErrorKind, FIRST_COMPLETED, FIRST_EXCEPTION, Future, ReturnWhen, SharedTask, Task,
    create_task, get_running_loop, sleep, wait,
};

use crate::{
    MS, SECOND, ZERO, after, assert_cancelled, assert_error, fails, run, run_reporting, support::failure, turns,
};

/// WAIT-001
#[test]
fn wait_returns_when_all_are_done() {
    let (_, took) = run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let (a, b) = (create_task(after(100, "a")), create_task(after(150, "b")));
        let (done, pending) = wait([&b, &a]).await?;
        assert_eq!(done.len(), 2);
        assert!(*done[0] == b.any() && *done[1] == a.any(), "in the order of the arguments");
        assert!(pending.is_empty());
        assert_eq!(event_loop.time() - begin, MS * 150);
        let (done, pending) = wait([&b, &a]).await?;
        assert_eq!((done.len(), pending.len()), (2, 0));
        assert_eq!((a.await?, b.await?), ("a", "b"));
        Ok(())
    });
    assert_eq!(took, MS * 150, "the second time takes none");
}

/// WAIT-002
#[test]
fn the_first_completed_or_a_timeout_ends_the_wait() {
    let (_, took) = run(async {
        let (a, b) = (create_task(after(10_000, "a")), create_task(after(100, "b")));
        let (done, pending) = wait([&a, &b]).return_when(FIRST_COMPLETED).await?;
        assert!(done.len() == 1 && *done[0] == b.any() && b.done());
        assert!(pending.len() == 1 && *pending[0] == a.any());
        assert!(!a.done() && a.cancelling() == 0);
        a.cancel();
        assert_cancelled(a.await);
        Ok(())
    });
    assert_eq!(took, MS * 100);
    let (_, took) = run(async {
        let (a, b) = (create_task(after(10_000, "a")), create_task(after(100, "b")));
        let (done, pending) = wait([&a, &b]).timeout(MS * 110).return_when(ALL_COMPLETED).await?;
        assert!(done.len() == 1 && *done[0] == b.any());
        assert!(pending.len() == 1 && *pending[0] == a.any());
        assert!(!a.done() && a.cancelling() == 0);
        assert_eq!(a.await?, "a");
        Ok(())
    });
    assert_eq!(took, SECOND * 10);
}

/// WAIT-004
#[test]
fn the_first_exception_ends_the_wait_and_a_cancellation_is_none() {
    let (_, took) = run(async {
        let (a, b) = (create_task(after(10_000, ())), create_task(fails(0, "E")));
        let (done, pending) = wait([&a, &b]).return_when(FIRST_EXCEPTION).await?;
        assert!(done.len() == 1 && *done[0] == b.any());
        assert!(pending.len() == 1 && *pending[0] == a.any());
        a.cancel();
        assert_cancelled(a.await);
        Ok(())
    });
    assert_eq!(took, ZERO);
    let (_, took) = run(async {
        let (b, c) = (create_task(after(10_000, ())), create_task(after(10, ())));
        b.cancel();
        let (done, pending) = wait([&b, &c]).return_when(FIRST_EXCEPTION).await?;
        assert_eq!((done.len(), pending.len()), (2, 0));
        assert!(b.cancelled() && !c.cancelled());
        Ok(())
    });
    assert_eq!(took, MS * 10);
}

/// WAIT-005
#[test]
fn nothing_is_an_error_and_duplicates_count_once() {
    run(async {
        let empty = (ErrorKind::Value, "Set of Tasks/Futures is empty.".to_owned());
        assert_eq!(failure(wait(Vec::<Task<()>>::new()).await), empty);
        assert_eq!(failure(wait([] as [&AnyTask; 0]).timeout(ZERO).return_when(FIRST_COMPLETED).await), empty);
        let task = create_task(after(1, ()));
        for return_when in [ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION] {
            let (done, pending) = wait([&task, &task, &task]).return_when(return_when).await?;
            assert_eq!((done.len(), pending.len()), (1, 0));
        }
        let shared = create_task(after(1, ())).shared();
        let (done, pending) = wait([shared.clone(), shared.clone()]).await?;
        assert_eq!((done.len(), pending.len()), (1, 0));
        let future = Future::<()>::new();
        let (done, pending) = wait([future.clone(), future.clone(), future]).timeout(MS).await?;
        assert_eq!((done.len(), pending.len()), (0, 1));
        let any = create_task(after(1, ())).any();
        assert_eq!(wait([any.clone(), any]).await?.0.len(), 1);
        Ok(())
    });
}

/// Duplicates beside others: each counts, once.
#[test]
fn all_that_are_different_are_waited_for() {
    let (_, took) = run(async {
        let (test, spam) = (create_task(after(1, "test")).shared(), create_task(after(2, "spam")).shared());
        let (done, pending) = wait([test.clone(), test.clone(), spam.clone(), test]).await?;
        assert!(pending.is_empty());
        let results = done.iter().map(|task| task.result()).collect::<Result<Vec<_>, _>>()?;
        assert_eq!(results, ["test", "spam"]);
        Ok(())
    });
    assert_eq!(took, MS * 2);
}

/// `return_when` against what happens: a success, a failure and a cancellation at one, two and three milliseconds.
#[test]
fn each_return_when_has_its_end() {
    type Case = (ReturnWhen, [&'static str; 3], usize);
    let cases: [Case; 12] = [
        (FIRST_COMPLETED, ["ok", "fail", "cancel"], 1),
        (FIRST_COMPLETED, ["fail", "ok", "cancel"], 1),
        (FIRST_COMPLETED, ["cancel", "fail", "ok"], 1),
        (FIRST_EXCEPTION, ["ok", "fail", "cancel"], 2),
        (FIRST_EXCEPTION, ["fail", "ok", "cancel"], 1),
        (FIRST_EXCEPTION, ["cancel", "fail", "ok"], 2),
        (FIRST_EXCEPTION, ["cancel", "ok", "fail"], 3),
        (FIRST_EXCEPTION, ["ok", "cancel", "ok"], 3),
        (ALL_COMPLETED, ["fail", "cancel", "ok"], 3),
        (ALL_COMPLETED, ["ok", "ok", "ok"], 3),
        (FIRST_EXCEPTION, ["panic", "ok", "ok"], 1),
        (FIRST_EXCEPTION, ["ok", "panic", "ok"], 2),
    ];
    for (return_when, fates, expected) in cases {
        let (result, _, _) = run_reporting(async move {
            let begin = get_running_loop()?.time();
            let task = |(millis, fate): (u32, &'static str)| {
                create_task(async move {
                    sleep(MS * millis).await?;
                    match fate {
                        "fail" => Err(crate::error("E")),
                        "cancel" => Err(asyncio::Error::cancelled()),
                        "panic" => panic!("boom"),
                        _ => Ok(()),
                    }
                })
            };
            let tasks = (1..).zip(fates).map(task).collect::<Vec<_>>();
            let (done, pending) = wait(&tasks).return_when(return_when).await?;
            assert_eq!((done.len(), pending.len()), (expected, 3 - expected), "{return_when:?} {fates:?}");
            for (place, done) in done.iter().enumerate() {
                assert!(**done == tasks[place].any());
            }
            let took = get_running_loop()?.time() - begin;
            wait(tasks).await?;
            Ok(took)
        });
        assert_eq!(result.unwrap(), MS * u32::try_from(expected).unwrap());
    }
}

/// Whatever the order of the arguments, they come back in it.
#[test]
fn what_is_given_back_stands_in_the_order_of_the_arguments() {
    run(async {
        let tasks = (0..50).map(|n| create_task(after(n * 7 % 50, n))).collect::<Vec<_>>();
        let (done, pending) = wait(&tasks).timeout(MS * 25).await?;
        let halves = (0..50).partition::<Vec<_>, _>(|n| tasks[*n].done());
        let places = |tasks_: Vec<&Task<u32>>| -> Vec<usize> {
            tasks_.iter().map(|task| tasks.iter().position(|other| *other == task.any()).unwrap()).collect()
        };
        assert_eq!((places(done), places(pending)), halves);
        let tasks = tasks.into_iter().rev().collect::<Vec<_>>();
        let (done, pending) = wait(tasks).await?;
        assert!(pending.is_empty());
        let mut values = Vec::new();
        for task in done {
            values.push(task.await?);
        }
        assert_eq!(values, (0..50).rev().collect::<Vec<_>>());
        Ok(())
    });
}

/// Owned, by reference, by exclusive reference, erased, shared, bare futures.
#[test]
fn wait_takes_handles_of_every_kind() {
    run(async {
        let owned = vec![create_task(after(1, 1)), create_task(after(2, 2))];
        let (mut done, pending) = wait(owned).return_when(FIRST_COMPLETED).await?;
        assert_eq!(done.pop().unwrap().await?, 1);
        assert_eq!(pending.into_iter().next().unwrap().await?, 2);

        let (mut a, mut b) = (create_task(after(2, 1)), create_task(after(1, 2)));
        let (done, pending) = wait([&mut a, &mut b]).return_when(FIRST_COMPLETED).await?;
        for task in done {
            assert_eq!(task.await?, 2);
        }
        for task in pending {
            assert_eq!(task.await?, 1);
        }

        let (text, number) = (create_task(after(1, "text")), create_task(after(2, 2)));
        let (done, pending) = wait([text.any(), number.any()]).await?;
        assert_eq!((done, pending), (vec![text.any(), number.any()], vec![]));
        let anys = [text.any(), number.any()];
        assert_eq!(wait(anys.iter()).await?.0.len(), 2);
        assert_eq!((text.await?, number.await?), ("text", 2));

        let shared: Vec<SharedTask<_>> = (0..3).map(|n| create_task(after(n, n)).shared()).collect();
        let (done, _) = wait(shared.clone()).await?;
        for (n, task) in (0..).zip(done) {
            assert_eq!(task.await?, n);
        }
        assert_eq!(shared[2].result()?, 2);

        let futures = [Future::<u8>::new(), Future::new()];
        futures[1].set_result(1)?;
        let (done, pending) = wait(&futures).return_when(FIRST_COMPLETED).await?;
        assert!(done == [&futures[1]] && pending == [&futures[0]]);
        let shared = futures.map(Future::shared);
        shared[0].cancel();
        let (done, _) = wait(shared).await?;
        assert!(done[0].cancelled() && done[1].result()? == 1);
        Ok(())
    });
}

#[test]
fn wait_takes_any_iterator() {
    run(async {
        let (done, pending) = wait((0..10).map(|n| create_task(after(n, n)))).await?;
        assert_eq!((done.len(), pending.len()), (10, 0));
        let (done, pending) = wait(Some(create_task(after(1, ())))).await?;
        assert_eq!((done.len(), pending.len()), (1, 0));
        let (done, pending) = wait((0..1000).map(|n| create_task(after(n, n))).collect::<Vec<_>>()).await?;
        assert_eq!((done.len(), pending.len()), (1000, 0));
        let queue = std::collections::VecDeque::from([create_task(after(1, ()))]);
        assert_eq!(wait(&queue).await?.0.len(), 1);
        Ok(())
    });
}

/// A wait begins with its first poll, not before.
#[test]
fn a_wait_that_is_not_awaited_does_nothing() {
    run(async {
        let task = create_task(after(50, ()));
        let waits = wait([&task]).timeout(MS);
        assert_eq!(format!("{waits:?}"), "<wait for 1 AllCompleted timeout=Some(1ms)>");
        sleep(MS * 3).await?;
        let waiting = waits.into_future();
        sleep(MS).await?;
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let (done, pending) = waiting.await?;
        assert_eq!((done.len(), pending.len(), event_loop.time() - begin), (0, 1, MS), "the time is counted from here");
        drop(wait([&task]).timeout(MS));
        drop(wait([&task]).timeout(MS).into_future());
        task.await
    });
}

/// `None` is without limit; the last word counts.
#[test]
fn the_settings_of_a_wait_can_be_changed() {
    let (_, took) = run(async {
        let task = create_task(after(50, ()));
        let waits = wait([&task]).timeout(MS).timeout(None).return_when(FIRST_COMPLETED).return_when(ALL_COMPLETED);
        assert_eq!(waits.await?.0.len(), 1);
        Ok(())
    });
    assert_eq!(took, MS * 50);
    assert_eq!(ReturnWhen::default(), ALL_COMPLETED);
}

/// A timeout of zero lets one iteration pass, in which those that are done are found.
#[test]
fn a_timeout_of_zero_looks_once() {
    let (_, took) = run(async {
        let (a, b) = (create_task(async { Ok(()) }), create_task(after(5, ())));
        let (done, pending) = wait([&a, &b]).timeout(ZERO).await?;
        assert_eq!((done.len(), pending.len()), (1, 1));
        assert!(*done[0] == a.any());
        let (done, pending) = wait([&b]).timeout(ZERO).return_when(FIRST_COMPLETED).await?;
        assert_eq!((done.len(), pending.len()), (0, 1));
        b.await
    });
    assert_eq!(took, MS * 5);
}

/// Far beyond what any clock can tell.
#[test]
fn the_longest_timeout_is_none() {
    run(async {
        let task = create_task(after(5, ()));
        assert_eq!(wait([&task]).timeout(std::time::Duration::MAX).await?.0.len(), 1);
        Ok(())
    });
}

/// Errors stay for whoever looks: a wait is no look.
#[test]
fn errors_are_not_looked_at_by_a_wait() {
    for return_when in [ALL_COMPLETED, FIRST_COMPLETED] {
        let (result, _, reports) = run_reporting(async move {
            let (done, _) = wait([create_task(fails::<()>(1, "E"))]).return_when(return_when).await?;
            assert!(done[0].done());
            Ok(())
        });
        result.unwrap();
        assert_eq!(reports, [("Task exception was never retrieved".to_owned(), "E".to_owned())], "{return_when:?}");
    }
    // Who looks afterwards sees it, and nothing is reported.
    run(async {
        let (mut done, _) = wait([create_task(fails::<()>(1, "E"))]).await?;
        assert_error(done.pop().unwrap().await, "E");
        let (done, _) = wait([create_task(fails::<()>(1, "E"))]).await?;
        assert!(done[0].exception()?.is_some());
        Ok(())
    });
}

/// As in CPython: looking for the first exception is a look at it, unless it is the last to end.
#[test]
fn the_first_exception_is_looked_at() {
    run(async {
        let (done, pending) =
            wait([create_task(fails::<()>(1, "E")), create_task(after(3, ()))]).return_when(FIRST_EXCEPTION).await?;
        assert_eq!((done.len(), pending.len()), (1, 1));
        sleep(MS * 5).await
    });
    let (result, _, reports) = run_reporting(async {
        let tasks = [create_task(fails::<()>(2, "E")), create_task(after(1, ()))];
        assert_eq!(wait(tasks).return_when(FIRST_EXCEPTION).await?.0.len(), 2);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports.len(), 1);
}

/// A task that is waited for and panics has somebody who knows: it is reported when nobody looks, not before.
#[test]
fn a_panic_of_a_waited_task_is_not_reported_at_once() {
    let panics = || {
        create_task(async {
            sleep(MS).await?;
            if true {
                panic!("boom");
            }
            Ok(())
        })
    };
    for listed in [false, true] {
        run(async move {
            let task = panics();
            if listed {
                // Not the only one who wants to know.
                task.add_done_callback(|_| ());
            }
            let (done, _) = wait([task]).await?;
            let mut done = done;
            assert_eq!(failure(done.pop().unwrap().await), (ErrorKind::Panicked, "boom".into()));
            Ok(())
        });
        let (result, _, reports) = run_reporting(async move {
            let task = panics();
            if listed {
                task.add_done_callback(|_| ());
            }
            let (done, _) = wait([&task]).await?;
            assert_eq!(done.len(), 1);
            turns(3).await?;
            Ok(())
        });
        result.unwrap();
        assert_eq!(reports.len(), 1, "{reports:?}");
    }
    // The wait was over before: nobody awaits, so it is reported at once, and once.
    let (result, _, reports) = run_reporting(async {
        let task = panics();
        assert_eq!(wait([&task]).timeout(ZERO).await?.1.len(), 1);
        sleep(MS * 2).await?;
        assert_eq!(failure(task.await).0, ErrorKind::Panicked);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
}
