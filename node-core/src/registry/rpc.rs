//! JSON-RPC bodies and answers. Every answer is hostile input.

use super::{error::foreign, json::Json, record::Block};
use crate::time::Timestamp;
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

/// Body of `eth_chainId`.
pub(super) fn chain_id_body(id: u64) -> String {
    body(id, "eth_chainId", "")
}

/// Body that asks for the newest block's header.
pub(super) fn head_body(id: u64) -> String {
    body(id, "eth_getBlockByNumber", r#""latest",false"#)
}

/// Body that asks for the header of the block with a hash.
pub(super) fn block_body(id: u64, block: &Block) -> String {
    let hash = encode(&block.hash);
    body(id, "eth_getBlockByHash", &format!(r#""{hash}",false"#))
}

/// Body of a call at one block and no other: the endpoint refuses if the block is not in its chain (EIP-1898).
pub(super) fn call_at_body(id: u64, contract: &[u8; 20], data: &[u8], block: &Block) -> String {
    let (call, hash) = (call(contract, data), encode(&block.hash));
    let params = format!(r#"{call},{{"blockHash":"{hash}","requireCanonical":true}}"#);
    body(id, "eth_call", &params)
}

/// Body of an `eth_call` at the newest block, for reads on which nothing depends but what a person sees next, such as
/// [`available_call`](super::available_call).
pub fn call_body(id: u64, contract: &[u8; 20], data: &[u8]) -> String {
    let call = call(contract, data);
    body(id, "eth_call", &format!(r#"{call},"latest""#))
}

fn call(contract: &[u8; 20], data: &[u8]) -> String {
    let (contract, data) = (encode(contract), encode(data));
    format!(r#"{{"to":"{contract}","data":"{data}"}}"#)
}

/// Body that asks for a contract's events of one kind between two blocks, both included, about `tokens` or, if that is
/// empty, about anything.
pub(super) fn logs_body(
    id: u64,
    contract: &[u8; 20],
    from: u64,
    to: u64,
    topic: &[u8; 32],
    tokens: &[[u8; 32]],
) -> String {
    let mut listed = String::from(if tokens.is_empty() { "null" } else { "[" });
    for (at, token) in tokens.iter().enumerate() {
        listed.push_str(if at == 0 { "\"" } else { ",\"" });
        listed.push_str(&encode(token));
        listed.push_str(if at + 1 == tokens.len() { "\"]" } else { "\"" });
    }
    let (contract, topic) = (encode(contract), encode(topic));
    let params = format!(
        r#"{{"address":"{contract}","fromBlock":"{from:#x}","toBlock":"{to:#x}","topics":["{topic}",{listed}]}}"#
    );
    body(id, "eth_getLogs", &params)
}

/// Nothing in `params` needs escaping: all of it is ours.
fn body(id: u64, method: &str, params: &str) -> String {
    format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"{method}","params":[{params}]}}"#)
}

/// An answer that brings no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not an answer to our request.
    Invalid(&'static str),
    /// The contract reverted, with these bytes.
    Revert(Vec<u8>),
    /// The endpoint is out of patience with us.
    RateLimited,
    /// Any other error: the block may be unknown, the method missing, the range too large. Endpoints agree on no
    /// numbers, so nothing is concluded from them.
    Error(i64, Box<str>),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Invalid(what) => f.write_str(what),
            Self::Revert(_) => f.write_str("the contract reverted"),
            Self::RateLimited => f.write_str("rate limit"),
            Self::Error(code, message) => write!(f, "error {code}: {message}"),
        }
    }
}

/// The result in an answer to request `id`.
pub(super) fn result(id: u64, answer: &[u8]) -> Result<Json, Refusal> {
    let object = Json::parse(answer).ok_or(Refusal::Invalid("the answer is not JSON"))?;
    if !matches!(object, Json::Object(_)) {
        return Err(Refusal::Invalid("the answer is not a JSON-RPC object"));
    }
    if let Some(error) = object.get("error").filter(|error| !error.is_null()) {
        // Some endpoints answer errors such as a rate limit without the request's id.
        if object
            .get("id")
            .is_some_and(|found| !found.is_null() && found.as_u64() != Some(id))
        {
            return Err(Refusal::Invalid("the answer is to another request"));
        }
        return Err(refusal(error));
    }
    if object.get("id").and_then(Json::as_u64) != Some(id) {
        return Err(Refusal::Invalid("the answer is to another request"));
    }
    object
        .take("result")
        .ok_or(Refusal::Invalid("the answer has neither result nor error"))
}

/// The bytes that an `eth_call` returned: the answer to [`call_body`]. The error says for people what came instead.
pub fn call_result(id: u64, answer: &[u8]) -> Result<Vec<u8>, String> {
    let value = result(id, answer).map_err(|refusal| refusal.to_string())?;
    bytes(&value).ok_or_else(|| String::from("the result is not hexadecimal"))
}

/// EIP-1474's "limit exceeded" and the number that several providers use instead.
const RATE_LIMITS: [i64; 2] = [-32005, -32029];

fn refusal(error: &Json) -> Refusal {
    let code = error.get("code").and_then(Json::as_i64).unwrap_or(0);
    let message = error.get("message").and_then(Json::as_str).unwrap_or("");
    if let Some(revert) = error.get("data").and_then(revert_data) {
        return Refusal::Revert(revert);
    }
    if RATE_LIMITS.contains(&code) || code == 429 {
        return Refusal::RateLimited;
    }
    Refusal::Error(code, foreign(message).into_boxed_str())
}

/// geth, reth, anvil: a hexadecimal string. Older Parity descendants: the same after the word `Reverted`. Others wrap it
/// in an object.
fn revert_data(data: &Json) -> Option<Vec<u8>> {
    match data {
        Json::Text(text) => decode(text.strip_prefix("Reverted ").unwrap_or(text)),
        Json::Object(_) => data
            .get("data")
            .or_else(|| data.get("result"))
            .and_then(bytes),
        _ => None,
    }
}

/// A newest block as an endpoint tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) block: Block,
    /// When the block was made.
    pub(super) time: Timestamp,
}

/// Reads a block's header.
pub(super) fn head(value: &Json) -> Option<Head> {
    Some(Head {
        block: Block {
            number: quantity(value.get("number")?)?,
            hash: word(value.get("hash")?)?,
        },
        time: Timestamp(quantity(value.get("timestamp")?)?.saturating_mul(1000)),
    })
}

/// An event `RecordChanged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) block: Block,
    pub(super) index: u64,
    pub(super) token: [u8; 32],
}

/// Reads the events of an `eth_getLogs`. One that is not of the kind asked for makes the whole answer unusable.
pub(super) fn changes(value: &Json, topic: &[u8; 32]) -> Option<Vec<Change>> {
    value
        .as_list()?
        .iter()
        .map(|log| change(log, topic))
        .collect()
}

fn change(log: &Json, topic: &[u8; 32]) -> Option<Change> {
    let topics = log.get("topics")?.as_list()?;
    let [kind, token] = topics else {
        return None;
    };
    if word(kind)? != *topic {
        return None;
    }
    Some(Change {
        block: Block {
            number: quantity(log.get("blockNumber")?)?,
            hash: word(log.get("blockHash")?)?,
        },
        index: quantity(log.get("logIndex")?)?,
        token: word(token)?,
    })
}

/// A number: `0x` and one to sixteen hexadecimal digits.
pub(super) fn quantity(value: &Json) -> Option<u64> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    // `from_str_radix` alone would take a sign.
    if digits.is_empty() || digits.len() > 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// Bytes: `0x` and an even number of hexadecimal digits.
pub(super) fn bytes(value: &Json) -> Option<Vec<u8>> {
    decode(value.as_str()?)
}

fn word(value: &Json) -> Option<[u8; 32]> {
    let mut word = [0; 32];
    hex::decode_to_slice(value.as_str()?.strip_prefix("0x")?, &mut word).ok()?;
    Some(word)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}

fn encode(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Json {
        Json::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn bodies_are_what_the_specifications_show() {
        let block = Block {
            number: 16,
            hash: [0xab; 32],
        };
        assert_eq!(
            chain_id_body(7),
            r#"{"id":7,"jsonrpc":"2.0","method":"eth_chainId","params":[]}"#
        );
        let call: Value =
            serde_json::from_str(&call_at_body(1, &[0xc0; 20], &[1, 2], &block)).unwrap();
        assert_eq!(
            call["params"][0],
            json!({ "to": format!("0x{}", "c0".repeat(20)), "data": "0x0102" })
        );
        assert_eq!(
            call["params"][1],
            json!({ "blockHash": format!("0x{}", "ab".repeat(32)), "requireCanonical": true })
        );
        let logs: Value =
            serde_json::from_str(&logs_body(1, &[0; 20], 16, 255, &[1; 32], &[])).unwrap();
        assert_eq!(logs["params"][0]["fromBlock"], "0x10");
        assert_eq!(logs["params"][0]["toBlock"], "0xff");
        assert_eq!(logs["params"][0]["topics"][1], Value::Null);
    }

    #[test]
    fn answers_that_are_none_are_refused_with_the_reason() {
        for (answer, expected) in [
            ("", "the answer is not JSON"),
            ("[]", "the answer is not a JSON-RPC object"),
            ("null", "the answer is not a JSON-RPC object"),
            (r#"{"id":1}"#, "the answer has neither result nor error"),
            (r#"{"result":"0x"}"#, "the answer is to another request"),
            (
                r#"{"id":2,"result":"0x"}"#,
                "the answer is to another request",
            ),
            (
                r#"{"id":"1","result":"0x"}"#,
                "the answer is to another request",
            ),
            (
                r#"{"id":2,"error":{"code":1}}"#,
                "the answer is to another request",
            ),
            (
                r#"{"id":1,"error":{"code":-32000,"message":"header\u0007 not found"}}"#,
                "error -32000: header  not found",
            ),
            (
                r#"{"id":1,"error":{"code":-32005,"message":"slow down"}}"#,
                "rate limit",
            ),
            (r#"{"error":{"code":429}}"#, "rate limit"),
            (
                r#"{"id":1,"error":{"code":3,"message":"execution reverted","data":"0x01"}}"#,
                "the contract reverted",
            ),
            (r#"{"id":1,"error":"no"}"#, "error 0: "),
        ] {
            assert_eq!(
                result(1, answer.as_bytes()).unwrap_err().to_string(),
                expected,
                "{answer}"
            );
        }
        assert_eq!(
            result(1, br#"{"id":1,"result":"0x","error":null}"#),
            Ok(read(json!("0x")))
        );
    }

    #[test]
    fn revert_data_is_found_wherever_clients_put_it() {
        for data in [
            r#""0x0102""#,
            r#""Reverted 0x0102""#,
            r#"{"data":"0x0102"}"#,
            r#"{"result":"0x0102"}"#,
        ] {
            let answer = format!(r#"{{"id":1,"error":{{"code":3,"data":{data}}}}}"#);
            assert_eq!(
                result(1, answer.as_bytes()),
                Err(Refusal::Revert(alloc::vec![1, 2])),
                "{data}"
            );
        }
    }

    #[test]
    fn quantities_are_strict() {
        for (text, expected) in [
            ("0x0", Some(0)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x10000000000000000", None),
            ("0x", None),
            ("0x+1", None),
            ("16", None),
            ("0xg", None),
        ] {
            assert_eq!(quantity(&read(json!(text))), expected, "{text}");
        }
        assert_eq!(quantity(&read(json!(16))), None);
    }

    #[test]
    fn an_event_of_another_kind_spoils_the_answer() {
        let log = |topic: &str| {
            read(
                json!([{ "blockNumber": "0x1", "blockHash": encode(&[2; 32]), "logIndex": "0x0",
                     "topics": [topic, encode(&[3; 32])] }]),
            )
        };
        assert_eq!(changes(&log(&encode(&[1; 32])), &[1; 32]).unwrap().len(), 1);
        assert_eq!(changes(&log(&encode(&[9; 32])), &[1; 32]), None);
        assert_eq!(changes(&read(json!([{}])), &[1; 32]), None);
        assert_eq!(changes(&read(json!({})), &[1; 32]), None);
    }
}
