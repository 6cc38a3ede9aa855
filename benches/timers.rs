//! Timers: timer_fire (cost), timer_lateness (how late they are), timer_cancel.

mod support;

fn main() {
    support::run_criterion(support::timers::GROUPS);
    support::run_criterion(&[support::timers::TIMER_LATENESS]);
}
