//! What these tests show: panics of protocols: each is told of, and changes nothing.

use std::{future::IntoFuture, panic::AssertUnwindSafe};

use futures::FutureExt;

use crate::{Call, Log, On, flow::Full, nobody, sockname, udp};

on_each_selector! {
    both_of_two_datagrams_are_received
    every_callback_may_panic
    a_panic_of_pause_and_resume_changes_nothing
    a_panic_of_the_factory_comes_out
}

/// UDP-021
fn both_of_two_datagrams_are_received(on: On) {
    let event_loop = on.event_loop();
    let log = Log::hooked(|call, _| {
        if let Call::Received(data, _) = call {
            panic!("of {}", String::from_utf8_lossy(data));
        }
    });
    let transport = event_loop.bound(&log);
    let (peer, to) = (udp(), sockname(&transport).as_inet().unwrap());
    for data in [b"1", b"2"] {
        peer.send_to(data, to).unwrap();
    }
    event_loop.until(|| log.len() == 3);
    assert_eq!(log.take_data(), [b"1", b"2"]);
    let reports = event_loop.reports.take();
    for (report, text) in reports.iter().zip(["of 1", "of 2"]) {
        assert!(report.message.contains("datagram_received"), "{}", report.message);
        let error = report.exception.as_ref().unwrap();
        assert!(error.kind() == asyncio::ErrorKind::Panicked && error.to_string().contains(text), "{error}");
        assert!(report.extra["transport"].contains("DatagramTransport"));
        assert!(report.extra["protocol"].contains("Logging"), "{:?}", report.extra);
        assert_eq!(report.socket, transport.get_extra_info(asyncio::SOCKET));
    }
    assert_eq!(reports.len(), 2);
    assert!(!transport.is_closing());
    transport.sendto(b"still", peer.local_addr().unwrap());
    assert_eq!(crate::receive(&peer).0, b"still");
}

/// UDP-021
fn every_callback_may_panic(on: On) {
    let event_loop = on.event_loop();
    let log = Log::hooked(|call, _| panic!("in {call:?}"));
    let remote = nobody();
    let transport = event_loop.connected(&log, remote.local_addr().unwrap());
    transport.sendto(b"x", None);
    event_loop.until(|| log.len() == 2);
    remote.connect(sockname(&transport).as_inet().unwrap()).unwrap();
    remote.send(b"y").unwrap();
    event_loop.until(|| log.len() == 3);
    assert!(!transport.is_closing());
    transport.close();
    event_loop.until(|| log.len() == 4);
    event_loop.ticks(2);
    assert_eq!(log.len(), 4);
    assert!(transport.with_fd(|_| ()).is_none(), "it ended as any other");
    let reports = event_loop.take_reports();
    let names = ["connection_made", "error_received", "datagram_received", "connection_lost"];
    let texts = ["in Made", "in Error", "in Received", "in Lost"];
    assert_eq!(reports.len(), 4);
    for ((report, name), text) in reports.iter().zip(names).zip(texts) {
        assert!(report.0.contains(name) && report.1.contains(text), "{report:?}");
    }
}

/// UDP-021
fn a_panic_of_pause_and_resume_changes_nothing(on: On) {
    let event_loop = on.event_loop();
    let log = Log::hooked(|call, _| {
        if matches!(call, Call::Pause | Call::Resume) {
            panic!("of its own");
        }
    });
    let full = Full::new(&event_loop, &log, false);
    full.transport.set_write_buffer_limits(0, 0).unwrap();
    full.send(b"1");
    full.send(b"2");
    assert_eq!(log.take(), [Call::Made, Call::Pause]);
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(full.drain());
        event_loop.run_once(std::time::Duration::from_millis(10)).unwrap();
    }
    assert_eq!(received, [b"1", b"2"]);
    assert_eq!(log.take(), [Call::Resume]);
    let reports = event_loop.take_reports();
    assert!(
        matches!(&reports[..], [(pause, _), (resume, _)]
        if pause.contains("pause_writing") && resume.contains("resume_writing")),
        "{reports:?}"
    );
    assert!(!full.transport.is_closing());
}

fn a_panic_of_the_factory_comes_out(on: On) {
    let event_loop = on.event_loop();
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let open = event_loop.create_datagram_endpoint(|| -> crate::Logging { panic!("no protocol") }).sock(ours);
    event_loop.run(async {
        let payload = AssertUnwindSafe(open.into_future()).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"no protocol"));
        Ok(())
    });
    assert!(crate::is_gone(&theirs));
}
