//! Tasks that wait for each other in a ring that leads through a gathering.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{AnyTask, Result, Task, create_task, gather, sleep};

use crate::support::{self, tick};

/// Two tasks, one of which awaits the other, which gathers the first.
fn ring() -> (Task<()>, Task<()>) {
    let first: Rc<RefCell<Option<AnyTask>>> = Rc::default();
    let known = first.clone();
    let second = create_task(async move {
        let first = known.borrow().clone().expect("it was made");
        gather(vec![first]).await.map(drop)
    });
    let awaited = second.any();
    let one = create_task(async move {
        awaited.await?;
        Ok(())
    });
    first.replace(Some(one.any()));
    (one, second)
}

#[test]
fn a_ring_through_a_gathering_is_cancelled_whole() {
    let _deadline = support::deadline();
    let event_loop = support::new_loop();
    let made = event_loop.call_soon(ring);
    let (one, second) = event_loop.run_until_complete(made).unwrap();
    (0..3).for_each(|_| tick(&event_loop));
    one.cancel();
    (0..10).for_each(|_| tick(&event_loop));
    assert!(one.cancelled() && second.cancelled());
}

#[test]
fn a_ring_under_join_ends_too() {
    let _deadline = support::deadline();
    let outcome: Result<()> = asyncio::run(async {
        let task = create_task(async {
            let (one, _second) = ring();
            let _ = futures::join!(one, sleep(Duration::from_millis(50)));
            Ok(())
        });
        sleep(Duration::from_millis(5)).await?;
        task.cancel();
        task.await
    });
    // One of the two is told, and the other comes to its end.
    drop(outcome);
}
