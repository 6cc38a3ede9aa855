//! Groups that end while a task of theirs is being made.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use asyncio::{Result, TaskGroup, TaskRequest, get_running_loop, sleep};

use crate::support::{drop_guard, run};

/// A child that begins at once cancels its group in its first step: it is cancelled itself.
#[test]
fn an_eager_child_that_cancels_its_group_is_cancelled_too() {
    run(async {
        TaskGroup::scope(async |group| {
            let whole = group.clone();
            let child = group
                .task(async move {
                    whole.cancel();
                    sleep(Duration::from_secs(3600)).await
                })
                .eager_start(true)
                .start();
            assert!(child.await.unwrap_err().is_cancelled());
            Ok(())
        })
        .await
    });
}

/// A factory that panics leaves nothing to wait for.
#[test]
fn a_factory_that_panics_does_not_hold_the_group_up() {
    run(async {
        let event_loop = get_running_loop()?;
        TaskGroup::scope(async |group| {
            event_loop.set_task_factory(Some(Rc::new(|_, _| panic!("no tasks today"))));
            let made = catch_unwind(AssertUnwindSafe(|| drop(group.create_task(async { Ok(()) }))));
            event_loop.set_task_factory(None);
            assert!(made.is_err());
            Ok(())
        })
        .await
    });
}

/// A factory may replace the whole request: the task is the group's all the same.
#[test]
fn a_factory_that_replaces_the_request_does_not_take_the_task_from_its_group() {
    run(async {
        let event_loop = get_running_loop()?;
        event_loop.set_task_factory(Some(Rc::new(|_, request| {
            *request = TaskRequest::default();
            Ok(())
        })));
        let (guard, dropped) = drop_guard();
        let outcome: Result<()> = TaskGroup::scope(async |group| {
            group.create_task(async move {
                sleep(Duration::from_millis(2)).await?;
                drop(guard);
                Ok(())
            });
            Ok(())
        })
        .await;
        event_loop.set_task_factory(None);
        assert!(dropped.get(), "the group has waited");
        outcome
    });
}
