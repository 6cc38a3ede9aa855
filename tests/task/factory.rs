//! Task factories.

use std::{cell::Cell, rc::Rc, thread, time::Duration};

use asyncio::{Context, ContextVar, Error, ErrorKind, EventLoop, TaskFactory, TaskGroup, create_task, sleep};

use crate::support::{self, Record, failure, handler, new_loop, tick};

/// FACT-001
#[test]
fn a_factory_can_be_set_and_taken_away() {
    let event_loop = new_loop();
    assert!(event_loop.get_task_factory().is_none());
    let factory: TaskFactory = Rc::new(|_, _| Ok(()));
    event_loop.set_task_factory(Some(factory.clone()));
    assert!(Rc::ptr_eq(&event_loop.get_task_factory().unwrap(), &factory));
    event_loop.set_task_factory(None);
    assert!(event_loop.get_task_factory().is_none());
    assert_eq!(Rc::strong_count(&factory), 1);
}

/// FACT-002
#[test]
fn a_factory_sees_all_implicit_tasks() {
    let counting = |event_loop: &EventLoop| {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        event_loop.set_task_factory(Some(Rc::new(move |_, _| {
            counted.set(counted.get() + 1);
            Ok(())
        })));
        count
    };
    let event_loop = new_loop();
    let count = counting(&event_loop);
    event_loop
        .run_until_complete(async {
            assert_eq!(count.get(), 0, "run_until_complete polls in place");
            create_task(async { Ok(()) }).await?;
            asyncio::ensure_future(async { Ok(()) }).await?;
            asyncio::gather((async { Ok(()) }, async { Ok(()) })).await?;
            TaskGroup::scope(async |group| group.create_task(async { Ok(()) }).await).await?;
            assert_eq!(count.get(), 5);
            // Tasks and futures are no new ones; a shield and as_completed make one of a coroutine.
            let task = create_task(async { Ok(()) });
            asyncio::gather((task, asyncio::Future::<()>::new(), async { Err::<(), _>(Error::cancelled()) }))
                .await
                .unwrap_err();
            assert_eq!(count.get(), 7);
            asyncio::shield(async { Ok(()) }).await?;
            for next in asyncio::as_completed([0; 2].map(|_| async { Ok(()) })) {
                next.await?;
            }
            assert_eq!(count.get(), 10);
            asyncio::timeout(Duration::from_secs(1), async { Ok(()) }).await
        })
        .unwrap();
    assert_eq!(count.get(), 10);
    event_loop.set_task_factory(None);
    let mut runner = asyncio::Runner::new();
    let count = counting(&runner.get_loop().unwrap());
    runner.run(async { Ok(()) }).unwrap();
    assert_eq!(count.get(), 0, "as run does");
    runner.close().unwrap();
    let count = asyncio::block_on(async { counting(&asyncio::get_running_loop().unwrap()) });
    assert_eq!(count.get(), 0);
}

/// Every task goes through the factory; what is polled in place does not.
#[test]
fn a_factory_sees_tasks_and_nothing_that_is_polled_in_place() {
    let event_loop = new_loop();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let home = event_loop.clone();
    event_loop.set_task_factory(Some(Rc::new(move |event_loop, _| {
        assert!(*event_loop == home);
        counted.set(counted.get() + 1);
        Ok(())
    })));
    event_loop
        .run_until_complete(async {
            create_task(async { Ok(()) }).await?;
            asyncio::ensure_future(async { Ok(()) }).await?;
            asyncio::get_running_loop()?.task(async { Ok(()) }).start().await
        })
        .unwrap();
    assert_eq!(count.get(), 3);
    let task = event_loop.create_task(async { Ok(()) });
    assert_eq!(count.get(), 4);
    asyncio::ensure_future(task).result().unwrap_err();
    assert_eq!(count.get(), 4, "a task passes through");
    event_loop.set_task_factory(None);
    event_loop.close().unwrap();
}

/// FACT-004
#[test]
fn a_refused_coroutine_fails_the_threads_future() {
    let _deadline = support::deadline();
    for reads in [true, false] {
        let event_loop = new_loop();
        let reports = handler(&event_loop);
        event_loop.set_task_factory(Some(Rc::new(|_, _| Err(Error::Value("E".into())))));
        let remote = event_loop.threadsafe();
        let (guard, dropped) = support::drop_guard();
        let thread = thread::spawn(move || {
            let future = remote.run_coroutine_threadsafe(async move {
                let _guard = guard;
                if true {
                    panic!("it was polled");
                }
                Ok(())
            });
            if reads {
                assert_eq!(failure(future.result(Duration::from_secs(30))), (ErrorKind::Value, "E".into()));
            }
        });
        while !(thread.is_finished() && dropped.get()) {
            tick(&event_loop);
            thread::yield_now();
        }
        thread.join().unwrap();
        for _ in 0..3 {
            tick(&event_loop);
        }
        assert!(dropped.get());
        let reports = reports.take();
        assert_eq!(reports.len(), usize::from(!reads), "reads: {reads}: {reports:?}");
        if let Some(report) = reports.first() {
            assert_eq!(report.exception.as_ref().unwrap().to_string(), "E");
        }
    }
}

#[test]
fn a_refused_task_is_born_failed() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_task_factory(Some(Rc::new(|_, _| Err(Error::Value("no more".into())))));
    let (guard, dropped) = support::drop_guard();
    let task = event_loop.create_task(async move {
        drop(guard);
        Ok(1)
    });
    assert!(dropped.get() && task.done());
    assert_eq!(failure(task.result()), (ErrorKind::Value, "no more".into()));
    assert_eq!(event_loop.all_tasks(), []);
    drop(task);
    assert_eq!(reports.len(), 0);
    drop(event_loop.create_task(async { Ok(1) }));
    assert_eq!(reports.take().len(), 1);
    assert_eq!(event_loop.run_until_complete(async { Ok(2) }).unwrap(), 2);
}

#[test]
fn a_factory_may_wrap_the_coroutine() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let record = Record::default();
        let log = record.clone();
        event_loop.set_task_factory(Some(Rc::new(move |_, request| {
            for name in ["inner", "outer"] {
                let log = log.clone();
                request.wrap(move |coroutine| {
                    Box::pin(async move {
                        log.push((name, "begin"));
                        coroutine.await;
                        log.push((name, "end"));
                    })
                });
            }
            Ok(())
        })));
        let task = create_task(async {
            sleep(Duration::ZERO).await?;
            Ok("value")
        });
        assert_eq!(task.await?, "value");
        assert_eq!(record.take(), [("outer", "begin"), ("inner", "begin"), ("inner", "end"), ("outer", "end")]);
        Ok(())
    });
}

/// A wrapped coroutine is cancelled, fails and panics like a bare one.
#[test]
fn a_wrapped_coroutine_behaves_as_a_bare_one() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_task_factory(Some(Rc::new(|_, request| {
        request.wrap(|coroutine| Box::pin(coroutine));
        Ok(())
    })));
    let caught = event_loop.create_task(async { Ok(sleep(Duration::from_secs(60)).await.is_err()) });
    let dropped = event_loop.create_task(std::future::pending::<asyncio::Result<()>>());
    let failed = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    let panicked = event_loop.create_task(async { if true { panic!("boom") } else { asyncio::ok(()) } });
    tick(&event_loop);
    caught.cancel();
    dropped.cancel();
    tick(&event_loop);
    assert!(caught.result().unwrap() && dropped.cancelled());
    assert_eq!(failure(failed.result()).0, ErrorKind::Value);
    assert_eq!(failure(panicked.result()), (ErrorKind::Panicked, "boom".into()));
    assert_eq!(reports.take().len(), 1, "the panic");
}

#[test]
fn a_wrapper_that_forgets_the_coroutine_fails_the_task() {
    support::run(async {
        asyncio::get_running_loop()?.set_task_factory(Some(Rc::new(|_, request| {
            request.wrap(|_coroutine| Box::pin(async {}));
            Ok(())
        })));
        let task = create_task(async { Ok(1) });
        assert_eq!(failure(task.await).0, ErrorKind::Runtime);
        Ok(())
    });
}

#[test]
fn a_factory_may_name_start_and_place_the_task() {
    static VALUE: ContextVar<u8> = ContextVar::new("value");
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let context = Context::new();
        context.run(|| VALUE.set(8))?;
        let theirs = context.clone();
        let record = Record::default();
        let seen = record.clone();
        event_loop.set_task_factory(Some(Rc::new(move |_, request| {
            seen.push((request.get_name().map(str::to_owned), request.is_eager(), request.get_context().is_some()));
            let name = format!("made {}", request.get_name().unwrap_or("nameless"));
            request.name(name).eager(true).context(&theirs);
            Ok(())
        })));
        let task = create_task(async { VALUE.get() });
        assert!(task.done());
        assert_eq!(task.get_name(), "made nameless");
        assert_eq!(task.await?, 8);
        let task = event_loop.task(async { Ok(()) }).name("x").eager_start(true).context(&context).start();
        assert_eq!(task.get_name(), "made x");
        task.await?;
        assert_eq!(record.take(), [(None, false, false), (Some("x".into()), true, true)]);
        Ok(())
    });
}

#[test]
fn a_factory_may_make_tasks_and_take_itself_away() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let record = Record::default();
        let seen = record.clone();
        event_loop.set_task_factory(Some(Rc::new(move |event_loop, _| {
            event_loop.set_task_factory(None);
            let seen = seen.clone();
            event_loop.create_task(async move {
                seen.push("from the factory");
                Ok(())
            });
            Ok(())
        })));
        create_task(async { Ok(()) }).await?;
        assert_eq!(record.take(), ["from the factory"]);
        assert!(event_loop.get_task_factory().is_none());
        Ok(())
    });
}
