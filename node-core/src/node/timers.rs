//! One queue of deadlines for the whole node, so that a driver needs one timer.

use crate::{sorted::Set, time::Instant};
use alloc::vec::Vec;
use core::{
    sync::atomic::{AtomicU64, Ordering},
    task::Waker,
};
use std::sync::Mutex;

/// Whose deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The control plane.
    Control,
    /// A session, by its number.
    Session(u64),
    /// A pipe whose handshake takes too long.
    Pipe(u64),
    /// A pipe whose peer takes too long to say whether it goes on with a session.
    Offer(u64),
}

/// Deadlines, shared by all sessions. An owner arms only deadlines that are earlier than the one it has armed; when
/// that one passes, it looks again. So a busy session costs one entry, and one change per acknowledgement delay.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Set<(Instant, Due)>,
    waker: Option<Waker>,
}

impl Timers {
    pub(super) fn arm(&self, at: Instant, due: Due) {
        let wake = {
            let mut queue = lock(&self.queue);
            let earliest = queue.entries.first().is_none_or(|(first, _)| at < *first);
            queue.entries.insert((at, due));
            if earliest { queue.waker.take() } else { None }
        };
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    /// Replaces a deadline by an earlier one of the same owner.
    fn bring_forward(&self, from: u64, at: Instant, due: Due) {
        if from != u64::MAX {
            let from = Instant::from_micros(from);
            lock(&self.queue).entries.remove(&(from, due));
        }
        self.arm(at, due);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        lock(&self.queue).entries.first().map(|(at, _)| *at)
    }

    /// Asks to be woken when a deadline earlier than all known ones is armed.
    pub(super) fn watch(&self, waker: &Waker) {
        lock(&self.queue).waker = Some(waker.clone());
    }

    pub(super) fn take_due(&self, now: Instant) -> Vec<Due> {
        let mut queue = lock(&self.queue);
        let mut due = Vec::new();
        while queue.entries.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(queue.entries.pop_first().map(|(_, due)| due));
        }
        due
    }
}

/// The earliest deadline that one owner has armed.
#[derive(Debug)]
pub(super) struct Armed(AtomicU64);

impl Armed {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Arms `deadline` unless an earlier one is armed already.
    pub(super) fn arm(&self, timers: &Timers, due: Due, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let at = deadline.as_micros();
        if at < self.0.load(Ordering::Relaxed) {
            let armed = self.0.fetch_min(at, Ordering::Relaxed);
            if at < armed {
                timers.bring_forward(armed, deadline, due);
            }
        }
    }

    /// The armed deadline has passed.
    pub(super) fn fired(&self, now: Instant) {
        if self.0.load(Ordering::Relaxed) <= now.as_micros() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

/// A lock whose holder panicked still guards consistent data: every change is completed before anything can fail.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
