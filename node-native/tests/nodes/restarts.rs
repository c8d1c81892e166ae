//! Planned restarts: a node that is told to end says goodbye, and comes back; nobody who talks through it loses anything.

use crate::{
    home::Home,
    pair::{Answer, Pair, Talk},
    support::{Network, direct_at, free_address, name, soon, strict, until},
};
use bytes::Bytes;
use node_native::node::{Code, Event, Node, PeerState, Request, Response};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpSocket, TcpStream},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_restarted_one_after_the_other_under_load_cost_no_request_and_no_byte() {
    let mut pair = Pair::behind(&["rho", "sigma"]).await;
    let talk = Talk::begin(&pair).await;
    let mut events = pair.alice.events();
    let (mut restarted, mut slowest) = (Vec::new(), Duration::ZERO);
    for _ in 0..4 {
        let router = pair.in_use();
        let begun = Instant::now();
        assert!(pair.terminate(router).await.success());
        slowest = slowest.max(begun.elapsed());
        talk.goes_on().await;
        pair.start(router).await;
        pair.settle().await;
        talk.goes_on().await;
        restarted.push(router);
    }
    let answers = talk.end().await;
    let longest = answers.iter().map(|answer| answer.came - answer.asked);
    println!(
        "{restarted:?} restarted, each ended within {slowest:?}: {} answers, the slowest after {:?}",
        answers.len(),
        longest.max().unwrap()
    );
    for router in ["rho", "sigma"] {
        assert!(restarted.contains(&router), "{restarted:?}");
    }
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::Peer {
            name: router,
            state: PeerState::Offline { reason, retry },
            ..
        } = event
            && reason == Code::GoingAway
        {
            assert!(retry.is_some(), "and when to come back");
            told.push(router);
        }
    }
    let restarted: Vec<_> = restarted.into_iter().map(name).collect();
    assert_eq!(told, restarted, "each said goodbye");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_only_router_restarts_what_is_under_way_waits_and_what_is_new_may_be_asked_again()
{
    const AWAY: Duration = Duration::from_secs(2);
    let mut pair = Pair::behind(&["rho"]).await;
    let talk = Talk::patient(&pair).await;
    let gone = Instant::now();
    assert!(pair.terminate("rho").await.success());
    tokio::time::sleep(AWAY).await;
    pair.start("rho").await;
    let back = Instant::now();
    talk.goes_on().await;
    // Also whoever was told that Bob is offline was answered once.
    let answers = talk.end().await;
    let all = answers
        .iter()
        .filter(|answer: &&Answer| answer.asked < back && answer.came > back);
    let (waited, told): (Vec<&Answer>, Vec<_>) = all.partition(|answer| answer.offline == 0);
    println!(
        "away for {:?}: {} requests waited, {} were told that bob is offline",
        back - gone,
        waited.len(),
        told.len()
    );
    assert!(!waited.is_empty());
}

/// What the slow peer asks for, and what of it has come when the node is told to end.
const ANSWER: usize = 2 << 20;
const BEGUN: usize = 256 << 10;
/// What the peer that does not read takes.
const TAKEN: usize = 64 << 10;
/// Longest that a node takes to end, and what ending the process costs on top on a machine with other things to do.
const GOODBYE: Duration = Duration::from_secs(3);
const MARGIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_told_to_end_sends_what_is_queued_and_waits_for_a_peer_that_never_reads_no_longer_than_3_s()
 {
    let network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("carol", &["rho"]);
    let home = Home::new(&network, "rho");
    let rho = network.address("rho");
    let running = home.run(Some(rho), &["--echo"]);
    // Carol reads nothing any more once some of an answer has come, Alice reads slowly.
    let (stuck, slow) = (Way::to(rho, Some(TAKEN)).await, Way::to(rho, None).await);
    let start = async |label: &str, way: &Way| {
        let network = Network::default()
            .known("rho", direct_at("rho", way.address))
            .indirect(label, &["rho"]);
        network.start(label).await
    };
    let (carol, alice) = (start("carol", &stuck).await, start("alice", &slow).await);
    let payload = Bytes::from(vec![7; ANSWER]);
    let ask = |node: &Node| {
        let (node, payload) = (node.clone(), payload.clone());
        tokio::spawn(async move {
            let request = Request::new("echo.1", payload);
            node.request(&name("rho"), request).await
        })
    };
    let never = ask(&carol);
    until("carol has stopped to read", || stuck.passed() >= TAKEN).await;
    let slowly = ask(&alice);
    until("the answer to alice has begun", || slow.passed() >= BEGUN).await;

    let (begun, passed) = (Instant::now(), slow.passed());
    assert!(passed < ANSWER / 2, "the answer is still under way");
    let ending = tokio::task::spawn_blocking(|| running.terminate());
    let answer = soon("what was queued", slowly).await.unwrap();
    let answered = begun.elapsed();
    assert!(answer == Ok(Response::Success(Some(payload.clone()))));
    assert!(ending.await.unwrap().success());
    let took = begun.elapsed();
    println!("the answer was whole after {answered:?}, the process had ended after {took:?}");
    assert!(took <= GOODBYE + MARGIN[usize::from(!strict())], "{took:?}");
    assert!(!never.is_finished(), "carol has an answer");
    never.abort();
}

/// A way to a node that is slow from it, or ends in the middle; to it everything passes.
struct Way {
    address: SocketAddr,
    passed: Arc<AtomicUsize>,
}

impl Way {
    /// `most`: after how many bytes nothing is read any more.
    async fn to(node: SocketAddr, most: Option<usize>) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).await.unwrap();
        let passed = Arc::<AtomicUsize>::default();
        let count = passed.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, node, most, count.clone()));
            }
        });
        Self { address, passed }
    }

    /// Bytes that the node has said and that were read.
    fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut near: TcpStream,
    node: SocketAddr,
    most: Option<usize>,
    passed: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    const PIECE: usize = 32 << 10;
    let socket = TcpSocket::new_v4()?;
    // Or the kernel would read on.
    socket.set_recv_buffer_size(64 << 10)?;
    let mut far = socket.connect(node).await?;
    let ((mut from, mut into), (mut out, mut to)) = (near.split(), far.split());
    let back = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = out.read(&mut buffer).await?;
            if read == 0 {
                return into.shutdown().await;
            }
            into.write_all(&buffer[..read]).await?;
            let so_far = passed.fetch_add(read, Ordering::Relaxed) + read;
            if most.is_some_and(|most| so_far >= most) {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::try_join!(copy(&mut from, &mut to), back)?;
    Ok(())
}
