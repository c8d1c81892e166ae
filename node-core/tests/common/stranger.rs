//! The handshake written a second time, from the protocol's description and with none of our code: what a stranger would
//! build. It says whatever a test wants it to say.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a module that several test binaries share"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{AeadInOut as _, inout::InOutBuf},
};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, Mac as _};
use ml_kem::{Decapsulate as _, KeyExport as _, ml_kem_768};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

pub type Bytes32 = [u8; 32];

/// A CBOR map with unsigned keys, value by value.
#[derive(Clone, Default)]
pub struct Hello(pub Vec<(u64, Vec<u8>)>);

impl Hello {
    pub fn new(timestamp: u64) -> Self {
        Self::default()
            .with(0, uint(1))
            .with(1, uint(timestamp))
            .with(4, uint(7))
            .with(5, uint(1))
            .with(6, bytes(&[9; 8]))
    }

    /// Sets or replaces a field.
    pub fn with(mut self, key: u64, value: Vec<u8>) -> Self {
        self.0.retain(|(other, _)| *other != key);
        self.0.push((key, value));
        self.0.sort_by_key(|(key, _)| *key);
        self
    }

    pub fn without(mut self, key: u64) -> Self {
        self.0.retain(|(other, _)| *other != key);
        self
    }

    pub fn cbor(&self) -> Vec<u8> {
        let mut out = head(5, self.0.len() as u64);
        for (key, value) in &self.0 {
            out.extend(uint(*key));
            out.extend(value);
        }
        out
    }

    pub fn block(&self) -> Vec<u8> {
        pad(&self.cbor(), 256)
    }
}

pub fn pad(cbor: &[u8], length: usize) -> Vec<u8> {
    let mut block = (cbor.len() as u16).to_be_bytes().to_vec();
    block.extend(cbor);
    block.resize(length, 0);
    block
}

pub fn uint(value: u64) -> Vec<u8> {
    head(0, value)
}

pub fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

pub fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}

pub fn head(major: u8, value: u64) -> Vec<u8> {
    let major = major << 5;
    match value {
        0..=23 => vec![major | value as u8],
        24..=0xff => vec![major | 24, value as u8],
        0x100..=0xffff => [vec![major | 25], (value as u16).to_be_bytes().to_vec()].concat(),
        0x1_0000..=0xffff_ffff => {
            [vec![major | 26], (value as u32).to_be_bytes().to_vec()].concat()
        }
        _ => [vec![major | 27], value.to_be_bytes().to_vec()].concat(),
    }
}

/// What one side says at the end of message 2 or 3.
#[derive(Clone)]
pub struct Speech {
    /// The key that is sent.
    pub s: Bytes32,
    /// The whole padded hello.
    pub hello: Vec<u8>,
    /// The context that is signed.
    pub context: &'static str,
    /// The secret that signs; `None` sends `signature` instead.
    pub secret: Option<Bytes32>,
    pub signature: [u8; 64],
}

impl Speech {
    pub fn honest(secret: Bytes32, context: &'static str, hello: Vec<u8>) -> Self {
        let s = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
        Self {
            s,
            hello,
            context,
            secret: Some(secret),
            signature: [0; 64],
        }
    }
}

pub const AS_INITIATOR: &str = "nectar/1 handshake initiator";
pub const AS_RESPONDER: &str = "nectar/1 handshake responder";

pub struct Noise {
    pub ck: Bytes32,
    pub h: Bytes32,
    k: Option<Bytes32>,
    n: u64,
}

impl Noise {
    fn begin(version: u8) -> Self {
        let h = sha(&[b"Nectar_SIGMAhfs_25519+MLKEM768_Ed25519_ChaChaPoly_SHA256"]);
        let mut noise = Self {
            ck: h,
            h,
            k: None,
            n: 0,
        };
        noise.mix_hash(&[b"nectar-link".as_slice(), &[version]].concat());
        noise
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.h = sha(&[&self.h, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let temp = mac(&self.ck, &[input]);
        self.ck = mac(&temp, &[&[1]]);
        self.k = Some(mac(&temp, &[&self.ck, &[2]]));
        self.n = 0;
    }

    fn enc(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let sealed = aead_seal(&self.k.unwrap(), self.n, &self.h, plaintext);
        self.n += 1;
        self.mix_hash(&sealed);
        sealed
    }

    fn dec(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let plaintext = aead_open(&self.k.unwrap(), self.n, &self.h, sealed)?;
        self.n += 1;
        self.mix_hash(sealed);
        Some(plaintext)
    }

    fn speak(&mut self, speech: &Speech) -> Vec<u8> {
        let mut out = self.enc(&speech.s);
        out.extend(self.enc(&speech.hello));
        let signed = [
            [0x20; 64].as_slice(),
            speech.context.as_bytes(),
            &[0],
            &self.h,
            &sha(&[&speech.s, &speech.hello]),
        ]
        .concat();
        let signature = match speech.secret {
            Some(secret) => SigningKey::from_bytes(&secret).sign(&signed).to_bytes(),
            None => speech.signature,
        };
        out.extend(self.enc(&signature));
        out
    }

    fn listen(&mut self, sealed: &[u8]) -> Option<(Bytes32, Vec<u8>, [u8; 64])> {
        let (s, rest) = sealed.split_at(48);
        let (hello, sig) = rest.split_at(rest.len() - 80);
        Some((
            self.dec(s)?.try_into().unwrap(),
            self.dec(hello)?,
            self.dec(sig)?.try_into().unwrap(),
        ))
    }

    /// Keys from initiator to responder and back, and an exported secret.
    pub fn finish(&self, label: &str) -> (Bytes32, Bytes32, Bytes32) {
        let temp = mac(&self.ck, &[&[]]);
        let first = mac(&temp, &[&[1]]);
        let second = mac(&temp, &[&first, &[2]]);
        let exporter = mac(&self.ck, &[b"nectar/1 exp\0", &self.h]);
        (first, second, mac(&exporter, &[label.as_bytes()]))
    }
}

/// A stranger that dials.
pub struct Initiator {
    noise: Noise,
    e: StaticSecret,
    kem: ml_kem_768::DecapsulationKey,
}

impl Initiator {
    pub fn dial(version: u8, e: Bytes32, d: Bytes32, z: Bytes32) -> (Self, Vec<u8>) {
        let e = StaticSecret::from(e);
        let kem = ml_kem_768::DecapsulationKey::from_seed(
            <[u8; 64]>::try_from([d, z].concat()).unwrap().into(),
        );
        let (public, ek) = (
            PublicKey::from(&e).to_bytes(),
            kem.encapsulation_key().to_bytes(),
        );
        let mut noise = Noise::begin(version);
        noise.mix_hash(&public);
        noise.mix_hash(&ek);
        let message = [&[1, version], public.as_slice(), &ek].concat();
        (Self { noise, e, kem }, message)
    }

    /// Reads message 2; returns the responder's key, hello and signature, or nothing when it does not decrypt.
    pub fn hear(&mut self, message: &[u8]) -> Option<(Bytes32, Vec<u8>, [u8; 64])> {
        assert_eq!(message[0], 2);
        let e: Bytes32 = message[1..33].try_into().unwrap();
        self.noise.mix_hash(&e);
        self.noise
            .mix_key(self.e.diffie_hellman(&PublicKey::from(e)).as_bytes());
        let ct = self.noise.dec(&message[33..33 + 1104])?;
        let shared = self
            .kem
            .decapsulate(&<[u8; 1088]>::try_from(ct).unwrap().into());
        self.noise.mix_key(&shared);
        self.noise.listen(&message[33 + 1104..])
    }

    pub fn say(mut self, speech: &Speech) -> (Vec<u8>, Noise) {
        let message = [vec![3], self.noise.speak(speech)].concat();
        (message, self.noise)
    }
}

/// A stranger that answers.
pub struct Responder {
    noise: Noise,
}

impl Responder {
    pub fn answer(message: &[u8], e: Bytes32, m: Bytes32, speech: &Speech) -> (Self, Vec<u8>) {
        assert_eq!(message.len(), 1218);
        let mut noise = Noise::begin(message[1]);
        let theirs: Bytes32 = message[2..34].try_into().unwrap();
        let ek: [u8; 1184] = message[34..].try_into().unwrap();
        noise.mix_hash(&theirs);
        noise.mix_hash(&ek);
        let e = StaticSecret::from(e);
        let public = PublicKey::from(&e).to_bytes();
        noise.mix_hash(&public);
        noise.mix_key(e.diffie_hellman(&PublicKey::from(theirs)).as_bytes());
        let (ct, shared) = ml_kem_768::EncapsulationKey::new(&ek.into())
            .unwrap()
            .encapsulate_deterministic(&m.into());
        let ct = noise.enc(&ct);
        noise.mix_key(&shared);
        let tail = noise.speak(speech);
        (
            Self { noise },
            [vec![2], public.to_vec(), ct, tail].concat(),
        )
    }

    pub fn hear(mut self, message: &[u8]) -> (Bytes32, Vec<u8>, [u8; 64], Noise) {
        assert_eq!(message[0], 3);
        let (s, hello, sig) = self.noise.listen(&message[1..]).unwrap();
        (s, hello, sig, self.noise)
    }
}

/// A purpose's secret of a seed, as this crate derives it: needed to reproduce its transcripts, and by nobody else.
pub fn from_seed(seed: Bytes32, purpose: &str) -> Bytes32 {
    mac(&seed, &[b"nectar/1 seed ", purpose.as_bytes()])
}

pub fn aead_seal(key: &Bytes32, n: u64, data: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut text = plaintext.to_vec();
    let tag = ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&nonce(n).into(), data, InOutBuf::from(&mut text[..]))
        .unwrap();
    text.extend_from_slice(&tag);
    text
}

pub fn aead_open(key: &Bytes32, n: u64, data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (text, tag) = sealed.split_last_chunk::<16>()?;
    let mut text = text.to_vec();
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(
            &nonce(n).into(),
            data,
            InOutBuf::from(&mut text[..]),
            &(*tag).into(),
        )
        .ok()?;
    Some(text)
}

fn nonce(n: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&n.to_le_bytes());
    nonce
}

fn sha(parts: &[&[u8]]) -> Bytes32 {
    Sha256::digest(parts.concat()).into()
}

fn mac(key: &Bytes32, parts: &[&[u8]]) -> Bytes32 {
    Hmac::<Sha256>::new_from_slice(key)
        .unwrap()
        .chain_update(parts.concat())
        .finalize()
        .into_bytes()
        .into()
}
