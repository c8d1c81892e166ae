//! Records: `10 ‖ AEAD(key of the direction, n, AD = 10, frames)`, n implicit.

use super::RecordError;
use crate::{
    Code, Instant, Limits,
    crypto::{Provider, Secret, Suite, TAG},
};
use bytes::{Buf as _, BytesMut};
use zeroize::Zeroizing;

/// First byte of a record.
pub const RECORD: u8 = 0x10;
/// Longest record, in bytes.
pub const MAX_RECORD: usize = 65_536;
/// What a record adds to its frames, in bytes.
pub const RECORD_OVERHEAD: usize = 1 + TAG;
/// Most bytes of frames in a record.
pub const MAX_FRAMES: usize = MAX_RECORD - RECORD_OVERHEAD;
/// Most records under one key; a REKEY has to come before.
pub const RECORDS_PER_KEY: u64 = 1 << 20;

/// The number that Noise's REKEY reserves.
const NONCE_REKEY: u64 = u64::MAX;

/// Records that went in one direction, and their bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records.
    pub records: u64,
    /// Bytes, overhead included.
    pub bytes: u64,
}

/// Keys and counters of the direction away from us.
pub(super) struct Sealer {
    direction: Direction,
    /// When the time under the present key began.
    since: Option<Instant>,
}

impl Sealer {
    pub(super) fn new(key: &Secret) -> Self {
        Self {
            direction: Direction::new(key),
            since: None,
        }
    }

    pub(super) fn seal(&mut self, record: &mut BytesMut) -> Result<(), RecordError> {
        if record.len() > MAX_RECORD - TAG {
            return Err(RecordError::new(Code::RecordTooLarge));
        }
        let Some((&mut RECORD, frames)) = record.split_first_mut() else {
            return Err(RecordError::new(Code::InvalidArgument));
        };
        self.direction.check()?;
        let tag = Suite::seal(
            &self.direction.cipher,
            self.direction.nonce(),
            &[RECORD],
            frames,
        );
        record.extend_from_slice(&tag);
        self.direction.advance(record.len());
        Ok(())
    }

    pub(super) fn rekey_due(&mut self, now: Instant, limits: &Limits) -> bool {
        let since = *self.since.get_or_insert(now);
        let Traffic { records, bytes } = self.direction.under_key;
        records > 0
            && (records >= RECORDS_PER_KEY / 2
                || bytes >= limits.rekey_bytes
                || now.since(since) >= limits.rekey_after)
    }

    pub(super) fn ratchet(&mut self) {
        self.direction.ratchet();
        self.since = None;
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.direction.total
    }
}

/// Keys and counters of the direction towards us.
pub(super) struct Opener {
    direction: Direction,
}

impl Opener {
    pub(super) fn new(key: &Secret) -> Self {
        Self {
            direction: Direction::new(key),
        }
    }

    pub(super) fn open(&mut self, mut record: BytesMut) -> Result<BytesMut, RecordError> {
        let length = record.len();
        if length > MAX_RECORD {
            return Err(RecordError::new(Code::RecordTooLarge));
        }
        let forged = RecordError::new(Code::RecordForged);
        let Some((&mut RECORD, sealed)) = record.split_first_mut() else {
            return Err(forged);
        };
        let (frames, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(forged)?;
        if !Suite::open(
            &self.direction.cipher,
            self.direction.nonce(),
            &[RECORD],
            frames,
            tag,
        ) {
            return Err(forged);
        }
        // Checked last: only a record that opens proves that it was the peer who went on for too long.
        self.direction.check()?;
        self.direction.advance(length);
        record.truncate(length - TAG);
        record.advance(1);
        Ok(record)
    }

    pub(super) fn ratchet(&mut self) {
        self.direction.ratchet();
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.direction.total
    }
}

struct Direction {
    cipher: <Suite as Provider>::Cipher,
    total: Traffic,
    under_key: Traffic,
}

impl Direction {
    fn new(key: &Secret) -> Self {
        Self {
            cipher: Suite::cipher(key),
            total: Traffic::default(),
            under_key: Traffic::default(),
        }
    }

    /// The next record's number. It goes on across ratchets.
    fn nonce(&self) -> u64 {
        self.total.records
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.under_key.records >= RECORDS_PER_KEY || self.nonce() == NONCE_REKEY {
            return Err(RecordError::new(Code::RekeyOverdue));
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        for traffic in [&mut self.total, &mut self.under_key] {
            traffic.records += 1;
            traffic.bytes = traffic.bytes.saturating_add(bytes as u64);
        }
    }

    /// Noise's REKEY: the next key is the old key's encryption of zeros under the reserved number.
    fn ratchet(&mut self) {
        let mut key = Zeroizing::new([0; 32]);
        let _tag = Suite::seal(&self.cipher, NONCE_REKEY, &[], &mut *key);
        self.cipher = Suite::cipher(&key);
        self.under_key = Traffic::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_key_seals_and_opens_only_so_many_records() {
        let key = Zeroizing::new([7; 32]);
        let (mut sealer, mut opener) = (Sealer::new(&key), Opener::new(&key));
        let limits = Limits::default();
        let seal = |sealer: &mut Sealer| {
            let mut record = BytesMut::from(&[RECORD, 1, 2, 3][..]);
            sealer.seal(&mut record).map(|()| record)
        };
        seal(&mut sealer)
            .map(|record| opener.open(record).unwrap())
            .unwrap();
        assert!(!sealer.rekey_due(Instant::default(), &limits));
        sealer.direction.under_key.records = RECORDS_PER_KEY / 2;
        assert!(
            sealer.rekey_due(Instant::default(), &limits),
            "long before it is too late"
        );

        for records in [
            &mut sealer.direction.under_key.records,
            &mut opener.direction.under_key.records,
        ] {
            *records = RECORDS_PER_KEY - 1;
        }
        let last = seal(&mut sealer).unwrap();
        assert_eq!(seal(&mut sealer).unwrap_err().code, Code::RekeyOverdue);
        opener.open(last.clone()).unwrap();
        assert_eq!(
            opener.open(last).unwrap_err().code,
            Code::RecordForged,
            "a forgery proves nothing about the peer"
        );

        // A peer that goes on all the same.
        sealer.direction.under_key.records = 0;
        let beyond = seal(&mut sealer).unwrap();
        let error = opener.open(beyond).unwrap_err();
        assert_eq!((error.code, error.is_proven()), (Code::RekeyOverdue, true));
        sealer.ratchet();
        opener.ratchet();
        sealer.direction.total.records = opener.direction.total.records;
        opener.open(seal(&mut sealer).unwrap()).unwrap();
    }
}
