//! When nothing stands in the way any more: whatever is under way ends, everybody reaches everybody, and nothing is left over.

use super::Life;
use crate::{names::name, world::NodeId};
use node_core::{Name, node::PeerState, time::Duration};
use std::collections::BTreeSet;

/// Within this time whatever a process that was killed still had on its way has arrived, or has been refused.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Within this time after the last trouble every contact is back: a socket that fell silent is noticed after a minute, its
/// session is kept for another, and the longest pause between two attempts is half of one.
const RECOVERY: Duration = Duration::from_secs(180);
/// Within this time everybody has reached everybody, however few look-ups are made for others.
const REACHED: Duration = Duration::from_secs(60);
/// How many others everybody reaches.
const REACHES: usize = 3;
/// So many people fit into the smallest router.
const ROOMY: usize = 12;
/// Within this time of the last operation sessions that are one too many are closed.
const SETTLED: Duration = Duration::from_secs(45);

impl Life {
    /// The troubles end.
    pub(super) fn peace(&mut self) {
        self.end_all_troubles();
        self.retire_former_processes();
        self.pass(RECOVERY);
        assert!(
            self.asked.is_empty(),
            "{} operations never ended",
            self.asked.len()
        );
        self.streams.assert_over();
        self.assert_contacts();
        let excused = self.excuses.used.get();
        let until = self.now() + REACHED;
        for from in 0..self.people.len() {
            for _ in 0..REACHES {
                let count = self.people.len();
                let to = (from + 1 + self.dice.index(count - 1)) % count;
                self.must_reach(from, to, until);
            }
        }
        self.begun += REACHES * self.people.len();
        self.pass(REACHED + Duration::from_secs(31));
        assert!(self.asked.is_empty(), "somebody was not reached");
        assert_eq!(
            excused[..2],
            self.excuses.used.get()[..2],
            "whoever was gone, or lived twice, is no excuse any more"
        );
        if self.temper.tight {
            // Who has found no room goes on trying, and channels are renewed all the time: something is always half open,
            // or waits.
            return self.assert_most_were_reached();
        }
        self.pass(SETTLED);
        self.assert_one_session_each();
    }

    /// Earlier processes of names end. A present one that was told that another has taken its place is told by its person to
    /// take it back, for nothing else does.
    fn retire_former_processes(&mut self) {
        let processes: Vec<NodeId> = (0..self.person.len()).collect();
        for node in processes {
            if self.present[self.person[node]] != node {
                self.town.simulation.kill(node);
            }
        }
        // A handshake of theirs that ends only now would take the name's place once more.
        self.pass(LAST_WORDS);
        for person in std::mem::take(&mut self.contested) {
            let (node, now) = (self.present[person], self.now());
            self.excuse(person, now);
            self.town
                .simulation
                .act(node, |node, now, out| node.start(now, out));
        }
    }

    /// Whoever keeps a session with somebody has one. With little room it may have found none so far, and goes on looking.
    fn assert_contacts(&self) {
        for (person, contact) in &self.kept {
            let [who, whom] = [person, contact].map(|at| &self.people[*at].label);
            let states = self.states(*person);
            let state = states.iter().find(|(other, _)| *other == name(whom));
            let fine = state.is_some_and(|(_, state)| match state {
                PeerState::Online { .. } => true,
                PeerState::Connecting | PeerState::Interrupted { .. } => self.temper.tight,
                PeerState::Offline { reason, retry } => {
                    retry.is_some() && self.has_no_room(*reason)
                }
            });
            assert!(
                fine,
                "{who} keeps {whom}, and has no session with it: {states:?}"
            );
        }
    }

    /// With little room not everybody gets through to everybody: routers are full, and whoever has found none is offline for
    /// others. While all would fit into one router, nearly all do.
    fn assert_most_were_reached(&self) {
        let asked = REACHES * self.people.len();
        let least = if self.people.len() <= ROOMY {
            asked * 4 / 5
        } else {
            asked / 10
        };
        assert!(
            asked - self.unreached >= least,
            "{} of {asked} were not reached",
            self.unreached
        );
    }

    /// Between two names there is one session or none, and both say which; nothing waits, nothing is half open.
    fn assert_one_session_each(&self) {
        let online: Vec<_> = (0..self.people.len())
            .map(|person| self.online(person))
            .collect();
        for (person, peers) in online.iter().enumerate() {
            let who = &self.people[person].label;
            let counts = self.town.simulation.machines[self.present[person]]
                .node
                .counts();
            assert_eq!(
                (counts.sessions, counts.parked, counts.half_open),
                (peers.len(), 0, 0),
                "{who} has sessions with {peers:?}, and {counts:?}"
            );
            for (other, theirs) in online.iter().enumerate() {
                let whom = &self.people[other].label;
                let (ours, theirs) = (peers.contains(&name(whom)), theirs.contains(&name(who)));
                assert_eq!(
                    ours, theirs,
                    "{who} and {whom} do not agree whether they have a session"
                );
            }
        }
    }

    fn online(&self, person: usize) -> BTreeSet<Name> {
        let states = self.states(person).into_iter();
        let online = states.filter(|(_, state)| matches!(state, PeerState::Online { .. }));
        online.map(|(name, _)| name).collect()
    }

    fn states(&self, person: usize) -> Vec<(Name, PeerState)> {
        let node = &self.town.simulation.machines[self.present[person]].node;
        let peers = node.peers(self.now()).into_iter();
        peers.map(|peer| (peer.name, peer.state)).collect()
    }
}
