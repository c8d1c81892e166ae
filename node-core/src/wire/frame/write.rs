//! Writing frames.

use super::{FRAME_HEADER, Frame, retry_ms};
use crate::name::Name;
use alloc::vec::Vec;

impl Frame {
    /// The frame with its header. Payloads are copied: senders of much data use the `*_head` functions instead.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(self.kind());
        match self {
            Self::Attach(attach) => {
                w.u8(attach.status as u8);
                w.put(&attach.sid);
                w.u32(attach.attempt);
                w.u64(attach.recv_off);
                w.u64(attach.send_off);
                w.put(&attach.instance);
                w.put(&attach.proof);
                w.text(&attach.agent);
            }
            Self::Ack(offset) => w.u64(*offset),
            Self::Rekey => {}
            Self::Ping(token) | Self::Pong(token) => w.u64(*token),
            Self::GoAway(delay) => w.u32(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
            Self::Close(code, delay) => {
                w.u16(code.as_u16());
                w.u32(retry_ms(*delay));
            }
            Self::Open {
                cid,
                window,
                hide,
                to,
                first,
            } => {
                w.u32(*cid);
                w.u64(*window);
                w.u8(u8::from(*hide));
                w.name(Some(to));
                w.put(first);
            }
            Self::Incoming {
                cid,
                window,
                from,
                first,
            } => {
                w.u32(*cid);
                w.u64(*window);
                w.name(from.as_ref());
                w.put(first);
            }
            Self::Opened { cid, window: limit } | Self::CircuitCredit { cid, limit } => {
                w.u32(*cid);
                w.u64(*limit);
            }
            Self::CircuitData { cid, data } => {
                w.u32(*cid);
                w.put(data);
            }
            Self::CircuitClose {
                cid,
                code,
                retry_ms,
            } => {
                w.u32(*cid);
                w.u16(*code);
                w.u32(*retry_ms);
            }
            Self::Credit { id, limit } => {
                w.u64(*id);
                w.u64(*limit);
            }
            Self::Request {
                id,
                deadline_ms,
                total,
                protocol,
                metadata,
                data,
            } => {
                w.u64(*id);
                w.u32(*deadline_ms);
                w.u32(*total);
                w.text(protocol);
                match metadata {
                    None => w.u16(0xffff),
                    Some(bytes) => {
                        w.u16(u16::try_from(bytes.len()).unwrap_or(0xffff));
                        w.put(bytes);
                    }
                }
                w.put(data);
            }
            Self::Response {
                id,
                kind,
                code,
                total,
                data,
            } => {
                w.u64(*id);
                w.u8(*kind as u8);
                w.u16(*code);
                w.u32(*total);
                w.put(data);
            }
            Self::Message {
                id,
                total,
                protocol,
                data,
            } => {
                w.u64(*id);
                w.u32(*total);
                w.text(protocol);
                w.put(data);
            }
            Self::More { id, data } | Self::Data { id, data } => {
                w.u64(*id);
                w.put(data);
            }
            Self::Delivered(id) | Self::Cancel(id) | Self::Fin(id) => w.u64(*id),
            Self::Stream {
                id,
                window,
                protocol,
                metadata,
            } => {
                w.u64(*id);
                w.u64(*window);
                w.text(protocol);
                w.put(metadata);
            }
            Self::Reset(id, code) | Self::Stop(id, code) => {
                w.u64(*id);
                w.u16(*code);
            }
        }
        w.finish()
    }

    /// The same frame without its trailing payload, whose length the header announces: the payload follows in the
    /// record without having been copied before.
    pub fn encode_head(&self, payload: usize) -> Vec<u8> {
        let mut head = self.encode();
        let length = head.len() - FRAME_HEADER + payload;
        set_length(&mut head, length);
        head
    }

    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Attach(_) => 0x01,
            Self::Ack(_) => 0x02,
            Self::Rekey => 0x03,
            Self::Ping(_) => 0x04,
            Self::Pong(_) => 0x05,
            Self::GoAway(_) => 0x06,
            Self::Close(..) => 0x07,
            Self::Open { .. } => 0x10,
            Self::Incoming { .. } => 0x11,
            Self::Opened { .. } => 0x12,
            Self::CircuitData { .. } => 0x13,
            Self::CircuitCredit { .. } => 0x14,
            Self::CircuitClose { .. } => 0x15,
            Self::Credit { .. } => 0x40,
            Self::Request { .. } => 0x41,
            Self::Response { .. } => 0x42,
            Self::Message { .. } => 0x43,
            Self::More { .. } => 0x44,
            Self::Delivered(_) => 0x45,
            Self::Cancel(_) => 0x46,
            Self::Stream { .. } => 0x48,
            Self::Data { .. } => 0x49,
            Self::Fin(_) => 0x4a,
            Self::Reset(..) => 0x4b,
            Self::Stop(..) => 0x4c,
        }
    }
}

/// A data frame's header for `payload` bytes of stream, item or circuit: `type ‖ length ‖ id`.
pub fn data_head(kind: DataKind, id: u64, payload: usize) -> ([u8; 11], usize) {
    let mut head = [0u8; 11];
    let used = match kind {
        DataKind::Stream | DataKind::Item => {
            head[0] = if matches!(kind, DataKind::Stream) {
                0x49
            } else {
                0x44
            };
            head[3..11].copy_from_slice(&id.to_be_bytes());
            11
        }
        DataKind::Circuit => {
            head[0] = 0x13;
            #[allow(clippy::cast_possible_truncation, reason = "circuit ids are 32 bits")]
            head[3..7].copy_from_slice(&(id as u32).to_be_bytes());
            7
        }
    };
    set_length(&mut head, used - FRAME_HEADER + payload);
    (head, used)
}

/// Which frame carries raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// `49`
    Stream,
    /// `44`
    Item,
    /// `13`
    Circuit,
}

/// Longest header that [`data_head`] writes.
pub const DATA_HEAD: usize = 11;

fn set_length(frame: &mut [u8], length: usize) {
    debug_assert!(
        length <= usize::from(u16::MAX),
        "a frame's body fits its length field"
    );
    #[allow(
        clippy::cast_possible_truncation,
        reason = "records bound bodies below 64 KiB"
    )]
    frame[1..3].copy_from_slice(&(length as u16).to_be_bytes());
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[kind, 0, 0]);
        Self(bytes)
    }
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    fn text(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).unwrap_or(0));
        self.put(text.as_bytes());
    }
    fn name(&mut self, name: Option<&Name>) {
        match name {
            None => self.u8(0),
            Some(name) => {
                let bytes = name.to_bytes();
                self.u8(u8::try_from(bytes.len()).unwrap_or(0));
                self.put(&bytes);
            }
        }
    }
    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() - FRAME_HEADER;
        set_length(&mut self.0, length);
        self.0
    }
}
