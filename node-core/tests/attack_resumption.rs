//! Attacks on sessions that wait for another pipe, and on the search for one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod resumption_pair;

use bytes::BytesMut;
use nectar_sim::{OPEN_ROUTER, Outcome, Simulation, direct, indirect, name};
use node_core::{
    Code,
    channel::Reject,
    node::Event as NodeEvent,
    session::{Event, Resumed},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Response},
};
use resumption_pair::{
    MTU, opened,
    ours::{Dans, Ours, sealed},
};

/// Nine bytes that anybody on the way can write.
fn superseded_in_clear() -> Vec<u8> {
    let reject = vec![0x04, 0, 2, 1, 1, 0, 0, 0, 0];
    assert_eq!(
        Reject::parse(&reject),
        Some(Reject::new(Code::Superseded, None))
    );
    reject
}

#[test]
fn a_refusal_in_clear_behind_garbage_does_not_end_the_session_that_the_garbage_has_interrupted() {
    let mut ours = Ours::new("alice");
    ours.ask(1);
    let mut dans = ours.reached();
    ours.carry(&mut dans);
    let pipe = dans.pipe.clone();
    ours.hear(&pipe, vec![0x10; 20]);
    assert_eq!(ours.node.counts().parked, 1);
    ours.hear(&pipe, superseded_in_clear());
    assert_eq!(ours.node.counts().parked, 1, "it still waits");
    assert_eq!(ours.failed, []);
    ours.goes_on(&mut vec![dans]);
    assert_eq!(ours.answered, [1]);
}

#[test]
fn a_refusal_in_clear_cannot_say_that_the_name_lives_elsewhere() {
    let mut ours = Ours::new("alice");
    ours.ask(1);
    let pipe = ours.dialled.remove(0);
    ours.act(|node, _, _| node.opened(&pipe, None));
    ours.say(&pipe).expect("message 1");
    ours.hear(&pipe, superseded_in_clear());
    assert_eq!(ours.failed, [(1, Code::PipeLost)]);
}

#[test]
fn of_two_sessions_that_lose_their_pipes_together_neither_waits_for_ever() {
    let mut ours = Ours::new("alice");
    assert!(
        ours.actor.name().hash() > ours.dan.name().hash(),
        "what dan begins wins"
    );
    ours.ask(1);
    let mut first = ours.reached();
    ours.carry(&mut first);
    let mut second = ours.called();
    first.session.go_away(Duration::ZERO);
    ours.carry(&mut first);
    ours.ask(2);
    ours.carry(&mut second);
    let heard = |dans: &Dans| {
        let requests = dans.events.iter();
        let requests = requests.filter(|event| matches!(event, Event::Request { .. }));
        requests.count()
    };
    assert_eq!((heard(&first), heard(&second)), (1, 1), "both are used");
    for pipe in [first.pipe.clone(), second.pipe.clone()] {
        ours.lose(&pipe);
    }
    assert_eq!(ours.node.counts().parked, 2);
    let mut waiting = vec![first, second];
    let mut one = ours.goes_on(&mut waiting);
    let mut other = ours.goes_on(&mut waiting);
    for dans in [&mut one, &mut other] {
        ours.carry(dans);
    }
    ours.answered.sort_unstable();
    assert_eq!(ours.answered, [1, 2]);
    assert_eq!(ours.failed, []);
}

#[test]
fn a_search_that_ends_with_a_session_in_reserve_is_over_and_the_next_one_can_begin() {
    let mut ours = Ours::new("alice");
    assert!(
        ours.actor.name().hash() > ours.dan.name().hash(),
        "what dan begins wins"
    );
    ours.ask(1);
    let mut lost = ours.reached();
    ours.carry(&mut lost);
    ours.lose(&lost.pipe);
    // While we dial, dan calls; and he no longer knows the session that waits.
    let mut called = ours.called();
    let (pipe, mut channel, attach) = ours.picked_up();
    assert_eq!(attach.status, AttachStatus::Resume);
    let unknown = Attach {
        status: AttachStatus::Unknown,
        recv_off: 0,
        send_off: 0,
        proof: [0; 32],
        agent: "".into(),
        ..*attach
    };
    ours.hear(&pipe, sealed(&mut channel, unknown));
    let record = BytesMut::from(&ours.say(&pipe).expect("a new session")[..]);
    let (attach, _) = opened(&mut channel, record);
    let mut reserve = ours.accepted(pipe, channel, &attach);
    ours.carry(&mut called);
    // Both are used, and both lose their pipes.
    ours.ask(2);
    ours.carry(&mut called);
    ours.carry(&mut reserve);
    ours.lose(&called.pipe);
    ours.ask(3);
    ours.carry(&mut reserve);
    ours.lose(&reserve.pipe);
    let mut waiting = vec![called, reserve];
    let mut one = ours.goes_on(&mut waiting);
    let mut other = ours.goes_on(&mut waiting);
    for dans in [&mut one, &mut other] {
        ours.carry(dans);
    }
    ours.answered.sort_unstable();
    assert_eq!(ours.answered, [2, 3]);
}

#[test]
fn a_router_that_says_again_and_again_that_it_has_a_newer_attempt_keeps_nobody_from_giving_up_on_others()
 {
    let mut ours = Ours::new("alice");
    ours.ask(1);
    let mut dans = ours.reached();
    // What is lost sooner counts as a failure itself.
    ours.pass(Duration::from_secs(6));
    ours.carry(&mut dans);
    let now = ours.now;
    dans.session.park(Code::PipeLost, now, &mut dans.events);
    ours.lose(&dans.pipe);
    // Eve is behind dan.
    ours.ask_of("eve", 2);
    for told in 1..=2 {
        assert_eq!(ours.failed, [], "told {} times", told - 1);
        let (pipe, channel, attach) = ours.picked_up();
        assert_eq!(attach.status, AttachStatus::Resume);
        while dans.session.offer(&channel).unwrap().attempt <= attach.attempt {}
        let (now, events) = (ours.now, &mut dans.events);
        let answer = dans.session.presented(channel, &attach, MTU, now, events);
        let Resumed::Stale(mut channel, answer) = answer else {
            panic!("dan has a newer one");
        };
        ours.hear(&pipe, sealed(&mut channel, *answer));
    }
    assert_eq!(
        ours.failed,
        [(2, Code::Offline)],
        "eve is looked for elsewhere"
    );
    // What dan himself was asked waits for him.
    ours.goes_on(&mut vec![dans]);
    assert_eq!(ours.answered, [1]);
}

#[test]
fn a_router_that_turns_itself_indirect_does_not_keep_its_callers_from_giving_up() {
    let records = [
        ("sigma", direct("sigma", 2)),
        ("rho", indirect("rho", &["sigma"])),
        ("bob", indirect("bob", &["rho"])),
        ("alice", indirect("alice", &[])),
    ];
    let mut world = Simulation::new(1);
    for label in ["sigma", "rho"] {
        let mut config = Simulation::config(label, &records);
        config.router = OPEN_ROUTER;
        world.add_named(label, config);
    }
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.run_for(Duration::from_secs(2));
    for _ in 0..3 {
        let began = world.now();
        let token = world.request(alice, &name("bob"), b"?");
        let Outcome::Failed(failure) = world.outcome(alice, token) else {
            panic!("rho carries nobody")
        };
        assert_eq!(failure.reason(), Code::NoRoute);
        assert!(world.now().since(began) < Duration::from_secs(5));
    }
    let token = world.request(alice, &name("rho"), b"?");
    assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
}

#[test]
fn two_routers_whose_records_name_each_other_keep_no_search_from_its_end() {
    let records = [
        ("rho", direct("rho", 1)),
        ("mordred", indirect("mordred", &["morgana"])),
        ("morgana", indirect("morgana", &["mordred"])),
        ("bob", indirect("bob", &["rho", "mordred"])),
        ("alice", indirect("alice", &[])),
    ];
    let mut world = Simulation::new(1);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    world.add_named("rho", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.run_for(Duration::from_secs(2));
    for to in ["bob", "mordred"] {
        let began = world.now();
        let token = world.request(alice, &name(to), b"?");
        assert!(matches!(world.outcome(alice, token), Outcome::Failed(_)));
        assert!(world.now().since(began) < Duration::from_secs(5), "{to}");
    }
    world.add_named("bob", Simulation::config("bob", &records));
    world.run_for(Duration::from_secs(2));
    let token = world.request(alice, &name("bob"), b"?");
    assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
}

#[test]
fn a_guest_who_dials_a_node_again_does_not_lose_the_session_that_it_has() {
    let records = [
        ("sigma", direct("sigma", 2)),
        ("rho", indirect("rho", &["sigma"])),
        ("bob", indirect("bob", &["rho"])),
    ];
    let mut world = Simulation::new(1);
    let [_, rho] = ["sigma", "rho"].map(|label| {
        let mut config = Simulation::config(label, &records);
        config.guests = true;
        config.router = OPEN_ROUTER;
        world.add_named(label, config)
    });
    let mut config = Simulation::config("guest", &records);
    (config.identity.name, config.identity.key) = (None, [0; 32]);
    let guest = world.add_named("guest", config);
    world.run_for(Duration::from_secs(2));
    world.machines[rho].hold_requests = true;
    let first = world.request(guest, &name("rho"), b"first");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.machines[rho].held_requests.len(), 1);
    // A circuit to bob needs a socket to rho, which is only reached over sigma.
    let second = world.request(guest, &name("bob"), b"second");
    assert!(matches!(world.outcome(guest, second), Outcome::Failed(_)));
    world.run_for(Duration::from_secs(2));
    let held = world.machines[rho].held_requests.pop().unwrap();
    assert!(held.respond(Response::Success(None)));
    assert!(matches!(world.outcome(guest, first), Outcome::Answered(_)));
}

#[test]
fn nobody_is_reported_for_a_record_that_anybody_may_have_written() {
    for forged in [vec![0x10; 20], vec![0x10; 70_000]] {
        let mut ours = Ours::new("alice");
        ours.ask(1);
        let dans = ours.reached();
        ours.hear(&dans.pipe, forged);
        assert_eq!(ours.node.counts().parked, 1);
        let reported = |event: &NodeEvent| matches!(event, NodeEvent::Misbehaved { .. });
        assert!(!ours.events.iter().any(reported), "{:?}", ours.events);
    }
}

#[test]
fn a_node_that_a_router_calls_superseded_does_not_take_its_name_back_until_it_is_told_to() {
    let mut ours = Ours::new("alice");
    ours.act(|node, now, out| node.start(now, out));
    let mut dans = ours.reached();
    dans.session.close(Code::Superseded, None);
    ours.carry(&mut dans);
    let told = NodeEvent::Identity(Code::Superseded);
    assert!(ours.events.contains(&told));
    assert_eq!(ours.node.counts().sessions, 0);
    ours.pass(Duration::from_secs(300));
    assert_eq!(ours.dialled.len(), 0, "it does not come back");
    ours.act(|node, now, out| node.start(now, out));
    assert_eq!(ours.dialled.len(), 1, "unless a person wants it to");
}
