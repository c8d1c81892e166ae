//! A router with valid keys that lies: whatever a router does with circuits, and sees of them, is written here.
//!
//! It has neither a clock nor sockets. Whoever drives it numbers the lines over which nodes come to it, says what happens on
//! them and when, and carries what it has to say. Those who come must be nodes of ours: what none of them says is a panic.

use crate::names::{REGISTRY, key_of, name};
use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey};
use node_core::{
    Code, Instant, Name, Now, Timestamp,
    channel::{Channel, HelloInfo, Identity, Local, SignerTrust, responder},
    session::{Event, Far, Session, SessionConfig, Signal},
    time::Duration,
    wire::frame::{Frame, next},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

/// A connection to the router, by the number that whoever drives it has chosen: a later one has a greater number.
pub type LineId = u64;

/// A circuit's end, by its line and its number there.
type End = (LineId, u32);

/// One lie, told to whoever comes by. Messages are counted from 1, for each direction of a circuit, without the one that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None: the router does its work.
    Honest,
    /// Says that carol is calling.
    WrongFrom,
    /// Hides who is calling although it was not asked to.
    Nameless,
    /// Brings the circuit to carol.
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
    /// Gives everything after the nth message to another circuit of the same peer.
    Cross(usize),
    /// Forwards nothing, and does everything else as it should.
    Forget,
}

impl Lie {
    /// All lies about the nth message.
    pub const fn about(n: usize) -> [Self; 7] {
        [
            Self::Drop(n),
            Self::Repeat(n),
            Self::Flip(n),
            Self::Swap(n),
            Self::Inject(n),
            Self::Reflect(n),
            Self::Cross(n),
        ]
    }
}

/// How far the router's channel with whoever came over a line is.
enum Line {
    Message1,
    Message3(Box<responder::AwaitMessage3>),
    Attach(Box<Channel>),
    Up(Box<Session<()>>, Option<Name>),
}

/// The router.
pub struct LyingRouter {
    local: Arc<Local>,
    key: SigningKey,
    lie: Lie,
    lines: BTreeMap<LineId, Line>,
    /// Messages of handshakes that wait to be sent.
    answers: VecDeque<(LineId, Bytes)>,
    handshakes: u64,
    captured: Vec<u8>,
    /// Messages that came for each end.
    counts: HashMap<End, usize>,
    /// Messages that are to be exchanged with the next.
    kept: HashMap<End, Bytes>,
    told: bool,
}

impl LyingRouter {
    /// The router called `label`, whose key is [`key_of`] it.
    pub fn new(label: &str, lie: Lie) -> Self {
        let key = key_of(label);
        let local = Local {
            identity: Identity {
                name: Some(name(label)),
                key: key.verifying_key().to_bytes(),
            },
            hello: HelloInfo::default(),
            registries: [REGISTRY].into(),
            clock_window: Duration::from_secs(120),
            signer: SignerTrust::default(),
        };
        Self {
            local: Arc::new(local),
            key,
            lie,
            lines: BTreeMap::new(),
            answers: VecDeque::new(),
            handshakes: 0,
            captured: Vec::new(),
            counts: HashMap::new(),
            kept: HashMap::new(),
            told: false,
        }
    }

    /// Every byte of circuits that it has seen in clear.
    pub fn captured(&self) -> &[u8] {
        &self.captured
    }

    /// Whether the lie made a difference to anybody.
    pub const fn told(&self) -> bool {
        self.told
    }

    /// Somebody has opened a line.
    pub fn handle_opened(&mut self, line: LineId) {
        self.lines.insert(line, Line::Message1);
    }

    /// A message has come over a line.
    ///
    /// # Panics
    /// When it is none that a node would send.
    pub fn handle_message(&mut self, id: LineId, message: &[u8], now: Now) {
        let Some(line) = self.lines.remove(&id) else {
            return;
        };
        let mut events = Vec::new();
        let line = match line {
            Line::Message1 => {
                let (answer, state) = self.answer(message, now.wall);
                self.answers.push_back((id, answer));
                Line::Message3(Box::new(state))
            }
            Line::Message3(state) => {
                let claimed = state.handle(message, now.wall).expect("a message 3");
                let admission = claimed.verify().expect("a good signature");
                Line::Attach(Box::new(admission.admit()))
            }
            Line::Attach(channel) => {
                let caller = channel.peer().name.clone();
                let session = attach(*channel, message, now.mono, &mut events);
                Line::Up(Box::new(session), caller)
            }
            Line::Up(mut session, caller) => {
                session
                    .handle_record(message.into(), now.mono, &mut events)
                    .expect("a record of a node");
                Line::Up(session, caller)
            }
        };
        self.lines.insert(id, line);
        self.act(id, events, now.mono);
    }

    /// A line has ended.
    pub fn handle_ended(&mut self, id: LineId, now: Instant) {
        let mut events = Vec::new();
        if let Some(Line::Up(mut session, _)) = self.lines.remove(&id) {
            // Nobody takes it up again. What remains of it is told to the far ends of its circuits.
            drop(session.park(Code::PipeLost, now, &mut events));
        }
        self.act(id, events, now);
    }

    /// Tells this lie from now on.
    pub const fn lies(&mut self, lie: Lie) {
        self.lie = lie;
    }

    /// The next message that is to be sent, and over which line.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(LineId, Bytes)> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let lines: Vec<LineId> = self.lines.keys().copied().collect();
        lines.into_iter().find_map(|id| {
            let mut events = Vec::new();
            let record = self.session(id, |session| session.poll_transmit(now, false, &mut events));
            self.act(id, events, now);
            record.flatten().map(|record| (id, record.freeze()))
        })
    }

    /// Message 2.
    fn answer(&mut self, message: &[u8], wall: Timestamp) -> (Bytes, responder::AwaitMessage3) {
        self.handshakes += 1;
        let mut seed = [0x11; 32];
        seed[..8].copy_from_slice(&self.handshakes.to_be_bytes());
        let state = responder::start(self.local.clone(), message, seed, wall);
        let state = state.expect("a message 1");
        let signature = self.key.sign(&state.request().message()).to_bytes();
        let (answer, state) = state.signed(signature).expect("the key is the router's");
        (answer.into(), state)
    }

    /// Works on the session over a line, if there is one.
    fn session<R>(&mut self, id: LineId, work: impl FnOnce(&mut Session<()>) -> R) -> Option<R> {
        match self.lines.get_mut(&id) {
            Some(Line::Up(session, _)) => Some(work(session)),
            _ => None,
        }
    }

    /// The line over which somebody has come, the latest if there are more.
    fn line_of(&self, wanted: &Name) -> Option<LineId> {
        let mut lines = self.lines.iter().rev();
        let is_wanted =
            |line: &Line| matches!(line, Line::Up(_, caller) if caller.as_ref() == Some(wanted));
        lines.find_map(|(id, line)| is_wanted(line).then_some(*id))
    }

    fn act(&mut self, id: LineId, events: Vec<Event<()>>, now: Instant) {
        for event in events {
            match event {
                Event::CircuitOpen {
                    cid,
                    window,
                    hide,
                    to,
                    first,
                } => {
                    self.captured.extend_from_slice(&first);
                    self.route((id, cid), &to, hide, window, first, now);
                }
                Event::Circuit {
                    far: Far::Hop { session, cid },
                    signal,
                } => self.forward((session, cid), signal),
                _ => {}
            }
        }
    }

    /// Takes a caller's circuit on to its target.
    fn route(
        &mut self,
        (id, cid): End,
        to: &Name,
        hide: bool,
        window: u64,
        first: Bytes,
        now: Instant,
    ) {
        let caller = match &self.lines[&id] {
            Line::Up(_, caller) if !hide => caller.clone(),
            _ => None,
        };
        let carol = name("carol");
        let target = match self.lie {
            Lie::WrongTarget => &carol,
            _ => to,
        };
        let from = match self.lie {
            Lie::WrongFrom => Some(carol.clone()),
            Lie::Nameless => None,
            _ => caller.clone(),
        };
        let differs = target != to || from != caller;
        let far = Far::Hop { session: id, cid };
        let brought = self.line_of(target).and_then(|line| {
            let bring = |s: &mut Session<()>| s.bring_circuit(from, window, first, far, now);
            Some((line, self.session(line, bring)??))
        });
        let Some((line, there)) = brought else {
            // Its client may just be coming back.
            self.session(id, |s| s.close_circuit(cid, Code::TargetOffline, None));
            return;
        };
        self.told |= differs;
        let far = Far::Hop {
            session: line,
            cid: there,
        };
        if self.session(id, |s| s.bind_circuit(cid, far)) != Some(true) {
            // Its caller has closed it in the record that opened it.
            self.session(line, |s| s.close_circuit(there, Code::PipeLost, None));
        }
    }

    /// Another circuit over the same line, the latest over which something came.
    fn another(&mut self, (line, cid): End) -> Option<End> {
        let ends = self.counts.keys().copied();
        let mut others: Vec<End> = ends.filter(|end| end.0 == line && end.1 != cid).collect();
        others.sort_unstable();
        let Line::Up(session, _) = self.lines.get(&line)? else {
            return None;
        };
        let is_open = |end: &End| session.circuit_far(end.1).is_some();
        others.into_iter().rfind(is_open)
    }

    /// Does at a circuit's end what happened at the other one.
    fn forward(&mut self, to: End, signal: Signal) {
        let (line, cid) = to;
        let Signal::Data(data) = signal else {
            self.session(line, |s| s.circuit_signal(cid, signal));
            return;
        };
        self.captured.extend_from_slice(&data);
        let count = self.counts.entry(to).or_default();
        *count += 1;
        let nth = *count;
        let truth = vec![(to, data.clone())];
        let mut send = truth.clone();
        match self.lie {
            Lie::Drop(n) if n == nth => send.clear(),
            Lie::Forget => send.clear(),
            Lie::Repeat(n) if n == nth => send.push((to, data)),
            Lie::Flip(n) if n == nth => {
                let mut altered = data.to_vec();
                let middle = altered.len() / 2;
                altered[middle] ^= 4;
                send = vec![(to, altered.into())];
            }
            Lie::Swap(n) if n == nth => {
                self.kept.insert(to, data);
                send.clear();
            }
            Lie::Swap(n) if n + 1 == nth => {
                send.extend(self.kept.remove(&to).map(|kept| (to, kept)));
            }
            Lie::Inject(n) if n == nth => send.insert(0, (to, Bytes::from(vec![0x10; 64]))),
            Lie::Reflect(n) if n == nth => {
                let back = self.session(line, |s| s.circuit_far(cid)).flatten();
                if let Some(Far::Hop { session, cid }) = back {
                    send = vec![((session, cid), data)];
                }
            }
            Lie::Cross(n) if nth > n => {
                send.clear();
                send.extend(self.another(to).map(|other| (other, data)));
                // Without another it is only swallowed.
                self.told |= !send.is_empty();
            }
            _ => {}
        }
        self.told |= send != truth && !matches!(self.lie, Lie::Cross(_));
        for ((line, cid), data) in send {
            self.session(line, |s| s.circuit_signal(cid, Signal::Data(data)));
        }
    }
}

/// The session that somebody begins on a channel with this record.
fn attach(
    mut channel: Channel,
    record: &[u8],
    now: Instant,
    events: &mut Vec<Event<()>>,
) -> Session<()> {
    let record = BytesMut::from(record);
    let mut frames = channel.open(record).expect("a record").freeze();
    let Ok(Some((_, _, Some(Frame::Attach(attach))))) = next(&mut frames) else {
        panic!("ATTACH comes first")
    };
    let config = SessionConfig {
        limits: Arc::default(),
        mtu: 65_536,
        instance: [7; 16],
        agent: "router".into(),
        secret: [5; 32].into(),
    };
    let session = Session::accept(channel, config, &attach, now, events);
    let mut session = session.expect("a new session");
    let handled = session.handle_frames(frames, now, events);
    handled.expect("what a node says");
    session
}
