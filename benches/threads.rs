//! The loop and other threads: threadsafe_wake, executor_1, executor_1000.

mod support;

fn main() {
    support::run_criterion(support::threads::GROUPS);
}
