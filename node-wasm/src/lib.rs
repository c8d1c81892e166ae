//! A nectar node in a browser tab, or in a worker.
//!
//! ```text
//!  js/index.ts ── WasmNode ── Driver ── node_core::Node
//!                               │
//!        WebSocket ── socket ───┼── fetch ── RPC endpoints
//!        WebCrypto ── key ──────┘
//!                      └── storage ── IndexedDB
//! ```
//!
//! The core does all that can be done without a browser; here is what cannot. Everything runs on one thread and is
//! moved by events: a socket's message, a timer, a promise. Nothing is kept that nobody owns: each callback belongs to
//! the value that it serves and goes with it.
//!
//! What is exported is declared in `js/wasm.d.ts` and wrapped by `js/index.ts`, which applications use. Errors are thrown
//! as plain objects `{code, name, message, kind?, retryAfterMs?}`.
#![cfg(target_arch = "wasm32")]

mod convert;
mod driver;
mod fetch;
mod handlers;
mod key;
mod node;
mod options;
mod pending;
mod scope;
mod socket;
mod storage;
mod stream;

pub use node::{WasmNode, generate_key};
pub use stream::WasmStream;

#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

#[cfg(test)]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);
