//! When whoever drives a pipe is woken, and when not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::host::{Bob, Caller};
use node_core::wire::frame::Frame;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything that bob has to say to a caller now; afterwards `waker` is woken for more.
fn said(bob: &Bob, to: &Caller, waker: &Waker) -> usize {
    let mut out = Vec::new();
    let says = || bob.node.poll_transmit(&to.pipe, waker, bob.now, &mut out);
    std::iter::from_fn(says).count()
}

#[test]
fn a_pipe_wakes_whoever_rests_and_nobody_who_is_at_work() {
    let mut bob = Bob::new();
    let mut caller = bob.mallory().ok().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let woken = || count.0.load(Ordering::Relaxed);
    said(&bob, &caller, &waker);
    // An answer is due: whoever rests is told.
    bob.tell(&mut caller, &Frame::Ping(1).encode());
    assert_eq!(woken(), 1);
    assert_eq!(said(&bob, &caller, &waker), 1);
    // Whoever has read the ping and is about to look what there is to say is not.
    bob.node.attend(&caller.pipe);
    bob.tell(&mut caller, &Frame::Ping(2).encode());
    assert_eq!(woken(), 1);
    assert_eq!(said(&bob, &caller, &waker), 1);
    // It rests again.
    bob.tell(&mut caller, &Frame::Ping(3).encode());
    assert_eq!(woken(), 2);
}
