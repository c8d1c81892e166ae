//! Reading frames.

use super::{
    AGENT_MAX, Attach, AttachStatus, FRAME_HEADER, Frame, METADATA_MAX, PROTOCOL_MAX, ResponseKind,
    retry,
};
use crate::{code::Code, name::Name, time::Duration};
use alloc::boxed::Box;
use bytes::Bytes;

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
