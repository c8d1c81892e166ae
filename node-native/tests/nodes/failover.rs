//! A router that dies as if killed, while two nodes behind it talk: another one takes over under the living session.

use crate::support::{Network, name, soon, until};
use bytes::Bytes;
use node_native::node::{Node, PeerState, Request, Response, Route};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const REQUESTS: u32 = 200;
const STREAM: usize = 8 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 9)) as u8).collect()
}

fn router_in_use(node: &Node, peer: &str) -> Option<node_core::Name> {
    let found = node.peers().into_iter().find(|p| p.name == name(peer))?;
    match found.state {
        PeerState::Online {
            route: Route::Via(router),
            ..
        } => Some(router),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_router_in_use_is_dropped_every_request_is_answered_once_and_the_stream_is_whole()
{
    let network = Network::default()
        .direct("rho")
        .direct("sigma")
        .indirect("alice", &["rho", "sigma"])
        .indirect("bob", &["rho", "sigma"]);
    let mut routers = HashMap::new();
    for label in ["rho", "sigma"] {
        routers.insert(name(label), network.start(label).await);
    }
    let handled = Arc::new(Mutex::new(HashMap::<Bytes, usize>::new()));
    let received = Arc::new(Mutex::new(Vec::new()));
    let whole = Arc::new(AtomicUsize::new(0));
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    // Whom bob chose may ask faster than a stranger.
    bob.keep(&name("alice"), true);
    let count = handled.clone();
    bob.serve("count.1", move |request| {
        *count
            .lock()
            .unwrap()
            .entry(request.payload.clone())
            .or_default() += 1;
        async move { Response::Success(Some(request.payload)) }
    });
    let (bytes, ended) = (received.clone(), whole.clone());
    bob.serve_stream("file.1", move |incoming| {
        let (bytes, ended) = (bytes.clone(), ended.clone());
        async move {
            let mut stream = incoming.accept();
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                bytes.lock().unwrap().extend_from_slice(&chunk);
            }
            ended.fetch_add(1, Ordering::Relaxed);
        }
    });
    until("both have both routers", || {
        [&alice, &bob].iter().all(|node| {
            let peers = node.peers();
            let online = |p: &&node_native::node::PeerInfo| {
                p.router && matches!(p.state, PeerState::Online { .. })
            };
            peers.iter().filter(online).count() == 2
        })
    })
    .await;
    soon("a session", alice.connect(&name("bob")))
        .await
        .unwrap();

    let mut stream = soon("a stream", alice.open_stream(&name("bob"), "file.1", ""))
        .await
        .unwrap();
    let writing = tokio::spawn(async move {
        for chunk in pattern(STREAM).chunks(32 << 10) {
            stream
                .write_chunk(Bytes::copy_from_slice(chunk))
                .await
                .unwrap();
            // The whole of it takes longer than the requests until the router dies.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stream.finish();
    });
    let answers = Arc::new(Mutex::new(Vec::new()));
    let mut asking = Vec::new();
    for worker in 0..4 {
        let (alice, answers) = (alice.clone(), answers.clone());
        asking.push(tokio::spawn(async move {
            for number in 0..REQUESTS / 4 {
                let payload = Bytes::from((worker * 1_000 + number).to_be_bytes().to_vec());
                let began = Instant::now();
                let answer = alice
                    .request(&name("bob"), Request::new("count.1", payload.clone()))
                    .await;
                assert_eq!(answer, Ok(Response::Success(Some(payload))));
                answers.lock().unwrap().push((began, Instant::now()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    until("some requests and a part of the stream are through", || {
        answers.lock().unwrap().len() >= 40 && received.lock().unwrap().len() > 512 << 10
    })
    .await;
    assert!(
        received.lock().unwrap().len() < STREAM,
        "the stream is under way"
    );
    let router = router_in_use(&alice, "bob").expect("through a router");
    let died = Instant::now();
    drop(routers.remove(&router));
    soon("all requests", async {
        for worker in asking {
            worker.await.unwrap();
        }
    })
    .await;
    soon("all bytes are written", writing).await.unwrap();
    until("all bytes are read", || whole.load(Ordering::Relaxed) == 1).await;

    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), REQUESTS as usize);
    assert!(handled.values().all(|times| *times == 1), "answered once");
    assert!(
        *received.lock().unwrap() == pattern(STREAM),
        "byte for byte"
    );
    let answers = answers.lock().unwrap();
    assert!(
        answers.iter().filter(|(_, at)| *at > died).count() > 50,
        "the router died in the middle"
    );
    let longest = answers
        .iter()
        .map(|(began, at)| at.duration_since(*began))
        .max();
    let longest = longest.unwrap();
    println!("longest interruption when the router in use is dropped: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_ne!(router_in_use(&alice, "bob"), Some(router));
}
