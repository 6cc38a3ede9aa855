//! What these tests show: futures-rustls over streams, where this crate's own TLS is not wanted.

use std::{cell::Cell, rc::Rc, sync::Arc};

use asyncio::{Error, Result, rustls};
use futures::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    an_encrypted_echo_goes_both_ways_to_its_end
    a_certificate_that_is_not_trusted_ends_the_handshake
}

fn configurations() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["loopback".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let server = ServerConfig::builder().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key).unwrap();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    (server, ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn an_encrypted_echo_goes_both_ways_to_its_end(on: On) {
    let event_loop = on.event_loop();
    let count = Rc::new(Cell::new(0));
    event_loop.run(async {
        let (server, client) = configurations();
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(server)), count.clone());
        let (server, address) = serve(async move |stream| {
            let mut stream = acceptor.accept(stream).await?;
            let mut buffer = vec![0; 10_000];
            loop {
                let length = stream.read(&mut buffer).await?;
                seen.set(seen.get() + length);
                if length == 0 {
                    stream.close().await?;
                    return Ok(());
                }
                stream.write_all(&buffer[..length]).await?;
                stream.flush().await?;
            }
        })
        .await?;
        let connector = TlsConnector::from(Arc::new(client));
        let stream = connector.connect("loopback".try_into().map_err(Error::other)?, connect(address).await?).await?;
        let (mut reader, mut writer) = stream.split();
        let sent: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let sending = asyncio::create_task(async move {
            writer.write_all(&sent).await?;
            writer.flush().await?;
            Ok(writer)
        });
        let mut answer = vec![0; expected.len()];
        reader.read_exact(&mut answer).await?;
        assert!(answer == expected);
        let mut writer = sending.await?;
        writer.close().await?;
        assert_eq!(reader.read(&mut [0]).await?, 0, "the server said its end");
        close(server).await
    });
    assert_eq!(count.get(), 1_000_000);
}

fn a_certificate_that_is_not_trusted_ends_the_handshake(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let ((server, _), (_, client)) = (configurations(), configurations());
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (server, address) = serve(async move |stream| {
            assert!(acceptor.accept(stream).await.is_err(), "the client sends an alert");
            Ok(())
        })
        .await?;
        let connector = TlsConnector::from(Arc::new(client));
        let connecting = connector.connect("loopback".try_into().map_err(Error::other)?, connect(address).await?);
        let refused: Result<_, std::io::Error> = connecting.await;
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("certificate"), "{text}");
        close(server).await
    });
}
