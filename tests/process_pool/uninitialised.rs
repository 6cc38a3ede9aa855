//! What these tests show: a program that forgot `ProcessPool::init` is told so.

use std::{
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use asyncio::{ErrorKind, ProcessPool};

use crate::main_thread::tests;

tests! { without_init_there_is_an_error_and_no_process }

/// The first argument of the program that forgets.
pub(crate) const ARGUMENT: &str = "--without-init";

pub(crate) fn run() -> ExitCode {
    let error = ProcessPool::new(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    println!("{error}");
    ExitCode::from(42)
}

fn without_init_there_is_an_error_and_no_process() {
    let begin = Instant::now();
    let program = Command::new(std::env::current_exe().unwrap()).arg(ARGUMENT).stderr(Stdio::inherit()).output();
    let output = program.unwrap();
    assert_eq!(output.status.code(), Some(42));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "asyncio::ProcessPool::init() was not called: it must be the first thing in main\n");
    assert!(begin.elapsed().as_secs() < 20);
}
