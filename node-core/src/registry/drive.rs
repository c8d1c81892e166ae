//! Fetches: what is asked of which endpoint, and where each answer goes.

use super::{
    abi,
    endpoint::{EndpointState, by_health},
    error::{FetchFailure, ResolveError},
    read::{Ask, Read, Step, blame},
    record::Block,
    resolver::{Accepted, FetchId, ProbeId, Resolver, ResolverOutput},
    rpc::{self, Refusal},
};
use crate::{
    code::Code,
    name::Label,
    time::{Duration, Instant, Now},
};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) registry: usize,
    pub(super) endpoint: usize,
    pub(super) sent: Instant,
    /// Others were asked because this one takes so long.
    lags: bool,
    pub(super) purpose: Purpose,
}

/// What an answer is wanted for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Which chain is it? If the right one, go on with all that was wanted meanwhile.
    Chain(Vec<Purpose>),
    ReadHead {
        read: u64,
        round: u8,
    },
    ReadBlock {
        read: u64,
        round: u8,
        block: Block,
    },
    ReadRecord {
        read: u64,
        round: u8,
        label: Label,
        block: Block,
    },
    #[cfg_attr(
        not(feature = "probe"),
        expect(dead_code, reason = "nobody begins a probe")
    )]
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
                    &FetchFailure::TooLarge,
                    now.mono,
                );
            }
            Err(failure) => {
                self.fetch_failed(
                    fetch,
                    EndpointState::Unreachable,
                    Code::RpcUnreachable,
                    &failure,
                    now.mono,
                );
            }
            Ok(bytes) => match rpc::result(id.0, bytes) {
                Err(invalid @ Refusal::Invalid(_)) => {
                    self.fetch_failed(
                        fetch,
                        EndpointState::Invalid,
                        Code::RpcInvalid,
                        &invalid,
                        now.mono,
                    );
                }
                Err(limited @ Refusal::RateLimited) => {
                    self.fetch_failed(
                        fetch,
                        EndpointState::Unreachable,
                        Code::RpcUnreachable,
                        &limited,
                        now.mono,
                    );
                }
                result => {
                    let latency = now.mono.since(fetch.sent);
                    let Self {
                        registries, limits, ..
                    } = self;
                    registries
                        .endpoint_mut(fetch.registry, fetch.endpoint)
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
        for (id, fetch) in self.fetches.iter_mut() {
            let age = now.since(fetch.sent);
            if age >= self.limits.fetch_timeout {
                expired.push(*id);
            } else if age >= self.limits.hedge_after && !fetch.lags {
                fetch.lags = true;
                self.registries
                    .endpoint_mut(fetch.registry, fetch.endpoint)
                    .lags(now);
            }
        }
        for id in expired {
            if let Some(fetch) = self.fetches.remove(&id) {
                let (state, code) = (EndpointState::Unreachable, Code::RpcUnreachable);
                self.fetch_failed(fetch, state, code, &FetchFailure::Timeout, now);
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
            if let Some(endpoint) = registries.get_mut(registry).watch.begin(limits, now) {
                // A crowd of other names must not push out what these are compared with.
                for name in registries.get(registry).watch.names() {
                    self.cache.touch(name);
                }
                self.fetch(registry, endpoint, Purpose::WatchHead, now);
                self.read_due(registry, true, now);
            }
        }
    }

    /// Lets a read go as far as it can.
    pub(super) fn drive_read(&mut self, id: u64, now: Instant) {
        let Some(mut read) = self.reads.remove(&id) else {
            return;
        };
        loop {
            let order = by_health(&self.registries.get(read.registry).endpoints, now);
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
                        self.registries
                            .endpoint_mut(read.registry, *endpoint)
                            .failed(EndpointState::Lying, detail, now);
                    }
                    for endpoint in &agreement.distrusted {
                        let detail = String::from("nobody else knew its newest block");
                        self.registries
                            .endpoint_mut(read.registry, *endpoint)
                            .failed(EndpointState::Invalid, detail, now);
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

    #[cfg(feature = "probe")]
    pub(super) fn begin_probe(
        &mut self,
        registry: usize,
        endpoint: usize,
        now: Instant,
    ) -> ProbeId {
        let id = ProbeId(self.fresh_id());
        let probe = super::probe::Probe {
            registry: self.registries.get(registry).config.id,
            url: self.registries.endpoint(registry, endpoint).url.clone(),
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
            Ask::Block(block) => Purpose::ReadBlock {
                read: id,
                round,
                block,
            },
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
    pub(super) fn fetch(
        &mut self,
        registry: usize,
        endpoint: usize,
        purpose: Purpose,
        now: Instant,
    ) {
        let found = self.registries.endpoint(registry, endpoint);
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
                self.registries.endpoint_mut(registry, endpoint).chain_check = Some(id);
            }
        }
    }

    pub(super) fn send(
        &mut self,
        registry: usize,
        endpoint: usize,
        purpose: Purpose,
        now: Instant,
    ) -> FetchId {
        let id = self.fresh_id();
        let contract = &self.registries.get(registry).config.id.contract;
        let body = match &purpose {
            Purpose::Chain(_) => rpc::chain_id_body(id),
            Purpose::ReadHead { .. } | Purpose::ProbeHead(_) | Purpose::WatchHead => {
                rpc::head_body(id)
            }
            Purpose::ReadBlock { block, .. } => rpc::block_body(id, block),
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
        let url = self.registries.endpoint(registry, endpoint).url.clone();
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

    pub(super) fn fetch_failed(
        &mut self,
        fetch: Fetch,
        state: EndpointState,
        code: Code,
        what: &dyn core::fmt::Display,
        now: Instant,
    ) {
        let endpoint = self.registries.endpoint_mut(fetch.registry, fetch.endpoint);
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
            | Purpose::ReadBlock {
                read: id, round, ..
            }
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
                self.registries.get_mut(registry).watch.refused(now);
            }
            // The next poll is another endpoint's turn.
            Purpose::WatchHead | Purpose::WatchLogs { .. } | Purpose::Chain(_) => {}
        }
    }
}
