//! create_unix_server and create_unix_connection: paths, abstract names, and the socket's file.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::FileTypeExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use asyncio::{Address, ErrorKind, PEERNAME, SOCKNAME, Server, ToUnixAddress};
use tempfile::TempDir;

use crate::{
    Net, On, TestLoop, abstract_name, client, has_ended, is_open, polls, silent,
    support::{
        Record,
        transports::{Log, PairKind, Recorder},
    },
};

on_each_selector! {
    a_path_is_listened_on_and_connected_to
    paths_are_given_in_many_ways
    a_stale_socket_is_replaced
    what_is_no_socket_is_left_alone
    the_file_goes_with_the_server
    the_file_stays_on_request
    the_file_of_a_given_socket_goes_too
    a_file_that_has_gone_is_no_trouble
    another_s_file_is_left_alone
    a_server_that_is_superseded_serves_its_clients
    abstract_names_have_no_file
    abstract_names_are_any_bytes
    what_cannot_be_found_is_an_error
    there_must_be_a_place_and_only_one
    what_belongs_to_tls_needs_it
    tls_needs_a_name
    a_full_server_is_waited_for
    a_given_socket_becomes_the_transport_s
    a_path_may_be_relative_or_a_link
    the_file_goes_with_the_loop
    a_server_that_never_served_leaves_no_file
    a_path_is_bound_without_waiting
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

fn served(event_loop: &TestLoop, address: impl ToUnixAddress) -> (Server, Record<Log>) {
    let logs = Record::<Log>::default();
    let made = logs.clone();
    let factory = move || {
        let log = Log::default();
        made.push(log.clone());
        Recorder::new(&log)
    };
    (event_loop.run(event_loop.create_unix_server(factory, address)), logs)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// UNX-001
fn a_path_is_listened_on_and_connected_to(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let seen = Record::default();
    let record = seen.clone();
    let factory = move || {
        let record = record.clone();
        silent().on_made(move |transport| {
            record.push((transport.get_extra_info(PEERNAME), transport.get_extra_info(SOCKNAME)));
        })
    };
    let server = event_loop.run(event_loop.create_unix_server(factory, &path));
    assert!(is_socket(&path));
    assert_eq!(server.sockets()[0].address(), &Address::UnixPath(path.clone()));
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, &path));
    assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::UnixPath(path.clone())));
    assert_eq!(transport.get_extra_info(SOCKNAME), Some(Address::Unnamed));
    event_loop.until(|| seen.len() == 1);
    assert_eq!(seen.take(), [(Some(Address::Unnamed), Some(Address::UnixPath(path.clone())))]);
    assert!(format!("{server:?}").contains(path.to_str().unwrap()));
    transport.close();
    server.close();
}

/// UNX-002
fn paths_are_given_in_many_ways(on: On) {
    fn check<A: ToUnixAddress>(event_loop: &TestLoop, path: &Path, address: impl Fn() -> A) {
        let (server, logs) = served(event_loop, address());
        assert!(is_socket(path));
        let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, address()));
        assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::UnixPath(path.to_owned())));
        event_loop.until(|| logs.len() == 1);
        transport.close();
        server.close();
        assert!(!path.exists());
    }
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let text = path.to_str().unwrap().to_owned();
    check(&event_loop, &path, || text.as_str());
    check(&event_loop, &path, || text.clone());
    check(&event_loop, &path, || &text);
    check(&event_loop, &path, || text.as_bytes());
    check(&event_loop, &path, || text.clone().into_bytes());
    check(&event_loop, &path, || path.as_path());
    check(&event_loop, &path, || &path);
    check(&event_loop, &path, || path.clone());
    check(&event_loop, &path, || path.as_os_str());
    check(&event_loop, &path, || Address::from(path.clone()));
    // No text at all.
    let odd = path.with_file_name(OsStr::from_bytes(b"\xff\xfe socket"));
    check(&event_loop, &odd, || odd.as_os_str().as_bytes());
}

/// UNX-003
fn a_stale_socket_is_replaced(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    assert!(is_socket(&path));
    let error = event_loop.fails(event_loop.create_unix_connection(silent, &path));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::ECONNREFUSED)));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let (server, logs) = served(&event_loop, &path);
    let _peer = client(&server);
    event_loop.until(|| logs.len() == 1);
    server.close();
    assert!(!path.exists());
}

/// UNX-005
fn what_is_no_socket_is_left_alone(on: On) {
    let event_loop = on.event_loop();
    let (folder, path) = place();
    fs::write(&path, "precious").unwrap();
    let directory = folder.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink(folder.path().join("nothing"), &dangling).unwrap();
    for path in [&path, &directory, &fifo, &dangling] {
        let error = event_loop.fails(event_loop.create_unix_server(silent, path));
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRINUSE)));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(fs::symlink_metadata(path).is_ok() && !is_socket(path));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let error = event_loop.fails(event_loop.create_unix_connection(silent, &path));
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}

/// UNX-006
fn the_file_goes_with_the_server(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let (server, logs) = served(&event_loop, &path);
    let peer = client(&server);
    event_loop.until(|| logs.len() == 1);
    assert!(path.exists());
    server.close();
    assert!(!path.exists());
    assert!(!peer.ended());
    // Serving for ever ends so, too.
    let (server, _) = served(&event_loop, &path);
    assert!(event_loop.run(async { Ok(polls(server.serve_forever(), 1).await) }).is_none());
    assert!(!path.exists());
}

/// UNX-007
fn the_file_stays_on_request(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let server = event_loop.run(event_loop.create_unix_server(silent, &path).cleanup_socket(false));
    server.close();
    event_loop.run(server.wait_closed());
    assert!(is_socket(&path));
    let server = event_loop.run(event_loop.create_unix_server(silent, &path).cleanup_socket(true));
    server.close();
    assert!(!path.exists());
}

/// UNX-008
fn the_file_of_a_given_socket_goes_too(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    for cleanup in [false, true] {
        let listener = UnixListener::bind(&path).unwrap();
        let number = listener.as_raw_fd();
        let server = event_loop.run(event_loop.create_unix_server(silent, ()).sock(listener).cleanup_socket(cleanup));
        assert_eq!(server.sockets()[0].as_raw_fd(), number);
        server.close();
        assert_eq!(path.exists(), !cleanup);
        let _ = fs::remove_file(&path);
    }
}

/// UNX-009
fn a_file_that_has_gone_is_no_trouble(on: On) {
    let event_loop = on.event_loop();
    let (folder, path) = place();
    let (server, _) = served(&event_loop, &path);
    fs::remove_file(&path).unwrap();
    server.close();
    let (server, _) = served(&event_loop, &path);
    drop(folder);
    server.close();
    event_loop.run(server.wait_closed());
}

fn another_s_file_is_left_alone(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    // A file of another kind has come to the place.
    let (server, _) = served(&event_loop, &path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    server.close();
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    // Another server has.
    let (server, _) = served(&event_loop, &path);
    let moved = path.with_extension("moved");
    fs::rename(&path, &moved).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    server.close();
    assert!(is_socket(&path) && is_socket(&moved));
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
}

fn a_server_that_is_superseded_serves_its_clients(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let (first, first_logs) = served(&event_loop, &path);
    let old = client(&first);
    event_loop.until(|| first_logs.len() == 1);
    let (second, second_logs) = served(&event_loop, &path);
    let new = client(&second);
    event_loop.until(|| second_logs.len() == 1);
    assert_eq!(first_logs.len(), 1);
    old.send(b"old");
    new.send(b"new");
    event_loop.until(|| first_logs.items()[0].received_len() + second_logs.items()[0].received_len() == 6);
    assert_eq!(first_logs.items()[0].received(), b"old");
    first.close();
    assert!(is_socket(&path), "it is the second one's");
    let _another = client(&second);
    event_loop.until(|| second_logs.len() == 2);
    second.close();
    assert!(!path.exists());
    first.abort_clients();
    second.abort_clients();
}

/// UNX-011
fn abstract_names_have_no_file(on: On) {
    let event_loop = on.event_loop();
    let name = abstract_name();
    let (server, logs) = served(&event_loop, &name);
    assert_eq!(server.sockets()[0].address(), &Address::UnixAbstract(name.as_bytes()[1..].to_vec()));
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, &name));
    assert_eq!(transport.get_extra_info(PEERNAME), Some(server.sockets()[0].address().clone()));
    event_loop.until(|| logs.len() == 1);
    transport.close();
    let error = event_loop.fails(event_loop.create_unix_server(silent, &name));
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EADDRINUSE)));
    assert!(error.to_string().contains(&name[1..]), "{error}");
    // The first one is not troubled by that.
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, &name));
    transport.close();
    server.close();
    let error = event_loop.fails(event_loop.create_unix_connection(silent, &name));
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    let (again, _) = served(&event_loop, &name);
    again.close();
    assert!(!Path::new(&name[1..]).exists());
}

fn abstract_names_are_any_bytes(on: On) {
    let event_loop = on.event_loop();
    let mut name = abstract_name().into_bytes();
    name.extend(b"\0\xff/\0");
    let (server, logs) = served(&event_loop, name.as_slice());
    let other = event_loop.run_until_complete(event_loop.create_unix_connection(silent, &name[..name.len() - 1]));
    assert_eq!(other.err().unwrap().raw_os_error(), Some(libc::ECONNREFUSED), "each byte counts");
    let address = Address::UnixAbstract(name[1..].to_vec());
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, &address));
    assert_eq!(transport.get_extra_info(PEERNAME), Some(address));
    event_loop.until(|| logs.len() == 1);
    transport.close();
    server.close();
}

/// UNX-012
fn what_cannot_be_found_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let (folder, path) = place();
    let not_found = |error: asyncio::Error| {
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::ENOENT)), "{error}");
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    };
    not_found(event_loop.fails(event_loop.create_unix_connection(silent, &path)));
    let missing = folder.path().join("missing").join("socket");
    not_found(event_loop.fails(event_loop.create_unix_server(silent, &missing)));
    not_found(event_loop.fails(event_loop.create_unix_connection(silent, &missing)));
    let long = folder.path().join("x".repeat(200 - folder.path().as_os_str().len() - 1));
    assert_eq!(long.as_os_str().len(), 200);
    for error in [
        event_loop.fails(event_loop.create_unix_server(silent, &long)),
        event_loop.fails(event_loop.create_unix_connection(silent, &long)),
    ] {
        assert!(matches!(error.kind(), ErrorKind::Value | ErrorKind::Io), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// UNX-013
fn there_must_be_a_place_and_only_one(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let stream = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let bound = || OwnedFd::from(Net::Unix.bound());
    let datagram = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    let inet = || OwnedFd::from(Net::Tcp.bound());
    let connections = [
        event_loop.create_unix_connection(silent, ()),
        event_loop.create_unix_connection(silent, &path).sock(stream()),
        event_loop.create_unix_connection(silent, ()).sock(datagram()),
        event_loop.create_unix_connection(silent, ()).sock(inet()),
        event_loop.create_unix_connection(silent, Address::from(SocketAddr::from(([127, 0, 0, 1], 1)))),
        event_loop.create_unix_connection(silent, Address::Unnamed),
    ];
    for opening in connections {
        let shown = format!("{opening:?}");
        assert_eq!(event_loop.fails(opening).kind(), ErrorKind::Value, "{shown}");
    }
    let servers = [
        event_loop.create_unix_server(silent, ()),
        event_loop.create_unix_server(silent, &path).sock(bound()),
        event_loop.create_unix_server(silent, ()).sock(datagram()),
        event_loop.create_unix_server(silent, ()).sock(inet()),
        event_loop.create_unix_server(silent, Address::from(SocketAddr::from(([127, 0, 0, 1], 1)))),
        event_loop.create_unix_server(silent, abstract_name()).max_connections(0),
    ];
    for opening in servers {
        let shown = format!("{opening:?}");
        assert_eq!(event_loop.fails(opening).kind(), ErrorKind::Value, "{shown}");
    }
    assert!(!path.exists());
    // And what is given is closed.
    let pair = PairKind::Unix.pair();
    event_loop.fails(event_loop.create_unix_connection(silent, &path).sock(pair.ours));
    assert!(has_ended(&pair.peer));
}

/// UNX-014
fn what_belongs_to_tls_needs_it(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let (second, zero) = (Duration::from_secs(1), Duration::ZERO);
    let connect = || event_loop.create_unix_connection(silent, &path);
    let connections = [
        ("server_hostname", connect().server_hostname("x")),
        ("server_hostname", connect().server_hostname("")),
        ("ssl_handshake_timeout", connect().ssl_handshake_timeout(second)),
        ("ssl_handshake_timeout", connect().ssl_handshake_timeout(zero)),
        ("ssl_shutdown_timeout", connect().ssl_shutdown_timeout(second)),
    ];
    for (name, opening) in connections {
        let error = event_loop.fails(opening);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains(name), "{error}");
    }
    let servers = [
        ("ssl_handshake_timeout", event_loop.create_unix_server(silent, &path).ssl_handshake_timeout(second)),
        ("ssl_shutdown_timeout", event_loop.create_unix_server(silent, &path).ssl_shutdown_timeout(second)),
    ];
    for (name, opening) in servers {
        let error = event_loop.fails(opening);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(!path.exists());
}

/// UNX-014
#[cfg(feature = "tls")]
fn tls_needs_a_name(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let context = asyncio::SslContext::client().unwrap();
    let connections = [
        event_loop.create_unix_connection(silent, &path).ssl(&context),
        event_loop.create_unix_connection(silent, &path).ssl(&context).server_hostname(""),
        event_loop.create_unix_connection(silent, ()).sock(UnixStream::pair().unwrap().0).ssl(&context),
    ];
    for opening in connections {
        let error = event_loop.fails(opening);
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("server_hostname"), "{error}");
    }
}

#[cfg(not(feature = "tls"))]
fn tls_needs_a_name(_: On) {
    eprintln!("not tested: it needs the feature `tls`");
}

fn a_full_server_is_waited_for(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let listener = Net::Unix.socket();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    event_loop.run(async {
        let opening = event_loop.create_unix_connection(silent, &path);
        let opening = event_loop.create_task(async move { Ok(opening.await?.0) });
        asyncio::sleep(Duration::from_millis(10)).await?;
        assert!(!opening.done());
        let accepted = listener.accept()?;
        opening.await?.close();
        drop(accepted);
        // Given up while it waits.
        let _second = listener.accept()?;
        let _filler = UnixStream::connect(&path)?;
        let opening = event_loop.create_unix_connection(silent, &path);
        let error = asyncio::timeout(Duration::from_millis(10), opening).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        Ok(())
    });
}

fn a_given_socket_becomes_the_transport_s(on: On) {
    let event_loop = on.event_loop();
    for kind in [PairKind::Unix, PairKind::Socketpair] {
        let (pair, log) = (kind.pair(), Log::default());
        let ours = crate::at_own_number(&pair.ours);
        drop(pair.ours);
        socket2::SockRef::from(&ours).set_nonblocking(false).unwrap();
        let number = ours.as_raw_fd();
        let opening = event_loop.create_unix_connection(|| Recorder::new(&log), ()).sock(ours);
        let (transport, _) = event_loop.run(opening);
        assert_eq!(transport.get_extra_info(asyncio::SOCKET), Some(number));
        transport.write(b"hello");
        assert_eq!(pair.peer.read_exactly(5), b"hello");
        pair.peer.send(b"you");
        event_loop.until(|| log.received_len() == 3);
        transport.close();
        event_loop.until(|| log.lost());
        event_loop.ticks(1);
        assert!(!is_open(number) && has_ended(&pair.peer));
    }
}

fn a_path_may_be_relative_or_a_link(on: On) {
    if !on.in_child() {
        return;
    }
    let event_loop = on.event_loop();
    let (folder, path) = place();
    std::env::set_current_dir(folder.path()).unwrap();
    let (server, logs) = served(&event_loop, "socket");
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, "socket"));
    event_loop.until(|| logs.len() == 1);
    transport.close();
    // A link to it is a way to it.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (transport, _) = event_loop.run(event_loop.create_unix_connection(silent, &link));
    event_loop.until(|| logs.len() == 2);
    transport.close();
    server.close();
    assert!(!path.exists());
    std::env::set_current_dir("/").unwrap();
}

fn the_file_goes_with_the_loop(on: On) {
    let (_folder, path) = place();
    let event_loop = on.event_loop();
    let (_server, _) = served(&event_loop, &path);
    event_loop.close().unwrap();
    assert!(!path.exists());
}

fn a_server_that_never_served_leaves_no_file(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let server = event_loop.run(event_loop.create_unix_server(silent, &path).start_serving(false));
    assert!(is_socket(&path));
    drop(server);
    assert!(!path.exists());
}

fn a_path_is_bound_without_waiting(on: On) {
    let event_loop = on.event_loop();
    let (_folder, path) = place();
    let server = event_loop.run(async {
        let opened = polls(event_loop.create_unix_server(silent, &path), 1).await;
        opened.expect("one poll is enough")
    });
    assert!(server.is_serving());
    server.close();
}
