//! Two nodes with addresses.

use crate::support::{Network, echo, ok};

#[tokio::test]
async fn a_request_between_two_direct_nodes_is_answered() {
    let network = Network::default().direct("alice").direct("bob");
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    assert_eq!(echo(&alice, "bob", b"hello").await, ok(b"hello"));
    assert_eq!(echo(&bob, "alice", b"back").await, ok(b"back"));
    assert_eq!(
        alice.counts().sessions,
        1,
        "one session serves both directions"
    );
}
