//! Options that make no sense are refused with the field that is wrong. In Node.js, which also shows that a realm
//! without a browser's storage gets a clear answer.
#![cfg(target_arch = "wasm32")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use js_sys::{Object, Reflect};
use node_wasm::WasmNode;
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test as test;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_node_experimental);

async fn refusal(options: JsValue) -> String {
    let error = WasmNode::start(options).await.expect_err("refused");
    assert_eq!(text(&error, "name"), "invalid_argument");
    assert_eq!(number(&error, "code"), 409.0);
    text(&error, "message")
}

/// The guest's options with the value at `path` replaced.
fn with(path: &[&str], value: &str) -> JsValue {
    let options = json(GUEST);
    let (last, parents) = path.split_last().expect("a path");
    let mut at = options.clone();
    for part in parents {
        at = Reflect::get(&at, &(*part).into()).expect("a parent");
    }
    Reflect::set(&at, &(*last).into(), &json(value)).expect("set");
    options
}

#[test]
async fn every_field_that_is_wrong_is_named_with_what_it_should_be() {
    for (path, value, said) in [
        (&["guest"][..], "1", "guest: true or false is needed"),
        (&["guest"], "false", "name is missing"),
        (&["name"], "\"alice.test\"", "not both"),
        (&["nane"], "1", "nane is unknown; there are name, guest"),
        (&["registries"], "{}", "registries: a list is needed"),
        (&["registries"], "[5]", "registries[0]: an object is needed"),
        (
            &["registries", "0", "tld"],
            "\".test\"",
            "registries[0].tld: an ending",
        ),
        (
            &["registries", "0", "chainId"],
            "1.5",
            "registries[0].chainId: a whole number",
        ),
        (
            &["registries", "0", "chainId"],
            "-1",
            "registries[0].chainId: a whole number",
        ),
        (
            &["registries", "0", "contract"],
            "\"0xaa\"",
            "registries[0].contract: 0x and 40",
        ),
        (
            &["registries", "0", "rpcs"],
            "[\"ftp://x\"]",
            "registries[0].rpcs[0]: an http or https",
        ),
        (
            &["registries", "0", "rpcs"],
            "[7]",
            "registries[0].rpcs[0]: a text",
        ),
        (
            &["registries", "0", "quorum"],
            "2",
            "registries[0].quorum: between 1 and 1",
        ),
        (
            &["registries", "0", "rpc"],
            "[]",
            "registries[0].rpc is unknown",
        ),
        (
            &["pinned", "0", "name"],
            "\"bob.eth\"",
            "pinned[0].name \"bob.eth\": no registry",
        ),
        (
            &["pinned", "0", "name"],
            "\"Bob.test\"",
            "pinned[0].name \"Bob.test\": 'B' is not allowed",
        ),
        (
            &["pinned", "0", "key"],
            "\"00\"",
            "pinned[0].key: 64 hexadecimal digits",
        ),
        (
            &["pinned", "0", "key"],
            "\"0100000000000000000000000000000000000000000000000000000000000000\"",
            "pinned[0]: the networking key is of small order",
        ),
        (
            &["pinned", "0", "routing", "host"],
            "\"a_b\"",
            "pinned[0].routing.host: '_' is not allowed",
        ),
        (
            &["pinned", "0", "routing", "port"],
            "70000",
            "pinned[0].routing.port: between 1 and 65535",
        ),
        (
            &["pinned", "0", "routing", "schemes"],
            "[\"http\"]",
            "pinned[0].routing.schemes: \"ws\"",
        ),
        (
            &["pinned", "0", "routers"],
            "[\"loach.test\"]",
            "pinned[0]: a direct node lists no routers",
        ),
        (
            &["pinned", "0", "routers"],
            "[\"x\"]",
            "pinned[0].routers[0] \"x\": a name needs",
        ),
        (
            &["routers"],
            "[{\"name\": \"loach.test\", \"url\": \"http://x\"}]",
            "routers[0].url: a ws or wss",
        ),
        (&["allowPrivate"], "\"yes\"", "allowPrivate: true or false"),
        (
            &["limits", "bytes"],
            "1",
            "limits.bytes is unknown; there are handshakeTimeoutMs",
        ),
        (
            &["limits", "routers"],
            "-1",
            "limits.routers: a whole number",
        ),
        (
            &["limits", "clockWindowMs"],
            "9007199254740991",
            "limits.clockWindowMs: a smaller number",
        ),
        (
            &["limits", "keepaliveMisses"],
            "5000000000",
            "limits.keepaliveMisses: a smaller number",
        ),
    ] {
        let message = refusal(with(path, value)).await;
        assert!(message.contains(said), "{path:?} = {value}: {message}");
    }
}

#[test]
async fn options_that_are_no_object_are_refused() {
    for options in [
        JsValue::UNDEFINED,
        JsValue::NULL,
        5.into(),
        "x".into(),
        json("[]"),
    ] {
        assert_eq!(refusal(options).await, "the options: an object is needed");
    }
    assert_eq!(
        refusal(Object::new().into()).await,
        "name is missing; a node without one sets guest"
    );
}

#[test]
async fn two_registries_with_one_ending_are_refused() {
    let options = json(GUEST);
    let registries = Reflect::get(&options, &"registries".into()).expect("registries");
    let first = Reflect::get(&registries, &"0".into()).expect("a registry");
    Reflect::set(&registries, &"1".into(), &first).expect("set");
    assert_eq!(
        refusal(options).await,
        "two registries have the ending .test"
    );
}

#[test]
async fn a_name_needs_a_place_for_its_key() {
    let options = with(&["guest"], "false");
    Reflect::set(&options, &"name".into(), &"alice.test".into()).expect("set");
    let error = WasmNode::start(options).await.expect_err("no storage here");
    assert_eq!(text(&error, "name"), "signer_failed");
    assert!(text(&error, "message").contains("IndexedDB"), "{error:?}");
}
