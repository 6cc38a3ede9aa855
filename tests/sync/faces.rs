//! A queue as stream and sink.
use std::{pin::pin, task::Poll};

use asyncio::{ErrorKind, LifoQueue, PriorityQueue, Queue, Result, create_task};
use futures::{
    Sink, SinkExt, Stream, StreamExt, TryStreamExt, future,
    stream::{self, FusedStream},
};

use crate::{
    poll_now, poll_pinned,
    support::{failure, run},
    turns,
};

#[test]
fn a_stream_of_a_queue_ends_when_it_is_shut_down_and_empty() {
    run(async {
        let queue = Queue::new(0);
        let mut items = queue.clone();
        let reader = create_task(async move {
            let mut got = Vec::new();
            while let Some(item) = items.next().await {
                got.push(item);
            }
            assert!(items.is_terminated());
            assert_eq!(items.next().await, None);
            Ok(got)
        });
        for item in 0..3 {
            queue.put(item).await?;
            turns(2).await?;
        }
        queue.put_nowait(3)?;
        queue.put_nowait(4)?;
        assert!(!queue.is_terminated());
        queue.shutdown(false);
        assert!(!queue.is_terminated(), "there is something left");
        assert_eq!(reader.await?, [0, 1, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn a_stream_and_a_sink_of_each_kind() {
    async fn through<Q>(queue: Q, mut sink: Q) -> Result<Vec<u8>>
    where
        Q: Stream<Item = u8> + Sink<u8, Error = asyncio::Error> + FusedStream + Unpin,
    {
        sink.send_all(&mut stream::iter([Ok(1), Ok(3), Ok(2)])).await?;
        sink.close().await?;
        Ok(queue.collect().await)
    }
    run(async {
        let queue = Queue::new(3);
        assert_eq!(through(queue.clone(), queue).await?, [1, 3, 2]);
        let queue = LifoQueue::new(3);
        assert_eq!(through(queue.clone(), queue).await?, [2, 3, 1]);
        let queue = PriorityQueue::new(3);
        assert_eq!(through(queue.clone(), queue).await?, [1, 2, 3]);
        Ok(())
    });
}

#[test]
fn a_forward_into_a_queue_waits_for_room_and_shuts_it_down_at_the_end() {
    run(async {
        let (queue, items) = (Queue::new(2), Queue::new(0));
        (0..10).try_for_each(|item| items.put_nowait(item))?;
        items.shutdown(false);
        let forward = create_task(items.map(Ok).forward(queue.clone()));
        turns(5).await?;
        assert_eq!(queue.qsize(), 2);
        let got: Vec<u8> = queue.clone().collect().await;
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        forward.await?;
        assert_eq!(failure(queue.put_nowait(1)).0, ErrorKind::QueueShutDown);
        Ok(())
    });
}

#[test]
fn a_sink_that_is_ready_has_its_place() {
    run(async {
        let queue = Queue::new(1);
        let mut sink = queue.clone();
        future::poll_fn(|cx| sink.poll_ready_unpin(cx)).await?;
        future::poll_fn(|cx| sink.poll_ready_unpin(cx)).await?;
        assert!(queue.full(), "the place is taken");
        assert_eq!(queue.qsize(), 0);
        assert_eq!(failure(queue.put_nowait(1)).0, ErrorKind::QueueFull);
        let mut put = pin!(queue.put(2));
        assert!(poll_pinned(put.as_mut()).is_pending());
        sink.start_send_unpin(3)?;
        assert_eq!(failure(sink.start_send_unpin(4)).0, ErrorKind::QueueFull, "it was not asked before");
        assert_eq!(queue.get().await?, 3);
        put.await?;
        assert_eq!(queue.get().await?, 2);
        sink.start_send_unpin(5)?;
        Ok(())
    });
}

#[test]
fn a_sink_that_is_dropped_gives_its_place_back() {
    let queue = Queue::new(1);
    let mut sink = queue.clone();
    assert!(poll_now(future::poll_fn(|cx| sink.poll_ready_unpin(cx))).is_ready());
    let mut put = pin!(queue.put(1));
    assert!(poll_pinned(put.as_mut()).is_pending());
    assert!(!sink.clone().full() || queue.full());
    drop(sink);
    assert!(poll_pinned(put.as_mut()).is_ready());
    assert_eq!(queue.get_nowait().unwrap(), 1);
}

#[test]
fn a_clone_of_a_sink_has_no_place() {
    let queue = Queue::new(1);
    let mut sink = queue.clone();
    assert!(poll_now(future::poll_fn(|cx| sink.poll_ready_unpin(cx))).is_ready());
    let mut other = sink.clone();
    assert!(poll_now(future::poll_fn(|cx| other.poll_ready_unpin(cx))).is_pending());
    drop(other);
    sink.start_send_unpin(1).unwrap();
    assert_eq!(queue.get_nowait().unwrap(), 1);
    assert!(!queue.full());
}

#[test]
fn a_sink_of_a_queue_that_was_shut_down_fails() {
    run(async {
        let queue = Queue::new(1);
        let (mut ready, mut waits) = (queue.clone(), queue.clone());
        future::poll_fn(|cx| ready.poll_ready_unpin(cx)).await?;
        let sender = create_task(async move { waits.send(1).await });
        turns(1).await?;
        queue.shutdown(false);
        assert_eq!(failure(sender.await).0, ErrorKind::QueueShutDown);
        assert_eq!(failure(ready.start_send_unpin(2)).0, ErrorKind::QueueShutDown);
        assert_eq!(failure(ready.send(3).await).0, ErrorKind::QueueShutDown);
        assert!(!queue.full());
        Ok(())
    });
}

/// The stream was woken, and its handle goes: another one gets the item.
#[test]
fn a_stream_that_is_dropped_when_it_was_woken_wakes_the_next() {
    let queue = Queue::new(0);
    let mut first = queue.clone();
    assert!(poll_now(first.next()).is_pending());
    let mut second = pin!(queue.get());
    assert!(poll_pinned(second.as_mut()).is_pending());
    let mut third = pin!(queue.get());
    assert!(poll_pinned(third.as_mut()).is_pending());
    queue.put_nowait(1).unwrap();
    assert!(poll_pinned(third.as_mut()).is_pending(), "it is the first one's turn");
    drop(first);
    assert!(matches!(poll_pinned(second.as_mut()), Poll::Ready(Ok(1))));
}

/// A stream that nobody polls any more is no reason to wait: who comes after it is told, too.
#[test]
fn a_stream_that_is_kept_and_not_polled_holds_up_nobody() {
    let queue = Queue::new(0);
    let (mut first, mut other) = (queue.clone(), queue.clone());
    assert!(poll_now(first.next()).is_pending());
    assert!(poll_now(other.next()).is_pending());
    let mut second = pin!(first.get());
    assert!(poll_pinned(second.as_mut()).is_pending());
    queue.put_nowait(1).unwrap();
    assert!(matches!(poll_pinned(second.as_mut()), Poll::Ready(Ok(1))));
    queue.put_nowait(2).unwrap();
    assert_eq!(poll_now(other.next()), Poll::Ready(Some(2)));
}

/// The same for a sink.
#[test]
fn a_sink_that_is_kept_and_not_polled_holds_up_nobody() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut first = queue.clone();
    assert!(poll_now(first.send(1)).is_pending());
    let mut second = pin!(queue.put(2));
    assert!(poll_pinned(second.as_mut()).is_pending());
    assert_eq!(queue.get_nowait().unwrap(), 0);
    assert!(poll_pinned(second.as_mut()).is_ready());
    assert_eq!(queue.get_nowait().unwrap(), 2);
}

#[test]
fn a_sink_that_is_dropped_when_it_was_woken_wakes_the_next() {
    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let mut first = queue.clone();
    assert!(poll_now(first.send(1)).is_pending());
    let mut second = pin!(queue.put(2));
    assert!(poll_pinned(second.as_mut()).is_pending());
    let mut third = pin!(queue.put(3));
    assert!(poll_pinned(third.as_mut()).is_pending());
    assert_eq!(queue.get_nowait().unwrap(), 0);
    assert!(poll_pinned(third.as_mut()).is_pending(), "it is the first one's turn");
    drop(first);
    assert!(poll_pinned(second.as_mut()).is_ready());
    assert_eq!(queue.get_nowait().unwrap(), 2);
}

/// `next()` itself may come and go: the handle keeps its turn.
#[test]
fn a_stream_keeps_its_turn_between_two_awaits() {
    let queue = Queue::new(0);
    let mut first = queue.clone();
    assert!(poll_now(first.next()).is_pending());
    let mut second = pin!(queue.get());
    assert!(poll_pinned(second.as_mut()).is_pending());
    queue.put_nowait(1).unwrap();
    assert!(matches!(poll_now(first.next()), Poll::Ready(Some(1))));
    queue.put_nowait(2).unwrap();
    assert!(matches!(poll_pinned(second.as_mut()), Poll::Ready(Ok(2))));
}

/// Rule 3: a stream has no room for a cancellation, so the coroutine is dropped.
#[test]
fn a_task_that_is_cancelled_in_a_stream_is_dropped_and_takes_nothing() {
    run(async {
        let queue = Queue::new(0);
        let mut items = queue.clone();
        let task = create_task(async move {
            let _ = items.next().await;
            panic!("it is dropped before");
        });
        turns(1).await?;
        queue.put_nowait(1)?;
        task.cancel();
        let outcome: Result<()> = task.await;
        // It was woken for the item: whether it sees it first or is dropped first, nothing may be lost in silence.
        match outcome {
            Err(error) if error.is_cancelled() => assert_eq!(queue.get_nowait()?, 1),
            other => assert_eq!(failure(other).0, ErrorKind::Panicked),
        }
        let mut items = queue.clone();
        let task = create_task(async move {
            let _ = items.next().await;
            panic!("it is dropped before");
        });
        turns(1).await?;
        task.cancel();
        turns(1).await?;
        queue.put_nowait(2)?;
        let outcome: Result<()> = task.await;
        assert!(outcome.unwrap_err().is_cancelled());
        assert_eq!(queue.get_nowait()?, 2);
        Ok(())
    });
}

#[test]
fn several_streams_share_the_items() {
    run(async {
        let queue = Queue::new(0);
        let readers = [0, 1, 2].map(|_| create_task(queue.clone().map(Ok).try_collect::<Vec<u8>>()));
        turns(1).await?;
        for item in 0..30 {
            queue.put(item).await?;
            turns(1).await?;
        }
        queue.shutdown(false);
        let mut all = Vec::new();
        for reader in readers {
            let items = reader.await?;
            assert!(items.is_sorted() && items.len() == 10, "they take turns: {items:?}");
            all.extend(items);
        }
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
        Ok(())
    });
}
