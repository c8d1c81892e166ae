//! A node in a SharedWorker, where it lives when several tabs share it.
#![cfg(target_arch = "wasm32")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/realm.rs"]
mod realm;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_shared_worker);
