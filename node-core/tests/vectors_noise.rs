//! Our symmetric state running plain Noise patterns: against published vectors, and against another implementation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/suite.rs"]
mod suite;

use node_core::{
    channel::symmetric::SymmetricState,
    crypto::{Provider, Secret, Suite},
};
use suite::Tried;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use zeroize::Zeroizing;

/// Every pattern of the specification without preshared keys: its name, whose static keys are known before (the
/// initiator's, the responder's), and its messages.
const PATTERNS: [(&str, [bool; 2], &[&str]); 38] = [
    ("N", [false, true], &["e es"]),
    ("K", [true, true], &["e es ss"]),
    ("X", [false, true], &["e es s ss"]),
    ("NN", [false, false], &["e", "e ee"]),
    ("NK", [false, true], &["e es", "e ee"]),
    ("NX", [false, false], &["e", "e ee s es"]),
    ("XN", [false, false], &["e", "e ee", "s se"]),
    ("XK", [false, true], &["e es", "e ee", "s se"]),
    ("XX", [false, false], &["e", "e ee s es", "s se"]),
    ("KN", [true, false], &["e", "e ee se"]),
    ("KK", [true, true], &["e es ss", "e ee se"]),
    ("KX", [true, false], &["e", "e ee se s es"]),
    ("IN", [false, false], &["e s", "e ee se"]),
    ("IK", [false, true], &["e es s ss", "e ee se"]),
    ("IX", [false, false], &["e s", "e ee se s es"]),
    ("NK1", [false, true], &["e", "e ee es"]),
    ("NX1", [false, false], &["e", "e ee s", "es"]),
    ("X1N", [false, false], &["e", "e ee", "s", "se"]),
    ("X1K", [false, true], &["e es", "e ee", "s", "se"]),
    ("XK1", [false, true], &["e", "e ee es", "s se"]),
    ("X1K1", [false, true], &["e", "e ee es", "s", "se"]),
    ("X1X", [false, false], &["e", "e ee s es", "s", "se"]),
    ("XX1", [false, false], &["e", "e ee s", "es s se"]),
    ("X1X1", [false, false], &["e", "e ee s", "es s", "se"]),
    ("K1N", [true, false], &["e", "e ee", "se"]),
    ("K1K", [true, true], &["e es", "e ee", "se"]),
    ("KK1", [true, true], &["e", "e ee se es"]),
    ("K1K1", [true, true], &["e", "e ee es", "se"]),
    ("K1X", [true, false], &["e", "e ee s es", "se"]),
    ("KX1", [true, false], &["e", "e ee se s", "es"]),
    ("K1X1", [true, false], &["e", "e ee s", "se es"]),
    ("I1N", [false, false], &["e s", "e ee", "se"]),
    ("I1K", [false, true], &["e es s", "e ee", "se"]),
    ("IK1", [false, true], &["e s", "e ee se es"]),
    ("I1K1", [false, true], &["e s", "e ee es", "se"]),
    ("I1X", [false, false], &["e s", "e ee s es", "se"]),
    ("IX1", [false, false], &["e s", "e ee se s", "es"]),
    ("I1X1", [false, false], &["e s", "e ee s", "se es"]),
];

/// Cacophony's vectors for our primitives that need preshared keys, which no handshake of ours has.
const WITH_PRESHARED_KEYS: usize = 21;

#[test]
fn published_vectors_come_out_byte_for_byte() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("vectors/noise.json")).unwrap();
    let mut tried = Tried::of("Noise: cacophony, 25519_ChaChaPoly_SHA256");
    for vector in vectors.as_array().unwrap() {
        published(vector);
        tried.pass();
    }
    (0..WITH_PRESHARED_KEYS).for_each(|_| tried.leave_out());
    tried.end(PATTERNS.len(), "preshared keys");
}

fn published(vector: &serde_json::Value) {
    let text = |key: &str| vector[key].as_str().map(|text| hex::decode(text).unwrap());
    let secret = |key: &str| text(key).map(|bytes| Zeroizing::new(bytes.try_into().unwrap()));
    let protocol = vector["protocol_name"].as_str().unwrap();
    let pattern = protocol.split('_').nth(1).unwrap();
    let (_, known, pattern) = PATTERNS.iter().find(|(name, ..)| *name == pattern).unwrap();
    let prologue = text("init_prologue").unwrap();
    let statics = ["init_static", "resp_static"].map(secret);
    let publics = [0, 1].map(|side: usize| {
        let secret = statics[side].as_ref().filter(|_| known[side]);
        secret.map(|secret| Suite::x25519_key(secret).1)
    });
    let [init_static, resp_static] = statics;
    let party = |side: &str, initiator, s| {
        // In a pattern of one message the responder has no ephemeral key.
        let e = secret(&format!("{side}_ephemeral")).unwrap_or_else(|| Zeroizing::new([0; 32]));
        let mut party = Party::new(protocol, &prologue, initiator, s, e);
        party.know(publics);
        party
    };
    let mut initiator = party("init", true, init_static);
    let mut responder = party("resp", false, resp_static);
    let messages: Vec<[Vec<u8>; 2]> = vector["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            ["payload", "ciphertext"]
                .map(|key| hex::decode(message[key].as_str().unwrap()).unwrap())
        })
        .collect();
    assert!(messages.len() > pattern.len());

    for (index, tokens) in pattern.iter().enumerate() {
        let (from, to) = pair(index, &mut initiator, &mut responder);
        let [payload, ciphertext] = &messages[index];
        assert_eq!(
            &from.write(tokens, payload),
            ciphertext,
            "{protocol} message {index}"
        );
        assert_eq!(
            &to.read(tokens, ciphertext).unwrap(),
            payload,
            "{protocol} message {index}"
        );
    }
    assert_eq!(
        initiator.symmetric.hash()[..],
        text("handshake_hash").unwrap()
    );
    let (keys, mirrored) = (initiator.symmetric.split(), responder.symmetric.split());
    assert_eq!(keys, mirrored);
    let mut numbers = [0; 2];
    for (index, [payload, ciphertext]) in messages.iter().enumerate().skip(pattern.len()) {
        // After one message only its sender goes on.
        let to_initiator = pattern.len() > 1 && index % 2 == 1;
        let key = if to_initiator { &keys.1 } else { &keys.0 };
        let number = &mut numbers[usize::from(to_initiator)];
        let mut sealed = payload.clone();
        let tag = Suite::seal(&Suite::cipher(key), *number, &[], &mut sealed);
        sealed.extend_from_slice(&tag);
        assert_eq!(&sealed, ciphertext, "{protocol} transport message {index}");
        *number += 1;
    }
}

/// snow has its own symmetric state, HKDF and nonces: what it accepts of us, and we of it, agrees with the specification.
#[cfg(not(target_arch = "wasm32"))]
mod against_snow {
    use super::*;

    #[test]
    fn our_initiator_completes_with_snow_as_responder() {
        for (protocol, pattern) in PROTOCOLS {
            let (mut ours, mut theirs) = parties(protocol, true);
            run(pattern, &mut ours, &mut theirs, true);
            finish(ours, theirs, true);
        }
    }

    #[test]
    fn our_responder_completes_with_snow_as_initiator() {
        for (protocol, pattern) in PROTOCOLS {
            let (mut ours, mut theirs) = parties(protocol, false);
            run(pattern, &mut ours, &mut theirs, false);
            finish(ours, theirs, false);
        }
    }

    const PROTOCOLS: [(&str, &[&str]); 2] = [
        ("Noise_NN_25519_ChaChaPoly_SHA256", &["e", "e ee"]),
        (
            "Noise_XX_25519_ChaChaPoly_SHA256",
            &["e", "e ee s es", "s se"],
        ),
    ];

    fn parties(protocol: &str, we_initiate: bool) -> (Party, snow::HandshakeState) {
        let secret = |byte| Zeroizing::new([byte; 32]);
        let ours = Party::new(
            protocol,
            b"prologue",
            we_initiate,
            Some(secret(1)),
            secret(2),
        );
        let theirs = snow::Builder::new(protocol.parse().unwrap())
            .prologue(b"prologue")
            .unwrap()
            .local_private_key(&[3; 32])
            .unwrap();
        (
            ours,
            if we_initiate {
                theirs.build_responder()
            } else {
                theirs.build_initiator()
            }
            .unwrap(),
        )
    }

    fn run(
        pattern: &[&str],
        ours: &mut Party,
        theirs: &mut snow::HandshakeState,
        we_initiate: bool,
    ) {
        let mut buffer = [0; 1024];
        for (index, tokens) in pattern.iter().enumerate() {
            let payload = [index as u8; 40];
            if (index % 2 == 0) == we_initiate {
                let message = ours.write(tokens, &payload);
                let length = theirs.read_message(&message, &mut buffer).unwrap();
                assert_eq!(buffer[..length], payload);
            } else {
                let length = theirs.write_message(&payload, &mut buffer).unwrap();
                assert_eq!(ours.read(tokens, &buffer[..length]).unwrap(), payload);
            }
        }
    }

    fn finish(ours: Party, theirs: snow::HandshakeState, we_initiate: bool) {
        assert_eq!(ours.symmetric.hash()[..], *theirs.get_handshake_hash());
        let mut theirs = theirs.into_transport_mode().unwrap();
        let (to_responder, to_initiator) = ours.symmetric.split();
        let send = Suite::cipher(if we_initiate {
            &to_responder
        } else {
            &to_initiator
        });
        let mut buffer = [0; 64];
        for number in 0..3 {
            let mut message = b"transport".to_vec();
            let tag = Suite::seal(&send, number, &[], &mut message);
            message.extend_from_slice(&tag);
            let length = theirs.read_message(&message, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"transport");
        }
    }
}

/// A party of a plain Noise pattern, written with our symmetric state.
struct Party {
    symmetric: SymmetricState,
    initiator: bool,
    s: Option<Secret>,
    e: Secret,
    remote_s: Option<[u8; 32]>,
    remote_e: Option<[u8; 32]>,
    /// Whether there is a key by now: static keys travel in the open before.
    keyed: bool,
}

impl Party {
    fn new(protocol: &str, prologue: &[u8], initiator: bool, s: Option<Secret>, e: Secret) -> Self {
        let mut symmetric = SymmetricState::new(protocol.as_bytes());
        symmetric.mix_hash(prologue);
        Self {
            symmetric,
            initiator,
            s,
            e,
            remote_s: None,
            remote_e: None,
            keyed: false,
        }
    }

    /// Both hash the static keys that are known before, the initiator's first.
    fn know(&mut self, [initiator, responder]: [Option<[u8; 32]>; 2]) {
        for public in [&initiator, &responder].into_iter().flatten() {
            self.symmetric.mix_hash(public);
        }
        self.remote_s = if self.initiator { responder } else { initiator };
    }

    fn write(&mut self, tokens: &str, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        for token in tokens.split(' ') {
            match token {
                "e" => {
                    let (_, public) = Suite::x25519_key(&self.e);
                    message.extend_from_slice(&public);
                    self.symmetric.mix_hash(&public);
                }
                "s" => {
                    let (_, public) = Suite::x25519_key(self.s.as_ref().unwrap());
                    self.symmetric.encrypt_and_hash(&public, &mut message);
                }
                agreement => self.agree(agreement),
            }
        }
        self.symmetric.encrypt_and_hash(payload, &mut message);
        message
    }

    fn read(&mut self, tokens: &str, mut message: &[u8]) -> Option<Vec<u8>> {
        for token in tokens.split(' ') {
            match token {
                "e" => {
                    let (public, rest) = message.split_first_chunk()?;
                    self.symmetric.mix_hash(public);
                    (self.remote_e, message) = (Some(*public), rest);
                }
                "s" => {
                    let length = if self.keyed { 48 } else { 32 };
                    let (public, rest) = message.split_at_checked(length)?;
                    let public = self.symmetric.decrypt_and_hash(public).ok()?;
                    (self.remote_s, message) = (Some(public.try_into().ok()?), rest);
                }
                agreement => self.agree(agreement),
            }
        }
        self.symmetric.decrypt_and_hash(message).ok()
    }

    /// The first letter is the initiator's key, the second the responder's.
    fn agree(&mut self, token: &str) {
        let (ours, theirs) = if self.initiator {
            token.split_at(1)
        } else {
            (&token[1..], &token[..1])
        };
        let secret = if ours == "e" {
            &self.e
        } else {
            self.s.as_ref().unwrap()
        };
        let public = if theirs == "e" {
            self.remote_e
        } else {
            self.remote_s
        };
        let (key, _) = Suite::x25519_key(secret);
        let shared = Suite::x25519(&key, &public.unwrap()).unwrap();
        self.symmetric.mix_key(&*shared);
        self.keyed = true;
    }
}

fn pair<'a>(index: usize, a: &'a mut Party, b: &'a mut Party) -> (&'a mut Party, &'a mut Party) {
    if index.is_multiple_of(2) {
        (a, b)
    } else {
        (b, a)
    }
}
