//! Requests, messages, round trips, look-ups.

use super::{echo, ok, pattern, route, two_direct, two_routed, until};
use crate::{
    names::{key_of, name},
    world::{Ask, ECHO, Outcome, Place, Plan, World},
};
use bytes::Bytes;
use node_core::{
    Code, Limits, node::Route, registry::Provenance, session::Request, time::Duration,
};

pub(super) fn a_request_between_two_direct_nodes_is_answered(world: &mut impl World) {
    let [alice, bob] = two_direct(world);
    assert_eq!(echo(world, alice, "bob", b"hello"), ok(b"hello"));
    assert_eq!(echo(world, bob, "alice", b"back"), ok(b"back"));
    for (node, caller, payload) in [(bob, "alice", "hello"), (alice, "bob", "back")] {
        let [(from, request)] = &world.inbox(node).requests[..] else {
            panic!("one request each way")
        };
        assert_eq!(from.as_ref(), Some(&name(caller)));
        assert_eq!(
            (&*request.protocol, &request.payload[..]),
            (ECHO, payload.as_bytes())
        );
    }
    assert_eq!(
        world.counts(alice).sessions,
        1,
        "one session serves both directions"
    );
}

pub(super) fn a_request_between_two_indirect_nodes_travels_through_a_router(
    world: &mut impl World,
) {
    let [alice, bob, ..] = two_routed(world);
    assert_eq!(echo(world, alice, "bob", b"hello"), ok(b"hello"));
    assert_eq!(echo(world, bob, "alice", b"back"), ok(b"back"));
    assert_eq!(world.inbox(bob).requests[0].0, Some(name("alice")));
    for (node, peer) in [(alice, "bob"), (bob, "alice")] {
        let Some(Route::Via(router)) = route(world, node, peer) else {
            panic!("{peer} is not reached through a router")
        };
        assert!([name("rho"), name("sigma")].contains(&router));
        assert_eq!(
            route(world, node, router.label.as_str()),
            Some(Route::Direct)
        );
    }
}

pub(super) fn long_requests_and_answers_arrive_whole(world: &mut impl World) {
    let [alice, ..] = two_routed(world);
    // A router is a direct peer of those that it hosts.
    for (to, longest) in [("rho", 16 << 20), ("bob", 1 << 20)] {
        for length in [0, 1, 32 << 10, (32 << 10) + 1, longest] {
            let payload = pattern(length);
            assert!(
                echo(world, alice, to, &payload) == ok(&payload),
                "{length} bytes to {to}"
            );
        }
    }
}

pub(super) fn a_payload_above_the_limit_is_refused_before_it_leaves(world: &mut impl World) {
    let [alice, bob] = two_direct(world);
    let limit = Limits::default().message_bytes;
    let failure = echo(world, alice, "bob", &vec![0; limit + 1]).expect_err("too long");
    assert_eq!(failure.code, Code::TooLarge);
    assert!(world.inbox(bob).requests.is_empty());
}

pub(super) fn a_deadline_that_passes_is_a_timeout(world: &mut impl World) {
    world.register(&["alice", "bob"], Place::Direct);
    let alice = world.start(Plan::named("alice"));
    let bob = world.start(Plan::named("bob").stuck());
    // The time is for the question, not for finding and meeting bob.
    let token = world.ask(alice, &name("bob"), Ask::Ping);
    assert!(matches!(world.outcome(alice, token), Outcome::RoundTrip(_)));
    let within = Some(Duration::from_millis(300));
    let asked = Ask::Request(Request::new(ECHO, "?"), within);
    let token = world.ask(alice, &name("bob"), asked);
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        panic!("nobody answers")
    };
    assert_eq!(failure.code, Code::Timeout);
    until(world, "bob was asked once", |world| {
        world.inbox(bob).requests.len() == 1
    });
}

pub(super) fn messages_arrive_in_order_and_are_confirmed(world: &mut impl World) {
    let [alice, bob, ..] = two_routed(world);
    let payload = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
    let tokens: Vec<_> = (0..100)
        .map(|n| world.ask(alice, &name("bob"), Ask::Message(payload(n))))
        .collect();
    for token in tokens {
        let outcome = world.outcome(alice, token);
        assert!(matches!(outcome, Outcome::Delivered));
    }
    let messages = world.inbox(bob).messages;
    assert!(
        messages
            .iter()
            .all(|(from, ..)| *from == Some(name("alice")))
    );
    let came: Vec<_> = messages.into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(came, (0..100).map(payload).collect::<Vec<_>>());
}

pub(super) fn a_message_that_nobody_takes_is_not_delivered(world: &mut impl World) {
    world.register(&["alice", "bob"], Place::Direct);
    let alice = world.start(Plan::named("alice").with(|config| {
        config.limits.request_deadline = Duration::from_millis(400);
    }));
    world.start(Plan::named("bob").stuck());
    let token = world.ask(alice, &name("bob"), Ask::Message("?".into()));
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        panic!("nobody takes it")
    };
    assert_eq!(failure.code, Code::Timeout);
}

pub(super) fn a_round_trip_is_measured(world: &mut impl World) {
    let [alice, ..] = two_routed(world);
    for to in ["rho", "bob"] {
        let token = world.ask(alice, &name(to), Ask::Ping);
        let Outcome::RoundTrip(time) = world.outcome(alice, token) else {
            panic!("{to} answers")
        };
        assert!(
            time > Duration::ZERO && time < Duration::from_secs(10),
            "{time:?}"
        );
    }
    let token = world.ask(alice, &name("nobody"), Ask::Ping);
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        panic!("nobody has no record")
    };
    assert_eq!(failure.code, Code::Offline);
}

pub(super) fn a_name_is_resolved_with_how_it_is_known(world: &mut impl World) {
    world.register(&["alice"], Place::Direct);
    world.register(&["bob"], Place::Behind(&["alice"]));
    let pinned = world.start(Plan::named("alice"));
    let reader = world.start(Plan::named("bob").on_chain());
    for (node, known) in [(pinned, false), (reader, true)] {
        let token = world.ask(node, &name("bob"), Ask::Resolve);
        let Outcome::Resolved(Ok(found)) = world.outcome(node, token) else {
            panic!("bob is registered")
        };
        assert_eq!(found.record.key, key_of("bob").verifying_key().to_bytes());
        assert_eq!(found.record.routers, [name("alice").label]);
        assert_eq!(found.how != Provenance::Pinned, known, "{:?}", found.how);
    }
}
