//! Items: requests with their responses, and messages. Short ones travel in one frame; long ones announce their
//! length and wait until the receiver has memory for them.

use crate::{
    sorted::{Map, Set},
    time::Instant,
};
use alloc::boxed::Box;
use bytes::{Buf, Bytes, BytesMut};

/// Our own request or message, until it is answered or delivered.
#[derive(Debug)]
pub(super) struct Asked<T> {
    pub(super) token: T,
    pub(super) deadline: Option<Instant>,
    pub(super) is_request: bool,
    /// What is left of a long payload. Boxed, like the next: few items are long, and small ones move faster among others.
    pub(super) body: Option<Box<LongBody>>,
    /// The long response that is being put together.
    pub(super) answer: Option<Box<(Assembly, crate::wire::frame::ResponseKind, u16)>>,
}

/// A request or message of the peer's.
#[derive(Debug)]
pub(super) struct Served {
    /// Inbox credit that returns when the application is done with it.
    pub(super) charge: u64,
    /// Memory promised to its long payload, which returns then too.
    pub(super) promised: usize,
    pub(super) is_request: bool,
    pub(super) head: Option<ItemHead>,
    pub(super) assembly: Option<Box<Assembly>>,
    /// What is left of our long response.
    pub(super) body: Option<Box<LongBody>>,
    pub(super) answered: bool,
    /// The peer no longer waits for the answer.
    pub(super) cancelled: bool,
}

/// What came in an item's first frame beside its payload.
#[derive(Debug)]
pub(super) struct ItemHead {
    pub(super) protocol: Box<str>,
    pub(super) metadata: Option<Bytes>,
    pub(super) deadline_ms: u32,
}

/// The unsent rest of a long payload.
#[derive(Debug)]
pub(super) struct LongBody {
    /// A part of the payload's memory, all of which is there as long as this is not empty.
    rest: Bytes,
    whole: usize,
    pub(super) sent: u64,
    pub(super) limit: u64,
}

impl LongBody {
    pub(super) fn new(payload: Bytes) -> Self {
        Self {
            whole: payload.len(),
            rest: payload,
            sent: 0,
            limit: 0,
        }
    }

    /// Bytes that it keeps from being free, however many have left: whoever grants credit for all but the last one has all of
    /// them held.
    pub(super) fn held(&self) -> usize {
        if self.is_empty() { 0 } else { self.whole }
    }

    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Whether all has left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn ready(&self) -> bool {
        !self.rest.is_empty() && self.sent < self.limit
    }

    /// The next piece. A copy: it is kept until it is acknowledged, and the whole payload must not be kept with it.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        let credit = usize::try_from(self.limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let length = max.min(credit).min(self.rest.len());
        (length > 0).then(|| {
            self.sent += length as u64;
            let piece = Bytes::copy_from_slice(&self.rest[..length]);
            self.rest.advance(length);
            if self.rest.is_empty() {
                self.rest = Bytes::new();
            }
            piece
        })
    }
}

/// A long payload on its way in. Its buffer grows with what arrives, never with what is claimed.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) total: usize,
    pub(super) granted: bool,
    buffer: BytesMut,
}

impl Assembly {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            granted: false,
            buffer: BytesMut::new(),
        }
    }

    /// Takes bytes; the whole payload once it is complete. `None` when more came than was announced or allowed.
    pub(super) fn receive(&mut self, data: &[u8]) -> Option<Option<Bytes>> {
        if !self.granted || data.is_empty() || self.buffer.len() + data.len() > self.total {
            return None;
        }
        self.buffer.extend_from_slice(data);
        Some((self.buffer.len() == self.total).then(|| core::mem::take(&mut self.buffer).freeze()))
    }
}

/// Memory for long payloads: what is promised, and who waits for some, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) promised: usize,
    pub(super) waiting: Set<u64>,
}

/// All items of a session.
#[derive(Debug)]
pub(super) struct Items<T> {
    pub(super) asked: Map<u64, Asked<T>>,
    pub(super) served: Map<u64, Served>,
    pub(super) deadlines: Set<(Instant, u64)>,
    /// Requests that the application is handling.
    pub(super) handling: usize,
    /// For the peer's long items, until the application is done with them.
    pub(super) theirs: Memory,
    /// For long answers to us, until they are whole. Apart, because whoever handles a long request may ask back.
    pub(super) answers: Memory,
    /// Bytes of our own long payloads and answers that wait to be sent.
    pub(super) long_bytes: usize,
    /// Inbox: charges received, charges released, limit announced.
    pub(super) inbox_received: u64,
    pub(super) inbox_released: u64,
    pub(super) inbox_limit: u64,
}

impl<T> Items<T> {
    pub(super) fn new(inbox_limit: u64) -> Self {
        Self {
            asked: Map::default(),
            served: Map::default(),
            deadlines: Set::default(),
            handling: 0,
            theirs: Memory::default(),
            answers: Memory::default(),
            long_bytes: 0,
            inbox_received: 0,
            inbox_released: 0,
            inbox_limit,
        }
    }

    /// Removes one of our own items with its deadline and whatever memory it was promised.
    pub(super) fn forget_asked(&mut self, id: u64) -> Option<Asked<T>> {
        let asked = self.asked.remove(&id)?;
        if let Some(deadline) = asked.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.long_bytes -= asked.body.as_ref().map_or(0, |body| body.held());
        match asked.answer.as_deref() {
            Some((assembly, ..)) if assembly.granted => self.answers.promised -= assembly.total,
            Some(_) => drop(self.answers.waiting.remove(&id)),
            None => {}
        }
        Some(asked)
    }

    /// The assembly of item `id`, whichever side asked.
    pub(super) fn assembly(&mut self, id: u64) -> Option<&mut Assembly> {
        match self.asked.get_mut(&id) {
            Some(asked) => asked.answer.as_deref_mut().map(|(assembly, ..)| assembly),
            None => self.served.get_mut(&id)?.assembly.as_deref_mut(),
        }
    }

    /// The unsent rest of item `id`, whichever side asked.
    pub(super) fn body(&mut self, id: u64) -> Option<&mut LongBody> {
        match self.asked.get_mut(&id) {
            Some(asked) => asked.body.as_deref_mut(),
            None => self.served.get_mut(&id)?.body.as_deref_mut(),
        }
    }
}
