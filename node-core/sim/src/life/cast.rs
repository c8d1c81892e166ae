//! Who takes part in a life, under which conditions, and within which bounds.

use super::{Life, operations};
use crate::{
    dice::Dice,
    simulation::Simulation,
    town::Town,
    world::{Place, Plan, Token, World as _},
};
use node_core::{
    Limits,
    node::{Node, NodeConfig},
    session::STREAM_BUFFER,
    time::{Duration, Instant},
    wire::frame::Response,
};

/// A name and how it is reached.
pub(super) struct Person {
    pub(super) label: String,
    /// Whose key it has at present: its own name's, until it is rotated.
    pub(super) key: String,
    pub(super) role: Role,
    /// The routers of an indirect one, by their places.
    pub(super) routers: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Router,
    Direct,
    Indirect,
}

/// What a life is like.
#[derive(Debug)]
pub(super) struct Temper {
    /// Whether processes die, or only sockets.
    pub(super) processes_die: bool,
    /// Whether names are read from a chain, whose endpoints are not to be relied upon.
    pub(super) chain: bool,
    /// Whether limits are so small that they are met all the time.
    pub(super) tight: bool,
    /// So many operations are begun per trouble.
    pub(super) peace_between_troubles: u64,
}

/// Where the chain is read.
pub(super) const ENDPOINTS: [&str; 3] = ["http://one.test", "http://two.test", "http://three.test"];

impl Temper {
    pub(super) const fn new(dice: &mut Dice) -> Self {
        let processes_die = !dice.once_in(3);
        Self {
            processes_die,
            chain: dice.once_in(2),
            tight: dice.once_in(6),
            peace_between_troubles: if processes_die { 12 } else { 5 },
        }
    }

    /// How far everybody is from everybody, and what chance does on the way.
    pub(super) fn network(&self, network: &mut Simulation, people: &[Person], dice: &mut Dice) {
        network.trace = Some([0; 32]);
        network.latency = Duration::from_millis(1 + dice.roll(40));
        if dice.once_in(2) {
            network.jitter = Duration::from_millis(1 + dice.roll(30));
        }
        network.shuffled = !dice.once_in(4);
        for person in 0..people.len() {
            if dice.once_in(6) {
                let far = Duration::from_millis(dice.roll(250));
                network.remote.insert(person, far);
            }
        }
    }

    fn limits(&self) -> Limits {
        let limits = Limits {
            message_bytes: 1 << 20,
            ..Limits::default()
        };
        if !self.tight {
            return limits;
        }
        Limits {
            half_open: 6,
            inbound_channels: 12,
            channels_per_group: 4,
            channels_per_caller: 2,
            renew_after: Duration::from_secs(90),
            stranger_requests: 20,
            outbound_peers: 3,
            inbox_bytes: 64 << 10,
            retained_bytes: 128 << 10,
            parked_sessions: 2,
            parked_bytes: 100_000,
            outbox_bytes: 256 << 10,
            streams: 2,
            requests: 3,
            circuits: 6,
            circuits_per_pair: 1,
            circuits_unanswered: 3,
            waiting: 4,
            ..limits
        }
    }
}

/// Five to thirty people: seldom many, for these take long.
pub(super) fn people(dice: &mut Dice) -> Vec<Person> {
    let more = if dice.once_in(8) { 26 } else { 8 };
    let count = 5 + dice.index(more);
    let routers = 1 + dice.index((count / 3).min(4));
    let direct = dice.index(count / 3 + 1);
    let mut people: Vec<Person> = Vec::new();
    for at in 0..count {
        let (kind, role) = match at {
            at if at < routers => ("router", Role::Router),
            at if at < routers + direct => ("direct", Role::Direct),
            _ => ("tab", Role::Indirect),
        };
        let label = format!("{kind}-{at}");
        let mut listed = Vec::new();
        if role == Role::Indirect {
            listed.push(dice.index(routers));
            for _ in 0..2 {
                let another = dice.index(routers);
                if !listed.contains(&another) {
                    listed.push(another);
                }
            }
        }
        people.push(Person {
            key: label.clone(),
            label,
            role,
            routers: listed,
        });
    }
    people
}

/// The town in which they are registered.
pub(super) fn town(seed: u64, people: &[Person], temper: &Temper) -> Town {
    let urls = if temper.chain { &ENDPOINTS[..] } else { &[] };
    let mut town = Town::with_endpoints(seed, urls);
    for person in people {
        let labels: Vec<&str> = person
            .routers
            .iter()
            .map(|router| &*people[*router].label)
            .collect();
        let place = match person.role {
            Role::Indirect => Place::Behind(&labels),
            Role::Router | Role::Direct => Place::Direct,
        };
        town.register(&[&person.label], place);
    }
    town
}

impl Life {
    /// Starts a process of a person, which is the present one from now on. One that lives already goes on beside it.
    pub(super) fn start(&mut self, person: usize) {
        let former = self.present[person];
        if self.person.get(former) == Some(&person) && !self.town.simulation.machines[former].dead {
            self.contested.insert(person);
        }
        let Person {
            label, key, role, ..
        } = &self.people[person];
        let plan = match role {
            Role::Router => Plan::router(label),
            Role::Direct | Role::Indirect => Plan::named(label),
        };
        let plan = if self.temper.chain {
            plan.on_chain()
        } else {
            plan
        };
        let limits = self.temper.limits();
        let set = move |config: &mut NodeConfig| config.limits = limits;
        let node = self.town.start(plan.key(key).with(set));
        // Who is far away stays so.
        let network = &mut self.town.simulation;
        if let Some(far) = network.remote.get(&self.present[person]).copied()
            && !self.person.is_empty()
        {
            network.remote.insert(node, far);
        }
        network.machines[node].handler = Box::new(|request, _| {
            let answer = operations::answer_to(&request.payload);
            Some(Response::Success(Some(answer)))
        });
        self.present[person] = node;
        self.person.push(person);
        self.tell(|| format!("{} starts as {node}", self.people[person].label));
        self.kept.retain(|(who, _)| *who != person);
    }
}

/// The longest frame, and what keeping it takes beside its bytes.
const FRAME: usize = (64 << 10) + 96;

/// What a node holds is within its limits.
pub(super) fn assert_within_limits(who: &str, node: &Node<Token>, now: Instant) {
    let (counts, limits) = (node.counts(), &node.config().limits);
    let windows = 2 * limits.circuit_window + (64 << 10);
    let bounds = [
        ("half open", counts.half_open, limits.half_open),
        ("inbound", counts.inbound, limits.inbound_channels),
        ("parked", counts.parked, limits.parked_sessions),
    ];
    for (what, held, bound) in bounds {
        assert!(held <= bound, "{who} has {held} {what}, of {bound}");
    }
    let bytes = counts.circuits as u64 * windows;
    assert!(
        counts.circuit_bytes <= bytes,
        "{who} holds too much for others: {counts:?}"
    );
    let step = limits.parked_bytes / limits.parked_sessions / 4;
    let mut parked = limits.parked_bytes + counts.parked * step;
    if node.deadline().is_some_and(|at| at <= now) {
        // Its own application may have added more at once, which is about to be counted.
        parked += counts.parked * limits.outbox_bytes;
    }
    assert!(
        counts.parked_bytes <= parked,
        "{who} has sessions that wait with more than {parked}: {counts:?}"
    );
    for held in node.held() {
        let stream = limits.stream_window as usize + 2 * STREAM_BUFFER;
        let bounds = [
            // What is kept is looked at before one more frame is.
            ("kept", held.retained, limits.retained_bytes + FRAME),
            // Beyond that there are only words about other words.
            ("to be sent", held.outbox, limits.outbox_bytes + FRAME),
            ("to be handled", held.inbox, limits.inbox_bytes as usize),
            ("promised", held.promised, 2 * limits.message_bytes),
            ("in streams", held.streams, held.open_streams * stream),
        ];
        for (what, held, bound) in bounds {
            assert!(held <= bound, "{who} has {held} bytes {what}, of {bound}");
        }
    }
}
