//! What holds in every realm of a browser: page, worker and SharedWorker.

use super::common::*;
use js_sys::Uint8Array;
use node_wasm::{WasmNode, generate_key};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test as test;
use web_sys::AbortController;

const NAMED: &str = r#"{
    "name": "alice.test",
    "registries": [{
        "tld": "test", "chainId": 31337, "contract": "0x00000000000000000000000000000000000000aa", "rpcs": []
    }]
}"#;

fn payload() -> JsValue {
    Uint8Array::from(&b"hello"[..]).into()
}

#[test]
async fn the_key_is_the_same_at_every_start_and_belongs_to_the_node() {
    let key = generate_key().await.expect("a key").to_vec();
    assert_eq!(key.len(), 32);
    let again = generate_key().await.expect("the key").to_vec();
    assert_eq!(key, again);
    let node = WasmNode::start(json(NAMED)).await.expect("a node");
    assert_eq!(node.public_key().to_vec(), key);
    assert!(node.secure());
    assert_eq!(node.name().as_deref(), Some("alice.test"));
    value(node.close()).await;
}

#[test]
async fn a_peer_that_cannot_be_dialled_is_offline_and_the_reason_stands_beneath() {
    let node = guest().await;
    assert!(node.name().is_none() && !node.secure() && node.public_key().length() == 0);
    let error = thrown(node.request(
        "bob.test",
        "echo.1",
        &payload(),
        &JsValue::UNDEFINED,
        None,
        None,
    ))
    .await;
    assert_eq!(text(&error, "name"), "dial_failed");
    assert_eq!(text(&error, "kind"), "offline");
    assert_eq!(number(&error, "code"), 609.0);
    assert!(text(&error, "message").starts_with("the peer cannot be reached: "));
    let error = thrown(node.ping("bob.test")).await;
    assert_eq!(text(&error, "kind"), "offline");
    value(node.close()).await;
}

#[test]
async fn a_contact_is_tried_again_and_again_and_events_tell_how_it_goes() {
    let node = guest().await;
    let (heard, _sink) = record(&node);
    value(node.connect("bob.test")).await;
    for _ in 0..100 {
        sleep(20.0).await;
        if heard
            .borrow()
            .iter()
            .filter(|event| *event == "peer bob.test connecting")
            .count()
            >= 3
        {
            break;
        }
    }
    let heard = heard.borrow().clone();
    let count = |wanted: &str| heard.iter().filter(|event| *event == wanted).count();
    assert!(count("peer bob.test connecting") >= 3, "{heard:?}");
    assert!(count("peer bob.test offline") >= 2, "{heard:?}");
    let peers = node.peers();
    assert_eq!(peers.length(), 1);
    assert_eq!(text(&peers.get(0), "name"), "bob.test");
    assert_eq!(node.routers().length(), 0);
    value(node.close()).await;
}

#[test]
async fn an_aborted_request_fails_at_once_before_and_after_it_was_sent() {
    let node = guest().await;
    let controller = AbortController::new().expect("a controller");
    let request = || {
        let signal = Some(controller.signal());
        node.request(
            "bob.test",
            "echo.1",
            &payload(),
            &JsValue::UNDEFINED,
            None,
            signal,
        )
    };
    let asked = request();
    controller.abort();
    assert_eq!(text(&thrown(asked).await, "name"), "cancelled");
    assert_eq!(text(&thrown(request()).await, "name"), "cancelled");
    value(node.close()).await;
}

#[test]
async fn names_and_records_are_answered_without_any_chain_where_they_are_pinned() {
    let node = guest().await;
    let record = value(node.resolve("bob.test", true)).await;
    assert_eq!(text(&record, "name"), "bob.test");
    assert_eq!(text(&record, "how"), "pinned");
    assert_eq!(number(&record, "epoch"), 1.0);
    for (name, expected) in [
        ("bo.test", "name_invalid"),
        ("bob", "name_invalid"),
        ("bob.eth", "tld_unknown"),
        ("carol.test", "name_unknown"),
    ] {
        let error = thrown(node.resolve(name, false)).await;
        assert_eq!(text(&error, "name"), expected, "{name}");
    }
    let error = thrown(node.available("carol", "test")).await;
    assert_eq!(text(&error, "name"), "chain_unavailable");
    value(node.close()).await;
}

#[test]
async fn what_is_under_way_when_a_node_is_closed_fails_and_so_does_everything_after() {
    let node = guest().await;
    let asked = node.message("bob.test", "chat.1", &payload());
    value(node.close()).await;
    let error = thrown(asked).await;
    assert!(
        ["node_closed", "dial_failed"].contains(&text(&error, "name").as_str()),
        "{error:?}"
    );
    let error = thrown(node.message("bob.test", "chat.1", &payload())).await;
    assert_eq!(text(&error, "name"), "node_closed");
    value(node.close()).await;
}

#[test]
async fn bad_arguments_are_refused_with_what_is_wrong_with_them() {
    let node = guest().await;
    let none = &JsValue::UNDEFINED;
    for (promise, said) in [
        (
            node.request("bob.test", "echo.1", &"text".into(), none, None, None),
            "payload",
        ),
        (
            node.request("bob.test", "echo.1", &payload(), &5.into(), None, None),
            "metadata",
        ),
        (
            node.request("bob.test", "echo.1", &payload(), none, Some(-1.0), None),
            "deadline",
        ),
        (
            node.request("bob.test", "echo.1", &payload(), none, Some(f64::NAN), None),
            "deadline",
        ),
        (
            node.request("bob.test", "", &payload(), none, None, None),
            "",
        ),
        (
            node.open_stream("bob.test", "file.1".into(), &"text".into()),
            "metadata",
        ),
    ] {
        let error = thrown(promise).await;
        assert_eq!(text(&error, "name"), "invalid_argument", "{said}");
        assert!(text(&error, "message").contains(said), "{error:?}");
    }
    value(node.close()).await;
}
