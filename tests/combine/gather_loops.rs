//! Loops, contexts, names and the place where children were made.

use std::{
    cell::RefCell,
    future::Future as StdFuture,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use asyncio::{
    AnyTask, ContextVar, ErrorKind, Future, all_tasks, create_task, current_task, gather, set_event_loop, sleep,
};

use crate::{
    FOREVER, MS, after, assert_cancelled, run,
    support::{self, deadline, drop_guard, failure, handler, new_loop, tick, virtual_loop},
    texts, turns,
};

const OTHER_LOOP: &str = "The future belongs to a different loop than the one specified as the loop argument";

fn poll_once<F: StdFuture + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// GATH-011
#[test]
fn children_of_two_loops_are_refused() {
    let other = new_loop();
    let foreign = other.create_future::<u8>();
    run(async {
        let home = Future::<u8>::new();
        let given = create_task(after(5, "goes on"));
        let any = given.any();
        let polled = Rc::new(RefCell::new(false));
        let seen = polled.clone();
        let made = async move {
            seen.replace(true);
            Ok(())
        };
        let refused = gather((home.clone(), given, foreign.clone(), made)).await;
        assert_eq!(failure(refused), (ErrorKind::Value, OTHER_LOOP.into()));
        let refused = gather(vec![home.clone(), foreign.clone()]).return_exceptions().await;
        assert_eq!(failure(refused), (ErrorKind::Value, OTHER_LOOP.into()), "it is no child's error");
        let refused = gather(vec![foreign.clone().shared()]).start();
        assert!(refused.done() && !refused.cancelled() && !refused.cancel());
        assert_eq!(failure(refused.await), (ErrorKind::Value, OTHER_LOOP.into()));
        assert!(!home.done() && !foreign.done());
        any.await?;
        assert!(!*polled.borrow(), "what was made for it has not begun");
        Ok(())
    });
    assert!(!foreign.done());
}

#[test]
fn tasks_of_another_loop_are_refused() {
    let other = new_loop();
    let task = other.create_task(async { Ok(1) }).shared();
    run(async {
        let refused = gather((after(1, ()), task.clone())).await;
        assert_eq!(failure(refused), (ErrorKind::Value, OTHER_LOOP.into()));
        let refused = gather(vec![task.any()]).await;
        assert_eq!(failure(refused), (ErrorKind::Value, OTHER_LOOP.into()));
        Ok(())
    });
    assert_eq!(other.run_until_complete(task).unwrap(), 1);
}

#[test]
fn a_gathering_starts_between_runs_on_the_set_loop() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    set_event_loop(&event_loop);
    let all = gather((after(1, 1), after(2, 2))).start();
    assert_eq!(event_loop.all_tasks().len(), 2);
    let nothing = gather(()).start();
    set_event_loop(None);
    assert!(nothing.done());
    event_loop.run_until_complete(nothing).unwrap();
    tick(&event_loop);
    assert_eq!(event_loop.run_until_complete(all).unwrap(), (1, 2));
    // Cancelled while nothing runs.
    set_event_loop(&event_loop);
    let all = gather((sleep(FOREVER), sleep(FOREVER))).start();
    set_event_loop(None);
    tick(&event_loop);
    assert!(all.cancel());
    assert!(!all.done());
    assert_cancelled(event_loop.run_until_complete(all));
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn without_a_loop_there_is_only_an_error() {
    let (guard, dropped) = drop_guard();
    let all = gather((async move {
        drop(guard);
        Ok(())
    },))
    .start();
    assert!(dropped.get(), "what cannot run is not kept");
    assert!(all.done() && !all.cancelled() && !all.cancel());
    let (kind, text) = failure(new_loop().run_until_complete(all));
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("no current event loop"), "{text}");
}

#[test]
fn on_a_closed_loop_children_are_born_failed() {
    let closed = new_loop();
    closed.close().unwrap();
    set_event_loop(&closed);
    let all = gather((async { Ok(()) }, async { Ok(()) })).start();
    set_event_loop(None);
    assert!(all.done());
    let ((), records) = support::logs(|| {
        assert_eq!(failure(new_loop().run_until_complete(all)), (ErrorKind::Runtime, "Event loop is closed".into()));
    });
    assert_eq!(records.len(), 1, "the second child's error is nobody's: {records:?}");
}

/// It stays pending, and its own loop still ends it.
#[test]
fn a_gathering_is_not_awaited_under_another_loop() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    set_event_loop(&event_loop);
    let mut all = gather((after(1, 1), after(2, 2))).start();
    let known = event_loop.all_tasks();
    set_event_loop(None);
    for polled_at_home in [false, true] {
        if polled_at_home {
            assert!(event_loop.run_until_complete(async { Ok(futures::poll!(&mut all).is_pending()) }).unwrap());
        }
        let other = new_loop();
        // A number of observers, so that one of them has our key there.
        let (refused, untouched) = other
            .run_until_complete(async {
                let children = [0; 4].map(|_| create_task(sleep(FOREVER)));
                let known = children.each_ref().map(asyncio::Task::any);
                let others = children.map(|child| gather((child,)).start());
                let refused = (&mut all).await;
                let me = current_task()?.unwrap();
                me.cancel();
                assert_cancelled(sleep(FOREVER).await);
                me.uncancel();
                let untouched = known.iter().all(|child| child.cancelling() == 0);
                for gathering in others {
                    gathering.cancel();
                    assert_cancelled(gathering.await);
                }
                Ok((refused, untouched))
            })
            .unwrap();
        assert_eq!(failure(refused), (ErrorKind::Value, OTHER_LOOP.into()));
        assert!(untouched);
    }
    assert!(!all.done() && known.iter().all(|task| task.cancelling() == 0));
    assert_eq!(event_loop.run_until_complete(all).unwrap(), (1, 2));
}

/// What is done can be taken anywhere.
#[test]
fn a_gathering_that_is_done_gives_its_results_anywhere() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let all = event_loop
        .run_until_complete(async {
            let all = gather((async { Ok(1) }, async { Ok(2) })).start();
            turns(3).await?;
            Ok(all)
        })
        .unwrap();
    assert!(all.done());
    assert_eq!(new_loop().run_until_complete(all).unwrap(), (1, 2));
}

#[test]
fn a_loop_that_closes_in_between_leaves_a_gathering_harmless() {
    for polled in [false, true] {
        let event_loop = new_loop();
        let reports = handler(&event_loop);
        let (guard, dropped) = drop_guard();
        let mut all = event_loop
            .run_until_complete(async {
                let waits = async move {
                    let _guard = guard;
                    sleep(FOREVER).await
                };
                let mut all = gather((waits, Future::<u8>::new())).start();
                turns(2).await?;
                if polled {
                    assert!(futures::poll!(&mut all).is_pending());
                }
                Ok(all)
            })
            .unwrap();
        event_loop.close().unwrap();
        assert!(dropped.get());
        let messages = texts(&reports);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].0, "Task was destroyed but it is pending!");
        let _ = all.cancel();
        let _ = poll_once(&mut all);
        let _ = (all.done(), format!("{all:?}"));
        drop(event_loop);
        let _ = poll_once(&mut all);
        drop(all);
        assert_eq!(reports.len(), 0);
    }
}

/// A main future that is a gathering goes with its run.
#[test]
fn a_gathering_is_a_main_future() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    assert_eq!(event_loop.run_until_complete(async { gather((after(1, 1), after(2, 2))).await }).unwrap(), (1, 2));
    let main = async { gather(vec![after(1, 1)]).return_exceptions().await };
    assert_eq!(asyncio::run(main).unwrap().pop().unwrap().unwrap(), 1);
}

#[test]
fn children_are_named_and_made_where_gather_is_called() {
    run(async {
        let all = gather((sleep(MS), sleep(MS))).start();
        let line = line!() - 1;
        let children = all_tasks()?.into_iter().filter(|task| *task != current_task().unwrap().unwrap());
        let children = children.collect::<Vec<_>>();
        assert_eq!(children.len(), 2);
        let number = |task: &AnyTask| task.get_name().strip_prefix("Task-").unwrap().parse::<u32>().unwrap();
        assert_ne!(number(&children[0]), number(&children[1]));
        for child in children {
            assert_eq!((child.source_location().file(), child.source_location().line()), (file!(), line));
        }
        all.await?;
        Ok(())
    });
}

#[test]
fn each_child_has_a_copy_of_the_context() {
    static VAR: ContextVar<u8> = ContextVar::new("var");
    run(async {
        VAR.set(1);
        let child = |mine| async move {
            assert_eq!(VAR.get()?, 1);
            VAR.set(mine);
            sleep(MS).await?;
            VAR.get()
        };
        let all = gather((child(2), child(3))).start();
        VAR.set(9);
        assert_eq!(all.await?, (2, 3));
        assert_eq!(VAR.get()?, 9);
        let lazy = gather((async { VAR.get() },));
        VAR.set(10);
        assert_eq!(lazy.await?, (10,), "the context is that of the start");
        Ok(())
    });
}

/// Handed to an executor that is not ours, on the loop's thread, it is woken there.
#[test]
fn a_gathering_is_awaited_outside_of_a_run_and_ends_in_it() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    set_event_loop(&event_loop);
    let mut all = pin!(gather((after(1, 1),)).start());
    set_event_loop(None);
    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let flag = std::sync::Arc::new(Flag(false.into()));
    let waker = Waker::from(flag.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(all.as_mut().poll(&mut cx).is_pending());
    event_loop.run_until_complete(sleep(MS * 5)).unwrap();
    assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
    match all.as_mut().poll(&mut cx) {
        Poll::Ready(outcome) => assert_eq!(outcome.unwrap(), (1,)),
        Poll::Pending => panic!("it has ended"),
    }
}
