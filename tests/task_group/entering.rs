//! Where a group can be entered, and where it takes tasks.

use std::{cell::RefCell, rc::Rc};

use asyncio::{Error, ErrorKind, Result, TaskGroup, sleep};

use crate::{
    fail_after, for_ever, ms, outcome, run, shown,
    support::{self, drop_guard, failure, handler, new_loop, tick, virtual_loop},
    this_task, value,
};

/// Makes a task in a group that takes none; its coroutine must be dropped unpolled.
fn refused(group: &TaskGroup) -> (ErrorKind, String) {
    let (guard, dropped) = drop_guard();
    let task = group.create_task(async move {
        let _guard = guard;
        if true {
            panic!("it was polled");
        }
        Ok(())
    });
    assert!(dropped.get(), "at once");
    assert!(task.done());
    failure(task.result())
}

/// TG-012: after the block. Before entering does not compile, see `TaskGroup`.
#[test]
fn a_finished_group_takes_no_tasks() {
    run(async {
        let mut group = None;
        TaskGroup::scope(async |entered| {
            group = Some(entered.clone());
            Ok(())
        })
        .await?;
        let (kind, text) = refused(&group.unwrap());
        assert_eq!(kind, ErrorKind::Runtime);
        assert!(text.contains("is finished"), "{text}");
        Ok(())
    });
}

/// TG-012: after a task failed.
#[test]
fn a_group_that_shuts_down_takes_no_tasks() {
    let result = outcome(TaskGroup::scope(async |group| {
        group.create_task(fail_after(1, "E"));
        let handle = group.clone();
        group.create_task(async move {
            let cancelled = for_ever().await;
            let (kind, text) = refused(&handle);
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.contains("is shutting down"), "{text}");
            cancelled
        });
        let cancelled = for_ever().await;
        assert!(refused(group).1.contains("is shutting down"));
        cancelled
    }));
    assert_eq!(shown(&result), "[E]");
}

/// TG-012: after the body failed, as long as a task lives and afterwards.
#[test]
fn a_group_whose_body_failed_takes_no_tasks() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let texts = seen.clone();
    run(async {
        let mut group = None;
        let result: Result<()> = TaskGroup::scope(async |entered| {
            group = Some(entered.clone());
            let handle = entered.clone();
            entered.create_task(async move {
                let cancelled = for_ever().await;
                texts.borrow_mut().push(refused(&handle).1);
                cancelled
            });
            sleep(ms(1)).await?;
            Err(value("E"))
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        seen.borrow_mut().push(refused(&group.unwrap()).1);
        Ok(())
    });
    assert_eq!(
        *seen.borrow(),
        [
            "<TaskGroup tasks=1 errors=0 cancelling> is shutting down",
            "<TaskGroup tasks=0 errors=0 finished> is finished"
        ]
    );
}

/// In the iteration between the end of the last task and that of the group.
#[test]
fn a_group_whose_last_task_was_seen_to_end_is_finished() {
    let event_loop = new_loop();
    let group = Rc::new(RefCell::new(None));
    let kept = group.clone();
    let task = event_loop.create_task(TaskGroup::scope(async move |entered| {
        entered.create_task(async { Ok(()) });
        kept.replace(Some(entered.clone()));
        Ok(())
    }));
    tick(&event_loop); // the body
    tick(&event_loop); // the task
    let made = event_loop.in_context(&asyncio::Context::new()).call_soon({
        let group = group.clone();
        move || refused(group.borrow().as_ref().unwrap()).1
    });
    let text = event_loop.run_until_complete(made).unwrap();
    assert!(text.contains("is finished"), "{text}");
    event_loop.run_until_complete(task).unwrap();
    event_loop.close().unwrap();
}

/// A refused task is as any that is born failed: who does not look at it finds a report.
#[test]
fn a_refused_task_that_nobody_looks_at_is_reported() {
    let _deadline = support::deadline();
    for looks in [false, true] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        event_loop
            .run_until_complete(async {
                let mut group = None;
                TaskGroup::scope(async |entered| {
                    group = Some(entered.clone());
                    Ok(())
                })
                .await?;
                let task = group.unwrap().create_task(async { Ok(()) });
                if looks {
                    assert!(task.exception()?.is_some());
                }
                drop(task);
                sleep(ms(1)).await
            })
            .unwrap();
        let reports = reports.take();
        assert_eq!(reports.len(), usize::from(!looks), "{reports:?}");
        if let Some(report) = reports.first() {
            assert_eq!(report.message, "Task exception was never retrieved");
            assert_eq!(report.exception.as_ref().map(Error::kind), Some(ErrorKind::Runtime));
        }
        event_loop.close().unwrap();
    }
}

/// A builder that was made in time and started too late; also an eager one.
#[test]
fn a_late_builder_is_refused() {
    run(async {
        let mut builders = Vec::new();
        let (guard, dropped) = drop_guard();
        let mut guard = Some(guard);
        TaskGroup::scope(async |group| {
            for eager in [false, true] {
                let guard = guard.take();
                let coroutine = async move {
                    let _guard = guard;
                    Ok(())
                };
                builders.push(group.task(coroutine).name("late").eager_start(eager));
            }
            Ok(())
        })
        .await?;
        for builder in builders {
            let (kind, text) = failure(builder.start().result());
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.contains("is finished"));
        }
        assert!(dropped.get());
        Ok(())
    });
}

/// TG-013: outside any task; to enter twice does not compile, see `TaskGroup`.
#[test]
fn a_group_cannot_be_entered_outside_of_tasks() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let checked = event_loop.call_soon(|| {
        let mut scope = std::pin::pin!(TaskGroup::scope(async |_| -> Result<()> { unreachable!("the body ran") }));
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        match scope.as_mut().poll(cx) {
            std::task::Poll::Ready(result) => failure(result),
            std::task::Poll::Pending => panic!("it waits"),
        }
    });
    let (kind, text) = event_loop.run_until_complete(checked).unwrap();
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("parent task"), "{text}");
    event_loop.close().unwrap();
}

/// TG-013: without a loop.
#[test]
fn a_group_cannot_be_entered_without_a_loop() {
    let mut scope = std::pin::pin!(TaskGroup::builder().timeout(ms(1)).scope(async |_| Ok(())));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = scope.as_mut().poll(cx) else { panic!("it waits") };
    assert_eq!(failure(result), (ErrorKind::Runtime, "no running event loop".into()));
}

/// TG-013: what was made outside of a task can be entered inside of one.
#[test]
fn a_scope_belongs_to_the_task_that_polls_it_first() {
    let scope = TaskGroup::scope(async |group| group.create_task(async { Ok(5) }).await);
    assert_eq!(run(scope), 5);
}

/// TG-013: one builder can be used for several groups, a group for one block.
#[test]
fn a_builder_makes_a_group_each_time() {
    run(async {
        let builder = TaskGroup::builder().timeout(ms(10));
        for _ in 0..2 {
            let result = builder.clone().scope(async |_| for_ever().await).await;
            assert_eq!(shown(&result), "timed out");
        }
        builder.scope(async |group| group.create_task(sleep(ms(9))).await).await?;
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}
