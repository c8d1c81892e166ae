//! What a peer with valid keys can try against a session: every rule it breaks ends the channel with the rule's name.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Actor, connect, name};
use node_core::{
    Code, Instant, Limits,
    channel::{Channel, RECORD},
    session::{CIRCUIT_MTU, Event, Far, Request, Session, SessionConfig, Signal},
    time::Duration,
    wire::frame::{
        Attach, AttachStatus, CHARGE, Frame, INBOX_INITIAL, INLINE, Response, ResponseKind, next,
    },
};
use std::sync::Arc;

const T0: Instant = Instant::from_micros(1_000_000);

/// A session under test, and the keys of the peer that attacks it.
struct Duel {
    session: Session<u64>,
    peer: Channel,
    now: Instant,
    events: Vec<Event<u64>>,
}

fn attach(channel: &Channel) -> Attach {
    let mut sid = [0; 16];
    sid.copy_from_slice(&channel.export("session id")[..16]);
    Attach {
        status: AttachStatus::Fresh,
        sid,
        attempt: 0,
        recv_off: 0,
        send_off: 0,
        instance: [9; 16],
        proof: [0; 32],
        agent: "".into(),
    }
}

impl Duel {
    /// The attacker dialled: its items are 4, 8, 12 …, its streams 6, 10, 14 …, its circuits 0, 2, 4 ….
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let (_, peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let config = SessionConfig {
            limits: Arc::new(limits),
            mtu: 65_536,
            instance: [1; 16],
            agent: "test".into(),
        };
        let mut events = Vec::new();
        let attach = attach(&peer);
        let session = Session::accept(ours, config, &attach, T0, &mut events).unwrap();
        let mut duel = Self {
            session,
            peer,
            now: T0,
            events,
        };
        duel.hear();
        duel
    }

    fn seal(&mut self, frames: &[u8]) -> BytesMut {
        let mut record = BytesMut::from(&[RECORD][..]);
        record.extend_from_slice(frames);
        self.peer.seal(&mut record).unwrap();
        record
    }

    fn say_bytes(&mut self, frames: &[u8]) -> Result<(), Code> {
        let record = self.seal(frames);
        self.session
            .handle_record(record, self.now, &mut self.events)
            .map_err(|violation| violation.code)
    }

    fn say(&mut self, frames: &[Frame]) -> Result<(), Code> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        self.say_bytes(&bytes)
    }

    /// Everything that the session sends now.
    fn hear(&mut self) -> Vec<Frame> {
        let mut heard = Vec::new();
        while let Some(record) = self
            .session
            .poll_transmit(self.now, false, &mut self.events)
        {
            let mut frames = self.peer.open(record).unwrap().freeze();
            while let Some((_, _, frame)) = next(&mut frames).unwrap() {
                heard.extend(frame);
            }
        }
        heard
    }

    fn request(id: u64, payload: &[u8]) -> Frame {
        Frame::Request {
            id,
            deadline_ms: 1000,
            total: payload.len() as u32,
            protocol: "echo.1".into(),
            metadata: None,
            data: Bytes::copy_from_slice(payload),
        }
    }
}

#[test]
fn frames_that_break_a_rule_end_the_channel_with_the_rules_name() {
    let data = Bytes::from_static(b"data");
    let name_of_bob = name("bob");
    let long = Bytes::from(vec![0; INLINE + 1]);
    let cases: Vec<(&str, Vec<Frame>, Code)> = vec![
        (
            "a second ATTACH",
            vec![Frame::Attach(Box::new(attach(&Duel::new().peer)))],
            Code::AttachRefused,
        ),
        (
            "an acknowledgement of what was never sent",
            vec![Frame::Ack(1 << 40)],
            Code::FrameUnexpected,
        ),
        (
            "an item numbered 0",
            vec![Duel::request(0, b"x")],
            Code::FrameUnexpected,
        ),
        (
            "an item of our numbering",
            vec![Duel::request(5, b"x")],
            Code::FrameUnexpected,
        ),
        (
            "a number of no class",
            vec![Duel::request(99, b"x")],
            Code::FrameUnexpected,
        ),
        (
            "a number used twice",
            vec![Duel::request(4, b"x"), Duel::request(4, b"x")],
            Code::FrameUnexpected,
        ),
        (
            "an answer to what was never asked",
            vec![Frame::Response {
                id: 5,
                kind: ResponseKind::Data,
                code: 0,
                total: 4,
                data: data.clone(),
            }],
            Code::FrameUnexpected,
        ),
        (
            "more of what was never announced",
            vec![Frame::More {
                id: 4,
                data: data.clone(),
            }],
            Code::FrameUnexpected,
        ),
        (
            "bytes of no stream",
            vec![Frame::Data {
                id: 4,
                data: data.clone(),
            }],
            Code::FrameUnexpected,
        ),
        (
            "the end of no stream",
            vec![Frame::Fin(8)],
            Code::FrameUnexpected,
        ),
        (
            "credit for nothing",
            vec![Frame::Credit { id: 77, limit: 1 }],
            Code::FrameUnexpected,
        ),
        (
            "delivery of nothing",
            vec![Frame::Delivered(9)],
            Code::FrameUnexpected,
        ),
        (
            "cancelling nothing",
            vec![Frame::Cancel(4)],
            Code::FrameUnexpected,
        ),
        (
            "a payload longer than announced",
            vec![Frame::Message {
                id: 4,
                total: 3,
                protocol: "p".into(),
                data: data.clone(),
            }],
            Code::FrameMalformed,
        ),
        (
            "a payload shorter than announced",
            vec![Frame::Message {
                id: 4,
                total: 5,
                protocol: "p".into(),
                data: data.clone(),
            }],
            Code::FrameMalformed,
        ),
        (
            "a long payload in one frame",
            vec![Frame::Message {
                id: 4,
                total: long.len() as u32,
                protocol: "p".into(),
                data: long,
            }],
            Code::FrameMalformed,
        ),
        (
            "a message above the limit",
            vec![Frame::Message {
                id: 4,
                total: (16 << 20) + 1,
                protocol: "p".into(),
                data: Bytes::new(),
            }],
            Code::TooLarge,
        ),
        (
            "1 GiB claimed",
            vec![Frame::Message {
                id: 4,
                total: 1 << 30,
                protocol: "p".into(),
                data: Bytes::new(),
            }],
            Code::TooLarge,
        ),
        (
            "bytes of a long message before credit",
            vec![
                Frame::Message {
                    id: 4,
                    total: 1 << 20,
                    protocol: "p".into(),
                    data: Bytes::new(),
                },
                Frame::Message {
                    id: 8,
                    total: 16 << 20,
                    protocol: "p".into(),
                    data: Bytes::new(),
                },
                Frame::More {
                    id: 8,
                    data: data.clone(),
                },
            ],
            Code::FlowViolated,
        ),
        (
            "more bytes of a stream than its window",
            vec![
                Frame::Stream {
                    id: 6,
                    window: 0,
                    protocol: "p".into(),
                    metadata: Bytes::new(),
                },
                Frame::Data {
                    id: 6,
                    data: Bytes::from(vec![0; (16 << 10) + 1]),
                },
            ],
            Code::FlowViolated,
        ),
        (
            "bytes after a stream's end",
            vec![
                Frame::Stream {
                    id: 6,
                    window: 0,
                    protocol: "p".into(),
                    metadata: Bytes::new(),
                },
                Frame::Fin(6),
                Frame::Data {
                    id: 6,
                    data: data.clone(),
                },
            ],
            Code::FrameUnexpected,
        ),
        (
            "a circuit's number that comes after a higher one",
            vec![
                Frame::Open {
                    cid: 4,
                    window: 0,
                    hide: false,
                    to: name_of_bob.clone(),
                    first: data.clone(),
                },
                Frame::Open {
                    cid: 2,
                    window: 0,
                    hide: false,
                    to: name_of_bob.clone(),
                    first: data.clone(),
                },
            ],
            Code::FrameUnexpected,
        ),
        (
            "data of no circuit",
            vec![Frame::CircuitData {
                cid: 0,
                data: data.clone(),
            }],
            Code::FrameUnexpected,
        ),
        (
            "circuit data before credit",
            vec![
                Frame::Open {
                    cid: 0,
                    window: 0,
                    hide: false,
                    to: name_of_bob,
                    first: data.clone(),
                },
                Frame::CircuitData { cid: 0, data },
            ],
            Code::FlowViolated,
        ),
        (
            "a REKEY that is not its record's last frame",
            vec![Frame::Rekey, Frame::Ping(1)],
            Code::FrameUnexpected,
        ),
    ];
    for (what, frames, expected) in cases {
        let mut duel = Duel::new();
        assert_eq!(duel.say(&frames), Err(expected), "{what}");
    }
}

#[test]
fn a_first_record_without_attach_is_refused() {
    for frames in [vec![], vec![Frame::Ping(1)], vec![Duel::request(4, b"x")]] {
        let (_, mut peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let config = SessionConfig {
            limits: Arc::default(),
            mtu: 65_536,
            instance: [0; 16],
            agent: "".into(),
        };
        // The dialling side's session waits for the ATTACH of whoever answered.
        let (_, ours_dialled, mut answered) =
            connect(&Actor::named("bob", 2), &Actor::named("mallory", 1), 9);
        let _ = (&mut peer, ours);
        let mut session: Session<u64> = Session::begin(ours_dialled, config, T0);
        let mut record = BytesMut::from(&[RECORD][..]);
        for frame in &frames {
            record.extend_from_slice(&frame.encode());
        }
        answered.seal(&mut record).unwrap();
        let handled = session.handle_record(record, T0, &mut Vec::new());
        if frames.is_empty() {
            assert_eq!(handled, Ok(()), "an empty record says nothing");
        } else {
            assert_eq!(handled.unwrap_err().code, Code::FrameUnexpected);
        }
        assert!(!session.is_attached());
    }
}

type Change = fn(&mut Attach);

#[test]
fn an_attach_of_another_session_or_with_claims_is_refused() {
    let changes: [(&str, Change); 6] = [
        ("another session", |a| a.sid[0] ^= 1),
        ("an attempt", |a| a.attempt = 1),
        ("bytes received", |a| a.recv_off = 1),
        ("bytes sent", |a| a.send_off = 1),
        ("a proof", |a| a.proof[0] = 1),
        ("a resumption", |a| a.status = AttachStatus::Resume),
    ];
    for (what, change) in changes {
        let (_, peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let config = SessionConfig {
            limits: Arc::default(),
            mtu: 65_536,
            instance: [0; 16],
            agent: "".into(),
        };
        let mut attach = attach(&peer);
        change(&mut attach);
        let refused = Session::<u64>::accept(ours, config, &attach, T0, &mut Vec::new());
        assert_eq!(
            refused.err().map(|v| v.code),
            Some(Code::AttachRefused),
            "{what}"
        );
    }
}

#[test]
fn a_record_that_is_replayed_reordered_or_altered_ends_the_pipe_and_delivers_nothing() {
    let ping = Frame::Ping(7).encode();
    let mut duel = Duel::new();
    let first = duel.seal(&ping);
    let second = duel.seal(&ping);
    let now = duel.now;
    let mut handle = |record: BytesMut| duel.session.handle_record(record, now, &mut duel.events);
    assert_eq!(
        handle(second.clone()).unwrap_err().code,
        Code::RecordForged,
        "reordered"
    );
    assert_eq!(
        handle(first.clone()),
        Ok(()),
        "a forgery does not advance the counter"
    );
    assert_eq!(
        handle(first).unwrap_err().code,
        Code::RecordForged,
        "replayed"
    );
    let mut altered = second.clone();
    altered[5] ^= 1;
    assert_eq!(
        handle(altered).unwrap_err().code,
        Code::RecordForged,
        "altered"
    );
    assert_eq!(
        handle(BytesMut::from(&second[..second.len() - 1]))
            .unwrap_err()
            .code,
        Code::RecordForged,
        "cut"
    );
    assert_eq!(handle(second), Ok(()));
}

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
    let open = |n: u64| Frame::Stream {
        id: 6 + 4 * n,
        window: 0,
        protocol: "p".into(),
        metadata: Bytes::new(),
    };
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
fn silence_is_noticed_by_the_listening_side_and_then_by_the_other() {
    let mut duel = Duel::new();
    let mut pings = 0;
    let mut ended = None;
    for second in 0..200 {
        duel.now = T0 + Duration::from_secs(second);
        if duel.session.deadline().is_some_and(|at| at <= duel.now) {
            duel.session.handle_timeout(duel.now, &mut duel.events);
        }
        pings += duel
            .hear()
            .iter()
            .filter(|frame| matches!(frame, Frame::Ping(_)))
            .count();
        if duel
            .events
            .iter()
            .any(|event| matches!(event, Event::Lost(Code::KeepaliveTimeout)))
        {
            ended = Some(second);
            break;
        }
    }
    assert_eq!(pings, 3);
    assert_eq!(ended, Some(60), "3 pings, 15 s apart, and none answered");
}

#[test]
fn one_byte_frames_of_a_stream_cost_no_more_memory_than_their_window() {
    let mut duel = Duel::new();
    duel.say(&[Frame::Stream {
        id: 6,
        window: 0,
        protocol: "p".into(),
        metadata: Bytes::new(),
    }])
    .unwrap();
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
    duel.session
        .bind_circuit(2, Far::Hop { session: 1, cid: 1 });
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

#[test]
fn a_circuits_longest_message_fits_a_record() {
    let mut duel = Duel::new();
    let first = Bytes::from_static(b"first");
    let cid = duel
        .session
        .open_circuit(name("carol"), false, first, 5, T0)
        .unwrap();
    duel.hear();
    duel.say(&[Frame::Opened {
        cid,
        window: 1 << 20,
    }])
    .unwrap();
    duel.session
        .send_circuit(cid, Bytes::from(vec![0; CIRCUIT_MTU]));
    let heard = duel.hear();
    assert!(matches!(&heard[..], [Frame::CircuitData { data, .. }] if data.len() == CIRCUIT_MTU));
}
