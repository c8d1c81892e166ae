//! When something may be lost, because nobody could have kept it.

use super::Life;
use node_core::{Instant, time::Duration};

/// After a process has died, or somebody was cut off for long, outcomes may be unknown for so long.
pub(super) const AFTER_DEATH: Duration = Duration::from_secs(130);

/// What nobody is told is noticed after 75 s at the latest, and by one side earlier than by the other; a session is kept for
/// 60 s.
const NOTICED: Duration = Duration::from_secs(150);

/// What may have cost somebody something.
pub(super) struct Excuses {
    /// Until when whatever a person has under way may be lost.
    until: Vec<Instant>,
    /// Troubles of which nobody is told, and whom they touch.
    hidden: Vec<(Instant, Vec<usize>)>,
    /// Whether there is at most one such trouble at a time.
    gentle: bool,
}

impl Excuses {
    pub(super) fn new(people: usize, gentle: bool) -> Self {
        Self {
            until: vec![Instant::default(); people],
            hidden: Vec::new(),
            gentle,
        }
    }
}

impl Life {
    /// Whether what two people have under way may be lost: one of them has died, or they were cut off for long, or something
    /// that nobody was told of came on top of something else of the kind. Each of these alone costs nothing.
    pub(super) fn is_excused(&self, people: [usize; 2]) -> bool {
        let now = self.now();
        let touching = self.excuses.hidden.iter().filter(|(at, touched)| {
            now.since(*at) < NOTICED && people.iter().any(|person| touched.contains(person))
        });
        people
            .iter()
            .any(|person| self.excuses.until[*person] > now)
            || touching.count() > 1
    }

    pub(super) fn excuse(&mut self, person: usize, until: Instant) {
        let excused = &mut self.excuses.until[person];
        *excused = (*excused).max(until);
    }

    /// Somebody cannot be reached for so long, and those behind it neither.
    pub(super) fn excuse_all_behind(&mut self, person: usize, time: Duration) {
        let until = self.now() + time + AFTER_DEATH;
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

    /// Something happens to these of which nobody is told, unless that is too much for this life.
    pub(super) fn hide(&mut self, touched: Vec<usize>) -> bool {
        let now = self.now();
        let hidden = &mut self.excuses.hidden;
        let lately = hidden.iter().any(|(at, _)| now.since(*at) < NOTICED);
        let hides = !(self.excuses.gentle && lately);
        if hides {
            hidden.push((now, touched));
        }
        hides
    }
}
