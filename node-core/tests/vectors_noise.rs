//! Our symmetric state running plain Noise patterns: against published vectors, and against another implementation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use node_core::{
    channel::symmetric::SymmetricState,
    crypto::{Provider, Secret, Suite},
};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use zeroize::Zeroizing;

const NN: &[&[&str]] = &[&["e"], &["e", "ee"]];
const XX: &[&[&str]] = &[&["e"], &["e", "ee", "s", "es"], &["s", "se"]];

#[test]
fn published_vectors_come_out_byte_for_byte() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("vectors/noise.json")).unwrap();
    let vectors = vectors.as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let text = |key: &str| vector[key].as_str().map(|text| hex::decode(text).unwrap());
        let secret = |key: &str| text(key).map(|bytes| Zeroizing::new(bytes.try_into().unwrap()));
        let protocol = vector["protocol_name"].as_str().unwrap();
        let pattern = if protocol.starts_with("Noise_NN_") {
            NN
        } else {
            XX
        };
        let prologue = text("init_prologue").unwrap();
        let party = |side: &str, initiator| {
            let (s, e) = (
                secret(&format!("{side}_static")),
                secret(&format!("{side}_ephemeral")).unwrap(),
            );
            Party::new(protocol, &prologue, initiator, s, e)
        };
        let (mut initiator, mut responder) = (party("init", true), party("resp", false));
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
        for (index, [payload, ciphertext]) in messages.iter().enumerate().skip(pattern.len()) {
            let key = if index % 2 == 0 { &keys.0 } else { &keys.1 };
            let number = (index - pattern.len()) as u64 / 2;
            let mut sealed = payload.clone();
            let tag = Suite::seal(&Suite::cipher(key), number, &[], &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(&sealed, ciphertext, "{protocol} transport message {index}");
        }
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

    const PROTOCOLS: [(&str, &[&[&str]]); 2] = [
        ("Noise_NN_25519_ChaChaPoly_SHA256", NN),
        ("Noise_XX_25519_ChaChaPoly_SHA256", XX),
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
        pattern: &[&[&str]],
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
        }
    }

    fn write(&mut self, tokens: &[&str], payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        for token in tokens {
            match *token {
                "e" => {
                    let public = Suite::x25519_public(&self.e);
                    message.extend_from_slice(&public);
                    self.symmetric.mix_hash(&public);
                }
                "s" => {
                    let public = Suite::x25519_public(self.s.as_ref().unwrap());
                    self.symmetric.encrypt_and_hash(&public, &mut message);
                }
                agreement => self.agree(agreement),
            }
        }
        self.symmetric.encrypt_and_hash(payload, &mut message);
        message
    }

    fn read(&mut self, tokens: &[&str], mut message: &[u8]) -> Option<Vec<u8>> {
        for token in tokens {
            match *token {
                "e" => {
                    let (public, rest) = message.split_first_chunk()?;
                    self.symmetric.mix_hash(public);
                    (self.remote_e, message) = (Some(*public), rest);
                }
                "s" => {
                    let (public, rest) = message.split_first_chunk::<48>()?;
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
        let shared = Suite::x25519(secret, &public.unwrap()).unwrap();
        self.symmetric.mix_key(&*shared);
    }
}

fn pair<'a>(index: usize, a: &'a mut Party, b: &'a mut Party) -> (&'a mut Party, &'a mut Party) {
    if index.is_multiple_of(2) {
        (a, b)
    } else {
        (b, a)
    }
}
