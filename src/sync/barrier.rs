//! Going on together.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Error, Result},
    event_loop::{scope::Leaf, waiters::wake},
    sync::{
        locked, suspend,
        waiters::{Line, Place, Wakers},
        wake_all,
    },
};

/// A place where tasks wait until so many of them are there, and go on together. Clones are handles of one barrier.
///
/// ```text
/// Filling --the last one comes--> Draining --all are out--> Filling
///    |--reset, while some wait--> Resetting --all are out--^
///    `--abort--> Broken --reset--> Resetting or Filling
/// ```
///
/// It can be used again and again: who comes while the others go out waits for the next round.
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// let barrier = asyncio::Barrier::new(3)?;
/// let walk = async |name| {
///     let position = barrier.wait().await?;
///     asyncio::ok((name, position))
/// };
/// let together = asyncio::run(async { futures::try_join!(walk("a"), walk("b"), walk("c")) })?;
/// assert_eq!(together, (("a", 0), ("b", 1), ("c", 2)));
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Barrier`. Differs: no `async with`, of which only the beginning waits; bound to no loop.
#[derive(Clone)]
pub struct Barrier {
    core: Arc<Core>,
}

struct Core {
    parties: usize,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// How many are in. Invariant: not zero while `phase` is `Draining` or `Resetting`.
    inside: usize,
    /// Those who are in, and those who wait to get in.
    line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Filling,
    Draining,
    Resetting,
    Broken,
}

impl State {
    /// Lets those who wait see a change.
    fn enter(&mut self, phase: Phase) -> Wakers {
        self.phase = phase;
        self.line.wake_all()
    }

    /// One comes: the last one opens the barrier and is out again.
    fn come(&mut self, parties: usize) -> Verdict {
        let position = self.inside;
        match self.phase {
            Phase::Draining | Phase::Resetting => Verdict::Wait(None),
            Phase::Broken => Verdict::Go(Err(Error::BrokenBarrier("Barrier aborted".into())), Wakers::default()),
            Phase::Filling if position + 1 < parties => {
                self.inside += 1;
                Verdict::Wait(Some(position))
            }
            Phase::Filling if position == 0 => Verdict::Go(Ok(0), Wakers::default()),
            Phase::Filling => Verdict::Go(Ok(position), self.enter(Phase::Draining)),
        }
    }

    /// One who is in looks whether it can go.
    fn look(&mut self, position: usize) -> Verdict {
        let outcome = match self.phase {
            Phase::Filling => return Verdict::Wait(Some(position)),
            Phase::Draining => Ok(position),
            Phase::Resetting | Phase::Broken => Err(Error::BrokenBarrier("Abort or reset of barrier".into())),
        };
        Verdict::Go(outcome, self.leave())
    }

    /// One goes out; the last one lets those in who wait for the next round.
    fn leave(&mut self) -> Wakers {
        self.inside -= 1;
        match self.phase {
            Phase::Draining | Phase::Resetting if self.inside == 0 => self.enter(Phase::Filling),
            _ => Wakers::default(),
        }
    }
}

enum Verdict {
    /// In the line; at this position if it counts already.
    Wait(Option<usize>),
    Go(Result<usize>, Wakers),
}

impl Barrier {
    /// A barrier for so many tasks.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] "parties must be >= 1" for zero.
    ///
    /// asyncio: `asyncio.Barrier(parties)`.
    pub fn new(parties: usize) -> Result<Barrier> {
        if parties == 0 {
            return Err(Error::Value("parties must be >= 1".into()));
        }
        let state = Mutex::new(State { phase: Phase::Filling, inside: 0, line: Line::default() });
        Ok(Barrier { core: Arc::new(Core { parties, state }) })
    }

    /// Waits until all parties are there, and gives the position in which this one came, from 0.
    ///
    /// The last one does not wait at all; the others go on one iteration later. The number of those who were there
    /// before is the position, so two may have the same one if another was cancelled while they waited.
    ///
    /// # Cancel safety
    ///
    /// A wait that is cancelled or dropped does not count any more, and the barrier waits for another one in its place;
    /// after the last one came, the others go on without it.
    ///
    /// # Errors
    ///
    /// [`Error::BrokenBarrier`] "Barrier aborted" at once on an aborted barrier, "Abort or reset of barrier" if either
    /// happens meanwhile. [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Barrier.wait`.
    pub fn wait(&self) -> BarrierWait<'_> {
        BarrierWait { barrier: self, place: None, position: None, leaf: Leaf::new() }
    }

    /// Sends those who wait away with [`Error::BrokenBarrier`], and makes the barrier as new. Never waits.
    ///
    /// Who comes before they all went waits for them.
    ///
    /// # Cancel safety
    ///
    /// It is done at its first poll.
    ///
    /// # Errors
    ///
    /// None.
    ///
    /// asyncio: `Barrier.reset`.
    pub async fn reset(&self) -> Result<()> {
        let mut state = locked(&self.core.state);
        let phase = if state.inside > 0 { Phase::Resetting } else { Phase::Filling };
        let woken = state.enter(phase);
        drop(state);
        wake_all(woken);
        Ok(())
    }

    /// Breaks the barrier: whoever waits, and whoever comes, gets [`Error::BrokenBarrier`], until it is
    /// [reset](Self::reset). Never waits.
    ///
    /// # Cancel safety
    ///
    /// It is done at its first poll.
    ///
    /// # Errors
    ///
    /// None.
    ///
    /// asyncio: `Barrier.abort`.
    pub async fn abort(&self) -> Result<()> {
        let woken = locked(&self.core.state).enter(Phase::Broken);
        wake_all(woken);
        Ok(())
    }

    /// How many tasks it takes.
    ///
    /// asyncio: `Barrier.parties`.
    pub fn parties(&self) -> usize {
        self.core.parties
    }

    /// How many tasks are in and wait for the others; none while they go out.
    ///
    /// asyncio: `Barrier.n_waiting`.
    pub fn n_waiting(&self) -> usize {
        let state = locked(&self.core.state);
        if state.phase == Phase::Filling { state.inside } else { 0 }
    }

    /// Whether the barrier was aborted.
    ///
    /// asyncio: `Barrier.broken`.
    pub fn broken(&self) -> bool {
        locked(&self.core.state).phase == Phase::Broken
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = locked(&self.core.state).phase;
        match phase {
            Phase::Filling => write!(f, "<Barrier filling waiters={}/{}>", self.n_waiting(), self.core.parties),
            Phase::Draining => f.write_str("<Barrier draining>"),
            Phase::Resetting => f.write_str("<Barrier resetting>"),
            Phase::Broken => f.write_str("<Barrier broken>"),
        }
    }
}

/// What [`Barrier::wait`] gives.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Cancel safety
///
/// Dropping it takes its task out of the count.
///
/// asyncio: the coroutine `Barrier.wait`.
#[derive(Debug)]
#[must_use = "nothing is waited for until it is awaited"]
pub struct BarrierWait<'a> {
    barrier: &'a Barrier,
    place: Option<Place>,
    /// Set while it counts. Invariant: `place` is set then.
    position: Option<usize>,
    leaf: Leaf,
}

impl BarrierWait<'_> {
    /// Leaves the line, and the barrier if it is in.
    fn give_up(&mut self) {
        self.leaf.resume();
        let Some(place) = self.place.take() else { return };
        let mut state = locked(&self.barrier.core.state);
        let waker = state.line.leave(place);
        // As asyncio's condition, which takes what it gives up for a notification: it may decide who is in next.
        let next = state.line.wake_first();
        let woken = match self.position.take() {
            Some(_) => state.leave(),
            None => Wakers::default(),
        };
        drop(state);
        drop(waker);
        next.into_iter().for_each(wake);
        wake_all(woken);
    }
}

impl StdFuture for BarrierWait<'_> {
    type Output = Result<usize>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = locked(&this.barrier.core.state);
        if let Some(place) = this.place.filter(|place| !state.line.is_woken(*place)) {
            let old = state.line.refresh(place, cx.waker());
            drop(state);
            drop(old);
            suspend(&mut this.leaf, cx);
            return Poll::Pending;
        }
        let gone = this.place.take().and_then(|place| state.line.leave(place));
        let verdict = match this.position.take() {
            Some(position) => state.look(position),
            None => state.come(this.barrier.core.parties),
        };
        if let Verdict::Wait(position) = verdict {
            this.place = Some(state.line.push(cx.waker()));
            this.position = position;
        }
        drop(state);
        drop(gone);
        match verdict {
            Verdict::Wait(_) => {
                suspend(&mut this.leaf, cx);
                Poll::Pending
            }
            Verdict::Go(outcome, woken) => {
                wake_all(woken);
                this.leaf.resume();
                Poll::Ready(outcome)
            }
        }
    }
}

impl Drop for BarrierWait<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}
