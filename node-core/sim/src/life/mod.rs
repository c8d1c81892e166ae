//! Random lives of a small network: nodes that ask, tell and stream, while whatever can happen to them does.
//!
//! A life is played against a model of what nodes promise, and ends in a panic where a promise is broken:
//!
//! - Every operation ends, exactly once, and in time.
//! - Nothing is handled twice. What is reported as answered or delivered was handled, and what is reported as never having
//!   left was not. Nobody hears what was meant for somebody else, or from somebody else than it says.
//! - A stream brings its bytes in order. One of which neither side was told that it is lost comes whole, both ways, and none
//!   stays open for ever.
//! - What is asked while no trouble is near succeeds, and what fails says why in a word that something in this life can have
//!   brought about (`quiet.rs`, `reasons.rs`).
//! - While no process dies and nobody is cut off for longer than a session is kept, no outcome is unknown, and no stream lost
//!   (`excuses.rs` says what counts as that).
//! - Nobody says of an honest peer that it has broken a rule, and nobody holds more than its limits say.
//! - Once nothing stands in the way any more, everybody reaches everybody, and between two names one session is left.
//!
//! The same seed gives the same life, on every machine: [`Story::trace`] is the proof.

mod cast;
mod excuses;
mod operations;
mod peace;
mod quiet;
mod reasons;
mod streams;
mod troubles;

use crate::{
    dice::Dice,
    town::Town,
    world::{NodeId, Token, World as _},
};
use cast::{Person, Temper};
use excuses::Excuses;
use node_core::{Instant, node::Event, time::Duration};
use operations::Asked;
use quiet::Troubles;
use std::collections::{BTreeMap, BTreeSet};
use streams::Streams;
use troubles::Ending;

/// What became of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// How many names took part.
    pub people: usize,
    /// How many operations were begun.
    pub asked: usize,
    /// How many of them were answered, delivered or opened, or led to a session.
    pub succeeded: usize,
    /// How many streams came whole, both ways.
    pub whole: usize,
    /// How many losses were excused because somebody was gone, because troubles followed each other for longer than a session
    /// is kept, and because limits were met.
    pub excused: [usize; 3],
    /// A digest of everything that the nodes have heard, and when.
    pub trace: [u8; 32],
}

/// Plays the life of a seed, and tells what happens in it to whoever wants to hear that.
///
/// # Panics
/// When a promise is broken.
pub fn live(seed: u64, tell: Option<fn(&str)>) -> Story {
    let mut life = Life::new(seed, tell);
    life.troubled();
    life.peace();
    Story {
        people: life.people.len(),
        asked: life.begun,
        succeeded: life.succeeded,
        whole: life.streams.whole(),
        excused: life.excuses.used.get(),
        trace: life.town.simulation.trace.unwrap_or_default(),
    }
}

/// How long nodes may take beyond a deadline to say that it has passed.
const GRACE: Duration = Duration::from_secs(2);
/// Applications look at what has come in so often.
const GLANCE: Duration = Duration::from_millis(500);

struct Life {
    tell: Option<fn(&str)>,
    town: Town,
    dice: Dice,
    temper: Temper,
    people: Vec<Person>,
    /// The process that is each person's present one. Earlier ones may live on, and are nobody's.
    present: Vec<NodeId>,
    /// Whose process each node is.
    person: Vec<usize>,
    excuses: Excuses,
    troubles: Troubles,
    /// Operations that have not ended.
    asked: Vec<Asked>,
    /// How often the application handled each request or message.
    handled: BTreeMap<Token, usize>,
    begun: usize,
    /// How many of those that nothing stands in the way of have found no room.
    unreached: usize,
    succeeded: usize,
    streams: Streams,
    /// Contacts: who keeps a session with whom.
    kept: BTreeSet<(usize, usize)>,
    /// What will end, and when.
    endings: Vec<(Instant, Ending)>,
    /// The process that was told to end and may still say goodbye.
    leaving: Option<NodeId>,
    /// Names of which a second process was started while the first one lived.
    contested: BTreeSet<usize>,
}

impl Life {
    fn new(seed: u64, tell: Option<fn(&str)>) -> Self {
        let mut dice = Dice::new(seed);
        let temper = Temper::new(&mut dice);
        let people = cast::people(&mut dice);
        let mut town = cast::town(seed, &people, &temper);
        temper.network(&mut town.simulation, &people, &mut dice);
        let count = people.len();
        let excuses = Excuses::new(count);
        let troubles = Troubles::new(town.simulation.now());
        let mut life = Self {
            tell,
            town,
            dice,
            temper,
            people,
            present: vec![0; count],
            person: Vec::new(),
            excuses,
            troubles,
            asked: Vec::new(),
            handled: BTreeMap::new(),
            begun: 0,
            unreached: 0,
            succeeded: 0,
            streams: Streams::default(),
            kept: BTreeSet::new(),
            endings: Vec::new(),
            leaving: None,
            contested: BTreeSet::new(),
        };
        life.tell(|| format!("{count} people; {:?}", life.temper));
        for person in 0..count {
            life.start(person);
        }
        life.pass(Duration::from_secs(2));
        life
    }

    /// Operations and troubles.
    fn troubled(&mut self) {
        let operations = 120 + 12 * self.people.len();
        for operation in 0..operations as u64 {
            self.begin();
            if operation.is_multiple_of(self.temper.peace_between_troubles) {
                self.trouble();
            }
            let longest = match self.dice.roll(80) {
                0 => 40_000,
                1..10 => 2_000,
                _ => 40,
            };
            let pause = self.dice.roll(longest);
            self.pass(Duration::from_millis(pause));
        }
    }

    /// Lets time pass, in which everybody does what is to be done.
    fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            let next = self.endings.iter().map(|(at, _)| *at).min();
            let until = end.min(self.now() + GLANCE);
            let until = next.map_or(until, |next| until.min(next.max(self.now())));
            self.town.pass(until.since(self.now()));
            self.end_troubles();
            self.look();
            self.serve();
            self.check();
        }
    }

    /// Looks at the news and at what everybody holds.
    fn look(&mut self) {
        let now = self.now();
        self.hear();
        for (node, machine) in self.town.simulation.machines.iter_mut().enumerate() {
            let who = &self.people[self.person[node]].label;
            for event in machine.events.drain(..) {
                if let Some(tell) = self.tell {
                    tell(&format!("{now:?} {who} ({node}) hears {event:?}"));
                }
                let accuses = matches!(event, Event::Misbehaved { .. } | Event::Banned(_));
                assert!(
                    !accuses,
                    "at {now:?}, {who} accuses an honest peer: {event:?}"
                );
            }
            if !machine.dead {
                cast::assert_within_limits(who, &machine.node, now);
            }
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(tell) = self.tell {
            tell(&format!("{:?} {}", self.now(), what()));
        }
    }

    fn now(&self) -> Instant {
        self.town.simulation.now()
    }

    /// A process of a person's that runs, if the present one does.
    fn running(&self, person: usize) -> Option<NodeId> {
        let node = self.present[person];
        self.town.simulation.machines[node].runs().then_some(node)
    }

    /// Two people.
    fn pick_two(&mut self) -> (usize, usize) {
        let count = self.people.len();
        let first = self.dice.index(count);
        let second = (first + 1 + self.dice.index(count - 1)) % count;
        (first, second)
    }
}
