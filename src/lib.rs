//! asyncio for Rust.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod clock;
mod combine;
mod constants;
mod context;
mod error;
mod event_loop;
mod executor;
mod future;
mod net;
mod report;
mod runner;
mod signals;
mod sys;
mod task;

pub use crate::{
    clock::{Clock, MonotonicClock, VirtualClock},
    combine::{
        cancellable::{Cancellable, cancellable},
        sleep::{Sleep, sleep, sleep_until},
        to_thread::to_thread,
    },
    context::{Context, ContextVar, Token, copy_context},
    error::{Cancelled, Error, ErrorKind, IoError, ResolveError, Result, Text, ok},
    event_loop::{
        EventLoop, EventLoopBuilder,
        any_task::AnyTask,
        exceptions::{ExceptionContext, ExceptionHandler},
        handle::{AnyHandle, Handle, TimerHandle},
        running::{get_event_loop, get_running_loop, new_event_loop, set_event_loop},
        threadsafe::ThreadsafeLoop,
        threadsafe_future::{ThreadsafeFuture, ThreadsafeSetter},
    },
    future::{CallbackToken, Future, SharedFuture, wrap::wrap_future},
    net::resolve::GetAddrInfo,
    report::AnyFuture,
    runner::{Runner, block_on, run},
    sys::{
        addr::{Address, Endpoint, Port, ToAddress},
        resolve::{AddrInfo, AddrInfoHints, Resolver, SystemResolver, flags as socket},
        signal::{Signal, ToSignal},
        thread_pool::{Executor, Job, ThreadPool},
    },
    task::{
        SharedTask, Task, TaskOutcome,
        request::{
            Coroutine, TaskBuilder, TaskFactory, TaskRequest, all_tasks, create_task, current_task, eager_task_factory,
            ensure_future,
        },
        threadsafe::{IntoCoroutine, IsClosure, IsFuture, run_coroutine_threadsafe},
    },
};

/// What a loop waits with, and what a selector of one's own is made of.
pub mod selector {
    #[cfg(target_os = "linux")]
    pub use crate::sys::epoll::EpollSelector;
    pub use crate::sys::{
        park::ParkSelector,
        poll::PollingSelector,
        selector::{Event, Interest, Mode, Selector, SelectorWaker},
    };
}

/// The traits, `Result`, `Error` and the free functions.
pub mod prelude {
    pub use crate::{Clock, Error, Executor, Resolver, Result, ToAddress, ToSignal};
}

/// The README's program is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
