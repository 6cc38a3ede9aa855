//! Timeouts that are passed on: between tasks, out of tasks, to another loop, to nobody.

use std::{cell::RefCell, pin::Pin, rc::Rc, task::Poll};

use asyncio::{ErrorKind, Result, create_task, get_running_loop, shielded, sleep, timeout};

use crate::{
    HOUR, MS, SECOND, kind, now, own, poll_now, poll_pinned, run,
    support::{self, drop_guard, failure, new_loop, tick, virtual_loop},
    turns,
};

const TIMEOUT: Option<ErrorKind> = Some(ErrorKind::Timeout);

type Boxed = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A body that has begun to wait in the task that runs.
async fn begun(body: impl Future<Output = Result<()>> + 'static) -> Boxed {
    let mut body: Boxed = Box::pin(body);
    assert!(futures::poll!(body.as_mut()).is_pending());
    body
}

#[test]
fn to_another_task() {
    run(async {
        let begin = now();
        let waits = begun(timeout(10 * MS, sleep(HOUR))).await;
        let other = create_task(async move {
            let outcome = waits.await;
            assert_eq!(own().cancelling(), 0);
            Ok(kind(&outcome))
        });
        assert_eq!(other.await?, TIMEOUT);
        assert_eq!((now() - begin, own().cancelling()), (10 * MS, 0));
        Ok(())
    });
}

/// Around a task and around a foreign future, through the hands of several tasks, one of which ends before.
#[test]
fn through_several_tasks() {
    run(async {
        for foreign in [false, true] {
            let begin = now();
            let waits = if foreign {
                begun(timeout(10 * MS, std::future::pending())).await
            } else {
                let task = create_task(async { sleep(HOUR).await });
                begun(timeout(10 * MS, task)).await
            };
            let second = create_task(async move {
                let mut waits = waits;
                assert!(futures::poll!(waits.as_mut()).is_pending());
                Ok(waits)
            });
            let waits = second.await?;
            let third = create_task(waits);
            assert_eq!(kind(&third.await), TIMEOUT);
            assert_eq!(now() - begin, 10 * MS);
        }
        Ok(())
    });
}

/// It has passed and its body cleans up, when it is passed on: the request goes with it.
#[test]
fn to_another_task_in_the_clean_up() {
    run(async {
        let mut waits = begun(timeout(10 * MS, async {
            let slept = sleep(HOUR).await;
            sleep(10 * MS).await?;
            slept
        }))
        .await;
        let first = own();
        sleep(10 * MS).await?;
        turns(1).await?;
        assert!(futures::poll!(waits.as_mut()).is_pending());
        assert_eq!(first.cancelling(), 1);
        let second = create_task(async move {
            let mut waits = waits;
            assert!(futures::poll!(waits.as_mut()).is_pending());
            let inside = (own().cancelling(), first.cancelling());
            let outcome = waits.await;
            Ok((inside, kind(&outcome), own().cancelling(), first.cancelling()))
        });
        assert_eq!(second.await?, ((1, 0), TIMEOUT, 0, 0));
        Ok(())
    });
}

/// Whoever holds it is cancelled, not who held it.
#[test]
fn the_first_task_is_cancelled_after_it_has_passed_it_on() {
    run(async {
        let handed = Rc::new(RefCell::new(None));
        let gives = handed.clone();
        let first = create_task(async move {
            let waits = begun(timeout(HOUR, sleep(50 * MS))).await;
            gives.replace(Some(waits));
            sleep(HOUR).await
        });
        turns(2).await?;
        let waits = handed.take().unwrap();
        let second = create_task(waits);
        turns(1).await?;
        first.cancel();
        assert_eq!(kind(&first.await), Some(ErrorKind::Cancelled));
        second.await
    });
}

#[test]
fn dropped_midway() {
    run(async {
        let event_loop = get_running_loop()?;
        for late in [false, true] {
            let (guard, dropped) = drop_guard();
            let delay = if late { MS } else { HOUR };
            let waits = begun(timeout(delay, async move {
                let _guard = guard;
                std::future::pending().await
            }))
            .await;
            sleep(2 * MS).await?;
            assert_eq!(own().cancelling(), u32::from(late));
            drop(waits);
            assert!(dropped.get());
            assert_eq!((own().cancelling(), event_loop.next_deadline()), (0, None));
            turns(2).await?;
        }
        // Nothing of it reaches the next await.
        let waits = begun(timeout(MS, sleep(HOUR))).await;
        sleep(2 * MS).await?;
        drop(waits);
        sleep(MS).await?;
        timeout(SECOND, sleep(MS)).await
    });
}

#[test]
fn dropped_by_a_callback_and_by_another_task() {
    run(async {
        let event_loop = get_running_loop()?;
        let waits = begun(timeout(MS, sleep(HOUR))).await;
        let handle = event_loop.call_later(5 * MS, move || drop(waits));
        sleep(2 * MS).await?;
        assert_eq!(own().cancelling(), 1);
        handle.await?;
        assert_eq!((own().cancelling(), event_loop.next_deadline()), (0, None));
        let waits = begun(timeout(MS, sleep(HOUR))).await;
        create_task(async move {
            drop(waits);
            Ok(())
        })
        .await?;
        assert_eq!((own().cancelling(), event_loop.next_deadline()), (0, None));
        Ok(())
    });
}

#[test]
fn dropped_after_its_task_has_ended() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let waits = event_loop.run_until_complete(async { Ok(begun(timeout(HOUR, sleep(HOUR))).await) }).unwrap();
    assert!(event_loop.next_deadline().is_some());
    drop(waits);
    crate::assert_clean(&event_loop);
    // And one whose time passes meanwhile.
    let waits = event_loop.run_until_complete(async { Ok(begun(timeout(MS, sleep(HOUR))).await) }).unwrap();
    event_loop.run_until_complete(sleep(SECOND)).unwrap();
    assert_eq!(kind(&event_loop.run_until_complete(waits)), TIMEOUT);
    crate::assert_clean(&event_loop);
}

/// Off the loop's thread: what is left goes with the loop's next iteration.
#[test]
fn dropped_on_another_thread() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for late in [false, true] {
        let mut waits = Box::pin(timeout(if late { MS } else { HOUR }, sleep(HOUR)));
        event_loop
            .run_until_complete(async {
                assert!(futures::poll!(waits.as_mut()).is_pending());
                sleep(2 * MS).await?;
                assert_eq!(own().cancelling(), u32::from(late));
                std::thread::spawn(move || drop(waits)).join().unwrap();
                turns(2).await?;
                assert_eq!(own().cancelling(), 0);
                sleep(MS).await
            })
            .unwrap();
        crate::assert_clean(&event_loop);
    }
    // A shielded section, too; and while the loop is gone.
    let mut section = Box::pin(shielded(sleep(HOUR)));
    let mut waits = Box::pin(timeout(HOUR, sleep(HOUR)));
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(section.as_mut()).is_pending());
            std::thread::spawn(move || drop(section)).join().unwrap();
            assert!(futures::poll!(waits.as_mut()).is_pending());
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
    drop(event_loop);
    std::thread::spawn(move || drop(waits)).join().unwrap();
}

#[test]
fn dropped_while_the_loop_closes_and_after() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let reports = support::handler(&event_loop);
    let (guard, dropped) = drop_guard();
    let _task = event_loop.create_task(timeout(HOUR, async move {
        let _guard = guard;
        sleep(HOUR).await
    }));
    let _section = event_loop.create_task(shielded(timeout(HOUR, sleep(HOUR))));
    let waits = event_loop.run_until_complete(async { Ok(begun(timeout(HOUR, sleep(HOUR))).await) }).unwrap();
    event_loop.close().unwrap();
    assert!(dropped.get());
    drop(waits);
    drop(reports);
}

#[test]
fn outside_of_tasks_and_loops() {
    let event_loop = new_loop();
    let mut waits = Box::pin(timeout(SECOND, sleep(std::time::Duration::ZERO)));
    let mut section = Box::pin(shielded(sleep(std::time::Duration::ZERO)));
    let ready = |polled: Poll<Result<()>>| match polled {
        Poll::Ready(outcome) => failure(outcome),
        Poll::Pending => panic!("it waits"),
    };
    let no_loop = (ErrorKind::Runtime, "no running event loop".to_string());
    assert_eq!(ready(poll_pinned(waits.as_mut())), no_loop);
    assert_eq!(ready(poll_pinned(section.as_mut())), no_loop);
    let handle = event_loop.call_soon(move || {
        assert_eq!(ready(poll_pinned(waits.as_mut())).1, "Timeout should be used inside a task");
        assert_eq!(ready(poll_pinned(section.as_mut())).0, ErrorKind::Runtime);
        (waits, section)
    });
    // Refused, but not spent.
    let (waits, section) = event_loop.run_until_complete(handle).unwrap();
    event_loop.run_until_complete(waits).unwrap();
    event_loop.run_until_complete(section).unwrap();
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn under_another_loop() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let (other, _other_clock) = virtual_loop();
    let mut waits = Box::pin(timeout(HOUR, sleep(MS)));
    let mut section = Box::pin(shielded(sleep(MS)));
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(waits.as_mut()).is_pending());
            assert!(futures::poll!(section.as_mut()).is_pending());
            Ok(())
        })
        .unwrap();
    assert_eq!(failure(other.run_until_complete(waits.as_mut())).0, ErrorKind::Value);
    assert_eq!(failure(other.run_until_complete(section.as_mut())).0, ErrorKind::Value);
    // Not spent either: under its own loop it goes on.
    event_loop.run_until_complete(waits).unwrap();
    event_loop.run_until_complete(section).unwrap();
    crate::assert_clean(&event_loop);
    crate::assert_clean(&other);
}

#[test]
fn polled_after_its_end() {
    run(async {
        let mut waits = Box::pin(timeout(MS, sleep(HOUR)));
        assert_eq!(kind(&waits.as_mut().await), TIMEOUT);
        assert_eq!(kind(&waits.as_mut().await), Some(ErrorKind::InvalidState));
        let mut section = Box::pin(shielded(async { Ok(()) }));
        section.as_mut().await?;
        assert_eq!(kind(&section.as_mut().await), Some(ErrorKind::InvalidState));
        Ok(())
    });
}

/// Polled without reason it stays as it is; with another waker it follows that.
#[test]
fn polled_without_reason() {
    run(async {
        let begin = now();
        let mut waits = begun(timeout(10 * MS, sleep(HOUR))).await;
        for _ in 0..5 {
            sleep(MS).await?;
            assert!(futures::poll!(waits.as_mut()).is_pending());
            assert!(poll_pinned(waits.as_mut()).is_pending(), "with a waker of nobody's");
        }
        assert_eq!(kind(&waits.await), TIMEOUT);
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

/// A `block_on` inside of nothing, which is a task, too.
#[test]
fn in_block_on() {
    let outcome = asyncio::block_on(async { timeout(MS, sleep(HOUR)).await });
    assert_eq!(kind(&outcome), TIMEOUT);
    assert!(matches!(poll_now(timeout(MS, async { Ok(()) })), Poll::Ready(Err(_))));
    let event_loop = new_loop();
    tick(&event_loop);
}
