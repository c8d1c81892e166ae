//! Fetches: what is asked of which endpoint, and where each answer goes.

use super::{
    abi::{self, NotARecord},
    cache::Fact,
    endpoint::{EndpointState, by_health},
    error::{FetchFailure, ResolveError},
    probe::{Probe, ProbeReport},
    read::{Ask, Read, Step, blame},
    record::Block,
    resolver::{Accepted, FetchId, ProbeId, Resolver, ResolverOutput},
    rpc::{self, Head, Refusal},
};
use crate::{
    code::Code,
    name::Label,
    time::{Duration, Instant, Now},
};
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use serde_json::Value;

#[derive(Debug)]
pub(super) struct Fetch {
    registry: usize,
    endpoint: usize,
    pub(super) sent: Instant,
    lags: bool,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// Which chain is it? If the right one, go on with all that was wanted meanwhile.
    Chain(Vec<Purpose>),
    ReadHead {
        read: u64,
        round: u8,
    },
    ReadRecord {
        read: u64,
        round: u8,
        label: Label,
        block: Block,
    },
    ProbeHead(ProbeId),
    ProbeVersion(ProbeId, Block),
    WatchHead,
    WatchLogs {
        from: u64,
        to: u64,
        tokens: Vec<[u8; 32]>,
    },
}

/// A single endpoint that shows an older state is asked again after this time.
const DOUBT_RETRY: Duration = Duration::from_secs(5);

impl Resolver {
    /// Takes what an endpoint answered, or why there is no answer. Unknown and finished fetches are ignored.
    pub fn handle_answer(&mut self, id: FetchId, answer: Result<&[u8], FetchFailure>, now: Now) {
        let Some(fetch) = self.fetches.remove(&id) else {
            return;
        };
        let answer = answer.and_then(|bytes| match bytes.len() <= self.limits.answer_bytes {
            true => Ok(bytes),
            false => Err(FetchFailure::TooLarge),
        });
        match answer {
            Err(FetchFailure::TooLarge) => {
                self.fetch_failed(
                    fetch,
                    EndpointState::Invalid,
                    Code::RpcInvalid,
                    FetchFailure::TooLarge,
                    now.mono,
                );
            }
            Err(failure) => {
                self.fetch_failed(
                    fetch,
                    EndpointState::Unreachable,
                    Code::RpcUnreachable,
                    failure,
                    now.mono,
                );
            }
            Ok(bytes) => match rpc::result(id.0, bytes) {
                Err(invalid @ Refusal::Invalid(_)) => {
                    self.fetch_failed(
                        fetch,
                        EndpointState::Invalid,
                        Code::RpcInvalid,
                        invalid,
                        now.mono,
                    );
                }
                Err(limited @ Refusal::RateLimited) => {
                    self.fetch_failed(
                        fetch,
                        EndpointState::Unreachable,
                        Code::RpcUnreachable,
                        limited,
                        now.mono,
                    );
                }
                result => {
                    let latency = now.mono.since(fetch.sent);
                    let Self {
                        registries, limits, ..
                    } = self;
                    registries[fetch.registry].endpoints[fetch.endpoint]
                        .answered(latency, limits, now.mono);
                    self.answered(fetch, result, now);
                }
            },
        }
    }

    /// Acts on everything whose time has come.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        let mut expired = Vec::new();
        for (id, fetch) in &mut self.fetches {
            let age = now.since(fetch.sent);
            if age >= self.limits.fetch_timeout {
                expired.push(*id);
            } else if age >= self.limits.hedge_after && !fetch.lags {
                fetch.lags = true;
                self.registries[fetch.registry].endpoints[fetch.endpoint].lags(now);
            }
        }
        for id in expired {
            if let Some(fetch) = self.fetches.remove(&id) {
                let (state, code) = (EndpointState::Unreachable, Code::RpcUnreachable);
                self.fetch_failed(fetch, state, code, FetchFailure::Timeout, now);
            }
        }
        let due: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, read)| read.deadline() <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.drive_read(id, now);
        }
        for registry in 0..self.registries.len() {
            let Self {
                registries, limits, ..
            } = self;
            let endpoints = registries[registry].endpoints.len();
            if let Some(endpoint) = registries[registry].watch.begin(endpoints, limits, now) {
                // A crowd of other names must not push out what these are compared with.
                for name in registries[registry].watch.names() {
                    self.cache.touch(name);
                }
                self.fetch(registry, endpoint, Purpose::WatchHead, now);
                self.read_due(registry, now);
            }
        }
    }

    /// Lets a read go as far as it can.
    pub(super) fn drive_read(&mut self, id: u64, now: Instant) {
        let Some(mut read) = self.reads.remove(&id) else {
            return;
        };
        loop {
            let order = by_health(&self.registries[read.registry].endpoints, now);
            let mut agreed = false;
            let result = match read.step(&order, &self.limits, now) {
                Step::Wait => break,
                Step::Ask(asks) => {
                    for (endpoint, ask) in asks {
                        self.ask(id, &read, endpoint, ask, now);
                    }
                    break;
                }
                Step::Failed(error) => Err(error),
                Step::Agreed(agreement) => {
                    for endpoint in &agreement.dissenting {
                        let detail = format!(
                            "it contradicted the others at block {}",
                            agreement.block.number
                        );
                        self.registries[read.registry].endpoints[*endpoint].failed(
                            EndpointState::Lying,
                            detail,
                            now,
                        );
                    }
                    for endpoint in &agreement.distrusted {
                        let detail = String::from("nobody else knew its newest block");
                        self.registries[read.registry].endpoints[*endpoint].failed(
                            EndpointState::Invalid,
                            detail,
                            now,
                        );
                    }
                    match self.accept(&read, &agreement, now) {
                        Accepted::Yes(result) => {
                            agreed = true;
                            result
                        }
                        Accepted::NeedsQuorum => {
                            read.raise(2);
                            continue;
                        }
                        Accepted::Older => match read.again(&self.limits, now) {
                            Ok(()) => continue,
                            Err(error) => Err(error),
                        },
                        Accepted::Doubted => {
                            let detail = "the only endpoint shows an older state than before; it must repeat that at a \
                                          later block";
                            Err(ResolveError::with(Code::RpcDisagree, detail).after(DOUBT_RETRY))
                        }
                    }
                }
            };
            return self.finish(read, &result, agreed, now);
        }
        self.reads.insert(id, read);
    }

    pub(super) fn begin_probe(
        &mut self,
        registry: usize,
        endpoint: usize,
        now: Instant,
    ) -> ProbeId {
        let id = ProbeId(self.fresh_id());
        let probe = Probe {
            registry: self.registries[registry].config.id,
            url: self.registries[registry].endpoints[endpoint].url.clone(),
            began: now,
            head: None,
        };
        self.probes.insert(id, probe);
        self.send(
            registry,
            endpoint,
            Purpose::Chain(vec![Purpose::ProbeHead(id)]),
            now,
        );
        id
    }

    fn ask(&mut self, id: u64, read: &Read, endpoint: usize, ask: Ask, now: Instant) {
        let round = read.round;
        let purpose = match ask {
            Ask::Head => Purpose::ReadHead { read: id, round },
            Ask::Record(block) => Purpose::ReadRecord {
                read: id,
                round,
                label: read.name.label.clone(),
                block,
            },
        };
        self.fetch(read.registry, endpoint, purpose, now);
    }

    /// Asks an endpoint, but first which chain it serves, if that is not known: the same contract address may hold
    /// another registry elsewhere.
    fn fetch(&mut self, registry: usize, endpoint: usize, purpose: Purpose, now: Instant) {
        let found = &self.registries[registry].endpoints[endpoint];
        if found.chain_is_checked(now) {
            self.send(registry, endpoint, purpose, now);
            return;
        }
        match found.chain_check.and_then(|id| self.fetches.get_mut(&id)) {
            Some(Fetch {
                purpose: Purpose::Chain(then),
                ..
            }) => then.push(purpose),
            _ => {
                let id = self.send(registry, endpoint, Purpose::Chain(vec![purpose]), now);
                self.registries[registry].endpoints[endpoint].chain_check = Some(id);
            }
        }
    }

    fn send(
        &mut self,
        registry: usize,
        endpoint: usize,
        purpose: Purpose,
        now: Instant,
    ) -> FetchId {
        let id = self.fresh_id();
        let contract = &self.registries[registry].config.id.contract;
        let body = match &purpose {
            Purpose::Chain(_) => rpc::chain_id_body(id),
            Purpose::ReadHead { .. } | Purpose::ProbeHead(_) | Purpose::WatchHead => {
                rpc::head_body(id)
            }
            Purpose::ReadRecord { label, block, .. } => {
                rpc::call_at_body(id, contract, &abi::resolve_call(label), block)
            }
            Purpose::ProbeVersion(_, block) => {
                rpc::call_at_body(id, contract, &abi::registry_version_call(), block)
            }
            Purpose::WatchLogs { from, to, tokens } => rpc::logs_body(
                id,
                contract,
                *from,
                *to,
                &abi::record_changed_topic(),
                tokens,
            ),
        };
        let url = self.registries[registry].endpoints[endpoint].url.clone();
        self.fetches.insert(
            FetchId(id),
            Fetch {
                registry,
                endpoint,
                sent: now,
                lags: false,
                purpose,
            },
        );
        self.outputs.push_back(ResolverOutput::Fetch {
            id: FetchId(id),
            url,
            body,
        });
        FetchId(id)
    }

    fn answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Now) {
        match fetch.purpose {
            Purpose::Chain(_) => self.chain_answered(fetch, result, now.mono),
            Purpose::ReadHead { .. } | Purpose::ProbeHead(_) | Purpose::WatchHead => {
                self.head_answered(fetch, result, now);
            }
            Purpose::ReadRecord { .. } => self.record_answered(fetch, result, now.mono),
            Purpose::ProbeVersion(..) => self.version_answered(fetch, result, now.mono),
            Purpose::WatchLogs { .. } => self.logs_answered(fetch, result, now.mono),
        }
    }

    fn chain_answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Instant) {
        let expected = self.registries[fetch.registry].config.id.chain_id;
        match result.as_ref().map(rpc::quantity) {
            Ok(Some(chain)) if chain == expected => {
                self.registries[fetch.registry].endpoints[fetch.endpoint].chain_checked(now);
                if let Purpose::Chain(then) = fetch.purpose {
                    for purpose in then {
                        self.send(fetch.registry, fetch.endpoint, purpose, now);
                    }
                }
            }
            Ok(Some(chain)) => {
                let what = format!("it serves chain {chain}, not {expected}");
                self.fetch_failed(
                    fetch,
                    EndpointState::WrongChain,
                    Code::WrongChain,
                    what,
                    now,
                );
            }
            _ => self.senseless(fetch, &result, "a chain id", now),
        }
    }

    fn head_answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Now) {
        let Ok(Some(head)) = result.as_ref().map(rpc::head) else {
            return self.senseless(fetch, &result, "a block", now.mono);
        };
        let age = now.wall.distance(head.time);
        if age > self.limits.head_age {
            let direction = if head.time > now.wall {
                "in the future; is our clock right?"
            } else {
                "old"
            };
            let what = format!("its newest block is {} s {direction}", age.as_secs());
            return self.fetch_failed(fetch, EndpointState::Stale, Code::RpcStale, what, now.mono);
        }
        let Fetch {
            registry, endpoint, ..
        } = fetch;
        self.registries[registry].endpoints[endpoint].has_head(head.block.number);
        match fetch.purpose {
            Purpose::ReadHead { read: id, round } => {
                if let Some(read) = self.reads.get_mut(&id) {
                    read.head(endpoint, round, head);
                }
                self.drive_read(id, now.mono);
            }
            Purpose::ProbeHead(id) => {
                if let Some(probe) = self.probes.get_mut(&id) {
                    probe.head = Some((head.block.number, age));
                }
                self.send(
                    registry,
                    endpoint,
                    Purpose::ProbeVersion(id, head.block),
                    now.mono,
                );
            }
            _ => self.watch_head(registry, endpoint, &head, now.mono),
        }
    }

    fn record_answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Instant) {
        let Purpose::ReadRecord {
            read: id,
            ref label,
            block,
            ..
        } = fetch.purpose
        else {
            return;
        };
        let host = self.registries[fetch.registry].endpoints[fetch.endpoint].host();
        let vote = match &result {
            Ok(value) => match rpc::bytes(value)
                .ok_or(NotARecord::Malformed)
                .and_then(|data| abi::decode_record(&data))
            {
                Ok(record) => {
                    let (version, epoch) = (record.version, record.epoch);
                    Ok(match record.check() {
                        Ok(record) => Fact::Known(Arc::new(record)),
                        Err(why) => Fact::Unusable {
                            version,
                            epoch,
                            why,
                        },
                    })
                }
                Err(NotARecord::Empty) => {
                    return self.fetch_failed(
                        fetch,
                        EndpointState::Invalid,
                        Code::NotARegistry,
                        NotARecord::Empty,
                        now,
                    );
                }
                Err(NotARecord::Malformed) => {
                    return self.senseless(fetch, &result, "a record", now);
                }
            },
            Err(Refusal::Revert(data)) if abi::is_name_unknown(data, label) => Ok(Fact::Unknown),
            Err(Refusal::Revert(_)) => return self.senseless(fetch, &result, "a record", now),
            Err(refusal) => Err(blame(Code::RpcInvalid, host, refusal)),
        };
        if let Some(read) = self.reads.get_mut(&id) {
            match vote {
                Ok(fact) => read.vote(fetch.endpoint, &block, fact),
                Err(why) => read.cannot_vote(fetch.endpoint, &block, why),
            }
        }
        self.drive_read(id, now);
    }

    fn version_answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Instant) {
        let Purpose::ProbeVersion(id, _) = fetch.purpose else {
            return;
        };
        let version = match &result {
            Ok(value) => rpc::bytes(value).and_then(|data| abi::decode_version(&data)),
            Err(Refusal::Revert(_)) => None,
            Err(_) => return self.senseless(fetch, &result, "the registry's version", now),
        };
        if version != Some(abi::REGISTRY_VERSION) {
            let what = match version {
                Some(version) => {
                    format!("the contract says that it is version {version}; 1 is known here")
                }
                None => String::from("there is no nectar registry at the contract's address"),
            };
            return self.fetch_failed(fetch, EndpointState::Invalid, Code::NotARegistry, what, now);
        }
        let Some(probe) = self.probes.remove(&id) else {
            return;
        };
        let (head, head_age) = probe.head.unwrap_or_default();
        let result = Ok(ProbeReport {
            registry: probe.registry,
            head,
            head_age,
            registry_version: abi::REGISTRY_VERSION,
            took: now.since(probe.began),
        });
        self.outputs.push_back(ResolverOutput::Probed {
            id,
            url: probe.url,
            result,
        });
    }

    fn watch_head(&mut self, registry: usize, endpoint: usize, head: &Head, now: Instant) {
        let Self {
            registries, limits, ..
        } = self;
        if registries[registry].watch.is_idle() {
            return;
        }
        match registries[registry].watch.range(head.block.number, limits) {
            Some(range) => {
                let purpose = Purpose::WatchLogs {
                    from: range.from,
                    to: range.to,
                    tokens: range.tokens,
                };
                self.fetch(registry, endpoint, purpose, now);
            }
            None => self.read_due(registry, now),
        }
    }

    fn logs_answered(&mut self, fetch: Fetch, result: Result<Value, Refusal>, now: Instant) {
        let Purpose::WatchLogs { from, to, .. } = fetch.purpose else {
            return;
        };
        let watch = &mut self.registries[fetch.registry].watch;
        match result
            .as_ref()
            .map(|value| rpc::changes(value, &abi::record_changed_topic()))
        {
            Ok(Some(changes)) => {
                for name in watch.changes(from, to, changes) {
                    self.invalidate(&name);
                }
                self.read_due(fetch.registry, now);
            }
            Ok(None) => self.senseless(fetch, &result, "a list of events", now),
            Err(_) => {
                let endpoints = self.registries[fetch.registry].endpoints.len();
                self.registries[fetch.registry]
                    .watch
                    .refused(endpoints, now);
                self.read_due(fetch.registry, now);
            }
        }
    }

    /// Reads again what was found changed.
    fn read_due(&mut self, registry: usize, now: Instant) {
        let Self {
            registries, limits, ..
        } = self;
        for name in registries[registry].watch.due(limits, now) {
            self.read_again(&name, registry, now);
        }
    }

    /// The endpoint answered something that is not what it was asked for.
    fn senseless(
        &mut self,
        fetch: Fetch,
        result: &Result<Value, Refusal>,
        wanted: &str,
        now: Instant,
    ) {
        let what = match result {
            Ok(_) => format!("it did not answer with {wanted}"),
            Err(refusal) => refusal.to_string(),
        };
        self.fetch_failed(fetch, EndpointState::Invalid, Code::RpcInvalid, what, now);
    }

    fn fetch_failed(
        &mut self,
        fetch: Fetch,
        state: EndpointState,
        code: Code,
        what: impl core::fmt::Display,
        now: Instant,
    ) {
        let endpoint = &mut self.registries[fetch.registry].endpoints[fetch.endpoint];
        endpoint.failed(state, what.to_string(), now);
        let error = blame(code, endpoint.host(), what);
        let purposes = match fetch.purpose {
            Purpose::Chain(then) => then,
            purpose => vec![purpose],
        };
        for purpose in purposes {
            self.purpose_failed(fetch.registry, fetch.endpoint, purpose, error.clone(), now);
        }
    }

    fn purpose_failed(
        &mut self,
        registry: usize,
        endpoint: usize,
        purpose: Purpose,
        error: ResolveError,
        now: Instant,
    ) {
        match purpose {
            Purpose::ReadHead { read: id, round }
            | Purpose::ReadRecord {
                read: id, round, ..
            } => {
                if let Some(read) = self.reads.get_mut(&id) {
                    read.failed(endpoint, round, error);
                }
                self.drive_read(id, now);
            }
            Purpose::ProbeHead(id) | Purpose::ProbeVersion(id, _) => {
                if let Some(probe) = self.probes.remove(&id) {
                    let result = Err(error);
                    self.outputs.push_back(ResolverOutput::Probed {
                        id,
                        url: probe.url,
                        result,
                    });
                }
            }
            Purpose::WatchLogs { .. } if error.code == Code::RpcInvalid => {
                let endpoints = self.registries[registry].endpoints.len();
                self.registries[registry].watch.refused(endpoints, now);
            }
            // The next poll is another endpoint's turn.
            Purpose::WatchHead | Purpose::WatchLogs { .. } | Purpose::Chain(_) => {}
        }
    }
}
