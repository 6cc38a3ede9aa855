//! Standard input and output of programs: the tests here run themselves as children.

use std::{
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
};

use asyncio::{EventLoopBuilder, Protocol, Transport};

use crate::{
    Ignore, LARGE, duplicate, epoll, is_nonblocking, pipe, polling,
    support::{deadline, transports::pattern},
};

/// Set in children, to the name of the test that they are to be.
const CHILD: &str = "ASYNCIO_TEST_PIPES_CHILD";

/// What a child writes to standard output before and after what the test wants: the harness writes there too.
const FRAME: &[u8] = b"<frame>";

mod epoll_selector {
    use super::*;

    #[test]
    fn an_input_that_never_ends_does_not_delay_the_exit() {
        check_exit("processes::epoll_selector::an_input_that_never_ends_does_not_delay_the_exit", epoll);
    }

    #[test]
    fn a_filter_between_standard_input_and_output() {
        check_filter("processes::epoll_selector::a_filter_between_standard_input_and_output", epoll);
    }

    #[test]
    fn the_mode_of_an_input_that_is_shared_is_given_back() {
        check_mode("processes::epoll_selector::the_mode_of_an_input_that_is_shared_is_given_back", epoll);
    }
}

mod polling_selector {
    use super::*;

    #[test]
    fn an_input_that_never_ends_does_not_delay_the_exit() {
        check_exit("processes::polling_selector::an_input_that_never_ends_does_not_delay_the_exit", polling);
    }

    #[test]
    fn a_filter_between_standard_input_and_output() {
        check_filter("processes::polling_selector::a_filter_between_standard_input_and_output", polling);
    }

    #[test]
    fn the_mode_of_an_input_that_is_shared_is_given_back() {
        check_mode("processes::polling_selector::the_mode_of_an_input_that_is_shared_is_given_back", polling);
    }
}

fn is_child(name: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|child| child == name)
}

/// Runs the test with this full name once more, alone in a child.
fn child(name: &str, stdin: impl Into<Stdio>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command.stdin(stdin).stdout(Stdio::piped()).spawn().unwrap()
}

fn stdin() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

/// As `asyncio::run` on a loop of this kind: closes it in every case.
fn run<T>(builder: fn() -> EventLoopBuilder, main: impl AsyncFnOnce() -> asyncio::Result<T>) -> T {
    let mut runner = asyncio::Runner::new().loop_factory(move || builder().build());
    let result = runner.run(main()).unwrap();
    runner.close().unwrap();
    result
}

/// PIP-001, and that the end does not wait for a reader: no thread waits for the input.
fn check_exit(name: &str, builder: fn() -> EventLoopBuilder) {
    let _deadline = deadline();
    if is_child(name) {
        return run(builder, async || {
            let event_loop = asyncio::get_running_loop()?;
            let (transport, _) = event_loop.connect_read_pipe(|| Ignore, stdin()).await?;
            assert!(transport.is_reading());
            Ok(())
        });
    }
    // The child has nothing to read and no end, for as long as it runs.
    let (reader, writer) = pipe();
    let output = child(name, duplicate(&reader)).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!is_nonblocking(&reader), "who shares the input finds it as before");
    drop(writer);
}

/// Writes what it reads to another transport, upside down, and stops reading while that one has enough.
struct Invert {
    input: Option<Transport>,
    output: Transport,
}

impl Protocol for Invert {
    fn connection_made(&mut self, transport: &Transport) {
        self.input = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        let inverted: Vec<u8> = data.iter().map(|byte| !byte).collect();
        self.output.write(&inverted);
    }

    fn connection_lost(&mut self, _error: Option<&asyncio::Error>) {
        self.input = None;
        self.output.write(FRAME);
        self.output.write_eof().unwrap();
    }
}

/// Completes a future when everything has been written.
struct Written(asyncio::Future<()>);

impl Protocol for Written {
    fn data_received(&mut self, _data: &[u8]) {}

    fn connection_lost(&mut self, error: Option<&asyncio::Error>) {
        assert!(error.is_none(), "{error:?}");
        self.0.set_result(()).unwrap();
    }
}

/// PIP-002, PIP-010: a megabyte from a writer that waits for its reader.
fn check_filter(name: &str, builder: fn() -> EventLoopBuilder) {
    let _deadline = deadline();
    if is_child(name) {
        return run(builder, async || {
            let event_loop = asyncio::get_running_loop()?;
            let written = event_loop.create_future();
            let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
            let writes = Written(written.clone());
            let (output, _) = event_loop.connect_write_pipe(|| writes, stdout).await?;
            output.write(FRAME);
            event_loop.connect_read_pipe(|| Invert { input: None, output }, stdin()).await?;
            written.await
        });
    }
    let mut child = child(name, Stdio::piped());
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writer = thread::spawn(move || stdin.write_all(&pattern(LARGE)).unwrap());
    let mut all = Vec::new();
    stdout.read_to_end(&mut all).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    let places: Vec<usize> = (0..all.len() - FRAME.len()).filter(|place| all[*place..].starts_with(FRAME)).collect();
    let [first, last] = places[..] else { panic!("{places:?}") };
    let inverted: Vec<u8> = pattern(LARGE).iter().map(|byte| !byte).collect();
    assert!(all[first + FRAME.len()..last] == inverted);
}

/// PIP-001: while the child reads it is non-blocking, and afterwards as before, for everybody.
fn check_mode(name: &str, builder: fn() -> EventLoopBuilder) {
    let _deadline = deadline();
    if is_child(name) {
        return run(builder, async || {
            let event_loop = asyncio::get_running_loop()?;
            let ended = event_loop.create_future();
            let reads = Written(ended.clone());
            assert!(!is_nonblocking(std::io::stdin()));
            event_loop.connect_read_pipe(|| reads, stdin()).await?;
            assert!(is_nonblocking(std::io::stdin()));
            std::io::stdout().write_all(FRAME)?;
            std::io::stdout().flush()?;
            ended.await?;
            assert!(!is_nonblocking(std::io::stdin()));
            Ok(())
        });
    }
    let (reader, writer) = pipe();
    let mut child = child(name, duplicate(&reader));
    let (mut stdout, mut got) = (child.stdout.take().unwrap(), Vec::new());
    while !got.ends_with(FRAME) {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        got.extend(byte);
    }
    assert!(is_nonblocking(&reader));
    drop(writer);
    stdout.read_to_end(&mut got).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!is_nonblocking(&reader));
}
