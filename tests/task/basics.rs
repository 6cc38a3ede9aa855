//! When a task's steps run, and what is known of it meanwhile.

use std::{future::Future as _, rc::Rc, time::Duration};

use asyncio::{Context, ContextVar, ErrorKind, create_task, current_task, sleep};

use crate::support::{self, Record, count_iterations, failure, new_loop, tick, virtual_loop};

/// TASK-001
#[test]
fn the_first_step_runs_in_the_next_iteration() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = event_loop.create_task(async move {
        seen.push(1);
        Ok(())
    });
    assert_eq!(record.len(), 0);
    assert!(!task.done());
    tick(&event_loop);
    assert_eq!(record.take(), [1]);
    assert!(task.done());
}

/// TASK-002
#[test]
fn tasks_take_turns() {
    let event_loop = new_loop();
    let record = Record::default();
    for names in [["A1", "A2"], ["B1", "B2"]] {
        let seen = record.clone();
        event_loop.create_task(async move {
            seen.push(names[0]);
            sleep(Duration::ZERO).await?;
            seen.push(names[1]);
            Ok(())
        });
    }
    tick(&event_loop);
    assert_eq!(record.items(), ["A1", "B1"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["A1", "B1", "A2", "B2"]);
}

/// TASK-003
#[test]
fn a_done_callback_runs_in_the_iteration_after_the_end() {
    let event_loop = new_loop();
    let record = Record::default();
    let task = event_loop.create_task(async { Ok(7) });
    let seen = record.clone();
    task.add_done_callback(move |_| seen.push("cb"));
    tick(&event_loop);
    assert!(task.done());
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), ["cb"]);
}

/// TASK-009
#[test]
fn a_name_can_be_given_and_changed_at_any_time() {
    let event_loop = new_loop();
    let task = event_loop.task(async { Ok(()) }).name("test_task").start();
    assert_eq!(task.get_name(), "test_task");
    tick(&event_loop);
    assert!(task.done());
    assert_eq!(task.get_name(), "test_task");
    task.set_name("late");
    assert_eq!(task.get_name(), "late");
    assert_eq!(task.any().get_name(), "late");
}

/// TASK-009: without one, "Task-N".
#[test]
fn tasks_are_numbered_where_no_name_is_given() {
    let event_loop = new_loop();
    let names: Vec<String> = (0..3).map(|_| event_loop.create_task(async { Ok(()) }).get_name()).collect();
    for name in &names {
        assert!(name.strip_prefix("Task-").is_some_and(|number| number.parse::<u32>().is_ok()), "{name}");
    }
    assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    let task = event_loop.task(async { Ok(current_task()?.unwrap().get_name()) }).name("inside").start();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), "inside");
}

/// TASK-010
#[test]
fn debug_tells_state_and_name() {
    let event_loop = new_loop();
    let task = event_loop.task(sleep(Duration::from_secs(60))).name("TestTask").start();
    let mut texts = vec![(format!("{task:?}"), "pending")];
    tick(&event_loop);
    task.cancel();
    texts.push((format!("{task:?}"), "cancelling"));
    tick(&event_loop);
    texts.push((format!("{task:?}"), "cancelled"));
    let task = event_loop.task(async { Ok("abc") }).name("TestTask").start();
    tick(&event_loop);
    texts.push((format!("{task:?}"), "finished"));
    assert!(format!("{task:?}").contains("abc"), "{task:?}");
    texts.push((format!("{:?}", task.any()), "finished"));
    for (text, state) in texts {
        assert!(text.contains(state), "{text}");
        assert!(text.contains("TestTask"), "{text}");
    }
}

/// TASK-010: an error is shown, and looking at it so is no look.
#[test]
fn debug_tells_the_error() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Err::<(), _>(asyncio::Error::Value("wrong".into())) });
    tick(&event_loop);
    let text = format!("{task:?}");
    assert!(text.contains("finished") && text.contains("wrong"), "{text}");
    let reports = support::handler(&event_loop);
    drop(task);
    assert_eq!(reports.take().len(), 1);
}

/// TASK-011
#[test]
fn the_current_task_is_the_one_whose_code_runs() {
    let event_loop = new_loop();
    let record = Record::default();
    let (seen, own) = (record.clone(), event_loop.clone());
    let task = event_loop.create_task(async move {
        seen.push(current_task()?);
        assert!(own.current_task() == current_task()?);
        Ok(())
    });
    let seen = record.clone();
    event_loop.call_soon(move || seen.push(current_task().unwrap()));
    assert_eq!(event_loop.current_task(), None);
    tick(&event_loop);
    assert_eq!(event_loop.current_task(), None);
    assert_eq!(record.take(), [Some(task.any()), None]);
}

/// TASK-012
#[test]
fn the_current_task_is_right_after_every_await() {
    let event_loop = new_loop();
    let (one, two) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    let (give, take) = (one.clone(), two.clone());
    let first = event_loop.create_task(async move {
        let mut seen = vec![current_task()?];
        take.await?;
        seen.push(current_task()?);
        give.set_result(())?;
        sleep(Duration::ZERO).await?;
        seen.push(current_task()?);
        Ok(seen)
    });
    let second = event_loop.create_task(async move {
        let mut seen = vec![current_task()?];
        two.set_result(())?;
        seen.push(current_task()?);
        one.await?;
        seen.push(current_task()?);
        Ok(seen)
    });
    let names = [first.any(), second.any()];
    let seen = event_loop.run_until_complete(async { Ok([first.await?, second.await?]) }).unwrap();
    for (task, seen) in names.into_iter().zip(seen) {
        assert_eq!(seen, vec![Some(task); 3]);
    }
    assert_eq!(event_loop.current_task(), None);
    assert_eq!(event_loop.all_tasks(), []);
}

/// TASK-013
#[test]
fn without_a_running_loop_there_is_no_current_task() {
    assert_eq!(failure(current_task()), (ErrorKind::Runtime, "no running event loop".into()));
    assert_eq!(failure(asyncio::all_tasks()), (ErrorKind::Runtime, "no running event loop".into()));
    let event_loop = new_loop();
    assert_eq!(failure(current_task()).0, ErrorKind::Runtime, "a loop that does not run is none");
    drop(event_loop);
}

/// TASK-011: `all_tasks` lists what is not done, the main future included.
#[test]
fn all_tasks_lists_what_is_not_done() {
    support::run(async {
        let main = current_task()?.unwrap();
        assert_eq!(asyncio::all_tasks()?, std::slice::from_ref(&main));
        let task = create_task(async { Ok(()) });
        assert_eq!(asyncio::all_tasks()?.len(), 2);
        assert!(asyncio::all_tasks()?.contains(&task.any()));
        task.await?;
        assert_eq!(asyncio::all_tasks()?, [main]);
        Ok(())
    });
}

/// TASK-018
#[test]
fn ensure_future_lets_a_task_through_and_makes_one_of_the_rest() {
    support::run(async {
        let task = create_task(async { Ok(1) });
        let known = task.any();
        let same = asyncio::ensure_future(task);
        assert!(same == known);
        assert_eq!(same.await?, 1);
        let fresh = asyncio::ensure_future(async { Ok(2) });
        assert!(fresh != known);
        assert!(fresh.get_loop()? == asyncio::get_running_loop()?);
        assert!(asyncio::all_tasks()?.contains(&fresh.any()));
        assert_eq!(fresh.await?, 2);
        Ok(())
    });
}

/// TASK-018: where no loop runs, the one that was set is taken.
#[test]
fn ensure_future_takes_the_loop_that_was_set() {
    let event_loop = new_loop();
    asyncio::set_event_loop(&event_loop);
    let task = asyncio::ensure_future(async { Ok(3) });
    asyncio::set_event_loop(None);
    assert!(task.get_loop().unwrap() == event_loop);
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 3);
    let (guard, dropped) = support::drop_guard();
    let homeless = asyncio::ensure_future(async move {
        drop(guard);
        Ok(4)
    });
    assert!(dropped.get());
    let (kind, text) = failure(homeless.result());
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("no current event loop"), "{text}");
}

/// TASK-019: sleeping takes its time. (There are neither negative delays nor NaN: zero and the past stand for them.)
#[test]
fn a_sleep_ends_when_its_time_has_come() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    event_loop.run_until_complete(sleep(Duration::from_millis(50))).unwrap();
    assert_eq!(event_loop.time() - begin, Duration::from_millis(50));
    let value = event_loop.run_until_complete(async {
        sleep(Duration::from_millis(50)).await?;
        Ok("yeah")
    });
    assert_eq!(value.unwrap(), "yeah");
    assert_eq!(event_loop.time() - begin, Duration::from_millis(100));
}

/// TASK-019: a sleep of zero, or until a time that is past, takes exactly one iteration.
#[test]
fn a_sleep_of_nothing_takes_one_iteration() {
    let event_loop = new_loop();
    let past = event_loop.time().checked_sub(Duration::from_secs(3));
    for past in [None, past] {
        let iterations = count_iterations(&event_loop);
        let taken = event_loop
            .run_until_complete(async {
                let before = iterations.get();
                match past {
                    None => sleep(Duration::ZERO).await?,
                    Some(past) => asyncio::sleep_until(past).await?,
                }
                Ok(iterations.get() - before)
            })
            .unwrap();
        assert_eq!(taken, 1);
    }
}

/// TASK-019: the real clock.
#[test]
fn a_sleep_is_never_early() {
    support::run(async {
        let begin = std::time::Instant::now();
        sleep(Duration::from_millis(50)).await?;
        assert!(begin.elapsed() >= Duration::from_millis(48));
        Ok(())
    });
}

/// TASK-021
#[test]
fn a_dropped_handle_neither_cancels_nor_stops_the_task() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let record = Record::default();
    let seen = record.clone();
    drop(event_loop.create_task(async move {
        sleep(Duration::from_millis(10)).await?;
        seen.push(1);
        Ok(())
    }));
    assert_eq!(event_loop.all_tasks().len(), 1);
    event_loop.run_until_complete(sleep(Duration::from_millis(50))).unwrap();
    assert_eq!(record.take(), [1]);
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn tasks_may_hold_what_is_not_send() {
    support::run(async {
        let local = Rc::new(5);
        let task = create_task(async move {
            sleep(Duration::ZERO).await?;
            Ok(*local)
        });
        assert_eq!(task.await?, 5);
        Ok(())
    });
}

static VALUE: ContextVar<u8> = ContextVar::with_default("value", || 0);

#[test]
fn a_task_runs_in_a_copy_of_the_context_it_was_made_in() {
    support::run(async {
        VALUE.set(1);
        let task = create_task(async {
            let before = VALUE.get()?;
            VALUE.set(7);
            sleep(Duration::ZERO).await?;
            Ok((before, VALUE.get()?))
        });
        VALUE.set(2);
        let context = task.get_context();
        assert_eq!((&task).await?, (1, 7));
        assert_eq!(context.get(&VALUE), Some(7));
        assert_eq!(VALUE.get()?, 2);
        assert!(task.get_context().is_empty(), "it has ended and was not given one");
        Ok(())
    });
}

#[test]
fn a_task_runs_in_the_context_that_it_is_given() {
    support::run(async {
        let context = Context::new();
        context.run(|| VALUE.set(3))?;
        let event_loop = asyncio::get_running_loop()?;
        let given = context.clone();
        let task = event_loop
            .task(async move {
                assert!(current_task()?.unwrap().get_context() == given);
                VALUE.set(VALUE.get()? + 1);
                sleep(Duration::ZERO).await?;
                VALUE.get()
            })
            .context(&context)
            .start();
        assert!(task.get_context() == context);
        assert_eq!(task.await?, 4);
        assert_eq!(context.get(&VALUE), Some(4));
        let task = event_loop.in_context(&context).create_task(async {
            VALUE.set(9);
            Ok(())
        });
        task.await?;
        assert_eq!(context.get(&VALUE), Some(9));
        assert_eq!(VALUE.get()?, 0);
        Ok(())
    });
}

#[test]
fn a_coroutine_is_dropped_when_it_ends() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let task = event_loop.create_task(async move {
        let _held = guard;
        Ok(())
    });
    assert!(!dropped.get());
    tick(&event_loop);
    assert!(dropped.get());
    assert!(task.done());
}

#[test]
fn a_poll_outside_of_the_loop_waits_without_one() {
    let event_loop = new_loop();
    let mut task = event_loop.create_task(async { Ok(5) });
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::pin::Pin::new(&mut task).poll(&mut cx).is_pending());
    tick(&event_loop);
    assert!(matches!(std::pin::Pin::new(&mut task).poll(&mut cx), std::task::Poll::Ready(Ok(5))));
}
