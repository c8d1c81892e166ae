//! What is measured, in time by `cargo bench` and in instructions by `cargo xtask test`: small pieces of a node's work, ready
//! to be done over and over.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::new_without_default,
    reason = "a module that two programs share, each using its part"
)]

use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer as _, SigningKey};
use nectar_sim::{Wired, direct, indirect, key_of, name};
use node_core::{
    Name, Timestamp,
    channel::{
        Channel, HelloInfo, Identity, Local, RECORD, RECORD_OVERHEAD, SignRequest, SignerTrust,
        initiator, responder,
    },
    node::{Access, NodeConfig, RouterPolicy},
    registry::Record,
    time::Duration,
};
use std::sync::Arc;

/// Callers that a server knows, one after the other.
const CALLERS: usize = 1024;
/// Requests that are under way at once.
const IN_FLIGHT: usize = 64;

fn room(mut config: NodeConfig) -> NodeConfig {
    let limits = &mut config.limits;
    limits.inbound_channels = CALLERS;
    limits.channels_per_group = CALLERS;
    limits.channels_per_caller = CALLERS;
    limits.half_open = CALLERS;
    limits.handshake_rate = u32::MAX;
    limits.stranger_requests = u32::MAX;
    limits.circuits = CALLERS;
    config
}

fn knows(
    records: impl IntoIterator<Item = (Name, Record)>,
) -> impl FnOnce(NodeConfig) -> NodeConfig {
    |config| {
        let mut config = room(config);
        config.registries = vec![registry()];
        config.pinned.extend(records);
        config
    }
}

fn registry() -> node_core::registry::RegistryConfig {
    node_core::registry::RegistryConfig {
        id: nectar_sim::REGISTRY,
        tld: "nectar".into(),
        rpcs: Vec::new(),
        quorum: None,
    }
}

/// A server to which callers come and from which they go, each a new node with a name of its own.
pub struct Callers {
    town: Wired,
    /// The next callers, with their keys: what is prepared is not measured.
    ready: Vec<(String, SigningKey)>,
    server: Record,
}

impl Callers {
    /// As many have come before that the server has to forget one for each that comes.
    pub fn after(many: usize) -> Self {
        let labels = (0..CALLERS).map(|index| format!("caller-{index}"));
        let records = labels
            .clone()
            .map(|label| (name(&label), indirect(&label, &[])));
        let mut town = Wired::default();
        town.add("server", key_of("server"), Some(1), knows(records));
        let ready = labels.map(|label| {
            let key = key_of(&label);
            (label, key)
        });
        let mut callers = Self {
            town,
            ready: ready.collect(),
            server: direct("server", 1),
        };
        for _ in 0..many {
            callers.come_and_go();
        }
        callers
    }

    /// One more: it starts, dials, authenticates, attaches a session, and is gone.
    pub fn come_and_go(&mut self) {
        let (label, key) = self.ready.pop().expect("a caller is left");
        let server = [(name("server"), self.server.clone())];
        let caller = self.town.add(&label, key, None, knows(server));
        self.town.connect(caller, "server");
        self.town.kill(caller);
    }
}

/// Two nodes with a session, or three with one through a router.
pub struct Talk {
    town: Wired,
    asks: usize,
    payload: Bytes,
}

impl Talk {
    /// Each knows the other's address.
    pub fn direct(bytes: usize) -> Self {
        let mut town = Wired::default();
        town.add(
            "server",
            key_of("server"),
            Some(1),
            knows([(name("alice"), indirect("alice", &[]))]),
        );
        let asks = town.add(
            "alice",
            key_of("alice"),
            None,
            knows([(name("server"), direct("server", 1))]),
        );
        Self::of(town, asks, bytes)
    }

    /// They meet at a router: every request and every answer is a frame of a circuit there.
    pub fn routed(bytes: usize) -> Self {
        let mut town = Wired::default();
        let hosted = (name("server"), indirect("server", &["router"]));
        let router = (name("router"), direct("router", 1));
        let known = [hosted.clone(), (name("alice"), indirect("alice", &[]))];
        town.add("router", key_of("router"), Some(1), |config| {
            let mut config = knows(known)(config);
            config.router = RouterPolicy {
                host: Access::Anyone,
                call: Access::Anyone,
                guests: false,
            };
            config
        });
        let callers = (name("alice"), indirect("alice", &[]));
        town.add("server", key_of("server"), None, |config| {
            let mut config = knows([hosted.clone(), router.clone(), callers])(config);
            config.direct = false;
            config
        });
        town.run();
        let asks = town.add("alice", key_of("alice"), None, knows([hosted, router]));
        Self::of(town, asks, bytes)
    }

    fn of(mut town: Wired, asks: usize, bytes: usize) -> Self {
        town.connect(asks, "server");
        let payload = Bytes::from(vec![7; bytes]);
        Self {
            town,
            asks,
            payload,
        }
    }

    /// So many requests, and their answers.
    pub fn ask(&mut self, requests: usize) {
        let before = self.town.ended();
        let mut left = requests;
        while left > 0 {
            let now = left.min(IN_FLIGHT);
            for _ in 0..now {
                self.town.ask(self.asks, "server", self.payload.clone());
            }
            self.town.run();
            left -= now;
        }
        assert_eq!(self.town.ended() - before, requests as u64);
    }
}

/// Two that can shake hands, without nodes around them.
pub struct Exchange {
    alice: (Arc<Local>, SigningKey),
    bob: (Arc<Local>, SigningKey),
}

impl Exchange {
    pub fn new() -> Self {
        let party = |label: &str| {
            let (key, signer) = (key_of(label), SignerTrust::default());
            signer.know();
            let local = Local {
                identity: Identity {
                    name: Some(name(label)),
                    key: key.verifying_key().to_bytes(),
                },
                hello: HelloInfo::default(),
                registries: [nectar_sim::REGISTRY].into(),
                clock_window: Duration::from_secs(120),
                signer,
            };
            (Arc::new(local), key)
        };
        Self {
            alice: party("alice"),
            bob: party("bob"),
        }
    }

    /// The cryptography and the messages of one handshake.
    pub fn shake_hands(&self, seed: u8) -> (Channel, Channel) {
        let now = Timestamp(1_750_000_000_000);
        let ((alice, alices), (bob, bobs)) = (&self.alice, &self.bob);
        let sign =
            |key: &SigningKey, request: &SignRequest| key.sign(&request.message()).to_bytes();
        let to = (name("bob"), bob.identity.key);
        let (dialling, message) = initiator::start(alice.clone(), to.0, to.1, [seed; 32]);
        let answering = responder::start(bob.clone(), &message, [!seed; 32], now);
        let answering = answering.expect("message 1 is good");
        let signature = sign(bobs, answering.request());
        let (message, answering) = answering.signed(signature).expect("the signature is good");
        let dialling = dialling.handle(&message, now).expect("message 2 is good");
        let signature = dialling.request().map(|request| sign(alices, request));
        let (message, dialled) = dialling.signed(signature).expect("the signature is good");
        let claimed = answering.handle(&message, now).expect("message 3 is good");
        let admission = claimed.verify().expect("its signature is good");
        (dialled, admission.admit())
    }
}

/// Both ends of a channel, and a record's frames.
pub struct Records {
    ends: (Channel, Channel),
    frames: Vec<u8>,
}

impl Records {
    /// Of so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self {
            ends: Exchange::new().shake_hands(1),
            frames: vec![7; bytes],
        }
    }

    /// Seals a record and opens it.
    pub fn carry(&mut self) -> BytesMut {
        let mut record = BytesMut::with_capacity(self.frames.len() + RECORD_OVERHEAD);
        record.extend_from_slice(&[RECORD]);
        record.extend_from_slice(&self.frames);
        self.ends.0.seal(&mut record).expect("it is a record");
        self.ends.1.open(record).expect("nobody has altered it")
    }
}
