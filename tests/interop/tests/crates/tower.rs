//! What these tests show: stacks of tower, with its layers and with one of our own, over services that are not `Send`.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use asyncio::{Error, ErrorKind, Result, create_task, tokio_compat::CompatExt};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{close, connect, serve, support::loops::On};

on_each_selector! {
    a_stack_limits_time_by_the_loop
    a_limit_of_towers_lets_so_many_in
    what_is_too_much_is_shed
    towers_own_timeout_works_under_compat
    a_service_of_connections_is_called
}

/// Gives what the service takes too long for up, by [`asyncio::timeout`].
#[derive(Clone, Copy)]
struct TimeLimit(Duration);

impl<S> Layer<S> for TimeLimit {
    type Service = Limited<S>;

    fn layer(&self, service: S) -> Limited<S> {
        Limited { service, limit: self.0 }
    }
}

#[derive(Clone)]
struct Limited<S> {
    service: S,
    limit: Duration,
}

impl<R, S> Service<R> for Limited<S>
where
    S: Service<R>,
    S::Future: 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.service.poll_ready(cx).map_err(|error| Error::other(error.into()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (limit, answering) = (self.limit, self.service.call(request));
        let answering = async { answering.await.map_err(|error| Error::other(error.into())) };
        Box::pin(asyncio::timeout(limit, answering))
    }
}

fn a_stack_limits_time_by_the_loop(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let (began, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    event_loop.run(async {
        let (begin, end) = (began.clone(), ended.clone());
        let mut service = ServiceBuilder::new()
            .layer(TimeLimit(Duration::from_secs(10)))
            .map_request(Duration::from_secs)
            .service_fn(move |delay: Duration| {
                let (begin, end) = (begin.clone(), end.clone());
                async move {
                    begin.set(begin.get() + 1);
                    asyncio::sleep(delay).await?;
                    end.set(end.get() + 1);
                    Ok::<_, Error>(delay)
                }
            });
        assert_eq!(service.ready().await?.call(9).await?, Duration::from_secs(9));
        assert_eq!(service.ready().await?.call(11).await.unwrap_err().kind(), ErrorKind::Timeout);
        Ok(())
    });
    assert_eq!((began.get(), ended.get()), (2, 1));
}

fn a_limit_of_towers_lets_so_many_in(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    let (begin, most) = (event_loop.time(), Rc::new(RefCell::new((0, 0))));
    event_loop.run(async {
        let counts = most.clone();
        let service = ServiceBuilder::new().concurrency_limit(2).service_fn(move |number: u32| {
            let counts = counts.clone();
            async move {
                let running = counts.borrow().0 + 1;
                let peak = counts.borrow().1.max(running);
                counts.replace((running, peak));
                asyncio::sleep(Duration::from_secs(10)).await?;
                counts.borrow_mut().0 -= 1;
                Ok::<_, Error>(number)
            }
        });
        let calls: Vec<_> = (0..6).map(|number| create_task(service.clone().oneshot(number))).collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await? as usize, number);
        }
        Ok(())
    });
    assert_eq!(*most.borrow(), (0, 2));
    assert_eq!(event_loop.time() - begin, Duration::from_secs(30));
}

fn what_is_too_much_is_shed(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let open = Rc::new(asyncio::Event::new());
        let theirs = open.clone();
        let service = ServiceBuilder::new().load_shed().concurrency_limit(1).service_fn(move |()| {
            let open = theirs.clone();
            async move { open.wait().await.map(drop) }
        });
        let first = create_task({
            let service = service.clone();
            async move { service.oneshot(()).await.map_err(Error::other) }
        });
        asyncio::sleep(Duration::ZERO).await?;
        let second = service.oneshot(()).await.unwrap_err();
        assert!(second.is::<tower::load_shed::error::Overloaded>());
        open.set();
        first.await
    });
}

fn towers_own_timeout_works_under_compat(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let never = service_fn(|()| std::future::pending::<Result<()>>());
        let service = ServiceBuilder::new().timeout(Duration::from_millis(5)).service(never);
        let error = async { service.oneshot(()).await }.compat().await.unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>());
        Ok(())
    });
}

fn a_service_of_connections_is_called(on: On) {
    use futures::{AsyncReadExt, AsyncWriteExt};
    let event_loop = on.event_loop();
    event_loop.run(async {
        let (server, address) = serve(async |mut stream| {
            stream.write_all(b"hello").await?;
            stream.close().await?;
            Ok(())
        })
        .await?;
        let mut connector =
            ServiceBuilder::new().layer(TimeLimit(Duration::from_secs(30))).concurrency_limit(4).service_fn(connect);
        for _ in 0..3 {
            let mut stream = connector.ready().await?.call(address).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            assert_eq!(text, "hello");
        }
        close(server).await
    });
}
