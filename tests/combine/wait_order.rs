//! Ends that come close together, and many who wait for the same.

use asyncio::{
    ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, Task, create_task, get_running_loop, sleep, wait,
};

use crate::{MS, SECOND, ZERO, after, error, fails, run, support::Record, turns};

/// `test_wait_really_done` of CPython: what became done before the wait returns is done, although it was not told.
#[test]
fn those_that_end_in_the_meantime_are_done() {
    run(async {
        let a = create_task(turns(1));
        let b = create_task(turns(2));
        let (done, pending) = wait([&b, &a]).return_when(FIRST_COMPLETED).await?;
        assert_eq!((done.len(), pending.len()), (2, 0));
        Ok(())
    });
    run(async {
        // One iteration later is too late: the end is told in the next one, and the wait goes on in the one after it.
        let tasks = (1..=5).map(|count| create_task(turns(count))).collect::<Vec<_>>();
        let (done, pending) = wait(&tasks).return_when(FIRST_COMPLETED).await?;
        assert_eq!((done.len(), pending.len()), (2, 3));
        turns(5).await
    });
}

#[test]
fn futures_that_end_in_one_iteration_are_done_together() {
    for return_when in [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED] {
        run(async move {
            let futures = [0; 4].map(|_| Future::<u8>::new());
            let set = futures.each_ref().map(Future::clone);
            get_running_loop()?.call_later(MS, move || {
                set[3].set_exception(error("E")).unwrap();
                set[1].set_result(1).unwrap();
                set[0].cancel();
                if return_when == ALL_COMPLETED {
                    set[2].set_result(2).unwrap();
                }
            });
            let (done, pending) = wait(&futures).return_when(return_when).await?;
            if return_when == ALL_COMPLETED {
                assert_eq!((done.len(), pending.len()), (4, 0));
            } else {
                assert!(done == [&futures[0], &futures[1], &futures[3]] && pending == [&futures[2]]);
            }
            assert!(futures[3].exception()?.is_some());
            Ok(())
        });
    }
}

/// `test_wait_concurrent_complete`: the timeout and an end at the same instant. What sleeps was first in line.
#[test]
fn a_timeout_in_the_iteration_of_an_end() {
    let (_, took) = run(async {
        let (a, b) = (create_task(after(100, "a")), create_task(after(150, "b")));
        turns(1).await?;
        let (done, pending) = wait([&b, &a]).timeout(MS * 100).await?;
        assert!(done.len() == 1 && *done[0] == a.any());
        assert!(pending.len() == 1 && *pending[0] == b.any());
        b.await
    });
    assert_eq!(took, MS * 150);
    // The timeout first in line, and the end of the only one in the same iteration: it is done all the same.
    run(async {
        let future = Future::<u8>::new();
        let mut waiting = wait([&future]).timeout(MS * 10).into_future();
        assert!(futures::poll!(&mut waiting).is_pending());
        let setter = future.clone();
        get_running_loop()?.call_later(MS * 10, move || setter.set_result(1).unwrap());
        let (done, pending) = waiting.await?;
        assert_eq!((done.len(), pending.len()), (1, 0));
        Ok(())
    });
}

#[test]
fn many_tasks_wait_for_the_same() {
    let (_, took) = run(async {
        let tasks = (1..=10).map(|n| create_task(after(n, n)).shared()).collect::<Vec<_>>();
        let future = Future::<u32>::new().shared();
        let order = Record::<String>::default();
        let waiters = (0..6).map(|n| {
            let (tasks, future, order) = (tasks.clone(), future.clone(), order.clone());
            create_task(async move {
                let (done, pending) = match n {
                    0 | 3 => wait(&tasks).return_when(FIRST_COMPLETED).await?,
                    1 | 4 => wait(&tasks).timeout(MS * 5).await?,
                    _ => wait(&tasks).await?,
                };
                order.push(format!("{n}: {} {}", done.len(), pending.len()));
                let (done, _) = wait([&future, &future]).await?;
                order.push(format!("{n}: {}", done[0].result()?));
                Ok(())
            })
        });
        let waiters = waiters.collect::<Vec<_>>();
        sleep(SECOND).await?;
        let expected = ["0: 1 9", "3: 1 9", "1: 5 5", "4: 5 5", "2: 10 0", "5: 10 0"];
        assert_eq!(order.take(), expected);
        future.set_result(7)?;
        wait(waiters).await?;
        let mut order = order.take();
        order.sort();
        assert_eq!(order, ["0: 7", "1: 7", "2: 7", "3: 7", "4: 7", "5: 7"]);
        Ok(())
    });
    assert_eq!(took, SECOND);
}

/// Who waits, awaits, observes and has a callback of one task: all learn of the end.
#[test]
fn a_task_has_waiters_of_every_kind() {
    run(async {
        for first in 0..4 {
            let log = Record::default();
            let task = create_task(after(2, 5)).shared();
            let mut helpers: Vec<Task<()>> = Vec::new();
            for kind in (0..4).map(|kind| (kind + first) % 4) {
                let (log, task) = (log.clone(), task.clone());
                match kind {
                    0 => {
                        task.add_done_callback(move |_| log.push("callback"));
                        continue;
                    }
                    1 => helpers.push(create_task(async move {
                        wait([task.any()]).await?;
                        log.push("wait");
                        Ok(())
                    })),
                    2 => helpers.push(create_task(async move {
                        assert_eq!(asyncio::gather((task.clone(), task)).await?, (5, 5));
                        log.push("gather");
                        Ok(())
                    })),
                    _ => helpers.push(create_task(async move {
                        assert_eq!(task.await?, 5);
                        log.push("await");
                        Ok(())
                    })),
                }
                turns(1).await?;
            }
            wait(helpers).await?;
            let mut all = log.take();
            all.sort_unstable();
            assert_eq!(all, ["await", "callback", "gather", "wait"], "{first}");
        }
        Ok(())
    });
}

/// Ends at the same time and with the timeout, over and over.
#[test]
fn waits_in_a_loop_lose_nobody() {
    let (_, took) = run(async {
        let mut left = (0..60_u32).map(|n| create_task(after(n / 3, n))).collect::<Vec<_>>();
        let (mut seen, mut rounds) = (Vec::new(), 0);
        while !left.is_empty() {
            let (done, pending) = wait(left).return_when(FIRST_COMPLETED).timeout(MS / 2).await?;
            for task in done {
                seen.push(task.await?);
            }
            left = pending;
            rounds += 1;
        }
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
        assert!(rounds <= 80, "{rounds}");
        Ok(())
    });
    assert_eq!(took, MS * 19);
}

/// Those that are done at the start, with and without others.
#[test]
fn those_that_are_done_at_the_start_count() {
    let (_, took) = run(async {
        let (good, bad, slow) =
            (create_task(after(0, 1)), create_task(fails::<i32>(0, "E")), create_task(after(50, 3)));
        turns(3).await?;
        assert!(good.done() && bad.done());
        let (done, pending) = wait([&slow, &good]).return_when(FIRST_COMPLETED).await?;
        assert!(done.len() == 1 && *done[0] == good.any() && pending.len() == 1);
        let (done, pending) = wait([&slow, &bad]).return_when(FIRST_EXCEPTION).await?;
        assert!(done.len() == 1 && *done[0] == bad.any() && pending.len() == 1);
        let (done, pending) = wait([&good, &bad]).return_when(FIRST_EXCEPTION).await?;
        assert_eq!((done.len(), pending.len()), (2, 0));
        let (done, pending) = wait([&slow, &good]).return_when(FIRST_EXCEPTION).timeout(MS).await?;
        assert_eq!((done.len(), pending.len()), (1, 1));
        let (done, pending) = wait([&slow, &good, &bad]).timeout(ZERO).await?;
        assert_eq!((done.len(), pending.len()), (2, 1));
        slow.await
    });
    assert_eq!(took, MS * 50);
}
