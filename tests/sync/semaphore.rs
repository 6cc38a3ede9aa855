use std::pin::pin;

use asyncio::{BoundedSemaphore, ErrorKind, Semaphore, Task, create_task, sleep};

use crate::{
    MS, SECOND, poll_now, poll_pinned,
    support::{Record, failure, run, virtual_loop},
    turns,
};

/// A task that takes a permit, records its number and keeps the permit.
fn taker(semaphore: &Semaphore, record: &Record<u8>, number: u8) -> Task<()> {
    let (semaphore, record) = (semaphore.clone(), record.clone());
    create_task(async move {
        semaphore.acquire().await?.forget();
        record.push(number);
        Ok(())
    })
}

/// SEM-001; a negative value cannot be said.
#[test]
fn a_semaphore_is_locked_when_it_has_no_permit() {
    run(async {
        assert!(Semaphore::new(0).locked());
        assert!(BoundedSemaphore::new(0).locked());
        assert!(poll_now(Semaphore::new(0).acquire()).is_pending());
        let semaphore = Semaphore::new(3);
        let first = semaphore.acquire().await?;
        let second = semaphore.acquire().await?;
        assert!(!semaphore.locked());
        let third = semaphore.try_acquire().unwrap();
        assert!(semaphore.locked());
        assert!(semaphore.try_acquire().is_none());
        drop((first, second, third));
        assert_eq!(format!("{semaphore:?}"), "<Semaphore unlocked value=3>");
        Ok(())
    });
}

/// SEM-003
#[test]
fn permits_go_round_in_the_order_of_coming() {
    let (event_loop, _) = virtual_loop();
    let outcome = event_loop.run_until_complete(async {
        let (semaphore, record) = (Semaphore::new(1), Record::default());
        let names = [["c1_1", "c1_2"], ["c2_1", "c2_2"], ["c3_1", "c3_2"]];
        let tasks = names.map(|names| {
            let (semaphore, record) = (semaphore.clone(), record.clone());
            create_task(async move {
                for name in names {
                    semaphore.acquire().await?.forget();
                    record.push(name);
                    sleep(10 * MS).await?;
                    semaphore.release();
                }
                Ok(())
            })
        });
        for task in tasks {
            task.await?;
        }
        assert_eq!(record.take(), ["c1_1", "c2_1", "c3_1", "c1_2", "c2_2", "c3_2"]);
        assert!(!semaphore.locked());
        Ok(())
    });
    outcome.unwrap();
}

/// SEM-004
#[test]
fn a_permit_goes_to_the_first_who_is_not_cancelled() {
    run(async {
        let (semaphore, record) = (Semaphore::new(0), Record::default());
        let tasks = [1, 2, 3, 4].map(|number| taker(&semaphore, &record, number));
        turns(1).await?;
        tasks[0].cancel();
        tasks[1].cancel();
        semaphore.release();
        turns(2).await?;
        assert_eq!(tasks.each_ref().map(Task::done), [true, true, true, false]);
        assert_eq!(tasks.each_ref().map(Task::cancelled), [true, true, false, false]);
        assert_eq!(record.items(), [3]);
        tasks[3].cancel();
        turns(1).await?;
        assert!(tasks[3].cancelled());
        assert!(semaphore.locked(), "its permit is with the third");
        semaphore.release();
        assert!(!semaphore.locked());
        Ok(())
    });
}

/// SEM-006
#[test]
fn a_cancelled_waiter_takes_no_permit_along() {
    let (event_loop, _) = virtual_loop();
    let outcome = event_loop.run_until_complete(async {
        let semaphore = Semaphore::new(1);
        let waits = semaphore.clone();
        let holds = semaphore.clone();
        let c2 = std::rc::Rc::new(std::cell::RefCell::new(None::<Task<()>>));
        let victim = c2.clone();
        let c1 = create_task(async move {
            let _permit = holds.acquire().await?;
            turns(1).await?;
            assert!(victim.borrow().as_ref().unwrap().cancel());
            Ok(())
        });
        *c2.borrow_mut() = Some(create_task(async move {
            let _permit = waits.acquire().await?;
            panic!("it never has one");
        }));
        c1.await?;
        let victim = c2.take().unwrap();
        assert!(victim.await.unwrap_err().is_cancelled());
        let acquired = futures::future::select(semaphore.acquire(), sleep(SECOND)).await;
        assert!(matches!(acquired, futures::future::Either::Left((Ok(_), _))));
        Ok(())
    });
    outcome.unwrap();
}

/// SEM-007
#[test]
fn a_bounded_semaphore_never_has_more_than_at_the_beginning() {
    let bounded = BoundedSemaphore::new(2);
    let too_many = (ErrorKind::Value, "BoundedSemaphore released too many times".into());
    assert_eq!(failure(bounded.release()), too_many);
    bounded.try_acquire().unwrap().forget();
    bounded.release().unwrap();
    assert_eq!(failure(bounded.release()), too_many);
    assert_eq!(format!("{bounded:?}"), "<BoundedSemaphore unlocked value=2>");

    let plain = Semaphore::new(1);
    plain.try_acquire().unwrap().forget();
    plain.release();
    plain.release();
    plain.release();
    assert_eq!(format!("{plain:?}"), "<Semaphore unlocked value=3>");
    let permits = [(); 3].map(|()| plain.try_acquire().unwrap());
    assert!(plain.locked());
    drop(permits);
    let most = Semaphore::new(usize::MAX);
    most.release();
    assert!(!most.locked());
}

#[test]
fn a_permit_of_a_bounded_semaphore_that_was_released_by_hand_does_nothing() {
    let bounded = BoundedSemaphore::new(1);
    let permit = bounded.try_acquire().unwrap();
    bounded.release().unwrap();
    drop(permit);
    assert_eq!(format!("{bounded:?}"), "<BoundedSemaphore unlocked value=1>");
}

#[test]
fn a_permit_that_is_given_to_one_who_is_cancelled_goes_on() {
    // Cancelled in the same iteration, before or after the release.
    for before in [true, false] {
        run(async move {
            let (semaphore, record) = (Semaphore::new(0), Record::default());
            let tasks = [1, 2, 3].map(|number| taker(&semaphore, &record, number));
            turns(1).await?;
            if before {
                tasks[0].cancel();
            }
            semaphore.release();
            tasks[0].cancel();
            turns(3).await?;
            assert_eq!(record.items(), [2]);
            semaphore.release();
            let [first, second, third] = tasks;
            assert!(first.await.unwrap_err().is_cancelled());
            second.await?;
            third.await?;
            assert!(semaphore.locked());
            Ok(())
        });
    }
}

#[test]
fn a_permit_that_is_given_to_one_who_is_dropped_goes_on() {
    let semaphore = Semaphore::new(0);
    let (mut first, mut second) = (Box::pin(semaphore.acquire()), pin!(semaphore.acquire()));
    assert!(poll_pinned(first.as_mut()).is_pending());
    assert!(poll_pinned(second.as_mut()).is_pending());
    semaphore.release();
    assert!(poll_pinned(second.as_mut()).is_pending(), "it is the first one's");
    drop(first);
    assert!(poll_pinned(second.as_mut()).is_ready());
    assert!(!semaphore.locked());
}

/// The first who waits is woken by three permits at once, and wakes those who came meanwhile.
#[test]
fn who_takes_a_permit_lets_those_behind_have_the_others() {
    run(async {
        let (semaphore, record) = (Semaphore::new(0), Record::default());
        let first = taker(&semaphore, &record, 1);
        turns(1).await?;
        (0..3).for_each(|_| semaphore.release());
        assert!(semaphore.locked(), "the first one comes first");
        assert!(semaphore.try_acquire().is_none());
        let second = taker(&semaphore, &record, 2);
        let third = taker(&semaphore, &record, 3);
        let fourth = taker(&semaphore, &record, 4);
        turns(3).await?;
        assert_eq!(record.items(), [1, 2, 3]);
        semaphore.release();
        for task in [first, second, third, fourth] {
            task.await?;
        }
        assert_eq!(record.take(), [1, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn releases_wake_as_many_as_there_are_permits() {
    run(async {
        let (semaphore, record) = (Semaphore::new(0), Record::default());
        let tasks = [1, 2, 3].map(|number| taker(&semaphore, &record, number));
        turns(1).await?;
        semaphore.release();
        semaphore.release();
        turns(1).await?;
        assert_eq!(record.items(), [1, 2]);
        semaphore.release();
        turns(1).await?;
        assert_eq!(record.items(), [1, 2, 3]);
        for task in tasks {
            task.await?;
        }
        Ok(())
    });
}

#[test]
fn what_a_semaphore_says_of_itself() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire();
    let mut acquire = pin!(semaphore.acquire());
    assert!(poll_pinned(acquire.as_mut()).is_pending());
    assert_eq!(format!("{semaphore:?}"), "<Semaphore locked waiters=1>");
    assert!(format!("{permit:?} {acquire:?}").contains("SemaphorePermit"));
}
