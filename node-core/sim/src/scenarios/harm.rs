//! What somebody on the way does to sockets, and that sessions outlive it.

use super::{Flow, echo, ok, open, pattern, route, two_direct, two_routed, until};
use crate::{
    names::name,
    world::{Ask, ECHO, End, Harm, NodeId, Outcome, PATIENCE, Place, Plan, Token, Ways, Wire},
};
use bytes::Bytes;
use node_core::{
    Limits,
    node::{Event, PeerInfo, PeerState, Route},
    session::Request,
    time::Duration,
};
use std::ops::Range;

/// Much more than is on its way at once, so that most of it is still to come after the harm.
const LENGTH: usize = 4 << 20;

/// What has come when the harm is done.
const MIDDLE: usize = 1 << 20;

/// Within this time another way is found for whatever waits for an answer.
const FOUND: Duration = Duration::from_secs(2);

/// Within this time whatever waits for an answer has it although all sockets of one side lead nowhere: a router's first, and
/// then a circuit over that.
const MOVED: Duration = Duration::from_secs(3);

/// Within this time a peer is missed of whom nobody wants anything.
const MISSED: Duration = Duration::from_secs(20);

pub(super) fn a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_is_cut(
    world: &mut impl Wire,
) {
    harmed_between_direct_nodes(world, Harm::Cut);
}

pub(super) fn a_stream_through_a_router_goes_on_where_it_was_when_all_its_sockets_are_cut(
    world: &mut impl Wire,
) {
    harmed_at_the_router(world, Harm::Cut);
}

pub(super) fn a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_ends_for_its_dialler_only(
    world: &mut impl Wire,
) {
    harmed_between_direct_nodes(world, Harm::CutFor(End::Dialler));
}

pub(super) fn a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_ends_for_who_was_dialled_only(
    world: &mut impl Wire,
) {
    harmed_between_direct_nodes(world, Harm::CutFor(End::Node));
}

pub(super) fn a_stream_through_a_router_goes_on_where_it_was_when_all_its_sockets_end_for_it_only(
    world: &mut impl Wire,
) {
    harmed_at_the_router(world, Harm::CutFor(End::Node));
}

pub(super) fn a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_takes_nothing_any_more(
    world: &mut impl Wire,
) {
    harmed_between_direct_nodes(world, Harm::Stall(Ways::There));
}

pub(super) fn a_router_whose_sockets_take_nothing_any_more_is_left_in_the_middle_of_a_stream(
    world: &mut impl Wire,
) {
    harmed_at_the_router(world, Harm::Stall(Ways::Both));
}

pub(super) fn an_altered_byte_ends_a_socket_between_direct_nodes_and_nothing_else(
    world: &mut impl Wire,
) {
    harmed_between_direct_nodes(world, Harm::Alter);
}

pub(super) fn an_altered_byte_ends_a_socket_to_a_router_and_nothing_else(world: &mut impl Wire) {
    harmed_at_the_router(world, Harm::Alter);
}

pub(super) fn what_is_swallowed_on_its_way_back_between_direct_nodes_is_told_again(
    world: &mut impl Wire,
) {
    // Bob sends what is swallowed through the socket that alice has opened.
    let [alice, bob] = two_direct_connected(world);
    let swallow = Harm::Swallow(Ways::Back);
    harmed_in_the_middle(world, [bob, alice], [alice.0, bob.0], FOUND, |world| {
        world.harm(bob.0, swallow)
    });
}

pub(super) fn what_a_router_says_and_is_swallowed_on_its_way_is_told_again(world: &mut impl Wire) {
    harmed_at_the_router(world, Harm::Swallow(Ways::Back));
}

pub(super) fn a_router_that_hears_nothing_any_more_is_noticed_by_those_who_wait_for_an_answer(
    world: &mut impl Wire,
) {
    left_with_requests_under_way(world, Ways::There);
}

pub(super) fn a_router_that_freezes_is_left_and_whatever_is_under_way_is_answered_once(
    world: &mut impl Wire,
) {
    left_with_requests_under_way(world, Ways::Both);
}

pub(super) fn a_router_that_answers_and_forwards_nothing_is_left_for_the_other_one(
    world: &mut impl Wire,
) {
    world.register(&["rho", "sigma"], Place::Direct);
    world.register(&["alice", "bob"], Place::Behind(&["rho", "sigma"]));
    let routers @ [rho, sigma] = ["rho", "sigma"].map(|label| world.start(Plan::router(label)));
    let [(alice, _), (bob, his)] =
        ["alice", "bob"].map(|label| start_with_both(world, label, routers));
    let mut used = rho;
    left_when(world, [alice, bob, rho, sigma], |world, router| {
        // To alice it is what it was; whatever it has for bob is lost behind it.
        used = router;
        let his = if router == rho { &his[0] } else { &his[1] };
        world.harm_some(router, his.clone(), Harm::Swallow(Ways::Both));
    });
    let label = if used == rho { "rho" } else { "sigma" };
    let token = world.ask(alice, &name(label), Ask::Ping);
    assert!(matches!(world.outcome(alice, token), Outcome::RoundTrip(_)));
    assert_eq!(met(world, alice), 2, "it answers alice as it always did");
}

pub(super) fn a_peer_that_is_gone_without_a_word_is_missed_although_nobody_wants_anything_of_it<
    W: Wire,
>(
    world: &mut W,
) {
    let labels = ["alice", "bob", "carol", "dave"];
    world.register(&labels, Place::Direct);
    let [alice, bob, carol, dave] = labels.map(|label| world.start(Plan::named(label)));
    for (from, to) in [(alice, "bob"), (carol, "dave")] {
        assert_eq!(echo(world, from, to, b"before"), ok(b"before"));
    }
    // Nothing is on its way any more.
    world.pass(Duration::from_secs(1));
    for listens in [bob, dave] {
        world.harm(listens, Harm::Swallow(Ways::Both));
    }
    // Once it is the side that has dialled, once the other one.
    for gone in [alice, dave] {
        world.kill(gone);
    }
    let missed = world.wait(MISSED * W::lenience(), |world| {
        [bob, carol].map(|node| world.counts(node).parked) == [1, 1]
    });
    assert!(missed, "somebody takes another one to be there");
}

pub(super) fn a_node_whose_address_changes_goes_on_with_its_sessions_and_leaves_others_theirs(
    world: &mut impl Wire,
) {
    world.register(&["rho", "sigma"], Place::Direct);
    let behind = Place::Behind(&["rho", "sigma"]);
    world.register(&["alice", "bob", "carol"], behind);
    let routers = ["rho", "sigma"].map(|label| world.start(Plan::router(label)));
    let [(bob, _), (carol, _), (alice, hers)] =
        ["bob", "carol", "alice"].map(|label| start_with_both(world, label, routers));
    let pair = [(alice, "alice"), (bob, "bob")];
    assert_eq!(echo(world, carol, "bob", b"before"), ok(b"before"));
    // Nobody is told that what alice has dialled leads nowhere now.
    harmed_in_the_middle(world, pair, routers, MOVED, |world| {
        for (router, hers) in routers.into_iter().zip(hers) {
            world.harm_some(router, hers, Harm::Swallow(Ways::Both));
        }
    });
    assert!(met(world, alice) > 2, "she has not dialled anew");
    for node in [bob, carol] {
        assert_eq!(met(world, node), 2, "their own routers were there");
    }
    assert_eq!(echo(world, carol, "bob", b"after"), ok(b"after"));
}

/// Alice and bob at addresses of their own, with a session for which alice has dialled.
fn two_direct_connected(world: &mut impl Wire) -> [Person; 2] {
    let [alice, bob] = two_direct(world);
    assert_eq!(echo(world, alice, "bob", b"before"), ok(b"before"));
    [(alice, "alice"), (bob, "bob")]
}

/// A node and its label.
type Person = (NodeId, &'static str);

/// Alice and bob behind the routers rho and sigma, connected to both, so that there is another way at once; in this order.
fn each_with_both_routers(world: &mut impl Wire) -> [NodeId; 4] {
    let all @ [alice, bob, ..] = two_routed(world);
    for node in [alice, bob] {
        gets_both_routers(world, node);
    }
    all
}

/// Starts a node and waits until it is connected to both routers; with the sockets that it has opened to each.
fn start_with_both(
    world: &mut impl Wire,
    label: &str,
    routers: [NodeId; 2],
) -> (NodeId, [Range<usize>; 2]) {
    let before = routers.map(|router| world.dialled(router));
    let node = world.start(Plan::named(label));
    gets_both_routers(world, node);
    let after = routers.map(|router| world.dialled(router));
    (node, [0, 1].map(|at| before[at]..after[at]))
}

fn gets_both_routers(world: &mut impl Wire, node: NodeId) {
    let online = |peer: &PeerInfo| peer.router && matches!(peer.state, PeerState::Online { .. });
    until(world, "it has both routers", |world| {
        let peers = world.peers(node);
        peers.iter().filter(|peer| online(peer)).count() == 2
    });
}

/// How often a node has met a router of its own.
fn met(world: &impl Wire, node: NodeId) -> usize {
    let events = world.inbox(node).events.into_iter();
    let met = events.filter(|event| match event {
        Event::Peer { router, state, .. } => *router && matches!(state, PeerState::Online { .. }),
        _ => false,
    });
    met.count()
}

/// Sends a stream from the first of a pair to the second, lets sockets be harmed when a part of it has come, with requests
/// under way both ways, and sees that these are answered in time and all of the stream comes, and that sockets are opened
/// anew to `places`.
fn harmed_in_the_middle<W: Wire>(
    world: &mut W,
    [from, to]: [Person; 2],
    places: [NodeId; 2],
    within: Duration,
    harm: impl FnOnce(&mut W),
) {
    let dialled = |world: &W| places.map(|node| world.dialled(node)).iter().sum::<usize>();
    let [mut here, mut far] = open(world, from.0, to.1, to.0);
    let data = pattern(LENGTH);
    let mut flow = Flow::of(data.clone());
    let come = world.wait(PATIENCE, |_| {
        flow.go_on(&mut here, &mut far);
        flow.got.len() >= MIDDLE
    });
    assert!(come && !flow.ended, "{} bytes arrived", flow.got.len());
    let before = dialled(world);
    let mut asked = UnderWay::ask(world, "in the middle", [from, to]);
    harm(world);
    let answered = world.wait(within * W::lenience(), |world| {
        flow.go_on(&mut here, &mut far);
        asked.is_over(world)
    });
    assert!(answered, "{asked:?}");
    let arrived = world.wait(PATIENCE, |_| flow.go_on(&mut here, &mut far));
    assert!(arrived, "{} bytes arrived", flow.got.len());
    assert!(flow.got == data, "not the same bytes");
    until(
        world,
        "a socket is opened in the place of the one that ended",
        |world| dialled(world) > before,
    );
    asked.assert_once(world);
    assert_eq!(echo(world, to.0, from.1, b"back"), ok(b"back"));
}

/// The same for alice and bob, who is at the address that the harmed sockets lead to.
fn harmed_between_direct_nodes(world: &mut impl Wire, harm: Harm) {
    let pair = two_direct_connected(world);
    let places = pair.map(|(node, _)| node);
    harmed_in_the_middle(world, pair, places, FOUND, |world| {
        world.harm(pair[1].0, harm)
    });
}

/// The same for alice, bob and whichever router they use.
fn harmed_at_the_router(world: &mut impl Wire, harm: Harm) {
    let [alice, bob, rho, sigma] = each_with_both_routers(world);
    let pair = [(alice, "alice"), (bob, "bob")];
    harmed_in_the_middle(world, pair, [rho, sigma], FOUND, |world| {
        let used = router(world, alice, [rho, sigma]);
        world.harm(used, harm);
    });
}

/// Swallows what goes to or from the router in use.
fn left_with_requests_under_way<W: Wire>(world: &mut W, ways: Ways) {
    let all = each_with_both_routers(world);
    left_when(world, all, |world, used| {
        world.harm(used, Harm::Swallow(ways))
    });
}

/// Lets the router in use be harmed with requests under way, and asks more.
fn left_when<W: Wire>(
    world: &mut W,
    [alice, bob, rho, sigma]: [NodeId; 4],
    harm: impl FnOnce(&mut W, NodeId),
) {
    let pair = [(alice, "alice"), (bob, "bob")];
    assert_eq!(echo(world, alice, "bob", b"before"), ok(b"before"));
    let used = router(world, alice, [rho, sigma]);
    let dialled = world.dialled(used);
    let mut before = UnderWay::ask(world, "just before", pair);
    harm(world, used);
    let mut after = UnderWay::ask(world, "just after", pair);
    let within = FOUND * W::lenience();
    assert!(
        within < Limits::default().keepalive,
        "nobody asks by then whether an idle peer lives"
    );
    let answered = world.wait(within, |world| before.is_over(world) & after.is_over(world));
    assert!(
        answered,
        "not answered within {within:?}: {before:?}, {after:?}"
    );
    assert!(
        router(world, alice, [rho, sigma]) != used || world.dialled(used) > dialled,
        "it went where nothing arrives"
    );
    before.assert_once(world);
    after.assert_once(world);
}

/// Requests that two have asked each other, a few each way.
#[derive(Debug)]
struct UnderWay {
    waiting: Vec<(NodeId, Token)>,
    /// Who was asked, and what.
    asked: Vec<(NodeId, Bytes)>,
}

impl UnderWay {
    fn ask(world: &mut impl Wire, what: &str, [one, other]: [Person; 2]) -> Self {
        let (mut waiting, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            for (from, to) in [(one, other), (other, one)] {
                let payload = Bytes::from(format!("{what}, number {}", asked.len()));
                let request = Request::new(ECHO, payload.clone());
                let token = world.ask(from.0, &name(to.1), Ask::Request(request, None));
                waiting.push((from.0, token));
                asked.push((to.0, payload));
            }
        }
        Self { waiting, asked }
    }

    /// Whether all have been answered.
    fn is_over(&mut self, world: &mut impl Wire) -> bool {
        self.waiting
            .retain(|(node, token)| match world.ended(*node, *token) {
                None => true,
                Some(Outcome::Answered(_)) => false,
                Some(Outcome::Failed(failure)) => panic!("{failure}"),
                Some(_) => panic!("a request ends with an answer or fails"),
            });
        self.waiting.is_empty()
    }

    /// Each came once.
    fn assert_once(&self, world: &impl Wire) {
        for (node, payload) in &self.asked {
            let came = world.inbox(*node).requests;
            let times = came
                .iter()
                .filter(|(_, request)| request.payload == *payload);
            assert_eq!(times.count(), 1, "{payload:?}");
        }
    }
}

/// Which of these routers, `rho` and `sigma`, carries what alice says to bob.
fn router(world: &impl Wire, alice: NodeId, [rho, sigma]: [NodeId; 2]) -> NodeId {
    match route(world, alice, "bob") {
        Some(Route::Via(router)) if router == name("rho") => rho,
        Some(Route::Via(router)) if router == name("sigma") => sigma,
        other => panic!("bob is not reached through a router: {other:?}"),
    }
}
