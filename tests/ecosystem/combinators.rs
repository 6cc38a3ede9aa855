//! Combinators of other crates over this crate's awaitables.

use std::time::Duration;

use asyncio::{Error, create_task, sleep};
use futures::{
    FutureExt, StreamExt, TryFutureExt, TryStreamExt,
    future::{Either, join_all, select, try_join_all},
    stream::{self, FuturesOrdered, FuturesUnordered},
};

use crate::support::{self, Record, virtual_loop};

async fn after(milliseconds: u64) -> asyncio::Result<u64> {
    sleep(Duration::from_millis(milliseconds)).await?;
    Ok(milliseconds)
}

/// Runs in a loop with virtual time; gives the result and how long it took.
fn timed<T>(main: impl Future<Output = asyncio::Result<T>>) -> (T, Duration) {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let value = event_loop.run_until_complete(main).unwrap();
    (value, event_loop.time() - begin)
}

#[test]
fn join_waits_for_everything_this_crate_can_wait_for() {
    let (values, taken) = timed(async {
        let event_loop = asyncio::get_running_loop()?;
        let future = event_loop.create_future();
        let setter = future.clone();
        let timer = event_loop.call_later(Duration::from_millis(30), move || setter.set_result(1));
        let soon = event_loop.call_soon(|| 2);
        let task = create_task(after(20));
        let joined = futures::try_join!(future, soon, task, after(10), timer)?;
        joined.4?;
        Ok((joined.0, joined.1, joined.2, joined.3))
    });
    assert_eq!((values, taken), ((1, 2, 20, 10), Duration::from_millis(30)));
}

#[test]
fn select_takes_the_first_and_drops_the_rest() {
    let (first, taken) = timed(async {
        let (mut slow, mut fast) = (Box::pin(after(50).fuse()), Box::pin(after(20).fuse()));
        let mut handle = asyncio::get_running_loop()?.call_later(Duration::from_secs(9), || 9).fuse();
        futures::select! {
            slow = slow => slow,
            fast = fast => fast,
            never = handle => never,
        }
    });
    assert_eq!((first, taken), (20, Duration::from_millis(20)));
    let (first, _) = timed(async {
        tokio::select! {
            slow = after(50) => slow,
            fast = after(20) => fast,
        }
    });
    assert_eq!(first, 20);
}

#[test]
fn a_select_loop_keeps_what_it_has_not_finished() {
    let (ticks, taken) = timed(async {
        let mut work = Box::pin(after(45));
        let mut ticks = 0;
        loop {
            match select(work, Box::pin(after(10))).await {
                Either::Left((done, _)) => return done.map(|_| ticks),
                Either::Right((tick, unfinished)) => {
                    tick?;
                    ticks += 1;
                    work = unfinished;
                }
            }
        }
    });
    assert_eq!((ticks, taken), (4, Duration::from_millis(45)));
}

#[test]
fn futures_unordered_gives_them_as_they_end() {
    let (order, taken) = timed(async {
        let children: FuturesUnordered<_> = [30, 10, 20].into_iter().map(after).collect();
        children.try_collect::<Vec<_>>().await
    });
    assert_eq!((order, taken), (vec![10, 20, 30], Duration::from_millis(30)));
    let (order, _) = timed(async {
        let tasks: FuturesUnordered<_> = [30, 10, 20].into_iter().map(|delay| create_task(after(delay))).collect();
        tasks.try_collect::<Vec<_>>().await
    });
    assert_eq!(order, [10, 20, 30]);
    let (order, _) = timed(async {
        let children: FuturesOrdered<_> = [30, 10, 20].into_iter().map(after).collect();
        children.try_collect::<Vec<_>>().await
    });
    assert_eq!(order, [30, 10, 20]);
}

#[test]
fn futures_unordered_polls_only_who_was_woken() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let futures: Vec<_> = (0..10).map(|_| event_loop.create_future::<usize>()).collect();
        let polls = Record::default();
        let mut children: FuturesUnordered<_> = futures
            .iter()
            .cloned()
            .enumerate()
            .map(|(index, mut future)| {
                let polls = polls.clone();
                futures::future::poll_fn(move |cx| {
                    polls.push(index);
                    future.poll_unpin(cx)
                })
            })
            .collect();
        let setter = futures[7].clone();
        event_loop.call_soon(move || setter.set_result(70));
        assert_eq!(children.next().await.unwrap()?, 70);
        let mut first = polls.take();
        assert_eq!(first.pop(), Some(7));
        assert_eq!(first.len(), 10, "each once at first");
        Ok(())
    });
}

#[test]
fn stream_combinators_limit_what_runs_at_once() {
    let (sum, taken) = timed(async {
        stream::iter(0..6)
            .map(|_| after(10))
            .buffer_unordered(2)
            .try_fold(0, |sum, ten| async move { Ok(sum + ten) })
            .await
    });
    assert_eq!((sum, taken), (60, Duration::from_millis(30)));
    let ((), taken) = timed(async {
        stream::iter(0..6).map(asyncio::ok).try_for_each_concurrent(3, |_| after(10).map_ok(drop)).await
    });
    assert_eq!(taken, Duration::from_millis(20));
}

#[test]
fn join_all_and_try_join_all_take_tasks() {
    let (all, taken) = timed(async {
        let all = join_all((1..=40).map(|delay| create_task(after(delay)))).await;
        all.into_iter().collect::<asyncio::Result<Vec<_>>>()
    });
    assert_eq!((all.len(), taken), (40, Duration::from_millis(40)));
    let (failed, taken) = timed(async {
        let fails = async {
            after(5).await?;
            Err(Error::Value("v".into()))
        };
        let children = [after(10).boxed_local(), fails.boxed_local(), after(20).boxed_local()];
        Ok(try_join_all(children).await.unwrap_err().to_string())
    });
    assert_eq!((failed, taken), ("v".into(), Duration::from_millis(5)));
}

#[test]
fn futures_shared_wraps_ours() {
    let (values, taken) = timed(async {
        let shared = after(10).map_err(|error| error.to_string()).boxed_local().shared();
        let others: Vec<_> = (0..3)
            .map(|_| {
                let shared = shared.clone();
                create_task(async move { shared.await.map_err(Error::other) })
            })
            .collect();
        try_join_all(others).await
    });
    assert_eq!((values, taken), (vec![10, 10, 10], Duration::from_millis(10)));
}

#[test]
fn remote_handle_and_abortable_work() {
    let (seen, _) = timed(async {
        let (remote, handle) = after(10).remote_handle();
        let driver = create_task(remote.map(asyncio::ok));
        let value = handle.await?;
        driver.await?;
        let (abortable, abort) = futures::future::abortable(after(3_600_000));
        asyncio::get_running_loop()?.call_soon(move || abort.abort());
        Ok((value, abortable.await.is_err()))
    });
    assert_eq!(seen, (10, true));
}

#[test]
fn smols_combinators_take_ours() {
    use smol::future::FutureExt as _;
    let (first, taken) = timed(async { after(50).or(after(20)).await });
    assert_eq!((first, taken), (20, Duration::from_millis(20)));
    let (both, _) = timed(async {
        let (one, two) = smol::future::zip(after(1), after(2)).await;
        Ok((one?, two?))
    });
    assert_eq!(both, (1, 2));
}

#[test]
fn an_outer_select_that_drops_a_task_in_mid_wait_leaves_no_timer() {
    support::run(async {
        let lost = select(Box::pin(after(3_600_000)), Box::pin(after(1))).await;
        assert!(matches!(lost, Either::Right(_)));
        drop(lost);
        let event_loop = asyncio::get_running_loop()?;
        assert!(event_loop.next_deadline().is_none());
        Ok(())
    });
}
