//! What goes out: records, filled by priority and sealed when the pipe has room.

use super::{
    CIRCUIT_MTU, Event, SHARED_RECORD, Session,
    sender::{Bulk, Outgoing, data_room},
};
use crate::{
    channel::RECORD_OVERHEAD,
    code::Code,
    time::Instant,
    wire::frame::{DataKind, FRAME_HEADER, Frame},
};
use alloc::vec::Vec;
use bytes::{BufMut, BytesMut};

/// Most bytes of a frame that ends a record: CLOSE, which is longer than REKEY.
const LAST_FRAME: usize = FRAME_HEADER + 2 + 4;

impl<T> Session<T> {
    /// The next record for the pipe, sealed now; `None` when there is nothing to send. `shared` bounds its length to
    /// [`SHARED_RECORD`] because others wait for the same pipe; a frame that is longer by itself goes alone.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        shared: bool,
        out: &mut Vec<Event<T>>,
    ) -> Option<BytesMut> {
        if self.ended || self.channel.is_none() {
            return None;
        }
        let shared = shared || self.circuits.open.len() > 1;
        // A session's frame may have to go out again over a circuit: it is cut to fit that from the first.
        let mtu = if shared { SHARED_RECORD } else { CIRCUIT_MTU };
        // Room for the tag and for a REKEY or CLOSE that may have to come last.
        let spare = RECORD_OVERHEAD - 1 + LAST_FRAME;
        self.blocked_since = None;
        if self.sender.is_empty() && !self.attach_due && !self.ack_due && self.closing.is_none() {
            self.expect_acknowledgement(now);
            return None;
        }
        let (max, alone) = (mtu - spare, self.config.mtu - spare);
        let short = self.sender.bulk.is_empty() && !self.sender.is_resending();
        let mut record = BytesMut::with_capacity(if short { 512 } else { mtu });
        record.put_u8(0x10);
        if let Some(attach) = self.take_attach() {
            record.put_slice(&attach.encode());
        }
        if self.speaks() {
            self.sender
                .fill_short(&mut record, max, alone, &self.config.limits);
            let released = core::mem::take(&mut self.sender.released);
            if released > 0 {
                self.release_charge(released);
            }
            if self.ack_due {
                // Before bulk, which may leave no room for it: the peer cannot send on without.
                self.fill_ack(&mut record, max);
            }
            self.fill_bulk(&mut record, max, alone, out);
            self.fill_ack(&mut record, max);
            self.expect_acknowledgement(now);
        }
        let mut last = false;
        if let Some((code, retry)) = self.closing
            && !self.sender.has_work(&self.config.limits)
        {
            record.put_slice(&Frame::Close(code, retry).encode());
            last = true;
            self.ended = true;
            out.push(Event::Ended {
                code,
                retry,
                by_peer: false,
            });
        }
        if record.len() == 1 {
            return None;
        }
        let channel = self.channel.as_mut()?;
        let rekey = !last && channel.rekey_due(now, &self.config.limits);
        if rekey {
            record.put_slice(&Frame::Rekey.encode());
        }
        if channel.seal(&mut record).is_err() {
            self.ended = true;
            out.push(Event::Ended {
                code: Code::RekeyOverdue,
                retry: None,
                by_peer: false,
            });
            return None;
        }
        if rekey {
            channel.ratchet_send();
        }
        Some(record)
    }

    /// From now on it is for the peer to acknowledge what it was sent. Before it has attached the session it is not: the
    /// handshake's time runs.
    fn expect_acknowledgement(&mut self, now: Instant) {
        if self.attached && !self.sender.all_acknowledged() {
            self.unacknowledged_since.get_or_insert(now);
        }
    }

    /// An acknowledgement rides along whenever a record leaves anyway.
    fn fill_ack(&mut self, record: &mut BytesMut, max: usize) {
        // What came over an earlier channel only counts once it has come over this one as well.
        let received = self.received - self.skip;
        if received == self.acknowledged || record.len() + 11 > max {
            return;
        }
        if record.len() > 1 || self.ack_due {
            record.put_slice(&Frame::Ack(received).encode());
            self.acknowledged = received;
            self.ack_at = None;
            self.ack_due = false;
        }
    }

    /// Takes from each source of bulk in turn until the record is full or nobody can send.
    fn fill_bulk(
        &mut self,
        record: &mut BytesMut,
        max: usize,
        alone: usize,
        out: &mut Vec<Event<T>>,
    ) {
        // A stream's bytes must not overtake its opening, which may wait for the next record because it is long.
        let overtakes = !self.sender.urgent.is_empty();
        let mut fruitless = 0;
        while fruitless < self.sender.bulk.len() {
            let Some(source) = self.sender.bulk.pop_front() else {
                break;
            };
            let before = record.len();
            let more = match source {
                Bulk::Stream(_) | Bulk::Item(_) if overtakes => true,
                Bulk::Stream(id) => self.fill_stream(record, max, id),
                Bulk::Item(id) => self.fill_item(record, max, id),
                Bulk::Circuit(cid) => {
                    let max = if record.len() == 1 { alone } else { max };
                    self.fill_circuit(record, max, cid, out)
                }
            };
            if more {
                self.sender.bulk.push_back(source);
            }
            fruitless = if record.len() == before {
                fruitless + usize::from(more)
            } else {
                0
            };
        }
    }

    fn fill_stream(&mut self, record: &mut BytesMut, max: usize, id: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let room = data_room(record, max);
        if self.sender.retention_room(&self.config.limits) && room > 0 {
            if let Some(data) = stream.send.take(room) {
                self.sender.write_data(record, DataKind::Stream, id, data);
            }
            if max - record.len() >= 11 && stream.send.take_fin() {
                self.sender.write(record, Outgoing::new(&Frame::Fin(id)));
            }
        }
        let more = stream.send.ready();
        if stream.is_done() {
            self.streams.remove(&id);
        }
        more
    }

    fn fill_item(&mut self, record: &mut BytesMut, max: usize, id: u64) -> bool {
        let room = data_room(record, max);
        let Some(body) = self.items.body(id) else {
            return false;
        };
        let held = body.held();
        if room > 0
            && self.sender.retention_room(&self.config.limits)
            && let Some(data) = body.take(room)
        {
            self.sender.write_data(record, DataKind::Item, id, data);
        }
        let (more, freed) = (body.ready(), held - body.held());
        self.items.long_bytes -= freed;
        self.settle_answered(id);
        more
    }
}
