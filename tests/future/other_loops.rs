//! What belongs to one loop, polled in another.

use std::{
    future::Future as StdFuture,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{Error, ErrorKind};

use crate::support::{self, failure, handler, new_loop, tick};

const OTHER_LOOP: &str = "The future belongs to a different loop than the one specified as the loop argument";

/// Polled under another loop, it is `Error::Value`.
fn refused<T: std::fmt::Debug>(result: asyncio::Result<T>) {
    assert_eq!(failure(result), (ErrorKind::Value, OTHER_LOOP.into()));
}

#[test]
fn a_pending_future_of_another_loop_is_refused_and_stays_pending() {
    let (home, away) = (new_loop(), new_loop());
    let mut future = home.create_future::<u8>();
    refused(away.run_until_complete(&mut future));
    refused(away.run_until_complete(async { (&future).await }));
    refused(away.run_until_complete(future.clone().shared()));
    assert!(!future.done());
    future.set_result(1).unwrap();
    assert_eq!(home.run_until_complete(future).unwrap(), 1);
}

#[test]
fn a_done_future_of_another_loop_gives_its_value() {
    let (home, away) = (new_loop(), new_loop());
    let future = home.create_future::<u8>();
    future.set_result(1).unwrap();
    assert_eq!(away.run_until_complete(&future).unwrap(), 1);
    assert_eq!(away.run_until_complete(future).unwrap(), 1);
}

#[test]
fn a_pending_task_of_another_loop_is_refused_and_goes_on() {
    let (home, away) = (new_loop(), new_loop());
    let mut task = home.create_task(async {
        asyncio::sleep(Duration::ZERO).await?;
        Ok(1)
    });
    refused(away.run_until_complete(&mut task));
    refused(away.run_until_complete(async { (&task).await }));
    refused(away.run_until_complete(task.any()));
    assert!(!task.done());
    let shared = task.shared();
    refused(away.run_until_complete(shared.clone()));
    assert_eq!(home.run_until_complete(shared.clone()).unwrap(), 1);
    assert_eq!(away.run_until_complete(shared).unwrap(), 1, "it is done now");
}

#[test]
fn a_pending_handle_of_another_loop_is_refused_and_still_runs() {
    let (home, away) = (new_loop(), new_loop());
    let mut soon = home.call_soon(|| 1);
    let mut later = home.call_later(Duration::from_millis(1), || 2);
    refused(away.run_until_complete(&mut soon));
    refused(away.run_until_complete(&mut later));
    assert_eq!(home.run_until_complete(soon).unwrap(), 1);
    assert_eq!(home.run_until_complete(later).unwrap(), 2);
}

#[test]
fn a_refused_wait_is_no_wait() {
    let (home, away) = (new_loop(), new_loop());
    let reports = handler(&home);
    let mut handle = home.call_soon(|| -> u8 { panic!("boom") });
    refused(away.run_until_complete(&mut handle));
    let mut task = home.create_task(async { if true { panic!("bang") } else { asyncio::ok(1) } });
    refused(away.run_until_complete(&mut task));
    tick(&home);
    let texts: Vec<_> = reports.take().iter().map(|report| report.exception.as_ref().unwrap().to_string()).collect();
    assert_eq!(texts, ["boom", "bang"], "nobody awaits them");
    assert_eq!(failure(handle_outcome(&mut handle)).0, ErrorKind::Panicked);
}

fn handle_outcome(handle: &mut asyncio::Handle<u8>) -> asyncio::Result<u8> {
    match Pin::new(handle).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(Error::Value("pending".into())),
    }
}

#[test]
fn a_refused_future_can_be_awaited_at_home_again() {
    let _deadline = support::deadline();
    let (home, away) = (new_loop(), new_loop());
    let future = home.create_future::<u8>();
    let mut wait = Box::pin((&future).into_future());
    refused(away.run_until_complete(wait.as_mut()));
    let setter = future.clone();
    home.call_soon(move || setter.set_result(3));
    assert_eq!(home.run_until_complete(wait.as_mut()).unwrap(), 3);
}

#[test]
fn a_cancel_of_the_refused_waiter_does_not_reach_the_future() {
    let (home, away) = (new_loop(), new_loop());
    let future = home.create_future::<u8>();
    let awaited = future.clone();
    let task = away.create_task(async move {
        refused((&awaited).await);
        asyncio::sleep(Duration::from_secs(60)).await
    });
    tick(&away);
    assert!(task.cancel());
    tick(&away);
    assert!(task.cancelled());
    assert!(!future.done());
}
