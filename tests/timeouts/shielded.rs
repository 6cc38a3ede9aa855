//! Sections that a cancellation does not break off.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{ErrorKind, EventLoop, Result, Task, TaskGroup, create_task, get_running_loop, shielded, sleep, timeout};
use futures::future::join;

use crate::{
    HOUR, MS, SECOND, assert_clean, kind, message, now, own, run,
    support::{self, Gate, Record, drop_guard, tick, virtual_loop},
    turns, turns_until,
};

/// Starts a coroutine and lets it come to its first wait.
fn started<T: 'static>(event_loop: &EventLoop, coroutine: impl Future<Output = Result<T>> + 'static) -> Task<T> {
    let task = event_loop.create_task(coroutine);
    tick(event_loop);
    assert!(!task.done());
    task
}

#[test]
fn a_cancellation_waits_for_the_end_and_arrives_at_the_next_await() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let task = create_task(async move {
            let value = shielded(async {
                for _ in 0..3 {
                    sleep(10 * MS).await?;
                    seen.push("slept");
                }
                Ok(5)
            })
            .await?;
            seen.push("section ended");
            assert_eq!(own().cancelling(), 1);
            let next = sleep(HOUR).await;
            seen.push("next await");
            assert_eq!(message(next.clone()).as_deref(), Some("m"));
            next.map(|()| value)
        });
        let begin = now();
        sleep(5 * MS).await?;
        assert!(task.cancel_with("m"));
        assert_eq!(message(task.await).as_deref(), Some("m"));
        assert_eq!(record.take(), ["slept", "slept", "slept", "section ended", "next await"]);
        assert_eq!(now() - begin, 30 * MS);
        Ok(())
    });
}

/// The cancellation is held back without being looked at: no iteration is spent on it.
#[test]
fn it_does_not_spin() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for times in [1, 2, 100] {
        for foreign_beside in [false, true] {
            let task = started(&event_loop, async move {
                let section = shielded(sleep(HOUR));
                if foreign_beside {
                    let gate = Gate::default();
                    let opens = gate.clone();
                    let section = async move {
                        let outcome = section.await;
                        opens.open();
                        outcome
                    };
                    join(gate, section).await.1?;
                } else {
                    section.await?;
                }
                sleep(HOUR).await
            });
            for _ in 0..times {
                task.cancel();
            }
            assert_eq!(task.cancelling(), times);
            let (turns, begin) = (turns_until(&event_loop, || task.done()), event_loop.time());
            assert!(turns <= 8, "{turns} iterations after {times} cancellations");
            assert!(task.cancelled());
            assert_eq!(event_loop.time(), begin);
            assert_clean(&event_loop);
        }
    }
}

#[test]
fn cancelled_again_and_again_over_time() {
    run(async {
        let begin = now();
        let task = create_task(async {
            shielded(async {
                for _ in 0..10 {
                    sleep(10 * MS).await?;
                }
                Ok(())
            })
            .await?;
            assert_eq!(own().cancelling(), 20);
            let first = sleep(MS).await;
            let second = sleep(MS).await;
            Ok((message(first), second.is_ok()))
        });
        for number in 0..20 {
            sleep(4 * MS).await?;
            assert!(task.cancel_with(format!("{number}")));
        }
        // Told once, of the last one.
        assert_eq!(task.await?, (Some("19".into()), true));
        assert_eq!(now() - begin, 101 * MS);
        Ok(())
    });
}

/// Every kind of thing that the section may wait for.
#[test]
fn nothing_inside_is_cancelled() {
    run(async {
        let event_loop = get_running_loop()?;
        let (future, gate) = (event_loop.create_future::<u8>(), Gate::default());
        let (sets, opens) = (future.clone(), gate.clone());
        let inner = create_task(async { sleep(10 * MS).await.map(|()| 1) });
        let known = inner.any();
        let task = create_task(async move {
            let section = shielded(async {
                assert_eq!(inner.await?, 1);
                assert_eq!((&future).await?, 2);
                gate.await;
                let all = asyncio::gather((async { sleep(10 * MS).await }, async { Ok(4) })).await?;
                timeout(HOUR, async { sleep(10 * MS).await }).await?;
                Ok(all.1)
            });
            let value = section.await?;
            Ok(value)
        });
        event_loop.call_later(20 * MS, move || sets.set_result(2));
        event_loop.call_later(30 * MS, move || opens.open());
        for _ in 0..9 {
            sleep(5 * MS).await?;
            task.cancel();
            assert_eq!(known.cancelling(), 0);
        }
        // It returns a value with the cancellation never seen: it ends cancelled.
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert!(!known.cancelled());
        Ok(())
    });
}

#[test]
fn a_limit_inside_works() {
    run(async {
        let begin = now();
        let task = create_task(async {
            let outcome = shielded(timeout(10 * MS, sleep(HOUR))).await;
            assert_eq!((kind(&outcome), own().cancelling()), (Some(ErrorKind::Timeout), 1));
            let foreign = shielded(timeout(10 * MS, std::future::pending::<Result<()>>())).await;
            assert_eq!(kind(&foreign), Some(ErrorKind::Timeout));
            let next = sleep(HOUR).await;
            assert!(next.is_err());
            Ok(())
        });
        sleep(MS).await?;
        task.cancel();
        task.await?;
        assert_eq!(now() - begin, 20 * MS);
        Ok(())
    });
}

#[test]
fn a_limit_around_waits_for_it() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let task = event_loop.create_task(timeout(10 * MS, async {
        shielded(sleep(50 * MS)).await?;
        assert_eq!(own().cancelling(), 1);
        let next = sleep(HOUR).await;
        assert!(next.is_err());
        next
    }));
    let turns = turns_until(&event_loop, || task.done());
    assert!(turns <= 8, "{turns} iterations");
    assert_eq!(kind(&event_loop.run_until_complete(task)), Some(ErrorKind::Timeout));
    assert_eq!(event_loop.time() - begin, 50 * MS);
    // With nothing after it the section's value is the outcome; with a foreign future after it that is given up.
    let whole = event_loop.create_task(timeout(10 * MS, shielded(async { sleep(50 * MS).await.map(|()| 5) })));
    assert_eq!(event_loop.run_until_complete(whole).unwrap(), 5);
    let task = event_loop.create_task(timeout(10 * MS, async {
        shielded(sleep(50 * MS)).await?;
        std::future::pending::<Result<()>>().await
    }));
    let turns = turns_until(&event_loop, || task.done());
    assert!(turns <= 8, "{turns} iterations");
    assert_eq!(kind(&event_loop.run_until_complete(task)), Some(ErrorKind::Timeout));
    assert_clean(&event_loop);
}

#[test]
fn a_group_around_waits_for_it() {
    run(async {
        let (begin, record) = (now(), Record::default());
        let (child, body) = (record.clone(), record.clone());
        let outcome = TaskGroup::scope(async |group| {
            group.create_task(async move {
                shielded(sleep(30 * MS)).await?;
                child.push("child's section");
                sleep(HOUR).await
            });
            group.create_task(async {
                sleep(10 * MS).await?;
                Err::<(), _>(asyncio::Error::Value("E".into()))
            });
            shielded(sleep(20 * MS)).await?;
            body.push("body's section");
            sleep(HOUR).await
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Group));
        assert_eq!(record.take(), ["body's section", "child's section"]);
        assert_eq!((now() - begin, own().cancelling()), (30 * MS, 0));
        Ok(())
    });
}

#[test]
fn a_group_inside_works() {
    run(async {
        let task = create_task(async {
            let group = shielded(TaskGroup::scope(async |group| {
                group.create_task(async { sleep(20 * MS).await });
                group.create_task(async {
                    sleep(10 * MS).await?;
                    Err::<(), _>(asyncio::Error::Value("E".into()))
                });
                Ok(())
            }));
            let outcome = group.await;
            assert_eq!(kind(&outcome), Some(ErrorKind::Group));
            Ok(sleep(HOUR).await.is_err())
        });
        sleep(MS).await?;
        task.cancel();
        assert!(task.await?);
        Ok(())
    });
}

#[test]
fn sections_inside_of_sections() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = started(&event_loop, async move {
        shielded(async {
            shielded(shielded(sleep(10 * MS))).await?;
            seen.push("inner");
            sleep(10 * MS).await?;
            shielded(sleep(10 * MS)).await?;
            seen.push("outer");
            Ok(())
        })
        .await?;
        let next = sleep(HOUR).await;
        seen.push("told");
        next
    });
    let begin = event_loop.time();
    task.cancel();
    let turns = turns_until(&event_loop, || task.done());
    assert!(turns <= 16, "{turns} iterations");
    assert!(task.cancelled());
    assert_eq!(record.take(), ["inner", "outer", "told"]);
    assert_eq!(event_loop.time() - begin, 30 * MS);
    assert_clean(&event_loop);
}

/// A section that is dropped while it holds a cancellation back: it arrives at the next await.
#[test]
fn a_section_that_is_dropped_lets_the_cancellation_through() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for by_limit in [false, true] {
        let (guard, dropped) = drop_guard();
        let section = async move {
            let section = shielded(async move {
                let _guard = guard;
                sleep(HOUR).await
            });
            let woken = sleep(10 * MS);
            futures::future::select(Box::pin(section), Box::pin(shielded(woken))).await;
            let begin = now();
            let next = sleep(HOUR).await;
            assert!(next.is_err() && now() == begin);
            next
        };
        let task = match by_limit {
            true => event_loop.create_task(timeout(5 * MS, section)),
            false => started(&event_loop, section),
        };
        if !by_limit {
            task.cancel();
        }
        let turns = turns_until(&event_loop, || task.done());
        assert!(turns <= 10, "{turns} iterations");
        let expected = if by_limit { ErrorKind::Timeout } else { ErrorKind::Cancelled };
        assert_eq!(kind(&event_loop.run_until_complete(task)), Some(expected));
        assert!(dropped.get());
        assert_clean(&event_loop);
    }
}

/// Dropped by somebody else than the task that polled it: the task is woken, as its other awaits may take it now.
#[test]
fn a_section_that_somebody_else_drops() {
    run(async {
        let kept = Rc::new(std::cell::RefCell::new(None));
        let keeps = kept.clone();
        let task = create_task(async move {
            let mut section = Box::pin(shielded(sleep(HOUR)));
            assert!(futures::poll!(section.as_mut()).is_pending());
            keeps.replace(Some(section));
            sleep(HOUR).await
        });
        turns(2).await?;
        drop(kept.take());
        task.cancel();
        let begin = now();
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert_eq!(now(), begin);
        Ok(())
    });
}

/// A task whose only other awaits are foreign: it is not dropped during the section, and is after it.
#[test]
fn a_task_of_foreign_futures_with_a_section() {
    run(async {
        let (guard, dropped) = drop_guard();
        let passed = Rc::new(Cell::new(false));
        let passes = passed.clone();
        let begin = now();
        let task = create_task(async move {
            let _guard = guard;
            shielded(async {
                sleep(10 * MS).await?;
                Ok(())
            })
            .await?;
            passes.set(true);
            std::future::pending::<Result<()>>().await
        });
        sleep(MS).await?;
        task.cancel();
        sleep(5 * MS).await?;
        assert!(!dropped.get() && !passed.get());
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert!(dropped.get() && passed.get());
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

/// Only foreign futures inside of the section: they are not dropped either.
#[test]
fn a_section_of_foreign_futures() {
    run(async {
        let gate = Gate::default();
        let (opens, begin) = (gate.clone(), now());
        get_running_loop()?.call_later(20 * MS, move || opens.open());
        let task = create_task(async move {
            shielded(async {
                gate.await;
                Ok(())
            })
            .await?;
            asyncio::ok(now() - begin)
        });
        for _ in 0..3 {
            sleep(MS).await?;
            task.cancel();
        }
        while task.uncancel() > 0 {}
        assert_eq!(task.await?, 20 * MS, "the cancellations were taken back before they were seen");
        Ok(())
    });
}

/// A sibling of the section is not protected by it.
#[test]
fn a_sibling_takes_the_cancellation() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for section_first in [true, false] {
        let task = started(&event_loop, async move {
            let (section, sibling) = (shielded(sleep(20 * MS)), sleep(HOUR));
            let (section, sibling) = if section_first {
                join(section, sibling).await
            } else {
                let (sibling, section) = join(sibling, section).await;
                (section, sibling)
            };
            Ok((section.is_ok(), sibling.is_err()))
        });
        task.cancel();
        let turns = turns_until(&event_loop, || task.done());
        assert!(turns <= 8, "{turns} iterations");
        assert_eq!(event_loop.run_until_complete(task).unwrap(), (true, true));
        assert_clean(&event_loop);
    }
}

/// The same where the sibling is a limit that passes.
#[test]
fn a_limit_beside_a_section() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for section_first in [true, false] {
        for foreign in [true, false] {
            let task = event_loop.create_task(async move {
                let body = async move {
                    match foreign {
                        true => std::future::pending().await,
                        false => sleep(HOUR).await,
                    }
                };
                let (section, limited) = (shielded(sleep(20 * MS)), timeout(10 * MS, body));
                let (section, limited) = if section_first {
                    join(section, limited).await
                } else {
                    let (limited, section) = join(limited, section).await;
                    (section, limited)
                };
                Ok((section.is_ok(), kind(&limited)))
            });
            let turns = turns_until(&event_loop, || task.done());
            assert!(turns <= 8, "{turns} iterations");
            let outcome = event_loop.run_until_complete(task).unwrap();
            assert_eq!(outcome, (true, Some(ErrorKind::Timeout)), "{section_first} {foreign}");
            assert_clean(&event_loop);
        }
    }
}

/// A cancellation from before the section is held back, too.
#[test]
fn a_section_that_is_entered_with_a_cancellation_under_way() {
    run(async {
        let begin = now();
        let task = create_task(async {
            own().cancel_with("m");
            shielded(sleep(10 * MS)).await?;
            sleep(HOUR).await
        });
        assert_eq!(message(task.await).as_deref(), Some("m"));
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

#[test]
fn its_errors_and_panics_pass() {
    run(async {
        let outcome = shielded(async { Err::<(), _>(asyncio::Error::Value("E".into())) }).await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Value));
        let task = create_task(shielded(async {
            sleep(MS).await?;
            panic!("oh");
            #[expect(unreachable_code, reason = "says the type")]
            asyncio::ok(())
        }));
        turns(2).await?;
        task.cancel();
        assert_eq!(kind(&task.await), Some(ErrorKind::Panicked));
        // What is cancelled inside by somebody else is an error like any other.
        let inner = create_task(async { sleep(HOUR).await });
        let known = inner.any();
        get_running_loop()?.call_later(MS, move || known.cancel_with("inner"));
        assert_eq!(message(shielded(inner).await).as_deref(), Some("inner"));
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn a_grace_that_is_over_breaks_it_off() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for grace in [Duration::ZERO, 10 * MS] {
        for foreign in [false, true] {
            let (guard, dropped) = drop_guard();
            let task = started(&event_loop, async move {
                shielded(async move {
                    let _guard = guard;
                    match foreign {
                        true => std::future::pending().await,
                        false => sleep(HOUR).await,
                    }
                })
                .await
            });
            let begin = event_loop.time();
            assert!(task.cancel_with_grace(grace));
            let turns = turns_until(&event_loop, || task.done());
            assert!(turns <= 6, "{turns} iterations");
            assert!(task.cancelled() && dropped.get());
            assert_eq!(event_loop.time() - begin, grace);
            assert_clean(&event_loop);
        }
    }
}

/// A task that awaits a task in a section: cancelled from outside it waits; the inner one can be cancelled by itself.
#[test]
fn a_chain_stops_at_the_section() {
    run(async {
        let inner = create_task(async { sleep(10 * MS).await.map(|()| 5) });
        let known = inner.any();
        let middle = create_task(async move { shielded(inner).await });
        let outer = create_task(async move {
            let outcome = middle.await;
            Ok(outcome)
        });
        sleep(MS).await?;
        outer.cancel();
        sleep(MS).await?;
        assert_eq!((known.cancelling(), outer.done()), (0, false));
        let begin = now();
        let outcome = outer.await;
        assert_eq!(now() - begin, 8 * MS);
        // The middle one returned a value with the cancellation never seen.
        assert_eq!(kind(&outcome?), Some(ErrorKind::Cancelled));
        timeout(SECOND, sleep(MS)).await
    });
}
