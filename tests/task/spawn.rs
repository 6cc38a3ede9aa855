//! The spawners of `futures`.

use std::{cell::Cell, rc::Rc, thread, time::Duration};

use asyncio::{current_task, sleep};
use futures::task::{LocalSpawn, LocalSpawnExt, Spawn, SpawnExt};

use crate::support::{self, Record, handler, new_loop, tick};

#[test]
fn an_event_loop_spawns_local_futures() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    event_loop.status_local().unwrap();
    event_loop
        .spawn_local(async move {
            seen.push(current_task().unwrap().is_some());
            sleep(Duration::ZERO).await.unwrap();
            seen.push(true);
        })
        .unwrap();
    assert_eq!(record.len(), 0);
    assert_eq!(event_loop.all_tasks().len(), 1);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), [true, true]);
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn an_event_loop_spawns_with_a_handle() {
    let event_loop = new_loop();
    let local = Rc::new(Cell::new(0));
    let theirs = local.clone();
    let handle = event_loop
        .spawn_local_with_handle(async move {
            theirs.set(5);
            theirs
        })
        .unwrap();
    assert_eq!(asyncio_output(&event_loop, handle).get(), 5);
    assert_eq!(local.get(), 5);
}

/// Runs a future that gives no `Result`.
fn asyncio_output<T>(event_loop: &asyncio::EventLoop, future: impl Future<Output = T>) -> T {
    event_loop.run_until_complete(async { Ok(future.await) }).unwrap()
}

#[test]
fn a_threadsafe_loop_spawns_from_every_thread() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let remote = event_loop.threadsafe();
    let here = thread::current().id();
    let thread = thread::spawn(move || {
        remote.status().unwrap();
        let handle = remote
            .spawn_with_handle(async move {
                sleep(Duration::from_millis(1)).await.unwrap();
                thread::current().id()
            })
            .unwrap();
        remote.spawn(async {}).unwrap();
        let ran_on = smol::block_on(handle);
        remote.stop();
        ran_on
    });
    event_loop.run_forever().unwrap();
    assert_eq!(thread.join().unwrap(), here);
}

#[test]
fn a_closed_loop_refuses_to_spawn() {
    let event_loop = new_loop();
    let remote = event_loop.threadsafe();
    event_loop.close().unwrap();
    assert!(event_loop.status_local().unwrap_err().is_shutdown());
    assert!(event_loop.spawn_local(async {}).unwrap_err().is_shutdown());
    assert!(remote.status().unwrap_err().is_shutdown());
    assert!(remote.spawn(async {}).unwrap_err().is_shutdown());
}

#[test]
fn a_spawned_future_that_panics_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.spawn_local(async { panic!("boom") }).unwrap();
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "boom");
    event_loop.threadsafe().spawn(async { panic!("bang") }).unwrap();
    let reports = handler(&event_loop);
    for _ in 0..4 {
        tick(&event_loop);
    }
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn a_spawned_future_runs_under_the_task_factory() {
    let event_loop = new_loop();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    event_loop.set_task_factory(Some(Rc::new(move |_, _| {
        counted.set(counted.get() + 1);
        Ok(())
    })));
    event_loop.spawn_local(async {}).unwrap();
    assert_eq!(count.get(), 1);
    tick(&event_loop);
}
