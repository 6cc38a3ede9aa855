//! sock_recvfrom, sock_recvfrom_into and sock_sendto.

use std::{net::UdpSocket, os::unix::net::UnixDatagram, rc::Rc, thread};

use asyncio::{AddrInfo, AddrInfoHints, Address, ErrorKind, Port, Resolver};
use futures::future::join;

use crate::{On, begins_to_wait, pair, turn};

on_each_selector! {
    datagrams_go_to_and_fro
    a_buffer_takes_the_beginning_of_a_datagram
    a_wait_ends_with_one_datagram
    a_cancelled_receive_loses_no_datagram
    a_datagram_is_sent_to_a_name
    a_datagram_too_large_is_an_error
    an_address_of_another_family_is_an_error
    the_largest_sizes_are_allowed
    nothing_is_a_datagram_too
    a_connected_socket_sends_and_receives_like_a_stream
    unix_datagrams_know_their_sender
    a_full_unix_receiver_is_waited_for
    a_cancelled_sendto_leaves_nothing_behind
    a_stream_has_no_sender
    datagrams_over_ipv6
    many_datagrams_keep_their_bounds
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn address(socket: &UdpSocket) -> Address {
    socket.local_addr().unwrap().into()
}

/// SOK-020
fn datagrams_go_to_and_fro(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    event_loop.run(async {
        assert_eq!(event_loop.sock_sendto(&a, b"hello", b.local_addr()?).await?, 5);
        assert_eq!(event_loop.sock_recvfrom(&b, 3).await?, (b"hel".to_vec(), address(&a)));
        assert_eq!(event_loop.sock_sendto(&a, b"", b.local_addr()?).await?, 0);
        assert_eq!(event_loop.sock_recvfrom(&b, 3).await?, (Vec::new(), address(&a)));
        assert_eq!(b.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the rest is gone");
        Ok(())
    });
}

/// SOK-021
fn a_buffer_takes_the_beginning_of_a_datagram(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    event_loop.run(async {
        let mut buffer = [b'.'; 4];
        a.send_to(b"abcdef", b.local_addr()?)?;
        assert_eq!(event_loop.sock_recvfrom_into(&b, &mut buffer).await?, (4, address(&a)));
        assert_eq!(&buffer, b"abcd");
        a.send_to(b"ghijkl", b.local_addr()?)?;
        assert_eq!(event_loop.sock_recvfrom_into(&b, &mut buffer[..2]).await?, (2, address(&a)));
        assert_eq!(&buffer, b"ghcd");
        a.send_to(b"m", b.local_addr()?)?;
        assert_eq!(event_loop.sock_recvfrom_into(&b, &mut buffer).await?, (1, address(&a)));
        assert_eq!(&buffer, b"mhcd");
        Ok(())
    });
}

fn a_wait_ends_with_one_datagram(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recvfrom(&b, 100));
        begins_to_wait(waiting.as_mut()).await;
        a.send_to(b"one", b.local_addr()?)?;
        a.send_to(b"two", b.local_addr()?)?;
        assert_eq!(waiting.await?, (b"one".to_vec(), address(&a)));
        let mut buffer = [0; 9];
        assert_eq!(event_loop.sock_recvfrom_into(&b, &mut buffer).await?.0, 3);
        let mut waiting = Box::pin(event_loop.sock_recvfrom_into(&b, &mut buffer));
        begins_to_wait(waiting.as_mut()).await;
        a.send_to(b"three", b.local_addr()?)?;
        assert_eq!(waiting.await?, (5, address(&a)));
        assert_eq!(&buffer[..5], b"three");
        Ok(())
    });
}

fn a_cancelled_receive_loses_no_datagram(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), Rc::new(udp()));
    event_loop.run(async {
        for round in 0..4_u8 {
            let (receiver, fd) = (event_loop.event_loop.clone(), b.clone());
            let task = event_loop.create_task(async move {
                if round % 2 == 0 {
                    receiver.sock_recvfrom(&*fd, 10).await?;
                } else {
                    receiver.sock_recvfrom_into(&*fd, &mut [0; 10]).await?;
                }
                Ok(())
            });
            turn().await;
            task.cancel();
            a.send_to(&[round], b.local_addr()?)?;
            assert!(task.await.unwrap_err().is_cancelled());
            assert!(!event_loop.remove_reader(&*b)?);
            assert_eq!(event_loop.sock_recvfrom(&*b, 10).await?, (vec![round], address(&a)));
        }
        Ok(())
    });
}

fn a_datagram_is_sent_to_a_name(on: On) {
    struct OneHost;
    impl Resolver for OneHost {
        fn getaddrinfo(&self, host: Option<&str>, port: &Port, hints: AddrInfoHints) -> asyncio::Result<Vec<AddrInfo>> {
            let (Some("receiver.test"), Port::Number(port)) = (host, port) else { panic!("{host:?} {port}") };
            assert_eq!((hints.family, hints.socket_type), (libc::AF_INET, libc::SOCK_DGRAM));
            Ok(vec![AddrInfo::new(([127, 0, 0, 1], *port).into(), hints.socket_type)])
        }
    }
    let event_loop = on.event_loop();
    event_loop.set_resolver(OneHost).unwrap();
    let (a, b) = (udp(), udp());
    let port = b.local_addr().unwrap().port();
    event_loop.run(async {
        assert_eq!(event_loop.sock_sendto(&a, b"by name", ("receiver.test", port)).await?, 7);
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?, (b"by name".to_vec(), address(&a)));
        assert_eq!(event_loop.sock_sendto(&a, b"by number", ("127.0.0.1", port)).await?, 9);
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?, (b"by number".to_vec(), address(&a)));
        Ok(())
    });
    let nowhere = event_loop.run_until_complete(event_loop.sock_sendto(&a, b"x", ()));
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::Value);
    let several = event_loop.sock_sendto(&a, b"x", (["one", "two"], port));
    assert_eq!(event_loop.run_until_complete(several).unwrap_err().kind(), ErrorKind::Value);
}

fn a_datagram_too_large_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    let (to, data) = (b.local_addr().unwrap(), vec![0; 70_000]);
    let error = event_loop.run_until_complete(event_loop.sock_sendto(&a, &data, to)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

fn an_address_of_another_family_is_an_error(on: On) {
    let event_loop = on.event_loop();
    let a = udp();
    let six = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9));
    let error = event_loop.run_until_complete(event_loop.sock_sendto(&a, b"x", six)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let error = event_loop.run_until_complete(event_loop.sock_sendto(&a, b"x", ("::1", 9))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resolve);
    let path = std::path::Path::new("/nonexistent");
    let error = event_loop.run_until_complete(event_loop.sock_sendto(&a, b"x", path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

fn the_largest_sizes_are_allowed(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    event_loop.run(async {
        for size in [usize::MAX, isize::MAX as usize, 1 << 40] {
            let mut waiting = Box::pin(event_loop.sock_recvfrom(&b, size));
            begins_to_wait(waiting.as_mut()).await;
            a.send_to(&[7; 60_000], b.local_addr()?)?;
            let (data, _) = waiting.await?;
            assert_eq!(data, [7; 60_000]);
            assert!(data.capacity() < 1 << 20, "{}", data.capacity());
        }
        Ok(())
    });
}

fn nothing_is_a_datagram_too(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    a.connect(b.local_addr().unwrap()).unwrap();
    event_loop.run(async {
        event_loop.sock_sendall(&a, b"").await?;
        event_loop.sock_sendall(&a, b"x").await?;
        event_loop.sock_sendall(&a, b"y").await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?, (Vec::new(), address(&a)));
        assert_eq!(event_loop.sock_recv(&b, 0).await?, b"", "which takes nothing");
        assert_eq!(event_loop.sock_recvfrom(&b, 0).await?, (Vec::new(), address(&a)), "which takes the x");
        assert_eq!(event_loop.sock_recvfrom_into(&b, &mut []).await?, (0, address(&a)), "which takes the y");
        let mut waiting = Box::pin(event_loop.sock_recvfrom(&b, 0));
        begins_to_wait(waiting.as_mut()).await;
        event_loop.sock_sendall(&a, b"z").await?;
        assert_eq!(waiting.await?, (Vec::new(), address(&a)));
        Ok(())
    });
}

fn a_connected_socket_sends_and_receives_like_a_stream(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    event_loop.run(async {
        event_loop.sock_connect(&a, b.local_addr()?).await?;
        event_loop.sock_sendall(&a, b"there").await?;
        assert_eq!(event_loop.sock_recv(&b, 10).await?, b"there");
        event_loop.sock_sendto(&b, b"back", a.local_addr()?).await?;
        assert_eq!(event_loop.sock_recv(&a, 2).await?, b"ba");
        // Nobody is there any more, which the system tells the next call.
        drop(b);
        event_loop.sock_sendall(&a, b"x").await?;
        let error = event_loop.sock_recv(&a, 10).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        Ok(())
    });
}

fn unix_datagrams_know_their_sender(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receiver");
    let b = UnixDatagram::bind(&path).unwrap();
    let a = UnixDatagram::unbound().unwrap();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recvfrom(&b, 10));
        begins_to_wait(waiting.as_mut()).await;
        assert_eq!(event_loop.sock_sendto(&a, b"path", path.as_path()).await?, 4);
        assert_eq!(waiting.await?, (b"path".to_vec(), Address::Unnamed));
        let named = UnixDatagram::bind(folder.path().join("sender"))?;
        event_loop.sock_sendto(&named, b"named", path.clone()).await?;
        let (data, sender) = event_loop.sock_recvfrom(&b, 3).await?;
        assert_eq!((data.as_slice(), &sender), (&b"nam"[..], &Address::UnixPath(folder.path().join("sender"))));
        assert_eq!(event_loop.sock_sendto(&b, b"", sender.clone()).await?, 0);
        assert_eq!(event_loop.sock_recvfrom(&named, 3).await?.0, b"");

        let missing = folder.path().join("nobody");
        let error = event_loop.sock_sendto(&a, b"x", missing.as_path()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let error = event_loop.sock_sendto(&a, b"x", folder.path().join("x".repeat(200))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        Ok(())
    });
    if cfg!(target_os = "linux") {
        abstract_datagrams(on);
    }
}

fn abstract_datagrams(on: On) {
    let event_loop = on.event_loop();
    let bytes = format!("asyncio test {} {}", std::process::id(), on.path).into_bytes();
    let name = Address::UnixAbstract(bytes[..bytes.len().min(100)].to_vec());
    let b = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).unwrap();
    let path = [&[0], &bytes[..bytes.len().min(100)]].concat();
    let path = std::path::PathBuf::from(std::ffi::OsString::from(String::from_utf8(path).unwrap()));
    b.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    let a = UnixDatagram::unbound().unwrap();
    event_loop.run(async {
        event_loop.sock_sendto(&a, b"name", name.clone()).await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?.0, b"name");
        event_loop.sock_sendto(&a, b"path", path.as_path()).await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?.0, b"path");
        event_loop.sock_sendto(&b, b"to myself", name.clone()).await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?, (b"to myself".to_vec(), name));
        Ok(())
    });
}

/// Sends until the receiver takes no more; gives how many datagrams it has.
fn fill(socket: &UnixDatagram) -> usize {
    socket.set_nonblocking(true).unwrap();
    let count = (0..).take_while(|_| socket.send(b"fill").is_ok()).count();
    assert!(count > 0);
    count
}

fn a_full_unix_receiver_is_waited_for(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receiver");
    let b = UnixDatagram::bind(&path).unwrap();
    for connected in [true, false] {
        let a = UnixDatagram::unbound().unwrap();
        a.connect(&path).unwrap();
        let filled = fill(&a);
        let a = if connected { a } else { UnixDatagram::unbound().unwrap() };
        event_loop.run(async {
            let mut waiting = Box::pin(event_loop.sock_sendto(&a, b"last", path.as_path()));
            begins_to_wait(waiting.as_mut()).await;
            turn().await;
            let received = async {
                for _ in 0..filled {
                    turn().await;
                    assert_eq!(event_loop.sock_recv(&b, 10).await?, b"fill");
                }
                event_loop.sock_recv(&b, 10).await
            };
            let (sent, received) = join(waiting, received).await;
            assert_eq!((sent?, received?), (4, b"last".to_vec()));
            Ok(())
        });
    }
}

fn a_cancelled_sendto_leaves_nothing_behind(on: On) {
    let event_loop = on.event_loop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receiver");
    let b = UnixDatagram::bind(&path).unwrap();
    let a = UnixDatagram::unbound().unwrap();
    a.connect(&path).unwrap();
    let filled = fill(&a);
    let a = Rc::new(a);
    event_loop.run(async {
        let (sender, fd, to) = (event_loop.event_loop.clone(), a.clone(), path.clone());
        let task = event_loop.create_task(async move { sender.sock_sendto(&*fd, b"never", to).await });
        turn().await;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!event_loop.remove_writer(&*a)?);
        for _ in 0..filled {
            assert_eq!(event_loop.sock_recv(&b, 10).await?, b"fill");
        }
        assert_eq!(event_loop.sock_sendto(&*a, b"next", path.as_path()).await?, 4);
        assert_eq!(event_loop.sock_recv(&b, 10).await?, b"next", "and nothing of the cancelled one");
        Ok(())
    });
}

fn a_stream_has_no_sender(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = pair();
    event_loop.run(async {
        event_loop.sock_sendall(&a, b"stream").await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 3).await?, (b"str".to_vec(), Address::Unnamed));
        assert_eq!(event_loop.sock_recvfrom(&b, 9).await?, (b"eam".to_vec(), Address::Unnamed));
        Ok(())
    });
}

fn datagrams_over_ipv6(on: On) {
    let Ok(a) = UdpSocket::bind("[::1]:0") else {
        eprintln!("not tested: this machine has no IPv6 loopback");
        return;
    };
    let event_loop = on.event_loop();
    let b = UdpSocket::bind("[::1]:0").unwrap();
    event_loop.run(async {
        let mut waiting = Box::pin(event_loop.sock_recvfrom(&b, 10));
        begins_to_wait(waiting.as_mut()).await;
        event_loop.sock_sendto(&a, b"six", b.local_addr()?).await?;
        assert_eq!(waiting.await?, (b"six".to_vec(), address(&a)));
        event_loop.sock_sendto(&a, b"name", ("::1", b.local_addr()?.port())).await?;
        assert_eq!(event_loop.sock_recvfrom(&b, 10).await?, (b"name".to_vec(), address(&a)));
        Ok(())
    });
}

fn many_datagrams_keep_their_bounds(on: On) {
    let event_loop = on.event_loop();
    let (a, b) = (udp(), udp());
    let to = b.local_addr().unwrap();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let peer = thread::spawn(move || {
        for number in 0..300_usize {
            a.send_to(&vec![number as u8; number], to).unwrap();
            gone.recv().unwrap();
        }
    });
    event_loop.run(async {
        for number in 0..300_usize {
            let (data, _) = event_loop.sock_recvfrom(&b, 1000).await?;
            assert_eq!(data, vec![number as u8; number]);
            go.send(()).unwrap();
        }
        Ok(())
    });
    peer.join().unwrap();
}
