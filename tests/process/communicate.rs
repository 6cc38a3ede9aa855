//! What these tests show: subprocesses with streams: their pipes, `communicate` and `wait`.

use std::{
    io,
    time::{Duration, Instant},
};

use asyncio::{
    ErrorKind,
    subprocess::{DEVNULL, PIPE, Process, STDOUT},
};
use futures::future::join_all;

use crate::Place;

on_each_watcher! {
    communicate_gives_everything_and_waits
    no_input_and_empty_input_close_standard_input
    without_pipes_there_are_no_streams
    input_without_a_pipe_is_ignored
    much_input_comes_back
    an_input_that_nobody_reads_is_no_error
    many_may_wait
    a_cancelled_wait_can_be_done_again
    streams_write_and_read
    a_slow_reader_gets_every_byte_after_the_end
    wait_does_not_wait_for_inherited_pipes
    a_limit_is_for_lines
    lines_of_both_streams_are_read_at_once
    a_command_keeps_its_own_streams
    a_cancelled_communicate_can_be_done_again
    the_kinds_of_input
    signals_and_their_errors
    what_cannot_be_started_is_an_error
    waiting_works_on_other_threads
    a_closed_loop_ends_those_who_wait
}

/// asyncio's builder in the loop of a test.
async fn shell(command: &str) -> asyncio::Result<Process> {
    asyncio::create_subprocess_shell(command).stdin(PIPE).stdout(PIPE).stderr(PIPE).await
}

async fn cat() -> asyncio::Result<Process> {
    asyncio::create_subprocess_exec("cat").stdin(PIPE).stdout(PIPE).await
}

/// PRH-001
fn communicate_gives_everything_and_waits(place: Place) {
    place.event_loop().run(async {
        let mut process = shell("cat; echo e >&2; exit 4").await?;
        assert_eq!(process.returncode(), None);
        let (stdout, stderr) = process.communicate("in").await?;
        assert_eq!((stdout.unwrap(), stderr.unwrap()), (b"in".to_vec(), b"e\n".to_vec()));
        assert_eq!(process.returncode(), Some(4));
        assert_eq!(process.wait().await?, 4);
        assert!(process.pid() > 0);
        Ok(())
    });
}

/// PRH-002
fn no_input_and_empty_input_close_standard_input(place: Place) {
    place.event_loop().run(async {
        assert_eq!(cat().await?.communicate(None).await?, (Some(Vec::new()), None));
        assert_eq!(cat().await?.communicate("").await?, (Some(Vec::new()), None));
        assert_eq!(cat().await?.communicate(Vec::new()).await?, (Some(Vec::new()), None));
        Ok(())
    });
}

/// PRH-003
fn without_pipes_there_are_no_streams(place: Place) {
    place.event_loop().run(async {
        let mut process = asyncio::create_subprocess_shell("exit 2").await?;
        assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
        assert_eq!(process.communicate(None).await?, (None, None));
        assert_eq!(process.returncode(), Some(2));
        Ok(())
    });
}

/// PRH-004
fn input_without_a_pipe_is_ignored(place: Place) {
    place.event_loop().run(async {
        let mut process = asyncio::create_subprocess_shell("echo a").stdin(DEVNULL).stdout(PIPE).await?;
        assert!(process.stdin.is_none() && process.stderr.is_none());
        assert_eq!(process.communicate("ignored").await?, (Some(b"a\n".to_vec()), None));
        Ok(())
    });
}

/// PRH-005
fn much_input_comes_back(place: Place) {
    place.event_loop().run(async {
        for size in [65_536, 65_537, 1_000_000, 3_000_000] {
            let input: Vec<u8> = (0..size).map(|number| ((number * 7) >> 3) as u8).collect();
            let (stdout, _) = cat().await?.communicate(&input).await?;
            assert!(stdout.unwrap() == input);
        }
        Ok(())
    });
}

/// PRH-006
fn an_input_that_nobody_reads_is_no_error(place: Place) {
    place.event_loop().run(async {
        let mut process = shell("exit 0").await?;
        assert_eq!(process.communicate(vec![b'x'; 3_000_000]).await?, (Some(Vec::new()), Some(Vec::new())));
        assert_eq!(process.returncode(), Some(0));
        // Nor where it has ended long before.
        let mut process = shell("exec 0<&-; exit 3").await?;
        process.wait().await?;
        process.communicate(vec![b'x'; 3_000_000]).await?;
        assert_eq!(process.returncode(), Some(3));
        Ok(())
    });
}

/// PRH-007
fn many_may_wait(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let process = shell("exit 5").await?;
        process.wait().await?;
        let codes = join_all((0..10).map(|_| process.wait())).await;
        assert!(codes.into_iter().all(|code| code.unwrap() == 5));
        let mut process = shell("read line; exit 6").await?;
        let stdin = process.stdin.take().unwrap();
        let process = std::rc::Rc::new(process);
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let process = process.clone();
                asyncio::create_task(async move { process.wait().await })
            })
            .collect();
        asyncio::sleep(Duration::ZERO).await?;
        assert!(tasks.iter().all(|task| !task.done()));
        stdin.write("go\n")?;
        for task in tasks {
            assert_eq!(task.await?, 6);
        }
        Ok(())
    });
}

/// PRH-008
fn a_cancelled_wait_can_be_done_again(place: Place) {
    place.event_loop().run(async {
        let process = std::rc::Rc::new(asyncio::create_subprocess_exec(["sleep", "1000"]).await?);
        let waiting = process.clone();
        let task = asyncio::create_task(async move { waiting.wait().await });
        asyncio::sleep(Duration::ZERO).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(process.returncode(), None);
        process.kill()?;
        assert_eq!(process.wait().await?, -9);
        Ok(())
    });
}

/// PRH-010
fn streams_write_and_read(place: Place) {
    place.event_loop().run(async {
        let mut process = cat().await?;
        let stdin = process.stdin.take().unwrap();
        stdin.write("some data")?;
        stdin.drain().await?;
        stdin.close();
        stdin.wait_closed().await?;
        assert_eq!(process.stdout.as_mut().unwrap().read(None).await?, b"some data");
        assert_eq!(process.wait().await?, 0);
        Ok(())
    });
}

/// PRH-012
fn a_slow_reader_gets_every_byte_after_the_end(place: Place) {
    place.event_loop().run(async {
        let command = "head -c 262144 /dev/zero; exit 1";
        let mut process = asyncio::create_subprocess_shell(command).stdout(PIPE).await?;
        let mut all = 0;
        loop {
            asyncio::sleep(Duration::from_millis(300)).await?;
            let piece = process.stdout.as_mut().unwrap().read(150_000).await?;
            if piece.is_empty() {
                break;
            }
            all += piece.len();
        }
        assert_eq!((all, process.wait().await?), (262_144, 1));
        Ok(())
    });
}

/// PRH-013
fn wait_does_not_wait_for_inherited_pipes(place: Place) {
    place.event_loop().run(async {
        let mut process = asyncio::create_subprocess_shell("sleep 0.6 & exit 3").stdout(PIPE).await?;
        let begin = Instant::now();
        assert_eq!(process.wait().await?, 3);
        assert!(begin.elapsed() < Duration::from_millis(400), "{:?}", begin.elapsed());
        // The pipe ends with its last holder.
        assert_eq!(process.stdout.as_mut().unwrap().read(None).await?, b"");
        assert!(begin.elapsed() > Duration::from_millis(400));
        Ok(())
    });
}

/// asyncio's `limit`.
fn a_limit_is_for_lines(place: Place) {
    let event_loop = place.event_loop();
    event_loop.run(async {
        let command = "echo short; echo a line that is too long";
        let mut process = asyncio::create_subprocess_shell(command).stdout(PIPE).limit(10).await?;
        let stdout = process.stdout.as_mut().unwrap();
        assert_eq!(stdout.readline().await?, b"short\n");
        assert_eq!(stdout.readline().await.unwrap_err().kind(), ErrorKind::Value);
        process.wait().await?;
        // What communicate reads has none.
        let mut process = asyncio::create_subprocess_shell("head -c 100000 /dev/zero").stdout(PIPE).limit(10).await?;
        assert_eq!(process.communicate(None).await?.0.unwrap().len(), 100_000);
        Ok(())
    });
    let error = event_loop.fails(asyncio::create_subprocess_exec("true").limit(0));
    assert_eq!(error.kind(), ErrorKind::Value);
}

/// The two are independent.
fn lines_of_both_streams_are_read_at_once(place: Place) {
    place.event_loop().run(async {
        let mut process = shell("for n in 1 2 3; do read line; echo out $line; echo err $n >&2; done").await?;
        let stdin = process.stdin.take().unwrap();
        let (mut stdout, mut stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        for n in 1..=3 {
            stdin.write(format!("{}\n", n * 10))?;
            let lines = futures::future::try_join(stdout.readline(), stderr.readline()).await?;
            assert_eq!(lines, (format!("out {}\n", n * 10).into_bytes(), format!("err {n}\n").into_bytes()));
        }
        assert_eq!((stdout.readline().await?, stderr.readline().await?), (Vec::new(), Vec::new()));
        assert_eq!(process.wait().await?, 0);
        Ok(())
    });
}

/// asyncio's default: inherited, or what the command was given.
fn a_command_keeps_its_own_streams(place: Place) {
    place.event_loop().run(async {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo out; echo err >&2"]).stdout(std::process::Stdio::piped());
        let mut process = asyncio::create_subprocess_exec(command).stderr(STDOUT).await?;
        assert!(process.stdin.is_none() && process.stderr.is_none());
        assert_eq!(process.communicate(None).await?, (Some(b"out\nerr\n".to_vec()), None));
        Ok(())
    });
}

/// Its cancel safety.
fn a_cancelled_communicate_can_be_done_again(place: Place) {
    place.event_loop().run(async {
        let mut process = shell("echo first; read line; echo second").await?;
        let stdin = process.stdin.take().unwrap();
        let limited = asyncio::timeout(Duration::from_millis(50), process.communicate(None)).await;
        assert_eq!(limited.unwrap_err().kind(), ErrorKind::Timeout);
        stdin.write("go\n")?;
        let (stdout, _) = process.communicate(None).await?;
        assert_eq!(stdout.unwrap(), b"first\nsecond\n");
        assert_eq!(process.returncode(), Some(0));
        Ok(())
    });
}

/// Bytes, texts, and nothing.
fn the_kinds_of_input(place: Place) {
    place.event_loop().run(async {
        let text = String::from("text");
        let outputs = [
            cat().await?.communicate(b"text").await?,
            cat().await?.communicate(&b"text"[..]).await?,
            cat().await?.communicate(b"text".to_vec()).await?,
            cat().await?.communicate(&b"text".to_vec()).await?,
            cat().await?.communicate(Some(b"text".to_vec())).await?,
            cat().await?.communicate(&text).await?,
            cat().await?.communicate(text).await?,
        ];
        assert!(outputs.into_iter().all(|(stdout, _)| stdout.unwrap() == b"text"));
        Ok(())
    });
}

/// PRC-007 and PRC-008, with streams.
fn signals_and_their_errors(place: Place) {
    place.event_loop().run(async {
        let sleep = || IntoFuture::into_future(asyncio::create_subprocess_exec(["sleep", "1000"]));
        let process = sleep().await?;
        process.terminate()?;
        assert_eq!(process.wait().await?, -15);
        let process = sleep().await?;
        process.send_signal(asyncio::Signal::Hup)?;
        assert_eq!(process.wait().await?, -1);
        for sent in [process.kill(), process.terminate(), process.send_signal(1)] {
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::ProcessLookup);
        }
        assert!(format!("{process:?}").contains(&process.pid().to_string()));
        Ok(())
    });
}

/// PRC-015, with streams.
fn what_cannot_be_started_is_an_error(place: Place) {
    let event_loop = place.event_loop();
    let error = event_loop.fails(asyncio::create_subprocess_exec("/no/such/program").stdout(PIPE));
    assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/program"));
    let mistake = asyncio::create_subprocess_exec("true").kill_on_drop(Duration::ZERO).process_group(1);
    assert_eq!(event_loop.fails(mistake).kind(), ErrorKind::Value);
    let outside = futures::executor::block_on(IntoFuture::into_future(asyncio::create_subprocess_exec("true")));
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::Runtime);
}

/// A `Process` is `Send`.
fn waiting_works_on_other_threads(place: Place) {
    place.event_loop().run(async {
        let process = asyncio::create_subprocess_exec(["sleep", "1000"]).await?;
        let code = asyncio::to_thread(move || {
            process.kill()?;
            futures::executor::block_on(process.wait())
        });
        assert_eq!(code.await?, -9);
        Ok(())
    });
}

/// Nobody waits for ever.
fn a_closed_loop_ends_those_who_wait(place: Place) {
    let event_loop = place.event_loop();
    let process = event_loop.run(asyncio::create_subprocess_exec(["sleep", "1000"]));
    let waiter = std::thread::spawn(move || {
        let result = futures::executor::block_on(process.wait());
        (result, process)
    });
    event_loop.close().unwrap();
    let (result, process) = waiter.join().unwrap();
    assert!(matches!(&result, Ok(-9)) || result.unwrap_err().kind() == ErrorKind::Runtime);
    assert!(process.kill().is_err());
}
