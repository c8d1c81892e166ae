//! Two nodes that talk, directly or through two routers, in virtual time.

use crate::input::Input;
use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, Token, direct, indirect, name};
use node_core::{
    Code, Instant,
    node::{Access, Event, Failure, RouterPolicy, Stream},
    session::{Request, StreamError},
    time::Duration,
    wire::frame::Response,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Choices of one run.
const STEPS: usize = 120;
const GRACE: Duration = Duration::from_secs(2);

/// So long after their start nodes may still be on their way to their routers.
const ARRIVAL: Duration = Duration::from_secs(10);
/// So long after a cut it may still be felt: the longest pause between two attempts is half a minute.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Within this time everything has ended: a socket that fell silent is noticed after a minute, its session is kept for another.
const RECOVERY: u64 = 180;

/// Whatever is asked, cut, swallowed, altered and killed: each operation ends once and in time, nothing is heard twice, by
/// anybody else or from anybody else than it says, what is said to be answered or delivered was heard, what is said never to
/// have left was not, streams bring their bytes in order and end, and nobody is blamed for what was done on the way. In the
/// end the two reach each other. Where processes and pipes do nothing worse than end, no outcome is unknown, every stream comes
/// whole, and what is asked when that is long ago succeeds.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut town = Town::new(input.u8());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        town.step(&mut input);
        town.look();
    }
    town.settle();
}

/// What is done to the messages of one direction of a socket.
#[derive(Default)]
struct Fault {
    swallows: Cell<bool>,
    alters: Cell<Option<(u16, u8)>>,
}

type Faults = Rc<RefCell<Vec<(NodeId, NodeId, Rc<Fault>)>>>;

struct Asked {
    node: NodeId,
    kind: u8,
    payload: Bytes,
    began: Instant,
    deadline: Instant,
    cancelled: bool,
    /// Whether whom it is for can be called.
    callable: bool,
}

struct Writing {
    node: NodeId,
    stream: Stream<Token>,
    token: Token,
    written: usize,
    length: usize,
}

struct Reading {
    node: NodeId,
    stream: Stream<Token>,
    token: Token,
    read: usize,
    length: usize,
}

struct Town {
    world: Simulation,
    /// The labels; those who talk are the last two.
    labels: &'static [&'static str],
    present: Vec<NodeId>,
    label_of: HashMap<NodeId, usize>,
    asked: HashMap<Token, Asked>,
    heard: HashMap<Token, usize>,
    faults: Faults,
    writing: Vec<Writing>,
    reading: Vec<Reading>,
    /// Who opened each stream to whom.
    streams: HashMap<Token, [usize; 2]>,
    /// Whether something happened that a session need not survive.
    hurt: bool,
    /// When nothing is felt any more of what was cut so far.
    calm: Instant,
    /// Whether somebody has let messages lie.
    held: bool,
}

/// Whether somebody says that it is asked for too much at once.
fn is_limit(code: u16) -> bool {
    [Code::RequestRate, Code::QueueFull]
        .map(Code::as_u16)
        .contains(&code)
}

fn stream_byte(token: Token, at: usize) -> u8 {
    ((at as u64 * 31 + token * 7) >> 3) as u8
}

impl Town {
    fn new(how: u8) -> Self {
        let mut town = Self {
            world: Simulation::new(how.into()),
            labels: match how % 3 {
                0 => &["alice", "dan"],
                1 => &["erin", "dan"],
                _ => &["rho", "sigma", "alice", "bob"],
            },
            present: Vec::new(),
            label_of: HashMap::new(),
            asked: HashMap::new(),
            heard: HashMap::new(),
            faults: Faults::default(),
            writing: Vec::new(),
            reading: Vec::new(),
            streams: HashMap::new(),
            hurt: false,
            calm: Instant::default(),
            held: false,
        };
        town.calm = town.world.now() + ARRIVAL;
        let faults = town.faults.clone();
        town.world.on_socket = Some(Box::new(move |from, to, _| {
            let fault = Rc::new(Fault::default());
            faults.borrow_mut().push((from, to, fault.clone()));
            Some(Box::new(move |message| {
                if let Some((at, with)) = fault.alters.take()
                    && !message.is_empty()
                {
                    let at = usize::from(at) % message.len();
                    message[at] ^= with;
                }
                !fault.swallows.get()
            }))
        }));
        town.world.latency = Duration::from_millis(1 + u64::from(how >> 2));
        for at in 0..town.labels.len() {
            town.present.push(0);
            town.start(at);
        }
        town
    }

    fn start(&mut self, at: usize) {
        let records = [
            ("rho", direct("rho", 1)),
            ("sigma", direct("sigma", 2)),
            ("dan", direct("dan", 3)),
            ("erin", direct("erin", 4)),
            ("alice", indirect("alice", &["rho", "sigma"])),
            ("bob", indirect("bob", &["sigma", "rho"])),
        ];
        let label = self.labels[at];
        let mut config = Simulation::config(label, &records);
        if ["rho", "sigma"].contains(&label) {
            config.router = RouterPolicy {
                host: Access::Anyone,
                call: Access::Anyone,
                guests: false,
            };
        }
        config.limits.message_bytes = 1 << 20;
        let node = self.world.add_named(label, config);
        self.present[at] = node;
        self.label_of.insert(node, at);
    }

    /// Whether somebody can be called: alice without her routers only calls others.
    fn is_callable(&self, to: usize) -> bool {
        self.labels[to] != "alice" || self.labels.contains(&"rho")
    }

    /// One of the two who talk.
    fn talker(&self, which: u8) -> usize {
        self.labels.len() - 1 - usize::from(which % 2)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let [what, x, y] = input.array();
        let (from, other) = (self.talker(what >> 7), self.talker(!what >> 7));
        let (a, b) = (
            self.present[usize::from(x) % self.present.len()],
            self.present[usize::from(y) % self.present.len()],
        );
        match what % 16 {
            0..=4 => self.begin(from, other, what % 16, usize::from(x) << (y % 12)),
            5 => {
                let target = name(self.labels[other]);
                let token = u64::from(y);
                let node = self.present[from];
                for (asked, operation) in &mut self.asked {
                    operation.cancelled |= operation.node == node && asked % 4 == token % 4;
                }
                self.world.act(node, |node, now, out| {
                    node.cancel(&target, |asked| asked % 4 == token % 4, now, out);
                });
            }
            6 => {
                let target = name(self.labels[other]);
                self.world.act(self.present[from], |node, now, out| {
                    node.keep(&target, x & 1 == 0, None, now, out)
                });
            }
            7 => {
                self.calm = self.world.now() + AFTERMATH;
                self.world.cut(a, b, Code::PipeLost);
            }
            8 => {
                self.hurt = true;
                if !self.world.stalled.remove(&(a, b)) {
                    self.world.stalled.insert((a, b));
                }
            }
            9 => {
                self.hurt = true;
                self.faults(a, b, |fault| fault.swallows.set(true));
            }
            10 => {
                self.hurt = true;
                let place = input.array::<3>();
                self.faults(a, b, |fault| {
                    fault.alters.set(Some((
                        u16::from_be_bytes([place[0], place[1]]),
                        place[2].max(1),
                    )));
                });
            }
            11 => {
                self.hurt = true;
                let at = usize::from(x) % self.present.len();
                if y & 1 == 0 {
                    self.world.kill(self.present[at]);
                } else {
                    self.world.freeze(self.present[at]);
                }
                self.start(at);
            }
            12 => {
                self.held = true;
                let machine = &mut self.world.machines[self.present[from]];
                machine.hold_messages = !machine.hold_messages;
                for message in std::mem::take(&mut machine.held) {
                    let payload = message.payload.clone();
                    message.taken();
                    self.hear(&payload);
                }
            }
            _ => {
                let time = Duration::from_millis(u64::from(x) * u64::from(y) / 8);
                self.world.run_for(time);
            }
        }
    }

    fn faults(&self, a: NodeId, b: NodeId, set: impl Fn(&Fault)) {
        for (from, to, fault) in self.faults.borrow().iter() {
            if [(a, b), (b, a)].contains(&(*from, *to)) {
                set(fault);
            }
        }
    }

    fn begin(&mut self, from: usize, to: usize, kind: u8, length: usize) {
        let node = self.present[from];
        let token = self.world.token();
        let mut payload = vec![kind; (10 + length).min(100_000)];
        payload[0] = to as u8;
        payload[1] = from as u8;
        payload[2..10].copy_from_slice(&token.to_be_bytes());
        let payload = Bytes::from(payload);
        let timeout = Duration::from_secs(if kind < 2 { 25 } else { 30 });
        let (target, body) = (name(self.labels[to]), payload.clone());
        self.world.act(node, |node, now, out| match kind {
            0 | 1 => node.request(
                token,
                &target,
                Request::new("echo.1", body),
                Some(timeout),
                now,
                out,
            ),
            2 => node.message(token, &target, "chat.1", body, now, out),
            3 => {
                let about = [token.to_be_bytes(), (body.len() as u64).to_be_bytes()].concat();
                node.open_stream(token, &target, "file.1", about.into(), now, out);
            }
            _ => node.connect(token, &target, timeout, now, out),
        });
        if kind == 3 {
            self.streams.insert(token, [from, to]);
        }
        let began = self.world.now();
        let asked = Asked {
            node,
            kind,
            payload,
            began,
            deadline: began + timeout,
            callable: self.is_callable(to),
            cancelled: false,
        };
        self.asked.insert(token, asked);
    }

    /// A request or a message has come to an application.
    fn hear(&mut self, payload: &[u8]) {
        let token = Token::from_be_bytes(payload[2..10].try_into().expect("eight bytes"));
        let times = self.heard.entry(token).or_default();
        *times += 1;
        assert_eq!(*times, 1, "operation {token} was handled twice");
    }

    /// Everybody looks at what has come in, and uses the streams that there are.
    fn look(&mut self) {
        let mut payloads = Vec::new();
        let mut streams = Vec::new();
        for (node, machine) in self.world.machines.iter_mut().enumerate() {
            let me = self.label_of[&node];
            let requests = machine
                .requests
                .drain(..)
                .map(|(from, request)| (from, request.payload));
            let mut heard: Vec<_> = requests.collect();
            heard.extend(
                machine
                    .messages
                    .drain(..)
                    .map(|(from, _, payload)| (from, payload)),
            );
            for (from, payload) in heard {
                assert_eq!(
                    usize::from(payload[0]),
                    me,
                    "{} heard what was meant for another",
                    self.labels[me]
                );
                assert_eq!(
                    from,
                    Some(name(self.labels[usize::from(payload[1])])),
                    "the sender is who it says"
                );
                payloads.push(payload);
            }
            for event in machine.events.drain(..) {
                assert!(
                    !matches!(event, Event::Misbehaved { .. }),
                    "{} blames an honest peer: {event:?}",
                    self.labels[me]
                );
            }
            streams.extend(machine.streams.drain(..).map(|incoming| (node, incoming)));
        }
        for payload in payloads {
            self.hear(&payload);
        }
        for (node, incoming) in streams {
            let [token, length] = [0, 8].map(|at| {
                u64::from_be_bytes(
                    incoming.metadata[at..at + 8]
                        .try_into()
                        .expect("eight bytes"),
                )
            });
            let [from, to] = self.streams[&token];
            assert_eq!(self.label_of[&node], to, "a stream was meant for another");
            assert_eq!(
                incoming.from(),
                Some(&name(self.labels[from])),
                "who opened a stream is who it says"
            );
            self.hear(&[&[0; 2], &token.to_be_bytes()[..]].concat());
            self.reading.extend(incoming.accept().map(|stream| Reading {
                node,
                stream,
                token,
                read: 0,
                length: length as usize,
            }));
        }
        self.outcomes();
        self.stream();
    }

    fn outcomes(&mut self) {
        let now = self.world.now();
        let (world, heard, hurt, writing) =
            (&mut self.world, &self.heard, self.hurt, &mut self.writing);
        let (calm, held) = (self.calm, self.held);
        self.asked.retain(|token, asked| {
            let machine = &mut world.machines[asked.node];
            let heard = heard.contains_key(token);
            match machine.outcomes.remove(token) {
                Some(Outcome::Answered(response)) => {
                    assert!(asked.kind < 2);
                    match response {
                        Response::Success(data) => {
                            assert_eq!(data.as_ref(), Some(&asked.payload), "somebody else's answer");
                            assert!(heard, "{token} was answered and never asked");
                        }
                        Response::Error { code, .. } if is_limit(code) => {
                            assert!(!heard, "{token} was heard and refused");
                        }
                        refusal => panic!("{token} was refused: {refusal:?}"),
                    }
                }
                Some(Outcome::Delivered) => {
                    assert_eq!(asked.kind, 2);
                    assert!(heard, "{token} was delivered and never taken");
                }
                Some(Outcome::Opened(stream)) => {
                    assert_eq!(asked.kind, 3);
                    writing.push(Writing {
                        node: asked.node,
                        stream,
                        token: *token,
                        written: 0,
                        length: asked.payload.len(),
                    });
                }
                Some(Outcome::Connected) => assert_eq!(asked.kind, 4),
                Some(Outcome::Failed(failure)) => {
                    let still = !hurt && asked.callable && asked.began >= calm;
                    asked.assert_may_fail(*token, &failure, still, held, now);
                    assert!(
                        !heard || failure.code != Code::Offline,
                        "{token} was heard and is said not to have left: {failure}"
                    );
                    assert!(
                        hurt || failure.code != Code::OutcomeUnknown,
                        "the outcome of {token} is unknown although nothing worse happened than cuts"
                    );
                }
                Some(other) => panic!("{other:?}"),
                None if machine.dead => {}
                None => {
                    assert!(now <= asked.deadline + GRACE, "{token} of kind {} does not end", asked.kind);
                    return true;
                }
            }
            false
        });
    }

    fn stream(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let (world, hurt) = (&self.world, self.hurt);
        let assert_may_end = |token, error: StreamError| {
            let limited = match error {
                StreamError::Reset(code) | StreamError::Stopped(code) => is_limit(code),
                StreamError::Lost(_) | StreamError::Finished => false,
            };
            assert!(hurt || limited, "stream {token} is over: {error}");
        };
        self.writing.retain_mut(|w| {
            while !world.machines[w.node].dead && w.written < w.length {
                let end = (w.written + 5_000).min(w.length);
                let mut piece: Bytes = (w.written..end)
                    .map(|at| stream_byte(w.token, at))
                    .collect();
                match w.stream.poll_write(&mut piece, &mut cx) {
                    Poll::Ready(Ok(())) => w.written = end,
                    Poll::Ready(Err(error)) => {
                        assert_may_end(w.token, error);
                        return false;
                    }
                    Poll::Pending => return true,
                }
            }
            w.stream.finish();
            if world.machines[w.node].dead {
                return false;
            }
            // The other side says nothing, and ends that when it has read everything.
            match w.stream.poll_read(&mut cx) {
                Poll::Ready(Ok(said)) => assert_eq!(said, None, "nobody has said anything"),
                Poll::Ready(Err(error)) => assert_may_end(w.token, error),
                Poll::Pending => return true,
            }
            false
        });
        self.reading.retain_mut(|r| {
            while !world.machines[r.node].dead {
                match r.stream.poll_read(&mut cx) {
                    Poll::Ready(Ok(Some(bytes))) => {
                        for byte in bytes {
                            assert_eq!(byte, stream_byte(r.token, r.read), "in order");
                            r.read += 1;
                        }
                    }
                    Poll::Ready(Ok(None)) => {
                        assert_eq!(r.read, r.length, "an end only after everything");
                        r.stream.finish();
                        return false;
                    }
                    Poll::Ready(Err(error)) => {
                        assert_may_end(r.token, error);
                        return false;
                    }
                    Poll::Pending => return true,
                }
            }
            false
        });
    }

    /// The network holds from now on; everything ends.
    fn settle(&mut self) {
        self.world.stalled.clear();
        for (_, _, fault) in self.faults.borrow().iter() {
            fault.alters.set(None);
        }
        let all_ended = |town: &Self| {
            town.asked.is_empty() && town.writing.is_empty() && town.reading.is_empty()
        };
        self.end(all_ended);
        if self.hurt {
            // Not all of it has been noticed.
            self.world.run_for(Duration::from_secs(RECOVERY));
            self.look();
        }
        self.hurt = false;
        self.calm = self.world.now();
        for (from, to) in [(0, 1), (1, 0)] {
            let [from, to] = [from, to].map(|which| self.talker(which));
            self.begin(from, to, 0, 1);
            self.begin(from, to, 3, 1);
        }
        self.end(all_ended);
    }

    fn end(&mut self, all_ended: impl Fn(&Self) -> bool) {
        for _ in 0..RECOVERY {
            self.world.run_for(Duration::from_secs(1));
            self.look();
            if all_ended(self) {
                return;
            }
        }
        panic!(
            "{} operations, {} writers and {} readers never came to an end",
            self.asked.len(),
            self.writing.len(),
            self.reading.len()
        );
    }
}

impl Asked {
    /// Whether it may fail so. Nothing was done that may still be felt if all is `still`.
    fn assert_may_fail(
        &self,
        token: Token,
        failure: &Failure,
        still: bool,
        held: bool,
        now: Instant,
    ) {
        assert!(
            failure.code != Code::Cancelled || self.cancelled,
            "{token} was cancelled by nobody"
        );
        assert!(
            failure.code != Code::Timeout || now >= self.deadline,
            "the time of {token} is not over"
        );
        let lies = held && self.kind == 2;
        assert!(
            !still || self.cancelled || lies || is_limit(failure.code.as_u16()),
            "{token} of kind {} failed although nothing stood in its way: {failure}",
            self.kind
        );
    }
}
