//! `as_completed` without a loop, with another one, and with one that is closed.

use asyncio::{ErrorKind, Future, all_tasks, as_completed, create_task, current_task, set_event_loop, sleep};
use futures::{FutureExt, StreamExt};

use crate::{
    FOREVER, MS, after, run,
    support::{deadline, drop_guard, failure, handler, new_loop, tick, virtual_loop},
    texts, turns,
};

#[test]
fn without_a_loop_the_first_item_is_the_error() {
    let (guard, dropped) = drop_guard();
    let coroutine = async move {
        let _guard = guard;
        Ok(42)
    };
    let mut waits = as_completed([coroutine]).timeout(MS).into_iter().collect::<Vec<_>>();
    assert!(dropped.get());
    assert_eq!(waits.len(), 1);
    let (kind, text) = failure(new_loop().run_until_complete(waits.pop().unwrap()));
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("no current event loop"), "{text}");

    let mut completed = as_completed([sleep(MS)]);
    let first = completed.next().now_or_never().unwrap().unwrap();
    assert_eq!(failure(first).0, ErrorKind::Runtime);
    assert!(completed.next().now_or_never().unwrap().is_none());
}

#[test]
fn what_belongs_to_another_loop_is_refused() {
    let other = new_loop();
    let foreign = other.create_future::<u8>();
    run(async {
        let home = Future::new();
        let mut completed = as_completed([home.clone(), foreign.clone()]).timeout(FOREVER);
        assert_eq!(failure(completed.next().await.unwrap()).0, ErrorKind::Value);
        assert!(completed.next().await.is_none());
        let mut waits = as_completed([foreign.clone(), home.clone()]).into_iter();
        assert_eq!(failure(waits.next().unwrap().await).0, ErrorKind::Value);
        assert!(waits.next().is_none());
        assert!(!home.done());
        Ok(())
    });
    assert!(!foreign.done());
}

#[test]
fn it_starts_between_runs_on_the_set_loop() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    set_event_loop(&event_loop);
    let mut completed = as_completed([after(2, 2), after(1, 1)]).timeout(MS * 50);
    set_event_loop(None);
    assert_eq!(event_loop.all_tasks().len(), 2);
    tick(&event_loop);
    let values = event_loop.run_until_complete(async {
        let mut values = Vec::new();
        while let Some(next) = completed.next().await {
            values.push(next?.await?);
        }
        Ok(values)
    });
    assert_eq!(values.unwrap(), [1, 2]);
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn it_is_not_awaited_under_another_loop() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    let mut next = event_loop.run_until_complete(async { Ok(as_completed([after(5, 1)]).into_iter()) }).unwrap();
    let mut next = next.next().unwrap();
    let other = new_loop();
    assert_eq!(failure(other.run_until_complete(&mut next)).0, ErrorKind::Value);
    assert_eq!(event_loop.run_until_complete(next).unwrap(), 1);
}

#[test]
fn a_loop_that_closes_in_between_leaves_it_harmless() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut completed = event_loop
        .run_until_complete(async {
            let mut completed = as_completed([sleep(FOREVER), sleep(FOREVER)]).timeout(FOREVER);
            assert!(futures::poll!(completed.next()).is_pending());
            turns(2).await?;
            Ok(completed)
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(texts(&reports).len(), 2, "two tasks were destroyed");
    let _ = completed.next().now_or_never();
    let mut next = (&mut completed).into_iter().next();
    let _ = next.as_mut().map(|next| next.now_or_never());
    drop((next, completed));
    assert_eq!(reports.len(), 0);
}

#[test]
fn members_are_named_and_made_where_it_is_called() {
    run(async {
        let completed = as_completed([sleep(MS), sleep(MS)]);
        let line = line!() - 1;
        let me = current_task()?.unwrap();
        let members = all_tasks()?.into_iter().filter(|task| *task != me).collect::<Vec<_>>();
        assert_eq!(members.len(), 2);
        for member in members {
            assert!(member.get_name().starts_with("Task-"));
            assert_eq!((member.source_location().file(), member.source_location().line()), (file!(), line));
        }
        for next in completed {
            next.await?;
        }
        let known = create_task(async { Ok(()) });
        known.set_name("mine");
        let item = as_completed([known]).next().await.unwrap()?;
        assert_eq!(item.task().unwrap().get_name(), "mine");
        Ok(())
    });
}
