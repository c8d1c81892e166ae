//! A resolver, two endpoints that tell the truth, and one that says what it likes.

use crate::{
    input::{Input, edit},
    memory::held,
};
use nectar_sim::chain::{Chain, Entry, View};
use node_core::{
    Instant, Label, Name, Now, RegistryId, Timestamp,
    registry::{
        Cause, FetchFailure, FetchId, Freshness, Lookup, LookupId, Provenance, Record,
        RegistryConfig, Resolver, ResolverLimits, ResolverOutput,
    },
    time::Duration,
};
use std::collections::{BTreeMap, HashMap, VecDeque};

const REGISTRY: RegistryId = RegistryId {
    chain_id: 31_337,
    contract: [0xc0; 20],
};
const LABELS: [&str; 3] = ["alice", "bob", "nobody"];
const EPOCH: u64 = 1_800_000_000;
const URLS: [&str; 3] = ["http://a", "http://b", "http://c"];
/// Choices of one run.
const STEPS: usize = 60;
/// All of a run: two dozen cached names and what is under way for them.
const MEMORY: isize = 1 << 20;

/// Whatever one of three endpoints says, nothing is believed that the contract never said, every look-up ends once and in
/// time, and what is kept is bounded.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.u8());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.pass(Duration::from_secs(20));
    assert!(world.pending.is_empty(), "{:?} never ended", world.pending);
}

struct World {
    resolver: Resolver,
    chain: Chain,
    /// Every record that the contract ever held.
    truths: Vec<(&'static str, Record)>,
    now: Instant,
    honest: bool,
    view: View,
    /// What the liar does to its next answers.
    lies: Vec<u8>,
    failure: Option<FetchFailure>,
    fetches: VecDeque<(Instant, FetchId, String, String)>,
    pending: HashMap<LookupId, &'static str>,
    own_reads: usize,
    asked: usize,
    before: isize,
}

impl World {
    fn new(how: u8) -> Self {
        let honest = !how.is_multiple_of(4);
        let config = RegistryConfig {
            id: REGISTRY,
            tld: "nectar".into(),
            // The liar stands anywhere among them, or alone.
            rpcs: if honest {
                (0..3)
                    .map(|at| URLS[(at + usize::from(how)) % 3].into())
                    .collect()
            } else {
                [URLS[0].into()].into()
            },
            quorum: None,
        };
        let before = held();
        let resolver = Resolver::new(vec![config], Vec::new(), ResolverLimits::default());
        let mut world = Self {
            resolver: resolver.expect("a valid configuration"),
            chain: Chain::new(REGISTRY.chain_id, REGISTRY.contract, EPOCH - 60),
            truths: Vec::new(),
            now: Instant::from_micros(1_000_000_000),
            honest,
            view: View::Honest,
            lies: Vec::new(),
            failure: None,
            fetches: VecDeque::new(),
            pending: HashMap::new(),
            own_reads: 0,
            asked: 0,
            before,
        };
        for (at, label) in LABELS[..2].iter().enumerate() {
            let record = Record::unowned(
                key(at as u8),
                None,
                vec![Label::new("router").expect("valid")],
            );
            world.chain.register(label, Entry::from(&record));
            world.truths.push((label, record));
        }
        for age in (0..5).rev() {
            world.chain.mine(EPOCH - age);
        }
        world
    }

    fn now(&self) -> Now {
        let past = self.now.since(Instant::from_micros(1_000_000_000));
        Now {
            mono: self.now,
            wall: Timestamp(EPOCH * 1000 + past.as_millis() as u64),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let label = LABELS[usize::from(what >> 4) % 3];
        let name = Name {
            registry: REGISTRY,
            label: Label::new(label).expect("valid"),
        };
        match what % 16 {
            0..=3 => {
                let how = input.u8();
                let freshness = match how % 2 {
                    0 => Freshness::Cached,
                    _ => Freshness::NewerThan(Duration::from_secs((how >> 4).into())),
                };
                let cause = match how & 2 {
                    0 => Cause::Own,
                    _ if how & 8 == 0 => Cause::Known((how >> 2 & 1).into()),
                    _ => Cause::Peer((how >> 2 & 1).into()),
                };
                match self.resolver.lookup(&name, freshness, cause, self.now()) {
                    Lookup::Ready(Ok(found)) => self.believe(label, &found.record, found.how),
                    Lookup::Ready(Err(_)) => {}
                    Lookup::Pending(id) => {
                        assert_eq!(self.pending.insert(id, label), None);
                        self.own_reads += 1;
                    }
                }
            }
            4 => {
                let key = key(input.u8() | 2);
                self.chain
                    .update(label, |entry| entry.networkingKey = key.into());
                let last = self
                    .truths
                    .iter()
                    .rfind(|(whose, _)| *whose == label)
                    .cloned();
                if let Some((_, record)) = last {
                    self.truths.push((label, Record { key, ..record }));
                }
                self.chain.mine(self.now().wall.0 / 1000);
            }
            5 => drop(self.chain.mine(self.now().wall.0 / 1000)),
            6 => {
                self.chain.reorganise(usize::from(input.u8() % 4));
                self.chain.mine(self.now().wall.0 / 1000);
            }
            7 => {
                let edits = usize::from(input.u8() % 32);
                self.lies = input.take(4 * edits).to_vec();
            }
            8 => {
                let length = input.u8();
                self.view = View::Says(input.take(length.into()).to_vec());
            }
            9 => {
                self.view = match input.u8() % 12 {
                    0 => View::WrongChain(1),
                    1 => View::NoContract,
                    2 => View::OtherContract,
                    3 => View::Behind(input.u8().into()),
                    4 => View::OtherKey(label.into(), key(1)),
                    5 => View::Denies(label.into()),
                    6 => View::InventsBlocks,
                    7 => View::HidesLogs,
                    8 => View::ForgesLogs,
                    9 => View::WithoutBlockHashes,
                    10 => View::RateLimited,
                    _ => View::Honest,
                }
            }
            10 => {
                self.failure = [
                    None,
                    Some(FetchFailure::Unreachable),
                    Some(FetchFailure::Status(429)),
                    Some(FetchFailure::TooLarge),
                ][usize::from(input.u8() % 4)];
            }
            11 => self.resolver.watch(&name, self.now),
            12 => self.resolver.unwatch(&name),
            13 => self.resolver.invalidate(&name),
            14 => drop(self.resolver.probe(&REGISTRY, self.now())),
            _ => self.pass(Duration::from_millis(u64::from(input.u8()) * 100)),
        }
        self.pump();
        let held = held() - self.before;
        assert!(held < MEMORY, "{held} bytes are held");
    }

    /// Time passes; endpoints answer after 50 ms.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            assert!(turn < 10_000, "it does not come to rest");
            self.pump();
            let answer = self.fetches.front().map(|(at, ..)| *at);
            let next = [answer, self.resolver.deadline()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if answer == Some(next)
                && let Some((_, id, url, body)) = self.fetches.pop_front()
            {
                let answer = self.answer(&url, &body);
                let now = self.now();
                let answer = answer.as_deref().map_err(|failure| *failure);
                self.resolver.handle_answer(id, answer, now);
            } else {
                self.resolver.handle_timeout(self.now());
            }
        }
        self.now = end;
        self.pump();
    }

    fn answer(&self, url: &str, body: &str) -> Result<Vec<u8>, FetchFailure> {
        if url != URLS[0] {
            return Ok(self.chain.answer(body));
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut answer = self.chain.answer_as(&self.view, body);
        edit(&mut answer, &self.lies);
        Ok(answer)
    }

    fn pump(&mut self) {
        while let Some(output) = self.resolver.poll_output() {
            match output {
                ResolverOutput::Fetch { id, url, body } => {
                    self.asked += 1;
                    let at = self.now + Duration::from_millis(50);
                    self.fetches.push_back((at, id, url.to_string(), body));
                }
                ResolverOutput::Done { id, result } => {
                    let label = self.pending.remove(&id).expect("each look-up ends once");
                    if let Ok(found) = result {
                        self.believe(label, &found.record, found.how);
                    }
                }
                ResolverOutput::Changed { name, result } => {
                    if let Ok(found) = result {
                        self.believe(name.label.as_str(), &found.record, found.how);
                    }
                }
                ResolverOutput::Probed { .. } => {}
            }
        }
    }

    /// What two of three say is what the contract said once.
    fn believe(&self, label: &str, record: &Record, how: Provenance) {
        assert_eq!(record.check(), Ok(()));
        if !self.honest {
            return assert_eq!(how, Provenance::OneRpc);
        }
        assert!(matches!(how, Provenance::Quorum { .. }), "{how:?}");
        let same = |truth: &Record| (truth.key, &truth.routers) == (record.key, &record.routers);
        assert!(
            self.truths
                .iter()
                .any(|(whose, truth)| *whose == label && same(truth)),
            "nobody ever registered {label} with {record:?}"
        );
    }
}

/// Keys by number, made once.
fn key(number: u8) -> [u8; 32] {
    thread_local! {
        static KEYS: std::cell::RefCell<BTreeMap<u8, [u8; 32]>> = const { std::cell::RefCell::new(BTreeMap::new()) };
    }
    let make = || {
        ed25519_dalek::SigningKey::from_bytes(&[number; 32])
            .verifying_key()
            .to_bytes()
    };
    KEYS.with_borrow_mut(|keys| *keys.entry(number).or_insert_with(make))
}
