//! What a process has once: its main thread, and its children by fork. Each test has a process of its own.
#[path = "../support/main_thread.rs"]
mod main_thread;
#[path = "../support/signals.rs"]
mod signals;
#[path = "../support/mod.rs"]
mod support;

mod current_loop;
mod forked;

fn main() -> std::process::ExitCode {
    main_thread::main(&[current_loop::TESTS, forked::TESTS])
}
