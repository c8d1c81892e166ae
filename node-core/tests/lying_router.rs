//! A router with valid keys that lies: whatever it changes is noticed, and whatever it sees is not what was said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod theatre;

use bytes::Bytes;
use nectar_sim::{Lie, key_of, name};
use node_core::{Code, node::Event as NodeEvent, time::Duration, wire::frame::Response};
use theatre::Theatre;

const SECRET: &[u8] = b"nobody on the way may read this sentence";

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn an_honest_router_connects_two_nodes_and_reads_nothing() {
    let mut stage = Theatre::new(Lie::Honest);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert_eq!(
        stage.clients[1].heard,
        [(Some(name("alice")), Bytes::from_static(SECRET))]
    );
    assert_eq!(
        stage.clients[0].answers,
        [Response::Success(Some(Bytes::from_static(SECRET)))]
    );
    assert!(
        stage.captured().len() > 3500,
        "it carried the handshake and the request: {}",
        stage.captured().len()
    );
    assert!(!contains(&stage.captured(), SECRET), "the payload in clear");
    assert!(!contains(&stage.captured(), &SECRET[..12]), "a part of it");
    for label in ["alice", "bob"] {
        assert!(
            !contains(&stage.captured(), &key_of(label).to_bytes()),
            "a secret key"
        );
        let public = key_of(label).verifying_key().to_bytes();
        assert!(
            !contains(&stage.captured(), &public),
            "not even who signs is visible inside the circuit"
        );
    }
}

#[test]
fn no_lie_of_a_router_goes_unnoticed() {
    let mut lies = vec![Lie::WrongFrom, Lie::WrongTarget];
    for n in 1..=4 {
        lies.extend([
            Lie::Drop(n),
            Lie::Repeat(n),
            Lie::Flip(n),
            Lie::Swap(n),
            Lie::Inject(n),
            Lie::Reflect(n),
        ]);
    }
    for lie in lies {
        let mut stage = Theatre::new(lie);
        stage.ask(0, "bob", SECRET);
        stage.run(Duration::from_secs(25));
        assert!(stage.told(), "{lie:?} had its chance");
        // Whatever arrived is what alice said, said by alice, at most once.
        for client in &stage.clients[1..] {
            for (from, payload) in &client.heard {
                assert_eq!(
                    (from, &payload[..]),
                    (&Some(name("alice")), SECRET),
                    "{lie:?}"
                );
            }
        }
        assert!(
            stage.clients[1].heard.len() <= 1,
            "{lie:?} made bob hear it twice"
        );
        assert!(
            stage.clients[2].heard.is_empty(),
            "{lie:?} made carol hear it"
        );
        // Alice has either the true answer or an error, never both, never neither.
        let alice = &stage.clients[0];
        assert_eq!(
            alice.answers.len() + alice.failures.len(),
            1,
            "{lie:?}: {:?} {:?}",
            alice.answers,
            alice.failures
        );
        for answer in &alice.answers {
            assert_eq!(
                *answer,
                Response::Success(Some(Bytes::from_static(SECRET))),
                "{lie:?}"
            );
        }
        assert!(!contains(&stage.captured(), SECRET));
    }
}

#[test]
fn a_router_that_names_another_caller_is_reported_by_name() {
    let mut stage = Theatre::new(Lie::WrongFrom);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert!(stage.clients[1].heard.is_empty());
    let expected = NodeEvent::Misbehaved {
        name: Some(name("rho")),
        code: Code::RouterLied,
    };
    assert!(
        stage.clients[1].events.contains(&expected),
        "{:?}",
        stage.clients[1].events
    );
}

#[test]
fn a_router_that_hides_the_caller_changes_nothing_about_who_it_is() {
    let mut stage = Theatre::new(Lie::Nameless);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert_eq!(
        stage.clients[1].heard,
        [(Some(name("alice")), Bytes::from_static(SECRET))]
    );
}

#[test]
fn a_router_that_forges_records_gets_nobody_banned() {
    let lies = (1..=3).flat_map(Lie::about);
    for lie in lies.chain([Lie::WrongFrom, Lie::WrongTarget]) {
        let mut stage = Theatre::new(lie);
        for _ in 0..2 {
            stage.ask(0, "bob", SECRET);
            stage.ask(2, "bob", b"something else");
            stage.run(Duration::from_secs(3));
        }
        let now = stage.time();
        for client in &stage.clients {
            assert_eq!(client.node.bans(now), [], "{lie:?}");
        }
    }
}

#[test]
fn circuits_that_a_router_crosses_carry_nothing_into_each_other() {
    for n in 1..=3 {
        let mut stage = Theatre::new(Lie::Cross(n));
        stage.ask(0, "bob", SECRET);
        stage.ask(2, "bob", b"something else");
        stage.run(Duration::from_secs(25));
        assert!(stage.told(), "after {n} messages");
        for (from, payload) in &stage.clients[1].heard {
            let expected = if *from == Some(name("alice")) {
                SECRET
            } else {
                b"something else"
            };
            assert_eq!(&payload[..], expected);
        }
    }
}

#[test]
fn a_router_that_answers_and_forwards_nothing_is_left_for_another_within_2_s() {
    let mut stage = Theatre::with(&[Lie::Honest; 2]);
    stage.ask(0, "bob", b"before");
    stage.run(Duration::from_secs(5));
    let used = stage.router_in_use(0, "bob");
    let ways = [(0, "bob"), (1, "alice")];
    let ask = |stage: &mut Theatre, what: &str| {
        for (from, to) in ways {
            for number in 0..3 {
                let payload = format!("{from} asks {what}, number {number}");
                stage.ask(from, to, payload.as_bytes());
            }
        }
    };
    ask(&mut stage, "just before");
    stage.lies(used, Lie::Forget);
    ask(&mut stage, "just after");
    let began = stage.now;
    let asked = [7, 6];
    while [0, 1].map(|at| stage.clients[at].answers.len()) != asked {
        stage.run(Duration::from_millis(10));
        let took = stage.now.since(began);
        assert!(
            took <= Duration::from_secs(2),
            "not answered within {took:?}"
        );
    }
    assert!(stage.told(), "something was not forwarded");
    assert_ne!(stage.router_in_use(0, "bob"), used);
    // It is there, and says so whenever it is asked.
    stage.run(Duration::from_secs(60));
    assert!(stage.knows(0, used) && stage.knows(1, used));
    ask(&mut stage, "long after");
    stage.run(Duration::from_secs(1));
    for (at, label) in [(1, "alice"), (0, "bob")] {
        let mut heard = stage.clients[at].heard.clone();
        assert!(heard.iter().all(|(from, _)| *from == Some(name(label))));
        let count = heard.len();
        heard.sort_by(|(_, one), (_, other)| one.cmp(other));
        heard.dedup();
        assert_eq!((heard.len(), count), (9 + at, 9 + at), "each once");
    }
    assert!(
        stage
            .clients
            .iter()
            .all(|client| client.failures.is_empty())
    );
}

#[test]
fn a_router_that_spoils_every_session_after_its_handshake_is_left_for_another() {
    for lie in [Lie::Flip(3), Lie::Inject(3), Lie::Reflect(3)] {
        let mut stage = Theatre::called_over_the_first(&[lie, Lie::Honest]);
        stage.ask(0, "bob", SECRET);
        stage.run(Duration::from_secs(25));
        assert!(stage.told(), "{lie:?} had its chance");
        let alice = &stage.clients[0];
        let routes: Vec<_> = alice
            .events
            .iter()
            .filter_map(|event| match event {
                NodeEvent::Attempt {
                    name: to, route, ..
                } if *to == name("bob") => Some(route),
                _ => None,
            })
            .collect();
        assert_eq!(
            alice.answers,
            [Response::Success(Some(Bytes::from_static(SECRET)))],
            "{lie:?}: {:?} over {routes:?}",
            alice.failures
        );
    }
}
