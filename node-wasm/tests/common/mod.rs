//! A node to try things on, and a look at what it throws.
#![allow(dead_code, reason = "each test crate uses its own part")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use js_sys::{Function, JSON, Promise, Reflect};
use node_wasm::WasmNode;
use std::{cell::RefCell, rc::Rc};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// A guest that knows one direct peer, at a port of this machine where nobody listens.
pub(crate) const GUEST: &str = r#"{
    "guest": true,
    "registries": [{
        "tld": "test", "chainId": 31337, "contract": "0x00000000000000000000000000000000000000aa", "rpcs": []
    }],
    "pinned": [{
        "name": "bob.test",
        "key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "routing": { "host": "127.0.0.1", "port": 49151, "schemes": ["ws"] },
        "routers": []
    }],
    "allowPrivate": true,
    "limits": { "backoffMinMs": 20, "backoffMaxMs": 40 }
}"#;

pub(crate) fn json(text: &str) -> JsValue {
    JSON::parse(text).expect("JSON")
}

pub(crate) async fn guest() -> WasmNode {
    WasmNode::start(json(GUEST)).await.expect("a guest starts")
}

pub(crate) async fn thrown(promise: Promise) -> JsValue {
    JsFuture::from(promise).await.expect_err("it fails")
}

pub(crate) async fn value(promise: Promise) -> JsValue {
    JsFuture::from(promise).await.expect("it succeeds")
}

pub(crate) fn text(of: &JsValue, field: &str) -> String {
    Reflect::get(of, &field.into())
        .ok()
        .and_then(|value| value.as_string())
        .unwrap_or_else(|| panic!("no text {field} in {of:?}"))
}

pub(crate) fn number(of: &JsValue, field: &str) -> f64 {
    Reflect::get(of, &field.into())
        .ok()
        .and_then(|value| value.as_f64())
        .unwrap_or_else(|| panic!("no number {field} in {of:?}"))
}

pub(crate) async fn sleep(millis: f64) {
    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_name = setTimeout)]
        fn set_timeout(callback: &Function, delay_ms: f64);
    }
    let promise = Promise::new(&mut |done, _| set_timeout(done.unchecked_ref(), millis));
    value(promise.unchecked_into()).await;
}

/// Events, as `type name state`.
pub(crate) type Heard = Rc<RefCell<Vec<String>>>;

/// Writes down all events of a node.
pub(crate) fn record(node: &WasmNode) -> (Heard, Closure<dyn FnMut(JsValue)>) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let told = heard.clone();
    let closure = Closure::new(move |event: JsValue| {
        let kind = text(&event, "type");
        if kind != "log" {
            let name = match kind.as_str() {
                "identity" => String::new(),
                _ => text(&event, "name"),
            };
            told.borrow_mut()
                .push(format!("{kind} {name} {}", text(&event, "state")));
        }
    });
    node.events(closure.as_ref().unchecked_ref::<Function>().clone());
    (heard, closure)
}
