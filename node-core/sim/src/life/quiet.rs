//! What has to succeed: whatever is asked while nothing that happens concerns it.

use super::{Life, operations::Asked};
use node_core::{Instant, node::Failure, time::Duration};

/// So long after a trouble it may still be felt: a handshake that it has met is given up after 30 s, and a socket that fell
/// silent within a minute.
const AFTERMATH: Duration = Duration::from_secs(60);

/// So long after their start nodes may still be on their way to their routers.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Within this time everything is done that nothing stands in the way of: long requests and answers of those furthest away
/// have taken half of it, with all that comes before.
const FAIR: Duration = Duration::from_secs(15);

/// Whom a trouble concerns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    /// A person, and who needs it as a router.
    Person(usize),
    /// What goes between two.
    Between(usize, usize),
    /// Whoever asks something of a person.
    Application(usize),
    Everybody,
}

/// Troubles, with the time from which nothing is felt of them any more.
pub(super) struct Troubles(Vec<(Whom, Instant)>);

impl Troubles {
    /// Everybody starts.
    pub(super) fn new(now: Instant) -> Self {
        Self(vec![(Whom::Everybody, now + ARRIVAL)])
    }
}

impl Life {
    /// A trouble begins, and lasts so long.
    pub(super) fn disturb(&mut self, whom: Whom, time: Duration) {
        let over = self.now() + time + AFTERMATH;
        self.troubles.0.push((whom, over));
    }

    /// An operation has failed: that is fine only if something stood in its way.
    pub(super) fn assert_disturbed(&self, asked: &Asked, failure: &Failure, which: &str) {
        // Look-ups are few, in peace too.
        let spent = self.is_spent(failure.reason());
        assert!(
            spent || !self.is_undisturbed(asked),
            "{which} failed, of which no trouble was near: {failure:?}"
        );
    }

    /// Whether nothing has stood in an operation's way since it began.
    fn is_undisturbed(&self, asked: &Asked) -> bool {
        let people = [asked.from, asked.to];
        let mut contested = self.contested.iter();
        let contested = contested.any(|one| self.concerns(Whom::Person(*one), people));
        let short = asked.due.since(asked.began) < FAIR;
        if self.temper.tight || asked.cancelled || contested || short {
            return false;
        }
        let mut troubles = self.troubles.0.iter();
        !troubles.any(|(whom, over)| *over > asked.began && self.concerns(*whom, people))
    }

    fn concerns(&self, whom: Whom, people: [usize; 2]) -> bool {
        let on_the_way = |one: usize| {
            let mut people = people.iter();
            people.any(|person| *person == one || self.people[*person].routers.contains(&one))
        };
        match whom {
            Whom::Person(one) => on_the_way(one),
            Whom::Between(one, other) => on_the_way(one) && on_the_way(other),
            Whom::Application(one) => people[1] == one,
            Whom::Everybody => true,
        }
    }
}
