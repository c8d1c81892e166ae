//! Frames: what a record carries once it is opened.
//!
//! A frame is `type u8 ‖ length u16 ‖ body`; integers are big-endian. Types `00` to `3f` belong to the channel and die
//! with it, types `40` to `ff` belong to the session: they are counted, acknowledged and retained. A type with the
//! second-highest bit of its half set (`20` to `3f`, `c0` to `ff`) is optional: who does not know it skips it.

mod read;
mod write;

pub use read::{FrameError, is_session, next};
pub use write::{DATA_HEAD, DataKind, data_head};

use crate::{code::Code, name::Name, time::Duration};
use alloc::boxed::Box;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::name::{Label, RegistryId};
    use alloc::{vec, vec::Vec};

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
