//! What these tests show: how a process is ended with its `Process`, and with whatever else is in its group.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use asyncio::{
    ErrorKind,
    subprocess::{DEVNULL, PIPE, Process},
};

use crate::{Place, children, exists, open_descriptors};

on_each_watcher! {
    a_dropped_process_goes_on_by_default
    kill_on_drop_ends_the_whole_group
    kill_on_drop_kills_what_does_not_end
    kill_on_drop_gives_time_to_those_whose_leader_has_gone
    kill_on_drop_of_a_process_that_has_ended_does_nothing
    what_a_process_has_left_behind_ends_with_it
    shutdown_reaches_the_group_that_is_to_end
    a_cancelled_task_ends_its_process
    kill_on_drop_works_from_other_threads
    a_loop_that_is_closed_gives_no_more_time
    shutdown_asks_and_then_kills
    a_thousand_processes_leave_nothing
}

/// The words that come first, as numbers of processes.
async fn numbers(process: &mut Process) -> asyncio::Result<Vec<u32>> {
    let line = process.stdout.as_mut().expect("it is piped").readline().await?;
    let line = String::from_utf8(line).unwrap();
    Ok(line.split_whitespace().map(|number| number.parse().unwrap()).collect())
}

/// Whether a process runs: one that is dead and that its parent has not reaped does not. Those that lose their parents
/// here may find one that does not reap.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn until(mut done: impl FnMut() -> bool) -> asyncio::Result<()> {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        asyncio::sleep(Duration::from_millis(2)).await?;
    }
    Ok(())
}

/// As in asyncio.
fn a_dropped_process_goes_on_by_default(place: Place) {
    let event_loop = place.event_loop();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    event_loop.run(async {
        let command = format!("read line; touch {}", mark.display());
        let mut process = asyncio::create_subprocess_shell(command).stdin(PIPE).await?;
        let (stdin, pid) = (process.stdin.take().unwrap(), process.pid());
        drop(process);
        stdin.write("go\n")?;
        until(|| !exists(pid)).await?;
        assert!(mark.exists());
        Ok(())
    });
}

/// The issue: dropping a Process can kill its whole group.
fn kill_on_drop_ends_the_whole_group(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "sleep 1000 & echo $$ $!; wait";
        let long = Duration::from_secs(1000);
        let mut process =
            asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE).kill_on_drop(long).await?;
        let pids = numbers(&mut process).await?;
        assert_eq!((pids.len(), pids[0]), (2, process.pid()));
        drop(process);
        until(|| !exists(pids[0]) && !runs(pids[1])).await
    });
    // Nobody waits for the time of grace where nothing is left.
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// The time of grace.
fn kill_on_drop_kills_what_does_not_end(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "trap '' TERM; sleep 1000 & echo $$ $!; while true; do sleep 0.05; done";
        let grace = Duration::from_millis(300);
        let mut process =
            asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE).kill_on_drop(grace).await?;
        let pids = numbers(&mut process).await?;
        drop(process);
        let begin = Instant::now();
        until(|| !exists(pids[0]) && !runs(pids[1])).await?;
        assert!(begin.elapsed() >= grace, "they ignore SIGTERM");
        Ok(())
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// The leader ends at once, another one needs its time, and a third does not end.
fn kill_on_drop_gives_time_to_those_whose_leader_has_gone(place: Place) {
    let event_loop = place.event_loop();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    event_loop.run(async {
        let path = mark.display();
        let command = format!(
            "(trap 'sleep 0.1; touch {path}; exit' TERM; echo; while true; do sleep 0.01; done) & tidy=$!
            (trap '' TERM; echo; while true; do sleep 0.01; done) & stubborn=$!
            read all; echo $$ $tidy $stubborn; wait"
        );
        let grace = Duration::from_secs(2);
        let builder = asyncio::create_subprocess_shell(command).stdin(PIPE).stdout(PIPE);
        let mut process = builder.kill_on_drop(grace).await?;
        // Their traps are set.
        assert!(numbers(&mut process).await?.is_empty() && numbers(&mut process).await?.is_empty());
        process.stdin.as_ref().expect("it is piped").write("all\n")?;
        let pids = numbers(&mut process).await?;
        drop(process);
        let begin = Instant::now();
        until(|| !runs(pids[0])).await?;
        until(|| !runs(pids[1])).await?;
        assert!(mark.exists(), "it had its time");
        until(|| !runs(pids[2]) && !exists(pids[0])).await?;
        assert!(begin.elapsed() >= grace);
        Ok(())
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// The issue: its whole group. On Linux before 6.9, and without a descriptor for the child, nothing stands for a group
/// whose leader has been reaped.
fn what_a_process_has_left_behind_ends_with_it(place: Place) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers_of_it = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if place.by_signal || (numbers_of_it.next(), numbers_of_it.next()) < (Some(6), Some(9)) {
        return;
    }
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "sleep 1000 >&- & echo $!";
        let long = Duration::from_secs(1000);
        let builder = asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE);
        let mut process = builder.kill_on_drop(long).await?;
        let pids = numbers(&mut process).await?;
        assert_eq!(process.wait().await?, 0);
        assert!(runs(pids[0]));
        drop(process);
        until(|| !runs(pids[0])).await
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

fn shutdown_reaches_the_group_that_is_to_end(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "trap '' TERM; sleep 1000 & echo $$ $!; wait; wait";
        let builder = asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE);
        let mut process = builder.kill_on_drop(Duration::from_secs(1000)).await?;
        let pids = numbers(&mut process).await?;
        assert_eq!(process.shutdown(Duration::from_millis(50)).await?, -9);
        until(|| !runs(pids[1])).await
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// Its number may be another process's.
fn kill_on_drop_of_a_process_that_has_ended_does_nothing(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let process = asyncio::create_subprocess_shell("exit 1").kill_on_drop(Duration::from_secs(1000)).await?;
        assert_eq!(process.wait().await?, 1);
        drop(process);
        // And one that has ended, but that the loop has not come to.
        let process = asyncio::create_subprocess_shell("exit 1").kill_on_drop(Duration::from_secs(1000)).await?;
        let pid = process.pid();
        std::thread::sleep(Duration::from_millis(20));
        drop(process);
        until(|| !exists(pid)).await
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// The issue: cancelling can kill its whole group.
fn a_cancelled_task_ends_its_process(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let (sender, receiver) = std::sync::mpsc::channel();
        let task = asyncio::create_task(async move {
            let process =
                asyncio::create_subprocess_exec(["sleep", "1000"]).kill_on_drop(Duration::from_secs(1000)).await?;
            sender.send(process.pid()).unwrap();
            process.wait().await
        });
        asyncio::sleep(Duration::ZERO).await?;
        let pid = receiver.recv().unwrap();
        assert!(runs(pid));
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        until(|| !exists(pid)).await
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// A `Process` may be dropped anywhere.
fn kill_on_drop_works_from_other_threads(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "trap '' TERM; echo $$; while true; do sleep 0.01; done";
        let grace = Duration::from_millis(50);
        let mut process =
            asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE).kill_on_drop(grace).await?;
        let pids = numbers(&mut process).await?;
        std::thread::spawn(move || drop(process)).join().unwrap();
        until(|| !exists(pids[0])).await
    });
    event_loop.until(|| event_loop.next_deadline().is_none());
}

/// A `Process` that is dropped, or not, when the loop ends.
fn a_loop_that_is_closed_gives_no_more_time(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let start = || {
        event_loop.run(async {
            let command = "trap '' TERM; sleep 1000 & echo $$ $!; while true; do sleep 0.05; done";
            let long = Duration::from_secs(1000);
            let builder = asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE);
            let mut process = builder.kill_on_drop(long).await?;
            Ok((numbers(&mut process).await?, process))
        })
    };
    let (mut pids, dropped) = start();
    let (more, kept) = start();
    pids.extend(more);
    drop(dropped);
    event_loop.event_loop.close().unwrap();
    let begin = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(children(), 0);
    drop(kept);
}

/// `Process::shutdown`.
fn shutdown_asks_and_then_kills(place: Place) {
    place.event_loop().run(async {
        let process = asyncio::create_subprocess_exec(["sleep", "1000"]).await?;
        assert_eq!(process.shutdown(Duration::from_secs(1000)).await?, -15);
        assert_eq!(process.shutdown(Duration::from_secs(1000)).await?, -15, "once more is no error");
        let command = "trap '' TERM; echo $$; while true; do sleep 0.01; done";
        let mut process = asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE).await?;
        numbers(&mut process).await?;
        assert_eq!(process.shutdown(Duration::from_millis(50)).await?, -9);
        let command = "trap 'exit 7' TERM; echo $$; while true; do sleep 0.01; done";
        let mut process = asyncio::create_subprocess_shell(command).stdin(DEVNULL).stdout(PIPE).await?;
        numbers(&mut process).await?;
        assert_eq!(process.shutdown(Duration::from_secs(1000)).await?, 7);
        assert_eq!(process.kill().unwrap_err().kind(), ErrorKind::ProcessLookup);
        Ok(())
    });
}

/// The issue: 1,000 children in a row leave no zombie and no descriptor.
fn a_thousand_processes_leave_nothing(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let run = |count: usize| {
        event_loop.run(async {
            for number in 0..count {
                let builder = asyncio::create_subprocess_exec("true").stdin(PIPE).stdout(PIPE).stderr(PIPE);
                let builder = if number % 2 == 0 { builder } else { builder.kill_on_drop(Duration::from_secs(1)) };
                let mut process = builder.await?;
                match number % 4 {
                    0 | 1 => assert_eq!(process.wait().await?, 0),
                    _ => drop(process.communicate(None).await?),
                }
            }
            Ok(())
        });
        event_loop.ticks(3);
    };
    run(4);
    let before = open_descriptors();
    run(1000);
    assert_eq!((children(), open_descriptors()), (0, before));
}
