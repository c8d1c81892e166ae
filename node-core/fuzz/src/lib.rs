//! What must hold whatever comes in.
//!
//! Each target is a function of any bytes that panics where something is not as it must be. `libfuzzer/` feeds them with
//! what a fuzzer finds; `tests/corpus.rs` with what is kept in `corpus/`, on every run of the tests.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/resumption_pair/mod.rs"]
mod resumption_pair;

mod answers;
mod frames;
mod handshake;
mod hello;
mod input;
mod link;
mod memory;
mod messages;
mod names;
#[cfg(feature = "native")]
mod native;
mod network;
mod records;
mod resolver;
mod session;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its binary and of its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes; panics where something does not hold.
    pub run: fn(&[u8]),
}

/// All targets: parsers, then state machines, then whole nodes.
pub const TARGETS: &[Target] = &[
    target("frames", frames::run),
    target("hello", hello::run),
    target("messages", messages::run),
    target("names", names::run),
    target("records", records::run),
    target("answers", answers::run),
    target("resolver", resolver::run),
    #[cfg(feature = "native")]
    target("config", native::config),
    #[cfg(feature = "native")]
    target("keys", native::keys),
    #[cfg(feature = "native")]
    target("bans", native::bans),
    target("handshake", handshake::run),
    target("session", session::run),
    target("link", link::run),
    target("network", network::run),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs the target called `name`.
///
/// # Panics
/// When there is none, or when something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target
        .unwrap_or_else(|| panic!("no target is called {name}"))
        .run)(data);
}
