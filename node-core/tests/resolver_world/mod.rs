//! A resolver, the endpoints that it asks, and a clock, in virtual time.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses its own part of it"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nectar_sim::chain::{Chain, Entry, View};
use node_core::{
    Instant, Name, Now, RegistryId, Timestamp,
    registry::{
        Cause, EndpointState, FetchFailure, FetchId, Freshness, Lookup, LookupId, RegistryConfig,
        ResolveError, Resolved, Resolver, ResolverLimits, ResolverOutput,
    },
    time::Duration,
};
use std::collections::BTreeMap;

pub const CHAIN_ID: u64 = 31337;
pub const CONTRACT: [u8; 20] = [0xc0; 20];
/// Wall clock at the beginning of every test, in seconds.
pub const EPOCH: u64 = 1_800_000_000;
pub const REGISTRY: RegistryId = RegistryId {
    chain_id: CHAIN_ID,
    contract: CONTRACT,
};

/// What an endpoint does with a request.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub view: View,
    /// Time until the answer.
    pub latency: Duration,
    /// Refuses connections.
    pub down: bool,
    /// Requests so far.
    pub asked: usize,
}

pub struct World {
    pub resolver: Resolver,
    pub chain: Chain,
    pub endpoints: BTreeMap<String, Endpoint>,
    pub outputs: Vec<ResolverOutput>,
    /// Methods that were called, in order.
    pub methods: Vec<String>,
    /// A block is made whenever this many seconds have passed; zero for never.
    pub block_time: u64,
    micros: u64,
    mined_at: u64,
    in_flight: BTreeMap<(Instant, FetchId), (String, String)>,
}

/// A registry with the given number of endpoints, `http://a`, `http://b` and so on, on which `alice` is registered.
pub fn world(endpoints: usize) -> World {
    world_with(endpoints, None, ResolverLimits::default())
}

pub fn world_with(endpoints: usize, quorum: Option<u8>, limits: ResolverLimits) -> World {
    let urls: Vec<String> = ["http://a", "http://b", "http://c", "http://d"][..endpoints]
        .iter()
        .map(|url| (*url).to_owned())
        .collect();
    let config = RegistryConfig {
        id: REGISTRY,
        tld: "nectar".into(),
        rpcs: urls.iter().map(|url| url.as_str().into()).collect(),
        quorum,
    };
    let mut chain = Chain::new(CHAIN_ID, CONTRACT, EPOCH - 60);
    chain.register("alice", indirect(1, &["router-one", "router-two"]));
    (0..5).for_each(|_| {
        chain.mine(EPOCH);
    });
    let endpoint = Endpoint {
        view: View::Honest,
        latency: Duration::from_millis(50),
        down: false,
        asked: 0,
    };
    World {
        resolver: Resolver::new(vec![config], Vec::new(), limits).unwrap(),
        chain,
        endpoints: urls
            .into_iter()
            .map(|url| (url, endpoint.clone()))
            .collect(),
        outputs: Vec::new(),
        methods: Vec::new(),
        block_time: 12,
        micros: 1_000_000_000,
        mined_at: EPOCH,
        in_flight: BTreeMap::new(),
    }
}

/// A valid key; another one for every seed.
pub fn key(seed: u8) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
        .verifying_key()
        .to_bytes()
}

pub fn indirect(seed: u8, routers: &[&str]) -> Entry {
    Entry {
        owner: [seed; 20].into(),
        networkingKey: key(seed).into(),
        routers: routers.iter().map(|router| (*router).to_owned()).collect(),
        ..Entry::default()
    }
}

impl World {
    pub fn now(&self) -> Now {
        let wall = EPOCH * 1000 + (self.micros - 1_000_000_000) / 1000;
        Now {
            mono: Instant::from_micros(self.micros),
            wall: Timestamp(wall),
        }
    }

    pub fn name(&self, label: &str) -> Name {
        self.resolver.parse(&format!("{label}.nectar")).unwrap()
    }

    pub fn endpoint(&mut self, url: &str) -> &mut Endpoint {
        self.endpoints.get_mut(url).unwrap()
    }

    pub fn state(&self, url: &str) -> EndpointState {
        self.resolver
            .health()
            .into_iter()
            .find(|health| &*health.url == url)
            .unwrap()
            .state
    }

    pub fn asked(&self) -> usize {
        self.endpoints.values().map(|endpoint| endpoint.asked).sum()
    }

    /// Makes the pending changes part of the chain.
    pub fn mine(&mut self) -> u64 {
        let time = self.now().wall.0 / 1000;
        self.mined_at = time;
        self.chain.mine(time)
    }

    pub fn lookup(&mut self, label: &str, freshness: Freshness, cause: Cause) -> Lookup {
        let (name, now) = (self.name(label), self.now());
        self.resolver.lookup(&name, freshness, cause, now)
    }

    /// Looks a name up and waits for the answer.
    pub fn resolve(&mut self, label: &str) -> Result<Resolved, ResolveError> {
        self.resolve_as(label, Freshness::Cached)
    }

    /// Reads a name anew and waits for the answer.
    pub fn read(&mut self, label: &str) -> Result<Resolved, ResolveError> {
        self.resolve_as(label, Freshness::NewerThan(Duration::ZERO))
    }

    fn resolve_as(&mut self, label: &str, freshness: Freshness) -> Result<Resolved, ResolveError> {
        match self.lookup(label, freshness, Cause::Own) {
            Lookup::Ready(result) => result,
            Lookup::Pending(id) => self.wait(id),
        }
    }

    /// Runs until a look-up is done; at most a minute.
    pub fn wait(&mut self, id: LookupId) -> Result<Resolved, ResolveError> {
        let limit = self.now().mono + Duration::from_secs(60);
        loop {
            if let Some(result) = self.take_done(id) {
                return result;
            }
            assert!(self.step(limit), "the look-up never ends");
        }
    }

    pub fn take_done(&mut self, wanted: LookupId) -> Option<Result<Resolved, ResolveError>> {
        self.pump();
        let is_it = |output: &ResolverOutput| matches!(output, ResolverOutput::Done { id, .. } if *id == wanted);
        let index = self.outputs.iter().position(is_it)?;
        match self.outputs.remove(index) {
            ResolverOutput::Done { result, .. } => Some(result),
            _ => None,
        }
    }

    /// The changes told so far.
    pub fn take_changes(&mut self) -> Vec<(Name, Result<Resolved, ResolveError>)> {
        self.pump();
        let (changes, rest) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition(|output| matches!(output, ResolverOutput::Changed { .. }));
        self.outputs = rest;
        let changes: Vec<ResolverOutput> = changes;
        changes
            .into_iter()
            .filter_map(|output| match output {
                ResolverOutput::Changed { name, result } => Some((name, result)),
                _ => None,
            })
            .collect()
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let limit = self.now().mono + time;
        while self.step(limit) {}
        self.micros = limit.as_micros();
        self.grow();
    }

    /// Runs until a request for `method` is on its way.
    pub fn until_asked(&mut self, method: &str) {
        let before = self
            .methods
            .iter()
            .filter(|called| *called == method)
            .count();
        let limit = self.now().mono + Duration::from_secs(60);
        loop {
            self.pump();
            if self
                .methods
                .iter()
                .filter(|called| *called == method)
                .count()
                > before
            {
                return;
            }
            assert!(self.step(limit), "{method} is never asked for");
        }
    }

    /// Moves to the next thing that happens, if that is before `limit`.
    fn step(&mut self, limit: Instant) -> bool {
        self.pump();
        let delivery = self.in_flight.keys().next().map(|(at, _)| *at);
        let deadline = self.resolver.deadline();
        let Some(next) = [delivery, deadline]
            .into_iter()
            .flatten()
            .min()
            .filter(|next| *next <= limit)
        else {
            return false;
        };
        self.micros = self.micros.max(next.as_micros());
        self.grow();
        let now = self.now();
        if delivery == Some(next) {
            let ((_, id), (url, body)) = self.in_flight.pop_first().unwrap();
            let endpoint = &self.endpoints[&url];
            let answer = match endpoint.down {
                true => Err(FetchFailure::Unreachable),
                false => Ok(self.chain.answer_as(&endpoint.view, &body)),
            };
            self.resolver
                .handle_answer(id, answer.as_deref().map_err(|failure| *failure), now);
        } else {
            self.resolver.handle_timeout(now);
        }
        self.pump();
        true
    }

    fn grow(&mut self) {
        let now = self.now().wall.0 / 1000;
        while self.block_time > 0 && self.mined_at + self.block_time <= now {
            self.mined_at += self.block_time;
            self.chain.mine(self.mined_at);
        }
    }

    fn pump(&mut self) {
        let now = self.now().mono;
        while let Some(output) = self.resolver.poll_output() {
            match output {
                ResolverOutput::Fetch { id, url, body } => {
                    let endpoint = self.endpoints.get_mut(&*url).unwrap();
                    endpoint.asked += 1;
                    let request: serde_json::Value = serde_json::from_str(&body).unwrap();
                    self.methods
                        .push(request["method"].as_str().unwrap().to_owned());
                    let at = now + endpoint.latency;
                    self.in_flight.insert((at, id), (url.to_string(), body));
                }
                output => self.outputs.push(output),
            }
        }
    }
}
