//! Two nodes with fixed keys, and a handshake between them step by step.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::new_without_default,
    reason = "a module that several test binaries share, each using its part"
)]

pub mod host;
pub mod sessions;
pub mod stranger;

use node_core::{
    Code, Label, Name, RegistryId, Timestamp,
    channel::{
        Channel, HandshakeError, HelloInfo, Identity, Local, SignRequest, SignerTrust, initiator,
        responder,
    },
    crypto,
};
use std::{sync::Arc, time::Duration};
use stranger::{AS_INITIATOR, AS_RESPONDER, Hello, Speech, bytes};
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
                signer: SignerTrust::default(),
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

pub fn call_of(from: &Actor, to: &Actor) -> Hello {
    let hello = Hello::new(NOW.0).with(3, bytes(&to.name().to_bytes()));
    match &from.local.identity.name {
        Some(name) => hello.with(2, bytes(&name.to_bytes())),
        None => hello,
    }
}

pub fn answer_of(from: &Actor) -> Hello {
    Hello::new(NOW.0).with(2, bytes(&from.name().to_bytes()))
}

pub fn calling(from: &Actor, to: &Actor) -> Speech {
    Speech::honest(from.secret, AS_INITIATOR, call_of(from, to).block())
}

pub fn answering(from: &Actor) -> Speech {
    Speech::honest(from.secret, AS_RESPONDER, answer_of(from).block())
}

/// A stranger calls one of ours.
pub fn call(to: &Actor, speech: &Speech) -> Result<Channel, HandshakeError> {
    let (mut dialling, message1) = stranger::Initiator::dial(1, [1; 32], [2; 32], [3; 32]);
    let (message2, answered) = to.answer(&message1, 9).unwrap();
    dialling.hear(&message2).unwrap();
    admit(answered, &dialling.say(speech).0)
}

/// A stranger answers where one of ours dialled `target`.
pub fn answer(from: &Actor, target: &Actor, speech: &Speech) -> Result<Channel, HandshakeError> {
    let (dialling, message1) = from.dial(target, 3);
    let (_, message2) = stranger::Responder::answer(&message1, [4; 32], [5; 32], speech);
    Ok(from.conclude(dialling, &message2)?.1)
}

pub fn code<T>(result: Result<T, HandshakeError>) -> Code {
    result.map(drop).unwrap_err().code
}

/// The bytes of a name that may break the rules.
pub fn encoded_name(label: &str) -> Vec<u8> {
    let mut encoded = name("aaa").to_bytes();
    encoded.truncate(28);
    encoded.extend_from_slice(label.as_bytes());
    encoded
}
