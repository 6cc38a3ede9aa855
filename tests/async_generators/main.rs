//! Async generators, iterated, closed, dropped and shut down; and staggered races.
#[path = "../support/mod.rs"]
mod support;

mod closing;
mod dropping;
mod iterating;
mod shutdown;
mod staggered;
