//! Who nodes are in simulations: names, keys and records.

use ed25519_dalek::SigningKey;
use node_core::{
    Label, Name, RegistryId,
    registry::{Host, Record, Routing},
};

/// The registry of all names, unless a test says otherwise.
pub const REGISTRY: RegistryId = RegistryId {
    chain_id: 31_337,
    contract: [0xc0; 20],
};

/// A name in [`REGISTRY`].
///
/// # Panics
/// When the label is invalid.
pub fn name(label: &str) -> Name {
    let label = Label::new(label).unwrap_or_else(|error| panic!("{label}: {error}"));
    Name {
        registry: REGISTRY,
        label,
    }
}

/// The networking key of the node called `label`.
pub fn key_of(label: &str) -> SigningKey {
    let mut seed = [0x5e; 32];
    for (at, byte) in label.bytes().enumerate() {
        seed[at % 32] ^= byte;
    }
    SigningKey::from_bytes(&seed)
}

/// A direct node's record at 10.0.0.`host`.
pub fn direct(label: &str, host: u8) -> Record {
    Record {
        routing: Some(Routing {
            host: Host::V4([10, 0, 0, host].into()),
            port: 9000,
            ws: true,
            wss: false,
        }),
        ..indirect(label, &[])
    }
}

/// An indirect node's record with its routers.
///
/// # Panics
/// When a router's label is invalid.
pub fn indirect(label: &str, routers: &[&str]) -> Record {
    Record {
        owner: [1; 20],
        manager: [0; 20],
        key: key_of(label).verifying_key().to_bytes(),
        routing: None,
        routers: routers.iter().map(|router| name(router).label).collect(),
        version: 1,
        epoch: 1,
    }
}
