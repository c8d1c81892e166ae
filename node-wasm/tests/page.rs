//! A node in a page.
#![cfg(target_arch = "wasm32")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/realm.rs"]
mod realm;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);
