//! Nodes that are reached through routers.

use crate::support::{Network, echo, name, ok, reachable, until};
use node_native::node::{Code, Node, PeerState, Route};

async fn two_behind(network: &Network) -> [Node; 3] {
    let rho = network.start("rho").await;
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    reachable(&alice).await;
    reachable(&bob).await;
    [rho, alice, bob]
}

fn network() -> Network {
    Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
}

fn route(node: &Node, peer: &str) -> Option<Route> {
    let found = node
        .peers()
        .into_iter()
        .find(|info| info.name == name(peer))?;
    match found.state {
        PeerState::Online { route, .. } => Some(route),
        PeerState::Connecting | PeerState::Offline { .. } => None,
    }
}

#[tokio::test]
async fn two_indirect_nodes_talk_through_their_router() {
    let network = network();
    let [_rho, alice, bob] = two_behind(&network).await;
    assert_eq!(echo(&alice, "bob", b"hello").await, ok(b"hello"));
    assert_eq!(echo(&bob, "alice", b"back").await, ok(b"back"));
    assert_eq!(route(&alice, "bob"), Some(Route::Via(name("rho"))));
    assert_eq!(route(&alice, "rho"), Some(Route::Direct));
}

#[tokio::test]
async fn a_router_that_restarts_is_reconnected() {
    let network = network();
    let [rho, alice, bob] = two_behind(&network).await;
    assert_eq!(echo(&alice, "bob", b"before").await, ok(b"before"));
    rho.close().await;
    until("both have lost their router", || {
        !alice.is_reachable() && !bob.is_reachable()
    })
    .await;
    drop(rho);
    let _rho = network.start("rho").await;
    reachable(&alice).await;
    reachable(&bob).await;
    assert_eq!(echo(&bob, "alice", b"after").await, ok(b"after"));
}

#[tokio::test]
async fn a_guest_calls_where_guests_are_served_and_nowhere_else() {
    let network = Network::default().direct("alice").direct("bob");
    let alice = Node::start(network.config("alice").allow_guests(true))
        .await
        .unwrap();
    let _bob = Node::start(network.config("bob").router(Default::default()))
        .await
        .unwrap();
    let guest = Node::start(network.guest()).await.unwrap();
    assert_eq!(echo(&guest, "alice", b"who?").await, ok(b"who?"));
    assert_eq!(alice.counts().sessions, 1);
    let refused = echo(&guest, "bob", b"who?").await.unwrap_err();
    assert_eq!(refused.reason(), Code::GuestRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_behind_one_router_talks_with_everybody_at_once() {
    let labels = ["aaa", "bbb", "ccc", "ddd", "eee", "fff", "ggg", "hhh"];
    let network = labels
        .iter()
        .fold(Network::default().direct("rho"), |network, label| {
            network.indirect(label, &["rho"])
        });
    let rho = network.start("rho").await;
    let mut nodes = Vec::new();
    for label in labels {
        let node = network.start(label).await;
        reachable(&node).await;
        nodes.push(node);
    }
    let pairs = nodes.iter().zip(labels).flat_map(|(from, own)| {
        let others = labels.into_iter().filter(move |to| *to != own);
        others.map(move |to| echo(from, to, b"hello"))
    });
    let answers = futures_util::future::join_all(pairs).await;
    assert_eq!(answers.len(), 56);
    assert!(
        answers.iter().all(|answer| *answer == ok(b"hello")),
        "{answers:?}"
    );
    // Of two circuits between one pair, opened at once from both ends, one is kept.
    until("one session per pair", || {
        nodes.iter().all(|node| node.counts().sessions == 8)
    })
    .await;
    assert_eq!(rho.counts().sessions, 8);
}
