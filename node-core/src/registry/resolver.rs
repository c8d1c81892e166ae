//! Names in, records out.

use super::{
    budget::ReadBudget,
    cache::{Cache, Entry, Fact},
    config::{RegistryConfig, ResolverLimits},
    drive::Fetch,
    endpoint::{Endpoint, EndpointHealth},
    error::ResolveError,
    heights::Heights,
    names::{self, NameParseError},
    probe::{Probe, ProbeReport},
    read::{Agreement, Read, Waiter},
    record::{Provenance, Record, RecordError, Resolved},
    registries::{Registries, Registry},
    watch::Watch,
};
use crate::{
    code::Code,
    name::{Name, RegistryId},
    sorted::Map,
    time::{Duration, Instant, Now},
};
use alloc::{collections::VecDeque, string::String, sync::Arc, vec::Vec};

/// One look-up that waits for an answer. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// One request to an endpoint. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub(super) u64);

/// One probe of an endpoint. Never used twice; without the feature `probe` there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(
    #[cfg(feature = "probe")] pub(super) u64,
    #[cfg(not(feature = "probe"))] core::convert::Infallible,
);

/// How new a record must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As new as the cache promises: [`ResolverLimits::fresh_for`].
    Cached,
    /// Read less than this long ago. Zero forces a read.
    NewerThan(Duration),
}

/// Who makes us look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Our own application or operator: costs no budget.
    Own,
    /// A peer. The number stands for its address group, or for the router that vouches for it: sources are told apart
    /// by it and have a budget each.
    Peer(u64),
    /// The same of a peer that has the key which the name had when it was last read.
    Known(u64),
}

/// The immediate answer to [`Resolver::lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Without asking anybody.
    Ready(Result<Resolved, ResolveError>),
    /// [`ResolverOutput::Done`] will follow, exactly once.
    Pending(LookupId),
}

/// What a driver must do, and what its node wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolverOutput {
    /// Post `body` to `url` as `application/json`, without following redirects, and hand whatever comes back to
    /// [`Resolver::handle_answer`]. Answers that come too late do no harm.
    Fetch {
        /// To be handed back with the answer.
        id: FetchId,
        /// The endpoint.
        url: Arc<str>,
        /// A JSON-RPC request.
        body: String,
    },
    /// A look-up has ended.
    Done {
        /// Which one.
        id: LookupId,
        /// What it brought.
        result: Result<Resolved, ResolveError>,
    },
    /// The chain says something else about a name than it did when we last looked: another version, key or owner, or
    /// nothing usable any more.
    Changed {
        /// The name.
        name: Name,
        /// What it says now.
        result: Result<Resolved, ResolveError>,
    },
    /// A probe has ended.
    Probed {
        /// Which one.
        id: ProbeId,
        /// The endpoint.
        url: Arc<str>,
        /// What it is, or what is wrong with it.
        result: Result<ProbeReport, ResolveError>,
    },
}

/// Resolves names: pinned ones at once, others by reading their registries.
#[derive(Debug)]
pub struct Resolver {
    pub(super) limits: ResolverLimits,
    pub(super) registries: Registries,
    pinned: Map<Name, Arc<Record>>,
    pub(super) cache: Cache,
    /// Of reads that peers cause: those who are known have their own, which no crowd of strangers uses up.
    budgets: [ReadBudget; 2],
    pub(super) reads: Map<u64, Read>,
    reading: Map<Name, u64>,
    /// Look-ups that wait for a read.
    waiting: usize,
    pub(super) fetches: Map<FetchId, Fetch>,
    pub(super) probes: Map<ProbeId, Probe>,
    pub(super) outputs: VecDeque<ResolverOutput>,
    next_id: u64,
}

impl Resolver {
    /// A resolver that has not asked anybody anything yet. Pinned records that do not pass [`Record::check`] are given
    /// back by name.
    pub fn new(
        registries: Vec<RegistryConfig>,
        pinned: Vec<(Name, Record)>,
        limits: ResolverLimits,
    ) -> Result<Self, (Name, RecordError)> {
        let registries = registries.into_iter().map(|config| Registry {
            endpoints: config.rpcs.iter().map(|url| Endpoint::new(url)).collect(),
            heights: Heights::new(config.rpcs.len(), usize::from(config.effective_quorum())),
            watch: Watch::new(config.rpcs.len(), usize::from(config.effective_quorum())),
            config,
        });
        let mut resolver = Self {
            registries: Registries::new(registries.collect()),
            pinned: Map::default(),
            cache: Cache::new(limits.cache_entries),
            budgets: Default::default(),
            reads: Map::default(),
            reading: Map::default(),
            waiting: 0,
            fetches: Map::default(),
            probes: Map::default(),
            outputs: VecDeque::new(),
            next_id: 0,
            limits,
        };
        for (name, record) in pinned {
            resolver
                .pin(name.clone(), record)
                .map_err(|error| (name, error))?;
        }
        Ok(resolver)
    }

    /// The bounds in force; a driver reads no answer beyond their `answer_bytes`.
    pub fn limits(&self) -> &ResolverLimits {
        &self.limits
    }

    /// The configured registries, in order.
    pub fn registries(&self) -> impl Iterator<Item = &RegistryConfig> + Clone {
        self.registries.iter().map(|registry| &registry.config)
    }

    /// Whether names of this registry mean anything here.
    pub fn knows(&self, registry: &RegistryId) -> bool {
        self.registries().any(|config| config.id == *registry)
    }

    /// Reads a name as people write it: `alice.nectar`.
    pub fn parse(&self, text: &str) -> Result<Name, NameParseError> {
        names::parse(text, self.registries())
    }

    /// Writes a name as people read it; with chain and contract if its registry is not configured.
    pub fn display(&self, name: &Name) -> String {
        names::display(name, self.registries())
    }

    /// What is known about a name now, without any read. Pinned records are as good as new.
    pub fn cached(&self, name: &Name, now: Instant) -> Option<Resolved> {
        if let Some(pinned) = self.pinned(name, now) {
            return Some(pinned);
        }
        self.known(name, Freshness::Cached, now)?.ok()
    }

    /// What was read last about a name, however long ago, or why that is no use. Pinned records are as good as new.
    pub fn last_read(&self, name: &Name, now: Instant) -> Option<Result<Resolved, ResolveError>> {
        if let Some(pinned) = self.pinned(name, now) {
            return Some(Ok(pinned));
        }
        Some(self.told(name, self.cache.get(name)?, now))
    }

    /// How each endpoint does its work.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.registries
            .iter()
            .flat_map(|registry| {
                registry
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint.health(registry.config.id))
            })
            .collect()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn deadline(&self) -> Option<Instant> {
        let fetches = self
            .fetches
            .values()
            .next()
            .map(|fetch| fetch.sent + self.limits.fetch_timeout);
        let reads = self.reads.values().map(Read::deadline).min();
        let polls = self
            .registries
            .iter()
            .filter_map(|registry| registry.watch.deadline())
            .min();
        [fetches, reads, polls].into_iter().flatten().min()
    }

    /// The next thing to do; `None` when there is nothing more until the next input.
    pub fn poll_output(&mut self) -> Option<ResolverOutput> {
        self.outputs.pop_front()
    }

    /// Makes a record known without any chain. It takes precedence over what the chain says.
    pub fn pin(&mut self, name: Name, record: Record) -> Result<(), RecordError> {
        record.check()?;
        self.pinned.insert(name, Arc::new(record));
        Ok(())
    }

    /// Looks a name up. Look-ups of one name share one read.
    ///
    /// A read for a peer is taken from the budgets of [`ResolverLimits`]; beyond them the answer is `key_unconfirmed`
    /// if a record is known, only not one as fresh as asked for, and `read_budget` otherwise, both with a retry time.
    pub fn lookup(&mut self, name: &Name, freshness: Freshness, cause: Cause, now: Now) -> Lookup {
        let now = now.mono;
        if let Some(pinned) = self.pinned(name, now) {
            return Lookup::Ready(Ok(pinned));
        }
        let Some(registry) = self
            .registries
            .iter()
            .position(|registry| registry.config.id == name.registry)
        else {
            return Lookup::Ready(Err(ResolveError::new(Code::RegistryUnknown)));
        };
        if let Some(known) = self.known(name, freshness, now) {
            self.cache.touch(name);
            return Lookup::Ready(known);
        }
        if self.registries.get(registry).endpoints.is_empty() {
            let detail = "it is not among the pinned records, and its registry has no RPC endpoint";
            return Lookup::Ready(Err(ResolveError::with(Code::NameUnknown, detail)));
        }
        if let Err(error) = self.admit(name, cause, now) {
            return Lookup::Ready(Err(error));
        }
        let lookup = LookupId(self.fresh_id());
        let id = match self.reading.get(name) {
            Some(id) => *id,
            None => self.new_read(name, registry, now),
        };
        // A read that is under way may have settled on its block before whatever made us look. Peers take what comes:
        // theirs would be a second read for the budget of one.
        let not_before = match (freshness, cause) {
            (Freshness::NewerThan(age), Cause::Own) => now - age,
            _ => Instant::default(),
        };
        if let Some(read) = self.reads.get_mut(&id) {
            read.waiters.push(Waiter { lookup, not_before });
            self.waiting += 1;
        }
        self.drive_read(id, now);
        Lookup::Pending(lookup)
    }

    /// What is known about a name no longer counts as fresh: we changed its record ourselves, or have reason to believe
    /// that somebody did.
    pub fn invalidate(&mut self, name: &Name) {
        if let Some(entry) = self.cache.get_mut(name) {
            entry.invalidated = true;
        }
        if let Some(read) = self.reading.get(name).and_then(|id| self.reads.get_mut(id)) {
            read.outdated = true;
        }
    }

    /// Follows changes of a name until [`unwatch`](Self::unwatch) was called as often.
    pub fn watch(&mut self, name: &Name, now: Instant) {
        let known_at = self.cache.get(name).map(|entry| entry.block.number);
        if self.pinned.contains_key(name) {
            return;
        }
        if let Some(registry) = self
            .registries
            .iter_mut()
            .find(|registry| registry.config.id == name.registry)
            && !registry.endpoints.is_empty()
        {
            registry.watch.add(name, known_at, &self.limits, now);
        }
    }

    /// Takes one [`watch`](Self::watch) back.
    pub fn unwatch(&mut self, name: &Name) {
        if let Some(registry) = self
            .registries
            .iter_mut()
            .find(|registry| registry.config.id == name.registry)
        {
            registry.watch.remove(name);
        }
    }

    /// Asks every endpoint of a registry for its chain, its newest block and the registry's version; one
    /// [`ResolverOutput::Probed`] follows for each.
    #[cfg(feature = "probe")]
    pub fn probe(&mut self, registry: &RegistryId, now: Now) -> Vec<ProbeId> {
        let Some(index) = self
            .registries
            .iter()
            .position(|found| found.config.id == *registry)
        else {
            return Vec::new();
        };
        (0..self.registries.get(index).endpoints.len())
            .map(|endpoint| self.begin_probe(index, endpoint, now.mono))
            .collect()
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn pinned(&self, name: &Name, now: Instant) -> Option<Resolved> {
        let record = self.pinned.get(name)?.clone();
        Some(Resolved {
            name: name.clone(),
            record,
            how: Provenance::Pinned,
            block: None,
            at: now,
        })
    }

    fn known(
        &self,
        name: &Name,
        freshness: Freshness,
        now: Instant,
    ) -> Option<Result<Resolved, ResolveError>> {
        let entry = self.cache.get(name)?;
        let lifetime = match entry.fact {
            Fact::Unknown => self.limits.unknown_for,
            _ => self.limits.fresh_for,
        };
        let lifetime = match freshness {
            Freshness::Cached => lifetime,
            Freshness::NewerThan(age) => age.min(lifetime),
        };
        if entry.invalidated || now.since(entry.at) >= lifetime {
            return None;
        }
        Some(self.told(name, entry, now))
    }

    fn told(&self, name: &Name, entry: &Entry, now: Instant) -> Result<Resolved, ResolveError> {
        let record = entry.result(now, self.limits.unknown_for)?;
        Ok(Resolved {
            name: name.clone(),
            record,
            how: entry.how,
            block: Some(entry.block),
            at: entry.at,
        })
    }

    /// Whether this look-up may wait for a read, and begin one if there is none to share.
    fn admit(&mut self, name: &Name, cause: Cause, now: Instant) -> Result<(), ResolveError> {
        let (source, known) = match cause {
            Cause::Own => return Ok(()),
            Cause::Peer(source) => (source, false),
            Cause::Known(source) => (source, true),
        };
        if self.waiting >= self.limits.waiting {
            return Err(ResolveError::new(Code::ReadBudget).after(Duration::from_secs(1)));
        }
        if self.reading.contains_key(name) {
            return Ok(());
        }
        self.budgets[usize::from(known)]
            .take(name, source, &self.limits, now)
            .map_err(|retry| {
                let code = match self.known(name, Freshness::Cached, now) {
                    Some(Ok(_)) => Code::KeyUnconfirmed,
                    _ => Code::ReadBudget,
                };
                ResolveError::new(code).after(retry)
            })
    }

    fn new_read(&mut self, name: &Name, registry: usize, now: Instant) -> u64 {
        let id = self.fresh_id();
        let Registry {
            config, endpoints, ..
        } = self.registries.get(registry);
        let need = usize::from(config.effective_quorum());
        let read = Read::new(
            name.clone(),
            registry,
            endpoints.len(),
            need,
            &self.limits,
            now,
        );
        self.reads.insert(id, read);
        self.reading.insert(name.clone(), id);
        id
    }

    /// Reads a watched name again, for nobody in particular.
    pub(super) fn read_again(&mut self, name: &Name, registry: usize, now: Instant) {
        if !self.reading.contains_key(name) {
            let id = self.new_read(name, registry, now);
            self.drive_read(id, now);
        }
    }

    /// Takes what a quorum says, unless it is older than what is known: then says what the read must do.
    pub(super) fn accept(&mut self, read: &Read, agreement: &Agreement, now: Instant) -> Accepted {
        let Agreement {
            fact,
            block,
            agreeing,
            ..
        } = agreement;
        let of = self.registries.get(read.registry).endpoints.len();
        if let Some(entry) = self.cache.get_mut(&read.name)
            && fact.contradicts(&entry.fact)
        {
            // A head that is admitted at all is at most `head_age` old, so what was known before that is not newer.
            let newer = block.number >= entry.block.number
                || read.round_began.since(entry.at) > self.limits.head_age;
            if !newer {
                return Accepted::Older;
            }
            if *agreeing < 2 {
                if of > 1 {
                    return Accepted::NeedsQuorum;
                }
                match &entry.doubt {
                    Some((height, doubted)) if doubted == fact && *height < block.number => {}
                    Some((_, doubted)) if doubted == fact => return Accepted::Doubted,
                    _ => {
                        entry.doubt = Some((block.number, fact.clone()));
                        return Accepted::Doubted;
                    }
                }
            }
        }
        let how = match *agreeing {
            ..=1 => Provenance::OneRpc,
            agreeing => Provenance::Quorum {
                agreeing: u8::try_from(agreeing).unwrap_or(u8::MAX),
                of: u8::try_from(of).unwrap_or(u8::MAX),
            },
        };
        let before = self
            .cache
            .insert(&read.name, fact.clone(), how, *block, read.round_began);
        if let Some(entry) = self.cache.get_mut(&read.name) {
            entry.invalidated = read.outdated;
        }
        self.registries
            .get_mut(read.registry)
            .watch
            .was_read(&read.name, block.number, now);
        // A name that nobody had is none that anybody held.
        let changed = before
            .is_some_and(|before| before.fact != *fact && !matches!(before.fact, Fact::Unknown));
        let result = match self.cache.get(&read.name) {
            Some(entry) => entry.result(now, self.limits.unknown_for),
            None => Err(ResolveError::new(Code::ChainUnavailable)),
        };
        let result = result.map(|record| Resolved {
            name: read.name.clone(),
            record,
            how,
            block: Some(*block),
            at: read.round_began,
        });
        if changed {
            self.outputs.push_back(ResolverOutput::Changed {
                name: read.name.clone(),
                result: result.clone(),
            });
        }
        Accepted::Yes(result)
    }

    /// Tells everybody who waits for a read how it ended. Whoever needs something newer waits for the next one.
    pub(super) fn finish(
        &mut self,
        read: Read,
        result: &Result<Resolved, ResolveError>,
        agreed: bool,
        now: Instant,
    ) {
        let Read {
            name,
            registry,
            waiters,
            round_began,
            ..
        } = read;
        self.reading.remove(&name);
        let (done, left): (Vec<Waiter>, Vec<Waiter>) = waiters
            .into_iter()
            .partition(|waiter| !agreed || waiter.not_before <= round_began);
        self.waiting = self.waiting.saturating_sub(done.len());
        let done = done.into_iter().map(|waiter| ResolverOutput::Done {
            id: waiter.lookup,
            result: result.clone(),
        });
        self.outputs.extend(done);
        if !left.is_empty() {
            let id = self.new_read(&name, registry, now);
            if let Some(read) = self.reads.get_mut(&id) {
                read.waiters = left;
            }
            self.drive_read(id, now);
        }
    }
}

/// What became of an agreement.
#[derive(Debug)]
pub(super) enum Accepted {
    /// It is what is known from now on, and the answer.
    Yes(Result<Resolved, ResolveError>),
    /// It shows the registry before the block at which we last read: the endpoints lag.
    Older,
    /// It goes back behind what is known, and more endpoints must say so.
    NeedsQuorum,
    /// It goes back behind what is known, and there is nobody else to ask: it must be said again at a later block.
    Doubted,
}
