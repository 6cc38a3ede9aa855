use std::pin::pin;

use asyncio::{Event, create_task};

use crate::{
    poll_now, poll_pinned,
    support::{Record, run},
    turns,
};

fn waiter(event: &Event, record: &Record<u8>, number: u8) -> asyncio::Task<()> {
    let (event, record) = (event.clone(), record.clone());
    create_task(async move {
        event.wait().await?;
        record.push(number);
        Ok(())
    })
}

/// LOCK-009
#[test]
fn who_waits_goes_on_although_the_event_is_cleared_at_once() {
    run(async {
        let (event, record) = (Event::new(), Record::default());
        let task = waiter(&event, &record, 1);
        turns(1).await?;
        event.set();
        event.clear();
        assert!(!event.is_set());
        task.await?;
        assert!(!event.is_set());
        assert_eq!(record.take(), [1]);
        assert!(poll_now(event.wait()).is_pending(), "who comes later waits");
        Ok(())
    });
}

#[test]
fn all_who_wait_go_on_in_order_one_iteration_later() {
    run(async {
        let (event, record) = (Event::new(), Record::default());
        let tasks = [1, 2, 3].map(|number| waiter(&event, &record, number));
        turns(2).await?;
        assert_eq!(record.items(), []);
        let last = waiter(&event, &record, 4);
        event.set();
        assert_eq!(record.items(), []);
        turns(1).await?;
        // The one that had not begun finds the event set.
        assert_eq!(record.items(), [4, 1, 2, 3]);
        for task in tasks {
            task.await?;
        }
        last.await
    });
}

#[test]
fn who_comes_while_it_is_set_does_not_wait() {
    let event = Event::new();
    assert!(poll_now(event.wait()).is_pending());
    event.set();
    event.set();
    assert!(poll_now(event.wait()).is_ready());
    event.clear();
    event.clear();
    assert!(poll_now(event.wait()).is_pending());
}

#[test]
fn a_cancelled_waiter_harms_nobody() {
    run(async {
        let (event, record) = (Event::new(), Record::default());
        let tasks = [1, 2, 3].map(|number| waiter(&event, &record, number));
        turns(1).await?;
        tasks[0].cancel();
        event.set();
        tasks[2].cancel();
        let mut cancelled = Vec::new();
        for task in tasks {
            cancelled.push(task.await.is_err_and(|error| error.is_cancelled()));
        }
        assert_eq!(cancelled, [true, false, true], "also one that was woken");
        assert_eq!(record.take(), [2]);
        Ok(())
    });
}

#[test]
fn a_dropped_waiter_harms_nobody() {
    let event = Event::new();
    let (mut first, mut third) = (Box::pin(event.wait()), pin!(event.wait()));
    {
        let mut second = pin!(event.wait());
        assert!(poll_pinned(first.as_mut()).is_pending());
        assert!(poll_pinned(second.as_mut()).is_pending());
        assert!(poll_pinned(third.as_mut()).is_pending());
    }
    event.set();
    event.clear();
    drop(first);
    assert!(poll_pinned(third.as_mut()).is_ready());
    assert_eq!(format!("{event:?}"), "<Event unset>");
}

#[test]
fn what_an_event_says_of_itself() {
    let event = Event::new();
    let mut wait = pin!(event.wait());
    assert!(poll_pinned(wait.as_mut()).is_pending());
    assert_eq!(format!("{event:?}"), "<Event unset waiters=1>");
    event.set();
    assert_eq!(format!("{event:?}"), "<Event set>");
    assert!(format!("{wait:?}").starts_with("EventWait"));
}
