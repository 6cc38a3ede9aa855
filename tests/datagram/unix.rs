//! What these tests show: unix datagram endpoints.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixDatagram},
    path::Path,
    time::Duration,
};

use asyncio::{Address, ErrorKind, PEERNAME, socket};
use tracing::Level;

use crate::{Call, Log, Logging, On, flow::Full, is_gone, sockname, support::failure};

on_each_selector! {
    senders_are_known_by_their_paths
    a_full_receiver_gets_everything_in_order
    abort_drops_what_waits
    a_connected_endpoint_sends_to_one_path
    a_stale_socket_is_replaced
    another_file_is_not_replaced
    a_folder_that_cannot_be_looked_into_is_told_of
    abstract_names_work_as_paths
    who_is_not_there_is_an_error
    a_peer_that_goes_away_is_an_error_received
    a_large_datagram_comes_whole
    a_pair_needs_no_names
    a_receiver_that_never_reads_is_waited_for_in_vain
}

/// UDP-016
fn senders_are_known_by_their_paths(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    let log = Log::default();
    let open = |log: &Log| event_loop.create_datagram_endpoint(log.protocol());
    let (a, _) = event_loop.run(open(&log).local_addr(paths[0].as_path()));
    let (b, _) = event_loop.run(open(&Log::default()).local_addr(paths[1].clone()).family(socket::AF_UNIX));
    let (nameless, _) = event_loop.run(open(&Log::default()).family(socket::AF_UNIX));
    let (connected, _) = event_loop.run(open(&Log::default()).remote_addr(paths[0].as_path()));
    assert_eq!([sockname(&a), sockname(&b)], paths.clone().map(Address::UnixPath));
    assert_eq!([sockname(&nameless), sockname(&connected)], [Address::Unnamed, Address::Unnamed]);
    assert_eq!(connected.get_extra_info(PEERNAME), Some(Address::UnixPath(paths[0].clone())));
    assert_eq!(a.get_extra_info(PEERNAME), None);
    b.sendto(b"b", paths[0].as_path());
    nameless.sendto(b"nameless", paths[0].clone());
    connected.sendto(b"connected", None);
    event_loop.until(|| log.len() == 4);
    let expected = [
        Call::Made,
        Call::Received(b"b".to_vec(), Address::UnixPath(paths[1].clone())),
        Call::Received(b"nameless".to_vec(), Address::Unnamed),
        Call::Received(b"connected".to_vec(), Address::Unnamed),
    ];
    assert_eq!(log.take(), expected);
    a.close();
    event_loop.ticks(1);
    assert!(paths[0].exists(), "as asyncio leaves it");
}

/// UDP-019
fn a_full_receiver_gets_everything_in_order(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        let data: Vec<Vec<u8>> = (0..112_u8).map(|number| vec![number; 1024]).collect();
        data.iter().for_each(|data| full.send(data));
        full.transport.close();
        full.send(b"not any more");
        assert!(full.transport.is_closing());
        assert_eq!(log.take(), [Call::Made, Call::Pause]);
        event_loop.ticks(3);
        assert_eq!(log.take(), [], "nobody has drained");
        assert_eq!(full.transport.get_write_buffer_size(), 112 * 1032);

        let mut received = Vec::new();
        while log.calls.items().last() != Some(&Call::Lost(None)) {
            let left = full.transport.get_write_buffer_size();
            assert!(left > 0 || full.transport.with_fd(|_| ()).is_some());
            received.extend(full.drain());
            event_loop.run_once(Duration::from_millis(10)).unwrap();
        }
        received.extend(full.drain());
        assert_eq!(received, data);
        assert_eq!(log.take(), [Call::Resume, Call::Lost(None)]);
        assert_eq!(full.transport.get_write_buffer_size(), 0);
    }
}

/// UDP-020
fn abort_drops_what_waits(on: On) {
    for connected in [true, false] {
        for close_first in [true, false] {
            let event_loop = on.event_loop();
            let log = Log::default();
            let full = Full::new(&event_loop, &log, connected);
            full.send(b"dropped");
            full.send(b"this, too");
            if close_first {
                full.transport.close();
                event_loop.ticks(2);
            }
            assert!(full.transport.get_write_buffer_size() > 0);
            full.transport.abort();
            assert_eq!((full.transport.get_write_buffer_size(), log.take()), (0, vec![Call::Made]));
            event_loop.ticks(1);
            assert_eq!(log.take(), [Call::Lost(None)]);
            assert_eq!(event_loop.next_deadline(), None);
            event_loop.ticks(2);
            assert_eq!(full.drain(), Vec::<Vec<u8>>::new());
            assert_eq!(log.take(), []);
        }
    }
}

/// UDP-002
fn a_connected_endpoint_sends_to_one_path(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receiver");
    let receiver = UnixDatagram::bind(&path).unwrap();
    let transport = event_loop.connected(&Log::default(), path.as_path());
    transport.sendto(b"1", None);
    transport.sendto(b"2", path.as_path());
    let (kind, text) = failure(transport.try_sendto(b"3", folder.path().join("other")));
    assert!(kind == ErrorKind::Value && text.contains(path.to_str().unwrap()), "{text}");
    let mut buffer = [0];
    for expected in [b"1", b"2"] {
        receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer, expected);
    }
}

fn a_stale_socket_is_replaced(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stale");
    let before = UnixDatagram::bind(&path).unwrap();
    let log = Log::default();
    event_loop.run(event_loop.create_datagram_endpoint(log.protocol()).local_addr(path.as_path()));
    // Also one that somebody has still.
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"to the new one", &path).unwrap();
    event_loop.until(|| log.len() == 2);
    assert_eq!(log.take_data(), [b"to the new one"]);
    before.set_nonblocking(true).unwrap();
    assert!(before.recv(&mut [0]).is_err());
}

fn another_file_is_not_replaced(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "precious").unwrap();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).local_addr(path.as_path());
    let error = event_loop.fail(open);
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

fn a_folder_that_cannot_be_looked_into_is_told_of(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).local_addr(file.join("socket"));
    let (error, lines) = crate::support::logs(|| event_loop.fail(open));
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    let [(level, text)] = &lines[..] else { panic!("{lines:?}") };
    assert!(*level == Level::ERROR && text.contains("stale UNIX socket"), "{text}");
}

fn abstract_names_work_as_paths(on: On) {
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let event_loop = on.event_loop();
    let name = format!("asyncio datagram {} {}", std::process::id(), on.path);
    let address = Address::UnixAbstract(name.as_bytes()[..name.len().min(100)].to_vec());
    let log = Log::default();
    let open = event_loop.create_datagram_endpoint(log.protocol()).local_addr(&address);
    let (transport, _) = event_loop.run(open);
    assert_eq!(sockname(&transport), address);
    let client_log = Log::default();
    let sender = event_loop.connected(&client_log, &address);
    assert_eq!(sender.get_extra_info(PEERNAME), Some(address.clone()));
    sender.sendto(b"1", None);
    sender.sendto(b"2", &address);
    transport.sendto(b"to myself", &address);
    event_loop.until(|| log.len() == 4);
    let senders = [Address::Unnamed, Address::Unnamed, address];
    let data = [&b"1"[..], b"2", b"to myself"];
    let received = senders.into_iter().zip(data).map(|(sender, data)| Call::Received(data.to_vec(), sender));
    assert!(log.take().into_iter().skip(1).eq(received));
}

fn who_is_not_there_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let open = event_loop.create_datagram_endpoint(|| -> Logging { unreachable!() }).remote_addr(missing.as_path());
    let error = event_loop.fail(open);
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(error.to_string().contains("missing"), "{error}");
    let log = Log::default();
    let (transport, _) = event_loop.run(event_loop.create_datagram_endpoint(log.protocol()).family(socket::AF_UNIX));
    transport.sendto(b"x", missing);
    assert_eq!(log.take(), [Call::Made, Call::Error(Some(libc::ENOENT))]);
    assert!(!transport.is_closing());
    // A stale socket: nobody has it open.
    let stale = folder.path().join("stale");
    drop(UnixDatagram::bind(&stale).unwrap());
    transport.sendto(b"x", stale.as_path());
    assert_eq!(log.take(), [Call::Error(Some(libc::ECONNREFUSED))]);
    assert!(fs::metadata(&stale).unwrap().file_type().is_socket(), "only binding replaces it");
}

fn a_peer_that_goes_away_is_an_error_received(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, theirs) = event_loop.paired(&log);
    transport.sendto(b"x", None);
    assert_eq!(theirs.recv(&mut [0]).unwrap(), 1);
    drop(theirs);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Call::Made]);
    transport.sendto(b"x", None);
    assert_eq!(log.take(), [Call::Error(Some(libc::ECONNREFUSED))]);
    event_loop.ticks(3);
    assert!(!transport.is_closing());
    // What waits when it goes away is given up, one after the other.
    let full = Full::new(&event_loop, &log, true);
    full.send(b"1");
    full.send(b"2");
    full.transport.close();
    assert_eq!(log.take(), [Call::Made]);
    let sender = full.transport.clone();
    drop(full);
    event_loop.until(|| log.calls.items().last() == Some(&Call::Lost(None)));
    let calls = log.take();
    let [Call::Error(Some(_)), Call::Error(Some(_)), Call::Lost(None)] = calls[..] else { panic!("{calls:?}") };
    assert_eq!(sender.get_write_buffer_size(), 0);
}

fn a_large_datagram_comes_whole(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, theirs) = event_loop.paired(&log);
    assert_eq!(log.take(), [Call::Made]);
    let data: Vec<u8> = (0..150_000).map(|index| (index % 251) as u8).collect();
    assert_eq!(theirs.send(&data).unwrap(), data.len());
    event_loop.until(|| log.len() == 1);
    assert_eq!(log.take_data(), std::slice::from_ref(&data));
    transport.sendto(&data, None);
    let mut buffer = vec![0; 200_000];
    assert_eq!(theirs.recv(&mut buffer).unwrap(), data.len());
    assert_eq!(buffer[..data.len()], data);
}

fn a_pair_needs_no_names(on: On) {
    let event_loop = on.event_loop();
    let log = Log::default();
    let (transport, theirs) = event_loop.paired(&log);
    assert_eq!(sockname(&transport), Address::Unnamed);
    assert_eq!(transport.get_extra_info(PEERNAME), Some(Address::Unnamed));
    transport.sendto(b"x", None);
    assert_eq!(theirs.recv(&mut [0]).unwrap(), 1);
    assert_eq!(failure(transport.try_sendto(b"x", Path::new("/nowhere"))).0, ErrorKind::Value);
    theirs.send(b"y").unwrap();
    theirs.send(b"").unwrap();
    event_loop.until(|| log.len() == 3);
    assert_eq!(log.take_data(), [&b"y"[..], b""]);
    transport.close();
    event_loop.ticks(1);
    assert!(is_gone(&theirs));
}

/// UDP-020
fn a_receiver_that_never_reads_is_waited_for_in_vain(on: On) {
    for connected in [true, false] {
        let event_loop = on.event_loop();
        let log = Log::default();
        let full = Full::new(&event_loop, &log, connected);
        full.send(b"never");
        full.transport.close();
        event_loop.ticks(5);
        assert_eq!(log.take(), [Call::Made]);
        event_loop.close().unwrap();
        assert_eq!(log.take(), []);
        assert!(full.transport.with_fd(|_| ()).is_none());
    }
}
