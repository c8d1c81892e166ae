//! When something may be lost, because nobody could have kept it.

use super::{Life, reasons::is_crowded_out};
use node_core::{Code, Instant, time::Duration};
use std::cell::Cell;

/// Within this time of its end everybody has noticed that a process is gone, or that somebody is back: what is begun later
/// goes another way.
const NOTICED: Duration = Duration::from_secs(25);

/// Within this time everybody has heard what became of what was begun before: a session is kept for 60 s after either side has
/// noticed.
const TOLD: Duration = Duration::from_secs(130);

/// What was begun this long ago may have met a session that the other side had kept for 60 s by now.
const KEPT: Duration = Duration::from_secs(60 - 20);

/// What may have cost somebody something.
pub(super) struct Excuses {
    /// Until when each person was gone, or cut off for longer than a session is kept.
    gone: Vec<Option<Instant>>,
    /// Troubles of which nobody is told, and whom they touch.
    hidden: Vec<(Instant, Vec<usize>)>,
    /// How many losses were excused by who was gone, by troubles that followed each other, and by limits.
    pub(super) used: Cell<[usize; 3]>,
}

impl Excuses {
    pub(super) fn new(people: usize) -> Self {
        Self {
            gone: vec![None; people],
            hidden: Vec::new(),
            used: Cell::default(),
        }
    }
}

impl Life {
    /// Whether what was begun between two people may be lost:
    ///
    /// - One of them has died, lives twice, or was cut off for long.
    /// - It has taken longer than a session is kept, and troubles of which nobody is told followed each other meanwhile: they
    ///   may have left no way for so long. However many come at once, they cost nothing that is done sooner.
    /// - There is too little room for all that is under way, and that is what is said of it.
    pub(super) fn is_excused(
        &self,
        people: [usize; 2],
        began: Instant,
        said: Option<Code>,
    ) -> bool {
        let now = self.now();
        let gone = people.iter().any(|person| {
            let until = self.excuses.gone[*person];
            self.contested.contains(person)
                || until.is_some_and(|until| began < until + NOTICED && now < until + TOLD)
        });
        let touching = self.excuses.hidden.iter().filter(|(at, touched)| {
            *at + NOTICED > began && people.iter().any(|person| touched.contains(person))
        });
        let long = now.since(began) >= KEPT;
        let piled = long && touching.count() > 1;
        let crowded = self.temper.tight && is_crowded_out(said, long);
        // What there is no room for is lost for that, whoever else was gone.
        let why = [gone && !crowded, piled && !crowded, crowded];
        let first = why.iter().position(|excuse| *excuse);
        if let Some(first) = first {
            let mut used = self.excuses.used.get();
            used[first] += 1;
            self.excuses.used.set(used);
        }
        first.is_some()
    }

    /// Somebody is gone until then.
    pub(super) fn excuse(&mut self, person: usize, until: Instant) {
        let gone = &mut self.excuses.gone[person];
        *gone = (*gone).max(Some(until));
    }

    /// Somebody cannot be reached for so long, and those behind it neither.
    pub(super) fn excuse_all_behind(&mut self, person: usize, time: Duration) {
        let until = self.now() + time;
        for behind in self.behind(person) {
            self.excuse(behind, until);
        }
    }

    /// A person and those who need it as a router.
    pub(super) fn behind(&self, person: usize) -> Vec<usize> {
        let people = 0..self.people.len();
        people
            .filter(|other| *other == person || self.people[*other].routers.contains(&person))
            .collect()
    }

    /// Something happens to these of which nobody is told.
    pub(super) fn hide(&mut self, touched: Vec<usize>) {
        let now = self.now();
        self.excuses.hidden.push((now, touched));
    }
}
