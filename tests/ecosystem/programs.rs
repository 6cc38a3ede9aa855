//! Whole programs, as a newcomer from asyncio would write them: each compiles and runs to its end.

use crate::support;

mod run_in_many_ways {
    //! `run` with a coroutine that borrows; `Runner`; `run_until_complete(&mut task)`.

    pub(super) fn main() -> Result<(), Box<dyn std::error::Error>> {
        let config = String::from("x");
        let n = asyncio::run(async {
            asyncio::sleep(std::time::Duration::ZERO).await?;
            Ok(config.len())
        })?;
        let mut runner = asyncio::Runner::new().debug(true).loop_factory(asyncio::new_event_loop);
        let m = runner.run(async { Ok(config.len()) })?;
        runner.close()?;
        let event_loop = asyncio::new_event_loop()?;
        let mut task = event_loop.create_task(async { Ok(5) });
        let lent = event_loop.run_until_complete(&mut task);
        let again = event_loop.run_until_complete(task);
        let any: std::io::Result<u8> = asyncio::block_on(async { Ok(1) });
        assert_eq!((n, m, lent?, any?), (1, 1, 5, 1));
        assert_eq!(again.unwrap_err().to_string(), "Result was already taken");
        Ok(())
    }
}

mod futures_and_handles {
    //! A future for many, callbacks that give values, work in other threads.

    use asyncio::Result;
    use std::time::Duration;

    pub(super) fn main() -> Result<()> {
        asyncio::run(async {
            let event_loop = asyncio::get_running_loop()?;
            let future = event_loop.create_future();
            let setter = future.clone();
            event_loop.call_later(Duration::from_millis(5), move || setter.set_result("done"));
            let rc = std::rc::Rc::new(0);
            future.add_done_callback(move |f| println!("{rc} {}", f.done()));
            println!("{}", (&future).await?);
            println!("{}", (&future).await?); // many, by reference
            println!("{}", future.await?); // moved out
            let handle = event_loop.call_soon(|| 40 + 2);
            println!("{}", handle.await?);
            let r: std::result::Result<i32, std::num::ParseIntError> =
                event_loop.call_soon(|| "5".parse::<i32>()).await?;
            println!("{r:?}");
            // not Clone
            struct Big(Vec<u8>);
            let b = event_loop.run_in_executor(None, || Big(vec![1])).await?;
            println!("{}", b.0.len());
            let pool = asyncio::ThreadPool::new(2);
            let s = event_loop.run_in_executor(Some(&pool), || std::fs::read_to_string("Cargo.toml")).await??;
            println!("{s}");
            Ok(())
        })
    }
}

mod raw_sockets {
    //! An echo over `sock_*`, watchers beside it.

    use asyncio::{EventLoop, Result};
    use socket2::{Domain, Socket, Type};

    async fn client(event_loop: &EventLoop, conn: std::net::TcpStream) -> Result<()> {
        let mut buf = [0; 1024];
        loop {
            let n = event_loop.sock_recv_into(&conn, &mut buf).await?;
            if n == 0 {
                return Ok(());
            }
            event_loop.sock_sendall(&conn, &buf[..n]).await?;
        }
    }

    pub(super) fn main() -> Result<()> {
        let event_loop = asyncio::new_event_loop()?;
        // It ends as its reader stops the loop; a bare program runs this by `asyncio::run`.
        event_loop.run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let s2 = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            s2.set_nonblocking(true)?;
            event_loop.sock_connect(&s2, ("localhost", listener.local_addr()?.port())).await?;
            let (conn, address) = event_loop.sock_accept(&listener).await?;
            let l = event_loop.clone();
            event_loop.create_task(async move { client(&l, conn.into()).await });
            event_loop.sock_sendall(&s2, b"x").await?;
            println!("{address} {:?}", event_loop.sock_recv(&s2, 10).await?);
            let l = event_loop.clone();
            event_loop.add_reader(&s2, move || l.stop())?;
            event_loop.remove_reader(&s2)?;
            event_loop.remove_reader(&5)?;
            drop(s2);
            // The echo sees the end and returns.
            while asyncio::all_tasks()?.len() > 1 {
                asyncio::sleep(std::time::Duration::from_millis(1)).await?;
            }
            Ok(())
        })
    }
}

mod coroutines_from_a_thread {
    //! Futures, closures and async closures handed to a loop by another thread.

    use asyncio::Result;
    use std::{rc::Rc, time::Duration};

    pub(super) fn main() -> Result<()> {
        asyncio::run(async {
            let remote = asyncio::get_running_loop()?.threadsafe();
            let thread = std::thread::spawn(move || -> Result<u32> {
                let a = remote
                    .run_coroutine_threadsafe(async {
                        asyncio::sleep(Duration::from_millis(1)).await?;
                        Ok(1)
                    })
                    .result(None)?;
                let b = remote
                    .run_coroutine_threadsafe(|| async {
                        let rc = Rc::new(2);
                        asyncio::sleep(Duration::ZERO).await?;
                        Ok(*rc)
                    })
                    .result(Duration::from_secs(30))?;
                let c = remote
                    .run_coroutine_threadsafe(async || {
                        let rc = Rc::new(3);
                        asyncio::sleep(Duration::ZERO).await?;
                        Ok(*rc)
                    })
                    .result(None)?;
                let d = remote.call_soon_threadsafe(|| 4).result(None)?;
                Ok(a + b + c + d)
            });
            assert_eq!(asyncio::to_thread(move || thread.join().unwrap()).await?, 10);
            Ok(())
        })
    }
}

mod a_task_factory {
    //! A factory that counts, starts eagerly and wraps.

    use asyncio::Result;
    use std::{cell::Cell, rc::Rc};

    pub(super) fn main() -> Result<()> {
        let event_loop = asyncio::new_event_loop()?;
        let count = Rc::new(Cell::new(0));
        let c = count.clone();
        event_loop.set_task_factory(Some(Rc::new(move |_loop, request| {
            c.set(c.get() + 1);
            request.eager(true);
            request.wrap(|coroutine| {
                Box::pin(async move {
                    println!("begin");
                    coroutine.await;
                    println!("end")
                })
            });
            Ok(())
        })));
        event_loop.run_until_complete(event_loop.create_task(async { Ok(1) }))?;
        assert_eq!(count.get(), 1);
        Ok(())
    }
}

mod an_echo_server {
    //! A protocol that keeps its transport, and a server that is cancelled in the end.

    use asyncio::{Error, Protocol, Transport};
    use std::io::{Read, Write};

    #[derive(Default)]
    struct Echo {
        transport: Option<Transport>,
    }

    impl Protocol for Echo {
        fn connection_made(&mut self, transport: &Transport) {
            self.transport = Some(transport.clone());
        }
        fn data_received(&mut self, data: &[u8]) {
            if let Some(t) = &self.transport {
                t.write(data);
            }
        }
        fn connection_lost(&mut self, _error: Option<&Error>) {
            self.transport = None
        }
    }

    pub(super) fn main() -> asyncio::Result<()> {
        let ended = asyncio::run(async {
            let event_loop = asyncio::get_running_loop()?;
            let server =
                event_loop.create_server(Echo::default, ("127.0.0.1", 0)).backlog(1024).reuse_port(true).await?;
            let address = server.sockets()[0].address().as_inet().expect("an address of IP");
            let closer = server.clone(); // it is `Send`
            std::thread::spawn(move || {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                client.write_all(b"hello").unwrap();
                let mut answer = [0; 5];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"hello");
                closer.close();
            });
            server.serve_forever().await?;
            Ok(())
        });
        assert!(ended.unwrap_err().is_cancelled());
        Ok(())
    }
}

mod a_connection {
    //! A factory that borrows, a protocol that completes a future, and one that takes the place of another.

    use asyncio::*;
    use std::{cell::RefCell, rc::Rc, time::Duration};

    struct Client {
        lost: Future<()>,
        message: String,
    }

    impl Protocol for Client {
        fn connection_made(&mut self, t: &Transport) {
            t.write(self.message.as_bytes());
        }
        fn data_received(&mut self, d: &[u8]) {
            println!("{d:?}")
        }
        fn connection_lost(&mut self, _: Option<&Error>) {
            let _ = self.lost.set_result(());
        }
    }

    struct Buf([u8; 16], Rc<RefCell<Vec<u8>>>, Option<Future<()>>);

    impl BufferedProtocol for Buf {
        fn get_buffer(&mut self, _: Option<usize>) -> &mut [u8] {
            &mut self.0
        }
        fn buffer_updated(&mut self, count: usize) {
            self.1.borrow_mut().extend_from_slice(&self.0[..count]);
        }
        fn connection_lost(&mut self, _: Option<&Error>) {
            if let Some(lost) = &self.2 {
                let _ = lost.set_result(());
            }
        }
    }

    async fn main_() -> Result<()> {
        let event_loop = get_running_loop()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let lost = event_loop.create_future();
        let message = String::from("hi");
        let host = String::from("127.0.0.1");
        // the factory borrows nothing ('static not needed), moves the future in
        let borrowed = &message;
        let (transport, protocol) = event_loop
            .create_connection(|| Client { lost: lost.clone(), message: borrowed.clone() }, (host.as_str(), port))
            .happy_eyeballs_delay(Duration::from_millis(250))
            .await?;
        let p: Rc<RefCell<Client>> = transport.get_protocol().ok_or(Error::Value("".into()))?;
        assert!(Rc::ptr_eq(&p, &protocol));
        let received = Rc::default();
        transport.set_protocol(Rc::new(RefCell::new(Buf([0; 16], Rc::clone(&received), Some(lost.clone())))));
        let (mut peer, _) = listener.accept()?;
        std::io::Write::write_all(&mut peer, b"as was agreed")?;
        drop(peer);
        lost.await?;
        assert_eq!(*received.borrow(), b"as was agreed");
        let nowhere = event_loop.create_connection(|| Buf([0; 16], Rc::default(), None), ("::1", 1)).await;
        assert!(nowhere.is_err());
        transport.close();
        Ok(())
    }

    pub(super) fn main() -> Result<()> {
        run(main_())
    }
}

#[test]
fn a_program_that_runs_in_many_ways() {
    let _deadline = support::deadline();
    run_in_many_ways::main().unwrap();
}

#[test]
fn a_program_of_futures_and_handles() {
    let _deadline = support::deadline();
    futures_and_handles::main().unwrap();
}

#[test]
fn a_program_of_raw_sockets() {
    let _deadline = support::deadline();
    raw_sockets::main().unwrap();
}

#[test]
fn a_program_that_hands_coroutines_to_a_loop() {
    let _deadline = support::deadline();
    coroutines_from_a_thread::main().unwrap();
}

#[test]
fn a_program_with_a_task_factory() {
    let _deadline = support::deadline();
    a_task_factory::main().unwrap();
}

#[test]
fn a_program_with_an_echo_server() {
    let _deadline = support::deadline();
    an_echo_server::main().unwrap();
}

#[test]
fn a_program_with_a_connection() {
    let _deadline = support::deadline();
    a_connection::main().unwrap();
}
