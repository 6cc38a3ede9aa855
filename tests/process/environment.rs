//! What these tests show: programs, their arguments, environments, directories and descriptors.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use asyncio::subprocess::Program;

use crate::{Log, Place, Recorder, output, support::loops::TestLoop};

on_each_watcher! {
    a_program_can_be_given_in_many_ways
    variables_and_directory_are_set
    an_empty_environment_is_empty
    a_variable_can_be_taken_away
    an_executable_runs_under_another_name
    the_shell_can_be_another_one
    only_the_listed_descriptors_stay_open
    descriptors_keep_their_numbers
    all_other_descriptors_can_be_closed
    sigpipe_is_restored_unless_said_otherwise
    arguments_are_passed_as_they_are
}

fn run(event_loop: &TestLoop, program: impl Into<Program>) -> String {
    let log = Log::default();
    let recorder = Recorder::new(&log);
    event_loop.run(event_loop.subprocess_exec(|| recorder, program).stdin(asyncio::subprocess::DEVNULL));
    event_loop.until(|| log.lost());
    log.text(1)
}

/// Names, paths, lists of words, and a command of the standard library.
fn a_program_can_be_given_in_many_ways(place: Place) {
    let event_loop = place.event_loop();
    let shell = Path::new("/bin/echo");
    let name = "echo".to_owned();
    let (path, words, list) = (PathBuf::from(shell), ["echo", "one", "two"], vec!["echo", "four"]);
    assert_eq!(run(&event_loop, "echo"), "\n");
    assert_eq!(run(&event_loop, &name), "\n");
    assert_eq!(run(&event_loop, name), "\n");
    assert_eq!(run(&event_loop, OsStr::new("echo")), "\n");
    assert_eq!(run(&event_loop, OsString::from("echo")), "\n");
    assert_eq!(run(&event_loop, shell), "\n");
    assert_eq!(run(&event_loop, shell.to_owned()), "\n");
    assert_eq!(run(&event_loop, &path), "\n");
    assert_eq!(run(&event_loop, ["echo", "one"]), "one\n");
    assert_eq!(run(&event_loop, words), "one two\n");
    assert_eq!(run(&event_loop, vec!["echo".to_owned(), "three".to_owned()]), "three\n");
    assert_eq!(run(&event_loop, &list), "four\n");
    assert_eq!(run(&event_loop, &["echo", "five"][..]), "five\n");
    let mut command = std::process::Command::new("echo");
    command.arg("six");
    assert_eq!(run(&event_loop, command), "six\n");
}

/// PRC-017
fn variables_and_directory_are_set(place: Place) {
    let event_loop = place.event_loop();
    let (text, _) =
        output(&event_loop, "echo $FOO$BAR; pwd", |builder| builder.env("FOO", "sp").env("BAR", "am").cwd("/"));
    assert_eq!(text, "spam\n/\n");
    let variables = [("FOO", "ha"), ("BAR", "m")];
    let (text, _) = output(&event_loop, "echo $FOO$BAR; echo ${PATH:+path}", |builder| builder.envs(variables));
    assert_eq!(text, "ham\npath\n", "the others stay");
}

/// PRC-017
fn an_empty_environment_is_empty(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let builder = event_loop.subprocess_exec(|| recorder, "/usr/bin/env").env("A", "gone").env_clear();
    event_loop.run(builder);
    event_loop.until(|| log.lost());
    assert_eq!((log.text(1), log.text(2)), (String::new(), String::new()));
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let builder = event_loop.subprocess_exec(|| recorder, "/usr/bin/env").env_clear().env("B", "stays");
    event_loop.run(builder);
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "B=stays\n");
}

/// A neighbour of PRC-017.
fn a_variable_can_be_taken_away(place: Place) {
    let event_loop = place.event_loop();
    let (text, _) = output(&event_loop, "echo \"<$HOME>\"", |builder| builder.env("HOME", "x").env_remove("HOME"));
    assert_eq!(text, "<>\n");
}

/// PRC-018
fn an_executable_runs_under_another_name(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let words = ["a name of its own", "-c", "echo $0; exit 4"];
    let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, words).executable("/bin/sh"));
    event_loop.until(|| log.lost());
    assert_eq!((log.text(1).trim(), transport.get_returncode()), ("a name of its own", Some(4)));
}

/// As subprocess.Popen does with `executable` and `shell`.
fn the_shell_can_be_another_one(place: Place) {
    let event_loop = place.event_loop();
    let (text, _) = output(&event_loop, "echo $0", |builder| builder.executable("/bin/bash"));
    assert_eq!(text, "/bin/bash\n");
    let (text, _) = output(&event_loop, "echo $0", |builder| builder);
    assert_eq!(text, "/bin/sh\n");
}

/// PRC-019
fn only_the_listed_descriptors_stay_open(place: Place) {
    let event_loop = place.event_loop();
    let (listed, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    // One that is not closed at exec is, too.
    rustix::io::fcntl_setfd(&other, rustix::io::FdFlags::empty()).unwrap();
    let (one, two) = (listed.as_raw_fd(), other.as_raw_fd());
    let command =
        format!("for fd in {one} {two}; do if [ -e /proc/self/fd/$fd ]; then echo open; else echo closed; fi; done");
    let (text, _) = output(&event_loop, &command, |builder| builder.pass_fds([&listed]));
    assert_eq!(text, "open\nclosed\n");
    let (text, _) = output(&event_loop, &command, |builder| builder.pass_fds([listed.as_fd(), other.as_fd()]));
    assert_eq!(text, "open\nopen\n");
    let nothing: [&std::fs::File; 0] = [];
    let (text, _) = output(&event_loop, &command, |builder| builder.pass_fds(nothing));
    assert_eq!(text, "closed\nclosed\n");
    let flags = rustix::io::fcntl_getfd(&listed).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "here nothing has changed");
}

/// A neighbour of PRC-019: what was written there by the child is read here.
fn descriptors_keep_their_numbers(place: Place) {
    let event_loop = place.event_loop();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let command = format!("sh -c 'echo through the pipe > /proc/self/fd/{}'", writer.as_raw_fd());
    let (_, returncode) = output(&event_loop, &command, |builder| builder.pass_fds([&writer]));
    assert_eq!(returncode, Some(0));
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut text).unwrap();
    assert_eq!(text, "through the pipe\n");
}

/// asyncio's `close_fds`.
fn all_other_descriptors_can_be_closed(place: Place) {
    let event_loop = place.event_loop();
    let file = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let command = format!("[ -e /proc/self/fd/{} ] && echo open || echo closed", file.as_raw_fd());
    let (text, _) = output(&event_loop, &command, |builder| builder.close_fds(true));
    assert_eq!(text, "closed\n");
    let (text, _) = output(&event_loop, &command, |builder| builder.close_fds(false));
    assert_eq!(text, "open\n");
}

/// asyncio's `restore_signals`, and its default.
fn sigpipe_is_restored_unless_said_otherwise(place: Place) {
    let event_loop = place.event_loop();
    // SIGPIPE is the 13th: 0x1000 in the mask of those that are ignored.
    let ignored = |with: fn(crate::Builder) -> crate::Builder| {
        let (text, _) = output(&event_loop, "grep SigIgn /proc/self/status", with);
        let mask = u64::from_str_radix(text.split_whitespace().last().unwrap(), 16).unwrap();
        mask & 0x1000 != 0
    };
    assert!(!ignored(|builder| builder));
    assert!(!ignored(|builder| builder.restore_signals(true)));
    assert!(ignored(|builder| builder.restore_signals(false)));
}

/// Nothing is split or interpreted.
fn arguments_are_passed_as_they_are(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let builder = event_loop
        .subprocess_exec(|| recorder, ["printf", "<%s>"])
        .arg("two words")
        .args(["$HOME", "*", "", "-x"])
        .arg(Path::new("/a path"));
    event_loop.run(builder);
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "<two words><$HOME><*><><-x></a path>");
}
