//! Subprocesses: spawn_and_wait (wall and CPU time), spawn_many, process_output.

mod support;

fn main() {
    support::run_criterion(support::processes::GROUPS);
}
