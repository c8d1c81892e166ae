//! Who is registered in a world, and what a node is told of it.

use crate::{
    chain::{Chain, Entry},
    names::{REGISTRY, name},
    world::Plan,
};
use node_core::{
    Name,
    channel::Identity,
    node::NodeConfig,
    registry::{Host, Record, RegistryConfig},
};

/// The records of a world, to be pinned, and the chain on which they stand.
#[derive(Debug)]
pub struct Registry {
    /// The chain; a change is in its next block.
    pub chain: Chain,
    records: Vec<(Name, Record)>,
    /// What stood in them before, the latest last.
    past: Vec<(Name, Record)>,
}

impl Registry {
    /// Nobody is registered. `time` is that of the chain's first block, in seconds since the Unix epoch.
    pub fn new(time: u64) -> Self {
        Self {
            chain: Chain::new(REGISTRY.chain_id, REGISTRY.contract, time),
            records: Vec::new(),
            past: Vec::new(),
        }
    }

    /// Registers a name.
    ///
    /// # Panics
    /// When the label is invalid.
    pub fn register(&mut self, label: &str, record: Record) {
        self.chain.register(label, (&record).into());
        self.records.push((name(label), record));
    }

    /// Changes a record; its version grows by one.
    ///
    /// # Panics
    /// When nobody has registered the label.
    pub fn change(&mut self, label: &str, change: impl FnOnce(&mut Record)) {
        let wanted = name(label);
        let found = self.records.iter_mut().find(|(name, _)| *name == wanted);
        let (_, record) = found.unwrap_or_else(|| panic!("{label} is not registered"));
        self.past.push((wanted, record.clone()));
        change(record);
        record.version += 1;
        // The chain counts versions itself.
        self.chain.update(label, |entry| {
            *entry = Entry {
                version: entry.version,
                ..(&*record).into()
            };
        });
    }

    /// Sells a name; its new owner writes the old record into it again.
    ///
    /// # Panics
    /// When nobody has registered the label.
    pub fn sell(&mut self, label: &str, owner: [u8; 20]) {
        self.chain.transfer(label, owner);
        self.change(label, |record| {
            record.owner = owner;
            record.version += 1;
            record.epoch += 1;
        });
    }

    /// Replaces the newest blocks by one, made at `time` (seconds since the Unix epoch), in which every record is as it was.
    pub fn reorganise(&mut self, depth: usize, time: u64) {
        self.chain.reorganise(depth);
        for (name, record) in &self.records {
            let label = name.label.as_str();
            if self.chain.version(label) == 0 {
                self.chain.register(label, record.into());
            }
            // Whatever is not in a block any more is sent in again.
            while self.chain.version(label) < record.version {
                self.chain.update(label, |entry| {
                    *entry = Entry {
                        version: entry.version,
                        ..record.into()
                    };
                });
            }
        }
        self.chain.mine(time);
    }

    /// Replaces all blocks from this height on by one, made at `time` (seconds since the Unix epoch), without what was
    /// changed in them: every record is again as it was before. Who was registered in them is so again.
    pub fn undo(&mut self, height: u64, time: u64) {
        let depth = (self.chain.height() + 1).saturating_sub(height);
        self.chain
            .reorganise(usize::try_from(depth).unwrap_or(usize::MAX));
        for (name, record) in &mut self.records {
            let label = name.label.as_str();
            let version = self.chain.version(label);
            while record.version > version.max(1)
                && let Some(before) = self.past.iter().rposition(|(whose, _)| whose == name)
            {
                *record = self.past.remove(before).1;
            }
            if version == 0 {
                self.chain.register(label, (&*record).into());
            }
        }
        self.chain.mine(time);
    }

    /// All records.
    pub fn records(&self) -> &[(Name, Record)] {
        &self.records
    }

    /// A name's record.
    pub fn record(&self, label: &str) -> Option<&Record> {
        let wanted = name(label);
        let found = self.records.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, record)| record)
    }

    /// The address at which a planned node listens.
    pub fn address(&self, plan: &Plan) -> Option<(Host, u16)> {
        let label = plan.at.as_ref().or(plan.label.as_ref())?;
        let routing = self.record(label)?.routing.as_ref()?;
        Some((routing.host.clone(), routing.port))
    }

    /// The configuration of a planned node; `rpcs` are the endpoints of those that read the chain.
    pub fn config(&self, plan: &mut Plan, rpcs: Vec<Box<str>>) -> NodeConfig {
        let mut config = NodeConfig::new(Identity {
            name: plan.label.as_deref().map(name),
            key: match plan.label {
                Some(_) => plan.signing_key().verifying_key().to_bytes(),
                None => [0; 32],
            },
        });
        config.registries = vec![RegistryConfig {
            id: REGISTRY,
            tld: "nectar".into(),
            rpcs: if plan.chain { rpcs } else { Vec::new() },
            quorum: None,
        }];
        if !plan.chain {
            config.pinned = self.records.clone();
        }
        config.direct = self.address(plan).is_some();
        std::mem::replace(&mut plan.change, Box::new(|_| ()))(&mut config);
        config
    }
}
