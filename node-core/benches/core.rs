//! How long the pieces of a node's work take: `cargo bench --package node-core --features fast-crypto`, a few seconds in all.

#![allow(missing_docs, reason = "the macros write functions without")]

mod work;

use bytes::Bytes;
use divan::{Bencher, counter::BytesCount};
use node_core::wire::frame::{Frame, next};
use work::{Callers, Exchange, Records, Talk};

fn main() {
    divan::main();
}

/// Messages and cryptography of both sides.
#[divan::bench(sample_count = 20, sample_size = 5)]
fn handshake_alone(bencher: Bencher) {
    let parties = Exchange::new();
    bencher.bench_local(|| parties.shake_hands(3));
}

/// A caller's node starts, dials, attaches a session, and is gone: both sides, no sockets.
#[divan::bench(sample_count = 20, sample_size = 5)]
fn handshake_of_nodes(bencher: Bencher) {
    let mut callers = Callers::after(264);
    bencher.bench_local(|| callers.come_and_go());
}

#[divan::bench(args = [64, 1 << 10, 16 << 10], sample_count = 100, sample_size = 50)]
fn seal_and_open(bencher: Bencher, bytes: usize) {
    let mut records = Records::of(bytes);
    let bencher = bencher.counter(BytesCount::new(bytes));
    bencher.bench_local(|| records.carry());
}

#[divan::bench(args = [64, 1 << 10, 16 << 10], sample_count = 100, sample_size = 50)]
fn write_and_read_a_frame(bencher: Bencher, bytes: usize) {
    let data = Bytes::from(vec![7; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let frame = Frame::CircuitData {
            cid: 5,
            data: data.clone(),
        };
        let mut written = Bytes::from(frame.encode());
        divan::black_box(next(&mut written))
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn hundred_requests_direct(bencher: Bencher) {
    let mut talk = Talk::direct(32);
    bencher.bench_local(|| talk.ask(100));
}

/// Two hundred frames of circuits through a router.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn hundred_requests_through_a_router(bencher: Bencher) {
    let mut talk = Talk::routed(32);
    bencher.bench_local(|| talk.ask(100));
}
