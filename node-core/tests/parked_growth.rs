//! What comes together in sessions that wait for their next pipe: answers, and what is written to their streams.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use nectar_sim::{NodeId, Outcome, Simulation, direct, name};
use node_core::{Code, node::NodeConfig, time::Duration, wire::frame::Response};
use std::task::{Context, Waker};

const MS: Duration = Duration::from_millis(1);
const BOUND: usize = 200_000;
const CALLERS: [&str; 4] = ["alice", "bob", "carol", "erin"];

/// Callers who have a session with dan, of whom none comes back once it is cut.
struct Net {
    world: Simulation,
    dan: NodeId,
    callers: Vec<NodeId>,
}

impl Net {
    fn new() -> Self {
        let mut records = vec![("dan", direct("dan", 1))];
        records.extend(
            (2..)
                .zip(CALLERS)
                .map(|(at, label)| (label, direct(label, at))),
        );
        let mut world = Simulation::new(7);
        let mut add = |label: &str| {
            let mut config: NodeConfig = Simulation::config(label, &records);
            config.limits.parked_bytes = BOUND;
            config.limits.parked_sessions = 8;
            config.limits.session_kept = Duration::from_secs(1000);
            world.add_named(label, config)
        };
        let dan = add("dan");
        let callers = CALLERS.map(add).to_vec();
        Self {
            world,
            dan,
            callers,
        }
    }

    /// They die without a word, and their sockets are cut.
    fn park_all(&mut self) {
        for caller in self.callers.clone() {
            self.world.machines[caller].dead = true;
            self.world.cut(caller, self.dan, Code::PipeLost);
        }
        self.world.run_for(Duration::from_secs(1));
        assert_eq!(self.parked(), CALLERS.len());
    }

    fn parked(&self) -> usize {
        self.world.machines[self.dan].node.counts().parked
    }
}

#[test]
fn answers_to_those_who_are_gone_are_counted_as_they_come_together() {
    let mut net = Net::new();
    net.world.machines[net.dan].hold_requests = true;
    for caller in net.callers.clone() {
        for _ in 0..3 {
            net.world.request(caller, &name("dan"), b"much");
        }
    }
    net.world.run_for(Duration::from_secs(1));
    net.park_all();
    let held = std::mem::take(&mut net.world.machines[net.dan].held_requests);
    assert_eq!(held.len(), 3 * CALLERS.len());
    for incoming in held {
        incoming.respond(Response::Success(Some(Bytes::from(vec![1; 30_000]))));
        net.world.run_for(MS);
    }
    // Four times 90,000 bytes were to be kept.
    assert_eq!(net.parked(), 2, "as many as fit the bound");
}

#[test]
fn what_is_written_to_streams_of_those_who_are_gone_is_counted_as_it_comes_together() {
    let mut net = Net::new();
    let mut streams = Vec::new();
    for (caller, label) in net.callers.clone().into_iter().zip(CALLERS) {
        let asked = net.world.request(caller, &name("dan"), b"there?");
        assert!(matches!(
            net.world.outcome(caller, asked),
            Outcome::Answered(_)
        ));
        let stream = net.world.open_stream(net.dan, &name(label));
        let Outcome::Opened(stream) = net.world.outcome(net.dan, stream) else {
            panic!("opened")
        };
        streams.push(stream);
    }
    net.park_all();
    for _ in 0..9 {
        for stream in &streams {
            let mut cx = Context::from_waker(Waker::noop());
            let mut data = Bytes::from(vec![1; 10_000]);
            assert!(stream.poll_write(&mut data, &mut cx).is_ready());
            net.world.run_for(MS);
        }
    }
    assert_eq!(net.parked(), 2, "as many as fit the bound");
}
