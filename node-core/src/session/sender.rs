//! What a session has to send: queues by priority, numbering, and the plaintext kept until it is acknowledged.

use crate::{
    limits::Limits,
    wire::frame::{DATA_HEAD, DataKind, FRAME_HEADER, Frame, data_head},
};
use alloc::{collections::VecDeque, vec::Vec};
use bytes::{BufMut, Bytes, BytesMut};

/// Channel frames that may wait. 4,096; worst case 100 KiB per session, and circuit openings.
const CONTROL_QUEUED: usize = 4_096;
/// Session frames without credit that may wait. 65,536; worst case 7 MiB per session beside the answers in them, all of
/// which counts towards what the session holds.
const URGENT_QUEUED: usize = 65_536;

/// A session frame in two parts, so that a payload is copied once: into the record that is sealed in place.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) head: Vec<u8>,
    pub(super) body: Bytes,
    /// What it costs of the peer's inbox credit; 0 for frames that need none.
    pub(super) charge: u64,
    /// What its leaving returns to the peer's credit in our inbox: an answer that nobody reads returns nothing.
    pub(super) releases: u64,
}

impl Outgoing {
    pub(super) fn new(frame: &Frame) -> Self {
        Self {
            head: frame.encode(),
            body: Bytes::new(),
            charge: 0,
            releases: 0,
        }
    }

    /// `frame` without its payload, and the payload.
    pub(super) fn with_payload(frame: &Frame, body: Bytes) -> Self {
        Self {
            head: frame.encode_head(body.len()),
            body,
            charge: 0,
            releases: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Bytes that keeping it takes, while it waits and until it is acknowledged.
    pub(super) fn kept(&self) -> usize {
        self.len() + RETAINED
    }

    /// The number that it begins with.
    fn number(&self) -> Option<u64> {
        let number = self.head.get(FRAME_HEADER..)?.first_chunk()?;
        Some(u64::from_be_bytes(*number))
    }
}

/// A source of bulk bytes that takes its turn in the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    Stream(u64),
    Item(u64),
    Circuit(u32),
}

/// What keeping a frame takes beyond its bytes. The same on every machine, for it decides what is sent when.
const RETAINED: usize = 96;

const _: () = assert!(
    size_of::<Retained>() <= RETAINED,
    "a kept frame is paid for"
);

#[derive(Debug)]
struct Retained {
    end: u64,
    frame: Outgoing,
}

/// Numbered frames on their way out.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Channel frames, encoded: before everything else, neither numbered nor retained.
    pub(super) control: VecDeque<Vec<u8>>,
    /// Session frames that need no credit.
    pub(super) urgent: VecDeque<Outgoing>,
    /// Requests and messages, in order, as the peer's inbox credit allows.
    pub(super) inbox: VecDeque<Outgoing>,
    /// Whoever has bulk bytes and the credit to send them, in rotation; each at most once.
    pub(super) bulk: VecDeque<Bulk>,
    /// Bytes that keeping `urgent` and `inbox` takes.
    pub(super) queued: usize,
    /// What has left since the session last looked returns so much to the peer's credit in our inbox.
    pub(super) released: u64,
    /// Whether the peer is known to have the session as well. Until then no request leaves whose outcome nobody could tell.
    pub(super) confirmed: bool,
    inbox_limit: u64,
    inbox_sent: u64,
    offset: u64,
    acked: u64,
    retained: VecDeque<Retained>,
    retained_bytes: usize,
    /// How many of those have left over the present channel; until it is all, nothing new leaves.
    resent: usize,
}

impl Sender {
    pub(super) fn new(inbox_limit: u64) -> Self {
        Self {
            inbox_limit,
            ..Self::default()
        }
    }

    pub(super) fn push_control(&mut self, frame: &Frame) {
        self.control.push_back(frame.encode());
    }

    pub(super) fn push_urgent(&mut self, frame: Outgoing) {
        self.queued += frame.kept();
        self.urgent.push_back(frame);
    }

    pub(super) fn push_inbox(&mut self, frame: Outgoing) {
        self.queued += frame.kept();
        self.inbox.push_back(frame);
    }

    pub(super) fn push_bulk(&mut self, source: Bulk) {
        if !self.bulk.contains(&source) {
            self.bulk.push_back(source);
        }
    }

    /// Whether item `id` has not left yet, nor any above it: they leave in the order of their numbers.
    pub(super) fn holds_back(&self, id: u64) -> bool {
        let first = self.inbox.front().and_then(Outgoing::number);
        first.is_some_and(|first| first <= id && first % 4 == id % 4)
    }

    /// Takes item `id` back if it has not left.
    pub(super) fn forget_inbox(&mut self, id: u64) -> bool {
        let at = self.inbox.iter().position(|f| f.number() == Some(id));
        let Some(frame) = at.and_then(|at| self.inbox.remove(at)) else {
            return false;
        };
        self.queued -= frame.kept();
        true
    }

    /// Whether so many answers wait that the peer cannot be reading them.
    pub(super) fn is_overfull(&self) -> bool {
        self.control.len() > CONTROL_QUEUED || self.urgent.len() > URGENT_QUEUED
    }

    /// Raises the inbox limit; credit never shrinks.
    pub(super) fn raise_inbox(&mut self, limit: u64) {
        self.inbox_limit = self.inbox_limit.max(limit);
    }

    /// Room for numbered bytes before the peer must acknowledge.
    pub(super) fn retention_room(&self, limits: &Limits) -> bool {
        !self.is_resending() && self.retained_bytes < limits.retained_bytes
    }

    /// Whether frames that left over an earlier channel have to leave over this one first.
    pub(super) fn is_resending(&self) -> bool {
        self.resent < self.retained.len()
    }

    /// Bytes kept for the peer's acknowledgement.
    pub(super) const fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    /// Whether the peer may have everything below `offset` and nothing above: it is where one of our frames ends, not
    /// below what was acknowledged, and not above what was sent.
    pub(super) fn can_rewind(&self, offset: u64) -> bool {
        offset == self.acked || self.retained.iter().any(|frame| frame.end == offset)
    }

    /// Goes on at `offset` over another channel.
    pub(super) fn rewind(&mut self, offset: u64) {
        self.resent = self.retained.len();
        let _ = self.acknowledge(offset);
        self.resent = 0;
    }

    /// The channel is lost, and with it what belongs to it alone.
    pub(super) fn detach(&mut self) {
        self.control.clear();
        self.bulk.retain(|bulk| !matches!(bulk, Bulk::Circuit(_)));
    }

    /// Whether nothing waits to go out.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty()
            && self.urgent.is_empty()
            && self.inbox.is_empty()
            && self.bulk.is_empty()
            && !self.is_resending()
    }

    /// Whether anything could go out now, credit and retention permitting.
    pub(super) fn has_work(&self, limits: &Limits) -> bool {
        if !self.control.is_empty() || self.is_resending() {
            return true;
        }
        let session =
            !self.urgent.is_empty() || self.inbox.front().is_some_and(|f| self.affordable(f));
        let circuits = self.bulk.iter().any(|b| matches!(b, Bulk::Circuit(_)));
        circuits || ((session || !self.bulk.is_empty()) && self.retention_room(limits))
    }

    fn affordable(&self, frame: &Outgoing) -> bool {
        self.confirmed && self.inbox_sent + frame.charge <= self.inbox_limit
    }

    /// The peer has all session bytes below `offset`. False when it claims more than was sent.
    #[must_use]
    pub(super) fn acknowledge(&mut self, offset: u64) -> bool {
        let sent = self.retained.get(self.resent);
        if offset > sent.map_or(self.offset, |next| next.end - next.frame.len() as u64) {
            return false;
        }
        self.acked = self.acked.max(offset);
        while self
            .retained
            .front()
            .is_some_and(|frame| frame.end <= self.acked)
        {
            if let Some(done) = self.retained.pop_front() {
                self.retained_bytes -= done.frame.kept();
                self.resent = self.resent.saturating_sub(1);
            }
        }
        true
    }

    /// Session bytes that the peer has acknowledged.
    pub(super) const fn acknowledged(&self) -> u64 {
        self.acked
    }

    /// Whether every session byte sent so far has been acknowledged.
    pub(super) const fn all_acknowledged(&self) -> bool {
        self.acked == self.offset
    }

    /// Moves control frames and then short session frames into `record` while they fit below `max`. A frame that is
    /// longer than `max` by itself goes alone, up to `alone`: it cannot be cut.
    pub(super) fn fill_short(
        &mut self,
        record: &mut BytesMut,
        max: usize,
        alone: usize,
        limits: &Limits,
    ) {
        let room = |used: usize, frame: usize| used + frame <= if used == 1 { alone } else { max };
        while self
            .control
            .front()
            .is_some_and(|frame| room(record.len(), frame.len()))
        {
            if let Some(frame) = self.control.pop_front() {
                record.put_slice(&frame);
            }
        }
        while let Some(Retained { frame, .. }) = self.retained.get(self.resent)
            && room(record.len(), frame.len())
        {
            record.put_slice(&frame.head);
            record.put_slice(&frame.body);
            self.resent += 1;
        }
        for from_inbox in [false, true] {
            while self.retention_room(limits) {
                let queue = if from_inbox {
                    &mut self.inbox
                } else {
                    &mut self.urgent
                };
                let fits = |frame: &Outgoing| room(record.len(), frame.len());
                let affordable = |frame: &Outgoing| {
                    frame.charge == 0
                        || (self.confirmed && self.inbox_sent + frame.charge <= self.inbox_limit)
                };
                let Some(frame) = queue.pop_front_if(|frame| fits(frame) && affordable(frame))
                else {
                    break;
                };
                self.queued -= frame.kept();
                self.inbox_sent += frame.charge;
                self.write(record, frame);
            }
        }
    }

    /// Writes the session frame that carries `data` of a stream or an item.
    pub(super) fn write_data(
        &mut self,
        record: &mut BytesMut,
        kind: DataKind,
        id: u64,
        data: Bytes,
    ) {
        let (head, used) = data_head(kind, id, data.len());
        let head = head[..used].to_vec();
        self.write(
            record,
            Outgoing {
                head,
                body: data,
                charge: 0,
                releases: 0,
            },
        );
    }

    /// Writes a frame, numbers it and keeps it.
    pub(super) fn write(&mut self, record: &mut BytesMut, frame: Outgoing) {
        record.put_slice(&frame.head);
        record.put_slice(&frame.body);
        self.released += frame.releases;
        self.offset += frame.len() as u64;
        self.retained_bytes += frame.kept();
        self.retained.push_back(Retained {
            end: self.offset,
            frame,
        });
        self.resent += 1;
    }
}

/// Writes one circuit message, which belongs to the channel and is not retained.
pub(super) fn write_circuit(record: &mut BytesMut, cid: u32, data: &[u8]) {
    let (head, used) = data_head(DataKind::Circuit, cid.into(), data.len());
    record.put_slice(&head[..used]);
    record.put_slice(data);
}

/// Bytes of payload that fit into `record` as one data frame.
pub(super) fn data_room(record: &BytesMut, max: usize) -> usize {
    max.saturating_sub(record.len() + DATA_HEAD)
}

const _: () = assert!(
    FRAME_HEADER + 8 == DATA_HEAD,
    "the head of a data frame is its header and an id"
);
