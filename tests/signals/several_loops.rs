//! Several loops and one signal; what the process did before comes back.

use std::time::Duration;

use asyncio::EventLoop;

use crate::{
    main_thread::tests,
    signals::{
        Ended, SIG_DFL, SIG_IGN, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, disposition, foreign_calls, foreign_handler, fork,
        install, raise,
    },
    support::{Record, drop_guard, new_loop, tick},
};

tests![
    two_loops_both_get_the_signal_when_they_run,
    the_last_handler_of_all_loops_gives_the_signal_back,
    a_loop_runs_inside_no_other_and_each_calls_its_own,
    closing_the_loop_gives_its_signals_back,
    dropping_the_loop_gives_its_signals_back,
    the_end_of_a_run_gives_its_signals_back,
    closing_one_loop_leaves_the_handler_of_the_other,
    a_signal_that_waits_for_a_loop_is_forgotten_with_it,
    a_handler_of_another_library_comes_back,
    an_ignored_signal_is_ignored_again,
    a_handler_that_was_installed_meanwhile_stays,
    add_and_remove_may_be_repeated,
    after_the_removal_the_signal_ends_the_process,
];

fn add(event_loop: &EventLoop, number: i32, name: &'static str, record: &Record) {
    let seen = record.clone();
    event_loop.add_signal_handler(number, move || seen.push(name)).unwrap();
}

fn two_loops_both_get_the_signal_when_they_run() {
    let (one, two, record) = (new_loop(), new_loop(), Record::default());
    add(&one, SIGUSR1, "one", &record);
    add(&two, SIGUSR1, "two", &record);
    raise(SIGUSR1);
    tick(&one);
    assert_eq!(record.take(), ["one"]);
    raise(SIGUSR1);
    tick(&two);
    assert_eq!(record.take(), ["two", "two"], "both arrivals waited for its run");
    tick(&two);
    tick(&one);
    assert_eq!(record.take(), ["one"]);
}

fn the_last_handler_of_all_loops_gives_the_signal_back() {
    let (one, two, record) = (new_loop(), new_loop(), Record::default());
    add(&one, SIGUSR1, "one", &record);
    add(&two, SIGUSR1, "two", &record);
    assert!(one.remove_signal_handler(SIGUSR1).unwrap());
    assert!(!one.remove_signal_handler(SIGUSR1).unwrap());
    assert_ne!(disposition(SIGUSR1), SIG_DFL);
    raise(SIGUSR1);
    tick(&one);
    tick(&two);
    assert_eq!(record.take(), ["two"]);
    assert!(two.remove_signal_handler(SIGUSR1).unwrap());
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

fn a_loop_runs_inside_no_other_and_each_calls_its_own() {
    let (one, two, record) = (new_loop(), new_loop(), Record::default());
    add(&one, SIGUSR1, "one", &record);
    // Added to a loop that does not run while another one does.
    let (other, seen) = (two.clone(), record.clone());
    one.call_soon(move || {
        add(&other, SIGUSR1, "two", &seen);
        raise(SIGUSR1);
    });
    tick(&one);
    tick(&one);
    assert_eq!(record.take(), ["one"]);
    tick(&two);
    assert_eq!(record.take(), ["two"]);
}

fn closing_the_loop_gives_its_signals_back() {
    let event_loop = new_loop();
    let (guard, dropped) = drop_guard();
    event_loop.add_signal_handler(SIGUSR1, move || _ = &guard).unwrap();
    event_loop.add_signal_handler(SIGTERM, || ()).unwrap();
    assert_ne!(disposition(SIGUSR1), SIG_DFL);
    event_loop.close().unwrap();
    assert!(dropped.get());
    assert_eq!((disposition(SIGUSR1), disposition(SIGTERM)), (SIG_DFL, SIG_DFL));
    assert!(!event_loop.remove_signal_handler(SIGUSR1).unwrap());
}

fn dropping_the_loop_gives_its_signals_back() {
    let event_loop = new_loop();
    let (guard, dropped) = drop_guard();
    event_loop.add_signal_handler(SIGUSR1, move || _ = &guard).unwrap();
    raise(SIGUSR1);
    tick(&event_loop);
    drop(event_loop);
    assert!(dropped.get());
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

fn the_end_of_a_run_gives_its_signals_back() {
    let added = asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let keeper = event_loop.clone();
        // The handler keeps its loop: a cycle that close cuts.
        event_loop.add_signal_handler(SIGUSR1, move || drop(keeper.clone()))?;
        assert_ne!(disposition(SIGUSR1), SIG_DFL);
        Ok(event_loop)
    });
    let event_loop = added.unwrap();
    assert!(event_loop.is_closed());
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

fn closing_one_loop_leaves_the_handler_of_the_other() {
    let (one, two, record) = (new_loop(), new_loop(), Record::default());
    add(&one, SIGUSR1, "one", &record);
    add(&two, SIGUSR1, "two", &record);
    one.close().unwrap();
    raise(SIGUSR1);
    tick(&two);
    assert_eq!(record.take(), ["two"]);
    drop(two);
    assert_eq!(disposition(SIGUSR1), SIG_DFL);
}

fn a_signal_that_waits_for_a_loop_is_forgotten_with_it() {
    let (one, record) = (new_loop(), Record::default());
    add(&one, SIGUSR1, "one", &record);
    raise(SIGUSR1);
    assert!(one.remove_signal_handler(SIGUSR1).unwrap());
    add(&one, SIGUSR1, "again", &record);
    tick(&one);
    assert_eq!(record.take(), [""; 0], "the new handler is for later arrivals");
    raise(SIGUSR1);
    one.close().unwrap();
    assert_eq!(record.take(), [""; 0]);
}

fn a_handler_of_another_library_comes_back() {
    install(SIGUSR1, foreign_handler());
    for _ in 0..3 {
        let (event_loop, record) = (new_loop(), Record::default());
        add(&event_loop, SIGUSR1, "ours", &record);
        assert_ne!(disposition(SIGUSR1), foreign_handler());
        raise(SIGUSR1);
        tick(&event_loop);
        assert_eq!(record.take(), ["ours"]);
        assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());
        assert_eq!(disposition(SIGUSR1), foreign_handler());
        let before = foreign_calls();
        raise(SIGUSR1);
        tick(&event_loop);
        assert_eq!((foreign_calls(), record.len()), (before + 1, 0));

        add(&event_loop, SIGUSR1, "ours", &record);
        event_loop.close().unwrap();
        assert_eq!(disposition(SIGUSR1), foreign_handler());
    }
}

fn an_ignored_signal_is_ignored_again() {
    install(SIGINT, SIG_IGN);
    let (event_loop, record) = (new_loop(), Record::default());
    add(&event_loop, SIGINT, "ours", &record);
    raise(SIGINT);
    tick(&event_loop);
    assert_eq!(record.take(), ["ours"]);
    assert!(event_loop.remove_signal_handler(SIGINT).unwrap());
    assert_eq!(disposition(SIGINT), SIG_IGN);
    raise(SIGINT);
    tick(&event_loop);
    assert_eq!(record.len(), 0);
}

fn a_handler_that_was_installed_meanwhile_stays() {
    let (event_loop, record) = (new_loop(), Record::default());
    add(&event_loop, SIGUSR2, "ours", &record);
    install(SIGUSR2, foreign_handler());
    raise(SIGUSR2);
    tick(&event_loop);
    assert_eq!((record.len(), foreign_calls()), (0, 1));
    assert!(event_loop.remove_signal_handler(SIGUSR2).unwrap());
    assert_eq!(disposition(SIGUSR2), foreign_handler());
}

fn add_and_remove_may_be_repeated() {
    let (event_loop, record) = (new_loop(), Record::default());
    for _ in 0..200 {
        add(&event_loop, SIGUSR1, "ours", &record);
        raise(SIGUSR1);
        event_loop.run_once(Duration::ZERO).unwrap();
        assert_eq!(record.take(), ["ours"]);
        assert!(event_loop.remove_signal_handler(SIGUSR1).unwrap());
        assert_eq!(disposition(SIGUSR1), SIG_DFL);
    }
}

fn after_the_removal_the_signal_ends_the_process() {
    let ended = fork(|| {
        let event_loop = new_loop();
        event_loop.add_signal_handler(SIGTERM, || ()).unwrap();
        raise(SIGTERM);
        tick(&event_loop);
        event_loop.remove_signal_handler(SIGTERM).unwrap();
        raise(SIGTERM);
    });
    assert_eq!(ended, Ended::Killed(SIGTERM));
}
