//! How nodes end.

use super::{echo, ok, route, two_direct, until};
use crate::{
    names::name,
    world::{Ask, ECHO, Outcome, Place, Plan, World},
};
use node_core::{Code, session::Request};

pub(super) fn closing_fails_what_waits_and_whatever_comes_later(world: &mut impl World) {
    world.register(&["alice", "bob"], Place::Direct);
    let alice = world.start(Plan::named("alice"));
    let bob = world.start(Plan::named("bob").stuck());
    let request = Ask::Request(Request::new(ECHO, "?"), None);
    let waiting = world.ask(alice, &name("bob"), request);
    until(world, "bob is asked", |world| {
        !world.inbox(bob).requests.is_empty()
    });
    world.close(alice);
    let Outcome::Failed(failure) = world.outcome(alice, waiting) else {
        panic!("nobody answers")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown, "bob may have done it");
    let failure = echo(world, alice, "bob", b"?").expect_err("it is closed");
    assert_eq!(failure.code, Code::NodeClosed);
    let token = world.ask(alice, &name("bob"), Ask::Resolve);
    let Outcome::Resolved(Err(error)) = world.outcome(alice, token) else {
        panic!("it is closed")
    };
    assert_eq!(error.code, Code::NodeClosed);
    until(world, "bob has heard it", |world| {
        world.counts(bob).sessions == 0
    });
}

pub(super) fn a_peer_is_told_that_a_node_closes(world: &mut impl World) {
    let [alice, bob] = two_direct(world);
    assert_eq!(echo(world, alice, "bob", b"here"), ok(b"here"));
    world.close(bob);
    until(world, "alice has heard it", |world| {
        route(world, alice, "bob").is_none() && world.counts(alice).sessions == 0
    });
    let failure = echo(world, alice, "bob", b"?").expect_err("nobody is there");
    assert_eq!(failure.code, Code::Offline);
}
