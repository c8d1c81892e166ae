//! Frames: what a record carries once it is opened.
//!
//! A frame is `type u8 ‖ length u16 ‖ body`; integers are big-endian. Types `00` to `3f` belong to the channel and die
//! with it, types `40` to `ff` belong to the session: they are counted, acknowledged and retained. A type with the
//! second-highest bit of its half set (`20` to `3f`, `c0` to `ff`) is optional: who does not know it skips it.

use crate::{code::Code, name::Name, time::Duration};
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;

/// Bytes before a frame's body.
pub const FRAME_HEADER: usize = 3;
/// Payload of a request, response or message that travels whole in its first frame. Longer ones announce their length
/// and wait for credit of their own.
pub const INLINE: usize = 32 << 10;
/// Charged against credit for every item or circuit message beyond its bytes: what its bookkeeping costs the receiver.
pub const CHARGE: u64 = 64;
/// Longest protocol name, in bytes.
pub const PROTOCOL_MAX: usize = 128;
/// Longest metadata of a request or stream, in bytes.
pub const METADATA_MAX: usize = 16 << 10;
/// Longest text of an error response, in bytes.
pub const ERROR_TEXT_MAX: usize = 1 << 10;
/// Inbox credit that both sides have before the first CREDIT, in bytes.
pub const INBOX_INITIAL: u64 = 64 << 10;
/// Longest user agent, in bytes.
pub const AGENT_MAX: usize = 64;

/// What an ATTACH says about its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AttachStatus {
    /// A new session begins with this channel.
    Fresh = 0,
    /// An earlier session goes on over this channel.
    Resume = 1,
    /// The session is not known here (any more).
    Unknown = 2,
    /// A newer attempt was seen.
    Stale = 3,
}

/// ATTACH: each side's first frame on every channel, and the handshake's key confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Begins or resumes.
    pub status: AttachStatus,
    /// The session: the first 16 bytes of its first channel's `EXP("session id")`.
    pub sid: [u8; 16],
    /// Counts the attempts to attach this session; 0 when fresh.
    pub attempt: u32,
    /// Session bytes received.
    pub recv_off: u64,
    /// Session offset from which the sender goes on.
    pub send_off: u64,
    /// Tells two processes of one name apart: HMAC(process secret, peer's name).
    pub instance: [u8; 16],
    /// Proves the earlier session; zeros when fresh.
    pub proof: [u8; 32],
    /// The sender's user agent; empty from an initiator, whose hello carries it.
    pub agent: Box<str>,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It worked; the protocol may attach data.
    Success(Option<Bytes>),
    /// An answer that only the application protocol understands.
    Protocol(Bytes),
    /// It did not work. Codes of 1,000 and above belong to applications.
    Error {
        /// A [`Code`] or an application's own number.
        code: u16,
        /// For people.
        message: Box<str>,
    },
}

impl Response {
    /// An error of our own table.
    pub fn refuse(code: Code) -> Self {
        Self::Error {
            code: code.as_u16(),
            message: code.meaning().into(),
        }
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Success(data) => data.as_ref().map_or(0, Bytes::len),
            Self::Protocol(data) => data.len(),
            Self::Error { message, .. } => message.len(),
        }
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// First byte of a RESPONSE's body after its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseKind {
    /// Success with data.
    Data = 0,
    /// Success without data.
    Empty = 1,
    /// A protocol answer.
    Protocol = 2,
    /// An error; the payload is its text.
    Error = 3,
}

/// One parsed frame. Payloads are slices of the opened record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `01`
    Attach(Box<Attach>),
    /// `02` session bytes received without a gap.
    Ack(u64),
    /// `03` the sender's next record is under ratcheted keys.
    Rekey,
    /// `04`
    Ping(u64),
    /// `05`
    Pong(u64),
    /// `06` the sender will go away; reconnect after the delay.
    GoAway(Duration),
    /// `07` the sender closes the channel.
    Close(Code, Option<Duration>),
    /// `10` asks a router for a circuit.
    Open {
        /// Circuit, in the numbering of this channel.
        cid: u32,
        /// Circuit bytes the opener accepts.
        window: u64,
        /// Whether to hide the opener's name from the target.
        hide: bool,
        /// Whom to reach.
        to: Name,
        /// Handshake message 1.
        first: Bytes,
    },
    /// `11` a circuit arrives at its target.
    Incoming {
        /// Circuit, in the numbering of this channel.
        cid: u32,
        /// Circuit bytes that may be sent back.
        window: u64,
        /// Who the router says is calling; `None` for a guest or a hidden caller.
        from: Option<Name>,
        /// Handshake message 1.
        first: Bytes,
    },
    /// `12` the target takes the circuit.
    Opened {
        /// Circuit.
        cid: u32,
        /// Circuit bytes the target accepts.
        window: u64,
    },
    /// `13` one message of the pipe that the circuit is.
    CircuitData {
        /// Circuit.
        cid: u32,
        /// The whole message.
        data: Bytes,
    },
    /// `14` raises what may be sent on a circuit, in total.
    CircuitCredit {
        /// Circuit.
        cid: u32,
        /// New absolute limit.
        limit: u64,
    },
    /// `15` a circuit ends or is refused.
    CircuitClose {
        /// Circuit.
        cid: u32,
        /// Why.
        code: u16,
        /// When to try again; 0 for unsaid.
        retry_ms: u32,
    },
    /// `40` raises a limit: of the inbox (id 0), of a stream, or of a long item.
    Credit {
        /// 0, a stream or an item.
        id: u64,
        /// New absolute limit.
        limit: u64,
    },
    /// `41`
    Request {
        /// Item.
        id: u64,
        /// Time the requester waits, in milliseconds.
        deadline_ms: u32,
        /// Bytes of the whole payload.
        total: u32,
        /// Application protocol.
        protocol: Box<str>,
        /// Metadata, if any.
        metadata: Option<Bytes>,
        /// The payload when it is short, else nothing.
        data: Bytes,
    },
    /// `42`
    Response {
        /// The request's id.
        id: u64,
        /// Which answer.
        kind: ResponseKind,
        /// Error number; 0 otherwise.
        code: u16,
        /// Bytes of the whole payload.
        total: u32,
        /// The payload when it is short, else nothing.
        data: Bytes,
    },
    /// `43`
    Message {
        /// Item.
        id: u64,
        /// Bytes of the whole payload.
        total: u32,
        /// Application protocol.
        protocol: Box<str>,
        /// The payload when it is short, else nothing.
        data: Bytes,
    },
    /// `44` the next bytes of a long item.
    More {
        /// Item.
        id: u64,
        /// Bytes.
        data: Bytes,
    },
    /// `45` the application has taken a message.
    Delivered(u64),
    /// `46` the requester no longer waits.
    Cancel(u64),
    /// `48` opens a stream.
    Stream {
        /// Stream.
        id: u64,
        /// Bytes that the opener accepts.
        window: u64,
        /// Application protocol.
        protocol: Box<str>,
        /// Metadata; may be empty.
        metadata: Bytes,
    },
    /// `49`
    Data {
        /// Stream.
        id: u64,
        /// Bytes.
        data: Bytes,
    },
    /// `4a` no more bytes follow in this direction.
    Fin(u64),
    /// `4b` the sender gives up; bytes may be missing.
    Reset(u64, u16),
    /// `4c` the receiver wants no more.
    Stop(u64, u16),
}

/// A frame that does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of type {kind:#04x} does not parse")]
pub struct FrameError {
    /// The frame's type.
    pub kind: u8,
}

/// Whether frames of this type count towards the session's offset.
pub const fn is_session(kind: u8) -> bool {
    kind >= 0x40
}

const fn is_optional(kind: u8) -> bool {
    matches!(kind, 0x20..=0x3f | 0xc0..=0xff)
}

/// Takes the next frame off `frames`: the frame (or `None` for an optional one of unknown type), its type, and its
/// length with header.
pub fn next(frames: &mut Bytes) -> Result<Option<(u8, usize, Option<Frame>)>, FrameError> {
    let Some(&kind) = frames.first() else {
        return Ok(None);
    };
    let malformed = FrameError { kind };
    if frames.len() < FRAME_HEADER {
        return Err(malformed);
    }
    let length = usize::from(u16::from_be_bytes([frames[1], frames[2]]));
    if frames.len() < FRAME_HEADER + length {
        return Err(malformed);
    }
    let mut frame = frames.split_to(FRAME_HEADER + length);
    let body = frame.split_off(FRAME_HEADER);
    let parsed = parse(kind, Reader(body)).ok_or(malformed)?;
    if parsed.is_none() && !is_optional(kind) {
        return Err(malformed);
    }
    Ok(Some((kind, FRAME_HEADER + length, parsed)))
}

fn parse(kind: u8, mut body: Reader) -> Option<Option<Frame>> {
    let frame = match kind {
        0x01 => Frame::Attach(Box::new(Attach {
            status: match body.u8()? {
                0 => AttachStatus::Fresh,
                1 => AttachStatus::Resume,
                2 => AttachStatus::Unknown,
                3 => AttachStatus::Stale,
                _ => return None,
            },
            sid: body.array()?,
            attempt: body.u32()?,
            recv_off: body.u64()?,
            send_off: body.u64()?,
            instance: body.array()?,
            proof: body.array()?,
            agent: body
                .text(AGENT_MAX)
                .filter(|agent| agent.bytes().all(|byte| matches!(byte, b' '..=b'~')))?,
        })),
        0x02 => Frame::Ack(body.u64()?),
        0x03 => Frame::Rekey,
        0x04 => Frame::Ping(body.u64()?),
        0x05 => Frame::Pong(body.u64()?),
        0x06 => Frame::GoAway(Duration::from_millis(body.u32()?.into())),
        0x07 => {
            let code = Code::from_u16(body.u16()?).unwrap_or(Code::Closed);
            Frame::Close(code, retry(body.u32()?))
        }
        0x10 => Frame::Open {
            cid: body.u32()?,
            window: body.u64()?,
            hide: match body.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            to: body.name()??,
            first: body.rest(),
        },
        0x11 => Frame::Incoming {
            cid: body.u32()?,
            window: body.u64()?,
            from: body.name()?,
            first: body.rest(),
        },
        0x12 => Frame::Opened {
            cid: body.u32()?,
            window: body.u64()?,
        },
        0x13 => Frame::CircuitData {
            cid: body.u32()?,
            data: body.rest(),
        },
        0x14 => Frame::CircuitCredit {
            cid: body.u32()?,
            limit: body.u64()?,
        },
        0x15 => Frame::CircuitClose {
            cid: body.u32()?,
            code: body.u16()?,
            retry_ms: body.u32()?,
        },
        0x40 => Frame::Credit {
            id: body.u64()?,
            limit: body.u64()?,
        },
        0x41 => Frame::Request {
            id: body.u64()?,
            deadline_ms: body.u32()?,
            total: body.u32()?,
            protocol: body.text(PROTOCOL_MAX)?,
            metadata: body.metadata()?,
            data: body.rest(),
        },
        0x42 => Frame::Response {
            id: body.u64()?,
            kind: match body.u8()? {
                0 => ResponseKind::Data,
                1 => ResponseKind::Empty,
                2 => ResponseKind::Protocol,
                3 => ResponseKind::Error,
                _ => return None,
            },
            code: body.u16()?,
            total: body.u32()?,
            data: body.rest(),
        },
        0x43 => Frame::Message {
            id: body.u64()?,
            total: body.u32()?,
            protocol: body.text(PROTOCOL_MAX)?,
            data: body.rest(),
        },
        0x44 => Frame::More {
            id: body.u64()?,
            data: body.rest(),
        },
        0x45 => Frame::Delivered(body.u64()?),
        0x46 => Frame::Cancel(body.u64()?),
        0x48 => Frame::Stream {
            id: body.u64()?,
            window: body.u64()?,
            protocol: body.text(PROTOCOL_MAX)?,
            metadata: body.rest(),
        },
        0x49 => Frame::Data {
            id: body.u64()?,
            data: body.rest(),
        },
        0x4a => Frame::Fin(body.u64()?),
        0x4b => Frame::Reset(body.u64()?, body.u16()?),
        0x4c => Frame::Stop(body.u64()?, body.u16()?),
        _ => return Some(None),
    };
    body.0.is_empty().then_some(Some(frame))
}

/// A wire delay: zero means that none was given.
pub fn retry(millis: u32) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis.into()))
}

/// A delay in wire milliseconds, zero for none; a given delay is never rounded down to none.
pub fn retry_ms(delay: Option<Duration>) -> u32 {
    delay.map_or(0, |d| {
        u32::try_from(d.as_millis()).unwrap_or(u32::MAX).max(1)
    })
}

struct Reader(Bytes);

impl Reader {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.0.first_chunk::<N>()?;
        let _ = self.0.split_to(N);
        Some(array)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }
    fn text(&mut self, max: usize) -> Option<Box<str>> {
        let length = usize::from(self.u8()?);
        if length > max {
            return None;
        }
        Some(core::str::from_utf8(&self.take(length)?).ok()?.into())
    }
    /// `length u8 ‖ name`; length 0 is nobody.
    fn name(&mut self) -> Option<Option<Name>> {
        match self.u8()? {
            0 => Some(None),
            length => Name::decode(&self.take(length.into())?).ok().map(Some),
        }
    }
    /// `length u16 ‖ bytes`; length ffff is none.
    fn metadata(&mut self) -> Option<Option<Bytes>> {
        match usize::from(self.u16()?) {
            0xffff => Some(None),
            length if length > METADATA_MAX => None,
            length => self.take(length).map(Some),
        }
    }
    fn rest(&mut self) -> Bytes {
        core::mem::take(&mut self.0)
    }
}

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

    const fn kind(&self) -> u8 {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::name::{Label, RegistryId};
    use alloc::vec;

    fn alice() -> Name {
        Name {
            registry: RegistryId {
                chain_id: 1,
                contract: [7; 20],
            },
            label: Label::new("alice").unwrap(),
        }
    }

    fn every_frame() -> Vec<Frame> {
        let data = Bytes::from_static(b"payload");
        vec![
            Frame::Attach(Box::new(Attach {
                status: AttachStatus::Resume,
                sid: [1; 16],
                attempt: 2,
                recv_off: 3,
                send_off: 4,
                instance: [5; 16],
                proof: [6; 32],
                agent: "nectar/0.1".into(),
            })),
            Frame::Ack(9),
            Frame::Rekey,
            Frame::Ping(1),
            Frame::Pong(2),
            Frame::GoAway(Duration::from_millis(1500)),
            Frame::Close(Code::Superseded, Some(Duration::from_millis(20))),
            Frame::Open {
                cid: 2,
                window: 3,
                hide: true,
                to: alice(),
                first: data.clone(),
            },
            Frame::Incoming {
                cid: 2,
                window: 3,
                from: Some(alice()),
                first: data.clone(),
            },
            Frame::Incoming {
                cid: 2,
                window: 3,
                from: None,
                first: data.clone(),
            },
            Frame::Opened { cid: 1, window: 2 },
            Frame::CircuitData {
                cid: 1,
                data: data.clone(),
            },
            Frame::CircuitCredit { cid: 1, limit: 2 },
            Frame::CircuitClose {
                cid: 1,
                code: 300,
                retry_ms: 0,
            },
            Frame::Credit { id: 0, limit: 1 },
            Frame::Request {
                id: 2,
                deadline_ms: 30_000,
                total: 7,
                protocol: "echo.1".into(),
                metadata: Some(Bytes::from_static(b"m")),
                data: data.clone(),
            },
            Frame::Response {
                id: 2,
                kind: ResponseKind::Error,
                code: 404,
                total: 7,
                data: data.clone(),
            },
            Frame::Message {
                id: 4,
                total: 7,
                protocol: "chat.1".into(),
                data: data.clone(),
            },
            Frame::More {
                id: 4,
                data: data.clone(),
            },
            Frame::Delivered(4),
            Frame::Cancel(2),
            Frame::Stream {
                id: 6,
                window: 1 << 20,
                protocol: "file.1".into(),
                metadata: data.clone(),
            },
            Frame::Data { id: 6, data },
            Frame::Fin(6),
            Frame::Reset(6, 406),
            Frame::Stop(6, 403),
        ]
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        for frame in every_frame() {
            let mut bytes = Bytes::from(frame.encode());
            let (kind, length, parsed) = next(&mut bytes).unwrap().unwrap();
            assert_eq!(
                (kind, length, parsed),
                (frame.kind(), frame.encode().len(), Some(frame))
            );
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn a_truncated_frame_is_refused_at_every_length() {
        for frame in every_frame() {
            let whole = frame.encode();
            for cut in 1..whole.len() {
                assert!(
                    next(&mut Bytes::copy_from_slice(&whole[..cut])).is_err(),
                    "{frame:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn unknown_optional_frames_are_skipped_and_unknown_mandatory_ones_refused() {
        let mut optional = Bytes::from_static(&[0xc1, 0, 1, 9, 0x03, 0, 0]);
        assert_eq!(next(&mut optional), Ok(Some((0xc1, 4, None))));
        assert_eq!(next(&mut optional), Ok(Some((0x03, 3, Some(Frame::Rekey)))));
        assert_eq!(
            next(&mut Bytes::from_static(&[0x7f, 0, 0])),
            Err(FrameError { kind: 0x7f })
        );
        assert_eq!(
            next(&mut Bytes::from_static(&[0x1f, 0, 0])),
            Err(FrameError { kind: 0x1f })
        );
    }

    #[test]
    fn a_ping_is_type_length_and_token() {
        assert_eq!(
            Frame::Ping(0x0102).encode(),
            [0x04, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        let (head, used) = data_head(DataKind::Circuit, 5, 2);
        assert_eq!(&head[..used], &[0x13, 0, 6, 0, 0, 0, 5]);
    }
}
