//! Pieces of a node's work whose instructions `cargo xtask test` counts, under Valgrind, against the figures in
//! `benches/instructions.txt`:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*measured*' instructions handshake|exchange|records|requests|routed
//! ```

#[path = "../benches/work/mod.rs"]
mod work;

use work::{Callers, Exchange, Records, Talk};

fn main() {
    match std::env::args().nth(1).as_deref() {
        // More than wait at a server for their caller's return, so that each that goes ends another's waiting.
        Some("handshake") => {
            let mut callers = Callers::after(264);
            measured(|| (0..20).for_each(|_| callers.come_and_go()));
        }
        Some("exchange") => {
            let parties = Exchange::new();
            measured(|| {
                (0..20).for_each(|seed| {
                    parties.shake_hands(seed);
                });
            });
        }
        Some("records") => {
            let mut records = Records::of(16 << 10);
            measured(|| {
                (0..64).for_each(|_| {
                    records.carry();
                });
            });
        }
        Some("requests") => {
            let mut talk = Talk::direct(32);
            measured(|| talk.ask(10_000));
        }
        // A request and its answer are two frames.
        Some("routed") => {
            let mut talk = Talk::routed(32);
            measured(|| talk.ask(5_000));
        }
        _ => {
            eprintln!("usage: instructions handshake|exchange|records|requests|routed");
            std::process::exit(2);
        }
    }
}

/// Valgrind counts from here to its end, by the name.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}
