//! What the core proves in virtual time (`node-core/tests/scenarios.rs`), over real sockets.

use crate::support::{Network, echo, name, ok, reachable, soon, until};
use bytes::Bytes;
use node_native::node::{Code, Node, Request, Response};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

async fn two_direct() -> [Node; 2] {
    let network = Network::default().direct("alice").direct("bob");
    [network.start("alice").await, network.start("bob").await]
}

/// Alice and bob behind two routers, which follow.
async fn two_routed() -> [Node; 4] {
    let network = Network::default()
        .direct("rho")
        .direct("sigma")
        .indirect("alice", &["rho", "sigma"])
        .indirect("bob", &["rho", "sigma"]);
    let (rho, sigma) = (network.start("rho").await, network.start("sigma").await);
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    reachable(&alice).await;
    reachable(&bob).await;
    [alice, bob, rho, sigma]
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 7)) as u8).collect()
}

#[tokio::test]
async fn a_request_between_two_direct_nodes_is_answered() {
    let [alice, bob] = two_direct().await;
    assert_eq!(echo(&alice, "bob", b"hello").await, ok(b"hello"));
    assert_eq!(echo(&bob, "alice", b"back").await, ok(b"back"));
    assert_eq!(
        alice.counts().sessions,
        1,
        "one session serves both directions"
    );
}

#[tokio::test]
async fn long_requests_and_answers_arrive_whole() {
    let direct = two_direct().await;
    let routed = two_routed().await;
    for (alice, longest) in [(&direct[0], 4 << 20), (&routed[0], 1 << 20)] {
        for length in [0, 1, 32 << 10, (32 << 10) + 1, longest] {
            let payload = pattern(length);
            let request = Request::new("echo.1", payload.clone());
            let answer = soon("an echo", alice.request(&name("bob"), request)).await;
            assert!(
                answer == Ok(Response::Success(Some(payload))),
                "{length} bytes"
            );
        }
    }
}

#[tokio::test]
async fn a_payload_above_the_limit_is_refused_before_it_leaves() {
    let [alice, _bob] = two_direct().await;
    let request = Request::new("echo.1", vec![0; (16 << 20) + 1]);
    let error = soon("refused", alice.request(&name("bob"), request)).await;
    assert_eq!(error.unwrap_err().code, Code::TooLarge);
}

#[tokio::test]
async fn messages_arrive_in_order_and_are_confirmed() {
    let [alice, bob, _rho, _sigma] = two_routed().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    bob.on_message("count.1", move |message| {
        assert_eq!(message.from, Some(name("alice")));
        log.lock().unwrap().push(message.payload);
        async {}
    });
    let to = name("bob");
    let sending = (0..100u32)
        .map(|n| alice.message(&to, "count.1", Bytes::copy_from_slice(&n.to_be_bytes())));
    let sent = soon("delivered", futures_util::future::join_all(sending)).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    let wanted: Vec<_> = (0..100u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(*seen.lock().unwrap(), wanted);
}

#[tokio::test]
async fn a_stream_carries_megabytes_each_way_and_ends() {
    let direct = two_direct().await;
    let routed = two_routed().await;
    for (alice, bob) in [(&direct[0], &direct[1]), (&routed[0], &routed[1])] {
        let (sender, mut streams) = mpsc::channel(1);
        bob.serve_stream("file.1", move |stream| {
            let sender = sender.clone();
            async move { sender.send(stream).await.unwrap() }
        });
        let opened = soon("open", alice.open_stream(&name("bob"), "file.1", "5 MiB")).await;
        let incoming = soon("incoming", streams.recv()).await.unwrap();
        assert_eq!(incoming.metadata(), "5 MiB");
        assert_eq!(incoming.from(), Some(&name("alice")));
        let (there, here) = (incoming.accept(), opened.unwrap());
        let data = pattern(5 << 20);
        let back = pattern(3 << 20);
        let write = async |stream: &mut node_native::node::StreamWriter, mut data: Bytes| {
            while !data.is_empty() {
                let chunk = data.split_to(data.len().min(64 << 10));
                stream.write_chunk(chunk).await.unwrap();
            }
            stream.finish();
        };
        let read = async |stream: &mut node_native::node::StreamReader| {
            let mut all = Vec::new();
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                all.extend_from_slice(&chunk);
            }
            all
        };
        let (mut reader, mut writer) = here.split();
        let (mut far_reader, mut far_writer) = there.split();
        let ((), (), got, returned) = soon("both ways", async {
            tokio::join!(
                write(&mut writer, data.clone()),
                write(&mut far_writer, back.clone()),
                read(&mut far_reader),
                read(&mut reader),
            )
        })
        .await;
        assert!(got == data && returned == back);
    }
}

#[tokio::test]
async fn an_indirect_node_with_three_routers_of_which_two_are_dead_is_online_and_reachable() {
    let network = Network::default()
        .direct("rho")
        .direct("sigma")
        .direct("tau")
        .direct("bob")
        .indirect("alice", &["rho", "sigma", "tau"]);
    let _tau = network.start("tau").await;
    let alice = network.start("alice").await;
    let bob = network.start("bob").await;
    reachable(&alice).await;
    assert_eq!(echo(&bob, "alice", b"there?").await, ok(b"there?"));
}

#[tokio::test]
async fn a_peer_that_nobody_answers_for_is_offline_with_the_reason() {
    let network = Network::default()
        .direct("alice")
        .direct("bob")
        .indirect("carol", &["bob"]);
    let alice = network.start("alice").await;
    for to in ["bob", "carol"] {
        let failure = echo(&alice, to, b"?").await.unwrap_err();
        assert_eq!(
            (failure.code, failure.cause),
            (Code::Offline, Some(Code::DialFailed)),
            "{to}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_dial_each_other_at_once_keep_one_session() {
    for _ in 0..5 {
        let [alice, bob] = two_direct().await;
        let (there, back) = tokio::join!(echo(&alice, "bob", b"a"), echo(&bob, "alice", b"b"));
        assert_eq!((there, back), (ok(b"a"), ok(b"b")));
        until("one session is left", || {
            alice.counts().sessions == 1 && bob.counts().sessions == 1
        })
        .await;
        assert_eq!(echo(&alice, "bob", b"again").await, ok(b"again"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_does_not_grow_its_router_while_another_circuit_runs_at_full_speed() {
    let network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
        .indirect("carol", &["rho"])
        .indirect("dave", &["rho"]);
    let rho = network.start("rho").await;
    let mut nodes = Vec::new();
    for label in ["alice", "bob", "carol", "dave"] {
        let node = network.start(label).await;
        reachable(&node).await;
        nodes.push(node);
    }
    let [alice, bob, carol, dave] = &nodes[..] else {
        panic!("four nodes")
    };
    bob.serve_stream("file.1", |incoming| async move {
        let stream = incoming.accept();
        std::future::pending::<()>().await;
        drop(stream);
    });
    let (sender, mut done) = mpsc::channel(1);
    dave.serve_stream("file.1", move |incoming| {
        let sender = sender.clone();
        async move {
            let (mut stream, mut length) = (incoming.accept(), 0);
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                length += chunk.len();
            }
            sender.send(length).await.unwrap();
        }
    });
    let piece = Bytes::from(vec![7; 64 << 10]);
    let mut stuck = alice.open_stream(&name("bob"), "file.1", "").await.unwrap();
    let mut to_bob = 0;
    let pause = std::time::Duration::from_millis(500);
    while let Ok(written) = tokio::time::timeout(pause, stuck.write_chunk(piece.clone())).await {
        written.unwrap();
        to_bob += piece.len();
        assert!(to_bob < 4 << 20, "alice is never told to wait");
    }
    let mut free = carol
        .open_stream(&name("dave"), "file.1", "")
        .await
        .unwrap();
    let mut peak = rho.counts().circuit_bytes;
    let length = soon("the other circuit", async {
        for _ in 0..128 {
            free.write_chunk(piece.clone()).await.unwrap();
            peak = peak.max(rho.counts().circuit_bytes);
        }
        free.finish();
        done.recv().await.unwrap()
    })
    .await;
    assert_eq!(length, 8 << 20);
    let window = node_core::Limits::default().circuit_window;
    assert!(
        peak <= 4 * window + (128 << 10),
        "the router held {peak} bytes for two circuits"
    );
}
