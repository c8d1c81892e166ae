//! Streams with bytes both ways: both ends of each, and what has become of it.

use super::{Life, operations::byte_at};
use crate::{
    dice::Dice,
    names::name,
    world::{ByteStream, NodeId, Token},
};
use bytes::Bytes;
use node_core::{Code, Instant, node::Stream, session::StreamError};
use std::{collections::BTreeMap, task::Poll};

/// What a listener refuses a stream with.
const REFUSED: u16 = 7;

/// All streams of a life.
#[derive(Default)]
pub(super) struct Streams {
    fates: BTreeMap<Token, Fate>,
    ends: Vec<End>,
}

/// What is known of a stream.
struct Fate {
    began: Instant,
    people: [usize; 2],
    lengths: [usize; 2],
    /// Of whoever opened it, and of whoever took it.
    states: [State; 2],
    /// With what one side has ended it of its own accord.
    given_up: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has not come so far.
    Absent,
    Open,
    /// Everything was sent, and everything has come.
    Whole,
    /// It was told that the stream is lost, or has ended it, or its process is gone.
    Over,
}

/// One end, held by an application.
struct End {
    node: NodeId,
    stream: Stream<Token>,
    token: Token,
    /// 0 for whoever opened it.
    side: usize,
    written: usize,
    read: usize,
    finished: bool,
    ended: bool,
    /// Whether it lets go of the stream in the middle.
    quits: bool,
}

impl Streams {
    /// What the opening of a stream says about it.
    pub(super) fn metadata(token: Token, lengths: [usize; 2]) -> Bytes {
        let [there, back] = lengths.map(|length| length as u64);
        [token, there, back].map(u64::to_be_bytes).concat().into()
    }

    pub(super) fn asked(
        &mut self,
        token: Token,
        people: [usize; 2],
        lengths: [usize; 2],
        began: Instant,
    ) {
        let fate = Fate {
            began,
            people,
            lengths,
            states: [State::Absent; 2],
            given_up: None,
        };
        self.fates.insert(token, fate);
    }

    /// It came to nothing, or the process that wanted it is gone.
    pub(super) fn forsaken(&mut self, token: Token) {
        if let Some(fate) = self.fates.get_mut(&token) {
            fate.states[0] = State::Over;
        }
    }

    pub(super) fn opened(
        &mut self,
        node: NodeId,
        token: Token,
        stream: Stream<Token>,
        quits: bool,
    ) {
        self.take(node, token, stream, 0, quits);
    }

    fn take(
        &mut self,
        node: NodeId,
        token: Token,
        stream: Stream<Token>,
        side: usize,
        quits: bool,
    ) {
        let fate = self
            .fates
            .get_mut(&token)
            .expect("a stream that was asked for");
        assert_eq!(
            fate.states[side],
            State::Absent,
            "stream {token} came twice"
        );
        fate.states[side] = State::Open;
        self.ends.push(End {
            node,
            stream,
            token,
            side,
            written: 0,
            read: 0,
            finished: false,
            ended: false,
            quits,
        });
    }

    /// How many came whole, both ways.
    pub(super) fn whole(&self) -> usize {
        let whole = |fate: &&Fate| fate.states == [State::Whole; 2];
        self.fates.values().filter(whole).count()
    }

    /// No stream is left of which somebody still expects something.
    pub(super) fn assert_over(&self) {
        for (token, fate) in &self.fates {
            let done = fate.states == [State::Whole; 2] || fate.states.contains(&State::Over);
            assert!(
                done && !fate.states.contains(&State::Open),
                "stream {token} neither came whole nor was lost: {:?}",
                fate.states
            );
        }
    }
}

impl Life {
    /// Takes the streams that have come in, and uses those that there are.
    pub(super) fn serve(&mut self) {
        for node in 0..self.person.len() {
            let machine = &mut self.town.simulation.machines[node];
            for incoming in std::mem::take(&mut machine.streams) {
                let fields: [u64; 3] = std::array::from_fn(|at| {
                    let bytes = &incoming.metadata[8 * at..8 * at + 8];
                    bytes
                        .iter()
                        .fold(0, |number, byte| number << 8 | u64::from(*byte))
                });
                let token = fields[0];
                let me = self.person[node];
                let fate = self
                    .streams
                    .fates
                    .get_mut(&token)
                    .expect("a stream that was asked for");
                let who = &self.people[me].label;
                assert_eq!(
                    fate.people[1], me,
                    "{who} heard a stream that was meant for another"
                );
                assert_eq!(
                    incoming.from(),
                    Some(&name(&self.people[fate.people[0]].label)),
                    "who opened stream {token} to {who} is who it says"
                );
                assert_eq!(fields[1..], fate.lengths.map(|length| length as u64));
                let refusal = match self.dice.roll(12) {
                    0 => Some(REFUSED),
                    1 => Some(Code::Cancelled.as_u16()),
                    _ => None,
                };
                if let Some(code) = refusal {
                    assert_eq!(fate.states[1], State::Absent, "stream {token} came twice");
                    fate.states[1] = State::Over;
                    fate.given_up = Some(code);
                    if code == REFUSED {
                        incoming.refuse(code);
                    }
                    continue;
                }
                let quits = self.dice.once_in(15);
                if let Some(stream) = incoming.accept() {
                    self.streams.take(node, token, stream, 1, quits);
                }
            }
        }
        for mut end in std::mem::take(&mut self.streams.ends) {
            let machine = &self.town.simulation.machines[end.node];
            if !machine.dead && !machine.runs() {
                self.streams.ends.push(end);
                continue;
            }
            let fate = &self.streams.fates[&end.token];
            let (outgoing, incoming) = (fate.lengths[end.side], fate.lengths[1 - end.side]);
            let (given_up, people, began) = (fate.given_up, fate.people, fate.began);
            let state = if machine.dead {
                Some(State::Over)
            } else {
                match end.go_on(outgoing, incoming, &mut self.dice) {
                    Ok(state) => state,
                    Err(error) => {
                        self.judge(&end, error, given_up, people, began);
                        Some(State::Over)
                    }
                }
            };
            let fate = self.streams.fates.get_mut(&end.token).expect("just seen");
            match state {
                None => self.streams.ends.push(end),
                Some(state) => {
                    fate.states[end.side] = state;
                    if state == State::Over && end.quits && !machine.dead {
                        fate.given_up = Some(Code::Cancelled.as_u16());
                    }
                }
            }
        }
    }

    /// Whether a stream may fail so.
    fn judge(
        &self,
        end: &End,
        error: StreamError,
        given_up: Option<u16>,
        people: [usize; 2],
        began: Instant,
    ) {
        let fine = match error {
            StreamError::Lost(code) => self.is_excused(people, began, Some(code)),
            StreamError::Reset(code) | StreamError::Stopped(code) => {
                // Too many of them were open.
                let too_many = self.temper.tight && code == Code::QueueFull.as_u16();
                too_many || given_up == Some(code)
            }
            StreamError::Finished => false,
        };
        let [from, to] = people.map(|person| &self.people[person].label);
        assert!(
            fine,
            "at {:?}, stream {} of {from} to {to} is over for side {}: {error:?}",
            self.now(),
            end.token,
            end.side
        );
    }
}

impl End {
    /// Writes what can be written and reads what has come; what has become of it if it is over.
    fn go_on(
        &mut self,
        outgoing: usize,
        incoming: usize,
        dice: &mut Dice,
    ) -> Result<Option<State>, StreamError> {
        while self.written < outgoing {
            if self.quits && self.written > outgoing / 2 {
                return Ok(Some(State::Over));
            }
            let end = (self.written + 1 + dice.index(9_000)).min(outgoing);
            let sent = self.token + self.side as u64;
            let mut piece: Bytes = (self.written..end).map(|at| byte_at(sent, at)).collect();
            match self.stream.write(&mut piece) {
                Poll::Ready(written) => written?,
                Poll::Pending => break,
            }
            self.written = end;
        }
        if self.written == outgoing && !self.finished {
            self.stream.finish();
            self.finished = true;
        }
        while !self.ended {
            let Poll::Ready(read) = self.stream.read() else {
                break;
            };
            let Some(bytes) = read? else {
                assert_eq!(
                    self.read, incoming,
                    "stream {} ends before its end",
                    self.token
                );
                self.ended = true;
                break;
            };
            let sent = self.token + 1 - self.side as u64;
            for byte in bytes {
                assert_eq!(
                    byte,
                    byte_at(sent, self.read),
                    "stream {} is in order",
                    self.token
                );
                self.read += 1;
            }
        }
        Ok((self.finished && self.ended).then_some(State::Whole))
    }
}
