//! How often peers may make us read the chain.

use super::config::ResolverLimits;
use crate::{
    name::Name,
    time::{Duration, Instant},
};
use alloc::collections::VecDeque;

/// Sliding windows over the reads that peers caused. It holds no more than `peer_reads` per second of the longest
/// interval (220 entries by default), whoever asks for whatever.
#[derive(Debug, Default)]
pub(super) struct ReadBudget {
    recent: VecDeque<Caused>,
}

#[derive(Debug)]
struct Caused {
    at: Instant,
    name: Name,
    source: u64,
}

/// The window of `peer_reads`.
const SECOND: Duration = Duration::from_secs(1);

impl ReadBudget {
    /// Takes one read of `name` on behalf of `source`, or says how long to wait.
    pub(super) fn take(
        &mut self,
        name: &Name,
        source: u64,
        limits: &ResolverLimits,
        now: Instant,
    ) -> Result<(), Duration> {
        let longest = limits
            .peer_name_interval
            .max(limits.peer_source_interval)
            .max(SECOND);
        while self
            .recent
            .front()
            .is_some_and(|caused| now.since(caused.at) >= longest)
        {
            self.recent.pop_front();
        }
        let left = |caused: &Caused, interval: Duration| interval.checked_sub(now.since(caused.at));
        let wait_for_name = self.recent.iter().rev().find(|caused| caused.name == *name);
        let wait_for_source = self
            .recent
            .iter()
            .rev()
            .find(|caused| caused.source == source);
        let wait_in_all = limits
            .peer_reads
            .checked_sub(1)
            .and_then(|before| self.recent.iter().rev().nth(before));
        let wait = [
            wait_for_name.and_then(|caused| left(caused, limits.peer_name_interval)),
            wait_for_source.and_then(|caused| left(caused, limits.peer_source_interval)),
            wait_in_all.and_then(|caused| left(caused, SECOND)),
        ];
        if let Some(wait) = wait
            .into_iter()
            .flatten()
            .filter(|wait| !wait.is_zero())
            .max()
        {
            return Err(wait);
        }
        if limits.peer_reads == 0 {
            return Err(longest);
        }
        self.recent.push_back(Caused {
            at: now,
            name: name.clone(),
            source,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::name::{Label, RegistryId};
    use alloc::format;

    fn name(index: usize) -> Name {
        let registry = RegistryId {
            chain_id: 1,
            contract: [0; 20],
        };
        Name {
            registry,
            label: Label::new(&format!("name{index}")).unwrap(),
        }
    }

    #[test]
    fn each_bucket_refuses_until_exactly_its_interval_has_passed() {
        let limits = ResolverLimits::default();
        let at = |millis: u64| Instant::from_micros(millis * 1000);
        let mut budget = ReadBudget::default();
        assert_eq!(budget.take(&name(0), 1, &limits, at(0)), Ok(()));
        assert_eq!(
            budget.take(&name(0), 2, &limits, at(1000)),
            Err(Duration::from_secs(9)),
            "the name's"
        );
        assert_eq!(
            budget.take(&name(1), 1, &limits, at(400)),
            Err(Duration::from_millis(600)),
            "the source's"
        );
        assert_eq!(budget.take(&name(1), 1, &limits, at(1000)), Ok(()));
        assert_eq!(budget.take(&name(0), 2, &limits, at(10_000)), Ok(()));
    }

    #[test]
    fn a_crowd_of_sources_and_names_gets_twenty_a_second_and_little_memory() {
        let limits = ResolverLimits::default();
        let mut budget = ReadBudget::default();
        let mut granted = 0;
        for step in 0..30_000_u64 {
            // One attempt per millisecond for 30 s, each with a new name from a new source.
            granted += u32::from(
                budget
                    .take(
                        &name(step as usize),
                        step,
                        &limits,
                        Instant::from_micros(step * 1000),
                    )
                    .is_ok(),
            );
            assert!(budget.recent.len() <= 220);
        }
        assert_eq!(granted, 600);
    }
}
