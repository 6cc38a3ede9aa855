//! Context variables, the exception handler, debug mode.
#[path = "../support/mod.rs"]
mod support;

mod debug;
mod reports;
mod scheduling;
mod variables;
