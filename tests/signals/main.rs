//! Signals as callbacks of a loop. Each test has a process of its own and its main thread.
#[path = "../support/main_thread.rs"]
mod main_thread;
#[path = "../support/signals.rs"]
mod signals;
#[path = "../support/mod.rs"]
mod support;

mod delivery;
mod forked;
mod handlers;
mod several_loops;

fn main() -> std::process::ExitCode {
    main_thread::main(&[handlers::TESTS, delivery::TESTS, several_loops::TESTS, forked::TESTS])
}
