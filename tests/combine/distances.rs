//! How many iterations lie between an end and the one who awaits it with others: CPython 3.13's numbers.

use std::{cell::Cell, rc::Rc};

use asyncio::{FIRST_COMPLETED, FIRST_EXCEPTION, Future, Result, as_completed, create_task, gather, wait};
use futures::StreamExt;

use crate::{
    ZERO,
    support::{count_iterations, new_loop},
    turns,
};

/// Iterations from the end of a future to the going on of who awaits with `waits`; or, where it is done before, from
/// asking to going on.
fn distance(done_before: bool, waits: impl AsyncFnOnce(Future<u8>) -> Result<()> + 'static) -> usize {
    let event_loop = new_loop();
    let count = count_iterations(&event_loop);
    event_loop
        .run_until_complete(async {
            let future = Future::<u8>::new();
            let given = future.clone();
            let (begin, end) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (begins, ends, counter) = (begin.clone(), end.clone(), count.clone());
            if done_before {
                future.set_result(1)?;
            }
            let task = create_task(async move {
                begins.set(counter.get());
                waits(given).await?;
                ends.set(counter.get());
                Ok(())
            });
            if !done_before {
                turns(6).await?;
                begin.set(count.get());
                future.set_result(1)?;
            }
            task.await?;
            Ok(end.get() - begin.get())
        })
        .unwrap()
}

/// What becomes a task, where the future itself does not.
async fn coroutine_of(future: Future<u8>) -> Result<u8> {
    future.await
}

#[test]
fn a_gathering_goes_on_in_the_second_iteration() {
    let plain = async |future: Future<u8>| gather((future,)).await.map(drop);
    assert_eq!((distance(false, plain), distance(true, plain)), (2, 0));
    let results = async |future: Future<u8>| gather(vec![future]).return_exceptions().await.map(drop);
    assert_eq!((distance(false, results), distance(true, results)), (2, 0));
    let coroutine = async |future: Future<u8>| gather((future.into_future(), async { Ok(()) })).await.map(drop);
    assert_eq!(distance(false, coroutine), 2);
    let coroutine = async |future: Future<u8>| gather((coroutine_of(future),)).await.map(drop);
    assert_eq!((distance(false, coroutine), distance(true, coroutine)), (3, 3));
    let task = async |future: Future<u8>| gather((create_task(future),)).await.map(drop);
    assert_eq!((distance(false, task), distance(true, task)), (3, 3));
    let beside = async |_| gather((async { Ok(()) }, async { Ok(()) })).await.map(drop);
    assert_eq!(distance(true, beside), 3);
    assert_eq!(distance(true, async |_| gather(()).await), 0);
}

#[test]
fn a_wait_goes_on_in_the_second_iteration() {
    let all = async |future: Future<u8>| wait([future]).await.map(drop);
    assert_eq!((distance(false, all), distance(true, all)), (2, 2));
    let first = async |future: Future<u8>| wait([future, Future::new()]).return_when(FIRST_COMPLETED).await.map(drop);
    assert_eq!((distance(false, first), distance(true, first)), (2, 2));
    let exception = async |future: Future<u8>| wait([future]).return_when(FIRST_EXCEPTION).await.map(drop);
    assert_eq!((distance(false, exception), distance(true, exception)), (2, 2));
    let timeout = async |future: Future<u8>| wait([future, Future::new()]).timeout(ZERO).await.map(drop);
    assert_eq!(distance(true, timeout), 2);
}

#[test]
fn as_completed_goes_on_in_the_second_iteration() {
    let plain = async |future: Future<u8>| {
        for next in as_completed([future]) {
            next.await?;
        }
        Ok(())
    };
    assert_eq!((distance(false, plain), distance(true, plain)), (2, 2));
    let stream = async |future: Future<u8>| as_completed([future]).next().await.unwrap()?.await.map(drop);
    assert_eq!((distance(false, stream), distance(true, stream)), (2, 2));
    let coroutine =
        async |future: Future<u8>| as_completed([coroutine_of(future)]).next().await.unwrap()?.await.map(drop);
    assert_eq!((distance(false, coroutine), distance(true, coroutine)), (3, 3));
}
