//! A router with valid keys that lies: whatever it changes is noticed, and whatever it sees is not what was said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey};
use nectar_sim::{EPOCH_MS, Simulation, direct, indirect, key_of, name};
use node_core::{
    Code, Instant, Name, Now, Timestamp,
    channel::{HelloInfo, Identity, Local, SignerTrust, responder},
    node::{Event as NodeEvent, Node, NodeConfig, Output, Pipe},
    session::{Event, Far, Request, Session, SessionConfig, Signal},
    time::Duration,
    wire::frame::{Frame, Response, next},
};
use std::{collections::HashMap, sync::Arc, task::Waker};

const SECRET: &[u8] = b"nobody on the way may read this sentence";

/// One lie, told to whoever comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// None: the router does its work.
    Honest,
    /// Says that somebody else is calling.
    WrongFrom,
    /// Hides who is calling although it was not asked to.
    Nameless,
    /// Brings the circuit to somebody else.
    WrongTarget,
    /// Swallows the nth message of every circuit.
    Drop(usize),
    /// Brings the nth message twice.
    Repeat(usize),
    /// Changes one bit of the nth message.
    Flip(usize),
    /// Exchanges the nth message with the one after it.
    Swap(usize),
    /// Adds a message of its own before the nth.
    Inject(usize),
    /// Sends the nth message back where it came from.
    Reflect(usize),
    /// Gives everything after the nth message to another circuit.
    Cross(usize),
}

/// How far the router's channel with one node is.
enum Stage {
    Message1,
    Message3(Box<responder::AwaitMessage3>),
    Attach(Box<node_core::channel::Channel>),
    Up(Box<Session<u64>>),
    Gone,
}

/// A node connected to the router, and the router's end of it.
struct Client {
    name: Name,
    key: SigningKey,
    node: Node<u64>,
    pipe: Option<Pipe<u64>>,
    stage: Stage,
    heard: Vec<(Option<Name>, Bytes)>,
    answers: Vec<Response>,
    failures: Vec<Code>,
    events: Vec<NodeEvent>,
}

struct Theatre {
    clients: Vec<Client>,
    lie: Lie,
    now: Instant,
    local: Arc<Local>,
    key: SigningKey,
    /// Every byte that the router sees in clear.
    captured: Vec<u8>,
    counts: HashMap<(usize, u32), usize>,
    kept: HashMap<(usize, u32), Bytes>,
    told: bool,
}

impl Theatre {
    fn new(lie: Lie) -> Self {
        let records = [
            ("rho", direct("rho", 1)),
            ("alice", indirect("alice", &["rho"])),
            ("bob", indirect("bob", &["rho"])),
            ("carol", indirect("carol", &["rho"])),
        ];
        let key = key_of("rho");
        let local = Local {
            identity: Identity {
                name: Some(name("rho")),
                key: key.verifying_key().to_bytes(),
            },
            hello: HelloInfo::default(),
            registries: [nectar_sim::REGISTRY].into(),
            clock_window: Duration::from_secs(120),
            signer: SignerTrust::default(),
        };
        let clients = ["alice", "bob", "carol"].map(|label| Client {
            name: name(label),
            key: key_of(label),
            node: Node::new(
                NodeConfig {
                    direct: false,
                    ..Simulation::config(label, &records)
                },
                [label.as_bytes()[0]; 32],
            )
            .unwrap(),
            pipe: None,
            stage: Stage::Message1,
            heard: Vec::new(),
            answers: Vec::new(),
            failures: Vec::new(),
            events: Vec::new(),
        });
        let mut stage = Self {
            clients: clients.into(),
            lie,
            now: Instant::from_micros(1_000_000),
            local: Arc::new(local),
            key,
            captured: Vec::new(),
            counts: HashMap::new(),
            kept: HashMap::new(),
            told: false,
        };
        for at in 0..stage.clients.len() {
            stage.act(at, |node, now, out| node.start(now, out));
        }
        stage.run(Duration::from_secs(2));
        stage
    }

    fn wall(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now.as_micros() / 1000)
    }

    fn act(&mut self, at: usize, work: impl FnOnce(&Node<u64>, Now, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        let now = Now {
            mono: self.now,
            wall: self.wall(),
        };
        let node = self.clients[at].node.clone();
        work(&node, now, &mut out);
        self.outputs(at, &node, now, out);
    }

    fn outputs(&mut self, at: usize, node: &Node<u64>, now: Now, outputs: Vec<Output<u64>>) {
        let mut more = Vec::new();
        for output in outputs {
            let client = &mut self.clients[at];
            match output {
                Output::Dial { pipe, .. } => {
                    client.pipe = Some(pipe.clone());
                    client.stage = Stage::Message1;
                    node.opened(&pipe, None);
                }
                Output::Close { pipe, .. } => {
                    if client
                        .pipe
                        .as_ref()
                        .is_some_and(|known| known.id() == pipe.id())
                    {
                        client.pipe = None;
                        client.stage = Stage::Gone;
                    }
                }
                Output::Sign { pipe, request } => {
                    let signature = client.key.sign(&request.message()).to_bytes();
                    node.signed(&pipe, Some(signature), now, &mut more);
                }
                Output::Request(incoming) => {
                    client
                        .heard
                        .push((incoming.from().cloned(), incoming.request.payload.clone()));
                    let echo = incoming.request.payload.clone();
                    incoming.respond(Response::Success(Some(echo)));
                }
                Output::Answered { response, .. } => client.answers.push(response),
                Output::Failed { failure, .. } => client.failures.push(failure.reason()),
                Output::Event(event) => client.events.push(event),
                other => drop(other),
            }
        }
        if !more.is_empty() {
            self.outputs(at, node, now, more);
        }
    }

    /// Runs nodes and router for a while of virtual time, ten milliseconds at a step.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            for at in 0..self.clients.len() {
                self.act(at, |node, now, out| node.handle_timeout(now, out));
            }
            for _ in 0..20 {
                for at in 0..self.clients.len() {
                    self.exchange(at);
                }
            }
        }
    }

    fn exchange(&mut self, at: usize) {
        while let Some(pipe) = self.clients[at].pipe.clone() {
            let mut message = None;
            self.act(at, |node, now, out| {
                message = node.poll_transmit(&pipe, Waker::noop(), now, out)
            });
            let Some(message) = message else { break };
            self.router_hears(at, message);
        }
        let mut events = Vec::new();
        let now = self.now;
        while let Stage::Up(session) = &mut self.clients[at].stage
            && let Some(record) = session.poll_transmit(now, false, &mut events)
        {
            self.deliver(at, record.freeze());
        }
        for event in events {
            self.router_acts(at, event);
        }
    }

    fn deliver(&mut self, at: usize, message: Bytes) {
        if let Some(pipe) = self.clients[at].pipe.clone() {
            self.act(at, |node, now, out| {
                node.handle_message(&pipe, message, now, out)
            });
        }
    }

    fn router_hears(&mut self, at: usize, message: Bytes) {
        let (wall, now) = (self.wall(), self.now);
        let stage = std::mem::replace(&mut self.clients[at].stage, Stage::Gone);
        self.clients[at].stage = match stage {
            Stage::Message1 => {
                let state =
                    responder::start(self.local.clone(), &message, [at as u8; 32], wall).unwrap();
                let signature = self.key.sign(&state.request().message()).to_bytes();
                let (answer, state) = state.signed(signature).unwrap();
                self.clients[at].stage = Stage::Message3(Box::new(state));
                self.deliver(at, answer.into());
                return;
            }
            Stage::Message3(state) => {
                let channel = state
                    .handle(&message, wall)
                    .unwrap()
                    .verify()
                    .unwrap()
                    .admit();
                Stage::Attach(Box::new(channel))
            }
            Stage::Attach(mut channel) => {
                let mut frames = channel.open(BytesMut::from(&message[..])).unwrap().freeze();
                let Some((_, _, Some(Frame::Attach(attach)))) = next(&mut frames).unwrap() else {
                    panic!("ATTACH")
                };
                let config = SessionConfig {
                    limits: Arc::default(),
                    mtu: 65_536,
                    instance: [7; 16],
                    agent: "rho".into(),
                    secret: [5; 32].into(),
                };
                let mut events = Vec::new();
                let session = Session::accept(*channel, config, &attach, now, &mut events).unwrap();
                Stage::Up(Box::new(session))
            }
            Stage::Up(mut session) => {
                let mut events = Vec::new();
                session
                    .handle_record(BytesMut::from(&message[..]), now, &mut events)
                    .unwrap();
                self.clients[at].stage = Stage::Up(session);
                for event in events {
                    self.router_acts(at, event);
                }
                return;
            }
            Stage::Gone => Stage::Gone,
        };
    }

    fn client(&self, name: &Name) -> usize {
        self.clients
            .iter()
            .position(|client| client.name == *name)
            .unwrap()
    }

    fn with<R>(&mut self, at: usize, work: impl FnOnce(&mut Session<u64>) -> R) -> Option<R> {
        match &mut self.clients[at].stage {
            Stage::Up(session) => Some(work(session)),
            _ => None,
        }
    }

    fn router_acts(&mut self, at: usize, event: Event<u64>) {
        match event {
            Event::CircuitOpen {
                cid,
                window,
                to,
                first,
                ..
            } => {
                self.captured.extend_from_slice(&first);
                let target = match self.lie {
                    Lie::WrongTarget => self.client(&name("carol")),
                    _ => self.client(&to),
                };
                let from = match self.lie {
                    Lie::WrongFrom => Some(name("carol")),
                    Lie::Nameless => None,
                    _ => Some(self.clients[at].name.clone()),
                };
                let now = self.now;
                let far = Far::Hop {
                    session: at as u64,
                    cid,
                };
                // Its client may just be coming back.
                let Some(Some(there)) =
                    self.with(target, |s| s.bring_circuit(from, window, first, far, now))
                else {
                    self.with(at, |s| s.close_circuit(cid, Code::TargetOffline, None));
                    return;
                };
                self.with(at, |s| {
                    s.bind_circuit(
                        cid,
                        Far::Hop {
                            session: target as u64,
                            cid: there,
                        },
                    )
                });
            }
            Event::Circuit {
                far: Far::Hop { session, cid },
                signal,
            } => {
                self.forward(at, session as usize, cid, signal);
            }
            _ => {}
        }
    }

    fn forward(&mut self, from: usize, to: usize, cid: u32, signal: Signal) {
        let Signal::Data(data) = signal else {
            self.with(to, |s| s.circuit_signal(cid, signal));
            return;
        };
        self.captured.extend_from_slice(&data);
        let count = self.counts.entry((to, cid)).or_default();
        *count += 1;
        let nth = *count;
        let mut send = vec![(to, cid, data.clone())];
        match self.lie {
            Lie::Drop(n) if n == nth => send.clear(),
            Lie::Repeat(n) if n == nth => send.push((to, cid, data)),
            Lie::Flip(n) if n == nth => {
                let mut altered = data.to_vec();
                let middle = altered.len() / 2;
                altered[middle] ^= 4;
                send = vec![(to, cid, altered.into())];
            }
            Lie::Swap(n) if n == nth => {
                self.kept.insert((to, cid), data);
                send.clear();
            }
            Lie::Swap(n) if n + 1 == nth => {
                send.extend(self.kept.remove(&(to, cid)).map(|kept| (to, cid, kept)))
            }
            Lie::Inject(n) if n == nth => send.insert(0, (to, cid, Bytes::from(vec![0x10; 64]))),
            Lie::Reflect(n) if n == nth => {
                let back = self.with(to, |s| match s.circuit_far(cid) {
                    Some(Far::Hop { cid, .. }) => Some(cid),
                    _ => None,
                });
                send = vec![(from, back.flatten().unwrap(), data)];
            }
            Lie::Cross(n) if nth > n => {
                let other = cid ^ 2;
                send = vec![(to, other, data)];
            }
            _ => {}
        }
        self.told |= send.len() != 1 || self.lie != Lie::Honest;
        for (to, cid, data) in send {
            self.with(to, |s| s.circuit_signal(cid, Signal::Data(data)));
        }
    }

    fn ask(&mut self, from: usize, to: &str, payload: &[u8]) {
        let request = Request {
            protocol: "echo.1".into(),
            metadata: None,
            payload: Bytes::copy_from_slice(payload),
            early: false,
        };
        let to = name(to);
        self.act(from, |node, now, out| {
            node.request(0, &to, request, Some(Duration::from_secs(20)), now, out)
        });
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn an_honest_router_connects_two_nodes_and_reads_nothing() {
    let mut stage = Theatre::new(Lie::Honest);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert_eq!(
        stage.clients[1].heard,
        [(Some(name("alice")), Bytes::from_static(SECRET))]
    );
    assert_eq!(
        stage.clients[0].answers,
        [Response::Success(Some(Bytes::from_static(SECRET)))]
    );
    assert!(
        stage.captured.len() > 3500,
        "it carried the handshake and the request: {}",
        stage.captured.len()
    );
    assert!(!contains(&stage.captured, SECRET), "the payload in clear");
    assert!(!contains(&stage.captured, &SECRET[..12]), "a part of it");
    for label in ["alice", "bob"] {
        assert!(
            !contains(&stage.captured, &key_of(label).to_bytes()),
            "a secret key"
        );
        let public = key_of(label).verifying_key().to_bytes();
        assert!(
            !contains(&stage.captured, &public),
            "not even who signs is visible inside the circuit"
        );
    }
}

#[test]
fn no_lie_of_a_router_goes_unnoticed() {
    let mut lies = vec![Lie::WrongFrom, Lie::WrongTarget];
    for n in 1..=4 {
        lies.extend([
            Lie::Drop(n),
            Lie::Repeat(n),
            Lie::Flip(n),
            Lie::Swap(n),
            Lie::Inject(n),
            Lie::Reflect(n),
        ]);
    }
    for lie in lies {
        let mut stage = Theatre::new(lie);
        stage.ask(0, "bob", SECRET);
        stage.run(Duration::from_secs(25));
        assert!(
            stage.told || matches!(lie, Lie::WrongFrom | Lie::WrongTarget),
            "{lie:?} had its chance"
        );
        // Whatever arrived is what alice said, said by alice, at most once.
        for client in &stage.clients[1..] {
            for (from, payload) in &client.heard {
                assert_eq!(
                    (from, &payload[..]),
                    (&Some(name("alice")), SECRET),
                    "{lie:?}"
                );
            }
        }
        assert!(
            stage.clients[1].heard.len() <= 1,
            "{lie:?} made bob hear it twice"
        );
        assert!(
            stage.clients[2].heard.is_empty(),
            "{lie:?} made carol hear it"
        );
        // Alice has either the true answer or an error, never both, never neither.
        let alice = &stage.clients[0];
        assert_eq!(
            alice.answers.len() + alice.failures.len(),
            1,
            "{lie:?}: {:?} {:?}",
            alice.answers,
            alice.failures
        );
        for answer in &alice.answers {
            assert_eq!(
                *answer,
                Response::Success(Some(Bytes::from_static(SECRET))),
                "{lie:?}"
            );
        }
        assert!(!contains(&stage.captured, SECRET));
    }
}

#[test]
fn a_router_that_names_another_caller_is_reported_by_name() {
    let mut stage = Theatre::new(Lie::WrongFrom);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert!(stage.clients[1].heard.is_empty());
    let expected = NodeEvent::Misbehaved {
        name: Some(name("rho")),
        code: Code::RouterLied,
    };
    assert!(
        stage.clients[1].events.contains(&expected),
        "{:?}",
        stage.clients[1].events
    );
}

#[test]
fn a_router_that_hides_the_caller_changes_nothing_about_who_it_is() {
    let mut stage = Theatre::new(Lie::Nameless);
    stage.ask(0, "bob", SECRET);
    stage.run(Duration::from_secs(5));
    assert_eq!(
        stage.clients[1].heard,
        [(Some(name("alice")), Bytes::from_static(SECRET))]
    );
}

#[test]
fn a_router_that_forges_records_gets_nobody_banned() {
    let lies = (1..=3).flat_map(|n| {
        [
            Lie::Drop(n),
            Lie::Repeat(n),
            Lie::Flip(n),
            Lie::Swap(n),
            Lie::Inject(n),
            Lie::Reflect(n),
            Lie::Cross(n),
        ]
    });
    for lie in lies.chain([Lie::WrongFrom, Lie::WrongTarget]) {
        let mut stage = Theatre::new(lie);
        for _ in 0..2 {
            stage.ask(0, "bob", SECRET);
            stage.ask(2, "bob", b"something else");
            stage.run(Duration::from_secs(3));
        }
        let now = Now {
            mono: stage.now,
            wall: stage.wall(),
        };
        for client in &stage.clients {
            assert_eq!(client.node.bans(now), [], "{lie:?}");
        }
    }
}

#[test]
fn circuits_that_a_router_crosses_carry_nothing_into_each_other() {
    for n in 1..=3 {
        let mut stage = Theatre::new(Lie::Cross(n));
        stage.ask(0, "bob", SECRET);
        stage.ask(2, "bob", b"something else");
        stage.run(Duration::from_secs(25));
        for (from, payload) in &stage.clients[1].heard {
            let expected = if *from == Some(name("alice")) {
                SECRET
            } else {
                b"something else"
            };
            assert_eq!(&payload[..], expected);
        }
    }
}
