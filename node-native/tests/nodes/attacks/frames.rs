//! WebSocket frames that claim, cut up or compress.

use super::{
    attacker::{BINARY, CONTINUED, Caller, PING, Wire, frame, somewhere},
    siege::{LITTLE, Siege},
};
use futures_util::future::join_all;
use node_core::Code;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The beginning of a block of DEFLATE (RFC 1951, 3.2.6, fixed codes), a literal zero, and the first bits of what follows.
const ZERO: [u8; 2] = [0x62, 0x18];
/// Eight times "the byte before, 258 times", which take 13 bits each.
const ZEROS: [u8; 13] = [
    0x05, 0xa3, 0x60, 0x14, 0x8c, 0x82, 0x51, 0x30, 0x0a, 0x46, 0xc1, 0x28, 0x18,
];

#[test]
fn a_claimed_length_costs_no_memory_and_no_time() {
    let siege = Siege::lay(
        &[("limits.half_open", "48"), ("listen.connections", "256")],
        &[],
    );
    for claim in [1 << 30, u64::from(u32::MAX) + 1, u64::MAX >> 1, u64::MAX] {
        let report = siege.attack(
            &format!("frames of {claim} bytes"),
            LITTLE,
            async move |router| {
                let claims = (0..40).map(|n| async move {
                    let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                    let mut bytes = vec![0x80 | BINARY, 0x80 | 127];
                    bytes.extend(claim.to_be_bytes());
                    bytes.extend([0; 4]);
                    bytes.extend([7; 1000]);
                    wire.write(&bytes).await.unwrap();
                    wire.closed().await
                });
                join_all(claims).await
            },
        );
        for code in report.seen {
            let said = matches!(code, Some(Code::RecordTooLarge | Code::FrameMalformed));
            assert!(said, "{code:?}");
        }
        assert!(report.computed < Duration::from_secs(5));
    }
    siege.lift();
}

#[test]
fn a_message_in_frames_of_one_byte_or_none_is_bounded_in_memory_and_time() {
    let siege = Siege::lay(&[], &["mallory"]);
    let report = siege.attack("frames of one byte", LITTLE, async |router| {
        let mut wire = Wire::open(router, somewhere(1)).await.unwrap();
        let mut bytes = frame(BINARY, &[1]);
        for _ in 0..80_000 {
            bytes.extend(frame(CONTINUED, &[1]));
        }
        let _ = wire.write(&bytes).await;
        wire.closed().await
    });
    assert_eq!(report.seen, Some(Code::RecordTooLarge));
    let report = siege.attack("frames of nothing first", LITTLE, async |router| {
        let mut wire = Wire::open(router, somewhere(5)).await.unwrap();
        let mut bytes = frame(BINARY, &[]);
        bytes.extend(frame(CONTINUED, &[]).repeat(3000));
        wire.write(&bytes).await.unwrap();
        // What is read of them ends it, and not the handshake's time.
        wire.closed().await
    });
    assert_eq!(report.seen, Some(Code::RecordTooLarge));
    let report = siege.attack("frames of nothing, for ever", LITTLE, async |router| {
        let mut wire = Wire::open(router, somewhere(2)).await.unwrap();
        let mut written = wire.write(&frame(BINARY, &[])).await;
        let empty = frame(CONTINUED, &[]).repeat(1000);
        while written.is_ok() {
            written = wire.write(&empty).await;
        }
    });
    // Long before the handshake's time is over.
    assert!(report.took < Duration::from_secs(10), "{:?}", report.took);
    let report = siege.attack("frames of nothing, pings between", LITTLE, async |router| {
        let mut wire = Wire::open(router, somewhere(4)).await.unwrap();
        let mut written = wire.write(&frame(BINARY, &[])).await;
        // Half of what one message may take, and a ping, which does not end it.
        let mut part = frame(CONTINUED, &[]).repeat(80_000);
        part.extend(frame(0x80 | PING, &[]));
        let mut sent = 0;
        while written.is_ok() && sent < 64 << 20 {
            written = wire.write(&part).await;
            sent += part.len();
        }
        let _ = wire.write(&frame(0x80 | CONTINUED, &[])).await;
        wire.closed().await
    });
    // The word may be lost with the socket.
    let end = report.seen;
    assert!(matches!(end, Some(Code::RecordTooLarge) | None), "{end:?}");
    let report = siege.attack(
        "pings of WebSocket whose answers nobody reads",
        LITTLE,
        async |router| {
            let mut peer = Caller::named("mallory")
                .enter(router, somewhere(3), "rho")
                .await
                .unwrap();
            let pings = frame(0x80 | PING, &[1; 125]).repeat(1000);
            for _ in 0..200 {
                if peer.wire.write(&pings).await.is_err() {
                    break;
                }
            }
            peer.until(|_| None::<()>).await
        },
    );
    // The word may be lost with the socket.
    let end = report.seen;
    assert!(matches!(end, Err(Some(Code::FrameRate) | None)), "{end:?}");
    assert!(report.took < Duration::from_secs(10), "{:?}", report.took);
    siege.lift();
}

#[test]
fn compression_is_declined_and_what_is_compressed_all_the_same_is_not_inflated() {
    let siege = Siege::lay(&[], &[]);
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let report = siege.attack("compressed bombs", LITTLE, async move |router| {
        let bombs = (0..12).map(|n| async move {
            let (mut wire, head) = Wire::upgrade(router, somewhere(n), offer).await.unwrap();
            assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
            // The bit that says "compressed", and 60 KB that would become 9.5 MB of zeros.
            let bomb = [&ZERO[..], &ZEROS.repeat(4615)].concat();
            let _ = wire.write(&frame(0xc0 | BINARY, &bomb)).await;
            wire.closed().await
        });
        join_all(bombs).await
    });
    assert!(
        report
            .seen
            .iter()
            .all(|code| *code == Some(Code::FrameMalformed)),
        "{:?}",
        report.seen
    );
    siege.lift();
}

#[test]
fn who_goes_away_without_a_word_is_said_to_be_gone_and_to_have_broken_nothing() {
    let siege = Siege::lay(&[], &["mallory"]);
    let report = siege.attack("somebody who just goes", LITTLE, async |router| {
        let mallory = Caller::named("mallory");
        let mut peer = mallory.enter(router, somewhere(1), "rho").await.unwrap();
        // What is left unread would make a reset of the end.
        peer.wire.stream.shutdown().await.unwrap();
        peer.until(|_| None::<()>).await
    });
    assert_eq!(report.seen, Err(None));
    let said = "mallory.nectar is interrupted: ";
    siege.until("its end is noticed", || siege.log().contains(said));
    let log = siege.log();
    let (_, why) = log.split_once(said).unwrap();
    assert!(why.starts_with("the connection broke"), "{log}");
    siege.lift();
}
