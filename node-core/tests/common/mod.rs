//! Two nodes with fixed keys, and a handshake between them step by step.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "a module that several test binaries share, each using its part"
)]

pub mod stranger;

use node_core::{
    Label, Name, RegistryId, Timestamp,
    channel::{
        Channel, HandshakeError, HelloInfo, Identity, Local, SignRequest, initiator, responder,
    },
    crypto,
};
use std::{sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// The moment at which handshakes happen unless a test says otherwise.
pub const NOW: Timestamp = Timestamp(1_750_000_000_000);
pub const WINDOW: Duration = Duration::from_secs(120);
pub const REGISTRY: RegistryId = RegistryId {
    chain_id: 31337,
    contract: [0xc0; 20],
};

/// A node: what a handshake knows of it, and the secret that signs for it.
#[derive(Clone)]
pub struct Actor {
    pub local: Local,
    pub secret: [u8; 32],
}

impl Actor {
    pub fn named(label: &str, secret: u8) -> Self {
        let secret = [secret; 32];
        Self {
            local: Local {
                identity: Identity {
                    name: Some(name(label)),
                    key: crypto::public_key(&Zeroizing::new(secret)),
                },
                hello: HelloInfo {
                    features: 0b0111,
                    privacy: 0b01,
                    user_agent: "nectar/test".into(),
                    head: None,
                },
                registries: [REGISTRY].into(),
                clock_window: WINDOW,
            },
            secret,
        }
    }

    pub fn guest() -> Self {
        let mut guest = Self::named("nobody", 0);
        guest.local.identity = Identity {
            name: None,
            key: [0; 32],
        };
        guest
    }

    pub fn key(&self) -> [u8; 32] {
        self.local.identity.key
    }

    pub fn name(&self) -> Name {
        self.local.identity.name.clone().unwrap()
    }

    pub fn local(&self) -> Arc<Local> {
        Arc::new(self.local.clone())
    }

    pub fn sign(&self, request: &SignRequest) -> [u8; 64] {
        crypto::sign(&Zeroizing::new(self.secret), &request.message())
    }

    /// Message 1 to `target`.
    pub fn dial(&self, target: &Self, seed: u8) -> (initiator::AwaitMessage2, Vec<u8>) {
        initiator::start(self.local(), target.name(), target.key(), [seed; 32])
    }

    /// Message 2.
    pub fn answer(
        &self,
        message1: &[u8],
        seed: u8,
    ) -> Result<(Vec<u8>, responder::AwaitMessage3), HandshakeError> {
        let state = responder::start(self.local(), message1, [seed; 32], NOW)?;
        let signature = self.sign(state.request());
        state.signed(signature)
    }

    /// Message 3.
    pub fn conclude(
        &self,
        state: initiator::AwaitMessage2,
        message2: &[u8],
    ) -> Result<(Vec<u8>, Channel), HandshakeError> {
        let state = state.handle(message2, NOW)?;
        let signature = state.request().map(|request| self.sign(request));
        state.signed(signature)
    }
}

/// The channel of a message 3 that everybody agrees to.
pub fn admit(state: responder::AwaitMessage3, message3: &[u8]) -> Result<Channel, HandshakeError> {
    Ok(state.handle(message3, NOW)?.verify()?.admit())
}

/// A whole handshake: the three messages and both channels.
pub fn connect(from: &Actor, to: &Actor, seed: u8) -> ([Vec<u8>; 3], Channel, Channel) {
    let (dialling, message1) = from.dial(to, seed);
    let (message2, answered) = to.answer(&message1, seed.wrapping_add(1)).unwrap();
    let (message3, ours) = from.conclude(dialling, &message2).unwrap();
    let theirs = admit(answered, &message3).unwrap();
    ([message1, message2, message3], ours, theirs)
}

pub fn name(label: &str) -> Name {
    Name {
        registry: REGISTRY,
        label: Label::new(label).unwrap(),
    }
}
