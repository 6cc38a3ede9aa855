//! Ten thousand limits, and what they leave behind.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{ErrorKind, Timeout, create_task, get_running_loop, sleep, timeout};
use futures::{StreamExt, stream::FuturesUnordered};

use crate::{HOUR, MS, SECOND, kind, now, own, run, support};

const MANY: u32 = 10_000;

#[test]
fn ten_thousand_that_pass() {
    run(async {
        let (begin, late) = (now(), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..MANY)
            .map(|number| {
                let late = late.clone();
                create_task(async move {
                    let begin = now();
                    let delay = Duration::from_micros(u64::from(number * 7 % MANY) * 100);
                    let outcome = timeout(delay, sleep(HOUR)).await;
                    assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
                    assert_eq!((now() - begin, own().cancelling()), (delay, 0));
                    late.set(late.get() + 1);
                    Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        assert_eq!((late.get(), now() - begin), (MANY, Duration::from_micros(u64::from(MANY - 1) * 100)));
        Ok(())
    });
}

#[test]
fn ten_thousand_that_pass_at_once() {
    run(async {
        let begin = now();
        let tasks: Vec<_> = (0..MANY).map(|_| create_task(timeout(10 * MS, sleep(HOUR)))).collect();
        for task in tasks {
            assert_eq!(kind(&task.await), Some(ErrorKind::Timeout));
        }
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

#[test]
fn ten_thousand_that_do_not_pass() {
    run(async {
        let begin = now();
        let tasks: Vec<_> = (0..MANY).map(|_| create_task(timeout(HOUR, sleep(10 * MS)))).collect();
        for task in tasks {
            task.await?;
        }
        assert_eq!((now() - begin, get_running_loop()?.next_deadline()), (10 * MS, None));
        // One after the other.
        for _ in 0..MANY {
            timeout(HOUR, sleep(Duration::ZERO)).await?;
        }
        assert_eq!((own().cancelling(), get_running_loop()?.next_deadline()), (0, None));
        Ok(())
    });
}

/// In one task, each with a time of its own.
#[test]
fn a_thousand_in_one_task() {
    run(async {
        let begin = now();
        let mut children: FuturesUnordered<_> =
            (1..=1000_u32).map(|number| timeout(number * MS, sleep(HOUR))).collect();
        let mut ended = 0;
        while let Some(outcome) = children.next().await {
            ended += 1;
            assert_eq!((kind(&outcome), now() - begin), (Some(ErrorKind::Timeout), ended * MS));
        }
        assert_eq!((ended, own().cancelling()), (1000, 0));
        Ok(())
    });
}

/// What one limit's end costs does not depend on how many others run beside it in the task.
#[test]
fn the_end_of_one_limit_polls_nobody_else() {
    run(async {
        let polls = Rc::new(Cell::new(0));
        let mut children: FuturesUnordered<_> = (1..=200_u32)
            .map(|number| {
                let polls = polls.clone();
                timeout(number * MS, async move {
                    let mut sleeps = std::pin::pin!(sleep(HOUR));
                    std::future::poll_fn(|cx| {
                        polls.set(polls.get() + 1);
                        sleeps.as_mut().poll(cx)
                    })
                    .await
                })
            })
            .collect();
        while let Some(outcome) = children.next().await {
            assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        }
        assert!(polls.get() <= 3 * 200, "{} polls of 200 children", polls.get());
        Ok(())
    });
}

/// Moved ten thousand times, it is one timer.
#[test]
fn a_limit_that_is_moved_often() {
    run(async {
        let (begin, limit) = (now(), Timeout::new(MS));
        let outcome = limit
            .scope(async |limit| {
                for number in 0..MANY {
                    limit.reschedule(begin + SECOND + number * MS)?;
                }
                limit.reschedule(begin + 10 * MS)?;
                sleep(HOUR).await
            })
            .await;
        assert_eq!((kind(&outcome), now() - begin), (Some(ErrorKind::Timeout), 10 * MS));
        Ok(())
    });
}

/// A limit that passes takes few iterations, whatever is done about it, and leaves nothing.
#[test]
fn few_turns_for_each() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = support::virtual_loop();
    let bodies: [fn() -> std::pin::Pin<Box<dyn Future<Output = asyncio::Result<()>>>>; 4] = [
        || Box::pin(sleep(HOUR)),
        || Box::pin(std::future::pending()),
        || Box::pin(async { create_task(async { sleep(HOUR).await }).await }),
        || {
            Box::pin(async {
                let slept = sleep(HOUR).await;
                sleep(MS).await?;
                slept
            })
        },
    ];
    for body in bodies {
        let task = event_loop.create_task(timeout(10 * MS, body()));
        let turns = crate::turns_until(&event_loop, || task.done());
        assert!(turns <= 8, "{turns} iterations");
        assert_eq!(kind(&event_loop.run_until_complete(task)), Some(ErrorKind::Timeout));
        crate::assert_clean(&event_loop);
    }
}
