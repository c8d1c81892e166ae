//! Circuits where none should lead, through one router and two.

use super::{
    attacker::{Caller, Peer, open, somewhere},
    siege::{LITTLE, Siege},
};
use crate::{
    home::{Home, Running},
    support::{Network, direct_at, free_address},
};
use bytes::Bytes;
use node_core::{Code, wire::frame::Frame};
use std::{
    fs::File,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// With which code a circuit ends that somebody opens.
async fn refused(peer: &mut Peer, cid: u32, to: &str) -> Code {
    peer.say(&[open(cid, to)]).await.unwrap();
    let code = peer.until(|frame| match frame {
        Frame::CircuitClose { code, .. } => Some(*code),
        _ => None,
    });
    Code::from_u16(code.await.unwrap()).unwrap()
}

#[test]
fn circuits_lead_to_hosted_names_only_and_a_router_dials_for_nobody() {
    // Sigma is there, but in this test nobody of ours: whatever reaches it is a dial on somebody's behalf.
    let sigma = free_address();
    let listener = std::net::TcpListener::bind(sigma).unwrap();
    let dialled = Arc::new(AtomicUsize::new(0));
    let counted = dialled.clone();
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let network = Network::default()
        .direct("rho")
        .known("sigma", direct_at("sigma", sigma))
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
        .indirect("carol", &["sigma"])
        .direct("mallory")
        .direct("mordred");
    let home = Home::new(&network, "rho");
    let siege = Siege::around(network, home, &[]);
    let report = siege.attack(
        "circuits to whom it does not concern",
        LITTLE,
        async |router| {
            let enter = async |label, n| {
                let caller = Caller::named(label);
                caller.enter(router, somewhere(n), "rho").await.unwrap()
            };
            // Carol is connected here, but does not list this router.
            let _others = (enter("carol", 2).await, enter("mordred", 3).await);
            let mut peer = enter("mallory", 1).await;
            let mut codes = Vec::new();
            for (cid, to) in (0..).step_by(2).zip([
                "carol",
                "mordred",
                "sigma",
                "rho",
                "mallory",
                "nobody-at-all",
            ]) {
                codes.push((to, refused(&mut peer, cid, to).await));
            }
            codes
        },
    );
    for (to, code) in report.seen {
        let refused = matches!(code, Code::NotHosted | Code::TargetOffline | Code::Myself);
        assert!(refused, "{to}: {code:?}");
        assert!(to != "carol" || code == Code::NotHosted, "{code:?}");
    }
    assert_eq!(dialled.load(Ordering::Relaxed), 0);
    siege.lift();
}

#[test]
fn a_circuit_inside_a_circuit_is_refused() {
    // Bob bans each of them for it.
    let labels: Vec<String> = (0..12).map(|n| format!("mallory-{n}")).collect();
    let callers: Vec<&str> = labels.iter().map(String::as_str).collect();
    let siege = Siege::lay(&[], &callers);
    let report = siege.attack("circuits in circles", LITTLE, async move |router| {
        let mut codes = Vec::new();
        for label in &labels {
            let mallory = Caller::named(label);
            let mut outer = mallory.enter(router, somewhere(1), "rho").await.unwrap();
            let code = match outer.through(&mallory, 0, "bob").await {
                Err(code) => code,
                Ok(mut inner) => {
                    outer.inside(&mut inner, &[open(0, "alice")]).await;
                    let closed = outer.until(|frame| match frame {
                        Frame::CircuitClose { code, .. } => Some(*code),
                        _ => None,
                    });
                    Code::from_u16(closed.await.unwrap())
                }
            };
            codes.push(code);
        }
        codes
    });
    for code in report.seen {
        assert_eq!(code, Some(Code::CircuitNested));
    }
    siege.lift();
}

/// Circuits that a caller has at most, and a target: `limits.circuits` of a siege.
const CIRCUITS: u32 = 4;

/// Brings a node that answers chat messages to a session with rho, the only router of carol: she writes, and is not there any
/// more to hear the answer.
async fn lure(to: &str, at: SocketAddr) {
    let mut carol = Caller::named("carol")
        .enter(at, somewhere(9), to)
        .await
        .unwrap();
    let data = Bytes::from_static(b"{\"id\":\"1\",\"text\":\"call me\",\"at\":1}");
    let message = Frame::Message {
        id: 4,
        total: data.len() as u32,
        protocol: "chat.1".into(),
        data,
    };
    carol.say(&[message]).await.unwrap();
}

/// Opens as many circuits as there may be, and one more: with which code that one ends. None is ever answered.
async fn exhaust(peer: &mut Peer, to: &str) -> Code {
    let circuits = (0..CIRCUITS).map(|n| open(2 * n, to));
    peer.say(&circuits.collect::<Vec<_>>()).await.unwrap();
    refused(peer, 2 * CIRCUITS, to).await
}

/// Waits until all of these have come in.
async fn incoming(peer: &mut Peer) {
    let mut left = CIRCUITS;
    let came = peer.until(|frame| {
        left -= u32::from(matches!(frame, Frame::Incoming { .. }));
        (left == 0).then_some(())
    });
    came.await.unwrap();
}

#[test]
fn circuits_through_two_routers_make_no_circle_and_leave_nothing_behind() {
    // Sigma is a router as rho is. Tau is another, whose record lists rho, as if it were behind that.
    let network = Network::default()
        .direct("rho")
        .direct("sigma")
        .known("tau", nectar_sim::indirect("tau", &["rho"]))
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
        .indirect("carol", &["rho"])
        .indirect("mallory", &["rho", "sigma"])
        .indirect("mordred", &["rho", "sigma"]);
    let (sigma, tau) = (network.address("sigma"), free_address());
    let homes = ["sigma", "tau"].map(|label| Home::new(&network, label));
    let others = homes.iter().zip([sigma, tau]).map(|(home, at)| {
        let limit = ["--echo", "--set", "limits.circuits=4"];
        let mut command = home.run_command(Some(at), &limit);
        command.stderr(File::create(home.path().join("log")).unwrap());
        Running::begin(command)
    });
    let others: Vec<Running> = others.collect();
    let home = Home::new(&network, "rho");
    let siege = Siege::around(network, home, &[]);
    let circuits = || [siege.router, sigma].map(|at| siege.metric_of(at, "nectar_circuits"));
    let before = circuits();
    let report = siege.attack("circuits through two routers", LITTLE, async move |rho| {
        let [mallory, mordred] = ["mallory", "mordred"].map(Caller::named);
        let mut codes = Vec::new();
        let mut here = mallory.enter(rho, somewhere(1), "rho").await.unwrap();
        let mut cids = (0..).step_by(2);
        for (label, at) in [("sigma", sigma), ("tau", tau)] {
            lure(label, at).await;
            loop {
                let code = refused(&mut here, cids.next().unwrap(), label).await;
                // Until it has come to rho, it is away; in between this is too fast.
                if !matches!(code, Code::TargetOffline | Code::CircuitRate) {
                    codes.push(("rho", label, code));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // And back: from there rho, and whom it hosts.
        let mut there = mallory.enter(sigma, somewhere(2), "sigma").await.unwrap();
        for (cid, to) in (0..)
            .step_by(2)
            .zip(["rho", "alice", "tau", "sigma", "mallory"])
        {
            codes.push(("sigma", to, refused(&mut there, cid, to).await));
        }
        // Two that both routers host call each other, each through the other router.
        let mut here = mallory.enter(rho, somewhere(1), "rho").await.unwrap();
        let mut hears = mordred.enter(rho, somewhere(3), "rho").await.unwrap();
        let mut calls = mordred.enter(sigma, somewhere(4), "sigma").await.unwrap();
        let ends = [
            exhaust(&mut here, "mordred").await,
            exhaust(&mut calls, "mallory").await,
        ];
        incoming(&mut hears).await;
        incoming(&mut there).await;
        (codes, ends)
    });
    let (codes, ends) = report.seen;
    for (router, to, code) in codes {
        let expected = match (router, to) {
            // Of sigma rho knows that it lists no router; tau, who is said to, never chose rho.
            ("rho", "sigma" | "tau") | ("sigma", "rho") => Code::NotHosted,
            (_, "mallory") => Code::Myself,
            _ => Code::TargetOffline,
        };
        assert_eq!(code, expected, "{to} at {router}");
    }
    assert_eq!(ends, [Code::CircuitLimit; 2]);
    siege.until("no circuit is left", || circuits() == before);
    for other in others {
        assert!(other.terminate().success());
    }
    siege.lift();
}
