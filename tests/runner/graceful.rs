//! What these tests show: a run whose servers drain on SIGTERM and SIGINT, in every stage of the drain.

use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::TcpStream,
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{Error, ErrorKind, Protocol, Result, Runner, Server, Signal, Transport, get_running_loop};

use crate::{
    main_thread::tests,
    signals::{
        Ended, SIG_DFL, SIG_IGN, SIGINT, SIGTERM, disposition, foreign_calls, foreign_handler, fork, install, raise,
    },
    support::{Record, logs},
};

tests![
    without_the_option_sigterm_is_left_alone,
    the_first_signal_drains_and_then_cancels_main,
    the_rest_is_aborted_at_the_deadline,
    the_second_signal_forces,
    without_servers_the_first_signal_cancels_main,
    main_is_cancelled_once_when_all_servers_have_ended,
    a_main_that_serves_in_a_task_is_cancelled_after_the_drain,
    a_main_that_ends_early_leaves_the_drain_to_the_run,
    the_second_signal_forces_after_the_end_of_main_too,
    main_may_make_a_success_of_it,
    further_signals_cancel_main_again_and_drop_it,
    servers_that_are_made_meanwhile_are_drained_too,
    a_signal_in_the_last_step_is_not_lost,
    a_handler_of_the_program_takes_over,
    what_is_ignored_stays_ignored,
    the_default_comes_back_after_each_run,
    a_runner_runs_again_after_a_drain,
    two_signals_at_once_force,
];

const LONG: Duration = Duration::from_secs(60);
/// Far below `LONG`, far above what a loaded machine takes.
const SOON: Duration = Duration::from_secs(20);
const BOTH: [i32; 2] = [SIGINT, SIGTERM];

/// Answers each request when the delay has passed.
struct Slow {
    delay: Duration,
    transport: Option<Transport>,
}

impl Protocol for Slow {
    fn connection_made(&mut self, transport: &Transport) {
        self.transport = Some(transport.clone());
    }

    fn data_received(&mut self, _data: &[u8]) {
        let (transport, delay) = (self.transport.clone().unwrap(), self.delay);
        let answer = async move {
            asyncio::sleep(delay).await?;
            transport.write(b"!");
            asyncio::ok(())
        };
        let _detached = asyncio::create_task(answer);
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.transport = None;
    }
}

async fn serve(delay: Duration) -> Result<Server> {
    let factory = move || Slow { delay, transport: None };
    get_running_loop()?.create_server(factory, ("127.0.0.1", 0)).await
}

/// A client whose request is in work.
async fn busy(server: &Server) -> Result<TcpStream> {
    let mut client = idle(server).await?;
    client.write_all(b"?")?;
    asyncio::sleep(Duration::from_millis(20)).await?;
    Ok(client)
}

/// A client that says nothing.
async fn idle(server: &Server) -> Result<TcpStream> {
    let client = TcpStream::connect(server.sockets()[0].address().as_inet().unwrap())?;
    client.set_read_timeout(Some(SOON))?;
    asyncio::sleep(Duration::from_millis(1)).await?;
    Ok(client)
}

/// All that the server sent.
fn received(client: Option<TcpStream>) -> String {
    let mut all = String::new();
    let ended = client.expect("it was connected").read_to_string(&mut all);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    all
}

fn begin() {
    install(SIGINT, SIG_DFL);
    install(SIGTERM, SIG_DFL);
}

/// What a run gives whose main lets the cancellation out.
#[track_caller]
fn assert_ended_by<T>(signal: i32, result: Result<T>) {
    match result.err().expect("main was cancelled") {
        Error::KeyboardInterrupt => assert_eq!(signal, SIGINT),
        Error::Cancelled(cancelled) => {
            assert_eq!((signal, cancelled.message.as_deref()), (SIGTERM, Some("SIGTERM")));
            assert_eq!(cancelled.by.unwrap().to_string(), "SIGTERM");
        }
        error => panic!("{error}"),
    }
}

fn graceful(deadline: Duration) -> Runner {
    Runner::new().graceful_shutdown(deadline)
}

fn without_the_option_sigterm_is_left_alone() {
    begin();
    let ended = fork(|| {
        let _ = Runner::new().run(async {
            assert_eq!(disposition(SIGTERM), SIG_DFL);
            raise(SIGTERM);
            Ok(())
        });
    });
    assert_eq!(ended, Ended::Killed(SIGTERM));
}

fn the_first_signal_drains_and_then_cancels_main() {
    begin();
    for signal in BOTH {
        let clients = RefCell::new(Vec::new());
        let begin = Instant::now();
        let (result, records) = logs(|| {
            graceful(LONG).run(async {
                let server = serve(Duration::from_millis(500)).await?;
                let client = idle(&server).await?;
                clients.borrow_mut().push(client);
                let client = busy(&server).await?;
                clients.borrow_mut().push(client);
                raise(signal);
                let (place, looks) = (server.sockets()[0].address().as_inet().unwrap(), Rc::new(Cell::new(0)));
                let looked = looks.clone();
                get_running_loop()?.call_later(Duration::from_millis(50), move || {
                    looked.set(looked.get() + 1);
                    assert!(TcpStream::connect(place).is_err());
                });
                let ended = server.serve_forever().await;
                assert_eq!(looks.get(), 1);
                ended
            })
        });
        assert_ended_by(signal, result);
        assert!(begin.elapsed() < SOON);
        assert_eq!(received(clients.borrow_mut().pop()), "!");
        assert_eq!(received(clients.borrow_mut().pop()), "");
        assert_eq!(records, []);
    }
}

fn the_rest_is_aborted_at_the_deadline() {
    begin();
    for signal in BOTH {
        let (client, begin) = (RefCell::new(None), Instant::now());
        let (result, records) = logs(|| {
            graceful(Duration::from_millis(300)).run(async {
                let server = serve(LONG).await?;
                client.replace(Some(busy(&server).await?));
                raise(signal);
                server.serve_forever().await
            })
        });
        assert_ended_by(signal, result);
        assert!(begin.elapsed() >= Duration::from_millis(300) && begin.elapsed() < SOON);
        let name = client.borrow().as_ref().unwrap().local_addr().unwrap().to_string();
        assert_eq!(records.len(), 1, "{records:?}");
        assert!(records[0].0 == tracing::Level::WARN && records[0].1.contains(&name), "{records:?}");
        assert_eq!(received(client.take()), "");
    }
}

fn the_second_signal_forces() {
    begin();
    for signals in [[SIGTERM, SIGTERM], [SIGINT, SIGINT], [SIGTERM, SIGINT], [SIGINT, SIGTERM]] {
        let (client, begin) = (RefCell::new(None), Instant::now());
        let (result, records) = logs(|| {
            graceful(LONG).run(async {
                let server = serve(LONG).await?;
                client.replace(Some(busy(&server).await?));
                raise(signals[0]);
                get_running_loop()?.call_later(Duration::from_millis(250), move || raise(signals[1]));
                server.serve_forever().await
            })
        });
        assert_ended_by(signals[1], result);
        assert!(begin.elapsed() >= Duration::from_millis(250) && begin.elapsed() < SOON);
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(received(client.take()), "");
    }
}

fn without_servers_the_first_signal_cancels_main() {
    begin();
    for signal in BOTH {
        let begin = Instant::now();
        let result = graceful(LONG).run(async {
            raise(signal);
            asyncio::sleep(LONG).await
        });
        assert_ended_by(signal, result);
        assert!(begin.elapsed() < SOON);
    }
}

/// What main cleans up may be what the other server still needs, and is not disturbed.
fn main_is_cancelled_once_when_all_servers_have_ended() {
    begin();
    for signal in BOTH {
        let record = Record::default();
        let (client, seen) = (RefCell::new(None), record.clone());
        let result = graceful(LONG).run(async {
            let (mine, other) = (serve(Duration::ZERO).await?, serve(Duration::from_millis(400)).await?);
            client.replace(Some(busy(&other).await?));
            let (ended, serving) = (seen.clone(), other.clone());
            let watching = asyncio::create_task(async move {
                serving.wait_closed().await?;
                ended.push("the other server has ended");
                Ok(())
            });
            raise(signal);
            let ended = mine.serve_forever().await;
            assert!(ended.as_ref().is_err_and(Error::is_cancelled));
            assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 1);
            assert!(watching.done());
            seen.push("main cleans up");
            asyncio::sleep(Duration::from_millis(300)).await?;
            seen.push("main has cleaned up");
            ended
        });
        assert_ended_by(signal, result);
        assert_eq!(record.take(), ["the other server has ended", "main cleans up", "main has cleaned up"]);
        assert_eq!(received(client.take()), "!");
    }
}

fn a_main_that_serves_in_a_task_is_cancelled_after_the_drain() {
    begin();
    for signal in BOTH {
        let client = RefCell::new(None);
        let result = graceful(LONG).run(async {
            let server = serve(Duration::from_millis(200)).await?;
            client.replace(Some(busy(&server).await?));
            let serving = asyncio::create_task(async move { server.serve_forever().await });
            raise(signal);
            serving.await
        });
        assert_ended_by(signal, result);
        assert_eq!(received(client.take()), "!");
    }
}

fn a_main_that_ends_early_leaves_the_drain_to_the_run() {
    begin();
    for signal in BOTH {
        let client = RefCell::new(None);
        let result = graceful(LONG).run(async {
            let server = serve(Duration::from_millis(300)).await?;
            client.replace(Some(busy(&server).await?));
            raise(signal);
            asyncio::sleep(Duration::from_millis(1)).await?;
            Ok(5)
        });
        assert_eq!(result.unwrap(), 5, "it was not cancelled");
        assert_eq!(received(client.take()), "!");
    }
}

fn the_second_signal_forces_after_the_end_of_main_too() {
    begin();
    let (client, begin) = (RefCell::new(None), Instant::now());
    let (result, records) = logs(|| {
        graceful(LONG).run(async {
            let server = serve(LONG).await?;
            client.replace(Some(busy(&server).await?));
            raise(SIGTERM);
            get_running_loop()?.call_later(Duration::from_millis(200), || raise(SIGTERM));
            asyncio::sleep(Duration::from_millis(1)).await?;
            Ok(5)
        })
    });
    assert_eq!(result.unwrap(), 5);
    assert!(begin.elapsed() < SOON);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(received(client.take()), "");
}

fn main_may_make_a_success_of_it() {
    begin();
    for signal in BOTH {
        let result = graceful(LONG).run(async {
            let server = serve(Duration::ZERO).await?;
            let _client = idle(&server).await?;
            raise(signal);
            match server.serve_forever().await {
                Err(Error::Cancelled(_)) => Ok("drained"),
                other => other.map(|()| "ended"),
            }
        });
        assert_eq!(result.unwrap(), "drained");
    }
}

fn further_signals_cancel_main_again_and_drop_it() {
    begin();
    let record = Record::default();
    let seen = record.clone();
    let result: Result<()> = graceful(LONG).run(async {
        let server = serve(LONG).await?;
        let _client = busy(&server).await?;
        for name in ["forced", "again", "never"] {
            let raising = || raise(SIGTERM);
            get_running_loop()?.call_later(Duration::from_millis(1), raising);
            if name == "forced" {
                get_running_loop()?.call_later(Duration::from_millis(2), raising);
            }
            assert!(asyncio::sleep(LONG).await.is_err());
            seen.push(name);
        }
        Ok(())
    });
    assert_ended_by(SIGTERM, result);
    assert_eq!(record.take(), ["forced", "again"]);
}

fn servers_that_are_made_meanwhile_are_drained_too() {
    begin();
    let (clients, begin) = (RefCell::new(Vec::new()), Instant::now());
    let result: Result<()> = graceful(LONG).run(async {
        let first = serve(Duration::from_millis(300)).await?;
        let client = busy(&first).await?;
        clients.borrow_mut().push(client);
        raise(SIGTERM);
        asyncio::sleep(Duration::from_millis(10)).await?;
        let second = serve(Duration::from_millis(600)).await?;
        let client = busy(&second).await?;
        clients.borrow_mut().push(client);
        first.wait_closed().await?;
        second.serve_forever().await
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(begin.elapsed() < SOON);
    assert_eq!(received(clients.borrow_mut().pop()), "!");
    assert_eq!(received(clients.borrow_mut().pop()), "!");
}

fn a_signal_in_the_last_step_is_not_lost() {
    begin();
    for signal in BOTH {
        let result = graceful(LONG).run(async {
            raise(signal);
            Ok(5)
        });
        assert_ended_by(signal, result);
    }
}

fn a_handler_of_the_program_takes_over() {
    begin();
    for (number, signal) in [(SIGINT, Signal::Int), (SIGTERM, Signal::Term)] {
        let record = Record::default();
        let seen = record.clone();
        let result = graceful(LONG).run(async move {
            let event_loop = get_running_loop()?;
            let server = serve(Duration::ZERO).await?;
            event_loop.add_signal_handler(signal, move || seen.push("handler"))?;
            for _ in 0..3 {
                raise(number);
                asyncio::sleep(Duration::from_millis(1)).await?;
            }
            assert!(server.is_serving());
            server.close();
            Ok(5)
        });
        assert_eq!(result.unwrap(), 5);
        assert_eq!(record.take(), ["handler"; 3]);
    }
    install(SIGTERM, foreign_handler());
    let result = graceful(LONG).run(async {
        raise(SIGTERM);
        asyncio::sleep(Duration::from_millis(1)).await
    });
    result.unwrap();
    assert_eq!(foreign_calls(), 1);
}

fn what_is_ignored_stays_ignored() {
    install(SIGINT, SIG_IGN);
    install(SIGTERM, SIG_IGN);
    let result = graceful(LONG).run(async {
        raise(SIGINT);
        raise(SIGTERM);
        asyncio::sleep(Duration::from_millis(1)).await
    });
    result.unwrap();
    assert_eq!((disposition(SIGINT), disposition(SIGTERM)), (SIG_IGN, SIG_IGN));
}

fn the_default_comes_back_after_each_run() {
    begin();
    let mut runner = graceful(LONG);
    for signal in BOTH {
        runner.run(async { Ok(()) }).unwrap();
        let result = runner.run(async {
            assert_ne!(disposition(SIGTERM), SIG_DFL);
            assert_ne!(disposition(SIGINT), SIG_DFL);
            let server = serve(Duration::ZERO).await?;
            raise(signal);
            server.serve_forever().await
        });
        assert_ended_by(signal, result);
        assert_eq!((disposition(SIGINT), disposition(SIGTERM)), (SIG_DFL, SIG_DFL));
    }
}

fn a_runner_runs_again_after_a_drain() {
    begin();
    let mut runner = graceful(LONG);
    for _ in 0..3 {
        let client = RefCell::new(None);
        let result = runner.run(async {
            let server = serve(Duration::from_millis(50)).await?;
            client.replace(Some(busy(&server).await?));
            raise(SIGTERM);
            server.serve_forever().await
        });
        assert_ended_by(SIGTERM, result);
        assert_eq!(received(client.take()), "!");
    }
    assert_eq!(runner.run(async { Ok(5) }).unwrap(), 5);
    assert_eq!(runner.get_loop().unwrap().all_tasks(), []);
}

fn two_signals_at_once_force() {
    begin();
    let (client, begin) = (RefCell::new(None), Instant::now());
    let (result, records) = logs(|| {
        graceful(LONG).run(async {
            let server = serve(LONG).await?;
            client.replace(Some(busy(&server).await?));
            raise(SIGTERM);
            raise(SIGTERM);
            server.serve_forever().await
        })
    });
    assert_ended_by(SIGTERM, result);
    assert!(begin.elapsed() < SOON);
    assert_eq!(records.len(), 1, "{records:?}");
}
