//! Tasks and callbacks among themselves: spawn_join, yield, yield_alone, callback, oneshot.

mod support;

fn main() {
    support::run_criterion(support::tasks::GROUPS);
}
