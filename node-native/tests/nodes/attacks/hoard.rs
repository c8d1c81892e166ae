//! Peers who together make a router hold as much as they can.

use super::{
    attacker::{Caller, Peer, open, request, somewhere},
    siege::Siege,
};
use crate::{
    home::Home,
    support::{Network, PATIENCE},
};
use bytes::Bytes;
use futures_util::future::join_all;
use node_core::wire::frame::{CHARGE, Frame};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Who stays, and who leaves what it has for the router to keep.
const STAY: usize = 12;
const LEAVE: usize = 6;
/// Circuits that each has to the next, and each from the one before.
const CIRCUITS: usize = 4;
/// Its `limits.message_bytes` and `limits.inbox_bytes`.
const MESSAGE: usize = 1 << 20;
const INBOX: u64 = 1 << 20;
/// What a router holds of each in a direction.
const WINDOW: u64 = 1 << 20;
const CHUNK: usize = 30_000;

/// Limits in which a session is most of what a peer may make the router hold, and few peers are most of all.
const LIMITS: [(&str, &str); 14] = [
    ("limits.inbound_channels", "16"),
    ("limits.outbound_peers", "1"),
    ("limits.routers", "1"),
    ("limits.message_bytes", "1 MiB"),
    ("limits.inbox_bytes", "1 MiB"),
    ("limits.retained_bytes", "1 MiB"),
    ("limits.outbox_bytes", "1 MiB"),
    ("limits.streams", "4"),
    ("limits.stream_window", "64 KiB"),
    ("limits.circuits", "4"),
    ("limits.circuit_window", "1 MiB"),
    ("limits.parked_bytes", "16 MiB"),
    ("limits.keepalive", "60s"),
    ("listen.connections", "32"),
];
/// Requests and messages that a stranger has at once, less a few.
const ITEMS: u64 = 90;
/// Of these, messages that nobody takes: half of what an inbox holds.
const MESSAGES: u64 = 17;
/// A router that is not heard of for so long has nothing more to grant.
const DRY: Duration = Duration::from_millis(500);

/// Sends all of a long message but its end.
async fn begin_message(peer: &mut Peer, id: u64) {
    let message = Frame::Message {
        id,
        total: MESSAGE as u32,
        protocol: "nobody.1".into(),
        data: Bytes::new(),
    };
    peer.say(&[message]).await.unwrap();
    let (mut granted, mut sent) = (0, 0);
    while sent + CHUNK < MESSAGE {
        if sent + CHUNK > granted {
            let credit = peer.until(|frame| match frame {
                Frame::Credit { id: of, limit } if *of == id => Some(*limit),
                _ => None,
            });
            granted = credit.await.unwrap() as usize;
            continue;
        }
        let data = vec![7; CHUNK].into();
        peer.say(&[Frame::More { id, data }]).await.unwrap();
        sent += CHUNK;
    }
}

/// Leaves in the inbox messages that nobody takes, and has answers that are never acknowledged.
async fn fill_session(peer: &mut Peer) {
    begin_message(peer, 4).await;
    // Granted together with the session.
    let (mut credit, mut spent) = (INBOX - 4096, 0);
    for n in 2..=ITEMS {
        let item = if n <= MESSAGES {
            Frame::Message {
                id: 4 * n,
                total: CHUNK as u32,
                protocol: "nobody.1".into(),
                data: vec![7; CHUNK].into(),
            }
        } else {
            request(4 * n, &[7; CHUNK])
        };
        let cost = item.encode().len() as u64 + CHARGE;
        while spent + cost > credit {
            let Ok(heard) = tokio::time::timeout(DRY, peer.hear()).await else {
                return;
            };
            for frame in heard.unwrap() {
                if let Frame::Credit { id: 0, limit } = frame {
                    credit = limit;
                }
            }
        }
        spent += cost;
        peer.say(&[item]).await.unwrap();
    }
}

/// Opens circuits to the next one, takes those of the one before, and gives what may be sent on each.
async fn open_circuits(peer: &mut Peer, next: &str) -> Vec<(u32, u64)> {
    let asked: Vec<_> = (0..CIRCUITS as u32).map(|n| open(2 * n, next)).collect();
    peer.say(&asked).await.unwrap();
    let mut open = Vec::new();
    while open.len() < 2 * CIRCUITS {
        for frame in peer.hear().await.unwrap() {
            match frame {
                Frame::Incoming { cid, window, .. } => {
                    open.push((cid, window));
                    let window = WINDOW;
                    peer.say(&[Frame::Opened { cid, window }]).await.unwrap();
                }
                Frame::Opened { cid, window } => open.push((cid, window)),
                Frame::CircuitClose { code, .. } => panic!("a circuit ends with {code}"),
                _ => {}
            }
        }
    }
    open
}

/// Sends all that may be sent, and reads nothing any more.
async fn fill_circuits(peer: &mut Peer, circuits: &[(u32, u64)]) {
    let data = Bytes::from(vec![7; CHUNK]);
    let cost = CHUNK as u64 + CHARGE;
    let most = circuits.iter().map(|(_, window)| window / cost).max();
    for n in 1..=most.unwrap() {
        for (cid, window) in circuits {
            if n * cost <= *window {
                let (cid, data) = (*cid, data.clone());
                peer.say(&[Frame::CircuitData { cid, data }]).await.unwrap();
            }
        }
    }
}

#[test]
fn peers_who_hoard_together_fill_a_part_of_what_is_stated_and_never_more_than_that() {
    let labels: Vec<String> = (0..STAY + LEAVE).map(|n| format!("mallory-{n}")).collect();
    let mut network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"]);
    for label in &labels {
        network = network.indirect(label, &["rho"]);
    }
    let home = Home::new(&network, "rho");
    let siege = Siege::around(network, home, &LIMITS);
    let bound = siege.worst();
    let grown = siege.growth();
    let report = siege.attack("hoarding", bound >> 20, async move |router| {
        let enter = async |n: usize| {
            let caller = Caller::named(&labels[n]);
            let peer = caller.enter(router, somewhere(n as u32), "rho").await;
            peer.unwrap_or_else(|code| panic!("{n}: {code:?}"))
        };
        for n in STAY..STAY + LEAVE {
            fill_session(&mut enter(n).await).await;
        }
        let left = grown();
        let mut peers = Vec::new();
        for n in 0..STAY {
            peers.push(enter(n).await);
        }
        join_all(peers.iter_mut().map(fill_session)).await;
        let filled = grown();
        let nexts = (0..STAY).map(|n| &labels[(n + 1) % STAY]);
        let opening = peers.iter_mut().zip(nexts);
        let opening = opening.map(|(peer, next)| open_circuits(peer, next));
        let circuits = join_all(opening).await;
        let filling = peers.iter_mut().zip(&circuits);
        join_all(filling.map(|(peer, circuits)| fill_circuits(peer, circuits))).await;
        // Until the router has read all that.
        let (begun, last) = (Instant::now(), Cell::new(0));
        while last.replace(grown()) != grown() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(DRY).await;
        }
        (left, filled, grown())
    });
    let (left, filled, grown) = report.seen;
    println!(
        "of {} MiB at most: {} with those who left, {} with what sessions hold, {} with circuits",
        bound >> 20,
        left >> 20,
        filled >> 20,
        grown >> 20
    );
    // The rest is for those whom a node dials: three of four sessions, with these limits.
    assert!(grown >= bound / 6, "{grown} of {bound}");
    siege.lift();
}
