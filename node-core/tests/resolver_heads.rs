//! Nobody below the quorum decides how high the chain is: neither can it hide changes by what it says, nor keep the
//! others busy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nectar_sim::chain::{Chain, Entry, View};
use node_core::{
    Instant, Name, Now, RegistryId, Timestamp,
    registry::{
        Cause, EndpointState, FetchId, Freshness, Lookup, RegistryConfig, Resolver, ResolverLimits,
        ResolverOutput,
    },
    time::Duration,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);
/// As many names as a router with its parked nodes watches.
const NAMES: usize = 140;
/// Wall clock at the beginning of every test, in seconds.
const EPOCH: u64 = 1_800_000_000;
const REGISTRY: RegistryId = RegistryId {
    chain_id: 31337,
    contract: [0xc0; 20],
};
/// Height at the beginning.
const HEIGHT: u64 = 700;
/// Shorter than the time after which every name is read anyway.
const WHILE: Duration = Duration::from_secs(480);

#[test]
fn whatever_height_one_of_three_makes_up_the_others_are_asked_no_more_than_a_few_times() {
    let honest = cost(3, |_| None);
    for (lie, says) in LIES {
        let asked = cost(3, move |head| Some(says(head)));
        // A lie is followed by one question for another's newest block and its changes, every third poll.
        let most = honest + 2 * 14;
        assert!(
            asked <= most,
            "{lie}: {asked} requests to honest endpoints, {honest} without a liar"
        );
    }
}

#[test]
fn of_two_endpoints_one_that_makes_up_heights_costs_the_other_as_little() {
    let honest = cost(2, |_| None);
    for (lie, says) in LIES {
        let asked = cost(2, move |head| Some(says(head)));
        let most = honest + 2 * 20;
        assert!(
            asked <= most,
            "{lie}: {asked} requests to the honest endpoint, {honest} without a liar"
        );
    }
}

#[test]
fn one_of_three_that_makes_up_changes_has_each_name_read_once_or_twice_and_then_no_more() {
    let honest = cost(3, |_| None);
    let mut net = Net::new(3);
    net.watch_all();
    net.pass(SECOND * 30);
    net.logs = Logs::MadeUp;
    let made_up = net.honest_asked(WHILE);
    // A read when it is announced, one when nobody else knows of it, each with two requests to each of two endpoints.
    let once = 2 * 4 * (NAMES + 32);
    assert!(made_up <= honest + once + 100, "{made_up} requests");
    let later = net.honest_asked(SECOND * 100);
    assert!(later <= 100, "{later} requests in the next 100 s");
}

#[test]
fn a_height_that_a_read_took_from_a_liar_has_one_name_read_again_and_not_all() {
    let mut asked = Vec::new();
    for lies in [false, true] {
        let mut net = Net::new(3);
        net.watch_all();
        net.pass(SECOND * 30);
        if lies {
            net.says = Box::new(|_| Some(0));
        }
        let before = net.asked[1] + net.asked[2];
        for index in 0..20 {
            let name = net.name(index);
            net.resolver.unwatch(&name);
            net.read(index);
            net.resolver.watch(&name, net.now().mono);
            net.pass(SECOND * 12);
        }
        asked.push(net.asked[1] + net.asked[2] - before);
    }
    assert!(asked[1] <= asked[0] + 20 * 8, "{asked:?}");
}

#[test]
fn changes_on_a_fast_chain_are_told_within_two_intervals_whatever_one_of_three_says() {
    for (lie, says) in LIES {
        let mut net = Net::fast(3);
        net.watch_all();
        net.logs = Logs::Hidden;
        net.says = Box::new(move |head| Some(says(head)));
        net.pass(SECOND * 60);
        for index in 0..14 {
            net.rotate(index, 2);
            let at = net.now().mono;
            net.pass(SECOND * 26);
            assert!(
                net.changed
                    .iter()
                    .any(|(name, told)| *name == label(index) && *told >= at),
                "{lie}: the change of {} is not told",
                label(index)
            );
            // Each at another time within the interval.
            net.pass(Duration::from_millis(1_700));
        }
        assert_eq!(net.changed.len(), 14, "{lie}");
    }
}

#[test]
fn whoever_wakes_hears_from_a_second_endpoint_at_once_that_the_chain_is_far_ahead() {
    for liar in [false, true] {
        let mut net = Net::fast(3);
        net.watch_all();
        net.pass(SECOND * 30);
        if liar {
            net.says = Box::new(|_| Some(1 << 60));
        }
        net.rotate(7, 2);
        net.sleep(SECOND * 180);
        net.pass(SECOND * 13);
        let told: Vec<&str> = net.changed.iter().map(|(name, _)| name.as_str()).collect();
        match liar {
            false => assert_eq!(told, ["name7"]),
            // Where the liar's turn comes between, it takes one interval more.
            true => {
                net.pass(SECOND * 12);
                assert_eq!(net.changed.len(), 1);
            }
        }
    }
}

#[test]
fn a_chain_that_begins_anew_is_noticed_whether_one_endpoint_shows_it_or_three() {
    for endpoints in 1..=3 {
        let mut net = Net::new(endpoints);
        net.watch_all();
        net.pass(SECOND * 130);
        let mut chain = Chain::new(REGISTRY.chain_id, REGISTRY.contract, net.seconds());
        chain.register(&label(3), entry(9));
        chain.mine(net.seconds());
        net.chain = chain;
        net.pass(SECOND * 40);
        let told: Vec<&str> = net.changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, ["name3"], "{endpoints} endpoints");
        // Then its blocks are looked through like any.
        net.chain.register(&label(4), entry(9));
        net.pass(SECOND * 40);
        assert_eq!(net.changed.len(), 2, "{endpoints} endpoints");
        assert!(
            (0..endpoints).all(|endpoint| net.state(endpoint) == EndpointState::Ok),
            "{endpoints} endpoints"
        );
    }
}

#[test]
fn an_honest_endpoint_that_lags_is_neither_blamed_nor_a_reason_to_read() {
    for (mut net, behind) in [(Net::new(3), 2), (Net::fast(3), 40)] {
        net.watch_all();
        net.behind.insert(1, behind);
        net.pass(SECOND * 90);
        let asked = net.honest_asked(SECOND * 360);
        assert!(asked <= 42, "{asked} requests");
        net.rotate(0, 2);
        // A read that asks the one that lags sees what that one sees.
        net.pass(SECOND * 75);
        assert_eq!(net.changed.len(), 1);
        assert_eq!(net.state(1), EndpointState::Ok);
    }
}

#[test]
fn of_three_the_one_far_from_the_others_is_called_invalid_and_nobody_else() {
    for says in [0, 1 << 60] {
        let mut net = Net::new(3);
        net.watch_all();
        net.says = Box::new(move |_| Some(says));
        let mut states = Vec::new();
        for _ in 0..36 {
            net.pass(SECOND);
            states.push(net.state(0));
            assert_eq!(net.state(1), EndpointState::Ok);
            assert_eq!(net.state(2), EndpointState::Ok);
        }
        assert!(states.contains(&EndpointState::Invalid), "{states:?}");
    }
}

#[test]
fn two_endpoints_that_contradict_each_other_about_the_height_are_not_asked_without_a_pause() {
    let mut net = Net::new(2);
    net.watch_all();
    net.says = Box::new(|_| Some(0));
    net.pass(SECOND * 30);
    // One is at 0, and the other, which is honest, goes far beyond what both had reached.
    for _ in 0..400 {
        net.chain.mine(net.seconds());
    }
    let before: usize = net.asked.iter().sum();
    net.pass(SECOND * 120);
    let asked = net.asked.iter().sum::<usize>() - before;
    assert!(asked <= 40, "{asked} requests in ten intervals");
}

/// What a liar says of the chain's height when it is asked the n-th time.
type Says = fn(Asked) -> u64;

#[derive(Clone, Copy)]
struct Asked {
    height: u64,
    times: u64,
}

const LIES: [(&str, Says); 9] = [
    ("huge", |_| 1 << 60),
    ("the highest", |_| u64::MAX),
    ("zero", |_| 0),
    ("zero and huge by turns", |asked| match asked.times % 2 {
        0 => 0,
        _ => 1 << 60,
    }),
    ("zero and the truth by turns", |asked| {
        match asked.times % 2 {
            0 => 0,
            _ => asked.height,
        }
    }),
    ("a drift upwards", |asked| asked.height + 200 * asked.times),
    ("a drift downwards", |asked| {
        asked.height.saturating_sub(200 * asked.times)
    }),
    ("just beyond what is looked through at once", |asked| {
        asked.height + 501
    }),
    ("as far up and down as passes for a lag", |asked| {
        match asked.times % 2 {
            0 => asked.height - 240,
            _ => asked.height + 240,
        }
    }),
];

/// Requests to honest endpoints while nothing changes and the first endpoint says what `says` makes of the height.
fn cost(endpoints: usize, says: impl Fn(Asked) -> Option<u64> + 'static) -> usize {
    let mut net = Net::new(endpoints);
    net.watch_all();
    net.pass(SECOND * 30);
    net.says = Box::new(says);
    net.honest_asked(WHILE)
}

/// A resolver that watches names, and endpoints of which the first may lie.
struct Net {
    resolver: Resolver,
    chain: Chain,
    /// What the first endpoint says of its height, if it lies.
    says: Box<dyn Fn(Asked) -> Option<u64>>,
    times: u64,
    /// The first endpoint's changes: left out, or made up for every name.
    logs: Logs,
    /// Blocks that an endpoint has not seen yet.
    behind: BTreeMap<usize, u64>,
    /// Requests to each endpoint.
    asked: Vec<usize>,
    /// Names told as changed, each with the time.
    changed: Vec<(String, Instant)>,
    block_time: Duration,
    mined_at: Instant,
    micros: u64,
    in_flight: BTreeMap<(Instant, FetchId), (usize, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logs {
    Given,
    Hidden,
    MadeUp,
}

impl Net {
    fn new(endpoints: usize) -> Self {
        let config = RegistryConfig {
            id: REGISTRY,
            tld: "nectar".into(),
            rpcs: (0..endpoints)
                .map(|index| format!("http://{index}").into())
                .collect(),
            quorum: None,
        };
        let mut chain = Chain::new(REGISTRY.chain_id, REGISTRY.contract, EPOCH - 60);
        for index in 0..NAMES {
            chain.register(&label(index), entry(1));
        }
        for _ in 0..HEIGHT {
            chain.mine(EPOCH);
        }
        Self {
            resolver: Resolver::new(vec![config], Vec::new(), ResolverLimits::default()).unwrap(),
            chain,
            says: Box::new(|_| None),
            times: 0,
            logs: Logs::Given,
            behind: BTreeMap::new(),
            asked: vec![0; endpoints],
            changed: Vec::new(),
            block_time: SECOND * 12,
            mined_at: Instant::from_micros(0),
            micros: 0,
            in_flight: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: Instant::from_micros(self.micros),
            wall: Timestamp(EPOCH * 1000 + self.micros / 1000),
        }
    }

    /// A block every 250 ms: 48 between two polls, three times what is looked through again.
    fn fast(endpoints: usize) -> Self {
        Self {
            block_time: Duration::from_millis(250),
            ..Self::new(endpoints)
        }
    }

    fn name(&self, index: usize) -> Name {
        self.resolver
            .parse(&format!("{}.nectar", label(index)))
            .unwrap()
    }

    fn seconds(&self) -> u64 {
        self.now().wall.0 / 1000
    }

    fn watch_all(&mut self) {
        for index in 0..NAMES {
            self.read(index);
            let name = self.name(index);
            self.resolver.watch(&name, self.now().mono);
        }
    }

    fn read(&mut self, index: usize) {
        let (name, now) = (self.name(index), self.now());
        let anew = Freshness::NewerThan(Duration::ZERO);
        let lookup = self.resolver.lookup(&name, anew, Cause::Own, now);
        assert!(matches!(lookup, Lookup::Pending(_)));
        let is_read = |net: &Self| {
            let read = net.resolver.cached(&name, net.now().mono);
            read.is_some_and(|read| read.at >= now.mono)
        };
        // Whoever lies costs a second round.
        for _ in 0..10 {
            if !is_read(self) {
                self.pass(Duration::from_millis(200));
            }
        }
        assert!(is_read(self));
    }

    /// Requests to all endpoints but the first while time passes.
    fn honest_asked(&mut self, time: Duration) -> usize {
        let before: usize = self.asked[1..].iter().sum();
        self.pass(time);
        self.asked[1..].iter().sum::<usize>() - before
    }

    fn rotate(&mut self, index: usize, seed: u8) {
        self.chain.update(&label(index), |record| {
            record.networkingKey = key(seed).into();
        });
    }

    fn state(&self, endpoint: usize) -> EndpointState {
        self.resolver.health()[endpoint].state
    }

    fn pass(&mut self, time: Duration) {
        let limit = self.now().mono + time;
        loop {
            self.pump();
            let delivery = self.in_flight.keys().next().map(|(at, _)| *at);
            let Some(next) = [delivery, self.resolver.deadline()]
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= limit)
            else {
                break;
            };
            self.advance(next);
            let now = self.now();
            if delivery == Some(next) {
                let ((_, id), (endpoint, body)) = self.in_flight.pop_first().unwrap();
                let answer = self.answer(endpoint, &body);
                self.resolver.handle_answer(id, Ok(&answer), now);
            } else {
                self.resolver.handle_timeout(now);
            }
        }
        self.advance(limit);
    }

    /// Lets time pass, and blocks be made, while we sleep.
    fn sleep(&mut self, time: Duration) {
        self.advance(self.now().mono + time);
    }

    fn advance(&mut self, to: Instant) {
        self.micros = self.micros.max(to.as_micros());
        while self.mined_at + self.block_time <= self.now().mono {
            self.mined_at = self.mined_at + self.block_time;
            self.chain
                .mine(EPOCH + self.mined_at.as_micros() / 1_000_000);
        }
    }

    fn pump(&mut self) {
        let at = self.now().mono + Duration::from_millis(50);
        while let Some(output) = self.resolver.poll_output() {
            match output {
                ResolverOutput::Fetch { id, url, body } => {
                    let endpoint: usize = url.strip_prefix("http://").unwrap().parse().unwrap();
                    self.asked[endpoint] += 1;
                    self.in_flight.insert((at, id), (endpoint, body));
                }
                ResolverOutput::Changed { name, .. } => {
                    self.changed.push((name.label.to_string(), self.now().mono))
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, endpoint: usize, body: &str) -> Vec<u8> {
        let behind = self.behind.get(&endpoint).copied().unwrap_or(0);
        let honest = self.chain.answer_as(&View::Behind(behind), body);
        if endpoint != 0 {
            return honest;
        }
        let request: Value = serde_json::from_str(body).unwrap();
        let mut answer: Value = serde_json::from_slice(&honest).unwrap();
        match request["method"].as_str().unwrap() {
            "eth_getBlockByNumber" => {
                self.times += 1;
                let asked = Asked {
                    height: self.chain.height(),
                    times: self.times,
                };
                if let Some(number) = (self.says)(asked) {
                    answer["result"]["number"] = json!(format!("{number:#x}"));
                    answer["result"]["timestamp"] =
                        json!(format!("{:#x}", self.now().wall.0 / 1000));
                }
            }
            "eth_getLogs" if self.logs == Logs::Hidden => answer["result"] = json!([]),
            "eth_getLogs" if self.logs == Logs::MadeUp => {
                let filter = &request["params"][0];
                let tokens = filter["topics"][1].as_array().unwrap();
                let made_up = tokens.iter().map(|token| {
                    json!({
                        "blockNumber": filter["toBlock"],
                        "blockHash": format!("0x{:064x}", self.micros),
                        "logIndex": "0x0",
                        "topics": [filter["topics"][0], token],
                    })
                });
                answer["result"] = made_up.collect();
            }
            _ => {}
        }
        answer.to_string().into_bytes()
    }
}

fn label(index: usize) -> String {
    format!("name{index}")
}

fn key(seed: u8) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
        .verifying_key()
        .to_bytes()
}

fn entry(seed: u8) -> Entry {
    Entry {
        owner: [seed; 20].into(),
        networkingKey: key(seed).into(),
        routers: vec!["router-one".to_owned()],
        ..Entry::default()
    }
}
