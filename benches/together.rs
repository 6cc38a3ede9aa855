//! Tasks put together, locks and queues: task_group, gather, lock, semaphore, event, queue, queue_burst, timeout.

mod support;

fn main() {
    support::run_criterion(support::together::GROUPS);
}
