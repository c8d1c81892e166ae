//! What somebody on the way does to sockets, and that sessions outlive it.

use super::{Flow, echo, ok, open, pattern, route, two_direct, two_routed, until};
use crate::{
    names::name,
    world::{Ask, ECHO, Harm, NodeId, Outcome, PATIENCE, Wire},
};
use node_core::{
    Limits,
    node::{PeerInfo, PeerState, Route},
    session::Request,
    time::Duration,
};

/// Much more than is on its way at once, so that most of it is still to come after the harm.
const LENGTH: usize = 4 << 20;

/// What has come when the harm is done.
const MIDDLE: usize = 1 << 20;

pub(super) fn a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_is_cut(
    world: &mut impl Wire,
) {
    let [alice, bob] = two_direct(world);
    harmed_in_the_middle(world, [alice, bob], |_| bob, [alice, bob], Harm::Cut);
}

pub(super) fn a_stream_through_a_router_goes_on_where_it_was_when_all_its_sockets_are_cut(
    world: &mut impl Wire,
) {
    let [alice, bob, rho, sigma] = each_with_both_routers(world);
    let used = |world: &_| router(world, alice, [rho, sigma]);
    harmed_in_the_middle(world, [alice, bob], used, [rho, sigma], Harm::Cut);
}

pub(super) fn an_altered_byte_ends_a_socket_between_direct_nodes_and_nothing_else(
    world: &mut impl Wire,
) {
    let [alice, bob] = two_direct(world);
    harmed_in_the_middle(world, [alice, bob], |_| bob, [alice, bob], Harm::Alter);
}

pub(super) fn an_altered_byte_ends_a_socket_to_a_router_and_nothing_else(world: &mut impl Wire) {
    let [alice, bob, rho, sigma] = each_with_both_routers(world);
    let used = |world: &_| router(world, alice, [rho, sigma]);
    harmed_in_the_middle(world, [alice, bob], used, [rho, sigma], Harm::Alter);
}

pub(super) fn a_router_that_hears_nothing_any_more_is_noticed_by_those_who_wait_for_an_answer(
    world: &mut impl Wire,
) {
    let [alice, bob, rho, sigma] = each_with_both_routers(world);
    assert_eq!(echo(world, alice, "bob", b"before"), ok(b"before"));
    let used = router(world, alice, [rho, sigma]);
    let dialled = world.dialled(used);
    world.harm(used, Harm::Swallow);
    let asked = Ask::Request(Request::new(ECHO, "after"), None);
    let token = world.ask(alice, &name("bob"), asked);
    let limits = Limits::default();
    // Long after suspicion, for the sake of slow machines, and long before anybody asks whether an idle peer lives.
    let within = Duration::from_secs(10);
    assert!(limits.suspicion * 5 < within && within < limits.keepalive);
    let mut outcome = None;
    world.wait(within, |world| {
        outcome = world.ended(alice, token);
        outcome.is_some()
    });
    match outcome {
        Some(Outcome::Answered(answer)) => assert_eq!(Ok(answer), ok(b"after")),
        Some(Outcome::Failed(failure)) => panic!("{failure}"),
        _ => panic!("not answered within {within:?}"),
    }
    assert!(
        router(world, alice, [rho, sigma]) != used || world.dialled(used) > dialled,
        "it went where nothing arrives"
    );
    let requests = world.inbox(bob).requests;
    let payloads: Vec<_> = requests
        .iter()
        .map(|(_, request)| &*request.payload)
        .collect();
    assert_eq!(payloads, [&b"before"[..], b"after"], "each once, in order");
}

/// Alice and bob behind the routers rho and sigma, connected to both, so that there is another way at once; in this order.
fn each_with_both_routers(world: &mut impl Wire) -> [NodeId; 4] {
    let all @ [alice, bob, ..] = two_routed(world);
    until(world, "both have both routers", |world| {
        [alice, bob].iter().all(|node| {
            let peers = world.peers(*node);
            let online =
                |peer: &&PeerInfo| peer.router && matches!(peer.state, PeerState::Online { .. });
            peers.iter().filter(online).count() == 2
        })
    });
    all
}

/// Sends a stream, harms the sockets to the node that is `used` when a part of it has come, and sees that all of it comes
/// and that sockets are opened anew to `places`.
fn harmed_in_the_middle<W: Wire>(
    world: &mut W,
    [alice, bob]: [NodeId; 2],
    used: impl Fn(&W) -> NodeId,
    places: [NodeId; 2],
    harm: Harm,
) {
    let dialled = |world: &W| places.map(|node| world.dialled(node)).iter().sum::<usize>();
    let [mut here, mut far] = open(world, alice, "bob", bob);
    let data = pattern(LENGTH);
    let (mut flow, mut before) = (Flow::of(data.clone()), None);
    let arrived = world.wait(PATIENCE, |world| {
        if before.is_none() && flow.got.len() >= MIDDLE {
            before = Some(dialled(world));
            let used = used(world);
            world.harm(used, harm);
        }
        flow.go_on(&mut here, &mut far)
    });
    assert!(arrived, "{} bytes arrived", flow.got.len());
    assert!(flow.got == data, "not the same bytes");
    let before = before.expect("it was harmed before it ended");
    until(
        world,
        "a socket is opened in the place of the one that ended",
        |world| dialled(world) > before,
    );
    assert_eq!(echo(world, bob, "alice", b"back"), ok(b"back"));
}

/// Which of these routers, `rho` and `sigma`, carries what alice says to bob.
fn router(world: &impl Wire, alice: NodeId, [rho, sigma]: [NodeId; 2]) -> NodeId {
    match route(world, alice, "bob") {
        Some(Route::Via(router)) if router == name("rho") => rho,
        Some(Route::Via(router)) if router == name("sigma") => sigma,
        other => panic!("bob is not reached through a router: {other:?}"),
    }
}
