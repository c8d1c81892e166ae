//! Who may talk to whom: what the registry says decides.

use super::{echo, ok, request, start_reachable, two_direct, until};
use crate::{
    chain::View,
    names::{key_of, name},
    world::{Ask, ECHO, NodeId, Outcome, PATIENCE, Place, Plan, World},
};
use node_core::{
    Code, Limits, Name, RegistryId,
    node::{Access, Event, NodeConfig, PeerState},
    registry::Provenance,
    session::Request,
    time::Duration,
};

/// Alice, bob and carol, registered at addresses of their own.
fn three(world: &mut impl World) {
    world.register(&["alice", "bob", "carol"], Place::Direct);
}

/// Why `to` is offline.
fn cause(world: &mut impl World, from: NodeId, to: &str) -> Option<Code> {
    let failure = echo(world, from, to, b"?").expect_err("it must fail");
    assert_eq!(failure.code, Code::Offline, "{failure}");
    failure.cause
}

pub(super) fn names_on_the_chain_find_each_other(world: &mut impl World) {
    three(world);
    world.register(&["dave"], Place::Behind(&["carol"]));
    let alice = world.start(Plan::named("alice").on_chain());
    world.start(Plan::named("bob").on_chain());
    // Alice and dave come from one address, and each makes carol read.
    world.start(Plan::router("carol").on_chain().with(|config| {
        config.resolver.peer_source_interval = Duration::ZERO;
    }));
    start_reachable(world, Plan::named("dave").on_chain());
    for to in ["bob", "dave"] {
        assert_eq!(echo(world, alice, to, b"found"), ok(b"found"));
        let peers = world.peers(alice);
        let found = peers.iter().find(|peer| peer.name == name(to));
        assert!(
            matches!(
                found.map(|peer| &peer.state),
                Some(PeerState::Online {
                    how: Some(Provenance::OneRpc),
                    ..
                })
            ),
            "{found:?}"
        );
    }
}

/// How long an endpoint takes that is in good health.
const PROMPT: Duration = Duration::from_millis(5);

/// Lets the first of three endpoints show the chain in its own way, and the others honestly.
fn three_endpoints(world: &mut impl World, view: View, delay: Duration) {
    world.show(0, view, delay);
    for honest in [1, 2] {
        world.show(honest, View::Honest, PROMPT);
    }
}

/// Lets it look for no changes by itself while this lasts, so that it reads what it is asked about and nothing else.
fn reads_seldom(config: &mut NodeConfig) {
    config.resolver.watch_interval = Duration::from_secs(600);
}

/// The key that a node finds for a name, and how that is known.
fn found(world: &mut impl World, node: NodeId, label: &str) -> ([u8; 32], Provenance) {
    let token = world.ask(node, &name(label), Ask::Resolve);
    match world.outcome(node, token) {
        Outcome::Resolved(Ok(found)) => (found.record.key, found.how),
        Outcome::Resolved(Err(error)) => panic!("{label} is registered: {error}"),
        _ => panic!("a look-up ends with a record or an error"),
    }
}

pub(super) fn a_key_that_one_of_three_endpoints_makes_up_is_outvoted_and_the_liar_asked_last(
    world: &mut impl World,
) {
    three(world);
    let mallory = key_of("mallory").verifying_key().to_bytes();
    three_endpoints(world, View::OtherKey("bob".into(), mallory), PROMPT);
    // Whoever has made the endpoint lie answers at bob's address.
    let waits = world.start(Plan::named("bob").key("mallory"));
    let alice = world.start(Plan::named("alice").on_chain().with(reads_seldom));
    assert_eq!(cause(world, alice, "bob"), Some(Code::KeyMismatch));
    assert!(world.inbox(waits).requests.is_empty());
    let by_two = Provenance::Quorum { agreeing: 2, of: 3 };
    let bob = key_of("bob").verifying_key().to_bytes();
    assert_eq!(found(world, alice, "bob"), (bob, by_two));
    world.kill(waits);
    world.start(Plan::named("bob"));
    assert_eq!(echo(world, alice, "bob", b"himself"), ok(b"himself"));
    let lied = world.reads(0);
    assert!(lied > 0, "it was asked first");
    let carol = key_of("carol").verifying_key().to_bytes();
    assert_eq!(found(world, alice, "carol"), (carol, by_two));
    assert_eq!(world.reads(0), lied, "there are two who did not lie");
}

pub(super) fn an_endpoint_that_is_slow_is_passed_over(world: &mut impl World) {
    passes_over(world, Duration::from_secs(3));
}

pub(super) fn an_endpoint_that_never_answers_is_passed_over(world: &mut impl World) {
    passes_over(world, Duration::from_secs(3600));
}

/// One of three endpoints takes so long for every answer.
fn passes_over<W: World>(world: &mut W, delay: Duration) {
    three(world);
    three_endpoints(world, View::Honest, delay);
    world.start(Plan::named("bob"));
    let alice = world.start(Plan::named("alice").on_chain().with(reads_seldom));
    let request = Ask::Request(Request::new(ECHO, "found"), None);
    let token = world.ask(alice, &name("bob"), request);
    // After one second another one is asked instead.
    let mut outcome = None;
    world.wait(Duration::from_secs(2) * W::lenience(), |world| {
        outcome = world.ended(alice, token);
        outcome.is_some()
    });
    assert!(matches!(outcome, Some(Outcome::Answered(_))), "{delay:?}");
    // Its answer has come by then, or is not waited for any more; a single failure would be forgiven.
    world.pass(Duration::from_secs(8));
    let slow = world.reads(0);
    assert!(slow > 0, "it was asked first");
    let carol = key_of("carol").verifying_key().to_bytes();
    let by_two = Provenance::Quorum { agreeing: 2, of: 3 };
    assert_eq!(found(world, alice, "carol"), (carol, by_two));
    assert_eq!(world.reads(0), slow, "there are two who are not slow");
}

pub(super) fn an_unregistered_name_is_unknown(world: &mut impl World) {
    three(world);
    let reader = world.start(Plan::named("alice").on_chain());
    assert_eq!(cause(world, reader, "nobody"), Some(Code::NameUnknown));
    let elsewhere = Name {
        registry: RegistryId {
            chain_id: 5,
            contract: [5; 20],
        },
        label: name("bob").label,
    };
    let failure = request(world, reader, &elsewhere, b"?").expect_err("of no known registry");
    assert_eq!(failure.cause, Some(Code::RegistryUnknown));
}

pub(super) fn a_node_does_not_talk_to_itself(world: &mut impl World) {
    let [alice, _] = two_direct(world);
    let failure = echo(world, alice, "alice", b"?").expect_err("refused");
    assert_eq!(failure.code, Code::Myself);
}

pub(super) fn a_name_outside_the_allow_list_is_refused(world: &mut impl World) {
    three(world);
    let alice = world.start(Plan::named("alice"));
    let carol = world.start(Plan::named("carol"));
    let bob = world.start(
        Plan::named("bob").with(|config| config.allow = Access::Only([name("carol")].into())),
    );
    assert_eq!(cause(world, alice, "bob"), Some(Code::NotAllowed));
    assert_eq!(echo(world, carol, "bob", b"?"), ok(b"?"));
    assert_eq!(world.inbox(bob).requests.len(), 1);
}

pub(super) fn a_caller_whose_key_is_not_the_registered_one_is_refused(world: &mut impl World) {
    three(world);
    refuses_mallory(world, Plan::on_chain);
}

pub(super) fn a_caller_whose_key_is_not_the_pinned_one_is_refused(world: &mut impl World) {
    three(world);
    refuses_mallory(world, |plan| plan);
}

/// Mallory calls bob under alice's name.
fn refuses_mallory(world: &mut impl World, know: fn(Plan) -> Plan) {
    let bob = world.start(know(Plan::named("bob")));
    let mallory = world.start(know(Plan::named("alice").key("mallory")));
    assert_eq!(cause(world, mallory, "bob"), Some(Code::KeyMismatch));
    assert!(world.inbox(bob).requests.is_empty());
    assert_eq!(world.counts(bob).sessions, 0);
    until(world, "its own operator is told", |world| {
        let news = world.inbox(mallory).events;
        news.contains(&Event::Identity(Code::KeyMismatch))
    });
}

pub(super) fn whoever_answers_at_the_address_with_another_key_is_not_talked_to(
    world: &mut impl World,
) {
    three(world);
    let alice = world.start(Plan::named("alice").on_chain());
    let mallory = world.start(Plan::named("bob").key("mallory").on_chain());
    assert_eq!(cause(world, alice, "bob"), Some(Code::KeyMismatch));
    assert!(world.inbox(mallory).requests.is_empty());
}

pub(super) fn whoever_answers_under_another_name_is_not_talked_to(world: &mut impl World) {
    three(world);
    let alice = world.start(Plan::named("alice").on_chain());
    let carol = world.start(Plan::named("carol").at("bob").on_chain());
    assert_eq!(cause(world, alice, "bob"), Some(Code::WrongName));
    assert!(world.inbox(carol).requests.is_empty());
}

/// Reads the chain often, so that nobody has to wait for minutes, and no more often than there are blocks: of several reads
/// in a row one is to see a later block.
fn reads_often(config: &mut NodeConfig) {
    config.resolver.watch_interval = Duration::from_secs(2);
    config.resolver.fresh_for = Duration::from_secs(2);
    config.resolver.peer_name_interval = Duration::from_secs(1);
}

/// Within this time a node that [`reads_often`] knows that a key is another one now.
const ROTATED: Duration = Duration::from_secs(10);

/// Waits for what follows when a node that [`reads_often`] sees that a peer's key is another one now.
fn loses_its_sessions<W: World>(world: &mut W, node: NodeId) {
    let ended = world.wait(ROTATED * W::lenience(), |world| {
        world.counts(node).sessions == 0
    });
    assert!(ended, "a session outlives the record of its peer's key");
}

pub(super) fn a_rotated_key_ends_what_the_old_one_made(world: &mut impl World) {
    three(world);
    let alice = world.start(Plan::named("alice").on_chain().with(reads_often));
    let bob = world.start(Plan::named("bob").on_chain());
    assert_eq!(echo(world, alice, "bob", b"old key"), ok(b"old key"));
    world.change("bob", |record| {
        record.key = key_of("bobby").verifying_key().to_bytes();
    });
    loses_its_sessions(world, alice);
    // The old key still answers at the address, and is refused.
    assert_eq!(cause(world, alice, "bob"), Some(Code::KeyMismatch));
    world.kill(bob);
    world.start(Plan::named("bob").key("bobby").on_chain());
    assert_eq!(echo(world, alice, "bob", b"new key"), ok(b"new key"));
}

pub(super) fn a_session_that_waits_ends_when_its_peers_key_is_rotated_and_nobody_gets_what_was_under_way<
    W: World,
>(
    world: &mut W,
) {
    three(world);
    let alice = world.start(Plan::named("alice").on_chain().with(reads_often));
    let old = world.start(Plan::named("bob").on_chain().stuck());
    // The request itself may take longer than a session waits for another pipe.
    let request = Ask::Request(Request::new(ECHO, "?"), Some(PATIENCE));
    let asked = world.ask(alice, &name("bob"), request);
    until(world, "bob is asked", |world| {
        !world.inbox(old).requests.is_empty()
    });
    world.kill(old);
    until(world, "alice's session waits", |world| {
        world.counts(alice).parked == 1
    });
    world.change("bob", |record| {
        record.key = key_of("bobby").verifying_key().to_bytes();
    });
    let within = ROTATED * W::lenience();
    assert!(within < Limits::default().session_kept, "it ends anyway");
    let mut outcome = None;
    world.wait(within, |world| {
        outcome = world.ended(alice, asked);
        outcome.is_some()
    });
    let Some(Outcome::Failed(failure)) = outcome else {
        panic!("it waits for somebody who is no longer bob")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown, "bob may have done it");
    assert_eq!(world.counts(alice).parked, 0);
    let new = world.start(Plan::named("bob").key("bobby").on_chain());
    assert_eq!(echo(world, alice, "bob", b"new key"), ok(b"new key"));
    assert_eq!(world.inbox(new).requests.len(), 1, "what the old key had");
}

pub(super) fn a_rotation_that_a_reorganisation_undoes_lets_the_old_key_in_again_and_ends_what_the_new_one_made(
    world: &mut impl World,
) {
    three(world);
    let bob = |key: &str| Plan::named("bob").key(key).on_chain().with(reads_often);
    let alice = world.start(Plan::named("alice").on_chain().with(reads_often));
    let old = world.start(bob("bob"));
    assert_eq!(echo(world, alice, "bob", b"old key"), ok(b"old key"));
    let rotated = world.change("bob", |record| {
        record.key = key_of("bobby").verifying_key().to_bytes();
    });
    loses_its_sessions(world, alice);
    world.kill(old);
    let new = world.start(bob("bobby"));
    assert_eq!(echo(world, alice, "bob", b"new key"), ok(b"new key"));
    // The change is known from the chain's log by then, in which it is missed.
    world.pass(Duration::from_secs(5));
    world.undo(rotated);
    loses_its_sessions(world, alice);
    // The new key still answers at the address, and is refused.
    assert_eq!(cause(world, alice, "bob"), Some(Code::KeyMismatch));
    world.kill(new);
    let again = world.start(bob("bob"));
    for (from, to) in [(again, "alice"), (alice, "bob")] {
        // One who has just read the record does not read it again for a caller, who tries again.
        let tries = (0..20).find(|_| {
            let answered = echo(world, from, to, b"old key again").is_ok();
            if !answered {
                world.pass(Duration::from_secs(1));
            }
            answered
        });
        assert!(tries.is_some(), "{to} refuses the old key");
    }
    let accused = |event: &Event| matches!(event, Event::Misbehaved { .. });
    for node in [alice, again] {
        assert!(!world.inbox(node).events.iter().any(accused));
    }
}

pub(super) fn a_caller_with_a_freshly_rotated_key_is_let_in_after_one_more_read(
    world: &mut impl World,
) {
    three(world);
    let bob = Plan::named("bob").on_chain();
    // Bob looks for no changes by himself while this lasts.
    let bob = world.start(bob.with(|config| {
        config.resolver.watch_interval = Duration::from_secs(60);
        config.resolver.peer_name_interval = Duration::from_secs(1);
    }));
    let alice = world.start(Plan::named("alice").on_chain());
    assert_eq!(echo(world, alice, "bob", b"old key"), ok(b"old key"));
    world.kill(alice);
    world.change("alice", |record| {
        record.key = key_of("alice2").verifying_key().to_bytes();
    });
    // A record that was read a moment ago is not doubted.
    world.pass(Duration::from_secs(6));
    let again = world.start(Plan::named("alice").key("alice2").on_chain());
    assert_eq!(echo(world, again, "bob", b"new key"), ok(b"new key"));
    assert_eq!(world.inbox(bob).requests.len(), 2);
}

pub(super) fn with_every_endpoint_down_pinned_names_still_talk_and_others_say_why_not(
    world: &mut impl World,
) {
    world.register(&["alice", "bob"], Place::Direct);
    // Nothing listens there.
    let down =
        |config: &mut NodeConfig| config.registries[0].rpcs = vec!["http://127.0.0.1:1".into()];
    let alice = world.start(Plan::named("alice").with(down));
    world.start(Plan::named("bob").with(down));
    assert_eq!(echo(world, alice, "bob", b"pinned"), ok(b"pinned"));
    let why = cause(world, alice, "carol");
    assert!(
        matches!(why, Some(Code::ChainUnavailable | Code::RpcUnreachable)),
        "{why:?}"
    );
}
