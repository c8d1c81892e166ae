//! Streams.

use super::{Flow, open, pattern, start_reachable, succeeds, two_direct, two_routed};
use crate::world::{ByteStream, PATIENCE, Place, Plan, World};
use bytes::Bytes;
use node_core::{Code, Limits, session::StreamError};
use std::task::Poll;

pub(super) fn a_stream_carries_megabytes_each_way_and_ends(world: &mut impl World) {
    let [alice, bob, rho, _] = two_routed(world);
    for (to, reader) in [("rho", rho), ("bob", bob)] {
        let [mut here, mut far] = open(world, alice, to, reader);
        let (data, back) = (pattern(5 << 20), pattern(3 << 20));
        let (mut there, mut home) = (Flow::of(data.clone()), Flow::of(back.clone()));
        // Both ways at once: writers wait for the readers' windows.
        let arrived = world.wait(PATIENCE, |_| {
            let arrived = there.go_on(&mut here, &mut far);
            home.go_on(&mut far, &mut here) && arrived
        });
        assert!(
            arrived,
            "{} and {} bytes arrived",
            there.got.len(),
            home.got.len()
        );
        assert!(there.got == data && home.got == back);
    }
}

pub(super) fn a_stream_that_is_dropped_unfinished_does_not_look_finished(world: &mut impl World) {
    let [alice, bob] = two_direct(world);
    let [mut here, mut far] = open(world, alice, "bob", bob);
    let mut half = Bytes::from_static(b"half a file");
    assert!(succeeds(here.write(&mut half)).is_some());
    drop(here);
    let mut end = None;
    world.wait(PATIENCE, |_| {
        end = match far.read() {
            Poll::Ready(Ok(Some(_))) | Poll::Pending => None,
            Poll::Ready(end) => Some(end),
        };
        end.is_some()
    });
    let cancelled = StreamError::Reset(Code::Cancelled.as_u16());
    assert_eq!(end, Some(Err(cancelled)));
}

pub(super) fn a_slow_reader_does_not_grow_its_router_while_another_circuit_runs_at_full_speed(
    world: &mut impl World,
) {
    let labels = ["alice", "bob", "carol", "dave"];
    world.register(&["rho"], Place::Direct);
    world.register(&labels, Place::Behind(&["rho"]));
    let rho = world.start(Plan::router("rho"));
    let [alice, bob, carol, dave] = labels.map(|label| start_reachable(world, Plan::named(label)));
    // Bob's application takes the stream and reads nothing; alice sends as much as she is let.
    let [mut stuck, _unread] = open(world, alice, "bob", bob);
    let window = Limits::default().stream_window as usize;
    let (least, most) = (window, 2 * window);
    let piece = Bytes::from(vec![7; 64 << 10]);
    let mut to_bob = 0;
    let mut push = || {
        while to_bob < most && succeeds(stuck.write(&mut piece.clone())).is_some() {
            to_bob += piece.len();
        }
        to_bob
    };
    let full = world.wait(PATIENCE, |_| push() >= least);
    assert!(full, "alice may send a window before anybody reads");
    let (data, [mut free, mut far]) = (pattern(8 << 20), open(world, carol, "dave", dave));
    let (mut flow, mut peak) = (Flow::of(data.clone()), 0);
    let arrived = world.wait(PATIENCE, |world| {
        push();
        peak = peak.max(world.counts(rho).circuit_bytes);
        flow.go_on(&mut free, &mut far)
    });
    assert!(arrived, "{} bytes of the other circuit", flow.got.len());
    assert!(flow.got == data);
    assert!(push() < most, "alice is never told to wait");
    let window = Limits::default().circuit_window;
    assert!(
        peak <= 4 * window + (128 << 10),
        "the router held {peak} bytes for two circuits"
    );
}
