//! How nodes reach each other: directly, through routers, as guests, again.

use super::{echo, ok, route, start_reachable, two_direct, until};
use crate::{
    names::name,
    world::{Ask, ECHO, Outcome, Place, Plan, World},
};
use node_core::{
    Code,
    node::{Event, Route},
    session::Request,
};

pub(super) fn an_indirect_node_with_three_routers_of_which_two_are_dead_is_online_and_reachable(
    world: &mut impl World,
) {
    world.register(&["rho", "sigma", "tau", "bob"], Place::Direct);
    world.register(&["alice"], Place::Behind(&["rho", "sigma", "tau"]));
    world.start(Plan::router("tau"));
    let alice = start_reachable(world, Plan::named("alice"));
    // A node's state says so a moment before its event has been taken.
    until(world, "alice heard that she is reachable", |world| {
        world.inbox(alice).events.contains(&Event::Reachable(true))
    });
    let bob = world.start(Plan::named("bob"));
    assert_eq!(echo(world, bob, "alice", b"there?"), ok(b"there?"));
    assert_eq!(route(world, bob, "alice"), Some(Route::Via(name("tau"))));
}

pub(super) fn a_direct_node_and_an_indirect_one_reach_each_other(world: &mut impl World) {
    world.register(&["rho", "bob"], Place::Direct);
    world.register(&["alice"], Place::Behind(&["rho"]));
    world.start(Plan::router("rho"));
    let bob = world.start(Plan::named("bob"));
    let alice = start_reachable(world, Plan::named("alice"));
    assert_eq!(echo(world, alice, "bob", b"direct"), ok(b"direct"));
    assert_eq!(route(world, alice, "bob"), Some(Route::Direct));
    // Bob cannot dial alice, but she has.
    assert_eq!(echo(world, bob, "alice", b"back"), ok(b"back"));
    assert_eq!(world.inbox(alice).requests[0].0, Some(name("bob")));
}

pub(super) fn a_peer_that_nobody_answers_for_is_offline_with_the_reason(world: &mut impl World) {
    world.register(&["alice", "bob"], Place::Direct);
    world.register(&["carol"], Place::Behind(&["bob"]));
    let alice = world.start(Plan::named("alice"));
    for to in ["bob", "carol"] {
        let failure = echo(world, alice, to, b"?").expect_err("nobody is there");
        assert_eq!(
            (failure.code, failure.cause),
            (Code::Offline, Some(Code::DialFailed)),
            "{to}"
        );
    }
}

pub(super) fn two_nodes_that_dial_each_other_at_once_keep_one_session(world: &mut impl World) {
    for round in 0..5 {
        let labels = [format!("alice-{round}"), format!("bob-{round}")];
        world.register(&labels.each_ref().map(|label| &**label), Place::Direct);
        let nodes = labels
            .each_ref()
            .map(|label| world.start(Plan::named(label)));
        let asked = [(0, 1), (1, 0)].map(|(from, to)| {
            let request = Request::new(ECHO, "at once");
            world.ask(nodes[from], &name(&labels[to]), Ask::Request(request, None))
        });
        for (node, token) in nodes.into_iter().zip(asked) {
            match world.outcome(node, token) {
                Outcome::Answered(_) => {}
                Outcome::Failed(failure) => panic!("round {round}: {failure}"),
                _ => panic!("a request ends with an answer or fails"),
            }
        }
        until(world, "one session is left", |world| {
            nodes.iter().all(|node| world.counts(*node).sessions == 1)
        });
        assert_eq!(echo(world, nodes[0], &labels[1], b"again"), ok(b"again"));
    }
}

pub(super) fn a_router_that_restarts_is_reconnected(world: &mut impl World) {
    world.register(&["rho"], Place::Direct);
    world.register(&["alice", "bob"], Place::Behind(&["rho"]));
    let mut rho = world.start(Plan::router("rho"));
    let nodes = ["alice", "bob"].map(|label| start_reachable(world, Plan::named(label)));
    let [alice, bob] = nodes;
    assert_eq!(echo(world, alice, "bob", b"before"), ok(b"before"));
    for announced in [true, false] {
        if announced {
            world.close(rho);
        } else {
            world.kill(rho);
        }
        until(world, "both have lost their router", |world| {
            nodes.iter().all(|node| !world.is_reachable(*node))
        });
        rho = world.start(Plan::router("rho"));
        until(world, "both are reachable again", |world| {
            nodes.iter().all(|node| world.is_reachable(*node))
        });
        assert_eq!(echo(world, bob, "alice", b"after"), ok(b"after"));
    }
}

pub(super) fn a_node_that_restarts_is_reached_again(world: &mut impl World) {
    let [alice, bob] = two_direct(world);
    assert_eq!(echo(world, alice, "bob", b"before"), ok(b"before"));
    world.kill(bob);
    until(world, "alice has noticed", |world| {
        route(world, alice, "bob").is_none()
    });
    let again = world.start(Plan::named("bob"));
    assert_eq!(echo(world, alice, "bob", b"after"), ok(b"after"));
    assert_eq!(world.inbox(again).requests.len(), 1);
    assert_eq!(world.inbox(bob).requests.len(), 1);
}

pub(super) fn a_guest_calls_where_guests_are_served_and_nowhere_else(world: &mut impl World) {
    world.register(&["alice", "bob"], Place::Direct);
    let alice = world.start(Plan::named("alice").with(|config| config.guests = true));
    world.start(Plan::named("bob"));
    let guest = world.start(Plan::guest());
    assert_eq!(echo(world, guest, "alice", b"who?"), ok(b"who?"));
    assert_eq!(world.inbox(alice).requests[0].0, None);
    let failure = echo(world, guest, "bob", b"who?").expect_err("bob serves no guests");
    assert_eq!(failure.reason(), Code::GuestRefused);
}

pub(super) fn a_guest_reaches_an_indirect_node_that_serves_guests(world: &mut impl World) {
    world.register(&["rho"], Place::Direct);
    world.register(&["alice", "bob"], Place::Behind(&["rho"]));
    world.start(Plan::router("rho"));
    let serves = Plan::named("alice").with(|config| config.guests = true);
    let alice = start_reachable(world, serves);
    let bob = start_reachable(world, Plan::named("bob"));
    let guest = world.start(Plan::guest());
    assert_eq!(echo(world, guest, "alice", b"who?"), ok(b"who?"));
    assert_eq!(route(world, guest, "alice"), Some(Route::Via(name("rho"))));
    assert_eq!(world.inbox(alice).requests[0].0, None);
    let failure = echo(world, guest, "bob", b"who?").expect_err("bob serves no guests");
    assert_eq!(failure.reason(), Code::GuestRefused);
    assert!(world.inbox(bob).requests.is_empty());
}

pub(super) fn everybody_behind_one_router_talks_with_everybody_at_once(world: &mut impl World) {
    let labels = ["aaa", "bbb", "ccc", "ddd", "eee", "fff", "ggg", "hhh"];
    world.register(&["rho"], Place::Direct);
    world.register(&labels, Place::Behind(&["rho"]));
    let rho = world.start(Plan::router("rho"));
    let nodes = labels.map(|label| start_reachable(world, Plan::named(label)));
    let mut asked = Vec::new();
    for (from, own) in nodes.into_iter().zip(labels) {
        for to in labels.into_iter().filter(|to| *to != own) {
            let request = Request::new(ECHO, format!("{own} to {to}"));
            let token = world.ask(from, &name(to), Ask::Request(request.clone(), None));
            asked.push((from, token, request));
        }
    }
    assert_eq!(asked.len(), 56);
    for (from, token, request) in asked {
        let Outcome::Answered(answer) = world.outcome(from, token) else {
            panic!("{request:?} is not answered")
        };
        assert_eq!(Ok(answer), ok(&request.payload));
    }
    // Of two circuits between one pair, opened at once from both ends, one is kept.
    until(world, "one session per pair", |world| {
        nodes.iter().all(|node| world.counts(*node).sessions == 8)
    });
    assert_eq!(world.counts(rho).sessions, 8);
}
