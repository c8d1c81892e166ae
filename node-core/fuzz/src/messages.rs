//! The messages of a handshake, unopened, and message 1 where a dialler offers it among its subprotocols.

use node_core::{
    channel::Reject,
    wire::{
        handshake::{FIRST_MAX, MESSAGE_1_LEN, MESSAGE_2_LEN, Message1, Message2, Tail},
        upgrade::{first_among, offers},
    },
};

/// What is read writes back to the same bytes, and each part of a message is a part of it.
pub(crate) fn run(data: &[u8]) {
    if let Ok(header) = core::str::from_utf8(data)
        && let Some(first) = first_among(header.split(',').map(str::trim))
    {
        let offered = offers(&first);
        let offered = offered.iter().map(String::as_str);
        assert_eq!(first_among(offered), Some(first));
    }
    if data.len() <= FIRST_MAX {
        let offered = offers(data);
        let offered = offered.iter().map(String::as_str);
        assert_eq!(first_among(offered).as_deref(), Some(data));
    }
    if let Ok(message) = Message1::parse(data) {
        assert_eq!(data.len(), MESSAGE_1_LEN);
        assert_eq!(message.to_bytes(), data);
    }
    if let Some(message) = Message2::parse(data) {
        let tail = message.tail;
        let parts = [
            &[2],
            &message.e[..],
            &message.ct[..],
            tail.s,
            tail.hello,
            tail.sig,
        ];
        assert_eq!(parts.concat(), data);
        assert!(data.len() >= MESSAGE_2_LEN);
    }
    if let Some(tail) = Tail::parse_message_3(data) {
        assert_eq!([&[3], &tail.s[..], tail.hello, tail.sig].concat(), data);
    }
    if let Some(reject) = Reject::parse(data) {
        // Of a code that we do not know, we keep that there was one.
        if reject.code.is_some() {
            assert_eq!(reject.to_bytes(), data);
        }
        assert_eq!(data.len(), 9);
    }
}
