//! What a peer with valid keys can try against a session: every rule it breaks ends the channel with the rule's name.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    Actor, connect, name,
    sessions::{Duel, T0, attach, bytes, config},
};
use node_core::{
    Code, Limits,
    channel::RECORD,
    session::{CIRCUIT_MTU, Event, Operation, Request, Session},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Frame, INLINE, ResponseKind},
};

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
                Duel::stream(6),
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
                Duel::stream(6),
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
fn what_answers_a_request_that_has_not_left_ends_the_channel_and_the_request_is_whole() {
    let said = |frame: &dyn Fn(u64) -> Frame, nth: usize| {
        let mut duel = Duel::new();
        // It has heard our ATTACH.
        duel.say(&[Frame::Ack(duel.heard)]).unwrap();
        let stream = duel.session.open_stream("p".into(), Bytes::new());
        let asks = [30_000, 30_000, 30_000, 100_000].map(|length| {
            let request = Request::new("p", bytes(length));
            let deadline = T0 + Duration::from_secs(30);
            duel.session.request(0, request, deadline, T0).unwrap()
        });
        let asked = |frame: &&Frame| matches!(frame, Frame::Request { .. });
        assert_eq!(duel.hear().iter().filter(asked).count(), 2);
        let limit = 1 << 20;
        duel.say(&[Frame::Credit { id: stream, limit }]).unwrap();
        let said = duel.say(&[frame(asks[nth])]);
        duel.hear();
        let unsent = duel.session.dissolve(Code::Closed, &mut Vec::new());
        let lengths = unsent.iter().map(|operation| match operation {
            Operation::Request { request, .. } => request.payload.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [30_000, 100_000]);
        said
    };
    let answers: [&dyn Fn(u64) -> Frame; 3] = [
        &|id| Frame::Credit { id, limit: 60_000 },
        &|id| Frame::Response {
            id,
            kind: ResponseKind::Empty,
            code: 0,
            total: 0,
            data: Bytes::new(),
        },
        &|id| Frame::Delivered(id),
    ];
    for answer in answers {
        assert_eq!(said(answer, 0), Ok(()), "it has left");
        for waits in [2, 3] {
            assert_eq!(said(answer, waits), Err(Code::FrameUnexpected));
        }
    }
}

#[test]
fn a_first_record_without_attach_is_refused() {
    for frames in [vec![], vec![Frame::Ping(1)], vec![Duel::request(4, b"x")]] {
        let (_, mut peer, ours) = connect(&Actor::named("mallory", 1), &Actor::named("bob", 2), 7);
        let config = config(Limits::default(), 0);
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
        let config = config(Limits::default(), 0);
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
fn silence_is_noticed_by_the_listening_side_and_then_by_the_other() {
    let mut duel = Duel::new();
    let mut pings = Vec::new();
    let mut ended = None;
    for second in 0..200 {
        duel.now = T0 + Duration::from_secs(second);
        if duel.session.deadline().is_some_and(|at| at <= duel.now) {
            duel.session.handle_timeout(duel.now, &mut duel.events);
        }
        let frames = duel.hear();
        let asked = frames.iter().filter(|f| matches!(f, Frame::Ping(_)));
        pings.extend(asked.map(|_| second));
        if duel
            .events
            .iter()
            .any(|event| matches!(event, Event::Lost(Code::KeepaliveTimeout)))
        {
            ended = Some(second);
            break;
        }
    }
    // The first because of what is not acknowledged.
    assert_eq!(pings, [3, 15, 20, 25]);
    assert_eq!(
        ended,
        Some(30),
        "3 pings from 15 s on, 5 s apart as long as no round trip is known, and none answered"
    );
}

#[test]
fn a_peer_that_does_not_wait_for_a_ping_makes_itself_no_nearer() {
    let asked = |duel: &mut Duel| {
        duel.session.ping(duel.now);
        let frames = duel.hear();
        let [Frame::Ping(token)] = frames[..] else {
            panic!("{frames:?}")
        };
        token
    };
    let mut duel = Duel::new();
    let mut tokens = vec![duel.now.as_micros(), 0, 1];
    for _ in 0..20 {
        duel.now = duel.now + Duration::from_secs(1);
        let token = asked(&mut duel);
        for guess in tokens
            .iter()
            .copied()
            .chain([duel.now.as_micros(), token ^ 1])
        {
            duel.say(&[Frame::Pong(guess)]).unwrap();
        }
        assert_eq!(duel.session.round_trip(), None, "guessed");
        assert!(!tokens.contains(&token));
        tokens.push(token);
    }
    let token = asked(&mut duel);
    for round_trip in [30, 40, 50] {
        duel.now = duel.now + Duration::from_millis(round_trip);
        duel.say(&[Frame::Pong(token)]).unwrap();
        let measured = duel.session.round_trip();
        assert_eq!(
            measured,
            Some(Duration::from_millis(30)),
            "the first answer counts"
        );
    }
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
