//! `staggered_race`: attempts that begin one behind the other.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use asyncio::{
    Canceller, Error, ErrorKind, RaceOutcome, TaskGroup, all_tasks, create_task, current_task, eager_task_factory,
    get_running_loop, sleep, staggered_race, timeout,
};
use futures::FutureExt;

use crate::{
    run,
    support::{Record, deadline, drop_guard, failure, handler, new_loop, virtual_loop},
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

type Attempt<T> = Pin<Box<dyn Future<Output = asyncio::Result<T>>>>;
type Start<T> = Box<dyn FnOnce() -> Attempt<T>>;

fn start<T, F: Future<Output = asyncio::Result<T>> + 'static>(make: impl FnOnce() -> F + 'static) -> Start<T> {
    Box::new(|| Box::pin(make()))
}

fn kinds<T>(race: &RaceOutcome<T>) -> Vec<Option<ErrorKind>> {
    race.exceptions.iter().map(|error| error.as_ref().map(Error::kind)).collect()
}

fn wrong(index: usize) -> Error {
    Error::Value(index.to_string().into())
}

#[test]
fn without_attempts_nobody_wins() {
    run(async {
        for delay in [None, Some(Duration::ZERO), Some(LONG)] {
            let race = staggered_race(Vec::<Start<u8>>::new(), delay).await?;
            assert_eq!((race.winner_result, race.winner_index, race.exceptions.len()), (None, None, 0));
        }
        Ok(())
    });
}

#[test]
fn the_first_that_succeeds_is_the_last_that_begins() {
    run(async {
        let begun = Rc::new(Cell::new(0));
        let attempts = [0, 1].map(|index| {
            let begun = begun.clone();
            move || async move {
                begun.set(begun.get() + 1);
                Ok(format!("Res: {index}"))
            }
        });
        let race = staggered_race(attempts, None).await?;
        assert_eq!(race.winner_result.as_deref(), Some("Res: 0"));
        assert_eq!(race.winner_index, Some(0));
        assert_eq!(kinds(&race), [None]);
        assert_eq!(begun.get(), 1);
        Ok(())
    });
}

#[test]
fn a_failure_lets_the_next_begin() {
    run(async {
        let attempts = [0, 1, 2, 3].map(|index| {
            move || async move { if index < 2 { Err(wrong(index)) } else { Ok(format!("Res: {index}")) } }
        });
        let race = staggered_race(attempts, None).await?;
        assert_eq!(race.winner_result.as_deref(), Some("Res: 2"));
        assert_eq!(race.winner_index, Some(2));
        assert_eq!(kinds(&race), [Some(ErrorKind::Value), Some(ErrorKind::Value), None]);
        Ok(())
    });
}

#[test]
fn one_that_takes_too_long_is_overtaken_and_cancelled() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    event_loop
        .run_until_complete(async {
            let begin = get_running_loop()?.time();
            let attempts = [0, 1].map(|index| {
                move || async move {
                    if index == 0 {
                        sleep(10 * SECOND).await?;
                    }
                    Ok(format!("Res: {index}"))
                }
            });
            let race = staggered_race(attempts, SECOND / 10).await?;
            assert_eq!(get_running_loop()?.time() - begin, SECOND / 10);
            assert_eq!(race.winner_result.as_deref(), Some("Res: 1"));
            assert_eq!(race.winner_index, Some(1));
            assert_eq!(kinds(&race), [Some(ErrorKind::Cancelled), None]);
            assert_eq!(all_tasks()?.len(), 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn if_all_fail_all_errors_are_there() {
    run(async {
        let attempts = (0..3).map(|index| move || async move { Err::<u8, _>(wrong(index)) });
        for delay in [None, Some(LONG), Some(Duration::ZERO)] {
            let race = staggered_race(attempts.clone(), delay).await?;
            assert_eq!((race.winner_result, race.winner_index), (None, None));
            let texts: Vec<_> = race.exceptions.iter().flatten().map(ToString::to_string).collect();
            assert_eq!(texts, ["0", "1", "2"]);
        }
        Ok(())
    });
}

#[test]
fn a_failure_does_not_wait_for_the_delay_and_an_older_one_starts_nobody() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    event_loop
        .run_until_complete(async {
            let begin = get_running_loop()?.time();
            let attempt = |name: &'static str, after: u32, outcome: asyncio::Result<&'static str>| {
                let record = record.clone();
                start(move || async move {
                    record.push((name, (get_running_loop()?.time() - begin).as_secs()));
                    sleep(after * SECOND).await?;
                    outcome
                })
            };
            let attempts = vec![
                attempt("fails after 1", 1, Err(wrong(0))),
                attempt("fails after 15", 15, Err(wrong(1))),
                // Begins 10 later, at 11. The one before fails at 16: that is nothing to it.
                attempt("fails after 8", 8, Err(wrong(2))),
                // So this one begins at 19.
                attempt("succeeds after 5", 5, Ok("won")),
                attempt("never begins", 0, Ok("never")),
            ];
            let race = staggered_race(attempts, 10 * SECOND).await?;
            assert_eq!((race.winner_result, race.winner_index), (Some("won"), Some(3)));
            let value = Some(ErrorKind::Value);
            assert_eq!(kinds(&race), [value, value, value, None]);
            assert_eq!(get_running_loop()?.time() - begin, 24 * SECOND);
            Ok(())
        })
        .unwrap();
    let expected = [("fails after 1", 0), ("fails after 15", 1), ("fails after 8", 11), ("succeeds after 5", 19)];
    assert_eq!(record.take(), expected);
}

#[test]
fn the_losers_are_cancelled_and_waited_for() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    event_loop
        .run_until_complete(async {
            let loser = |pause: Duration| {
                let record = record.clone();
                start(move || async move {
                    let slept = sleep(LONG).await;
                    assert!(matches!(&slept, Err(Error::Cancelled(reason)) if reason.by == Some(Canceller::TaskGroup)));
                    sleep(pause).await?;
                    record.push("cleaned up");
                    slept.map(|()| 0)
                })
            };
            let stubborn = start(|| async {
                assert!(sleep(LONG).await.is_err());
                Ok(7)
            });
            let fails = start(|| async {
                assert!(sleep(LONG).await.is_err());
                Err(wrong(3))
            });
            let winner = start(|| async {
                sleep(SECOND).await?;
                Ok(5)
            });
            let attempts = vec![loser(SECOND), loser(2 * SECOND), stubborn, fails, winner, loser(SECOND)];
            let race = staggered_race(attempts, SECOND * 2).await?;
            assert_eq!((race.winner_result, race.winner_index), (Some(5), Some(4)));
            let cancelled = Some(ErrorKind::Cancelled);
            assert_eq!(kinds(&race), [cancelled, cancelled, None, Some(ErrorKind::Value), None]);
            assert_eq!(record.take(), ["cleaned up", "cleaned up"]);
            assert_eq!(all_tasks()?.len(), 1);
            assert_eq!(current_task()?.expect("in a task").cancelling(), 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn who_is_ready_in_the_same_iteration_cannot_win_as_well() {
    run(async {
        let gate = get_running_loop()?.create_future::<()>().shared();
        let attempts = (0..3).map(|index| {
            let gate = gate.clone();
            move || async move {
                gate.await?;
                Ok(index)
            }
        });
        let opened = gate.clone();
        get_running_loop()?.call_later(Duration::from_millis(3), move || opened.set_result(()));
        let race = staggered_race(attempts, Duration::ZERO).await?;
        assert_eq!(race.winner_index, Some(0));
        assert_eq!(race.exceptions.len(), 3);
        Ok(())
    });
}

#[test]
fn a_panic_is_a_failure() {
    run(async {
        let attempts = vec![
            start(|| async { panic!("boom") }),
            start(|| async {
                sleep(Duration::ZERO).await?;
                panic!("boom {}", 2)
            }),
            start(|| -> future_of_nothing::Nothing { panic!("before") }),
            start(|| async { Ok(5) }),
        ];
        let race = staggered_race(attempts, None).await?;
        assert_eq!((race.winner_result, race.winner_index), (Some(5), Some(3)));
        let texts: Vec<_> = race.exceptions.iter().flatten().map(|e| (e.kind(), e.to_string())).collect();
        let panicked = |text: &str| (ErrorKind::Panicked, text.to_owned());
        assert_eq!(texts, [panicked("boom"), panicked("boom 2"), panicked("before")]);
        Ok(())
    });
}

mod future_of_nothing {
    pub(super) type Nothing = std::future::Pending<asyncio::Result<i32>>;
}

#[test]
fn its_cancellation_cancels_the_attempts_and_waits_for_them() {
    run(async {
        let record = Record::default();
        let make = || {
            let record = record.clone();
            move || async move {
                let slept = sleep(LONG).await;
                assert_eq!(failure(slept.clone()), (ErrorKind::Cancelled, "enough".into()));
                sleep(Duration::from_millis(1)).await?;
                record.push("cleaned up");
                slept
            }
        };
        // While it waits for the next, and when all have begun.
        for delay in [Some(Duration::from_millis(20)), Some(Duration::ZERO), None] {
            let attempts = [make(), make()];
            let task = create_task(staggered_race(attempts, delay));
            sleep(Duration::from_millis(4)).await?;
            let begun = all_tasks()?.len() - 2;
            task.cancel_with("enough");
            assert_eq!(failure(task.await), (ErrorKind::Cancelled, "enough".into()));
            assert_eq!(record.take().len(), begun);
            assert_eq!(all_tasks()?.len(), 1);
        }
        Ok(())
    });
}

#[test]
fn a_cancellation_that_comes_with_the_winner_is_not_lost() {
    run(async {
        let won = get_running_loop()?.create_future::<u8>().shared();
        let awaited = won.clone();
        let task = create_task(async move {
            let attempts = [move || awaited];
            let race = staggered_race(attempts, LONG).await;
            let ended = race.is_err();
            sleep(Duration::ZERO).await?;
            Ok(ended)
        });
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        won.set_result(5)?;
        // The attempt takes its step, wins, and the task is cancelled before its own.
        sleep(Duration::ZERO).await?;
        task.cancel();
        assert!(task.await?);
        Ok(())
    });
}

#[test]
fn in_a_group_that_fails_it_ends_as_cancelled() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let outcome = TaskGroup::scope(async move |group| {
            group.create_task(async move {
                let race = staggered_race([|| async { sleep(LONG).await }], LONG).await;
                assert!(race.as_ref().is_err_and(Error::is_cancelled));
                seen.push("cancelled");
                race.map(drop)
            });
            sleep(Duration::ZERO).await?;
            sleep(Duration::ZERO).await?;
            Err::<(), _>(Error::Value("no".into()))
        })
        .await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Group);
        assert_eq!(record.take(), ["cancelled"]);
        Ok(())
    });
}

#[test]
fn under_a_timeout_it_ends_in_time() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    event_loop
        .run_until_complete(async {
            let attempts = (0..3).map(|_| || async { sleep(LONG).await });
            let outcome = timeout(SECOND, staggered_race(attempts, SECOND / 4)).await;
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(all_tasks()?.len(), 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn dropping_it_drops_the_attempts() {
    run(async {
        let (guard, dropped) = drop_guard();
        let attempt = move || async move {
            let _guard = guard;
            sleep(LONG).await
        };
        let mut race = Box::pin(staggered_race([attempt], LONG));
        assert!(futures::future::poll_immediate(&mut race).await.is_none());
        sleep(Duration::ZERO).await?;
        drop(race);
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        assert!(dropped.get());
        assert_eq!(all_tasks()?.len(), 1);
        Ok(())
    });
}

#[test]
fn the_attempts_are_asked_for_one_by_one() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    // A source without an end, which borrows.
    let asked = RefCell::new(Vec::new());
    let race = event_loop
        .run_until_complete(async {
            let attempts = (0..).map(|index: u32| {
                asked.borrow_mut().push(index);
                move || async move {
                    sleep(10 * SECOND).await?;
                    Ok(index)
                }
            });
            staggered_race(attempts, 3 * SECOND).await
        })
        .unwrap();
    assert_eq!(race.winner_index, Some(0));
    assert_eq!(asked.take(), [0, 1, 2, 3]);
}

#[test]
fn eager_tasks_race_as_well() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_task_factory(Some(eager_task_factory()));
    let race = event_loop
        .run_until_complete(async {
            let attempts =
                (0..3).map(|index| move || async move { if index < 2 { Err(wrong(index)) } else { Ok(index) } });
            staggered_race(attempts, LONG).await
        })
        .unwrap();
    assert_eq!((race.winner_result, race.winner_index, race.exceptions.len()), (Some(2), Some(2), 3));
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

#[test]
fn a_delay_of_zero_begins_one_in_each_step() {
    run(async {
        let record = Record::default();
        let attempts = (0..3).map(|index| {
            let record = record.clone();
            move || async move {
                record.push(index);
                sleep(Duration::from_millis(5)).await?;
                Ok(index)
            }
        });
        let race = staggered_race(attempts, Duration::ZERO).await?;
        assert_eq!(race.winner_index, Some(0));
        assert_eq!(record.take(), [0, 1, 2]);
        Ok(())
    });
}

#[test]
fn outside_of_a_task_there_is_no_race() {
    let attempts = || [|| async { Ok(5) }];
    assert_eq!(failure(futures::executor::block_on(staggered_race(attempts(), None))).0, ErrorKind::Runtime);
    let event_loop = new_loop();
    let outcome = event_loop.call_soon(move || staggered_race(attempts(), None).now_or_never());
    let outcome = event_loop.run_until_complete(outcome).unwrap();
    assert_eq!(failure(outcome.expect("at once")).0, ErrorKind::Runtime);
}
