//! The pulse of a stream: what has moved on it, how long it may stand still, how long it may last.
//!
//! Every request has one. Its connection keeps the pulses of the requests under way and one timer for all of them, set
//! to the earliest moment at which one could be over; it is rarely set again, since later requests mostly end later.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Why a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing moved for too long (`stream_idle_timeout`, a route's `idle_timeout`).
    Idle,
    /// The request did not come whole in time (`request_timeout`).
    Request,
    /// The stream lasted too long (`max_stream_duration`).
    Duration,
    /// The response did not come whole in time (a route's `timeout`).
    Response,
    /// The stream to the endpoint lasted too long (a cluster's `max_stream_duration`).
    Upstream,
}

/// How a request broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The client went away, or reset its stream.
    Gone,
    /// What it sent makes no sense.
    Nonsense,
}

/// What moves on a stream.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Bytes of the request's body.
    pub bytes: Cell<u64>,
    /// Whether all of the request came.
    pub complete: Cell<bool>,
    /// Whether, and how, the request broke off.
    pub broken: Cell<Option<Broken>>,
    /// Whether the response has begun.
    pub responding: Cell<bool>,
    last: Cell<Instant>,
    idle: Cell<Option<Duration>>,
    request_by: Cell<Option<Instant>>,
    over_at: Cell<Option<Instant>>,
    response_by: Cell<Option<(Instant, Expired)>>,
    expired: Cell<Option<Expired>>,
    task: RefCell<Option<Waker>>,
}

impl Pulse {
    /// A stream that begins now.
    pub(crate) fn new(complete: bool) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            complete: Cell::new(complete),
            broken: Cell::new(None),
            responding: Cell::new(false),
            last: Cell::new(Instant::now()),
            idle: Cell::new(None),
            request_by: Cell::new(None),
            over_at: Cell::new(None),
            response_by: Cell::new(None),
            expired: Cell::new(None),
            task: RefCell::new(None),
        })
    }

    /// Something moved.
    #[inline]
    pub(crate) fn beat(&self) {
        self.last.set(Instant::now());
    }

    /// A piece of the request's body came.
    pub(crate) fn receive(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.beat();
    }

    /// Waits until nothing has moved for so long, from now on.
    pub(crate) async fn silence(self: Rc<Self>, limit: Duration) {
        self.beat();
        loop {
            let due = self.last.get() + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// How long it may stand still.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle.get()
    }

    /// When it is over whatever moves.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        self.over_at.get()
    }

    /// Whether, and why, it is over.
    #[inline]
    pub(crate) fn expired(&self) -> Option<Expired> {
        self.expired.get()
    }

    /// Does `work` unless the stream is over before: then the answer that says so is all that is still to come, and only
    /// silence can end the stream again.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Expired> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match self.expired.get() {
            Some(expired) => {
                self.expired.set(None);
                self.request_by.set(None);
                self.over_at.set(None);
                self.beat();
                Poll::Ready(Err(expired))
            }
            None => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// Remembers the task to wake when the stream is over, where that is not the connection's own.
    pub(crate) fn belongs_to(&self, task: &Waker) {
        let mut known = self.task.borrow_mut();
        match &*known {
            Some(old) if old.will_wake(task) => {}
            _ => *known = Some(task.clone()),
        }
    }

    /// The earliest moment at which it is over if nothing moves, and why.
    fn due(&self) -> Option<(Instant, Expired)> {
        let request_by = self.request_by.get().filter(|_| !self.complete.get());
        [
            self.idle.get().map(|limit| (self.last.get() + limit, Expired::Idle)),
            request_by.map(|at| (at, Expired::Request)),
            self.over_at.get().map(|at| (at, Expired::Duration)),
            self.response_by.get(),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

/// The limits of one stream; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Silence.
    pub idle: Option<Duration>,
    /// From the beginning until the whole request has come.
    pub request: Option<Duration>,
    /// From the beginning until the end.
    pub duration: Option<Duration>,
}

/// The pulses of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pulses {
    active: RefCell<Vec<Rc<Pulse>>>,
    /// When the timer goes off; none while it is not set.
    armed: Cell<Option<Instant>>,
    earlier: Notify,
}

impl Pulses {
    /// A stream begins.
    pub(crate) fn add(&self, pulse: Rc<Pulse>) {
        self.active.borrow_mut().push(pulse);
    }

    /// A stream has ended.
    pub(crate) fn remove(&self, pulse: &Rc<Pulse>) {
        let mut active = self.active.borrow_mut();
        if let Some(index) = active.iter().position(|other| Rc::ptr_eq(other, pulse)) {
            active.swap_remove(index);
        }
    }

    /// Sets a stream's limits, which count from `started`.
    pub(crate) fn limit(&self, pulse: &Pulse, limits: Limits, started: Instant) {
        pulse.idle.set(limits.idle);
        pulse.request_by.set(limits.request.map(|limit| started + limit));
        pulse.over_at.set(limits.duration.map(|limit| started + limit));
        self.rearm(pulse);
    }

    /// Sets the moment at which the whole response has to have come, and why.
    pub(crate) fn respond_by(&self, pulse: &Pulse, at: Instant, why: Expired) {
        pulse.response_by.set(Some((at, why)));
        self.rearm(pulse);
    }

    fn rearm(&self, pulse: &Pulse) {
        if let Some((due, _)) = pulse.due()
            && self.armed.get().is_none_or(|armed| due < armed)
        {
            self.armed.set(Some(due));
            self.earlier.notify_one();
        }
    }

    /// Waits until streams are over, and tells them. True when one of them has begun its response already: then there
    /// is no way to say so but to break the stream.
    pub(crate) async fn watch(&self) -> bool {
        loop {
            let due = self
                .active
                .borrow()
                .iter()
                .filter(|p| p.expired.get().is_none())
                .filter_map(|p| p.due())
                .min_by_key(|due| due.0);
            self.armed.set(due.map(|due| due.0));
            match due {
                None => self.earlier.notified().await,
                Some((at, _)) if at > Instant::now() => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.earlier.notified() => {}
                    }
                }
                Some(_) => return self.expire(),
            }
        }
    }

    fn expire(&self) -> bool {
        let now = Instant::now();
        let mut responding = false;
        for pulse in &*self.active.borrow() {
            match pulse.due() {
                Some((at, why)) if at <= now && pulse.expired.get().is_none() => {
                    pulse.expired.set(Some(why));
                    responding |= pulse.responding.get();
                    if let Some(task) = pulse.task.take() {
                        task.wake();
                    }
                }
                _ => {}
            }
        }
        responding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn silence_ends_a_stream_and_movement_does_not() {
        let (pulses, pulse) = (Pulses::default(), Pulse::new(true));
        pulses.add(pulse.clone());
        pulses.limit(&pulse, Limits { idle: Some(SOON), ..Limits::default() }, Instant::now());
        let moved = Cell::new(0);
        let work = async {
            while moved.get() < 100 {
                tokio::time::sleep(SOON / 20).await;
                pulse.beat();
                moved.set(moved.get() + 1);
            }
            std::future::pending::<()>().await;
        };
        let watch = async {
            // Should the machine pause for so long that the silence is real, it is told as such.
            assert!(!pulses.watch().await);
        };
        // As the task of a stream does, which the timer has to wake.
        let stream = async {
            std::future::poll_fn(|cx| {
                pulse.belongs_to(cx.waker());
                Poll::Ready(())
            })
            .await;
            pulse.guard(work).await
        };
        let (end, ()) = tokio::join!(stream, watch);
        assert_eq!(end, Err(Expired::Idle));
        assert_eq!(pulse.expired(), None, "the answer is still to come");
    }

    #[tokio::test]
    async fn the_earliest_limit_of_all_streams_comes_first() {
        let pulses = Pulses::default();
        let (long, short) = (Pulse::new(false), Pulse::new(false));
        for pulse in [&long, &short] {
            pulses.add(pulse.clone());
        }
        pulses.limit(&long, Limits { idle: Some(LONG), ..Limits::default() }, Instant::now());
        let later = async {
            tokio::task::yield_now().await;
            short.responding.set(true);
            pulses.respond_by(&short, Instant::now() + SOON, Expired::Response);
        };
        let (responding, ()) = tokio::join!(pulses.watch(), later);
        assert!(responding);
        assert_eq!((long.expired(), short.expired()), (None, Some(Expired::Response)));
        pulses.remove(&short);
        pulses.limit(&long, Limits { idle: Some(SOON), ..Limits::default() }, Instant::now());
        assert!(!pulses.watch().await);
        assert_eq!(long.expired(), Some(Expired::Idle));
    }

    #[tokio::test]
    async fn a_request_that_came_whole_is_not_late() {
        let (pulses, pulse) = (Pulses::default(), Pulse::new(false));
        pulses.add(pulse.clone());
        let limits = Limits { request: Some(SOON), duration: Some(SOON * 3), ..Limits::default() };
        pulses.limit(&pulse, limits, Instant::now());
        pulse.complete.set(true);
        pulses.watch().await;
        assert_eq!(pulse.expired(), Some(Expired::Duration));
    }
}
