//! Peers with names and keys that are good, who ask for what they like and read when they like.

use super::{
    attacker::{Caller, Peer, open, request, somewhere},
    siege::{LITTLE, Siege},
};
use crate::support::strict;
use bytes::Bytes;
use futures_util::future::join_all;
use node_core::{Code, wire::frame::Frame};
use std::time::{Duration, Instant};

const FOUR: [&str; 4] = ["mallory", "mordred", "maleficent", "moriarty"];

/// Tired of a peer after two seconds.
const TIRED: [(&str, &str); 3] = [
    ("limits.keepalive", "400ms"),
    ("limits.keepalive_retry", "200ms"),
    ("limits.session_kept", "2s"),
];

/// Four that come in and do the same.
async fn each<R>(router: std::net::SocketAddr, what: impl AsyncFn(Peer) -> R) -> Vec<R> {
    let what = &what;
    join_all((0..).zip(FOUR).map(|(n, label)| async move {
        let peer = Caller::named(label)
            .enter(router, somewhere(n), "rho")
            .await;
        what(peer.unwrap_or_else(|code| panic!("{label}: {code:?}"))).await
    }))
    .await
}

fn stream(id: u64, window: u64) -> Frame {
    Frame::Stream {
        id,
        window,
        protocol: "file.1".into(),
        metadata: Bytes::from_static(b"{\"name\":\"x\",\"size\":1000000,\"type\":\"\"}"),
    }
}

#[test]
fn a_peer_that_never_reads_is_left_and_what_waits_for_it_is_bounded() {
    let siege = Siege::lay(&TIRED, &FOUR);
    let report = siege.attack("peers that never read", LITTLE, async |router| {
        each(router, async |mut peer| {
            let begun = Instant::now();
            // As much as it may ask without having heard of more credit, and then for answers that cost no credit.
            let mut frames = vec![request(4, &[7; 30_000]), request(8, &[7; 30_000])];
            frames.extend((0..4).map(|n| stream(6 + 4 * n, 0)));
            while peer.say(&frames).await.is_ok() {
                frames = (0..15).map(Frame::Ping).collect();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            begun.elapsed()
        })
        .await
    });
    for took in report.seen {
        // Not for what it asked or answered.
        assert!(took > Duration::from_secs(1), "{took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    let log = siege.log();
    for label in FOUR {
        let missed = format!("{label}.nectar is interrupted: {}", Code::KeepaliveTimeout);
        assert!(log.contains(&missed), "{missed}: {log}");
    }
    assert_eq!(siege.metric("nectar_misbehaved_total"), 0);
    siege.lift();
}

#[test]
fn a_peer_that_never_grants_credit_gets_what_fits_its_bounds_and_no_more() {
    let siege = Siege::lay(&TIRED, &FOUR);
    let report = siege.attack("peers that never grant credit", LITTLE, async |router| {
        each(router, async |mut peer| {
            let mut frames = vec![];
            frames.extend((0..4).map(|n| stream(6 + 4 * n, 0)));
            peer.say(&frames).await.unwrap();
            let (mut next, mut credit, mut spent, mut refused) = (4, 64 << 10, 0, 0);
            // It reads and asks, acknowledges nothing and grants nothing.
            loop {
                let asked = request(next, &[7; 30_000]);
                let cost = asked.encode().len() as u64 + 64;
                if spent + cost <= credit {
                    (spent, next) = (spent + cost, next + 4);
                    if peer.say(&[asked]).await.is_err() {
                        return refused;
                    }
                    continue;
                }
                let Ok(frames) = peer.hear().await else {
                    return refused;
                };
                for frame in frames {
                    match frame {
                        Frame::Credit { id: 0, limit } => credit = limit,
                        Frame::Ping(token) => drop(peer.say(&[Frame::Pong(token)]).await),
                        Frame::Response { .. } => refused += 1,
                        _ => {}
                    }
                }
            }
        })
        .await
    });
    assert!(
        report.seen.iter().all(|answers| (1..=6).contains(answers)),
        "{:?}",
        report.seen
    );
    assert!(report.took < Duration::from_secs(30), "{:?}", report.took);
    siege.lift();
}

#[test]
fn millions_of_requests_are_refused_one_by_one_and_cost_nobody_else_anything() {
    // Of each of the four; where others load the machine, as many as come in so long a time.
    let (many, long) = if strict() {
        (250_000, Duration::from_secs(300))
    } else {
        (usize::MAX, Duration::from_secs(3))
    };
    let siege = Siege::lay(&[], &FOUR);
    let report = siege.attack("requests without end", LITTLE, async move |router| {
        each(router, async |mut peer| {
            let begun = Instant::now();
            let (mut next, mut credit, mut spent, mut heard) = (4, 64 << 10, 0, 0);
            let (mut asked, mut answered, mut refused) = (0, 0, 0);
            while refused + answered < many && begun.elapsed() < long {
                let mut frames = vec![Frame::Ack(heard)];
                while frames.len() < 400 && spent + 200 < credit {
                    let frame = request(next, b"x");
                    (spent, next) = (spent + frame.encode().len() as u64 + 64, next + 4);
                    frames.push(frame);
                }
                asked += frames.len() - 1;
                if peer.say(&frames).await.is_err() {
                    break;
                }
                // All that is answered; some of it, if more may be asked by then.
                let mut patience = Duration::from_secs(10);
                while (answered + refused < asked || spent + 200 >= credit)
                    && let Ok(Ok(frames)) = tokio::time::timeout(patience, peer.hear()).await
                {
                    patience = Duration::from_millis(5);
                    for frame in frames {
                        let encoded = frame.encode();
                        if node_core::wire::frame::is_session(encoded[0]) {
                            heard += encoded.len() as u64;
                        }
                        match frame {
                            Frame::Credit { id: 0, limit } => credit = limit,
                            Frame::Response { code: 0, .. } => answered += 1,
                            Frame::Response { code, .. } => {
                                let code = Code::from_u16(code);
                                let limit =
                                    matches!(code, Some(Code::RequestRate | Code::QueueFull));
                                assert!(limit, "{code:?}");
                                refused += 1;
                            }
                            _ => {}
                        }
                    }
                }
            }
            (asked, answered, refused, begun.elapsed())
        })
        .await
    });
    for (asked, answered, refused, took) in report.seen {
        println!("{asked} asked, {answered} answered, {refused} refused in {took:.1?}");
        // 100 at once, and 10 more a second.
        let seconds = took.as_secs() as usize;
        assert!((100..=120 + 10 * seconds).contains(&answered), "{answered}");
        assert!(refused > 1000 && asked > 1000, "{refused} of {asked}");
        assert!(
            !strict() || refused + answered >= many,
            "too slow: {took:?}"
        );
    }
    siege.lift();
}

#[test]
fn who_asks_for_a_million_streams_or_circuits_is_cut_off_and_soon_banned() {
    // One after the other, until there are none left that are not banned.
    const EACH: usize = 4;
    let labels: Vec<String> = (0..3 * EACH).map(|n| format!("mallory-{n}")).collect();
    let callers: Vec<&str> = labels.iter().map(String::as_str).collect();
    let siege = Siege::lay(&[], &callers);
    for (kind, what) in ["streams", "circuits", "pings"].into_iter().enumerate() {
        let labels = labels[kind * EACH..][..EACH].to_vec();
        let report = siege.attack(what, LITTLE, async move |router| {
            let (mut asked, mut came) = (0_u32, Vec::new());
            for label in &labels {
                let caller = Caller::named(label);
                let mut ends = Vec::new();
                let last = loop {
                    let mut peer = match caller.enter(router, somewhere(1), "rho").await {
                        Ok(peer) => peer,
                        // Made again and again, this is too much for one address.
                        Err(Some(Code::SourceBudget)) => {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        }
                        Err(code) => break code,
                    };
                    let end = asked + 1_000_000;
                    let mut number = 0;
                    while asked < end {
                        let frames: Vec<_> = (number..number + 40)
                            .map(|n| match kind {
                                0 => stream(6 + 4 * u64::from(n), 1 << 20),
                                1 => open(2 * n, "bob"),
                                _ => Frame::Ping(n.into()),
                            })
                            .collect();
                        (asked, number) = (asked + 40, number + 40);
                        if peer.say(&frames).await.is_err() {
                            break;
                        }
                    }
                    ends.push(peer.until(|_| None::<()>).await);
                };
                came.push((ends, last));
            }
            (asked, came)
        });
        let (asked, came) = report.seen;
        println!("{asked} {what} asked for");
        assert!(asked >= 3 * 40 * EACH as u32, "{asked}");
        for (ends, last) in came {
            // Each time is worth 40 of 100.
            assert_eq!((ends.len(), last), (3, Some(Code::Banned)), "{what}");
            for end in ends {
                // The word may be lost with the socket.
                assert!(matches!(end, Err(Some(Code::FrameRate) | None)), "{end:?}");
            }
        }
    }
    siege.lift();
}

#[test]
fn a_guest_gets_a_circuit_where_guests_may_call_and_nothing_else() {
    let siege = Siege::lay(&[("router.guests", "true")], &[]);
    let report = siege.attack("a guest", LITTLE, async |router| {
        let mut guest = Caller::guest()
            .enter(router, somewhere(1), "rho")
            .await
            .unwrap();
        let message = Frame::Message {
            id: 8,
            total: 1,
            protocol: "chat.1".into(),
            data: Bytes::from_static(b"x"),
        };
        guest
            .say(&[request(4, b"x"), message, stream(6, 1 << 20)])
            .await
            .unwrap();
        let mut refused = Vec::new();
        while refused.len() < 3 {
            for frame in guest.hear().await.unwrap() {
                match frame {
                    Frame::Response { id, code, .. } => refused.push((id, code)),
                    Frame::Stop(id, code) => refused.push((id, code)),
                    _ => {}
                }
            }
        }
        let mut second = Caller::guest()
            .enter(router, somewhere(2), "rho")
            .await
            .unwrap();
        second.say(&[open(0, "nobody-at-all")]).await.unwrap();
        let offline = second.until(|frame| match frame {
            Frame::CircuitClose { code, .. } => Some(*code),
            _ => None,
        });
        let offline = offline.await;
        // A circuit there is, to one who serves no guests.
        let mut third = Caller::guest()
            .enter(router, somewhere(3), "rho")
            .await
            .unwrap();
        let called = third.through(&Caller::guest(), 0, "bob").await.map(drop);
        (refused, offline, called)
    });
    let (refused, offline, called) = report.seen;
    for (id, code) in refused {
        let code = Code::from_u16(code);
        assert_eq!(code, Some(Code::GuestRefused), "{id}");
    }
    assert_eq!(offline, Ok(Code::TargetOffline.as_u16()));
    assert_eq!(called, Err(Some(Code::GuestRefused)));
    siege.lift();

    let siege = Siege::lay(&[], &[]);
    let report = siege.attack("a guest where none are served", LITTLE, async |router| {
        let entered = Caller::guest().enter(router, somewhere(1), "rho").await;
        entered.map(drop)
    });
    assert_eq!(report.seen, Err(Some(Code::GuestRefused)));
    siege.lift();
}
