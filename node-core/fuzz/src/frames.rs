//! Frames.

use crate::memory::claimed;
use bytes::Bytes;
use node_core::wire::frame::{FRAME_HEADER, Frame, next};

/// What a parsed frame may hold beside slices of its record: an ATTACH, a name, a text; all of them bounded by the frame.
const OVERHEAD: usize = 512;

/// What is read writes back to the same bytes, nothing shorter is a frame, and reading claims no more than a frame holds.
pub(crate) fn run(data: &[u8]) {
    let mut frames = Bytes::copy_from_slice(data);
    loop {
        let before = frames.clone();
        let (read, bytes) = claimed(|| next(&mut frames));
        assert!(bytes <= before.len().min(70_000) + OVERHEAD, "{bytes}");
        let (kind, length, frame) = match read {
            Ok(Some(read)) => read,
            Ok(None) => return assert!(before.is_empty()),
            Err(error) => return assert_eq!(error.kind, before[0]),
        };
        let bytes = before.slice(..length);
        assert_eq!(bytes[0], kind);
        assert_eq!(frames, before.slice(length..));
        assert!(next(&mut before.slice(..length - 1)).is_err());
        let Some(frame) = frame else {
            assert!(matches!(kind, 0x20..=0x3f | 0xc0..=0xff));
            continue;
        };
        let written = frame.encode();
        if let Frame::Close(..) = frame {
            // Of a code that we do not know, we keep that there was one.
            assert_eq!(written.len(), length);
            let again = next(&mut Bytes::from(written));
            assert_eq!(again, Ok(Some((kind, length, Some(frame)))));
        } else {
            assert_eq!(written, bytes, "{frame:?}");
        }
        assert!(length >= FRAME_HEADER);
    }
}
