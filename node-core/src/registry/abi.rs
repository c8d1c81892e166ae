//! The registry contract's calls, answers and events, in Solidity's ABI.
//!
//! What is needed of that by hand: the tests compare it with `alloy-sol-types`, which a tab would have to download.

use super::record::{Host, Record, RecordError, Routing};
use crate::name::Label;
use alloc::{string::String, vec::Vec};
use core::net::{Ipv4Addr, Ipv6Addr};
use sha3::{Digest, Keccak256};

/// Version of the contract's interface.
pub(super) const REGISTRY_VERSION: u32 = 1;

/// What the ABI measures in, in bytes.
const WORD: usize = 32;

/// Words of a record before the first that has no fixed place.
const HEAD_WORDS: usize = 10;

/// A name's ERC-721 token: the Keccak-256 hash of its label.
pub fn token_id(label: &Label) -> [u8; 32] {
    keccak(label.as_str())
}

/// Call data of `registryVersion()`.
pub(super) fn registry_version_call() -> Vec<u8> {
    selector("registryVersion()").into()
}

/// Call data of `resolve(label)`.
pub fn resolve_call(label: &Label) -> Vec<u8> {
    call("resolve(string)", label)
}

/// Call data of `available(label)`: whether it is valid and nobody has registered it.
pub fn available_call(label: &Label) -> Vec<u8> {
    call("available(string)", label)
}

/// Topic of the event `RecordChanged`.
pub(super) fn record_changed_topic() -> [u8; 32] {
    keccak("RecordChanged(uint256,uint32,uint32)")
}

/// The answer to `registryVersion()`.
pub(super) fn decode_version(data: &[u8]) -> Option<u32> {
    let (zeros, number) = data.split_last_chunk()?;
    (zeros == [0; WORD - 4]).then(|| u32::from_be_bytes(*number))
}

/// The answer to [`available_call`]; `None` if it is none.
pub fn decode_available(data: &[u8]) -> Option<bool> {
    let (truth, zeros) = data.split_last()?;
    (zeros == [0; WORD - 1] && *truth <= 1).then_some(*truth == 1)
}

/// Whether a revert says that nobody has registered `label`.
pub(super) fn is_name_unknown(revert: &[u8], label: &Label) -> bool {
    revert
        .strip_prefix(&selector("NameUnknown(uint256)"))
        .is_some_and(|token| token == token_id(label))
}

fn call(signature: &str, label: &Label) -> Vec<u8> {
    let mut call = Vec::from(selector(signature));
    push_number(&mut call, WORD); // where the label stands
    push_bytes(&mut call, label.as_str().as_bytes());
    call
}

fn selector(signature: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = keccak(signature);
    [a, b, c, d]
}

fn keccak(text: &str) -> [u8; 32] {
    Keccak256::digest(text).into()
}

/// A record as the contract holds it, before anybody asks whether a node could use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnchainRecord {
    /// Holder of the name.
    pub owner: [u8; 20],
    /// Account that may change the record; zeros for none.
    pub manager: [u8; 20],
    /// Networking key; zeros since a transfer.
    pub key: [u8; 32],
    /// 0 indirect, 1 IPv4, 2 IPv6, 3 DNS name.
    pub host_kind: u8,
    /// Nothing, 4 bytes, 16 bytes or a DNS name, by kind.
    pub host: Vec<u8>,
    /// TCP port.
    pub port: u16,
    /// Bit 0 ws, bit 1 wss.
    pub schemes: u8,
    /// Labels of the routers.
    pub routers: Vec<String>,
    /// +1 at every change.
    pub version: u32,
    /// +1 at every transfer.
    pub epoch: u32,
}

/// An answer to [`resolve_call`] that does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// No bytes at all: there is no contract at the address.
    #[error("there is no contract at the registry's address")]
    Empty,
    /// Bytes of another shape.
    #[error("the contract's answer is not a record")]
    Malformed,
}

/// The answer to [`resolve_call`].
///
/// Only as the contract writes it, byte for byte: numbers in range, everything in its place, nothing but zeros between and
/// nothing after.
pub fn decode_record(data: &[u8]) -> Result<OnchainRecord, NotARecord> {
    if data.is_empty() {
        return Err(NotARecord::Empty);
    }
    read_record(data)
        .filter(|record| record.encode() == data)
        .ok_or(NotARecord::Malformed)
}

/// What stands where a record's parts belong; of anything else it gives a record that is written differently.
fn read_record(data: &[u8]) -> Option<OnchainRecord> {
    let (words, _) = data.as_chunks::<WORD>();
    let [
        _,
        owner,
        manager,
        key,
        kind,
        _,
        port,
        schemes,
        _,
        version,
        epoch,
        rest @ ..,
    ] = words
    else {
        return None;
    };
    let (host, rest) = read_bytes(rest)?;
    let (count, rest) = rest.split_first()?;
    let offsets = low(count) as usize;
    let mut rest = rest.get(offsets..)?;
    let mut routers = Vec::new();
    for _ in 0..offsets {
        let (label, next) = read_bytes(rest)?;
        routers.push(core::str::from_utf8(label).ok()?.into());
        rest = next;
    }
    Some(OnchainRecord {
        owner: *owner.last_chunk()?,
        manager: *manager.last_chunk()?,
        key: *key,
        host_kind: low(kind) as u8,
        host: host.into(),
        port: low(port) as u16,
        schemes: low(schemes) as u8,
        routers,
        version: low(version),
        epoch: low(epoch),
    })
}

/// Bytes after their length, and the words after them.
fn read_bytes(words: &[[u8; WORD]]) -> Option<(&[u8], &[[u8; WORD]])> {
    let (length, rest) = words.split_first()?;
    let length = low(length) as usize;
    let (filled, rest) = rest.split_at_checked(length.div_ceil(WORD))?;
    Some((filled.as_flattened().get(..length)?, rest))
}

/// The last bytes of a word.
fn low(word: &[u8; WORD]) -> u32 {
    let [.., a, b, c, d] = *word;
    u32::from_be_bytes([a, b, c, d])
}

/// A word that ends with these bytes.
fn push_word(out: &mut Vec<u8>, end: &[u8]) {
    out.resize(out.len() + WORD - end.len(), 0);
    out.extend_from_slice(end);
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    push_word(out, &(number as u64).to_be_bytes());
}

/// A length, the bytes, and zeros up to the next word.
fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_number(out, bytes.len());
    out.extend_from_slice(bytes);
    out.resize(out.len() + bytes_size(bytes) - WORD - bytes.len(), 0);
}

/// What [`push_bytes`] adds.
fn bytes_size(bytes: &[u8]) -> usize {
    WORD + bytes.len().next_multiple_of(WORD)
}

impl OnchainRecord {
    /// The bytes that the contract would answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push_number(&mut out, WORD); // where the record stands
        push_word(&mut out, &self.owner);
        push_word(&mut out, &self.manager);
        push_word(&mut out, &self.key);
        push_number(&mut out, self.host_kind.into());
        let host = HEAD_WORDS * WORD;
        push_number(&mut out, host);
        push_number(&mut out, self.port.into());
        push_number(&mut out, self.schemes.into());
        push_number(&mut out, host + bytes_size(&self.host));
        push_number(&mut out, self.version as usize);
        push_number(&mut out, self.epoch as usize);
        push_bytes(&mut out, &self.host);
        push_number(&mut out, self.routers.len());
        let mut offset = self.routers.len() * WORD;
        for router in &self.routers {
            push_number(&mut out, offset);
            offset += bytes_size(router.as_bytes());
        }
        for router in &self.routers {
            push_bytes(&mut out, router.as_bytes());
        }
        out
    }

    /// The record that a node can use.
    pub fn check(self) -> Result<Record, RecordError> {
        let routing = match host(self.host_kind, &self.host)? {
            None => None,
            Some(host) => Some(Routing {
                host,
                port: self.port,
                ws: self.schemes & 1 != 0,
                wss: self.schemes & 2 != 0,
            }),
        };
        let mut routers = Vec::new();
        for label in &self.routers {
            routers.push(Label::new(label)?);
        }
        let record = Record {
            owner: self.owner,
            manager: self.manager,
            key: self.key,
            routing,
            routers,
            version: self.version,
            epoch: self.epoch,
        };
        record.check()?;
        Ok(record)
    }
}

fn host(kind: u8, bytes: &[u8]) -> Result<Option<Host>, RecordError> {
    let unusable = RecordError::HostKind {
        kind,
        length: bytes.len(),
    };
    match kind {
        0 if bytes.is_empty() => Ok(None),
        1 => <[u8; 4]>::try_from(bytes)
            .map(|octets| Some(Host::V4(Ipv4Addr::from(octets))))
            .map_err(|_| unusable),
        2 => <[u8; 16]>::try_from(bytes)
            .map(|octets| Some(Host::V6(Ipv6Addr::from(octets))))
            .map_err(|_| unusable),
        3 => core::str::from_utf8(bytes)
            .map(|name| Some(Host::Dns(name.into())))
            .map_err(|_| unusable),
        _ => Err(unusable),
    }
}

#[cfg(test)]
mod tests;
