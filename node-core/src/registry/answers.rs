//! What each answer means, once it is JSON.

use super::{
    abi::{self, NotARecord},
    cache::Fact,
    drive::{Fetch, Purpose},
    endpoint::EndpointState,
    json::Json,
    probe::ProbeReport,
    read::blame,
    registries::Registry,
    resolver::{Resolver, ResolverOutput},
    rpc::{self, Head, Refusal},
};
use crate::{
    code::Code,
    time::{Instant, Now},
};
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
};

impl Resolver {
    /// Hands an answer, or the endpoint's reasons for none, to whoever wants it.
    pub(super) fn answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Now) {
        match fetch.purpose {
            Purpose::Chain(_) => self.chain_answered(fetch, result, now.mono),
            Purpose::ReadHead { .. } | Purpose::ProbeHead(_) | Purpose::WatchHead => {
                self.head_answered(fetch, result, now);
            }
            Purpose::ReadBlock { .. } => self.block_answered(fetch, result, now.mono),
            Purpose::ReadRecord { .. } => self.record_answered(fetch, result, now.mono),
            Purpose::ProbeVersion(..) => self.version_answered(fetch, result, now.mono),
            Purpose::WatchLogs { .. } => self.logs_answered(fetch, result, now.mono),
        }
    }

    fn chain_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Instant) {
        let expected = self.registries.get(fetch.registry).config.id.chain_id;
        match result.as_ref().map(rpc::quantity) {
            Ok(Some(chain)) if chain == expected => {
                self.registries
                    .endpoint_mut(fetch.registry, fetch.endpoint)
                    .chain_checked(now);
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
                    &what,
                    now,
                );
            }
            _ => self.senseless(fetch, &result, "a chain id", now),
        }
    }

    fn head_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Now) {
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
            return self.fetch_failed(fetch, EndpointState::Stale, Code::RpcStale, &what, now.mono);
        }
        let Fetch {
            registry, endpoint, ..
        } = fetch;
        let Self {
            registries, limits, ..
        } = self;
        registries
            .endpoint_mut(registry, endpoint)
            .has_head(head.block.number);
        registries
            .get_mut(registry)
            .heights
            .told(endpoint, head.block.number, limits);
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

    /// An endpoint that has no such block, or another one by that hash, cannot vote on what is in it.
    fn block_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Instant) {
        let Purpose::ReadBlock {
            read: id, block, ..
        } = fetch.purpose
        else {
            return;
        };
        let host = self
            .registries
            .endpoint(fetch.registry, fetch.endpoint)
            .host();
        if let Some(read) = self.reads.get_mut(&id) {
            let told = result.as_ref().ok().and_then(rpc::head);
            if !told.is_some_and(|told| read.confirm(fetch.endpoint, &block, &told)) {
                let what =
                    "it does not know the newest block of another endpoint, or as an older one";
                read.cannot_vote(fetch.endpoint, &block, blame(Code::RpcInvalid, host, &what));
            }
        }
        self.drive_read(id, now);
    }

    fn record_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Instant) {
        let Purpose::ReadRecord {
            read: id,
            ref label,
            block,
            ..
        } = fetch.purpose
        else {
            return;
        };
        let host = self
            .registries
            .endpoint(fetch.registry, fetch.endpoint)
            .host();
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
                        &NotARecord::Empty,
                        now,
                    );
                }
                Err(NotARecord::Malformed) => {
                    return self.senseless(fetch, &result, "a record", now);
                }
            },
            Err(Refusal::Revert(data)) if abi::is_name_unknown(data, label) => Ok(Fact::Unknown),
            Err(Refusal::Revert(_)) => return self.senseless(fetch, &result, "a record", now),
            Err(refusal) => Err(blame(Code::RpcInvalid, host, &refusal)),
        };
        if let Some(read) = self.reads.get_mut(&id) {
            match vote {
                Ok(fact) => read.vote(fetch.endpoint, &block, fact),
                Err(why) => read.cannot_vote(fetch.endpoint, &block, why),
            }
        }
        self.drive_read(id, now);
    }

    fn version_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Instant) {
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
            return self.fetch_failed(
                fetch,
                EndpointState::Invalid,
                Code::NotARegistry,
                &what,
                now,
            );
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
        let Registry { heights, watch, .. } = registries.get_mut(registry);
        if watch.is_idle() {
            return;
        }
        let height = head.block.number;
        let Some(agreed) = heights.agreed_near(height, limits) else {
            watch.doubt(endpoint, now);
            return;
        };
        let lied = watch
            .take_doubted()
            .filter(|doubted| heights.is_far(*doubted, limits));
        let range = watch.range(endpoint, height, agreed, limits);
        if let Some(lied) = lied {
            let detail = format!("its newest block is far from block {agreed}, where others are");
            registries
                .endpoint_mut(registry, lied)
                .failed(EndpointState::Invalid, detail, now);
        }
        match range {
            Some(range) => {
                let purpose = Purpose::WatchLogs {
                    from: range.from,
                    to: range.to,
                    tokens: range.tokens,
                };
                self.fetch(registry, endpoint, purpose, now);
            }
            None => self.read_due(registry, false, now),
        }
    }

    fn logs_answered(&mut self, fetch: Fetch, result: Result<Json, Refusal>, now: Instant) {
        let Purpose::WatchLogs { from, to, .. } = fetch.purpose else {
            return;
        };
        let Self {
            registries, limits, ..
        } = self;
        let watch = &mut registries.get_mut(fetch.registry).watch;
        match result
            .as_ref()
            .map(|value| rpc::changes(value, &abi::record_changed_topic()))
        {
            Ok(Some(changes)) => {
                for name in watch.changes(fetch.endpoint, (from, to), changes, limits, now) {
                    self.invalidate(&name);
                }
                self.read_due(fetch.registry, false, now);
            }
            Ok(None) => self.senseless(fetch, &result, "a list of events", now),
            Err(_) => {
                watch.refused(now);
                self.read_due(fetch.registry, false, now);
            }
        }
    }

    /// Reads again what was found changed, and `again` what the last try left so.
    pub(super) fn read_due(&mut self, registry: usize, again: bool, now: Instant) {
        let Self {
            registries, limits, ..
        } = self;
        for name in registries.get_mut(registry).watch.due(again, limits, now) {
            self.read_again(&name, registry, now);
        }
    }

    /// The endpoint answered something that is not what it was asked for.
    fn senseless(
        &mut self,
        fetch: Fetch,
        result: &Result<Json, Refusal>,
        wanted: &str,
        now: Instant,
    ) {
        let what = match result {
            Ok(_) => format!("it did not answer with {wanted}"),
            Err(refusal) => refusal.to_string(),
        };
        self.fetch_failed(fetch, EndpointState::Invalid, Code::RpcInvalid, &what, now);
    }
}
