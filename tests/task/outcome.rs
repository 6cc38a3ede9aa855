//! What a task gives, and how often; born failed ones.

use std::time::Duration;

use asyncio::{Error, ErrorKind, create_task, sleep};

use crate::support::{self, failure, handler, new_loop, tick};

/// TASK-006: there is no way to set a task's result but its coroutine (`compile_fail` in the page of `Task`).
#[test]
fn a_tasks_result_is_its_coroutines() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok("ko") });
    assert_eq!(event_loop.run_until_complete(&task).unwrap(), "ko");
    assert_eq!(task.result().unwrap(), "ko");
}

/// TASK-004
#[test]
fn a_task_that_has_failed_keeps_its_error() {
    support::run(async {
        let task = create_task(async { Err::<(), _>(Error::Value("E".into())) });
        let (done, pending) = asyncio::wait([&task]).await?;
        assert_eq!((done.len(), pending.len()), (1, 0));
        assert!(task.done() && !task.cancelled());
        let error = task.exception()?.expect("it has failed");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Value, "E"));
        assert_eq!(failure(task.result()), (ErrorKind::Value, "E".into()));
        Ok(())
    });
}

/// TASK-005
#[test]
fn a_task_may_be_awaited_twice_by_reference() {
    support::run(async {
        let task = create_task(async { Ok("ok") });
        assert_eq!((&task).await?, "ok");
        let watcher = create_task(async { Ok(()) });
        assert_eq!((&task).await?, "ok");
        assert!(!watcher.done(), "the second await does not suspend");
        let shared = task.shared();
        assert_eq!(shared.clone().await?, "ok");
        assert_eq!(shared.await?, "ok");
        watcher.await
    });
}

/// TASK-005: the value moves out once.
#[test]
fn awaiting_the_task_itself_moves_the_value_out() {
    struct NotClone(u8);
    support::run(async {
        let task = create_task(async { Ok(NotClone(4)) });
        assert_eq!(task.await?.0, 4);
        let mut task = create_task(async { Ok(String::from("x")) });
        assert_eq!((&mut task).await?, "x");
        assert!(task.done() && !task.cancelled());
        assert!(task.exception()?.is_none());
        let taken = (ErrorKind::InvalidState, String::from("Result was already taken"));
        assert_eq!(failure(task.result()), taken);
        assert_eq!(failure((&task).await), taken);
        assert_eq!(failure((&mut task).await), taken);
        assert_eq!(failure(task.shared().await), taken);
        Ok(())
    });
}

#[test]
fn a_look_at_a_pending_task_is_an_error() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok(1) });
    assert_eq!(failure(task.result()), (ErrorKind::InvalidState, "Result is not set.".into()));
    assert_eq!(failure(task.exception()), (ErrorKind::InvalidState, "Exception is not set.".into()));
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 1);
    assert_eq!(task.result().unwrap(), 1, "a look leaves it");
    assert!(task.exception().unwrap().is_none());
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
}

#[test]
fn an_error_stays_for_whoever_asks_again() {
    support::run(async {
        let mut task = create_task(async { Err::<u8, _>(Error::other("mine")) });
        for _ in 0..2 {
            assert_eq!(failure((&mut task).await).1, "mine");
            assert_eq!(failure((&task).await).1, "mine");
            assert_eq!(failure(task.result()).1, "mine");
            assert_eq!(task.exception()?.unwrap().to_string(), "mine");
        }
        assert!(task.done() && !task.cancelled());
        assert_eq!(failure(task.any().await).1, "mine");
        assert_eq!(failure(task.await).1, "mine");
        Ok(())
    });
}

#[test]
fn the_users_own_error_comes_through() {
    support::run(async {
        let task = create_task(async { "x".parse::<u8>().map_err(Error::other) });
        let error = task.await.unwrap_err();
        assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
        let task = create_task(async {
            std::fs::File::open("/does/not/exist")?;
            Ok(())
        });
        assert_eq!(task.await.unwrap_err().io_error().unwrap().kind(), std::io::ErrorKind::NotFound);
        Ok(())
    });
}

#[test]
fn a_task_on_a_closed_loop_is_born_failed() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.close().unwrap();
    let (guard, dropped) = support::drop_guard();
    let polled = std::rc::Rc::new(std::cell::Cell::new(false));
    let flag = polled.clone();
    let task = event_loop.create_task(async move {
        let _guard = guard;
        flag.set(true);
        Ok(1)
    });
    assert!(dropped.get() && !polled.get());
    assert!(task.done() && !task.cancelled());
    assert_eq!(failure(task.result()), (ErrorKind::Runtime, "Event loop is closed".into()));
    assert!(!task.cancel());
    assert_eq!(event_loop.all_tasks(), []);
    drop(task);
    assert_eq!(reports.len(), 0, "it was looked at");
    let named = event_loop.task(async { Ok(()) }).name("late").eager_start(true).start();
    assert_eq!(failure(smol::block_on(named)).1, "Event loop is closed");
    drop(event_loop.create_task(async { Ok(()) }));
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "an unread failure is reported like any other");
    assert_eq!(reports[0].message, "Task exception was never retrieved");
    assert_eq!(reports[0].exception.as_ref().unwrap().kind(), ErrorKind::Runtime);
}

#[test]
fn a_task_without_a_loop_is_born_failed() {
    let (guard, dropped) = support::drop_guard();
    let task = create_task(async move {
        let _guard = guard;
        Ok(1)
    });
    assert!(dropped.get());
    assert!(task.done());
    assert_eq!(failure(task.result()), (ErrorKind::Runtime, "no running event loop".into()));
    assert_eq!(failure(smol::block_on(task)).1, "no running event loop");
    let ((), logs) = support::logs(|| drop(create_task(async { Ok(1) })));
    assert_eq!(logs.len(), 1);
    assert!(logs[0].1.starts_with("Task exception was never retrieved"), "{}", logs[0].1);
}

#[test]
fn a_born_failed_task_fails_whoever_awaits_it() {
    let closed = new_loop();
    closed.close().unwrap();
    support::run(async {
        let task = closed.create_task(async { Ok(1) });
        assert_eq!(failure(task.await), (ErrorKind::Runtime, "Event loop is closed".into()));
        Ok(())
    });
}

/// TASK-017
#[test]
fn close_reports_a_pending_task_and_cancels_it() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = support::drop_guard();
    let task = event_loop.create_task(async move {
        let _guard = guard;
        sleep(Duration::from_secs(10)).await
    });
    let known = task.any();
    tick(&event_loop);
    event_loop.close().unwrap();
    let seen = reports.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].message, "Task was destroyed but it is pending!");
    assert_eq!(seen[0].task.as_ref(), Some(&known));
    assert!(dropped.get());
    assert!(task.done() && task.cancelled());
    assert_eq!(failure(task.result()).0, ErrorKind::Cancelled);
    assert!(!task.cancel());
    drop((task, known, seen));
    assert_eq!(reports.len(), 0);
}

/// TASK-017: also for one that has not begun, one without a handle, one that only waits for something foreign, and in
/// the order of their making.
#[test]
fn close_reports_every_pending_task() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let detached = event_loop.task(std::future::pending::<asyncio::Result<()>>()).name("one").start();
    tick(&event_loop);
    drop(detached);
    let future = event_loop.create_future::<u8>();
    let _waiting = event_loop.task(future.clone()).name("two").start();
    tick(&event_loop);
    let fresh = event_loop.task(async { Ok(()) }).name("three").start();
    let done = event_loop.create_future::<()>();
    let seen = done.clone();
    fresh.add_done_callback(move |_| _ = seen.set_result(()));
    event_loop.close().unwrap();
    let reports = reports.take();
    let mut names: Vec<_> = reports.iter().map(|report| report.task.as_ref().unwrap().get_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "three", "two"]);
    assert!(fresh.cancelled());
    assert!(!done.done(), "callbacks do not run in a closed loop");
    assert!(!future.done());
}

#[test]
fn a_loop_that_is_dropped_closes() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(sleep(Duration::from_secs(10)));
    tick(&event_loop);
    drop(event_loop);
    assert!(task.cancelled());
    assert_eq!(reports.take().len(), 1);
    assert_eq!(task.get_loop().map(drop).unwrap_err().kind(), ErrorKind::Runtime);
    assert_eq!(task.get_name(), "Task-1");
    assert!(!task.cancel());
}
