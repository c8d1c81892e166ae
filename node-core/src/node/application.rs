//! What the application asks a node for.

use super::{Node, control::Control, output::Output, seeds::Seeds, timers::lock};
use crate::{
    Code, Name, Now,
    registry::Resolved,
    session::{Operation, Request},
    time::{Duration, Instant},
};
use alloc::vec::Vec;
use bytes::Bytes;

impl<T> Node<T> {
    // What the application asks for.

    /// Asks a peer. The token comes back in [`Output::Answered`] or [`Output::Failed`].
    pub fn request(
        &self,
        token: T,
        to: &Name,
        request: Request,
        timeout: Option<Duration>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + timeout.unwrap_or(self.inner.limits.request_deadline);
        self.submit(
            to,
            Operation::Request {
                token,
                request,
                deadline,
            },
            now,
            out,
        );
    }

    /// Sends a peer a message. The token comes back in [`Output::Delivered`] or [`Output::Failed`].
    pub fn message(
        &self,
        token: T,
        to: &Name,
        protocol: &str,
        payload: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + self.inner.limits.request_deadline;
        self.submit(
            to,
            Operation::Message {
                token,
                protocol: protocol.into(),
                payload,
                deadline,
            },
            now,
            out,
        );
    }

    /// Opens a stream to a peer. The token comes back in [`Output::Opened`] or [`Output::Failed`].
    pub fn open_stream(
        &self,
        token: T,
        to: &Name,
        protocol: &str,
        metadata: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let deadline = now.mono + self.inner.limits.request_deadline;
        self.submit(
            to,
            Operation::Stream {
                token,
                protocol: protocol.into(),
                metadata,
                deadline,
            },
            now,
            out,
        );
    }

    /// Makes sure that there is a session with a peer: [`Output::Connected`] or [`Output::Failed`].
    pub fn connect(
        &self,
        token: T,
        to: &Name,
        timeout: Duration,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.submit(
            to,
            Operation::Connect {
                token,
                deadline: now.mono + timeout,
            },
            now,
            out,
        );
    }

    /// Keeps a session with a peer up, through failures, until told otherwise. With `epoch`, only as long as the name
    /// belongs to that epoch's owner.
    pub fn keep(
        &self,
        to: &Name,
        keep: bool,
        epoch: Option<u32>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.control(now, out, |control| {
            control.keep(to.clone(), keep, epoch, now)
        });
    }

    /// Takes a name's new owner for the peer that is meant.
    pub fn confirm_epoch(&self, name: &Name) {
        lock(&self.inner.control).confirm_epoch(name);
    }

    /// Looks a name up: [`Output::Resolved`]. `fresh` asks the chain whatever the cache says.
    pub fn resolve(&self, token: T, name: &Name, fresh: bool, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, |control| {
            control.resolve(name.clone(), fresh, token, now)
        });
    }

    /// What the cache holds about a name.
    pub fn cached(&self, name: &Name, now: Instant) -> Option<Resolved> {
        lock(&self.inner.control).resolver.cached(name, now)
    }

    /// Measures the round trip to a connected peer: [`Event::Latency`](super::Event::Latency). False when there is no session.
    pub fn ping(&self, name: &Name, now: Now) -> bool {
        let cell = lock(&self.inner.control).current(name);
        cell.is_some_and(|cell| {
            cell.with(|session| session.ping(now.mono));
            true
        })
    }

    /// Gives up those of our requests and messages to `name` whose token matches.
    pub fn cancel(
        &self,
        name: &Name,
        matches: impl Fn(&T) -> bool,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let cells = lock(&self.inner.control).used(name);
        for cell in cells {
            let mut events = Vec::new();
            cell.with(|session| session.cancel_where(&matches, &mut events));
            self.dispatch(&cell, events, now, out);
        }
        self.control(now, out, |control| control.cancel_waiting(name, matches));
    }

    /// Tells every peer that this node goes away, and closes every session once what is queued has left. Each peer is
    /// told a time of its own, between half of `delay` and all of it, after which to come back, so that they do not come as
    /// one wave; with none they come when they like.
    pub fn shut_down(&self, code: Code, delay: Duration) {
        let mut seeds = {
            let mut control = lock(&self.inner.control);
            control.closed = true;
            Seeds::new(control.seeds.next())
        };
        let half = u64::try_from(delay.as_micros() / 2).unwrap_or(u64::MAX / 2);
        let cells: Vec<_> = lock(&self.inner.sessions).values().cloned().collect();
        // End-to-end sessions first: their last words travel over the others.
        let (mut cells, hops): (Vec<_>, Vec<_>) =
            cells.into_iter().partition(|cell| cell.over_circuit());
        cells.extend(hops);
        for cell in cells {
            let after = half + seeds.next_u64() % (half + 1);
            let after = Duration::from_micros(after);
            cell.with(|session| {
                if code == Code::GoingAway {
                    session.go_away(after);
                }
                session.close(code, (half > 0).then_some(after));
            });
        }
    }

    /// Fails with [`Code::NodeClosed`] whatever waits for a session or a look-up, and begins nothing any more. A driver
    /// that ends calls it last, after [`closed`](Self::closed) for all of its pipes: then every token has come back.
    pub fn abandon(&self, now: Now, out: &mut Vec<Output<T>>) {
        self.control(now, out, Control::abandon);
    }
}
