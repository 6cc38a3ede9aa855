//! Failures of tasks that nobody looked at.

use asyncio::Error;

use crate::support::{Record, handler, new_loop, tick};

async fn fails() -> asyncio::Result<u8> {
    Err(Error::other("user error"))
}

/// TASK-015
#[test]
fn a_failure_that_nobody_read_is_reported_at_the_last_drop() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(fails());
    let known = task.any();
    let id = known.id();
    tick(&event_loop);
    assert!(task.done());
    tick(&event_loop);
    assert_eq!(reports.len(), 0, "no report before the drop");
    drop(task);
    assert_eq!(reports.len(), 0, "an erased handle may still look");
    drop(known);
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message, "Task exception was never retrieved");
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "user error");
    assert_eq!(reports[0].task.as_ref().unwrap().id(), id);
    assert_eq!(reports[0].keys(), ["exception", "message", "task"]);
    assert_eq!(reports[0].source_location.unwrap().file(), file!());
}

/// TASK-015: dropped first, failed later.
#[test]
fn a_detached_task_that_fails_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    drop(event_loop.create_task(fails()));
    assert_eq!(reports.len(), 0);
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message, "Task exception was never retrieved");
}

/// TASK-015: a held handle, a done callback or a lost wait is no look.
#[test]
fn what_does_not_look_does_not_count() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut task = event_loop.create_task(async {
        asyncio::sleep(std::time::Duration::ZERO).await?;
        fails().await
    });
    task.add_done_callback(|task| assert!(task.done() && !task.cancelled()));
    event_loop
        .run_until_complete(async {
            // Polled once and given up.
            assert!(futures::FutureExt::now_or_never(&mut task).is_none());
            Ok(())
        })
        .unwrap();
    tick(&event_loop);
    assert!(task.done());
    assert_eq!(reports.len(), 0);
    drop(task);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

/// TASK-015: an awaiter that goes with the handle it holds is not there any more when the task fails.
#[test]
fn a_failure_whose_awaiter_was_dropped_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let gate = crate::support::Gate::default();
    let open = gate.clone();
    let task = event_loop.create_task(async move {
        open.await;
        fails().await
    });
    event_loop
        .run_until_complete(async {
            let lost = futures::future::select(task, std::future::ready(())).await;
            drop(lost);
            Ok(())
        })
        .unwrap();
    gate.open();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

/// TASK-016
#[test]
fn cancel_on_a_failed_task_is_a_look() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(fails());
    tick(&event_loop);
    assert!(!task.cancel());
    drop(task);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// TASK-016: every other look counts too, through whichever handle.
#[test]
fn every_look_keeps_a_failure_from_being_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let looks: [(&str, fn(&asyncio::EventLoop, asyncio::Task<u8>)); 6] = [
        ("result", |_, task| assert!(task.result().is_err())),
        ("exception", |_, task| assert!(task.exception().unwrap().is_some())),
        ("await", |event_loop, task| assert!(event_loop.run_until_complete(task).is_err())),
        ("await by reference", |event_loop, task| assert!(event_loop.run_until_complete(&task).is_err())),
        ("await of the erased", |event_loop, task| assert!(event_loop.run_until_complete(task.any()).is_err())),
        ("the erased one's exception", |_, task| assert!(task.any().exception().unwrap().is_some())),
    ];
    for (name, look) in looks {
        let task = event_loop.create_task(fails());
        tick(&event_loop);
        look(&event_loop, task);
        tick(&event_loop);
        if reports.take().is_empty() {
            record.push(name);
        }
    }
    assert_eq!(record.take(), looks.map(|look| look.0));
}

/// TASK-016: a task that ended well or cancelled needs no look.
#[test]
fn other_ends_are_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    drop(event_loop.create_task(async { Ok(1) }));
    drop(event_loop.create_task(async { Err::<u8, _>(Error::cancelled()) }));
    let task = event_loop.create_task(fails());
    task.cancel();
    drop(task);
    tick(&event_loop);
    assert_eq!(event_loop.all_tasks(), []);
    assert_eq!(reports.take().len(), 0);
}
