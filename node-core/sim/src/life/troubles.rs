//! What happens to nodes, to the sockets between them and to the chain, and when it ends.

use super::{Life, cast::Role, quiet::Whom};
use crate::{
    chain::View,
    names::{key_of, name},
    world::NodeId,
};
use node_core::{Code, Instant, time::Duration};

/// What ends by itself.
#[derive(Debug)]
pub(super) enum Ending {
    /// What goes from one node to another is taken again, and arrives.
    Blocked(NodeId, NodeId),
    /// A node sleeps.
    Asleep(NodeId),
    /// No process of a person's runs.
    Down(usize),
    /// An application is stuck.
    Stuck(NodeId),
    /// An endpoint of the chain is wrong, slow or gone.
    Endpoint(usize),
    /// Somebody waits before trying once more to reach somebody.
    Pause {
        from: usize,
        to: usize,
        until: Instant,
    },
}

/// So much later than others some notice that a node is frozen: between two of their three pings pass ten seconds, at most.
const UNHEARD: Duration = Duration::from_secs(20);

impl Life {
    /// Something happens.
    pub(super) fn trouble(&mut self) {
        let (who, other) = self.pick_two();
        let what = self.dice.roll(20);
        self.tell(|| {
            let [who, other] = [who, other].map(|person| &self.people[person].label);
            format!("trouble {what} for {who} and {other}")
        });
        match what {
            0..3 => self.trouble_of_processes(who),
            3..5 => self.blocked(who, other),
            5 => {
                let router = self.router_of(who);
                self.blocked(who, router);
            }
            6..8 => self.cut(who, other),
            8..10 => {
                let router = self.router_of(who);
                self.cut(who, router);
            }
            10..12 => self.silence(who, other),
            12 => {
                let router = self.router_of(who);
                self.silence(who, router);
            }
            13 => self.moved(who),
            14 => self.stuck(who),
            15 => self.asleep(who),
            16 | 17 => self.keep(who, other),
            _ if self.temper.chain => self.trouble_of_chain(),
            _ => {}
        }
    }

    /// What was to end, ends.
    pub(super) fn end_troubles(&mut self) {
        let now = self.now();
        while let Some(due) = self.endings.iter().position(|(at, _)| *at <= now) {
            let (_, ending) = self.endings.swap_remove(due);
            self.end(ending);
        }
    }

    /// Everything ends.
    pub(super) fn end_all_troubles(&mut self) {
        for (_, ending) in std::mem::take(&mut self.endings) {
            self.end(ending);
        }
        self.town.simulation.calm();
    }

    fn end(&mut self, ending: Ending) {
        self.tell(|| format!("ends: {ending:?}"));
        match ending {
            Ending::Blocked(from, to) => {
                self.town.simulation.stalled.remove(&(from, to));
                self.town.simulation.severed.remove(&(from, to));
            }
            Ending::Asleep(node) => self.town.simulation.wake(node),
            Ending::Down(person) => self.start(person),
            Ending::Stuck(node) => self.unstick(node),
            Ending::Pause { from, to, until } => self.must_reach(from, to, until),
            Ending::Endpoint(at) => {
                let endpoint = &mut self.town.endpoints.borrow_mut()[at];
                endpoint.view = View::Honest;
                endpoint.delay = Duration::from_millis(5);
            }
        }
    }

    pub(super) fn ends_in(&mut self, time: Duration, ending: Ending) {
        let at = self.now() + time;
        self.tell(|| format!("begins, until {at:?}: {ending:?}"));
        self.endings.push((at, ending));
    }

    /// A router of a person's; any router for those who need none.
    fn router_of(&mut self, person: usize) -> usize {
        let listed = self.people[person].routers.clone();
        if !listed.is_empty() {
            return listed[self.dice.index(listed.len())];
        }
        let routers = self
            .people
            .iter()
            .filter(|person| person.role == Role::Router)
            .count();
        let router = self.dice.index(routers);
        if router == person {
            (person + 1) % self.people.len()
        } else {
            router
        }
    }

    // Processes.

    fn trouble_of_processes(&mut self, person: usize) {
        if !self.temper.processes_die {
            return;
        }
        let node = self.present[person];
        let now = self.now();
        self.excuse(person, now);
        self.disturb(Whom::Person(person), Duration::ZERO);
        let network = &mut self.town.simulation;
        match self.dice.roll(6) {
            0 => {
                network.kill(node);
                self.start(person);
            }
            1 => {
                // Whoever has met long round trips before, of someone who slept, asks after it less often.
                self.excuse(person, now + UNHEARD);
                let network = &mut self.town.simulation;
                network.freeze(node);
                self.start(person);
            }
            2 => {
                network.kill(node);
                let down = Duration::from_millis(self.dice.roll(20_000));
                self.excuse(person, now + down);
                self.disturb(Whom::Person(person), down);
                self.ends_in(down, Ending::Down(person));
            }
            // It goes as operators let it go, with a word to everybody.
            3 => {
                self.leaving = Some(node);
                network.act(node, |node, _, _| {
                    node.shut_down(Code::GoingAway, Duration::from_secs(2));
                });
                self.pass(Duration::from_secs(3));
                self.town.simulation.kill(node);
                self.leaving = None;
                self.disturb(Whom::Person(person), Duration::ZERO);
                self.start(person);
            }
            // A second process of the same name.
            4 if self.people[person].role == Role::Indirect => self.start(person),
            5 if self.temper.chain => self.rotate(person),
            _ => {}
        }
    }

    /// Somebody has another key from now on, and a process that has it.
    fn rotate(&mut self, person: usize) {
        let key = format!("{}-{}", self.people[person].key, self.person.len());
        let public = key_of(&key).verifying_key().to_bytes();
        let label = self.people[person].label.clone();
        self.town
            .mine(|registry| registry.change(&label, |record| record.key = public));
        self.people[person].key = key;
        self.town.simulation.kill(self.present[person]);
        self.start(person);
    }

    /// A node sleeps, seldom for longer than sessions are kept.
    fn asleep(&mut self, person: usize) {
        let Some(node) = self.running(person) else {
            return;
        };
        self.hide(self.behind(person));
        let long = self.dice.once_in(8);
        let time = Duration::from_millis(self.dice.roll(if long { 600_000 } else { 20_000 }));
        self.town.simulation.put_to_sleep(node);
        self.disturb(Whom::Person(person), time);
        let awake = self.now() + time;
        for asked in self.asked.iter_mut().filter(|asked| asked.node == node) {
            asked.deadline = asked.deadline.max(awake);
        }
        if long {
            self.excuse_all_behind(person, time);
        }
        self.ends_in(time, Ending::Asleep(node));
    }

    /// A person's application handles nothing for a while.
    fn stuck(&mut self, person: usize) {
        let node = self.present[person];
        let machine = &mut self.town.simulation.machines[node];
        machine.hold_messages = true;
        machine.hold_requests = true;
        let time = Duration::from_millis(self.dice.roll(15_000));
        self.disturb(Whom::Application(person), time);
        self.ends_in(time, Ending::Stuck(node));
    }

    fn unstick(&mut self, node: NodeId) {
        let machine = &mut self.town.simulation.machines[node];
        machine.hold_messages = false;
        machine.hold_requests = false;
        let messages = std::mem::take(&mut machine.held);
        let requests = std::mem::take(&mut machine.held_requests);
        if machine.dead {
            // Nobody is there to take them.
            return;
        }
        for message in messages {
            self.handled(node, message.from().cloned(), &message.payload);
            message.taken();
        }
        for request in requests {
            let answer = super::operations::answer_to(&request.request.payload);
            request.respond(node_core::wire::frame::Response::Success(Some(answer)));
        }
    }

    // Sockets.

    /// Nothing is taken, or nothing arrives, one way or both, seldom for longer than sessions are kept.
    fn blocked(&mut self, who: usize, other: usize) {
        self.hide(vec![who, other]);
        let (a, b) = (self.present[who], self.present[other]);
        let long = self.dice.once_in(12);
        let time = Duration::from_millis(self.dice.roll(if long { 200_000 } else { 12_000 }));
        if long {
            self.excuse_all_behind(who, time);
            self.excuse_all_behind(other, time);
        }
        self.disturb(Whom::Between(who, other), time);
        let stalls = self.dice.once_in(2);
        let ways = [vec![(a, b)], vec![(b, a)], vec![(a, b), (b, a)]];
        for (from, to) in ways[self.dice.index(3)].clone() {
            let network = &mut self.town.simulation;
            let set = if stalls {
                &mut network.stalled
            } else {
                &mut network.severed
            };
            set.insert((from, to));
            self.ends_in(time, Ending::Blocked(from, to));
        }
    }

    /// A node has another address from now on, and nobody hears the end of its sockets.
    fn moved(&mut self, person: usize) {
        self.hide(self.behind(person));
        self.disturb(Whom::Person(person), Duration::ZERO);
        self.town.simulation.move_away(self.present[person]);
    }

    fn cut(&mut self, who: usize, other: usize) {
        self.disturb(Whom::Between(who, other), Duration::ZERO);
        let (a, b) = (self.present[who], self.present[other]);
        match self.dice.roll(6) {
            // Whoever is on the way can write any code into a close.
            0 => self.town.simulation.cut(a, b, Code::Superseded),
            1 => self.town.simulation.cut(a, b, Code::RecordForged),
            2 => {
                self.hide(vec![who, other]);
                self.town.simulation.cut_for(a, b);
            }
            _ => self.town.simulation.cut(a, b, Code::PipeLost),
        }
    }

    fn silence(&mut self, who: usize, other: usize) {
        self.hide(vec![who, other]);
        self.disturb(Whom::Between(who, other), Duration::ZERO);
        let (a, b) = (self.present[who], self.present[other]);
        match self.dice.roll(3) {
            0 => self.town.simulation.silence_way(a, b),
            1 => self.town.simulation.silence_way(b, a),
            _ => self.town.simulation.silence(a, b),
        }
    }

    // Contacts and the chain.

    fn keep(&mut self, who: usize, other: usize) {
        let Some(node) = self.running(who) else {
            return;
        };
        let keep = self.kept.insert((who, other));
        if !keep {
            self.kept.remove(&(who, other));
        }
        let contact = name(&self.people[other].label);
        self.town.simulation.act(node, |node, now, out| {
            node.keep(&contact, keep, None, now, out);
        });
    }

    /// One endpoint at a time is wrong, as long as the others are a quorum; or all are down for a moment; or some blocks
    /// never were.
    fn trouble_of_chain(&mut self) {
        let already = |(_, ending): &(_, Ending)| matches!(ending, Ending::Endpoint(_));
        if self.endings.iter().any(already) {
            return;
        }
        let at = self.dice.index(3);
        let time = Duration::from_millis(1_000 + self.dice.roll(60_000));
        self.disturb(Whom::Everybody, time);
        let liar = self.dice.index(self.people.len());
        let label = self.people[liar].label.clone();
        let view = match self.dice.roll(14) {
            0 => View::WrongChain(5),
            1 => View::NoContract,
            2 => View::OtherContract,
            3 => View::Behind(1 + self.dice.roll(100)),
            4 => View::OtherKey(label, key_of("mallory").verifying_key().to_bytes()),
            5 => View::Denies(label),
            6 => View::InventsBlocks,
            7 => View::RefusesLogs,
            8 => View::HidesLogs,
            9 => View::ForgesLogs,
            10 => View::WithoutBlockHashes,
            11 => View::Says(b"<html>502</html>".to_vec()),
            12 => return self.reorganise(),
            _ => {
                self.hide((0..self.people.len()).collect());
                let time = Duration::from_millis(self.dice.roll(20_000));
                for at in 0..3 {
                    self.town.endpoints.borrow_mut()[at].view = View::RateLimited;
                    self.ends_in(time, Ending::Endpoint(at));
                }
                return;
            }
        };
        let slow = self.dice.once_in(3);
        if slow {
            let delay = Duration::from_secs(1 + self.dice.roll(15));
            self.town.endpoints.borrow_mut()[at].delay = delay;
        } else {
            self.town.endpoints.borrow_mut()[at].view = view;
        }
        self.ends_in(time, Ending::Endpoint(at));
    }

    /// The newest blocks are replaced by others, in which the same has happened.
    fn reorganise(&mut self) {
        let depth = 1 + self.dice.index(3);
        let now = self.now();
        self.town
            .registry
            .borrow_mut()
            .reorganise(depth, crate::town::seconds(now));
    }
}
