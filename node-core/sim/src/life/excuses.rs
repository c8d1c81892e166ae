//! When something may be lost, because nobody could have kept it.

use super::Life;
use node_core::{Instant, time::Duration};
use std::cell::Cell;

/// Within this time of its end everybody has noticed that a process is gone, or that somebody is back: what is begun later
/// goes another way.
const NOTICED: Duration = Duration::from_secs(25);

/// Within this time everybody has heard what became of what was begun before: a session is kept for 60 s after either side has
/// noticed.
const TOLD: Duration = Duration::from_secs(130);

/// What may have cost somebody something.
pub(super) struct Excuses {
    /// Until when each person was gone, or cut off for longer than a session is kept.
    gone: Vec<Option<Instant>>,
    /// How many losses were excused by that, and how many others by limits that are met all the time.
    pub(super) used: Cell<[usize; 2]>,
}

impl Excuses {
    pub(super) fn new(people: usize) -> Self {
        Self {
            gone: vec![None; people],
            used: Cell::default(),
        }
    }
}

impl Life {
    /// Whether what was begun between two people may be lost: one of them has died, lives twice, or was cut off for long, or
    /// there is too little room for all that is under way. Whatever else happens to sockets costs nothing, whoever is told of
    /// it, and however much of it comes at once.
    pub(super) fn is_excused(&self, people: [usize; 2], began: Instant) -> bool {
        let now = self.now();
        let gone = people.iter().any(|person| {
            let until = self.excuses.gone[*person];
            self.contested.contains(person)
                || until.is_some_and(|until| began < until + NOTICED && now < until + TOLD)
        });
        let [by_end, by_limits] = self.excuses.used.get();
        self.excuses.used.set(match (gone, self.temper.tight) {
            (true, _) => [by_end + 1, by_limits],
            (false, tight) => [by_end, by_limits + usize::from(tight)],
        });
        gone || self.temper.tight
    }

    /// Somebody is gone until then.
    pub(super) fn excuse(&mut self, person: usize, until: Instant) {
        let gone = &mut self.excuses.gone[person];
        *gone = (*gone).max(Some(until));
    }

    /// Somebody cannot be reached for so long, and those behind it neither.
    pub(super) fn excuse_all_behind(&mut self, person: usize, time: Duration) {
        let until = self.now() + time;
        let people = 0..self.people.len();
        for behind in people {
            if behind == person || self.people[behind].routers.contains(&person) {
                self.excuse(behind, until);
            }
        }
    }
}
