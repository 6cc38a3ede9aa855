use std::pin::pin;

use asyncio::{Barrier, ErrorKind, Result, Task, create_task};

use crate::{
    poll_now, poll_pinned,
    support::{Record, failure, run},
    turns,
};

fn waiter(barrier: &Barrier) -> Task<usize> {
    let barrier = barrier.clone();
    create_task(async move { barrier.wait().await })
}

async fn outcomes<const N: usize>(tasks: [Task<usize>; N]) -> Vec<Result<usize>> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await);
    }
    outcomes
}

fn positions(outcomes: Vec<Result<usize>>) -> Vec<usize> {
    outcomes.into_iter().map(Result::unwrap).collect()
}

fn broken(text: &str) -> (ErrorKind, String) {
    (ErrorKind::BrokenBarrier, text.into())
}

/// BAR-001; a negative number cannot be said.
#[test]
fn a_barrier_needs_at_least_one_party() {
    assert_eq!(failure(Barrier::new(0)), (ErrorKind::Value, "parties must be >= 1".into()));
    let barrier = Barrier::new(5).unwrap();
    assert_eq!((barrier.parties(), barrier.n_waiting(), barrier.broken()), (5, 0, false));
    assert_eq!(format!("{barrier:?}"), "<Barrier filling waiters=0/5>");
}

#[test]
fn one_party_never_waits() {
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..3 {
        assert!(matches!(poll_now(barrier.wait()), std::task::Poll::Ready(Ok(0))));
        assert_eq!((barrier.n_waiting(), barrier.broken()), (0, false));
    }
}

#[test]
fn all_parties_go_on_together() {
    run(async {
        let barrier = Barrier::new(3)?;
        for _ in 0..3 {
            let tasks = [waiter(&barrier), waiter(&barrier)];
            turns(3).await?;
            assert_eq!(barrier.n_waiting(), 2);
            assert_eq!(tasks.each_ref().map(Task::done), [false, false]);
            assert_eq!(barrier.wait().await?, 2, "the last one does not wait");
            assert_eq!(barrier.n_waiting(), 0);
            assert_eq!(tasks.each_ref().map(Task::done), [false, false]);
            turns(1).await?;
            assert_eq!(tasks.each_ref().map(Task::done), [true, true]);
            assert_eq!(positions(outcomes(tasks).await), [0, 1]);
        }
        Ok(())
    });
}

#[test]
fn who_comes_while_the_others_go_out_waits_for_the_next_round() {
    run(async {
        let (barrier, record) = (Barrier::new(2)?, Record::default());
        let tasks = [0, 1, 2, 3, 4, 5].map(|number| {
            let (barrier, record) = (barrier.clone(), record.clone());
            create_task(async move {
                let position = barrier.wait().await?;
                record.push(number);
                Ok(position)
            })
        });
        assert_eq!(positions(outcomes(tasks).await), [0, 1, 0, 1, 0, 1]);
        assert_eq!(record.len(), 6);
        assert_eq!((barrier.n_waiting(), barrier.broken()), (0, false));
        Ok(())
    });
}

/// BAR-003
#[test]
fn a_cancelled_party_does_not_count() {
    run(async {
        let barrier = Barrier::new(3)?;
        let [t1, t2] = [waiter(&barrier), waiter(&barrier)];
        turns(1).await?;
        assert_eq!(barrier.n_waiting(), 2);
        t1.cancel();
        turns(1).await?;
        assert!(t1.cancelled());
        assert_eq!(barrier.n_waiting(), 1);
        assert!(!barrier.broken());
        let t3 = waiter(&barrier);
        turns(2).await?;
        assert_eq!([&t2, &t3].map(Task::done), [false, false]);
        assert_eq!(barrier.n_waiting(), 2);
        let t4 = waiter(&barrier);
        assert_eq!(positions(outcomes([t2, t3, t4]).await), [1, 1, 2]);
        assert_eq!((barrier.n_waiting(), barrier.broken()), (0, false));
        Ok(())
    });
}

#[test]
fn a_dropped_party_does_not_count() {
    let barrier = Barrier::new(2).unwrap();
    {
        let mut first = pin!(barrier.wait());
        assert!(poll_pinned(first.as_mut()).is_pending());
        assert_eq!(barrier.n_waiting(), 1);
    }
    assert_eq!(barrier.n_waiting(), 0);
    assert!(poll_now(barrier.wait()).is_pending());
}

#[test]
fn who_is_cancelled_while_all_go_out_holds_nobody_up() {
    for dropped in [false, true] {
        run(async move {
            let barrier = Barrier::new(3)?;
            let tasks = [waiter(&barrier), waiter(&barrier)];
            turns(1).await?;
            let mut doomed = Box::pin(barrier.wait());
            if dropped {
                // Another one in place of the first.
                tasks[0].cancel();
                turns(1).await?;
                assert!(poll_pinned(doomed.as_mut()).is_pending());
            }
            assert_eq!(barrier.wait().await?, 2);
            let blocked = waiter(&barrier);
            if dropped {
                drop(doomed);
            } else {
                tasks[0].cancel();
            }
            let outcomes = outcomes(tasks).await;
            assert!(outcomes[0].as_ref().is_err_and(|error| error.is_cancelled()));
            assert!(matches!(outcomes[1], Ok(1)));
            turns(2).await?;
            assert_eq!(barrier.n_waiting(), 1, "the next round has begun");
            blocked.cancel();
            turns(1).await?;
            assert_eq!(barrier.n_waiting(), 0);
            Ok(())
        });
    }
}

#[test]
fn the_last_one_to_go_out_lets_the_next_in_also_when_it_is_cancelled_or_dropped() {
    run(async {
        let barrier = Barrier::new(2)?;
        let first = waiter(&barrier);
        turns(1).await?;
        assert_eq!(barrier.wait().await?, 1);
        let next = waiter(&barrier);
        first.cancel();
        assert!(first.await.unwrap_err().is_cancelled());
        turns(2).await?;
        assert_eq!(barrier.n_waiting(), 1);
        assert_eq!(barrier.wait().await?, 1);
        assert_eq!(next.await?, 0);
        Ok(())
    });
    let barrier = Barrier::new(2).unwrap();
    let mut first = Box::pin(barrier.wait());
    assert!(poll_pinned(first.as_mut()).is_pending());
    assert!(poll_now(barrier.wait()).is_ready());
    let mut next = pin!(barrier.wait());
    assert!(poll_pinned(next.as_mut()).is_pending());
    assert_eq!(barrier.n_waiting(), 0);
    drop(first);
    assert!(poll_pinned(next.as_mut()).is_pending());
    assert_eq!(barrier.n_waiting(), 1);
}

/// BAR-004
#[test]
fn a_reset_sends_those_who_wait_away() {
    run(async {
        let barrier = Barrier::new(5)?;
        let tasks = [(); 4].map(|()| waiter(&barrier));
        turns(1).await?;
        assert_eq!(barrier.n_waiting(), 4);
        barrier.reset().await?;
        assert!(!barrier.broken());
        for outcome in outcomes(tasks).await {
            assert_eq!(failure(outcome), broken("Abort or reset of barrier"));
        }
        assert_eq!((barrier.n_waiting(), barrier.broken()), (0, false));
        let tasks = [(); 5].map(|()| waiter(&barrier));
        assert_eq!(positions(outcomes(tasks).await), [0, 1, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn who_comes_during_a_reset_waits_until_the_others_are_out() {
    run(async {
        let barrier = Barrier::new(2)?;
        let first = waiter(&barrier);
        turns(1).await?;
        barrier.reset().await?;
        assert_eq!(format!("{barrier:?}"), "<Barrier resetting>");
        let mut next = pin!(barrier.wait());
        assert!(poll_pinned(next.as_mut()).is_pending());
        assert_eq!(barrier.n_waiting(), 0);
        assert_eq!(failure(first.await), broken("Abort or reset of barrier"));
        let last = waiter(&barrier);
        assert_eq!(next.await? + last.await?, 1);
        Ok(())
    });
}

/// A reset while the others go out: those who have not gone yet are sent away.
#[test]
fn a_reset_while_all_go_out_breaks_it_for_those_who_are_not_out() {
    run(async {
        let barrier = Barrier::new(3)?;
        let tasks = [waiter(&barrier), waiter(&barrier)];
        turns(1).await?;
        assert_eq!(barrier.wait().await?, 2);
        assert_eq!(format!("{barrier:?}"), "<Barrier draining>");
        barrier.reset().await?;
        for outcome in outcomes(tasks).await {
            assert_eq!(failure(outcome), broken("Abort or reset of barrier"));
        }
        assert_eq!(format!("{barrier:?}"), "<Barrier filling waiters=0/3>");
        Ok(())
    });
}

#[test]
fn a_reset_of_an_empty_barrier_changes_nothing() {
    run(async {
        let barrier = Barrier::new(2)?;
        barrier.reset().await?;
        let tasks = [waiter(&barrier), waiter(&barrier)];
        assert_eq!(positions(outcomes(tasks).await), [0, 1]);
        Ok(())
    });
}

/// BAR-005
#[test]
fn an_aborted_barrier_is_broken_until_it_is_reset() {
    run(async {
        let barrier = Barrier::new(2)?;
        let first = waiter(&barrier);
        turns(1).await?;
        barrier.abort().await?;
        assert!(barrier.broken());
        assert_eq!(barrier.n_waiting(), 0);
        assert_eq!(failure(first.await), broken("Abort or reset of barrier"));
        let std::task::Poll::Ready(outcome) = poll_now(barrier.wait()) else { panic!("it waits") };
        assert_eq!(failure(outcome), broken("Barrier aborted"));
        assert_eq!(failure(barrier.wait().await), broken("Barrier aborted"));
        assert!(barrier.broken());
        assert_eq!(format!("{barrier:?}"), "<Barrier broken>");
        barrier.reset().await?;
        assert!(!barrier.broken());
        let tasks = [waiter(&barrier), waiter(&barrier)];
        assert_eq!(positions(outcomes(tasks).await), [0, 1]);
        Ok(())
    });
}

#[test]
fn an_abort_reaches_those_who_wait_for_the_next_round() {
    run(async {
        let barrier = Barrier::new(2)?;
        let first = waiter(&barrier);
        turns(1).await?;
        assert_eq!(barrier.wait().await?, 1);
        let mut blocked = pin!(barrier.wait());
        assert!(poll_pinned(blocked.as_mut()).is_pending());
        barrier.abort().await?;
        assert_eq!(failure(blocked.await), broken("Barrier aborted"));
        assert_eq!(failure(first.await), broken("Abort or reset of barrier"));
        Ok(())
    });
}

#[test]
fn an_abort_and_a_reset_at_once_send_those_who_wait_away() {
    run(async {
        let barrier = Barrier::new(2)?;
        let first = waiter(&barrier);
        turns(1).await?;
        barrier.abort().await?;
        barrier.reset().await?;
        assert_eq!(failure(first.await), broken("Abort or reset of barrier"));
        let tasks = [waiter(&barrier), waiter(&barrier)];
        assert_eq!(positions(outcomes(tasks).await), [0, 1]);
        Ok(())
    });
}
