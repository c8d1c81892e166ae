//! JSON as it is read from endpoints.
//!
//! As strict as `serde_json`, with which the tests compare it, and a tenth of its code, which a tab would have to download:
//! no fractions are computed, and no errors described.

use alloc::{boxed::Box, string::String, vec::Vec};

/// How deep lists and objects may stand in each other.
const DEPTH_MAX: usize = 127;

/// A JSON value. Its depth is bounded by the reader, its size by that of the answer.
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
    /// A truth value, a fraction or a number out of range, at which nobody looks.
    Other,
}

impl Json {
    /// Reads a whole document.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(DEPTH_MAX)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
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

/// What is not yet read. Each method takes from its beginning what it reads; `None` when something else stands there.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        self.skip_space();
        match self.take()? {
            b'n' => self.expect(b"ull").map(|()| Json::Null),
            b't' => self.expect(b"rue").map(|()| Json::Other),
            b'f' => self.expect(b"alse").map(|()| Json::Other),
            b'"' => self.text().map(Json::Text),
            b'[' => self.list(depth.checked_sub(1)?),
            b'{' => self.object(depth.checked_sub(1)?),
            b'-' => {
                let first = self.take()?;
                self.number(first, true)
            }
            first => self.number(first, false),
        }
    }

    /// A list after its bracket.
    fn list(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.skip_space();
        let mut more = !self.skip(b']');
        while more {
            items.push(self.value(depth)?);
            more = self.more(b']')?;
        }
        Some(Json::List(items))
    }

    /// An object after its brace.
    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut fields = Vec::new();
        self.skip_space();
        let mut more = !self.skip(b'}');
        while more {
            self.skip_space();
            self.expect(b"\"")?;
            let name = self.text()?;
            self.skip_space();
            self.expect(b":")?;
            fields.push((name, self.value(depth)?));
            more = self.more(b'}')?;
        }
        Some(Json::Object(fields))
    }

    /// Whether another item follows: a comma, rather than the end.
    fn more(&mut self, end: u8) -> Option<bool> {
        self.skip_space();
        let found = self.take()?;
        (found == b',' || found == end).then_some(found == b',')
    }

    /// A number whose first digit, and its sign, are taken.
    fn number(&mut self, first: u8, negative: bool) -> Option<Json> {
        let mut number = Some(digit(first, 10)?);
        while let Some(next) = self.digit() {
            if first == b'0' {
                return None;
            }
            number = number.and_then(|number| number.checked_mul(10)?.checked_add(next));
        }
        let fraction = self.skip(b'.');
        if fraction {
            self.digits()?;
        }
        let exponent = self.skip(b'e') || self.skip(b'E');
        if exponent {
            let _sign = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        Some(match number {
            _ if fraction || exponent => Json::Other,
            Some(number) if !negative => Json::Number(number),
            Some(number @ 1..) => 0_i64
                .checked_sub_unsigned(number)
                .map_or(Json::Other, Json::Negative),
            _ => Json::Other,
        })
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        self.digit()?;
        while self.digit().is_some() {}
        Some(())
    }

    fn digit(&mut self) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        let digit = digit(*first, 10)?;
        self.rest = rest;
        Some(digit)
    }

    /// A text after its quotation mark.
    fn text(&mut self) -> Option<Box<str>> {
        let mut text = String::new();
        loop {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let length = self.rest.iter().position(special)?;
            let (plain, rest) = self.rest.split_at_checked(length)?;
            text.push_str(core::str::from_utf8(plain).ok()?);
            self.rest = rest;
            match self.take()? {
                b'"' => return Some(text.into_boxed_str()),
                b'\\' => text.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.take()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            other @ (b'"' | b'\\' | b'/') => other.into(),
            _ => return None,
        })
    }

    /// A character by its number or, above 0xffff, by a pair of surrogates.
    fn unicode(&mut self) -> Option<char> {
        let mut number = self.four()?;
        if let 0xd800..0xdc00 = number {
            self.expect(b"\\u")?;
            let low = self.four()?.checked_sub(0xdc00)?;
            if low >= 0x400 {
                return None;
            }
            number = 0x1_0000 + ((number - 0xd800) << 10) + low;
        }
        char::from_u32(number)
    }

    fn four(&mut self) -> Option<u32> {
        let mut number = 0;
        for _ in 0..4 {
            number = number << 4 | digit(self.take()?, 16)? as u32;
        }
        Some(number)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn expect(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn skip(&mut self, byte: u8) -> bool {
        self.expect(&[byte]).is_some()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}

fn digit(byte: u8, radix: u32) -> Option<u64> {
    char::from(byte).to_digit(radix).map(u64::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use alloc::{string::ToString, vec};
    use proptest::prelude::*;
    use serde_json::Value;

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
    #[test]
    fn lists_and_objects_stand_in_each_other_127_deep_and_no_deeper() {
        for depth in [127, 128] {
            let text = ["[".repeat(depth), "]".repeat(depth)].concat();
            assert_eq!(Json::parse(text.as_bytes()).is_some(), depth == 127);
            agree(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn texts_and_numbers_at_their_edges_are_read_as_serde_json_reads_them() {
        for text in [
            r#""\ud83d\ude00\"\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\ue000""#,
            r#""\ude00""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\x""#,
            r#""é😀""#,
            r#"""#,
            "0",
            "-0",
            "-",
            "00",
            "-01",
            "1.",
            ".5",
            "1.e1",
            "1e",
            "1e+",
            "1E-7",
            "0.5e+3",
            "+1",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "1.0",
            " \t\r\n1 ",
            "\u{b}1",
            "\u{feff}1",
            "truefalse",
            "{\"a\" : 1 , \"b\" : [ ] }",
            "{a:1}",
            "{\"a\"}",
            "[1 2]",
            "[1}",
        ] {
            agree(text.as_bytes()).unwrap();
        }
        for text in [&b"\"\xff\""[..], b"\"\xc3\"", b"\xc3\xa9"] {
            agree(text).unwrap();
        }
    }

    proptest! {
        /// Documents, as they are and with one byte that is not.
        #[test]
        fn documents_are_read_as_serde_json_reads_them(
            value in documents(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut text = value.to_string().into_bytes();
            agree(&text)?;
            let at = at.index(text.len());
            text[at] = byte;
            agree(&text)?;
            text.remove(at);
            agree(&text)?;
        }

        #[test]
        fn rows_of_signs_are_read_as_serde_json_reads_them(
            text in r#"[\[\]{}:,"\\u0-9deE.+ tnl-]{0,12}"#
        ) {
            agree(text.as_bytes())?;
        }
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// That both read the text, with the same result, or neither does.
    fn agree(text: &[u8]) -> Result<(), TestCaseError> {
        match serde_json::from_slice::<Value>(text) {
            Ok(value) => prop_assert_eq!(Json::parse(text).map(ordered), Some(translated(value))),
            // It computes what nobody asks for.
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Err(error) => prop_assert_eq!(Json::parse(text), None, "{}", error),
        }
        Ok(())
    }

    fn translated(value: Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(_) => Json::Other,
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Json::Number(number),
                (None, Some(number)) => Json::Negative(number),
                (None, None) => Json::Other,
            },
            Value::String(text) => Json::Text(text.into_boxed_str()),
            Value::Array(items) => Json::List(items.into_iter().map(translated).collect()),
            Value::Object(fields) => Json::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.into_boxed_str(), translated(value)))
                    .collect(),
            ),
        }
    }

    /// The fields of objects as `serde_json` keeps them: by name, each once.
    fn ordered(value: Json) -> Json {
        match value {
            Json::List(items) => Json::List(items.into_iter().map(ordered).collect()),
            Json::Object(fields) => {
                let mut kept = vec![];
                for (name, value) in fields {
                    kept.retain(|(other, _)| *other != name);
                    kept.push((name, ordered(value)));
                }
                kept.sort_by(|(one, _), (other, _)| one.cmp(other));
                Json::Object(kept)
            }
            other => other,
        }
    }
}
