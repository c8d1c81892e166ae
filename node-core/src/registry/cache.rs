//! What the chain said, bounded.

use super::{
    error::ResolveError,
    record::{Block, Provenance, Record, RecordError},
};
use crate::{
    code::Code,
    name::Name,
    sorted::Map,
    time::{Duration, Instant},
};
use alloc::{format, sync::Arc};

/// What the chain says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// It is registered, and a node can use the record.
    Known(Arc<Record>),
    /// It is registered with a record that no node can use.
    Unusable {
        version: u32,
        epoch: u32,
        why: RecordError,
    },
    /// Nobody has registered it.
    Unknown,
}

impl Fact {
    /// (epoch, version), which never go backwards on an honest chain; an unregistered name stands before all.
    pub(super) fn age(&self) -> (u32, u32) {
        match self {
            Self::Known(record) => (record.epoch, record.version),
            Self::Unusable { version, epoch, .. } => (*epoch, *version),
            Self::Unknown => (0, 0),
        }
    }

    /// Whether an endpoint that says `self` after another said `before` shows an older state, or another one under the
    /// same version.
    pub(super) fn contradicts(&self, before: &Self) -> bool {
        let ((epoch, version), (epoch_before, version_before)) = (self.age(), before.age());
        epoch < epoch_before
            || version < version_before
            || (self.age() == before.age() && self != before)
    }
}

/// A fact, and how and when it was learnt.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) fact: Fact,
    pub(super) how: Provenance,
    pub(super) block: Block,
    pub(super) at: Instant,
    /// An older state that one endpoint alone showed, and at which height. Believed when it is still shown above.
    pub(super) doubt: Option<(u64, Fact)>,
    /// The fact may no longer count as fresh, whatever its age.
    pub(super) invalidated: bool,
    used: u64,
}

impl Entry {
    /// The failure that this fact is for whoever looks up a record.
    pub(super) fn result(
        &self,
        now: Instant,
        unknown_for: Duration,
    ) -> Result<Arc<Record>, ResolveError> {
        match &self.fact {
            Fact::Known(record) => Ok(record.clone()),
            Fact::Unknown => Err(ResolveError::new(Code::NameUnknown)
                .after(unknown_for.saturating_sub(now.since(self.at)))),
            Fact::Unusable { why, .. } => {
                Err(ResolveError::with(Code::RecordInvalid, format!("{why}")))
            }
        }
    }
}

/// A map from names to facts with a bound; the least recently used goes first.
#[derive(Debug)]
pub(super) struct Cache {
    entries: Map<Name, Entry>,
    capacity: usize,
    clock: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: Map::default(),
            capacity: capacity.max(1),
            clock: 0,
        }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &Name) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    /// Marks an entry as used.
    pub(super) fn touch(&mut self, name: &Name) {
        if let Some(entry) = self.entries.get_mut(name) {
            self.clock += 1;
            entry.used = self.clock;
        }
    }

    /// Replaces what is known about a name and returns what was.
    pub(super) fn insert(
        &mut self,
        name: &Name,
        fact: Fact,
        how: Provenance,
        block: Block,
        at: Instant,
    ) -> Option<Entry> {
        self.clock += 1;
        let entry = Entry {
            fact,
            how,
            block,
            at,
            doubt: None,
            invalidated: false,
            used: self.clock,
        };
        let before = self.entries.insert(name.clone(), entry);
        if self.entries.len() > self.capacity {
            // Looked for only when something new was read, which takes a thousand times as long.
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.entries.remove(&oldest);
            }
        }
        before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::name::{Label, RegistryId};

    #[test]
    fn a_full_cache_forgets_the_least_recently_used_and_never_grows() {
        let name = |index: usize| Name {
            registry: RegistryId {
                chain_id: 1,
                contract: [0; 20],
            },
            label: Label::new(&format!("name{index}")).unwrap(),
        };
        let block = Block {
            number: 1,
            hash: [1; 32],
        };
        let mut cache = Cache::new(3);
        for index in 0..3 {
            cache.insert(
                &name(index),
                Fact::Unknown,
                Provenance::OneRpc,
                block,
                Instant::default(),
            );
        }
        cache.touch(&name(0));
        for index in 3..5 {
            cache.insert(
                &name(index),
                Fact::Unknown,
                Provenance::OneRpc,
                block,
                Instant::default(),
            );
        }
        let held: Vec<_> = (0..5)
            .filter(|index| cache.get(&name(*index)).is_some())
            .collect();
        assert_eq!(held, [0, 3, 4]);
        assert_eq!(cache.entries.len(), 3);
        cache.insert(
            &name(3),
            Fact::Unknown,
            Provenance::OneRpc,
            block,
            Instant::default(),
        );
        assert_eq!(cache.entries.len(), 3);
    }
}
