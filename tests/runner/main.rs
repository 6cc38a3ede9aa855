//! Entering the loop: `run`, `Runner`, `block_on`, `run_until_complete`. Each test has a process of its own and its main
//! thread, for SIGINT and the environment are the process's.
#[path = "../support/main_thread.rs"]
mod main_thread;
#[path = "../support/signals.rs"]
mod signals;
#[path = "../support/mod.rs"]
mod support;

mod block_on;
mod graceful;
mod in_place;
mod interrupt;
mod leftovers;
mod run;
mod runner;

fn main() -> std::process::ExitCode {
    main_thread::main(&[
        run::TESTS,
        runner::TESTS,
        leftovers::TESTS,
        interrupt::TESTS,
        graceful::TESTS,
        block_on::TESTS,
        in_place::TESTS,
    ])
}
