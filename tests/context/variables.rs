//! Variables, tokens and contexts by themselves.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
};

use asyncio::{Context, ContextVar, Error, ErrorKind, copy_context};

use crate::support;

/// CTX-001
#[test]
fn a_variable_without_a_value_is_a_lookup_error_until_it_is_set() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let error = V.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lookup);
    assert!(error.to_string().contains("\"v\""), "{error}");
    assert_eq!(V.get_or(5), 5);
    V.set(42);
    assert_eq!(V.get().unwrap(), 42);
    assert_eq!(V.get_or(5), 42);
}

/// CTX-002
#[test]
fn a_token_remembers_that_there_was_only_a_default() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 7);
    static OTHER: ContextVar<i32> = ContextVar::with_default("v", || 7);
    assert_eq!(V.get().unwrap(), 7);
    let token = V.set(1);
    assert_eq!(V.get().unwrap(), 1);
    assert_eq!(token.old_value(), None);
    assert_eq!(token.var(), V.id());
    assert_ne!(token.var(), OTHER.id());
    let second = V.set(2);
    assert_eq!(second.old_value(), Some(1));
    V.reset(&second).unwrap();
    V.reset(&token).unwrap();
    assert_eq!(V.get().unwrap(), 7);
    assert!(!copy_context().contains(&V));
}

/// CTX-003
#[test]
fn a_token_resets_once() {
    static V: ContextVar<&str> = ContextVar::new("v");
    let first = V.set("42");
    let second = V.set("spam");
    V.reset(&second).unwrap();
    assert_eq!(V.get().unwrap(), "42");
    let error = V.reset(&second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    assert!(error.to_string().contains("has already been used once"), "{error}");
    assert_eq!(V.get().unwrap(), "42");
    V.reset(&first).unwrap();
    assert_eq!(V.get().unwrap_err().kind(), ErrorKind::Lookup);
}

/// Tokens undo their own `set`, in whatever order they are used.
#[test]
fn tokens_may_be_used_out_of_order() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let (first, second) = (V.set(1), V.set(2));
    V.reset(&first).unwrap();
    assert!(V.get().is_err());
    V.reset(&second).unwrap();
    assert_eq!(V.get().unwrap(), 1);
}

#[test]
fn a_token_of_another_variable_changes_nothing() {
    static V: ContextVar<i32> = ContextVar::new("v");
    static W: ContextVar<i32> = ContextVar::new("w");
    let token = V.set(1);
    W.set(2);
    let error = W.reset(&token).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("was created by a different ContextVar"), "{error}");
    assert_eq!((V.get().unwrap(), W.get().unwrap()), (1, 2));
    V.reset(&token).unwrap();
    assert!(V.get().is_err());
}

#[test]
fn a_token_of_another_context_changes_nothing() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let context = Context::new();
    let inside = context.run(|| V.set(1)).unwrap();
    let outside = V.set(2);
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("was created in a different Context"), "{error}");
    };
    refused(V.reset(&inside).unwrap_err());
    refused(context.run(|| V.reset(&outside)).unwrap().unwrap_err());
    refused(context.copy().run(|| V.reset(&inside)).unwrap().unwrap_err());
    assert_eq!((V.get().unwrap(), context.get(&V)), (2, Some(1)));
    // Not used up by being refused; another visit of the context it was made in will do.
    context.run(|| V.reset(&inside)).unwrap().unwrap();
    V.reset(&outside).unwrap();
    assert_eq!((V.get_or(0), context.get(&V)), (0, None));
}

/// Contexts are told apart for ever, not only while both exist.
#[test]
fn a_token_of_a_context_that_is_gone_fits_no_other() {
    static V: ContextVar<i32> = ContextVar::new("v");
    for _ in 0..20 {
        let token = Context::new().run(|| V.set(1)).unwrap();
        let error = Context::new().run(|| V.reset(&token)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
    }
}

#[test]
fn a_token_of_one_thread_does_not_fit_another() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let token = V.set(1);
    let (token, error) = std::thread::spawn(move || {
        let error = V.reset(&token).unwrap_err();
        V.set(3);
        (token, error)
    })
    .join()
    .unwrap();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert_eq!(V.get().unwrap(), 1);
    V.reset(&token).unwrap();
    assert!(V.get().is_err());
}

/// CTX-005
#[test]
fn a_context_is_entered_once_at_a_time() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let context = Context::new();
    let again = context.clone();
    let (nested, copy) = context
        .run(|| {
            V.set(1);
            let copy = again.copy();
            (again.run(|| unreachable!("it is entered")), copy.run(|| V.get()))
        })
        .unwrap();
    let nested: Result<(), Error> = nested;
    let error = nested.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    assert!(error.to_string().contains("is already entered"), "{error}");
    assert_eq!(copy.unwrap().unwrap(), 1);
    // It is left again.
    assert_eq!(context.run(|| V.get().unwrap()).unwrap(), 1);
}

/// A callback that is refused is dropped.
#[test]
fn contexts_nest_and_refuse_only_what_is_on_the_way() {
    static V: ContextVar<&str> = ContextVar::with_default("v", || "base");
    let (outer, inner) = (Context::new(), Context::new());
    outer
        .run(|| {
            V.set("outer");
            inner
                .run(|| {
                    assert_eq!(V.get().unwrap(), "base");
                    V.set("inner");
                    let (guard, dropped) = support::drop_guard();
                    assert!(outer.run(move || drop(guard)).is_err());
                    assert!(dropped.get());
                    assert_eq!(V.get().unwrap(), "inner");
                })
                .unwrap();
            assert_eq!(V.get().unwrap(), "outer");
            inner.run(|| assert_eq!(V.get().unwrap(), "inner")).unwrap();
        })
        .unwrap();
    assert_eq!(V.get().unwrap(), "base");
}

/// CTX-006
#[test]
fn a_failure_leaves_the_context_with_what_was_set() {
    static V: ContextVar<&str> = ContextVar::new("v");
    let context = Context::new();
    let result: asyncio::Result<()> = context
        .run(|| {
            V.set("spam");
            Err(Error::other("E"))
        })
        .unwrap();
    assert_eq!(result.unwrap_err().to_string(), "E");
    assert!(V.get().is_err());
    assert_eq!(context.get(&V), Some("spam"));

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        context.run(|| {
            V.set("eggs");
            panic!("expected");
        })
    }));
    assert!(panicked.is_err());
    assert!(V.get().is_err());
    assert_eq!(context.get(&V), Some("eggs"));
    context.run(|| ()).unwrap();
}

/// CTX-007
#[test]
fn copies_are_independent() {
    static C: ContextVar<i32> = ContextVar::new("c");
    let first = Context::new();
    first.run(|| C.set(10)).unwrap();
    let second = first.copy();
    assert_eq!(second.get(&C), Some(10));
    first.run(|| C.set(20)).unwrap();
    second.run(|| C.set(30)).unwrap();
    assert_eq!((first.get(&C), second.get(&C)), (Some(20), Some(30)));
    assert_ne!(first, second);
    assert_eq!(first, first.clone());
}

/// CTX-008
#[test]
fn a_default_is_not_an_entry() {
    static V: ContextVar<i32> = ContextVar::with_default("v", || 42);
    let context = Context::new();
    let look = || (context.get(&V), context.contains(&V), context.len(), context.is_empty());
    assert_eq!(look(), (None, false, 0, true));
    let token = context.run(|| V.set(1)).unwrap();
    assert_eq!(look(), (Some(1), true, 1, false));
    context.run(|| V.reset(&token)).unwrap().unwrap();
    assert_eq!(look(), (None, false, 0, true));
    assert_eq!(context.run(|| V.get().unwrap()).unwrap(), 42);
    assert_eq!(look(), (None, false, 0, true));
}

#[test]
fn a_context_counts_its_variables_and_a_copy_has_them_all() {
    static VARIABLES: [ContextVar<usize>; 20] = [const { ContextVar::new("one of twenty") }; 20];
    let context = Context::new();
    let tokens = context
        .run(|| VARIABLES.iter().enumerate().rev().map(|(index, variable)| variable.set(index)).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(context.len(), 20);
    let copy = context.run(copy_context).unwrap();
    for (index, variable) in VARIABLES.iter().enumerate() {
        assert_eq!((copy.get(variable), context.get(variable)), (Some(index), Some(index)));
    }
    context.run(|| VARIABLES[7].reset(&tokens[12])).unwrap().unwrap();
    assert_eq!((context.len(), context.get(&VARIABLES[7]), context.get(&VARIABLES[8])), (19, None, Some(8)));
    assert_eq!(copy.len(), 20);
}

/// Two threads may hold a context; one at a time is inside.
#[test]
fn a_context_is_shared_by_threads_and_entered_by_one() {
    static V: ContextVar<i32> = ContextVar::new("v");
    let _deadline = support::deadline();
    let context = Context::new();
    let ((inside, is_inside), (leave, may_leave)) = (channel(), channel::<()>());
    let theirs = context.clone();
    let thread = std::thread::spawn(move || {
        theirs
            .run(|| {
                V.set(1);
                inside.send(()).unwrap();
                may_leave.recv().unwrap();
                V.set(2);
            })
            .unwrap();
    });
    is_inside.recv().unwrap();
    assert_eq!(context.get(&V), Some(1));
    assert_eq!(context.run(|| ()).unwrap_err().kind(), ErrorKind::Runtime);
    assert_eq!(context.copy().run(|| V.get().unwrap()).unwrap(), 1);
    leave.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(context.run(|| V.get().unwrap()).unwrap(), 2);
}

#[test]
fn a_value_is_dropped_with_the_last_context_that_has_it() {
    static V: ContextVar<std::sync::Arc<support::DropGuard>> = ContextVar::new("v");
    let (guard, dropped) = support::drop_guard();
    let context = Context::new();
    context.run(|| V.set(guard.into())).unwrap();
    let copy = context.copy();
    drop(context);
    assert!(!dropped.get());
    drop(copy);
    assert!(dropped.get());
}

/// The drop of a value may look at variables and set them: it runs in no borrow of ours.
#[test]
fn the_drop_of_a_value_may_use_variables() {
    struct Uses;
    impl Drop for Uses {
        fn drop(&mut self) {
            LOG.set(LOG.get_or(0) + 1);
            copy_context();
        }
    }
    static V: ContextVar<std::sync::Arc<Uses>> = ContextVar::new("v");
    static LOG: ContextVar<i32> = ContextVar::new("log");
    let token = V.set(Uses.into());
    V.reset(&token).unwrap();
    assert_eq!(LOG.get().unwrap(), 1);
    drop(V.set(Uses.into()));
    drop(V.set(Uses.into()));
    assert_eq!(LOG.get().unwrap(), 2);
    let context = Context::new();
    context.run(|| drop(V.set(Uses.into()))).unwrap();
    context.run(|| drop(V.set(Uses.into()))).unwrap();
    assert_eq!((LOG.get().unwrap(), context.get(&LOG)), (2, Some(1)));
    drop(context);
    assert_eq!(LOG.get().unwrap(), 3);
}

/// What runs in a thread's last moments finds the variables gone, and may schedule and make contexts all the same.
#[test]
fn a_thread_that_ends_may_still_ask_for_variables_and_use_loops() {
    struct Last(asyncio::ThreadsafeLoop);
    impl Drop for Last {
        fn drop(&mut self) {
            drop(V.get());
            V.get_or(1);
            drop(V.set(2));
            copy_context().run(|| V.get_or(3)).ok();
            self.0.call_soon_threadsafe(|| ());
            self.0.stop();
        }
    }
    thread_local!(static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) });
    static V: ContextVar<i32> = ContextVar::new("v");
    let _deadline = support::deadline();
    let event_loop = support::new_loop();
    let remote = event_loop.threadsafe();
    let thread = std::thread::spawn(move || {
        // Used before the variables are, so it is dropped after them.
        LAST.with_borrow_mut(|last| *last = Some(Last(remote)));
        V.set(1);
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
}

#[test]
fn names_and_debug_texts_tell_what_is_meant() {
    static V: ContextVar<i32> = ContextVar::new("v");
    assert_eq!(V.name(), "v");
    assert_eq!(format!("{V:?}"), "ContextVar { name: \"v\", .. }");
    let token = V.set(1);
    assert!(!format!("{token:?}").contains("used"));
    V.reset(&token).unwrap();
    assert!(format!("{token:?}").contains("used"));
    assert_eq!(format!("{:?}", Context::new()), "Context { variables: 0, .. }");
}
