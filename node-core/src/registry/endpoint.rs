//! How well each RPC endpoint does its work.

use super::{config::ResolverLimits, resolver::FetchId};
use crate::{
    name::RegistryId,
    time::{Duration, Instant},
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

/// What an endpoint was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// Never asked.
    Untried,
    /// Answers well.
    Ok,
    /// Answers, but others are asked first.
    Slow,
    /// Does not answer.
    Unreachable,
    /// Its newest block is too old, or lies in the future.
    Stale,
    /// Its answers make no sense, or name blocks that nobody else knows.
    Invalid,
    /// It serves another chain.
    WrongChain,
    /// At one and the same block it said something else than the quorum.
    Lying,
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untried => "untried",
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Unreachable => "unreachable",
            Self::Stale => "stale",
            Self::Invalid => "invalid",
            Self::WrongChain => "wrong_chain",
            Self::Lying => "lying",
        })
    }
}

/// An endpoint as a status page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The registry that it serves.
    pub registry: RegistryId,
    /// Its URL. It may hold an access key: show [`host`](Self::host) to others than the operator.
    pub url: Arc<str>,
    /// What it was found to be.
    pub state: EndpointState,
    /// Smoothed time to an answer.
    pub latency: Option<Duration>,
    /// Height of its newest block, as last seen.
    pub head: Option<u64>,
    /// What was wrong last, for people.
    pub detail: Option<Box<str>>,
}

impl EndpointHealth {
    /// The URL's host and port, without the path, which often holds an access key.
    pub fn host(&self) -> &str {
        host(&self.url)
    }
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: Arc<str>,
    state: EndpointState,
    latency: Option<Duration>,
    head: Option<u64>,
    detail: Option<Box<str>>,
    /// Failures in a row.
    failures: u32,
    /// Until then others are asked first.
    passed_over_until: Instant,
    chain_checked: Option<Instant>,
    /// The fetch, perhaps finished by now, that last asked for its chain.
    pub(super) chain_check: Option<FetchId>,
}

/// A chain id is believed for this long: an operator may point a URL elsewhere.
const CHAIN_CHECK: Duration = Duration::from_secs(600);
const SLOW_FOR: Duration = Duration::from_secs(60);
const STALE_FOR: Duration = Duration::from_secs(30);
const LYING_FOR: Duration = Duration::from_secs(600);
/// Longest time for which an endpoint that fails again and again is passed over.
const FAILED_AT_MOST: Duration = Duration::from_secs(60);

impl Endpoint {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            state: EndpointState::Untried,
            latency: None,
            head: None,
            detail: None,
            failures: 0,
            passed_over_until: Instant::default(),
            chain_checked: None,
            chain_check: None,
        }
    }

    pub(super) fn health(&self, registry: RegistryId) -> EndpointHealth {
        EndpointHealth {
            registry,
            url: self.url.clone(),
            state: self.state,
            latency: self.latency,
            head: self.head,
            detail: self.detail.clone(),
        }
    }

    pub(super) fn host(&self) -> &str {
        host(&self.url)
    }

    pub(super) fn chain_is_checked(&self, now: Instant) -> bool {
        self.chain_checked
            .is_some_and(|at| now.since(at) < CHAIN_CHECK)
    }

    pub(super) fn chain_checked(&mut self, now: Instant) {
        self.chain_checked = Some(now);
        self.recovered_from(EndpointState::WrongChain);
    }

    /// An answer came that could be read.
    pub(super) fn answered(&mut self, latency: Duration, limits: &ResolverLimits, now: Instant) {
        self.failures = 0;
        self.latency = Some(match self.latency {
            Some(before) => (before * 3 + latency) / 4,
            None => latency,
        });
        for state in [
            EndpointState::Untried,
            EndpointState::Unreachable,
            EndpointState::Invalid,
        ] {
            self.recovered_from(state);
        }
        if latency >= limits.hedge_after {
            self.lags(now);
        } else if now >= self.passed_over_until {
            // Whatever it was punished for has run out.
            self.recovered_from(self.state);
        }
    }

    pub(super) fn has_head(&mut self, number: u64) {
        self.head = Some(number);
        self.recovered_from(EndpointState::Stale);
    }

    /// A fetch is taking longer than others would.
    pub(super) fn lags(&mut self, now: Instant) {
        if matches!(
            self.state,
            EndpointState::Untried | EndpointState::Ok | EndpointState::Slow
        ) {
            self.state = EndpointState::Slow;
            self.passed_over_until = now + SLOW_FOR;
            // When the time has run out it is tried like a new one.
            self.latency = None;
        }
    }

    /// It failed, was found out of date, on another chain or lying.
    pub(super) fn failed(&mut self, state: EndpointState, detail: String, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let pause = match state {
            EndpointState::Lying | EndpointState::WrongChain => LYING_FOR,
            EndpointState::Stale => STALE_FOR,
            _ => Duration::from_secs(1 << self.failures.min(6)).min(FAILED_AT_MOST),
        };
        if state == EndpointState::WrongChain {
            self.chain_checked = None;
        }
        // A liar that also times out stays a liar.
        if now + pause >= self.passed_over_until {
            self.state = state;
            self.passed_over_until = now + pause;
            self.detail = Some(detail.into_boxed_str());
        }
    }

    fn recovered_from(&mut self, state: EndpointState) {
        if self.state == state {
            self.state = EndpointState::Ok;
            self.passed_over_until = Instant::default();
            self.detail = None;
        }
    }

    /// Lower is asked first. Nobody is ever excluded: when all are bad, the least bad one may still answer.
    fn rank(&self, now: Instant) -> (u8, Duration) {
        let badness = match self.state {
            _ if now >= self.passed_over_until => 0,
            EndpointState::Untried | EndpointState::Ok => 0,
            EndpointState::Slow => 1,
            EndpointState::Unreachable | EndpointState::Stale | EndpointState::Invalid => 2,
            EndpointState::WrongChain | EndpointState::Lying => 3,
        };
        (badness, self.latency.unwrap_or_default())
    }
}

/// Indices of `endpoints`, best first; equals in configured order.
pub(super) fn by_health(endpoints: &[Endpoint], now: Instant) -> Vec<usize> {
    let mut order: Vec<((u8, Duration), usize)> = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let rank = endpoint.rank(now);
        let at = order.partition_point(|(other, _)| *other <= rank);
        order.insert(at, (rank, index));
    }
    order.into_iter().map(|(_, index)| index).collect()
}

fn host(url: &str) -> &str {
    let after_scheme = url
        .split_once(':')
        .and_then(|(_, rest)| rest.strip_prefix("//"))
        .unwrap_or(url);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or("");
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_a_url_is_shown() {
        for (url, expected) in [
            ("https://rpc.example/v3/secret", "rpc.example"),
            (
                "https://user:secret@rpc.example:8545?key=secret",
                "rpc.example:8545",
            ),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(host(url), expected);
        }
    }

    #[test]
    fn a_liar_is_asked_last_until_its_time_is_up_even_if_it_answers_fast() {
        let limits = ResolverLimits::default();
        let now = Instant::from_micros(0);
        let mut endpoints = [Endpoint::new("a"), Endpoint::new("b")];
        endpoints[1].answered(Duration::from_millis(300), &limits, now);
        assert_eq!(by_health(&endpoints, now), [0, 1]);
        endpoints[0].failed(EndpointState::Lying, String::new(), now);
        endpoints[0].failed(EndpointState::Unreachable, String::new(), now);
        endpoints[0].answered(Duration::from_millis(1), &limits, now);
        assert_eq!(endpoints[0].state, EndpointState::Lying);
        assert_eq!(by_health(&endpoints, now), [1, 0]);
        assert_eq!(by_health(&endpoints, now + LYING_FOR), [0, 1]);
        endpoints[0].answered(Duration::from_millis(1), &limits, now + LYING_FOR);
        assert_eq!(endpoints[0].state, EndpointState::Ok);
    }
}
