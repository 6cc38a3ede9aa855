//! sock_connect and sock_accept.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    rc::Rc,
    thread,
    time::Duration,
};

use asyncio::{AddrInfo, AddrInfoHints, Address, ErrorKind, Port, Resolver, socket};
use futures::future::{Either, join, select};
use rustix::process::{Resource, Rlimit};
use socket2::{Domain, Socket, Type};

use crate::{On, begins_to_wait, listener, support::Record, turn, until_readable};

on_each_selector! {
    a_refused_connect_tells_the_address
    a_name_is_resolved_with_the_socket_s_family
    a_connect_that_was_cancelled_can_be_begun_again
    a_connect_in_progress_is_finished_by_a_second_one
    a_connect_that_is_polled_without_reason_does_not_succeed
    a_connect_is_cancelled_while_its_name_is_looked_up
    a_dropped_connect_leaves_nothing_behind
    a_connected_socket_is_refused
    where_to_connect_must_be_one_place
    a_connection_is_accepted
    connections_that_wait_already_are_accepted_at_once
    an_accept_that_was_cancelled_loses_no_connection
    the_loser_of_a_select_loses_no_connection
    a_connection_that_is_gone_again_does_no_harm
    what_does_not_listen_cannot_accept
    descriptors_run_out_and_come_back
    unix_streams_connect_and_are_accepted
    abstract_names_are_connected_to
    a_full_unix_listener_is_waited_for
    ipv6_is_connected_and_accepted
    many_connections_at_once
}

fn tcp(domain: Domain) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// An address where nobody listens, and who keeps it so.
fn refusing() -> (Socket, SocketAddr) {
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = holder.local_addr().unwrap().as_socket().unwrap();
    (holder, address)
}

/// A listener that takes no further connection, and the one that fills it.
fn full_listener() -> (TcpListener, SocketAddr, TcpStream) {
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    holder.listen(0).unwrap();
    let listener = TcpListener::from(holder);
    let address = listener.local_addr().unwrap();
    let first = TcpStream::connect(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener, address, first)
}

/// SOK-012
fn a_refused_connect_tells_the_address(on: On) {
    let event_loop = on.event_loop();
    let (_holder, address) = refusing();
    let socket = tcp(Domain::IPV4);
    let error = event_loop.run_until_complete(event_loop.sock_connect(&socket, address)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(!event_loop.remove_writer(&socket).unwrap());
}

/// SOK-013
fn a_name_is_resolved_with_the_socket_s_family(on: On) {
    /// Answers with both families, whatever was asked for.
    struct Both;
    impl Resolver for Both {
        fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> asyncio::Result<Vec<AddrInfo>> {
            let Port::Number(port) = *port else { panic!("{port}") };
            assert_eq!(hints.socket_type, socket::SOCK_STREAM);
            let addresses: [SocketAddr; 2] = [(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()];
            let answer = addresses.map(|address| AddrInfo::new(address, hints.socket_type)).to_vec();
            match host {
                Some("both.test") => Ok(answer),
                Some("six.test") => Ok(answer[..1].to_vec()),
                Some("wish.test") => Ok(answer.into_iter().filter(|info| info.family == hints.family).collect()),
                _ => Ok(Vec::new()),
            }
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(Both).unwrap();
    let (_holder, address) = refusing();
    let connect = |domain, host: &'static str| {
        let socket = tcp(domain);
        event_loop.run_until_complete(event_loop.sock_connect(&socket, (host, address.port()))).unwrap_err()
    };
    let six = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok() && TcpListener::bind("[::1]:0").is_ok();
    if !six {
        eprintln!("half tested: this machine has no IPv6 loopback");
    }
    for host in ["both.test", "wish.test"] {
        let error = connect(Domain::IPV4, host).to_string();
        assert!(error.contains("127.0.0.1") && !error.contains("::1"), "{error}");
        if six {
            let error = connect(Domain::IPV6, host).to_string();
            assert!(error.contains("::1") && !error.contains("127.0.0.1"), "{error}");
        }
    }
    // An answer of the wrong family, and none, are no address.
    for host in ["six.test", "none.test"] {
        let error = connect(Domain::IPV4, host);
        assert_eq!(error.kind(), ErrorKind::Resolve);
        assert!(error.to_string().contains(host), "{error}");
    }
    assert_eq!(connect(Domain::IPV4, "::1").kind(), ErrorKind::Resolve);
}

/// SOK-015
fn a_connect_that_was_cancelled_can_be_begun_again(on: On) {
    let event_loop = on.event_loop();
    let (holder, address) = refusing();
    let socket = Rc::new(tcp(Domain::IPV4));
    event_loop.run(async {
        let (connecting, fd) = (event_loop.event_loop.clone(), socket.clone());
        let task = event_loop.create_task(async move { connecting.sock_connect(&*fd, address).await });
        turn().await;
        assert!(!task.done() && task.cancel());
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(rustix::io::fcntl_getfd(&*socket).is_ok(), "the socket is still open");
        assert!(!event_loop.remove_writer(&*socket)?);
        holder.listen(1)?;
        for attempt in 0..50 {
            match event_loop.sock_connect(&*socket, address).await {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) && attempt < 49 => turn().await,
                Err(error) => return Err(error),
            }
        }
        assert_eq!(socket.peer_addr()?.as_socket(), Some(address));
        Ok(())
    });
}

fn a_connect_in_progress_is_finished_by_a_second_one(on: On) {
    let event_loop = on.event_loop();
    let (listener, address, _first) = full_listener();
    let socket = tcp(Domain::IPV4);
    event_loop.run(async {
        let mut connecting = Box::pin(event_loop.sock_connect(&socket, address));
        begins_to_wait(connecting.as_mut()).await;
        let error = event_loop.sock_connect(&socket, address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime, "one call waits already");
        drop(connecting);
        assert!(!event_loop.remove_writer(&socket)?);
        let mut again = Box::pin(event_loop.sock_connect(&socket, address));
        begins_to_wait(again.as_mut()).await;
        event_loop.sock_accept(&listener).await?;
        again.await?;
        assert_eq!(socket.peer_addr()?.as_socket(), Some(address));
        Ok(())
    });
}

fn a_connect_that_is_polled_without_reason_does_not_succeed(on: On) {
    let event_loop = on.event_loop();
    let (listener, address, _first) = full_listener();
    let socket = tcp(Domain::IPV4);
    event_loop.run(async {
        // Both are polled whenever one of them is woken.
        let turns = async {
            for _ in 0..5 {
                turn().await;
            }
        };
        let pinned = Box::pin(event_loop.sock_connect(&socket, address));
        let connecting = match select(pinned, Box::pin(turns)).await {
            Either::Left((connected, _)) => panic!("it is not connected: {connected:?}"),
            Either::Right(((), connecting)) => connecting,
        };
        assert!(socket.peer_addr().is_err());
        event_loop.sock_accept(&listener).await?;
        connecting.await?;
        assert_eq!(socket.peer_addr()?.as_socket(), Some(address));
        Ok(())
    });
}

fn a_connect_is_cancelled_while_its_name_is_looked_up(on: On) {
    struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl Resolver for Slow {
        fn getaddrinfo(&self, _: Option<&str>, _: &Port, _: AddrInfoHints) -> asyncio::Result<Vec<AddrInfo>> {
            let _ = self.0.lock().unwrap().recv(); // until the test is over
            Ok(Vec::new())
        }
    }
    let event_loop = on.event_loop();
    let (_over, receiver) = std::sync::mpsc::channel();
    event_loop.set_resolver(Slow(receiver.into())).unwrap();
    let (socket, connecting) = (tcp(Domain::IPV4), event_loop.event_loop.clone());
    let task = event_loop.create_task(async move { connecting.sock_connect(&socket, ("slow.test", 1)).await });
    event_loop.ticks(2);
    task.cancel();
    event_loop.ticks(3);
    assert!(task.cancelled());
    event_loop.close().unwrap();
}

fn a_dropped_connect_leaves_nothing_behind(on: On) {
    let event_loop = on.event_loop();
    let (_listener, address, _first) = full_listener();
    let socket = tcp(Domain::IPV4);
    event_loop.run(async {
        let connecting = Box::pin(event_loop.sock_connect(&socket, address));
        match select(connecting, asyncio::sleep(Duration::from_millis(5))).await {
            Either::Left((connected, _)) => panic!("{connected:?}"),
            Either::Right((slept, _)) => slept?,
        }
        assert!(!event_loop.remove_writer(&socket)?);
        event_loop.add_writer(&socket, || ())?;
        assert!(event_loop.remove_writer(&socket)?);
        Ok(())
    });
}

fn a_connected_socket_is_refused(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let error = event_loop.run_until_complete(event_loop.sock_connect(&stream, address)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EISCONN));
}

fn where_to_connect_must_be_one_place(on: On) {
    let event_loop = on.event_loop();
    let socket = tcp(Domain::IPV4);
    event_loop.run(async {
        assert_eq!(event_loop.sock_connect(&socket, ()).await.unwrap_err().kind(), ErrorKind::Value);
        let several = event_loop.sock_connect(&socket, (["127.0.0.1", "127.0.0.2"], 1)).await;
        assert_eq!(several.unwrap_err().kind(), ErrorKind::Value);
        let wrong = event_loop.sock_connect(&socket, std::path::Path::new("/nonexistent")).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Io);
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        unix.set_nonblocking(true)?;
        assert!(event_loop.sock_connect(&unix, ("127.0.0.1", 1)).await.is_err());
        let null = std::path::PathBuf::from("a\0b");
        assert_eq!(event_loop.sock_connect(&unix, null).await.unwrap_err().kind(), ErrorKind::Value);
        Ok(())
    });
}

/// SOK-016
fn a_connection_is_accepted(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_accept(&listener));
        begins_to_wait(waiting.as_mut()).await;
        let client = TcpStream::connect(address)?;
        let (connection, peer) = waiting.await?;
        assert_eq!(peer, Address::Inet(client.local_addr()?));
        assert!(rustix::fs::fcntl_getfl(&connection).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&connection).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        client.set_nonblocking(true)?;
        event_loop.sock_sendall(&connection, b"welcome").await?;
        assert_eq!(event_loop.sock_recv(&client, 10).await?, b"welcome");
        Ok(())
    });
}

fn connections_that_wait_already_are_accepted_at_once(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    event_loop.run(async {
        let record = Record::default();
        let log = record.clone();
        event_loop.call_soon(move || log.push("a turn"));
        for client in &clients {
            let (_, peer) = event_loop.sock_accept(&listener).await?;
            assert_eq!(peer.as_inet(), Some(client.local_addr()?));
        }
        assert_eq!(record.len(), 0);
        turn().await;
        Ok(())
    });
}

fn an_accept_that_was_cancelled_loses_no_connection(on: On) {
    let event_loop = on.event_loop();
    let listener = Rc::new(listener());
    let address = listener.local_addr().unwrap();
    event_loop.run(async {
        let (accepting, fd) = (event_loop.event_loop.clone(), listener.clone());
        let task = event_loop.create_task(async move { accepting.sock_accept(&*fd).await.map(drop) });
        turn().await;
        task.cancel();
        let client = TcpStream::connect(address)?;
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!event_loop.remove_reader(&*listener)?);
        assert_eq!(event_loop.sock_accept(&*listener).await?.1.as_inet(), Some(client.local_addr()?));

        let (accepting, fd) = (event_loop.event_loop.clone(), listener.clone());
        let task = event_loop.create_task(async move { accepting.sock_accept(&*fd).await.map(drop) });
        turn().await;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    });
    drop(listener);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

fn the_loser_of_a_select_loses_no_connection(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    event_loop.run(async {
        for _ in 0..3 {
            let accepting = Box::pin(event_loop.sock_accept(&listener));
            match select(accepting, asyncio::sleep(Duration::from_millis(1))).await {
                Either::Left(_) => panic!("nobody has connected"),
                Either::Right((slept, loser)) => {
                    slept?;
                    drop(loser);
                }
            }
            assert!(!event_loop.remove_reader(&listener)?);
            let client = TcpStream::connect(listener.local_addr()?)?;
            assert_eq!(event_loop.sock_accept(&listener).await?.1.as_inet(), Some(client.local_addr()?));
        }
        Ok(())
    });
}

fn a_connection_that_is_gone_again_does_no_harm(on: On) {
    let event_loop = on.event_loop();
    let listener = listener();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_accept(&listener));
        begins_to_wait(waiting.as_mut()).await;
        crate::reset(TcpStream::connect(listener.local_addr()?)?);
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (mut connection, mut peer) = waiting.await?;
        if peer.as_inet() != Some(client.local_addr()?) {
            // This system hands out connections that have ended.
            assert!(event_loop.sock_recv(&connection, 1).await.is_err());
            (connection, peer) = event_loop.sock_accept(&listener).await?;
        }
        assert_eq!(peer.as_inet(), Some(client.local_addr()?));
        event_loop.sock_sendall(&connection, b"x").await?;
        Ok(())
    });
}

fn what_does_not_listen_cannot_accept(on: On) {
    let event_loop = on.event_loop();
    let socket = tcp(Domain::IPV4);
    let error = event_loop.run_until_complete(event_loop.sock_accept(&socket)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

fn descriptors_run_out_and_come_back(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let (first, second) = (tcp(Domain::IPV4), tcp(Domain::IPV4));
    let highest = std::fs::File::open("/dev/null").unwrap();
    let limit =
        Rlimit { current: Some(highest.as_raw_fd() as u64 + 20), ..rustix::process::getrlimit(Resource::Nofile) };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_accept(&listener));
        begins_to_wait(waiting.as_mut()).await;
        let mut files = Vec::new();
        while let Ok(copy) = highest.try_clone() {
            files.push(copy);
        }
        let (accepted, connected) = join(waiting, event_loop.sock_connect(&first, address)).await;
        connected?;
        assert_eq!(accepted.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        let error = event_loop.sock_accept(&listener).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "at once as well");
        assert!(!event_loop.remove_reader(&listener)?);
        // The loop goes on: timers, tasks, other descriptors.
        asyncio::sleep(Duration::from_millis(1)).await?;
        assert_eq!(asyncio::create_task(async { Ok(5) }).await?, 5);
        assert!(asyncio::new_event_loop().is_err(), "there is no descriptor for another loop");
        event_loop.sock_connect(&second, address).await?;
        files.truncate(files.len() - 2);
        let (connection, peer) = event_loop.sock_accept(&listener).await?;
        assert_eq!(Some(peer.as_inet().unwrap()), first.local_addr()?.as_socket());
        let (_other, _) = event_loop.sock_accept(&listener).await?;
        event_loop.sock_sendall(&connection, b"x").await?;
        assert_eq!(event_loop.sock_recv(&first, 1).await?, b"x");
        Ok(())
    });
}

fn unix_streams_connect_and_are_accepted(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_accept(&listener));
        begins_to_wait(waiting.as_mut()).await;
        let client = tcp(Domain::UNIX);
        event_loop.sock_connect(&client, path.as_path()).await?;
        let (connection, peer) = waiting.await?;
        assert_eq!(peer, Address::Unnamed);
        event_loop.sock_sendall(&connection, b"unix").await?;
        assert_eq!(event_loop.sock_recv(&client, 10).await?, b"unix");

        let named = tcp(Domain::UNIX);
        named.bind(&socket2::SockAddr::unix(folder.path().join("client"))?)?;
        event_loop.sock_connect(&named, Address::UnixPath(path.clone())).await?;
        assert_eq!(event_loop.sock_accept(&listener).await?.1, Address::UnixPath(folder.path().join("client")));

        let error = event_loop.sock_connect(&tcp(Domain::UNIX), folder.path().join("nobody")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(error.to_string().contains("nobody"), "{error}");
        let error = event_loop.sock_connect(&tcp(Domain::UNIX), folder.path().join("client")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        Ok(())
    });
}

#[cfg(not(target_os = "linux"))]
fn abstract_names_are_connected_to(_: On) {}

#[cfg(target_os = "linux")]
fn abstract_names_are_connected_to(on: On) {
    use std::os::linux::net::SocketAddrExt;
    let event_loop = on.event_loop();
    let mut name = format!("asyncio connect {} {}", std::process::id(), on.path).into_bytes();
    name.truncate(100);
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    event_loop.run(async {
        for number in 0..2 {
            let client = tcp(Domain::UNIX);
            if number == 0 {
                event_loop.sock_connect(&client, Address::UnixAbstract(name.clone())).await?;
            } else {
                let path = String::from_utf8([&[0], name.as_slice()].concat()).unwrap();
                event_loop.sock_connect(&client, std::path::PathBuf::from(path)).await?;
            }
            let (connection, _) = event_loop.sock_accept(&listener).await?;
            event_loop.sock_sendall(&client, b"x").await?;
            assert_eq!(event_loop.sock_recv(&connection, 1).await?, b"x");
        }
        Ok(())
    });
    drop(listener);
    let gone = event_loop.run_until_complete(event_loop.sock_connect(&tcp(Domain::UNIX), Address::UnixAbstract(name)));
    assert_eq!(gone.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

/// There is nothing to be woken by: the system says EAGAIN, and the socket is not even in progress.
fn a_full_unix_listener_is_waited_for(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let holder = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    holder.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    holder.listen(0).unwrap();
    holder.set_nonblocking(true).unwrap();
    let mut waiting_room = vec![UnixStream::connect(&path).unwrap()];
    let client = Rc::new(tcp(Domain::UNIX));
    event_loop.run(async {
        let (connecting, fd, to) = (event_loop.event_loop.clone(), client.clone(), path.clone());
        let task = event_loop.create_task(async move { connecting.sock_connect(&*fd, to).await });
        asyncio::sleep(Duration::from_millis(10)).await?;
        assert!(!task.done());
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!event_loop.remove_writer(&*client)?);

        let (connecting, fd, to) = (event_loop.event_loop.clone(), client.clone(), path.clone());
        let task = event_loop.create_task(async move { connecting.sock_connect(&*fd, to).await });
        turn().await;
        assert!(!task.done());
        let (connection, _) = event_loop.sock_accept(&holder).await?;
        task.await?;
        waiting_room.pop();
        assert_eq!(event_loop.sock_recv(&connection, 1).await?, b"");
        let (connection, _) = event_loop.sock_accept(&holder).await?;
        event_loop.sock_sendall(&connection, b"in").await?;
        assert_eq!(event_loop.sock_recv(&*client, 2).await?, b"in");
        Ok(())
    });
}

fn ipv6_is_connected_and_accepted(on: On) {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("not tested: this machine has no IPv6 loopback");
        return;
    };
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let event_loop = on.event_loop();
    event_loop.run(async {
        for by_name in [false, true] {
            let client = tcp(Domain::IPV6);
            let mut waiting = Box::pin(event_loop.sock_accept(&listener));
            begins_to_wait(waiting.as_mut()).await;
            if by_name {
                event_loop.sock_connect(&client, ("::1", address.port())).await?;
            } else {
                event_loop.sock_connect(&client, address).await?;
            }
            assert_eq!(waiting.await?.1.as_inet(), client.local_addr()?.as_socket());
        }
        Ok(())
    });
}

fn many_connections_at_once(on: On) {
    let event_loop = on.event_loop();
    let listener = Rc::new(listener());
    let address = listener.local_addr().unwrap();
    let (accepting, fd) = (event_loop.event_loop.clone(), listener.clone());
    let server = event_loop.create_task(async move {
        let mut connections: Vec<OwnedFd> = Vec::new();
        while connections.len() < 100 {
            let (connection, peer) = accepting.sock_accept(&*fd).await?;
            let port = peer.as_inet().unwrap().port();
            accepting.sock_sendall(&connection, &port.to_le_bytes()).await?;
            connections.push(connection);
        }
        Ok(connections.len())
    });
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let connecting = event_loop.event_loop.clone();
            event_loop.create_task(async move {
                let client = tcp(Domain::IPV4);
                connecting.sock_connect(&client, address).await?;
                let port = client.local_addr()?.as_socket().unwrap().port();
                assert_eq!(connecting.sock_recv(&client, 2).await?, port.to_le_bytes());
                Ok(())
            })
        })
        .collect();
    event_loop.run(async {
        for client in clients {
            client.await?;
        }
        assert_eq!(server.await?, 100);
        Ok(())
    });
    let blocking = thread::spawn(move || TcpStream::connect(address).map(drop));
    until_readable(listener.as_fd());
    blocking.join().unwrap().unwrap();
}
