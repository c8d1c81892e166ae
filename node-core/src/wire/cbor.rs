//! As much of CBOR (RFC 8949) as a hello needs: numbers, bytes, texts, lists, maps, and passing over anything else.
//!
//! The tests compare it with `minicbor`, which a tab would have to download.

use alloc::vec::Vec;

const NUMBER: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/// What ends an item of a length that was not told.
const BREAK: u8 = 0xff;

pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    write_head(out, NUMBER, number);
}

pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Begins a list of so many items.
pub(super) fn write_list(out: &mut Vec<u8>, items: u64) {
    write_head(out, LIST, items);
}

/// Begins a map of so many pairs.
pub(super) fn write_map(out: &mut Vec<u8>, pairs: u64) {
    write_head(out, MAP, pairs);
}

/// What kind an item is and a number, as short as possible.
fn write_head(out: &mut Vec<u8>, kind: u8, number: u64) {
    let kind = kind << 5;
    let bytes = number.to_be_bytes();
    let (info, length) = match number {
        ..24 => return out.push(kind | bytes[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(kind | info);
    out.extend_from_slice(&bytes[8 - length..]);
}

/// What is not yet read. Each method takes from its beginning what it reads; `None` when something else stands there, or
/// something of a length that is not told.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A number that is not negative and fits its place.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.head_of(NUMBER)?).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.head_of(BYTES)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.head_of(TEXT)?;
        core::str::from_utf8(self.take(length)?).ok()
    }

    /// How many items of a list follow.
    pub(super) fn list(&mut self) -> Option<u64> {
        self.head_of(LIST)
    }

    /// How many pairs of a map follow.
    pub(super) fn map(&mut self) -> Option<u64> {
        self.head_of(MAP)
    }

    /// Passes over one item of any kind. What it holds is passed over by calling itself, so no deeper than there are bytes.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.head()? {
            (BYTES, Some(length)) => self.take(length).map(drop),
            (TEXT, Some(length)) => core::str::from_utf8(self.take(length)?).ok().map(drop),
            (LIST, Some(items)) => (0..items).try_for_each(|_| self.skip()),
            (MAP, Some(pairs)) => (0..pairs).try_for_each(|_| {
                self.skip()?;
                self.skip()
            }),
            (TAG, Some(_)) => self.skip(),
            (_, Some(_)) => Some(()),
            (kind @ (BYTES | TEXT), None) => self.until_break(|input| match kind {
                BYTES => input.bytes().map(drop),
                _ => input.text().map(drop),
            }),
            (LIST, None) => self.until_break(Self::skip),
            (MAP, None) => self.until_break(|input| {
                input.skip()?;
                input.skip()
            }),
            _ => None,
        }
    }

    fn until_break(&mut self, mut part: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        while *self.rest.first()? != BREAK {
            part(self)?;
        }
        self.take(1).map(drop)
    }

    /// The number in the head of an item of this kind.
    fn head_of(&mut self, kind: u8) -> Option<u64> {
        match self.head()? {
            (found, number) if found == kind => number,
            _ => None,
        }
    }

    /// What kind an item is, and its number; none where a length is not told.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        let number = match first & 0x1f {
            small @ ..24 => Some(u64::from(small)),
            info @ 24..28 => {
                let bytes = self.take(1 << (info - 24))?;
                let number = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                Some(number)
            }
            31 => None,
            _ => return None,
        };
        Some((first >> 5, number))
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use minicbor::{Decoder, Encoder};
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_another_implementation_writes(
            number in numbers(),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            text in ".{0,100}",
        ) {
            let mut ours = Vec::new();
            write_map(&mut ours, number);
            write_list(&mut ours, number);
            write_number(&mut ours, number);
            write_bytes(&mut ours, &bytes);
            write_text(&mut ours, &text);
            let mut theirs = Encoder::new(Vec::new());
            theirs.map(number).unwrap().array(number).unwrap().u64(number).unwrap();
            theirs.bytes(&bytes).unwrap().str(&text).unwrap();
            prop_assert_eq!(&ours, theirs.writer());
            let mut input = Reader::new(&ours);
            prop_assert_eq!(input.map(), Some(number));
            prop_assert_eq!(input.list(), Some(number));
            prop_assert_eq!(input.number(), Some(number));
            prop_assert_eq!(input.bytes(), Some(&bytes[..]));
            prop_assert_eq!(input.text(), Some(&*text));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn what_is_read_is_what_another_implementation_reads(
            data in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                prop::collection::vec(heads(), 0..40),
            ]
        ) {
            let (input, other) = (|| Reader::new(&data), || Decoder::new(&data));
            prop_assert_eq!(input().number::<u64>(), other().u64().ok());
            prop_assert_eq!(input().number::<u32>(), other().u32().ok());
            prop_assert_eq!(input().number::<u8>(), other().u8().ok());
            prop_assert_eq!(input().bytes(), other().bytes().ok());
            prop_assert_eq!(input().text(), other().str().ok());
            prop_assert_eq!(input().list(), other().array().ok().flatten());
            prop_assert_eq!(input().map(), other().map().ok().flatten());
            let (mut input, mut other) = (input(), other());
            let ours = input.skip().map(|()| input.rest);
            let theirs = other.skip().ok().map(|()| &data[other.position()..]);
            // It takes a break for an item where there is nothing to end.
            let stray = ours.is_none() && data.contains(&BREAK);
            prop_assert!(ours == theirs || stray, "{:?}, not {:?}", ours, theirs);
        }
    }

    /// Bytes that begin an item, mostly a short one.
    fn heads() -> impl Strategy<Value = u8> {
        prop_oneof![
            (0..8_u8, 0..4_u8).prop_map(|(kind, number)| kind << 5 | number),
            (0..8_u8, 24..26_u8).prop_map(|(kind, info)| kind << 5 | info),
            (2..6_u8).prop_map(|kind| kind << 5 | 31),
            Just(BREAK),
        ]
    }

    #[test]
    fn items_in_items_are_passed_over_however_deep() {
        for (open, close) in [(0x81, &[0][..]), (0xc1, &[0]), (0x9f, &[BREAK; 511])] {
            let mut data = alloc::vec![open; 511];
            data.extend_from_slice(close);
            let mut input = Reader::new(&data);
            assert!(input.skip().is_some() && input.is_empty());
            assert!(Reader::new(&data[..data.len() - 1]).skip().is_none());
        }
    }
}
