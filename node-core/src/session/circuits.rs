//! Circuits over one channel: numbered pipes to or from others, each bounded by the credit it was given.

use crate::wire::frame::CHARGE;
use alloc::collections::VecDeque;
use bytes::Bytes;
use std::collections::HashMap;

/// What lies behind a circuit on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Far {
    /// Nobody yet: the node has to decide.
    Undecided,
    /// It ends here, as this pipe.
    Pipe(u64),
    /// It goes on as circuit `cid` of session `session`.
    Hop {
        /// The other session.
        session: u64,
        /// The circuit's number there.
        cid: u32,
    },
}

/// What happens on a circuit, for whoever is at its far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The target takes it and accepts this many bytes.
    Opened {
        /// Absolute limit.
        limit: u64,
    },
    /// One message.
    Data(Bytes),
    /// The far end may now send up to this much in total.
    Credit {
        /// Absolute limit.
        limit: u64,
    },
    /// It ended.
    Closed {
        /// Why.
        code: u16,
        /// When to try again; 0 for unsaid.
        retry_ms: u32,
    },
}

#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) far: Far,
    /// What the peer lets us send, in all; and what we have sent.
    pub(super) send_limit: u64,
    pub(super) sent: u64,
    queue: VecDeque<Bytes>,
    queued: u64,
    /// What we let the peer send, in all; and what it has sent.
    pub(super) recv_limit: u64,
    pub(super) received: u64,
    /// The limit that the far end was last told.
    pub(super) announced: u64,
    pub(super) answered: bool,
    /// It ends once what is queued has left.
    pub(super) closing: Option<(u16, u32)>,
}

impl Circuit {
    pub(super) fn new(far: Far, send_limit: u64, recv_limit: u64) -> Self {
        Self {
            far,
            send_limit,
            sent: 0,
            queue: VecDeque::new(),
            queued: 0,
            recv_limit,
            received: 0,
            announced: 0,
            answered: false,
            closing: None,
        }
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.queued += cost(&data);
        self.queue.push_back(data);
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Whether the next message may go out.
    pub(super) fn ready(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|data| self.sent + cost(data) <= self.send_limit)
    }

    /// The next message, if it fits `max` bytes and credit allows.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        if !self.ready() || self.queue.front()?.len() > max {
            return None;
        }
        let data = self.queue.pop_front()?;
        self.queued -= cost(&data);
        self.sent += cost(&data);
        Some(data)
    }

    /// Code and retry of its end, once that is due.
    pub(super) fn closing_now(&self) -> Option<(u16, u32)> {
        self.closing.filter(|_| self.queue.is_empty())
    }

    /// What the far end may send through us: what the peer accepts, but never more than `window` beyond what has left.
    pub(super) fn far_limit(&self, window: u64) -> u64 {
        self.send_limit.min(self.sent + window)
    }
}

/// What a circuit message costs of its credit.
pub fn cost(data: &[u8]) -> u64 {
    data.len() as u64 + CHARGE
}

#[derive(Debug)]
pub(super) struct Circuits {
    pub(super) open: HashMap<u32, Circuit>,
    /// Next number of our own; even for the channel's initiator, odd for its responder.
    next_own: u32,
    /// Lowest number the peer has not used.
    next_theirs: u32,
}

impl Circuits {
    pub(super) fn new(initiator: bool) -> Self {
        Self {
            open: HashMap::new(),
            next_own: u32::from(!initiator),
            next_theirs: u32::from(initiator),
        }
    }

    /// Enters a circuit of our own; `None` once all numbers of this channel are used.
    pub(super) fn insert(&mut self, circuit: Circuit) -> Option<u32> {
        let cid = self.next_own;
        self.next_own = cid.checked_add(2)?;
        self.open.insert(cid, circuit);
        Some(cid)
    }

    /// Enters a circuit that the peer numbered; false when the number is not its next.
    #[must_use]
    pub(super) fn insert_theirs(&mut self, cid: u32, circuit: Circuit) -> bool {
        if cid != self.next_theirs {
            return false;
        }
        let Some(next) = cid.checked_add(2) else {
            return false;
        };
        self.next_theirs = next;
        self.open.insert(cid, circuit);
        true
    }

    /// Whether the number was in use at some time: frames for it may still be under way after it closed.
    pub(super) fn was_used(&self, cid: u32) -> bool {
        if cid % 2 == self.next_own % 2 {
            cid < self.next_own
        } else {
            cid < self.next_theirs
        }
    }
}
