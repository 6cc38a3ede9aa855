//! A Rust-native async executor with the semantics of Python's asyncio event loop.
//!
//! A coroutine is any std future whose output is this crate's [`Result`]; everything asyncio can wait for is a std
//! future. Cancellation arrives at the await that a task is suspended in and can be handled there; tasks need not be
//! `Send`, their handles are; what fails and is not looked at is reported.
//!
//! ```
//! use std::time::Duration;
//!
//! async fn greet(name: &str, delay: Duration) -> asyncio::Result<String> {
//!     asyncio::sleep(delay).await?;
//!     Ok(format!("hello {name}"))
//! }
//!
//! fn main() -> asyncio::Result<()> {
//!     asyncio::run(async {
//!         let task = asyncio::create_task(greet("task", Duration::from_millis(2)));
//!         println!("{}", greet("main", Duration::from_millis(1)).await?);
//!         println!("{}", task.await?);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Where things are
//!
//! | for | look at |
//! |---|---|
//! | entering | [`run`], [`Runner`], [`block_on`], [`EventLoop::run_until_complete`] |
//! | several cores | [`run_workers`], [`Worker`], [`reuse_port`](CreateServer::reuse_port) |
//! | the loop | [`EventLoop`], [`new_event_loop`], [`get_running_loop`], [`EventLoop::builder`] |
//! | scheduling | [`EventLoop::call_soon`], [`EventLoop::call_later`], [`Handle`], [`TimerHandle`] |
//! | tasks | [`create_task`], [`Task`], [`AnyTask`], [`current_task`], [`all_tasks`], [`EventLoop::set_task_factory`] |
//! | results | [`Future`], [`SharedFuture`], [`sleep`], [`cancellable`] |
//! | tasks together | [`TaskGroup`], [`gather`], [`wait`], [`as_completed`], [`shield`], [`staggered_race`], [`ExceptionGroup`] |
//! | async generators | [`async_generator`], [`AsyncGenerator`], [`Yielder`], [`EventLoop::shutdown_asyncgens`] |
//! | time limits | [`timeout`], [`timeout_at`], [`wait_for`], [`Timeout`], [`Task::cancel_with_grace`], [`shielded`] |
//! | waiting for each other | [`Lock`], [`Event`], [`Condition`], [`Semaphore`], [`BoundedSemaphore`], [`Barrier`] |
//! | queues | [`Queue`], [`LifoQueue`], [`PriorityQueue`] |
//! | other threads | [`ThreadsafeLoop`], [`ThreadsafeFuture`], [`to_thread`], [`EventLoop::run_in_executor`] |
#![cfg_attr(feature = "process-pool", doc = "| other processes | [`ProcessPool`] |")]
//! | connections | [`EventLoop::create_connection`], [`EventLoop::create_unix_connection`], [`Transport`], [`Protocol`], [`BufferedProtocol`] |
//! | streams | [`open_connection`], [`start_server`], [`StreamReader`], [`StreamWriter`], [`Stream`], [`open_read_pipe`] |
//! | servers | [`EventLoop::create_server`], [`EventLoop::create_unix_server`], [`Server`], [`EventLoop::connect_accepted_socket`] |
#![cfg_attr(feature = "tls", doc = "| TLS | [`SslContext`], [`CreateServer::ssl`], [`EventLoop::start_tls`] |")]
//! | datagrams | [`EventLoop::create_datagram_endpoint`], [`DatagramTransport`], [`DatagramProtocol`] |
#![cfg_attr(feature = "hyper", doc = "| hyper | [`hyper_rt::Timer`], [`hyper_rt::Executor`], [`Stream`] |")]
#![cfg_attr(feature = "tokio-compat", doc = "| crates for tokio | [`tokio_compat`], [`Stream`] |")]
//! | subprocesses | [`create_subprocess_exec`], [`create_subprocess_shell`], [`subprocess::Process`], [`EventLoop::subprocess_exec`], [`EventLoop::subprocess_shell`], [`SubprocessProtocol`] |
//! | pipes, files | [`EventLoop::connect_read_pipe`], [`EventLoop::connect_write_pipe`], [`EventLoop::sendfile`], [`EventLoop::sock_sendfile`] |
//! | sockets | [`EventLoop::sock_recv`] and its kin, [`EventLoop::add_reader`], [`EventLoop::getaddrinfo`] |
//! | signals | [`EventLoop::add_signal_handler`] |
//! | contexts | [`ContextVar`], [`Context`], [`copy_context`] |
//! | failures | [`Error`], [`EventLoop::set_exception_handler`], [`EventLoop::set_debug`] |
//! | tests of one's own | [`VirtualClock`], [`selector`] |
//!
//! # Inside
//!
//! Modules stand in levels; each names itself and lower ones.
//!
//! | level | module | what |
//! |--:|---|---|
//! | 8 | `runner`, `workers`, `stopping`, `subprocess` | `run`, `Runner`, `block_on`; `run_workers`; what signals do to a run; `Process` |
//! |   | `hyper_rt`, `tokio_compat` | streams, timers and tasks by the traits of others |
//! | 7 | `streams` | `StreamReader`, `StreamWriter`, `open_connection`, `start_server` |
//! | 6 | `net` | openers of transports, servers, files, plain sockets, names |
//! |   | `process` | subprocess transports, how they are started, who learns that a child ended |
//! | 5 | `combine` | sleep, timeouts, groups, `gather` and its kin, generators, `to_thread` |
//! |   | `sync` | locks, events, conditions, semaphores, barriers, queues |
//! |   | `endpoints` | transports over descriptors |
//! |   | `tls` | TLS over any transport; the library behind a trait |
//! | 4 | `task`, `executor`, `process_pool` | `Task`, `run_until_complete`; `run_in_executor`; `ProcessPool` |
//! | 3 | `future`, `signals` | `Future`; `add_signal_handler` |
//! |   | `transport` | handles, protocols, water marks, bytes waiting to go |
//! | 2 | `event_loop` | what runs next, when to sleep, who is cancelled |
//! | 1 | `sys` | the system; `unsafe` lives here and in `event_loop/step.rs`, nowhere else |
//! | 0 | `error`, `constants`, `clock`, `context`, `report` | words everybody uses |
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod clock;
mod combine;
mod constants;
mod context;
mod endpoints;
mod error;
mod event_loop;
mod executor;
mod future;
#[cfg(feature = "hyper")]
pub mod hyper_rt;
mod net;
mod process;
#[cfg(feature = "process-pool")]
mod process_pool;
mod report;
mod runner;
mod signals;
mod stopping;
mod streams;
pub mod subprocess;
mod sync;
mod sys;
mod task;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tokio-compat")]
pub mod tokio_compat;
mod transport;
mod workers;

pub use crate::{
    clock::{Clock, MonotonicClock, VirtualClock},
    combine::{
        as_completed::{AsCompleted, Completed, CompletedIter, CompletedIterMut, NextCompleted, as_completed},
        async_generator::{AsyncGenerator, Sending, Yielder, async_generator},
        cancellable::{Cancellable, cancellable},
        child::Waitable,
        gather::{Gather, GatherResults, Gathering, gather},
        gather_args::GatherArgs,
        shield::{Shield, TaskShield, shield},
        shielded::{Shielded, shielded},
        sleep::{Sleep, sleep, sleep_until},
        staggered::{RaceOutcome, staggered_race},
        task_group::{GroupTaskBuilder, TaskGroup, TaskGroupBuilder},
        timeout::{Timeout, TimeoutFuture, timeout, timeout_at, wait_for},
        to_thread::to_thread,
        wait::{ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, ReturnWhen, Wait, Waiting, wait},
    },
    context::{Context, ContextVar, Token, copy_context},
    error::{
        Cancelled, Canceller, Error, ErrorKind, ExceptionGroup, IncompleteReadError, IoError, LimitOverrunError,
        ResolveError, Result, Text, ok,
    },
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        builder::EventLoopBuilder,
        exceptions::{ExceptionContext, ExceptionHandler},
        handle::{AnyHandle, Handle, TimerHandle},
        running::{get_event_loop, get_running_loop, new_event_loop, set_event_loop},
        threadsafe::ThreadsafeLoop,
        threadsafe_future::{ThreadsafeFuture, ThreadsafeSetter},
    },
    future::{Future, callbacks::CallbackToken, shared::SharedFuture, wrap::wrap_future},
    net::{
        connect::{ConnectAcceptedSocket, CreateConnection},
        datagram::CreateDatagramEndpoint,
        listen::CreateServer,
        open::OpenStream,
        resolve::GetAddrInfo,
        sendfile::{
            Sendfile, SockSendfile,
            source::{Reader, SendfileSource},
        },
        server::{Server, ServerSocket},
        unix::{CreateUnixConnection, CreateUnixServer, ToUnixAddress},
    },
    process::{protocol::SubprocessProtocol, transport::SubprocessTransport},
    report::AnyFuture,
    runner::{Runner, block_on, run},
    streams::{
        feeder::StreamFeeder,
        open::{OpenConnection, OpenUnixConnection, Opening, open_connection, open_unix_connection},
        pipe::{open_read_pipe, open_write_pipe},
        reader::StreamReader,
        separator::Separator,
        serve::{StartServer, StartUnixServer, start_server, start_unix_server},
        stream::Stream,
        writer::StreamWriter,
    },
    subprocess::{create_subprocess_exec, create_subprocess_shell},
    sync::{
        barrier::{Barrier, BarrierWait},
        condition::{Condition, ConditionWait},
        event::{Event, EventWait},
        lock::{Lock, LockAcquire, LockGuard, OwnedLockGuard},
        queue::{
            Queue,
            kinds::{LifoQueue, PriorityQueue},
            order::{Fifo, Lifo, QueueOrder, Smallest},
            waits::{QueueGet, QueueJoin, QueuePut},
        },
        semaphore::{BoundedSemaphore, OwnedSemaphorePermit, Semaphore, SemaphoreAcquire, SemaphorePermit},
    },
    sys::{
        addr::{Address, Endpoint, Port, ToAddress},
        resolve::{AddrInfo, AddrInfoHints, Resolver, SystemResolver, flags as socket},
        signal::{Signal, ToSignal},
        thread_pool::{Executor, Job, ThreadPool},
    },
    task::{
        Task,
        request::{
            Coroutine, TaskBuilder, TaskFactory, TaskRequest, all_tasks, create_task, current_task, eager_task_factory,
            ensure_future,
        },
        shared::{SharedTask, TaskOutcome},
        threadsafe::{IntoCoroutine, IsClosure, IsFuture, run_coroutine_threadsafe},
    },
    transport::{
        Transport,
        datagram::{DatagramProtocol, DatagramTransport, ToDestination},
        extra_info::{ExtraInfo, PEERNAME, PIPE, SOCKET, SOCKNAME},
        protocol::{BufferedProtocol, IsBufferedProtocol, IsProtocol, Protocol, StreamProtocol},
    },
    workers::{Worker, run_workers},
};

/// What users store and pass on crosses threads; callbacks, coroutines and what is bound to a loop stay with it.
///
/// The loop:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::EventLoop>();
/// ```
///
/// Scheduled callbacks:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::Handle<()>>();
/// ```
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::TimerHandle<()>>();
/// ```
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::AnyHandle>();
/// ```
///
/// Async generators, whose bodies need not be either:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::AsyncGenerator<()>>();
/// ```
///
/// Tasks that have lost their type:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::AnyTask>();
/// ```
///
/// ```compile_fail
/// fn sync<T: Sync>() {}
/// sync::<asyncio::AnyTask>();
/// ```
///
/// Results that must not cross:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::Task<std::rc::Rc<()>>>();
/// ```
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::Future<std::rc::Rc<()>>>();
/// ```
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::Queue<std::rc::Rc<()>>>();
/// ```
///
/// The same lines hold for what may cross, so that it is the type that fails above:
///
/// ```
/// fn send<T: Send>() {}
/// fn sync<T: Sync>() {}
/// send::<asyncio::Task<()>>();
/// sync::<asyncio::Task<()>>();
/// send::<asyncio::Queue<()>>();
/// ```
const _: () = {
    /// `Send` and not `Sync`: enough for a result.
    type Value = std::cell::Cell<u8>;

    const fn send<T: Send>() {}
    const fn send_and_sync<T: Send + Sync>() {}

    send_and_sync::<Task<Value>>();
    send_and_sync::<Future<Value>>();
    send_and_sync::<SharedTask<Value>>();
    send_and_sync::<SharedFuture<Value>>();
    send_and_sync::<ThreadsafeFuture<Value>>();
    send_and_sync::<ThreadsafeSetter<Value>>();
    send::<TaskOutcome<'static, Value>>();
    send::<subprocess::Process>();
    send_and_sync::<Sleep>();
    send_and_sync::<Timeout>();
    send_and_sync::<TimeoutFuture<Sleep>>();
    send_and_sync::<Shielded<Sleep>>();
    send_and_sync::<ThreadsafeLoop>();
    send_and_sync::<Lock>();
    send_and_sync::<LockAcquire<'static>>();
    send_and_sync::<LockGuard<'static>>();
    send_and_sync::<Event>();
    send_and_sync::<EventWait<'static>>();
    send_and_sync::<Condition>();
    send_and_sync::<ConditionWait<'static>>();
    send_and_sync::<Semaphore>();
    send_and_sync::<BoundedSemaphore>();
    send_and_sync::<SemaphoreAcquire<'static>>();
    send_and_sync::<SemaphorePermit<'static>>();
    send_and_sync::<OwnedSemaphorePermit>();
    send_and_sync::<OwnedLockGuard>();
    send_and_sync::<Canceller>();
    send::<RaceOutcome<Value>>();
    send_and_sync::<Barrier>();
    send_and_sync::<BarrierWait<'static>>();
    send_and_sync::<Queue<Value>>();
    send_and_sync::<LifoQueue<Value>>();
    send_and_sync::<PriorityQueue<Value>>();
    send_and_sync::<QueueGet<'static, Value>>();
    send_and_sync::<QueueJoin<'static, Value>>();
    send::<QueuePut<'static, Value>>();
    send_and_sync::<CallbackToken>();
    send_and_sync::<Context>();
    send_and_sync::<ContextVar<u8>>();
    send_and_sync::<Token<u8>>();
    send_and_sync::<Error>();
    send_and_sync::<Cancelled>();
    send_and_sync::<ExceptionGroup>();
    send_and_sync::<IncompleteReadError>();
    send_and_sync::<LimitOverrunError>();
    send_and_sync::<IoError>();
    send_and_sync::<ResolveError>();
    send_and_sync::<AnyFuture>();
    send_and_sync::<Address>();
    send_and_sync::<ThreadPool>();
    send_and_sync::<Server>();
    send_and_sync::<StreamReader>();
    send_and_sync::<StreamWriter>();
    send_and_sync::<StreamFeeder>();
    send_and_sync::<Stream>();
    send_and_sync::<ServerSocket>();
    send_and_sync::<Worker>();
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
///
/// ```
/// use asyncio::prelude::*;
///
/// fn main() -> Result<()> {
///     run(async {
///         let server = start_server(async |_, writer| writer.write("hello"), ("127.0.0.1", 0)).await?;
///         let (mut reader, _writer) = open_connection(&server.sockets()[0]).await?;
///         assert_eq!(reader.read(None).await?, b"hello");
///         Ok(())
///     })
/// }
/// ```
pub mod prelude {
    pub use crate::{
        BufferedProtocol, Clock, DatagramProtocol, Error, Executor, GatherArgs, IntoCoroutine, Protocol, Resolver,
        Result, Separator, StreamProtocol, SubprocessProtocol, ToAddress, ToDestination, ToSignal, ToUnixAddress,
        Waitable, all_tasks, as_completed, async_generator, block_on, cancellable, copy_context,
        create_subprocess_exec, create_subprocess_shell, create_task, current_task, ensure_future, gather,
        get_event_loop, get_running_loop, new_event_loop, ok, open_connection, open_read_pipe, open_unix_connection,
        open_write_pipe, run, run_coroutine_threadsafe, run_workers, selector::Selector, set_event_loop, shield,
        shielded, sleep, sleep_until, staggered_race, start_server, start_unix_server, timeout, timeout_at, to_thread,
        wait, wait_for, wrap_future,
    };
}

#[cfg(feature = "tls")]
pub use crate::{
    constants::{SSL_HANDSHAKE_TIMEOUT, SSL_SHUTDOWN_TIMEOUT},
    net::start_tls::StartTls,
    streams::start_tls::StreamStartTls,
    tls::{
        context::SslContext,
        context_builder::{SslContextBuilder, TlsVersion, VerifyMode},
        extra_info::{
            ALPN_PROTOCOL, CIPHER, CLOSE_NOTIFY, PEERCERT, PEERCERT_CHAIN, SERVER_HOSTNAME, SESSION_REUSED,
            SSL_VERSION, SSLCONTEXT,
        },
        session::Cipher,
    },
};

/// The TLS library: [`SslContext`] is made of its configurations, and gives them back.
#[cfg(feature = "tls")]
pub use rustls;

#[cfg(feature = "tls")]
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}

    send_and_sync::<SslContext>();
    send_and_sync::<SslContextBuilder>();
};

#[cfg(feature = "process-pool")]
pub use crate::process_pool::ProcessPool;

#[cfg(feature = "process-pool")]
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}

    send_and_sync::<ProcessPool>();
};

/// The README's programs are doc tests.
#[cfg(all(doctest, feature = "tls"))]
#[doc = include_str!("../README.md")]
struct Readme;
