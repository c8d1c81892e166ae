//! What endpoints answer.

use crate::memory::claimed;
use node_core::registry::call_result;
use serde_json::Value;

/// The request's number.
const ID: u64 = 7;

/// An answer is read as another implementation of JSON reads it, and what people are shown of it is fit for a terminal.
pub(crate) fn run(data: &[u8]) {
    let (ours, bytes) = claimed(|| call_result(ID, data));
    // A list of one-digit numbers: two bytes become a value, and a list doubles as it grows.
    assert!(
        bytes <= 64 * data.len() + 4096,
        "{bytes} bytes for {}",
        data.len()
    );
    if let Err(text) = &ours {
        assert!(
            text.chars().count() <= 160 && !text.chars().any(char::is_control),
            "{text:?}"
        );
    }
    match serde_json::from_slice::<Value>(data) {
        Ok(answer) => assert_eq!(ours.ok(), reference(&answer)),
        // It computes what nobody asks for.
        Err(error) if error.to_string().starts_with("number out of range") => {}
        Err(error) => assert!(ours.is_err(), "{error}"),
    }
}

/// The bytes of a result that answers our request.
fn reference(answer: &Value) -> Option<Vec<u8>> {
    let answer = answer.as_object()?;
    if answer.get("error").is_some_and(|error| !error.is_null())
        || answer.get("id")?.as_u64()? != ID
    {
        return None;
    }
    let digits = answer.get("result")?.as_str()?.strip_prefix("0x")?;
    let digits: Vec<u8> = digits
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
