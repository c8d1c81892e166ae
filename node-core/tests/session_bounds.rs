//! What a peer with valid keys can make a session hold or do: never more than its limits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::Bytes;
use common::{
    name,
    sessions::{Duel, T0},
};
use node_core::{
    Code, Limits,
    session::{Event, Far, Request, Signal},
    time::Duration,
    wire::frame::{CHARGE, Frame, INBOX_INITIAL, Response},
};

#[test]
fn a_flood_of_pings_is_bounded() {
    let mut duel = Duel::new();
    let flood: Vec<Frame> = (0..401).map(Frame::Ping).collect();
    assert_eq!(duel.say(&flood), Err(Code::FrameRate));
    let mut patient = Duel::new();
    for second in 0..10 {
        patient.now = T0 + Duration::from_secs(second);
        let pings: Vec<Frame> = (0..200).map(Frame::Ping).collect();
        assert_eq!(patient.say(&pings), Ok(()));
        assert_eq!(patient.hear().len(), 200);
    }
}

#[test]
fn a_peer_that_keeps_to_the_rate_does_not_break_it_whenever_its_frames_arrive() {
    let mut duel = Duel::new();
    // 188 per second, never evenly.
    for token in 0..6_000 {
        let gap = if token % 3 == 0 { 6_100 } else { 4_900 };
        duel.now = duel.now + Duration::from_micros(gap);
        duel.say(&[Frame::Ping(token)]).unwrap();
        duel.hear();
    }
}

#[test]
fn an_inbox_takes_no_more_than_it_announced_until_the_application_answers() {
    let mut duel = Duel::with(Limits {
        inbox_bytes: 128 << 10,
        ..Limits::default()
    });
    let payload = vec![0; 1000];
    let cost = Duel::request(4, &payload).encode().len() as u64 + CHARGE;
    let fit = (128 << 10) / cost;
    for n in 0..fit {
        assert_eq!(
            duel.say(&[Duel::request(4 + 4 * n, &payload)]),
            Ok(()),
            "{n} of {fit}"
        );
    }
    assert_eq!(
        duel.say(&[Duel::request(4 + 4 * fit, &payload)]),
        Err(Code::FlowViolated)
    );

    let mut polite = Duel::with(Limits {
        inbox_bytes: 128 << 10,
        ..Limits::default()
    });
    let mut limit = 128 << 10;
    let mut spent = 0;
    for n in 0..10_000 {
        assert!(
            spent + cost <= limit,
            "credit returns as requests are answered: {n}"
        );
        polite.say(&[Duel::request(4 + 4 * n, &payload)]).unwrap();
        spent += cost;
        assert!(polite.session.respond(4 + 4 * n, Response::Success(None)));
        for frame in polite.hear() {
            if let Frame::Credit {
                id: 0,
                limit: raised,
            } = frame
            {
                limit = raised;
            }
        }
        polite.events.clear();
    }
}

#[test]
fn long_messages_get_memory_one_budget_at_a_time() {
    let mut duel = Duel::with(Limits {
        message_bytes: 1 << 20,
        ..Limits::default()
    });
    let announce = |id: u64| Frame::Message {
        id,
        total: 600 << 10,
        protocol: "p".into(),
        data: Bytes::new(),
    };
    duel.say(&[announce(4), announce(8)]).unwrap();
    let granted = |frames: Vec<Frame>| {
        let ids = frames.into_iter().filter_map(|frame| match frame {
            Frame::Credit { id, limit } if id != 0 => Some((id, limit)),
            _ => None,
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(
        granted(duel.hear()),
        [(4, 600 << 10)],
        "two do not fit the budget of one"
    );
    let mut left = 600 << 10;
    while left > 0 {
        let piece = left.min(60_000);
        duel.say(&[Frame::More {
            id: 4,
            data: Bytes::from(vec![1; piece]),
        }])
        .unwrap();
        left -= piece;
    }
    assert_eq!(granted(duel.hear()), [], "the first still waits");
    duel.session.delivered(4);
    assert_eq!(
        granted(duel.hear()),
        [(8, 600 << 10)],
        "the second has its turn when the application has taken the first"
    );
    assert_eq!(
        duel.events
            .iter()
            .filter(|event| matches!(event, Event::Message { .. }))
            .count(),
        1
    );
    // Cancelled while it is put together: the memory is free again.
    duel.say(&[Frame::Cancel(8), announce(12)]).unwrap();
    assert_eq!(granted(duel.hear()), [(12, 600 << 10)]);
}

#[test]
fn the_peers_streams_are_bounded_in_number() {
    let mut duel = Duel::new();
    let open = |n: u64| Duel::stream(6 + 4 * n);
    for n in 0..64 {
        duel.say(&[open(n)]).unwrap();
    }
    duel.hear();
    duel.say(&[open(64)]).unwrap();
    let heard = duel.hear();
    assert!(
        heard.contains(&Frame::Stop(6 + 4 * 64, Code::QueueFull.as_u16())),
        "{heard:?}"
    );
    assert!(heard.contains(&Frame::Reset(6 + 4 * 64, Code::QueueFull.as_u16())));
}

#[test]
fn streams_that_our_application_has_let_go_of_are_not_kept_however_long_the_peer_withholds_their_end()
 {
    let mut duel = Duel::new();
    for _ in 0..10_000 {
        let id = duel.session.open_stream("p".into(), Bytes::new());
        duel.session.release_stream(id);
        duel.hear();
        duel.say(&[Frame::Ack(duel.heard)]).unwrap();
    }
    assert_eq!(duel.session.held().open_streams, 0);
    assert!(duel.session.is_idle());
    // What the peer had under way meanwhile breaks no rule.
    let late = |id| {
        let (data, code) = (Bytes::from_static(b"late"), Code::Cancelled.as_u16());
        [
            Frame::Credit { id, limit: 1 << 20 },
            Frame::Data { id, data },
            Frame::Fin(id),
            Frame::Stop(id, code),
            Frame::Reset(id, code),
        ]
    };
    for n in 0..10_000 {
        duel.say(&late(7 + 4 * n)).unwrap();
    }
}

#[test]
fn a_finished_stream_that_our_application_has_let_go_of_is_kept_until_what_was_written_has_left() {
    let mut duel = Duel::new();
    let id = duel.session.open_stream("p".into(), Bytes::new());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut data = Bytes::from(vec![7; 20_000]);
    assert!(duel.session.write(id, &mut data, &mut cx).is_ready());
    duel.session.finish(id);
    duel.session.detach_stream(id);
    assert!(!duel.hear().contains(&Frame::Fin(id)));
    assert_eq!(duel.session.held().open_streams, 1);
    duel.say(&[Frame::Credit { id, limit: 20_000 }]).unwrap();
    assert!(duel.hear().contains(&Frame::Fin(id)));
    assert_eq!(duel.session.held().open_streams, 0);
}

#[test]
fn a_short_frame_counts_as_much_while_it_waits_as_once_it_has_left() {
    let mut duel = Duel::new();
    for n in 0..64 {
        duel.say(&[Duel::stream(6 + 4 * n)]).unwrap();
    }
    duel.hear();
    duel.say(&[Frame::Ack(duel.heard)]).unwrap();
    assert_eq!(duel.session.held_bytes(), 0);
    for n in 64..264 {
        duel.say(&[Duel::stream(6 + 4 * n)]).unwrap();
    }
    let waits = duel.session.held();
    assert!(waits.outbox > 2 * 200 * 100, "{waits:?}");
    duel.hear();
    let left = duel.session.held();
    assert_eq!((left.outbox, left.retained), (0, waits.outbox));
}

#[test]
fn a_peer_that_acknowledges_nothing_stops_us_at_what_we_retain() {
    let mut duel = Duel::with(Limits {
        retained_bytes: 256 << 10,
        ..Limits::default()
    });
    duel.say(&[Frame::Credit {
        id: 0,
        limit: 1 << 40,
    }])
    .unwrap();
    for n in 0..1000u64 {
        let request = Request {
            protocol: "p".into(),
            metadata: None,
            payload: vec![0; 1024].into(),
            early: false,
        };
        duel.session
            .request(n, request, T0 + Duration::from_secs(30), T0)
            .unwrap();
    }
    let sent = duel.hear().len();
    assert!((200..300).contains(&sent), "{sent} frames for 256 KiB");
    duel.say(&[Frame::Ack(100_000)]).unwrap();
    assert!(
        (50..150).contains(&duel.hear().len()),
        "an acknowledgement makes room for as much"
    );
}

#[test]
fn a_peer_that_grants_no_credit_costs_us_the_outbox_and_then_an_error() {
    let mut duel = Duel::with(Limits {
        outbox_bytes: 1 << 20,
        ..Limits::default()
    });
    let mut refused = None;
    for n in 0..10_000u64 {
        let request = Request {
            protocol: "p".into(),
            metadata: None,
            payload: vec![0; 1024].into(),
            early: false,
        };
        if let Err((token, code)) =
            duel.session
                .request(n, request, T0 + Duration::from_secs(30), T0)
        {
            refused = Some((token, code));
            break;
        }
    }
    let (token, code) = refused.unwrap();
    assert_eq!(code, Code::QueueFull);
    assert!(token < 1100, "{token}");
    let sent: usize = duel
        .hear()
        .iter()
        .filter(|frame| matches!(frame, Frame::Request { .. }))
        .count();
    assert!(sent as u64 * 1100 <= INBOX_INITIAL, "{sent}");
    // Deadlines still hold.
    duel.now = T0 + Duration::from_secs(31);
    duel.session.handle_timeout(duel.now, &mut duel.events);
    let failed = duel
        .events
        .iter()
        .filter(|e| {
            matches!(
                e,
                Event::Failed {
                    code: Code::Timeout,
                    ..
                }
            )
        })
        .count();
    assert_eq!(failed as u64, token);
}

#[test]
fn one_byte_frames_of_a_stream_cost_no_more_memory_than_their_window() {
    let mut duel = Duel::new();
    duel.say(&[Duel::stream(6)]).unwrap();
    // 16 KiB of credit in single bytes, each in a record beside much else that is read at once.
    for byte in 0..16_384u32 {
        duel.say(&[Frame::Data {
            id: 6,
            data: Bytes::from(vec![byte as u8]),
        }])
        .unwrap();
    }
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut chunks, mut bytes) = (0, 0);
    while let std::task::Poll::Ready(Ok(Some(chunk))) = duel.session.read(6, &mut cx) {
        chunks += 1;
        bytes += chunk.len();
    }
    assert_eq!(bytes, 16_384);
    assert!(chunks <= 5, "{chunks} chunks");
}

#[test]
fn a_short_message_that_waits_in_a_router_does_not_keep_its_record_alive() {
    let mut duel = Duel::new();
    let open = |cid| Frame::Open {
        cid,
        window: 0,
        hide: false,
        to: name("carol"),
        first: Bytes::from_static(b"first"),
    };
    duel.say(&[open(0), open(2)]).unwrap();
    duel.session.close_circuit(0, Code::TargetOffline, None);
    let far = Far::Hop { session: 1, cid: 1 };
    assert!(duel.session.bind_circuit(2, far));
    let limit = 1 << 20;
    duel.session.circuit_signal(2, Signal::Opened { limit });
    duel.events.clear();
    // Bytes for a circuit that is closed cost nothing, and are here to make the record long.
    let data = |cid, length| Frame::CircuitData {
        cid,
        data: Bytes::from(vec![0; length]),
    };
    duel.say(&[data(2, 1), data(0, 60_000)]).unwrap();
    let Some(Event::Circuit {
        signal: Signal::Data(waiting),
        ..
    }) = duel.events.pop()
    else {
        panic!("the message goes on");
    };
    let kept = waiting.try_into_mut().unwrap().capacity();
    assert!(kept < 100, "{kept} bytes are kept for one");
}

/// Bytes that can be asked whether anybody keeps them.
struct Watched(std::sync::Arc<Vec<u8>>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn an_answer_counts_whole_until_its_last_byte_has_left_and_what_has_left_keeps_nothing_else() {
    const LENGTH: usize = 1 << 20;
    let answered = |duel: &mut Duel, id, kept: &std::sync::Arc<Vec<u8>>| {
        duel.say(&[Duel::request(id, b"?")]).unwrap();
        let payload = Bytes::from_owner(Watched(kept.clone()));
        duel.session.respond(id, Response::Success(Some(payload)));
        // All but the last byte, read and acknowledged.
        let limit = LENGTH as u64 - 1;
        duel.say(&[Frame::Credit { id, limit }]).unwrap();
        loop {
            let (before, code) = (duel.heard, duel.hear());
            if duel.heard == before {
                break;
            }
            duel.say(&[Frame::Ack(duel.heard)]).unwrap();
            drop(code);
        }
    };
    let mut duel = Duel::with(Limits {
        outbox_bytes: 3 << 20,
        ..Limits::default()
    });
    let kept = std::sync::Arc::new(vec![7; LENGTH]);
    answered(&mut duel, 4, &kept);
    assert_eq!(
        std::sync::Arc::strong_count(&kept),
        2,
        "the last byte waits"
    );
    assert!(
        duel.session.held().outbox >= LENGTH,
        "and counts as all of them"
    );
    for n in 1..8 {
        answered(&mut duel, 4 + 4 * n, &kept);
    }
    assert_eq!(
        std::sync::Arc::strong_count(&kept),
        1 + 3,
        "the others found no room"
    );
    // The last byte leaves, and nobody says that it came.
    let limit = LENGTH as u64;
    duel.say(&[Frame::Credit { id: 4, limit }]).unwrap();
    duel.hear();
    let held = duel.session.held();
    assert_eq!(std::sync::Arc::strong_count(&kept), 1 + 2);
    assert!(held.outbox < 3 * LENGTH && held.retained < 200, "{held:?}");
}
