//! JSON as it is read from endpoints.
//!
//! `serde_json` parses; only its tree and its writer are replaced, which bring maps and the printing of fractions along,
//! 25 KiB that a tab would have to download for nothing.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value. Its depth is bounded by the parser, its size by that of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    /// A whole number that is not negative.
    Number(u64),
    /// A negative whole number.
    Negative(i64),
    Text(Box<str>),
    List(Vec<Json>),
    Object(Vec<(Box<str>, Json)>),
    /// A truth value or a fraction, at which nobody looks.
    Other,
}

impl Json {
    /// Reads a whole document.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// A field of an object; the last one where a key stands twice.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let found = fields.iter().rfind(|(name, _)| &**name == key);
        found.map(|(_, value)| value)
    }

    /// Takes a field out of an object.
    pub(super) fn take(self, key: &str) -> Option<Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let found = fields.into_iter().rfind(|(name, _)| &**name == key);
        found.map(|(_, value)| value)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => i64::try_from(*number).ok(),
            Self::Negative(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Negative(number), Json::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = from.next_entry::<String, Json>()? {
            fields.push((name.into_boxed_str(), value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn everything_that_endpoints_say_is_read_and_nothing_else() {
        let read = |text: &str| Json::parse(text.as_bytes());
        let value = read(r#"{"a":[1,-2,1.5,true,null,"\u0041"],"b":{},"a2":18446744073709551615}"#)
            .unwrap();
        let items = value.get("a").and_then(Json::as_list).unwrap();
        assert_eq!(items[0].as_u64(), Some(1));
        assert_eq!((items[1].as_u64(), items[1].as_i64()), (None, Some(-2)));
        assert_eq!(items[2..5], [Json::Other, Json::Other, Json::Null]);
        assert_eq!(items[5].as_str(), Some("A"));
        assert_eq!(value.get("b"), Some(&Json::Object(Vec::new())));
        assert_eq!(value.get("a2").and_then(Json::as_u64), Some(u64::MAX));
        assert_eq!(value.get("a2").and_then(Json::as_i64), None);
        assert_eq!(value.get("c"), None);
        for text in ["", "{", "[1,]", "{\"a\":1,}", "1 2", "nul", "\"\u{7}\""] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_counts() {
        let value = Json::parse(br#"{"id":1,"id":2}"#).unwrap();
        assert_eq!(value.get("id").and_then(Json::as_u64), Some(2));
    }

    #[test]
    fn a_tower_of_brackets_is_refused() {
        assert_eq!(Json::parse("[".repeat(100_000).as_bytes()), None);
    }
}
