//! Other executors beside and inside ours.

use std::{cell::Cell, rc::Rc, thread, time::Duration};

use asyncio::{ErrorKind, create_task, current_task, sleep};
use futures::{
    executor::LocalPool,
    task::{LocalSpawnExt, SpawnExt},
};

use crate::support::{self, failure, new_loop};

#[test]
fn a_local_executor_runs_inside_a_task() {
    support::run(async {
        let executor = Rc::new(smol::LocalExecutor::new());
        let done = Rc::new(Cell::new(0));
        for number in 1..=3 {
            let done = done.clone();
            executor
                .spawn(async move {
                    sleep(Duration::from_millis(number)).await.unwrap();
                    done.set(done.get() + 1);
                })
                .detach();
        }
        let last = executor.spawn(async {
            let future = asyncio::get_running_loop()?.create_future();
            let setter = future.clone();
            asyncio::get_running_loop()?.call_later(Duration::from_millis(5), move || setter.set_result("set"));
            future.await
        });
        assert_eq!(executor.run(last).await?, "set");
        assert_eq!(done.get(), 3);
        Ok(())
    });
}

#[test]
fn a_cancel_finds_the_leaf_inside_a_local_executor() {
    support::run(async {
        let task = create_task(async {
            let executor = smol::LocalExecutor::new();
            let leaf = executor.spawn(sleep(Duration::from_secs(3600)));
            let slept = executor.run(leaf).await;
            Ok(slept.unwrap_err().is_cancelled())
        });
        sleep(Duration::ZERO).await?;
        task.cancel();
        assert!(task.await?);
        Ok(())
    });
}

#[test]
fn an_executor_may_be_polled_by_hand_between_our_awaits() {
    support::run(async {
        let executor = smol::LocalExecutor::new();
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let work = executor.spawn(async move {
            for _ in 0..5 {
                smol::future::yield_now().await;
                counted.set(counted.get() + 1);
            }
        });
        while !work.is_finished() {
            executor.try_tick();
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(count.get(), 5);
        Ok(())
    });
}

#[test]
fn a_tasks_result_reaches_another_threads_executor() {
    support::run(async {
        let shared = create_task(async {
            sleep(Duration::from_millis(5)).await?;
            Ok(5)
        })
        .shared();
        let theirs = shared.clone();
        let thread = thread::spawn(move || {
            let pooled = futures::executor::block_on(theirs.clone())?;
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let in_tokio = runtime.block_on(theirs.clone())?;
            Ok::<_, asyncio::Error>(pooled + in_tokio + smol::block_on(theirs)?)
        });
        assert_eq!(shared.await?, 5);
        assert_eq!(asyncio::to_thread(move || thread.join().unwrap()).await?, 15);
        Ok(())
    });
}

#[test]
fn a_local_pool_drives_tasks_that_wait_for_our_loop_on_its_own_thread() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let remote = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        let mut pool = LocalPool::new();
        let spawner = pool.spawner();
        let handles: Vec<_> = (0..5)
            .map(|number| {
                let future = remote.run_coroutine_threadsafe(async move {
                    sleep(Duration::from_millis(1)).await?;
                    Ok(number)
                });
                spawner.spawn_local_with_handle(future).unwrap()
            })
            .collect();
        let sum: i32 = pool.run_until(async { futures::future::try_join_all(handles).await.unwrap().iter().sum() });
        remote.stop();
        sum
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap(), 10);
}

#[test]
fn a_thread_pool_works_for_our_loop() {
    support::run(async {
        let pool = smol::Executor::new();
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let (sum, thread) = thread::scope(|scope| {
            let pool = &pool;
            let worker = scope.spawn(move || smol::block_on(pool.run(stopped.recv())).is_err());
            let handles: Vec<_> = (0..10).map(|number| pool.spawn(async move { number * number })).collect();
            let sum: i32 = handles.into_iter().map(smol::block_on).sum();
            drop(stop);
            (sum, worker.join().unwrap())
        });
        assert_eq!((sum, thread), (285, true));
        Ok(())
    });
}

#[test]
fn our_loop_is_a_spawner_for_generic_code() {
    async fn generic(spawner: &impl futures::task::LocalSpawn) -> i32 {
        let handles: Vec<_> =
            (0..3).map(|number| spawner.spawn_local_with_handle(async move { number }).unwrap()).collect();
        futures::future::join_all(handles).await.into_iter().sum()
    }
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        assert_eq!(generic(&event_loop).await, 3);
        let handle = event_loop.threadsafe().spawn_with_handle(async { current_task().unwrap().is_some() });
        assert!(handle.map_err(asyncio::Error::other)?.await);
        Ok(())
    });
}

#[test]
fn our_awaitables_need_a_loop_and_say_so() {
    assert_eq!(failure(smol::block_on(sleep(Duration::ZERO))).0, ErrorKind::Runtime);
    assert_eq!(failure(futures::executor::block_on(sleep(Duration::from_secs(1)))).0, ErrorKind::Runtime);
    assert_eq!(failure(smol::block_on(create_task(async { Ok(1) }))).1, "no running event loop");
}

#[test]
fn a_blocking_executor_inside_a_task_blocks_and_ends() {
    // Foreign block_on cannot be refused; what needs no turn of the loop works in it.
    support::run(async {
        let future = asyncio::get_running_loop()?.create_future();
        future.set_result(1)?;
        assert_eq!(smol::block_on(future)?, 1);
        assert_eq!(smol::block_on(async { 2 }), 2);
        Ok(())
    });
}
