//! Two nodes behind routers that are processes of their own, and what the two say to each other without a pause.

use crate::{
    home::{Home, Running},
    support::{Network, name, soon, until},
};
use bytes::Bytes;
use node_native::node::{Code, Node, PeerState, Request, Response, Route};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Requests under way at once.
const ASKING: u32 = 8;
/// How long each takes to be handled: longer than the way there and back.
const HANDLING: Duration = Duration::from_millis(20);
/// Between two of one task.
const PAUSE: Duration = Duration::from_millis(5);
/// Answers after which things count as going on.
const ENOUGH: usize = 20;
/// Of the stream, and between two of them.
const CHUNK: usize = 16 << 10;
const CHUNK_PAUSE: Duration = Duration::from_millis(20);

/// Alice and Bob in this process, and the routers that both list.
pub(crate) struct Pair {
    network: Network,
    homes: HashMap<&'static str, Home>,
    running: HashMap<&'static str, Running>,
    pub(crate) alice: Node,
    pub(crate) bob: Node,
}

impl Pair {
    /// Everybody has a connection with every router, and Alice one with Bob. What is lost again within 5 s is not looked for at
    /// once: routers die more often here than in life, so that pause is a short one.
    pub(crate) async fn behind(routers: &[&'static str]) -> Self {
        Self::with(routers, Some([10, 40].map(Duration::from_millis))).await
    }

    /// The same with the pauses that there are where nothing is configured.
    pub(crate) async fn as_usual(routers: &[&'static str]) -> Self {
        Self::with(routers, None).await
    }

    async fn with(routers: &[&'static str], backoff: Option<[Duration; 2]>) -> Self {
        let mut network = Network::default();
        for router in routers {
            network = network.direct(router);
        }
        let network = network.indirect("alice", routers).indirect("bob", routers);
        let homes = routers
            .iter()
            .map(|router| (*router, Home::new(&network, router)))
            .collect();
        let [alice, bob] = ["alice", "bob"].map(|label| {
            network.config(label).with_core(|core| {
                core.limits.stranger_requests = u32::MAX;
                if let Some([least, most]) = backoff {
                    (core.limits.backoff_min, core.limits.backoff_max) = (least, most);
                }
            })
        });
        let mut pair = Self {
            homes,
            running: HashMap::new(),
            alice: Node::start(alice).await.unwrap(),
            bob: Node::start(bob).await.unwrap(),
            network,
        };
        for router in routers {
            pair.start(router).await;
        }
        pair.settle().await;
        soon("a session", pair.alice.connect(&name("bob")))
            .await
            .unwrap();
        pair
    }

    /// Starts a router, where it was before. Nobody is connected yet.
    pub(crate) async fn start(&mut self, router: &'static str) {
        let home = &self.homes[router];
        let mut command = home.run_command(Some(self.network.address(router)), &[]);
        command.stderr(File::create(home.path().join("log")).unwrap());
        let begun = tokio::task::spawn_blocking(|| Running::begin(command));
        self.running.insert(router, begun.await.unwrap());
    }

    /// Waits until both have all routers.
    pub(crate) async fn settle(&self) {
        until("both have all routers", || {
            [&self.alice, &self.bob].iter().all(|node| {
                let peers = node.peers();
                let online = |label: &&&str| {
                    peers.iter().any(|peer| {
                        peer.name == name(label) && matches!(peer.state, PeerState::Online { .. })
                    })
                };
                self.running.keys().filter(online).count() == self.running.len()
            })
        })
        .await;
    }

    /// The router that carries what Alice says to Bob.
    pub(crate) fn in_use(&self) -> &'static str {
        let peers = self.alice.peers();
        let bob = peers.into_iter().find(|peer| peer.name == name("bob"));
        let state = bob.map(|bob| bob.state);
        let Some(PeerState::Online {
            route: Route::Via(router),
            ..
        }) = state
        else {
            panic!("bob is {state:?}")
        };
        let found = self.running.keys().find(|label| name(label) == router);
        found.unwrap()
    }

    /// Ends a router without a word: SIGKILL. From when on it was dead.
    pub(crate) fn kill(&mut self, router: &str) -> Instant {
        let running = self.running.remove(router).unwrap();
        let killed = Instant::now();
        running.end();
        killed
    }

    /// Stops a router: it does nothing any more, SIGSTOP, and nobody is told. From when on it was stopped.
    pub(crate) fn stop(&self, router: &str) -> Instant {
        let stopped = Instant::now();
        self.running[router].signal("STOP");
        stopped
    }

    /// Tells a router to end, SIGTERM, and waits until it has.
    pub(crate) async fn terminate(&mut self, router: &str) -> ExitStatus {
        let running = self.running.remove(router).unwrap();
        tokio::task::spawn_blocking(|| running.terminate())
            .await
            .unwrap()
    }
}

/// When a request was made and when it was answered, and how often it was told before that the other one is offline.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) asked: Instant,
    pub(crate) came: Instant,
    pub(crate) offline: u32,
}

/// Requests both ways, some at any time, and two streams that do not end, one each way.
pub(crate) struct Talk {
    over: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// How often each request was handled.
    handled: Arc<Mutex<HashMap<Bytes, usize>>>,
    asking: Vec<JoinHandle<()>>,
    streams: [Carried; 2],
}

/// A stream under way.
struct Carried {
    /// Bytes that have been read.
    read: Arc<AtomicUsize>,
    /// What was written, and what was read.
    writing: JoinHandle<[u8; 32]>,
    reading: oneshot::Receiver<[u8; 32]>,
}

impl Carried {
    fn begin(from: &Node, to: &Node, label: &'static str, over: &Arc<AtomicBool>) -> Self {
        let (said, reading) = oneshot::channel();
        let said = Mutex::new(Some(said));
        let read = Arc::<AtomicUsize>::default();
        let count = read.clone();
        to.serve_stream("file.1", move |incoming| {
            let said = said.lock().unwrap().take().expect("one stream");
            let count = count.clone();
            async move {
                let (mut stream, mut hash) = (incoming.accept(), Sha256::new());
                while let Some(chunk) = stream.read_chunk().await.unwrap() {
                    hash.update(&chunk);
                    count.fetch_add(chunk.len(), Ordering::Relaxed);
                }
                said.send(hash.finalize().into()).unwrap();
            }
        });
        let (from, over) = (from.clone(), over.clone());
        let writing = tokio::spawn(async move { write(&from, label, &over).await });
        Self {
            read,
            writing,
            reading,
        }
    }

    fn has_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Talk {
    /// No request may fail: there is always some router.
    pub(crate) async fn begin(pair: &Pair) -> Self {
        Self::with(pair, false).await
    }

    /// A request that is told that the other one is offline is made again.
    pub(crate) async fn patient(pair: &Pair) -> Self {
        Self::with(pair, true).await
    }

    async fn with(pair: &Pair, again: bool) -> Self {
        let handled = Arc::new(Mutex::new(HashMap::<Bytes, usize>::new()));
        let over = Arc::<AtomicBool>::default();
        let answers = Arc::<Mutex<Vec<Answer>>>::default();
        let ways = [
            (&pair.alice, &pair.bob, "bob"),
            (&pair.bob, &pair.alice, "alice"),
        ];
        for (_, to, _) in ways {
            let count = handled.clone();
            to.serve("count.1", move |request| {
                *count
                    .lock()
                    .unwrap()
                    .entry(request.payload.clone())
                    .or_default() += 1;
                async move {
                    tokio::time::sleep(HANDLING).await;
                    Response::Success(Some(request.payload))
                }
            });
        }
        let asking = (0..ASKING).zip(ways.into_iter().cycle());
        let asking = asking
            .map(|(task, (from, _, label))| {
                let (from, over, answers) = (from.clone(), over.clone(), answers.clone());
                tokio::spawn(async move { ask(&from, label, task, again, &over, &answers).await })
            })
            .collect();
        let talk = Self {
            streams: ways.map(|(from, to, label)| Carried::begin(from, to, label, &over)),
            over,
            answers,
            handled,
            asking,
        };
        talk.goes_on().await;
        talk
    }

    /// Waits until requests made from now on were answered, and more of both streams has come.
    pub(crate) async fn goes_on(&self) {
        let now = Instant::now();
        let read = self.streams.each_ref().map(Carried::has_read);
        let is_new = |answer: &&Answer| answer.asked > now;
        until("requests are answered, and the streams go on", || {
            let failed = self.asking.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a request failed");
            let more = |(stream, read): (&Carried, usize)| stream.has_read() > read;
            self.streams.iter().zip(read).all(more)
                && self.answers.lock().unwrap().iter().filter(is_new).count() >= ENOUGH
        })
        .await;
    }

    /// Ends it: every request has been answered, and was handled once, and the streams are whole. All answers, in the order
    /// in which they came.
    pub(crate) async fn end(self) -> Vec<Answer> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.asking {
            soon("the last answers", task).await.unwrap();
        }
        for stream in self.streams {
            let written = soon("the end of a stream", stream.writing).await.unwrap();
            let read = soon("the end of a stream", stream.reading).await.unwrap();
            assert_eq!(written, read, "a stream is not what was written");
        }
        let mut answers = self.answers.lock().unwrap().clone();
        let handled = self.handled.lock().unwrap();
        assert_eq!(handled.len(), answers.len());
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        answers.sort_unstable_by_key(|answer| answer.came);
        answers
    }
}

async fn ask(
    from: &Node,
    to: &str,
    task: u32,
    again: bool,
    over: &AtomicBool,
    answers: &Mutex<Vec<Answer>>,
) {
    // So that not all of them pause at once.
    tokio::time::sleep((HANDLING + PAUSE) * task / ASKING).await;
    for number in 0_u32.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let payload = Bytes::from([task.to_be_bytes(), number.to_be_bytes()].concat());
        let (asked, mut offline) = (Instant::now(), 0);
        loop {
            let request = Request::new("count.1", payload.clone());
            match from.request(&name(to), request).await {
                Err(failure) if again && failure.code == Code::Offline => offline += 1,
                answer => {
                    assert_eq!(answer, Ok(Response::Success(Some(payload))));
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        answers.lock().unwrap().push(Answer {
            asked,
            came: Instant::now(),
            offline,
        });
        tokio::time::sleep(PAUSE).await;
    }
}

async fn write(from: &Node, to: &str, over: &AtomicBool) -> [u8; 32] {
    let mut stream = from.open_stream(&name(to), "file.1", "").await.unwrap();
    let mut hash = Sha256::new();
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let chunk = number.to_be_bytes().repeat(CHUNK / size_of::<u64>());
        hash.update(&chunk);
        stream.write_chunk(chunk.into()).await.unwrap();
        tokio::time::sleep(CHUNK_PAUSE).await;
    }
    stream.finish();
    hash.finalize().into()
}
