//! What these tests show: which calls a subprocess's protocol gets, in which order, and what its panics do.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{
    ErrorKind,
    subprocess::{DEVNULL, INHERIT, STDOUT},
};

use crate::{Log, Place, Recorder, Told, exists, finish, shell, stdin};

on_each_watcher! {
    calls_come_in_order_from_made_to_lost
    connection_made_comes_before_the_opener_returns
    without_pipes_there_are_three_calls
    standard_error_may_go_where_output_goes
    a_panic_in_data_received_is_reported_and_changes_nothing
    panics_in_all_other_callbacks_are_reported_and_change_nothing
    a_protocol_that_somebody_holds_is_told_later_in_order
    the_exit_is_told_before_pipes_that_others_keep_open
    a_protocol_that_is_held_for_long_costs_no_spinning
    the_protocol_can_be_replaced_and_is_let_go
    handles_are_equal_if_they_are_of_one_process
    the_factory_and_callbacks_run_in_the_context_of_the_opener
}

/// PRC-001
fn calls_come_in_order_from_made_to_lost(place: Place) {
    let event_loop = place.event_loop();
    let (transport, log) = finish(&event_loop, "echo one; echo two >&2; echo three; exit 3", |builder| builder);
    let calls = log.items();
    assert_eq!(calls[0], Told::Made);
    assert_eq!(*calls.last().unwrap(), Told::Lost(None));
    for fd in [1, 2] {
        let end = log.position(&Told::PipeLost(fd, None));
        let data = calls.iter().rposition(|told| matches!(told, Told::Data(number, _) if *number == fd)).unwrap();
        assert!(data < end, "{calls:?}");
    }
    assert_eq!((log.text(1), log.text(2)), ("one\nthree\n".to_owned(), "two\n".to_owned()));
    assert!(log.has(&Told::Exited(Some(3))) && log.has(&Told::PipeLost(0, None)), "{calls:?}");
    assert_eq!(log.without_data().len(), 6, "each once: {calls:?}");
    assert_eq!(transport.get_returncode(), Some(3));
    assert!(transport.get_pid() > 0);
}

/// PRC-001
fn connection_made_comes_before_the_opener_returns(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "echo out");
    let returned = log.clone();
    let transport = event_loop.run(async move {
        let (transport, protocol) = builder.await?;
        returned.push(Told::Note("returned"));
        assert!(protocol.borrow().transport.as_ref() == Some(&transport));
        Ok(transport)
    });
    event_loop.until(|| log.lost());
    assert_eq!(log.items()[..2], [Told::Made, Told::Note("returned")]);
    assert!(transport.get_pid() > 0);
}

/// PRC-003
fn without_pipes_there_are_three_calls(place: Place) {
    let event_loop = place.event_loop();
    let inherited = |builder: crate::Builder| builder.stdin(INHERIT).stdout(INHERIT).stderr(INHERIT);
    let (transport, log) = finish(&event_loop, "exit 7", inherited);
    assert_eq!(log.items(), [Told::Made, Told::Exited(Some(7)), Told::Lost(None)]);
    (-1..4).for_each(|fd| assert!(transport.get_pipe_transport(fd).is_none()));
}

/// PRC-004
fn standard_error_may_go_where_output_goes(place: Place) {
    let event_loop = place.event_loop();
    let (transport, log) = finish(&event_loop, "echo out; echo err >&2; echo out", |builder| builder.stderr(STDOUT));
    assert!(transport.get_pipe_transport(2).is_none());
    assert_eq!(log.text(1), "out\nerr\nout\n");
    let of_stderr = |told: &Told| matches!(told, Told::Data(2, _) | Told::PipeLost(2, _));
    assert!(!log.items().iter().any(of_stderr));
}

/// PRC-023
fn a_panic_in_data_received_is_reported_and_changes_nothing(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log).on(|transport, told| {
        if let Told::Data(..) = told {
            stdin(transport).write(b"\n");
            panic!("no data, please");
        }
    });
    event_loop.run(event_loop.subprocess_shell(|| recorder, "echo one; read go; echo two; read go; exit 4"));
    event_loop.until(|| log.lost());
    let reports = event_loop.reports.take();
    assert_eq!(reports.len(), 2, "{reports:?}");
    for report in reports {
        assert_eq!(report.message, "protocol.pipe_data_received() failed");
        assert_eq!(report.exception.unwrap().to_string(), "no data, please");
        assert!(report.extra["transport"].starts_with("<SubprocessTransport"), "{:?}", report.extra);
    }
    assert_eq!(log.text(1), "one\ntwo\n");
    assert!(log.has(&Told::PipeLost(1, None)) && log.has(&Told::Exited(Some(4))));
    assert_eq!(*log.items().last().unwrap(), Told::Lost(None));
}

/// Rule 2 of the rows, in its neighbours.
fn panics_in_all_other_callbacks_are_reported_and_change_nothing(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log).on(|transport, told| {
        if *told == Told::Made {
            stdin(transport).write(&vec![b'x'; 1_000_000]);
            stdin(transport).write_eof().unwrap();
        }
        panic!("never content");
    });
    event_loop.run(event_loop.subprocess_shell(|| recorder, "cat >/dev/null; echo done"));
    event_loop.until(|| log.lost());
    let calls = log.without_data();
    let expected = [Told::Made, Told::Pause, Told::Resume, Told::PipeLost(0, None)];
    assert!(expected.iter().all(|told| calls.contains(told)), "{calls:?}");
    let messages: Vec<_> = event_loop.reports.take().into_iter().map(|report| report.message).collect();
    for callback in ["connection_made", "pause_writing", "resume_writing", "pipe_connection_lost", "process_exited"] {
        assert!(messages.contains(&format!("protocol.{callback}() failed")), "{callback} of {messages:?}");
    }
    assert_eq!(messages.len(), log.items().len());
    assert_eq!(log.text(1), "done\n");
}

/// A neighbour of PRC-001: nothing is lost, and the order is the same, while somebody holds the protocol.
fn a_protocol_that_somebody_holds_is_told_later_in_order(place: Place) {
    const SIZE: usize = 3_000_000;
    let event_loop = place.event_loop();
    let command = format!("read go; head -c {SIZE} /dev/zero; echo err >&2; exit 5");
    let (builder, log) = shell(&event_loop, &command);
    let (transport, protocol) = event_loop.run(builder);
    let borrowed = protocol.borrow_mut();
    stdin(&transport).write(b"go\n");
    event_loop.ticks(20);
    assert_eq!(log.items(), [Told::Made]);
    assert!(exists(transport.get_pid()), "it has more to write than is received now");
    drop(borrowed);
    event_loop.until(|| log.lost());
    assert_eq!((log.received(1).len(), log.text(2)), (SIZE, "err\n".to_owned()));
    let items = log.items();
    let end = log.position(&Told::PipeLost(1, None));
    assert!(items[end..].iter().all(|told| !matches!(told, Told::Data(1, _))), "{items:?}");
    assert!(log.has(&Told::Exited(Some(5))));
    assert_eq!(*items.last().unwrap(), Told::Lost(None));
}

/// PRH-013, as protocols see it.
fn the_exit_is_told_before_pipes_that_others_keep_open(place: Place) {
    let event_loop = place.event_loop();
    // The one that stays ends when its input does.
    let (builder, log) = shell(&event_loop, "exec 3<&0; cat <&3 & exit 6");
    let (transport, _) = event_loop.run(builder);
    event_loop.until(|| log.exited());
    assert_eq!(transport.get_returncode(), Some(6));
    assert_eq!(log.items(), [Told::Made, Told::Exited(Some(6))]);
    stdin(&transport).write(b"still here");
    stdin(&transport).close();
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "still here");
    assert_eq!(*log.items().last().unwrap(), Told::Lost(None));
}

/// A protocol that is held is asked again by a timer.
#[expect(clippy::await_holding_refcell_ref, reason = "that is what is tested")]
fn a_protocol_that_is_held_for_long_costs_no_spinning(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "yes | head -c 100000; echo end >&2");
    let (_, protocol) = event_loop.run(builder.stdin(DEVNULL));
    let turns = Rc::new(Cell::new(0));
    event_loop.run(async {
        let borrowed = protocol.borrow_mut();
        let count = turns.clone();
        // Every turn of the loop runs at least one callback or ends a wait: a timer that comes too often is seen by time.
        let begin = cpu_time();
        asyncio::sleep(Duration::from_millis(300)).await?;
        count.set((cpu_time() - begin).as_millis() as usize);
        drop(borrowed);
        Ok(())
    });
    assert!(turns.get() < 150, "{} ms of 300", turns.get());
    event_loop.until(|| log.lost());
    assert_eq!(log.received(1).len(), 100_000);
}

/// How long this thread has worked.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `set_protocol` and `get_protocol`.
fn the_protocol_can_be_replaced_and_is_let_go(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "read line; echo $line");
    let (transport, first) = event_loop.run(builder);
    assert!(Rc::ptr_eq(&transport.get_protocol::<Recorder>().unwrap(), &first));
    let later = Log::default();
    let mut second = Recorder::new(&later);
    second.transport = Some(transport.clone());
    let second = Rc::new(std::cell::RefCell::new(second));
    transport.set_protocol(second.clone());
    assert_eq!(Rc::strong_count(&first), 1);
    stdin(&transport).write(b"hello\n");
    event_loop.until(|| later.lost());
    assert_eq!(log.items(), [Told::Made]);
    assert_eq!(later.text(1), "hello\n");
    assert!(transport.get_protocol::<Recorder>().is_none());
    assert_eq!(Rc::strong_count(&second), 1, "the transport has let it go");
}

/// `==`, Hash and Debug.
fn handles_are_equal_if_they_are_of_one_process(place: Place) {
    let event_loop = place.event_loop();
    let (one, log) = shell(&event_loop, "exit 1");
    let (two, other_log) = shell(&event_loop, "exit 2");
    let (one, _) = event_loop.run(one);
    let (two, _) = event_loop.run(two);
    assert!(one == one.clone() && one != two);
    let set = std::collections::HashSet::from([one.clone(), one.clone(), two.clone()]);
    assert_eq!(set.len(), 2);
    assert!(format!("{one:?}").contains(&format!("pid={}", one.get_pid())), "{one:?}");
    event_loop.until(|| log.lost() && other_log.lost());
    assert!(format!("{two:?}").contains("returncode=2"), "{two:?}");
    assert_eq!(event_loop.reports.take().len(), 0);
    assert_ne!(one.get_returncode(), two.get_returncode());
}

/// As all callbacks that are made in a context.
fn the_factory_and_callbacks_run_in_the_context_of_the_opener(place: Place) {
    static NAME: asyncio::ContextVar<&str> = asyncio::ContextVar::new("name");
    let event_loop = place.event_loop();
    let log = Log::default();
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    let recorder = Recorder::new(&log).on(move |_, _| {
        assert_eq!(NAME.get().unwrap(), "opener");
        count.set(count.get() + 1);
    });
    event_loop.run(async {
        NAME.set("opener");
        let event_loop = asyncio::get_running_loop()?;
        event_loop.subprocess_shell(|| recorder, "echo out").await?;
        NAME.set("later");
        Ok(())
    });
    event_loop.until(|| log.lost());
    assert_eq!(seen.get(), log.items().len());
    assert!(
        event_loop
            .reports
            .take()
            .iter()
            .all(|report| report.exception.as_ref().map(asyncio::Error::kind) != Some(ErrorKind::Panicked))
    );
}
