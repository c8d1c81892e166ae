//! Requests, messages and streams: how they begin, what is heard of them, and how they end.

use super::{GRACE, Life, streams::Streams, troubles::Ending};
use crate::{
    names::name,
    world::{CHAT, ECHO, FILE, NodeId, Outcome, Token},
};
use bytes::Bytes;
use node_core::{
    Code, Instant, Name, node::Failure, session::Request, time::Duration, wire::frame::Response,
};

/// An operation that has not ended.
pub(super) struct Asked {
    pub(super) node: NodeId,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) token: Token,
    kind: Kind,
    payload: Bytes,
    pub(super) began: Instant,
    /// When its time is over.
    pub(super) due: Instant,
    /// When it has to have ended: later, if its node slept.
    pub(super) deadline: Instant,
    pub(super) cancelled: bool,
    /// Whether it has to succeed, and until when it may be tried again.
    must: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Message,
    Stream,
    Connect,
}

/// The pause before another attempt where none was asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// From whom, to whom, token, length of the answer.
const HEADER: usize = 1 + 1 + 8 + 4;

/// What is sent: everybody can tell what it is, from whom and for whom, and whether it is whole.
fn payload(from: usize, to: usize, token: Token, [length, answer]: [usize; 2]) -> Bytes {
    let mut payload = vec![from as u8, to as u8];
    payload.extend(token.to_be_bytes());
    payload.extend((answer as u32).to_be_bytes());
    payload.extend((HEADER..length).map(|at| byte_at(token, at)));
    payload.into()
}

/// Bytes of which no two stretches, and no two operations', look alike.
pub(super) const fn byte_at(token: Token, at: usize) -> u8 {
    ((at as u64 * 31 + token * 7) >> 3) as u8
}

fn token_of(payload: &[u8]) -> Token {
    payload[2..10]
        .iter()
        .fold(0, |token, byte| token << 8 | Token::from(*byte))
}

/// The answer that a request asks for.
pub(super) fn answer_to(payload: &[u8]) -> Bytes {
    let length = payload[10..HEADER]
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    let token = token_of(payload);
    (0..length).map(|at| byte_at(token + 1, at)).collect()
}

impl Life {
    /// Somebody wants something of somebody.
    pub(super) fn begin(&mut self) {
        let (from, to) = self.pick_two();
        let kind = match self.dice.roll(10) {
            0..4 => Kind::Request,
            4..7 => Kind::Message,
            7..9 => Kind::Stream,
            _ => Kind::Connect,
        };
        let within = match kind {
            Kind::Request | Kind::Connect => Duration::from_millis(500 + self.dice.roll(20_000)),
            Kind::Message | Kind::Stream => Duration::from_secs(30),
        };
        self.begun += usize::from(self.running(from).is_some());
        let lengths = [self.length(), self.length()];
        let cancelled = self.dice.once_in(30);
        let Some(token) = self.ask(kind, [from, to], lengths, within) else {
            return;
        };
        if cancelled && let Some(asked) = self.asked.last_mut() {
            asked.cancelled = true;
            let (node, target) = (asked.node, name(&self.people[to].label));
            self.town.simulation.act(node, |node, now, out| {
                node.cancel(&target, |other| *other == token, now, out)
            });
        }
    }

    /// A request that nothing stands in the way of: it has to be answered, at the latest when it is tried again before
    /// `until`.
    pub(super) fn must_reach(&mut self, from: usize, to: usize, until: Instant) {
        let within = Duration::from_secs(30);
        let token = self.ask(Kind::Request, [from, to], [HEADER, 5], within);
        if token.is_some()
            && let Some(asked) = self.asked.last_mut()
        {
            asked.must = Some(until);
        }
    }

    /// Begins an operation, unless who asks is not there. The lengths are those of what is sent there and back.
    fn ask(
        &mut self,
        kind: Kind,
        [from, to]: [usize; 2],
        lengths: [usize; 2],
        within: Duration,
    ) -> Option<Token> {
        let node = self.running(from)?;
        let token = self.town.simulation.token();
        let payload = payload(from, to, token, lengths);
        let target = name(&self.people[to].label);
        let body = payload.clone();
        self.town.simulation.act(node, |node, now, out| match kind {
            Kind::Request => {
                let request = Request::new(ECHO, body);
                node.request(token, &target, request, Some(within), now, out)
            }
            Kind::Message => node.message(token, &target, CHAT, body, now, out),
            Kind::Stream => {
                let about = Streams::metadata(token, lengths);
                node.open_stream(token, &target, FILE, about, now, out)
            }
            Kind::Connect => node.connect(token, &target, within, now, out),
        });
        if kind == Kind::Stream {
            let began = self.now();
            self.streams.asked(token, [from, to], lengths, began);
        }
        self.asked.push(Asked {
            node,
            from,
            to,
            token,
            kind,
            payload,
            began: self.now(),
            due: self.now() + within,
            deadline: self.now() + within,
            cancelled: false,
            must: None,
        });
        self.tell(|| {
            let [from, to] = [from, to].map(|person| &self.people[person].label);
            format!("{from} begins {token}: {kind:?} to {to}, {lengths:?} bytes")
        });
        Some(token)
    }

    /// Mostly short; now and then around what fits a single frame, or far beyond.
    fn length(&mut self) -> usize {
        match self.dice.roll(12) {
            0 => (32 << 10) - self.dice.index(2),
            1 => (32 << 10) + 1 + self.dice.index(300_000),
            _ => HEADER + self.dice.index(2_000),
        }
    }

    /// Everybody looks at what has come in.
    pub(super) fn hear(&mut self) {
        for node in 0..self.person.len() {
            let machine = &mut self.town.simulation.machines[node];
            let requests = machine
                .requests
                .drain(..)
                .map(|(from, request)| (from, request.payload));
            let mut heard: Vec<(Option<Name>, Bytes)> = requests.collect();
            heard.extend(
                machine
                    .messages
                    .drain(..)
                    .map(|(from, _, payload)| (from, payload)),
            );
            for (from, payload) in heard {
                self.handled(node, from, &payload);
            }
        }
    }

    /// An application has handled a request or a message.
    pub(super) fn handled(&mut self, node: NodeId, from: Option<Name>, heard: &Bytes) {
        let me = self.person[node];
        let who = &self.people[me].label;
        let (token, claims) = (token_of(heard), usize::from(heard[0]));
        assert_eq!(
            usize::from(heard[1]),
            me,
            "{who} heard what was meant for another"
        );
        assert_eq!(
            from,
            self.people.get(claims).map(|person| name(&person.label)),
            "the sender of what {who} heard is who it says"
        );
        let answer = u32::from_be_bytes(std::array::from_fn(|at| heard[10 + at])) as usize;
        let whole = payload(claims, me, token, [heard.len(), answer]);
        assert!(
            *heard == whole,
            "operation {token} came to {who} as it was sent"
        );
        let times = self.handled.entry(token).or_default();
        *times += 1;
        assert_eq!(*times, 1, "operation {token} was handled twice, by {who}");
    }

    /// Looks at what has ended, and that the rest still may.
    pub(super) fn check(&mut self) {
        let now = self.now();
        let mut left = Vec::new();
        for asked in std::mem::take(&mut self.asked) {
            let machine = &mut self.town.simulation.machines[asked.node];
            let outcome = machine.outcomes.remove(&asked.token);
            let gone = machine.dead;
            match outcome {
                Some(outcome) => self.ended(asked, outcome),
                None if gone => self.streams.forsaken(asked.token),
                None => {
                    let late = now.since(asked.deadline);
                    assert!(
                        now <= asked.deadline + GRACE,
                        "operation {} ({:?}) of {} to {} did not end {late:?} after its deadline",
                        asked.token,
                        asked.kind,
                        self.people[asked.from].label,
                        self.people[asked.to].label,
                    );
                    left.push(asked);
                }
            }
        }
        self.asked = left;
        for (node, machine) in self.town.simulation.machines.iter().enumerate() {
            let unasked = machine.outcomes.keys().next();
            let who = &self.people[self.person[node]].label;
            assert!(
                machine.dead || unasked.is_none(),
                "{who} never asked for {unasked:?}"
            );
        }
    }

    fn ended(&mut self, asked: Asked, outcome: Outcome) {
        let Asked { token, kind, .. } = asked;
        self.tell(|| match &outcome {
            Outcome::Answered(_) => format!("{token} is answered"),
            other => format!("{token} ends: {other:?}"),
        });
        let handled = self.handled.contains_key(&token);
        match outcome {
            Outcome::Answered(Response::Success(data)) => {
                assert_eq!(kind, Kind::Request);
                let expected = answer_to(&asked.payload);
                assert!(
                    data.as_ref() == Some(&expected),
                    "the answer to {token} is its own"
                );
                assert!(handled, "operation {token} was answered and never asked");
                self.succeeded += 1;
            }
            Outcome::Answered(refusal) => {
                assert_eq!(kind, Kind::Request);
                self.assert_refusal(&asked, &refusal, handled);
            }
            Outcome::Delivered => {
                assert_eq!(kind, Kind::Message);
                assert!(handled, "operation {token} was delivered and never taken");
                self.succeeded += 1;
            }
            Outcome::Opened(stream) => {
                assert_eq!(kind, Kind::Stream);
                let quits = self.dice.once_in(15);
                self.streams.opened(asked.node, token, stream, quits);
                self.succeeded += 1;
            }
            Outcome::Connected => {
                assert_eq!(kind, Kind::Connect);
                self.succeeded += 1;
            }
            Outcome::Failed(failure) => {
                self.streams.forsaken(token);
                self.failed(&asked, &failure, handled);
            }
            other => panic!("operation {token} ended with {other:?}"),
        }
    }

    fn failed(&mut self, asked: &Asked, failure: &Failure, handled: bool) {
        let Asked {
            token, from, to, ..
        } = *asked;
        let [from_label, to_label] = [from, to].map(|person| &self.people[person].label);
        let which = format!(
            "operation {token} ({:?}) of {from_label} to {to_label}",
            asked.kind
        );
        if let Some(until) = asked.must {
            // Only so many look-ups are made for others. With little room, other limits may have taken all the time there was.
            let spent = self.is_spent(failure.reason());
            let full = self.has_no_room(failure.reason());
            let later = self.now() < until;
            assert!(
                full || spent && (later || self.temper.tight),
                "{which} failed although nothing stands in its way: {failure}"
            );
            if later {
                let left = until.since(self.now());
                let pause = failure.retry.unwrap_or(PAUSE).min(left);
                self.ends_in(pause, Ending::Pause { from, to, until });
            } else {
                self.unreached += 1;
            }
        }
        self.assert_reason(asked, failure, &which);
        self.assert_disturbed(asked, failure, &which);
        assert!(
            !handled || failure.code != Code::Offline,
            "{which} was handled and is said not to have left: {failure}"
        );
        assert!(
            failure.code != Code::Cancelled || asked.cancelled,
            "{which} was cancelled by nobody"
        );
        let unknown = failure.code == Code::OutcomeUnknown && !asked.cancelled;
        assert!(
            !unknown || self.is_excused([from, to], asked.began, failure.cause),
            "at {:?}, the outcome of {which} is unknown although both live: {failure}",
            self.now()
        );
    }
}
