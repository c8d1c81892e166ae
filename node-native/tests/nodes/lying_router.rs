//! Real nodes behind a router with valid keys that lies: what the core proves in virtual time
//! (`node-core/tests/lying_router.rs`), over real sockets.

use crate::{
    liar::Liar,
    sockets::lock,
    support::{Network, log, name, soon, until},
};
use bytes::Bytes;
use futures_util::future::join_all;
use nectar_sim::Lie;
use node_native::node::{
    Code, Event, Events, Name, Node, NodeError, PeerState, Request, Response, Stream, StreamError,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::timeout;

const SECRET: &str = "nobody on the way may read this sentence";

/// How long whoever has the liar alone waits for an answer.
const ALONE: Duration = Duration::from_secs(8);
/// Within which everything is answered where there is an honest router as well.
const BESIDE: Duration = Duration::from_secs(20);
/// Requests at once.
const REQUESTS: usize = 3;
/// Of a stream, and their size.
const CHUNKS: usize = 4;
const CHUNK: usize = 16 << 10;

type Heard = Arc<Mutex<Vec<(Option<Name>, Bytes)>>>;

/// Whoever has come to the routers, and what he has heard.
struct Member {
    node: Node,
    events: Events,
    /// Requests and messages.
    heard: Heard,
    /// Streams, as far as each came.
    read: Heard,
}

impl Member {
    async fn start(network: &Network, label: &str, within: Duration) -> Self {
        let (heard, read) = (Heard::default(), Heard::default());
        let [asked, told] = [heard.clone(), heard.clone()];
        let taken = read.clone();
        let config = network
            .config(label)
            .with_core(|core| core.limits.request_deadline = within)
            .serve("echo.1", move |request| {
                lock(&asked).push((request.from, request.payload.clone()));
                async move { Response::Success(Some(request.payload)) }
            })
            .on_message("chat.1", move |message| {
                lock(&told).push((message.from, message.payload));
                async {}
            })
            .serve_stream("file.1", move |incoming| {
                let (taken, from) = (taken.clone(), incoming.from().cloned());
                async move {
                    let mut stream = incoming.accept();
                    let mut whole = Vec::new();
                    // How it ends is for the other end to say.
                    let _ = take(&mut stream, &mut whole).await;
                    lock(&taken).push((from, whole.clone().into()));
                    let _ = stream.write_chunk(whole.into()).await;
                    stream.finish();
                }
            });
        let node = Node::start(config).await.unwrap();
        Self {
            events: node.events(),
            node,
            heard,
            read,
        }
    }

    fn is_with(&self, router: &str) -> bool {
        let mut peers = self.node.peers().into_iter();
        peers
            .any(|peer| peer.name == name(router) && matches!(peer.state, PeerState::Online { .. }))
    }
}

/// Reads a stream to its end.
async fn take(stream: &mut Stream, whole: &mut Vec<u8>) -> Result<(), StreamError> {
    while let Some(chunk) = stream.read_chunk().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(())
}

/// What became of all that somebody said.
#[derive(Debug)]
struct Said {
    requests: Vec<Result<(), Code>>,
    message: Result<(), Code>,
    stream: Result<(), Code>,
}

fn request_of(who: &str, number: usize) -> String {
    format!("{who} asks, number {number}: {SECRET}")
}

fn message_of(who: &str) -> String {
    format!("{who} writes: {SECRET}")
}

fn stream_of(who: &str) -> Bytes {
    let sentence = format!("{who} streams: {SECRET}; ");
    let length = CHUNKS * CHUNK;
    let whole = sentence.bytes().cycle().take(length);
    whole.collect()
}

async fn ask(node: &Node, payload: String) -> Result<(), Code> {
    let request = Request::new("echo.1", payload.clone());
    let answer = node.request(&name("bob"), request).await;
    let answer = answer.map_err(|failure| failure.reason())?;
    assert_eq!(answer, Response::Success(Some(payload.into())));
    Ok(())
}

/// Says all kinds of things to bob at once.
async fn say(who: &str, node: &Node, within: Duration) -> Said {
    let bob = name("bob");
    let requests = (0..REQUESTS).map(|number| ask(node, request_of(who, number)));
    let message = async {
        let sent = node.message(&bob, "chat.1", message_of(who)).await;
        sent.map_err(|failure: NodeError| failure.reason())
    };
    let stream = async {
        let opened = node.open_stream(&bob, "file.1", "").await;
        let mut stream = opened.map_err(|failure| failure.reason())?;
        let (said, mut back) = (stream_of(who), Vec::new());
        let copied = async {
            for chunk in said.chunks(CHUNK) {
                stream.write_chunk(said.slice_ref(chunk)).await?;
            }
            stream.finish();
            take(&mut stream, &mut back).await
        };
        let copied = copied.await;
        assert!(said.starts_with(&back), "a stream came back as another");
        copied.map_err(|_| Code::PipeLost)?;
        assert_eq!(back.len(), said.len(), "a stream came back in part");
        Ok(())
    };
    let (requests, message, stream) = tokio::join!(
        soon("every request ends", join_all(requests)),
        timeout(within, message),
        timeout(within, stream),
    );
    Said {
        requests,
        message: message.unwrap_or(Err(Code::Timeout)),
        stream: stream.unwrap_or(Err(Code::Timeout)),
    }
}

/// Alice, bob and carol behind a router that tells a lie.
struct Stage {
    lie: Lie,
    liar: Liar,
    alice: Member,
    bob: Member,
    carol: Member,
    /// Lives as long: the honest router, if bob lists one too.
    _sigma: Option<Node>,
    within: Duration,
}

impl Stage {
    async fn alone(lie: Lie) -> Self {
        Self::of(lie, &["rho"], ALONE).await
    }

    /// Bob lists an honest router as well. Those who call him are connected with the liar, and so go there first.
    async fn beside_an_honest_router(lie: Lie) -> Self {
        Self::of(lie, &["rho", "sigma"], BESIDE).await
    }

    async fn of(lie: Lie, routers: &[&str], within: Duration) -> Self {
        log();
        let network = Network::default()
            .direct("rho")
            .direct("sigma")
            .indirect("alice", &["rho"])
            .indirect("bob", routers)
            .indirect("carol", &["rho"]);
        let stage = Self {
            lie,
            liar: Liar::start(&network, "rho", lie).await,
            _sigma: match routers {
                [_, sigma] => Some(network.start(sigma).await),
                _ => None,
            },
            alice: Member::start(&network, "alice", within).await,
            bob: Member::start(&network, "bob", within).await,
            carol: Member::start(&network, "carol", within).await,
            within,
        };
        until("all have their routers", || {
            let with_liar = stage.all().iter().all(|member| member.is_with("rho"));
            with_liar && routers.iter().all(|router| stage.bob.is_with(router))
        })
        .await;
        stage
    }

    fn all(&self) -> [&Member; 3] {
        [&self.alice, &self.bob, &self.carol]
    }

    /// Alice and carol say what they have to say to bob, and what is promised whatever a router does is checked.
    async fn play(&self) -> [Said; 2] {
        let (alice, carol) = tokio::join!(
            say("alice", &self.alice.node, self.within),
            say("carol", &self.carol.node, self.within),
        );
        println!("{:?}: alice {alice:?}, carol {carol:?}", self.lie);
        let said = [alice, carol];
        self.check(&said);
        said
    }

    /// The same, and everything is answered.
    async fn play_well(&self) {
        for said in self.play().await {
            let well = said.requests.iter().all(Result::is_ok);
            let well = well && said.message.is_ok() && said.stream.is_ok();
            assert!(well, "{:?}: {said:?}", self.lie);
        }
    }

    /// Whatever was heard was said, by whom it is said to be, and once; what was answered was heard.
    fn check(&self, said: &[Said; 2]) {
        let lie = self.lie;
        assert_eq!(self.liar.told(), lie != Lie::Honest, "{lie:?} was told");
        for member in [&self.alice, &self.carol] {
            assert_eq!(*lock(&member.heard), [], "{lie:?}");
            assert_eq!(*lock(&member.read), [], "{lie:?}");
        }
        let mut heard = lock(&self.bob.heard).clone();
        let mut read = lock(&self.bob.read).clone();
        for (who, said) in ["alice", "carol"].into_iter().zip(said) {
            let from = Some(name(who));
            let mut hears = |payload: String, answered: bool| {
                let payload = Bytes::from(payload);
                let is_it =
                    |heard: &mut (Option<Name>, Bytes)| (&heard.0, &heard.1) == (&from, &payload);
                let times = heard.extract_if(.., is_it).count();
                assert!(times <= 1, "{lie:?}: {payload:?} was heard {times} times");
                assert!(
                    times == 1 || !answered,
                    "{lie:?}: {payload:?} was not heard"
                );
            };
            for (number, answer) in said.requests.iter().enumerate() {
                hears(request_of(who, number), answer.is_ok());
            }
            hears(message_of(who), said.message.is_ok());
            let whole = stream_of(who);
            let streams = read.extract_if(.., |(opened, _)| *opened == from);
            let streams: Vec<_> = streams.map(|(_, read)| read).collect();
            assert!(streams.len() <= 1, "{lie:?}: a stream was opened twice");
            assert!(
                streams.iter().all(|read| whole.starts_with(read)),
                "{lie:?}"
            );
            assert!(said.stream.is_err() || streams == [whole], "{lie:?}");
        }
        assert_eq!(heard, [], "{lie:?}: nobody said that");
        assert_eq!(read, [], "{lie:?}: nobody streamed that");
        let captured = self.liar.captured();
        assert!(captured.len() > 1000, "{lie:?}: it carries circuits");
        let part = &SECRET.as_bytes()[..12];
        let clear = captured.windows(part.len()).any(|window| window == part);
        assert!(!clear, "{lie:?}: the router has read it");
        for member in self.all() {
            assert_eq!(member.node.bans(), [], "{lie:?}");
        }
    }
}

/// Lies about who is there, and about messages that come before a session: the handshake's last, and ATTACH.
fn early_lies() -> Vec<Lie> {
    let about = (1..=2).flat_map(Lie::about);
    let mut lies = vec![Lie::WrongFrom, Lie::Nameless, Lie::WrongTarget, Lie::Forget];
    lies.extend(about.filter(|lie| *lie != Lie::Cross(2)));
    lies
}

/// Lies about what follows.
fn late_lies() -> Vec<Lie> {
    let mut lies = vec![Lie::Cross(2)];
    lies.extend(Lie::about(3));
    lies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lie_of_a_router_goes_unnoticed_over_real_sockets() {
    let play = |lie| async move { Stage::alone(lie).await.play().await };
    let lies = [early_lies(), late_lies()];
    join_all(lies.into_iter().flatten().map(play)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_honest_router_everything_is_answered_whatever_the_other_does_to_handshakes() {
    let play = |lie| async move { Stage::beside_an_honest_router(lie).await.play_well().await };
    join_all(early_lies().into_iter().map(play)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_honest_router_everything_is_answered_whatever_the_other_does_to_sessions() {
    let play = |lie| async move { Stage::beside_an_honest_router(lie).await.play_well().await };
    join_all(late_lies().into_iter().map(play)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_does_its_work_or_hides_who_calls_carries_everything_and_reads_nothing() {
    for lie in [Lie::Honest, Lie::Nameless] {
        Stage::alone(lie).await.play_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_names_another_caller_over_real_sockets_is_reported_by_name() {
    let mut stage = Stage::alone(Lie::WrongFrom).await;
    let [alice, carol] = stage.play().await;
    assert_eq!(alice.requests, [Err(Code::RouterLied); REQUESTS]);
    assert_eq!(
        carol.requests,
        [Ok(()); REQUESTS],
        "of her it says the truth"
    );
    let expected = Event::Misbehaved {
        name: Some(name("rho")),
        code: Code::RouterLied,
    };
    let reported = async { while stage.bob.events.next().await.expect("news") != expected {} };
    soon("bob's report", reported).await;
}
