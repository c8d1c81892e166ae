//! One read: which endpoints to ask for what, and when enough of them agree.
//!
//! A read goes through rounds. In each it collects as many newest blocks as the quorum needs, settles on the lowest of
//! them, which all of these endpoints should have, and lets endpoints vote on what the registry says at that block's
//! hash. Whoever has not named the same block says first which number and time it has, or one endpoint alone could have all
//! of them vote on an old one. An endpoint that does not know the block, or not as that, cannot vote; if too few can, because
//! the chain was reorganised or somebody made the block up, the next round begins with a newer one.

use super::{
    cache::Fact, config::ResolverLimits, error::ResolveError, record::Block, resolver::LookupId,
    rpc::Head,
};
use crate::{
    code::Code,
    name::Name,
    sorted::{Map, Set},
    time::{Duration, Instant},
};
use alloc::{format, string::String, vec::Vec};

#[derive(Debug)]
pub(super) struct Read {
    pub(super) name: Name,
    /// Index of the registry.
    pub(super) registry: usize,
    pub(super) waiters: Vec<Waiter>,
    /// What it finds may have changed since it began.
    pub(super) outdated: bool,
    /// When the present round began: its record is at least as new.
    pub(super) round_began: Instant,
    pub(super) round: u8,
    deadline: Instant,
    /// Endpoints there are.
    endpoints: usize,
    /// Endpoints that must agree.
    need: usize,
    phase: Phase,
    hedge_at: Option<Instant>,
    /// Endpoints whose newest block too few others knew.
    distrusted: Set<usize>,
    failures: Map<usize, ResolveError>,
}

/// A look-up that waits for a read.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) lookup: LookupId,
    /// The answer must come from a round that began then or later.
    pub(super) not_before: Instant,
}

#[derive(Debug)]
enum Phase {
    Pause {
        until: Instant,
    },
    Heads {
        asked: Set<usize>,
        waiting: Set<usize>,
        heads: Map<usize, Head>,
    },
    Votes(Votes),
}

#[derive(Debug)]
struct Votes {
    block: Block,
    proposer: usize,
    /// What endpoints told of their newest blocks: they are reachable and should have this one.
    heads: Map<usize, Head>,
    asked: Set<usize>,
    waiting: Set<usize>,
    /// Endpoints that say of the block's hash what its proposer says.
    confirmed: Set<usize>,
    /// What the others say at it.
    unconfirmed: Map<usize, Fact>,
    votes: Map<usize, Fact>,
    /// Somebody does not know the block.
    unknown_to_some: bool,
}

/// What a read wants to know from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Head,
    /// Which block has this hash?
    Block(Block),
    Record(Block),
}

#[derive(Debug)]
pub(super) enum Step {
    /// Until an answer or [`Read::deadline`].
    Wait,
    Ask(Vec<(usize, Ask)>),
    Agreed(Agreement),
    Failed(ResolveError),
}

/// Enough endpoints say the same.
#[derive(Debug)]
pub(super) struct Agreement {
    pub(super) fact: Fact,
    pub(super) block: Block,
    pub(super) agreeing: usize,
    /// Endpoints that say something else at the same block.
    pub(super) dissenting: Vec<usize>,
    /// Endpoints that named a newest block which too few others knew.
    pub(super) distrusted: Vec<usize>,
}

impl Read {
    pub(super) fn new(
        name: Name,
        registry: usize,
        endpoints: usize,
        need: usize,
        limits: &ResolverLimits,
        now: Instant,
    ) -> Self {
        Self {
            name,
            registry,
            waiters: Vec::new(),
            outdated: false,
            round_began: now,
            round: 0,
            deadline: now + limits.read_deadline,
            endpoints,
            need,
            phase: Phase::Pause { until: now },
            hedge_at: None,
            distrusted: Set::default(),
            failures: Map::default(),
        }
    }

    /// When [`step`](Self::step) is due although nobody answered.
    pub(super) fn deadline(&self) -> Instant {
        let next = match &self.phase {
            Phase::Pause { until } => Some(*until),
            _ => self.hedge_at,
        };
        next.unwrap_or(self.deadline).min(self.deadline)
    }

    pub(super) fn head(&mut self, endpoint: usize, round: u8, head: Head) {
        if let Phase::Heads { waiting, heads, .. } = &mut self.phase
            && round == self.round
            && waiting.remove(&endpoint)
        {
            heads.insert(endpoint, head);
        }
    }

    pub(super) fn vote(&mut self, endpoint: usize, block: &Block, fact: Fact) {
        if let Phase::Votes(votes) = &mut self.phase
            && votes.block == *block
            && votes.waiting.contains(&endpoint)
        {
            votes.unconfirmed.insert(endpoint, fact);
            votes.count(endpoint);
        }
    }

    /// What an endpoint says of the block's hash. Whether that is what its proposer says.
    pub(super) fn confirm(&mut self, endpoint: usize, block: &Block, told: &Head) -> bool {
        let Phase::Votes(votes) = &mut self.phase else {
            return true;
        };
        if votes.block != *block {
            return true;
        }
        let same = votes.heads.get(&votes.proposer) == Some(told);
        if same {
            votes.confirmed.insert(endpoint);
            votes.count(endpoint);
        }
        same
    }

    /// The endpoint has nothing to say about the block, most likely because it does not have it.
    pub(super) fn cannot_vote(&mut self, endpoint: usize, block: &Block, why: ResolveError) {
        if let Phase::Votes(votes) = &mut self.phase
            && votes.block == *block
            && votes.waiting.remove(&endpoint)
        {
            votes.unknown_to_some = true;
            self.failures.insert(endpoint, why);
        }
    }

    pub(super) fn failed(&mut self, endpoint: usize, round: u8, why: ResolveError) {
        if round != self.round {
            return;
        }
        let was_waiting = match &mut self.phase {
            Phase::Pause { .. } => false,
            Phase::Heads { waiting, .. } => waiting.remove(&endpoint),
            Phase::Votes(votes) => votes.waiting.remove(&endpoint),
        };
        if was_waiting {
            self.failures.insert(endpoint, why);
        }
    }

    /// What was agreed is so surprising that this many must say so.
    pub(super) fn raise(&mut self, need: usize) {
        self.need = self.need.max(need);
    }

    /// What was agreed is older than what is known: begins again, or gives up.
    pub(super) fn again(
        &mut self,
        limits: &ResolverLimits,
        now: Instant,
    ) -> Result<(), ResolveError> {
        if self.round >= limits.read_rounds {
            return Err(ResolveError::with(
                Code::RpcStale,
                "the endpoints show an older state than was known before",
            ));
        }
        // Endpoints that lag behind by a block or two catch up meanwhile.
        self.phase = Phase::Pause {
            until: now + Duration::from_secs(1),
        };
        self.hedge_at = None;
        Ok(())
    }

    /// Goes as far as it can. `order` is every endpoint, best first.
    pub(super) fn step(&mut self, order: &[usize], limits: &ResolverLimits, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::Failed(self.failure());
        }
        loop {
            match &mut self.phase {
                Phase::Pause { until } if now < *until => return Step::Wait,
                Phase::Pause { .. } => {
                    self.round += 1;
                    self.round_began = now;
                    self.hedge_at = None;
                    self.failures.clear();
                    self.phase = Phase::Heads {
                        asked: Set::default(),
                        waiting: Set::default(),
                        heads: Map::default(),
                    };
                }
                Phase::Heads { heads, .. } if heads.len() >= self.need => self.begin_votes(),
                Phase::Heads { .. } => return self.step_heads(order, limits, now),
                Phase::Votes(_) => match self.step_votes(order, limits, now) {
                    Some(step) => return step,
                    // The next round begins, perhaps at once.
                    None => continue,
                },
            }
        }
    }

    fn step_heads(&mut self, order: &[usize], limits: &ResolverLimits, now: Instant) -> Step {
        let trusted_suffice = self.endpoints.saturating_sub(self.distrusted.len()) >= self.need;
        let Phase::Heads {
            asked,
            waiting,
            heads,
        } = &mut self.phase
        else {
            return Step::Wait;
        };
        let mut candidates = order
            .iter()
            .copied()
            .filter(|endpoint| !asked.contains(endpoint))
            .filter(|endpoint| !trusted_suffice || !self.distrusted.contains(endpoint));
        let missing = self.need.saturating_sub(heads.len() + waiting.len());
        let chosen = choose(
            &mut candidates,
            missing,
            waiting,
            &mut self.hedge_at,
            limits,
            now,
        );
        if heads.len() + waiting.len() + chosen.len() < self.need {
            return Step::Failed(self.failure());
        }
        asked.extend(chosen.iter().copied());
        waiting.extend(chosen.iter().copied());
        if chosen.is_empty() {
            return Step::Wait;
        }
        Step::Ask(
            chosen
                .into_iter()
                .map(|endpoint| (endpoint, Ask::Head))
                .collect(),
        )
    }

    fn begin_votes(&mut self) {
        let Phase::Heads { heads, .. } = &mut self.phase else {
            return;
        };
        let heads = core::mem::take(heads);
        let lowest = heads.iter().min_by_key(|(_, head)| head.block.number);
        let Some((&proposer, &head)) = lowest else {
            return;
        };
        let same = heads.iter().filter(|(_, told)| **told == head);
        self.phase = Phase::Votes(Votes {
            block: head.block,
            proposer,
            confirmed: same.map(|(endpoint, _)| *endpoint).collect(),
            heads,
            asked: Set::default(),
            waiting: Set::default(),
            unconfirmed: Map::default(),
            votes: Map::default(),
            unknown_to_some: false,
        });
        self.hedge_at = None;
    }

    /// `None` when the round is over without an agreement and the next one may begin.
    fn step_votes(
        &mut self,
        order: &[usize],
        limits: &ResolverLimits,
        now: Instant,
    ) -> Option<Step> {
        let Phase::Votes(votes) = &mut self.phase else {
            return None;
        };
        let (fact, count) = votes.leader();
        let divided = votes.votes.len() > count;
        if let Some(fact) = fact
            && count >= self.need
        {
            let dissenting = votes
                .votes
                .iter()
                .filter(|(_, vote)| **vote != fact)
                .map(|(endpoint, _)| *endpoint);
            return Some(Step::Agreed(Agreement {
                dissenting: dissenting.collect(),
                distrusted: self
                    .distrusted
                    .iter()
                    .copied()
                    .filter(|e| !votes.votes.contains_key(e))
                    .collect(),
                fact,
                block: votes.block,
                agreeing: count,
            }));
        }
        let mut candidates = Vec::new();
        for named in [true, false] {
            for endpoint in order {
                let has_named = votes.heads.contains_key(endpoint);
                if has_named == named && !votes.asked.contains(endpoint) {
                    candidates.push(*endpoint);
                }
            }
        }
        let mut candidates = candidates.into_iter();
        let missing = self.need.saturating_sub(count + votes.waiting.len());
        let chosen = choose(
            &mut candidates,
            missing,
            &votes.waiting,
            &mut self.hedge_at,
            limits,
            now,
        );
        if count + votes.waiting.len() + chosen.len() >= self.need {
            votes.asked.extend(chosen.iter().copied());
            votes.waiting.extend(chosen.iter().copied());
            let mut asks = Vec::new();
            for endpoint in chosen {
                if !votes.confirmed.contains(&endpoint) {
                    asks.push((endpoint, Ask::Block(votes.block)));
                }
                asks.push((endpoint, Ask::Record(votes.block)));
            }
            return Some(if asks.is_empty() {
                Step::Wait
            } else {
                Step::Ask(asks)
            });
        }
        if votes.unknown_to_some && self.round < limits.read_rounds {
            self.distrusted.insert(votes.proposer);
            let pause = match self.round {
                1 => Duration::ZERO,
                round => Duration::from_millis(125 << round.min(5)),
            };
            self.phase = Phase::Pause { until: now + pause };
            self.hedge_at = None;
            return None;
        }
        if divided {
            let detail = format!("they contradict each other at block {}", votes.block.number);
            return Some(Step::Failed(ResolveError::with(Code::RpcDisagree, detail)));
        }
        Some(Step::Failed(self.failure()))
    }

    /// One error for all: the endpoints' own when they fail alike.
    fn failure(&self) -> ResolveError {
        let waiting = match &self.phase {
            Phase::Pause { .. } => 0,
            Phase::Heads { waiting, .. } => waiting.len(),
            Phase::Votes(votes) => votes.waiting.len(),
        };
        let mut failures = self.failures.values();
        let Some(first) = failures.next() else {
            return ResolveError::with(Code::RpcUnreachable, "no answer in time").after(RETRY);
        };
        let mut detail = String::from(first.detail.as_deref().unwrap_or_default());
        let mut code = first.code;
        for failure in failures {
            if failure.code != first.code {
                code = Code::ChainUnavailable;
            }
            if let Some(more) = failure.detail.as_deref() {
                detail.push_str("; ");
                detail.push_str(more);
            }
        }
        if waiting > 0 && code != Code::RpcUnreachable {
            code = Code::ChainUnavailable;
        }
        ResolveError {
            code,
            retry: Some(RETRY),
            detail: Some(detail.into_boxed_str()),
        }
    }
}

/// When asking again may help after endpoints failed.
const RETRY: Duration = Duration::from_secs(2);

impl Votes {
    /// Takes what an endpoint says as its vote once it has confirmed the block.
    fn count(&mut self, endpoint: usize) {
        if self.confirmed.contains(&endpoint)
            && let Some(fact) = self.unconfirmed.remove(&endpoint)
            && self.waiting.remove(&endpoint)
        {
            self.votes.insert(endpoint, fact);
        }
    }

    fn leader(&self) -> (Option<Fact>, usize) {
        let count = |fact: &Fact| self.votes.values().filter(|vote| *vote == fact).count();
        match self.votes.values().max_by_key(|fact| count(fact)) {
            Some(fact) => (Some(fact.clone()), count(fact)),
            None => (None, 0),
        }
    }
}

/// The next endpoints to ask: as many as are missing, and one more whenever somebody keeps us waiting.
fn choose(
    candidates: &mut dyn Iterator<Item = usize>,
    missing: usize,
    waiting: &Set<usize>,
    hedge_at: &mut Option<Instant>,
    limits: &ResolverLimits,
    now: Instant,
) -> Vec<usize> {
    let mut chosen: Vec<usize> = (&mut *candidates).take(missing).collect();
    let overdue = hedge_at.is_some_and(|at| now >= at) && !waiting.is_empty();
    if overdue && chosen.is_empty() {
        chosen.extend(candidates.next());
    }
    if !chosen.is_empty() || overdue {
        *hedge_at = candidates.next().map(|_| now + limits.hedge_after);
    }
    chosen
}

/// What is said about an endpoint that fails.
pub(super) fn blame(code: Code, host: &str, what: &dyn core::fmt::Display) -> ResolveError {
    let detail: String = format!("{host}: {what}");
    ResolveError::with(code, detail)
}
