//! Attacks on a `nectar run` that serves an honest pair meanwhile. Each says what it may cost, and that is measured.
//!
//! A router runs as a process of its own, with small limits. Alice and Bob, in a process of their own, ask each other
//! through it all the time. The attacker has a thread of the lowest priority to itself. In all of them the router goes on running, logs no
//! abnormal end, never holds more memory than `nectar run --check` says that peers can make it hold, nor than what the attack
//! may cost by itself, and each honest request is answered.
//!
//! How long these take at most is asserted generously here: tests share their machine with others. `cargo xtask attack`
//! runs the same tests one by one, optimised, and asserts what is promised of a thousand requests at least: p99 at most ten times
//! that of a quiet time (or two ticks of the kernel) and at most 25 ms, and none that takes longer than 250 ms.
//!
//! Some need addresses that are public, or files of the system to be others. They run in a network namespace of their own, and
//! say that they were skipped on a machine that gives them none.

pub(crate) mod attacker;
mod circuits;
mod dialling;
mod floods;
mod frames;
mod handshakes;
mod hoard;
mod honest;
mod outside;
mod peers;
mod rebinding;
mod requests;
mod scarce;
mod siege;
mod web;

#[path = "../../../../node-core/tests/common/stranger.rs"]
mod stranger;
