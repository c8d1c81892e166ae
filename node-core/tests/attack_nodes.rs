//! What strangers, guests, routers and second processes can do to whole nodes, in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use bytes::Bytes;
use nectar_sim::{NodeId, OPEN_ROUTER, Outcome, Simulation, direct, indirect, key_of, name};
use node_core::{
    Code,
    channel::Identity,
    node::{Access, Event, PeerState},
    session::{Request, StreamError},
    time::Duration,
    wire::frame::Response,
};
use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// A router rho, which does not talk to guests itself, and a guest; bob is behind the router and talks to guests.
fn with_guest(seed: u64) -> (Simulation, [NodeId; 3]) {
    let records = [
        ("rho", direct("rho", 1)),
        ("bob", indirect("bob", &["rho"])),
    ];
    let mut world = Simulation::new(seed);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    let rho = world.add_named("rho", config);
    let mut config = Simulation::config("bob", &records);
    config.guests = true;
    let bob = world.add_named("bob", config);
    let mut config = Simulation::config("guest", &records);
    config.identity = Identity {
        name: None,
        key: [0; 32],
    };
    let guest = world.add(config, key_of("guest"), None);
    world.run_for(Duration::from_secs(2));
    (world, [rho, bob, guest])
}

/// With which word a stream is refused, to who writes and to who reads.
fn refusal(world: &mut Simulation, from: NodeId, to: &str) -> Code {
    let token = world.open_stream(from, &name(to));
    let Outcome::Opened(stream) = world.outcome(from, token) else {
        panic!("a stream")
    };
    world.run_for(Duration::from_secs(1));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(StreamError::Reset(code))) = stream.poll_read(&mut cx) else {
        panic!("it is reset")
    };
    let written = stream.poll_write(&mut Bytes::from_static(b"?"), &mut cx);
    assert_eq!(written, Poll::Ready(Err(StreamError::Stopped(code))));
    Code::from_u16(code).unwrap()
}

#[test]
fn a_guest_who_may_only_call_through_a_router_cannot_talk_to_the_router_itself() {
    let (mut world, [rho, bob, guest]) = with_guest(1);
    let token = world.request(guest, &name("bob"), b"hello");
    assert!(matches!(
        world.outcome(guest, token),
        Outcome::Answered(Response::Success(_))
    ));
    assert_eq!(world.machines[bob].requests.len(), 1);

    let token = world.request(guest, &name("rho"), b"hello");
    let Outcome::Answered(Response::Error { code, .. }) = world.outcome(guest, token) else {
        panic!("refused")
    };
    assert_eq!(code, Code::GuestRefused.as_u16());
    assert_eq!(refusal(&mut world, guest, "rho"), Code::GuestRefused);
    let token = world.message(guest, &name("rho"), b"hello");
    assert!(matches!(world.outcome(guest, token), Outcome::Failed(_)));
    let rho = &world.machines[rho];
    assert!(rho.requests.is_empty() && rho.messages.is_empty() && rho.streams.is_empty());
}

#[test]
fn names_that_a_router_only_hosts_are_let_in_but_not_heard() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
        ("bob", indirect("bob", &["rho"])),
    ];
    let mut world = Simulation::new(2);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    config.allow = Access::Only([name("carol")].into());
    let rho = world.add_named("rho", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.add_named("bob", Simulation::config("bob", &records));
    world.run_for(Duration::from_secs(2));
    let token = world.request(alice, &name("bob"), b"hello");
    assert!(matches!(
        world.outcome(alice, token),
        Outcome::Answered(Response::Success(_))
    ));
    let token = world.request(alice, &name("rho"), b"hello");
    let Outcome::Answered(Response::Error { code, .. }) = world.outcome(alice, token) else {
        panic!("refused")
    };
    assert_eq!(code, Code::NotAllowed.as_u16());
    assert_eq!(refusal(&mut world, alice, "rho"), Code::NotAllowed);
    let rho = &world.machines[rho];
    assert!(rho.requests.is_empty() && rho.streams.is_empty());
}

#[test]
fn two_processes_of_one_name_do_not_kick_each_other_from_a_contact_for_ever() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(3);
    let bob = world.add_named("bob", Simulation::config("bob", &records));
    let processes = [1, 2].map(|_| {
        let mut config = Simulation::config("alice", &records);
        config.direct = false;
        world.add(config, key_of("alice"), None)
    });
    for process in processes {
        world.act(process, |node, now, out| {
            node.keep(&name("bob"), true, None, now, out)
        });
        world.run_for(Duration::from_secs(3));
    }
    let changes = |world: &Simulation| {
        let news = world.machines[bob].events.iter();
        news.filter(|event| matches!(event, Event::Peer { .. }))
            .count()
    };
    let before = changes(&world);
    world.run_for(Duration::from_secs(600));
    let after = changes(&world);
    assert!(
        after - before <= 2,
        "{} changes in ten minutes",
        after - before
    );
}

#[test]
fn a_process_that_was_superseded_and_starts_again_has_the_contacts_that_it_keeps() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(3);
    world.add_named("bob", Simulation::config("bob", &records));
    let [first, second] = [1, 2].map(|_| {
        let mut config = Simulation::config("alice", &records);
        config.direct = false;
        world.add(config, key_of("alice"), None)
    });
    let online = |world: &Simulation| {
        let news = world.machines[first].events.iter().rev();
        news.filter_map(|event| match event {
            Event::Peer { state, .. } => Some(matches!(state, PeerState::Online { .. })),
            _ => None,
        })
        .next()
    };
    for process in [first, second] {
        world.act(process, |node, now, out| {
            node.keep(&name("bob"), true, None, now, out)
        });
        world.run_for(Duration::from_secs(3));
    }
    assert_eq!(online(&world), Some(false));
    world.kill(second);
    world.act(first, |node, now, out| node.start(now, out));
    world.run_for(Duration::from_secs(60));
    assert_eq!(online(&world), Some(true));
}

#[test]
fn a_socket_closed_with_the_code_for_superseded_is_a_lost_pipe_and_dialled_again() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
    ];
    let mut world = Simulation::new(4);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    let rho = world.add_named("rho", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.run_for(Duration::from_secs(10));
    // Whoever is on the way can close a socket with any code.
    world.cut(alice, rho, Code::Superseded);
    world.run_for(Duration::from_secs(60));
    assert!(
        !world.machines[alice]
            .events
            .contains(&Event::Identity(Code::Superseded)),
        "nobody who can be believed said so"
    );
    let last = world.machines[alice]
        .events
        .iter()
        .rev()
        .find_map(|event| match event {
            Event::Reachable(reachable) => Some(*reachable),
            _ => None,
        });
    assert_eq!(last, Some(true));
}

#[test]
fn one_router_that_says_superseded_does_not_take_a_node_off_the_others() {
    let records = [
        ("rho", direct("rho", 1)),
        ("sigma", direct("sigma", 2)),
        ("alice", indirect("alice", &["rho", "sigma"])),
    ];
    let mut world = Simulation::new(5);
    let [rho, sigma] = ["rho", "sigma"].map(|label| {
        let mut config = Simulation::config(label, &records);
        config.router = OPEN_ROUTER;
        world.add_named(label, config)
    });
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.run_for(Duration::from_secs(10));
    world.act(rho, |node, _, _| {
        node.shut_down(Code::Superseded, Duration::ZERO)
    });
    world.run_for(Duration::from_secs(2));
    world.cut(alice, sigma, Code::PipeLost);
    world.run_for(Duration::from_secs(60));
    let news = world.machines[alice].events.iter().rev();
    let last = news.clone().find_map(|event| match event {
        Event::Reachable(reachable) => Some(*reachable),
        _ => None,
    });
    assert_eq!(last, Some(true), "sigma still hosts alice");
}

#[test]
fn a_target_has_no_more_circuits_than_a_caller() {
    let labels = ["rho", "bob", "carol", "dave", "erin"];
    let mut records = vec![("rho", direct("rho", 1))];
    records.extend(
        labels[1..]
            .iter()
            .map(|label| (*label, indirect(label, &["rho"]))),
    );
    let mut world = Simulation::new(6);
    let ids = labels.map(|label| {
        let mut config = Simulation::config(label, &records);
        config.router = OPEN_ROUTER;
        config.limits.circuits = 2;
        world.add_named(label, config)
    });
    world.run_for(Duration::from_secs(2));
    let mut outcomes = Vec::new();
    for caller in &ids[2..] {
        let token = world.request(*caller, &name("bob"), b"hello");
        outcomes.push(world.outcome(*caller, token));
    }
    assert!(matches!(
        &outcomes[..2],
        [Outcome::Answered(_), Outcome::Answered(_)]
    ));
    let Outcome::Failed(failure) = &outcomes[2] else {
        panic!("refused")
    };
    assert_eq!(failure.cause, Some(Code::TargetBusy));
    // Those that bob has do not keep him from calling.
    let token = world.request(ids[1], &name("erin"), b"hello");
    assert!(matches!(world.outcome(ids[1], token), Outcome::Answered(_)));
}

#[test]
fn a_busy_session_leaves_no_trail_of_timers() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(7);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.add_named("bob", Simulation::config("bob", &records));
    for _ in 0..400 {
        world.message(alice, &name("bob"), b"tick");
        world.run_for(Duration::from_millis(25));
    }
    let mut steps = 0;
    world.run_until(Duration::from_secs(14), |_| {
        steps += 1;
        false
    });
    assert!(steps < 60, "{steps} steps in 14 s of silence");
}

struct Flag;

impl Wake for Flag {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn what_belonged_to_a_session_that_is_over_is_freed() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(8);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    let bob = world.add_named("bob", Simulation::config("bob", &records));
    let flag = Arc::new(Flag);
    for _ in 0..5 {
        let token = world.request(alice, &name("bob"), b"hello");
        assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
        world.watch(alice, &Waker::from(flag.clone()));
        assert!(Arc::strong_count(&flag) > 1, "the pipe holds the waker");
        world.cut(alice, bob, Code::PipeLost);
        world.run_for(Duration::from_secs(40));
    }
    world.forget_closed();
    assert_eq!(Arc::strong_count(&flag), 1, "pipes of the past are kept");
}

#[test]
fn a_peer_that_falls_silent_before_it_attaches_is_given_up_when_a_handshake_would_be() {
    // Bob, who believes in the session, cannot dial alice.
    let records = [
        ("alice", indirect("alice", &["rho"])),
        ("bob", direct("bob", 2)),
    ];
    let mut world = Simulation::new(9);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    let bob = world.add_named("bob", Simulation::config("bob", &records));
    // Bob's second message and all after it are swallowed.
    world.on_socket = Some(Box::new(move |_, _, there| {
        let mut count = 0;
        (!there).then(|| -> nectar_sim::Tamper {
            Box::new(move |_| {
                count += 1;
                count == 1
            })
        })
    }));
    let token = world.token();
    world.act(alice, |node, now, out| {
        node.connect(token, &name("bob"), Duration::from_secs(300), now, out)
    });
    let began = world.now();
    let Outcome::Failed(failure) = world.outcome(alice, token) else {
        panic!("failed")
    };
    assert_eq!(failure.cause, Some(Code::HandshakeTimeout));
    assert!(world.now().since(began) < Duration::from_secs(35));
    let _ = bob;
}

#[test]
fn a_long_user_agent_is_cut_and_the_session_lives() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(10);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    let mut config = Simulation::config("bob", &records);
    config.user_agent = "bob's node \u{1f41d} ".repeat(20);
    world.add_named("bob", config);
    let token = world.request(alice, &name("bob"), b"hello");
    assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
}

#[test]
fn a_peer_that_says_come_back_in_a_month_is_tried_again_sooner() {
    let records = [
        ("rho", direct("rho", 1)),
        ("alice", indirect("alice", &["rho"])),
    ];
    let mut world = Simulation::new(11);
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    let rho = world.add_named("rho", config);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    world.run_for(Duration::from_secs(10));
    let month = Duration::from_secs(30 * 86_400);
    world.act(rho, |node, _, _| node.shut_down(Code::GoingAway, month));
    world.run_for(Duration::from_secs(5));
    let attempts = Rc::new(Cell::new(0));
    let seen = attempts.clone();
    world.on_socket = Some(Box::new(move |_, _, _| {
        seen.set(seen.get() + 1);
        None
    }));
    world.run_for(Duration::from_secs(700));
    assert!(attempts.get() > 0);
    let _ = alice;
}

#[test]
fn operations_on_a_draining_session_move_to_the_one_that_took_over() {
    for seed in 0..4 {
        let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
        let mut world = Simulation::new(100 + seed);
        let ids = ["alice", "bob"]
            .map(|label| world.add_named(label, Simulation::config(label, &records)));
        let mut tokens = Vec::new();
        let payload = Bytes::from(vec![1; 30_000]);
        for round in 0..60 {
            for (at, to) in [(0, "bob"), (1, "alice")] {
                let token = world.token();
                let request = Request::new("echo.1", payload.clone());
                world.act(ids[at], |node, now, out| {
                    node.request(token, &name(to), request, None, now, out)
                });
                tokens.push((ids[at], token));
            }
            if round % 10 == 0 {
                world.run_for(Duration::from_millis(7));
            }
        }
        for (node, token) in tokens {
            let outcome = world.outcome(node, token);
            assert!(
                matches!(outcome, Outcome::Answered(Response::Success(_))),
                "{outcome:?}, seed {seed}"
            );
        }
    }
}

/// Who has opened a socket to whom.
type Dials = Rc<std::cell::RefCell<Vec<(NodeId, NodeId)>>>;

/// Mallory is direct, and calls bob through rho, who routes for both.
fn called_by_mallory(seed: u64) -> (Simulation, [NodeId; 3], Dials) {
    let records = [
        ("rho", direct("rho", 1)),
        ("bob", indirect("bob", &["rho"])),
        ("mallory", direct("mallory", 2)),
        ("carol", indirect("carol", &["mallory"])),
    ];
    let mut world = Simulation::new(seed);
    let dials = Dials::default();
    let seen = dials.clone();
    world.on_socket = Some(Box::new(move |from, to, out| {
        if out {
            seen.borrow_mut().push((from, to));
        }
        None
    }));
    let mut config = Simulation::config("rho", &records);
    config.router = OPEN_ROUTER;
    let rho = world.add_named("rho", config);
    let [bob, mallory] =
        ["bob", "mallory"].map(|label| world.add_named(label, Simulation::config(label, &records)));
    world.run_for(Duration::from_secs(2));
    let token = world.request(mallory, &name("bob"), b"hello");
    assert!(matches!(
        world.outcome(mallory, token),
        Outcome::Answered(_)
    ));
    (world, [rho, bob, mallory], dials)
}

/// The same, and she is waiting for an answer when the router has lost her.
fn lost_by_mallory(seed: u64) -> (Simulation, [NodeId; 2], Dials) {
    let (mut world, [rho, bob, mallory], dials) = called_by_mallory(seed);
    world.machines[bob].hold_requests = true;
    world.request(mallory, &name("bob"), b"and?");
    world.run_for(Duration::from_secs(1));
    world.severed.extend([(rho, mallory), (mallory, rho)]);
    world.cut(rho, mallory, Code::PipeLost);
    world.run_for(Duration::from_secs(5));
    (world, [bob, mallory], dials)
}

#[test]
fn whoever_called_through_a_router_and_falls_silent_or_goes_has_nobody_knock_at_the_address_in_its_record()
 {
    for goes in [false, true] {
        for bob_asks in [false, true] {
            let (mut world, [rho, bob, mallory], dials) = called_by_mallory(1);
            // Bob owes an answer, and in one case wants one.
            world.machines[bob].hold_requests = true;
            world.request(mallory, &name("bob"), b"and?");
            if bob_asks {
                world.machines[mallory].hold_requests = true;
                world.request(bob, &name("mallory"), b"who are you?");
            }
            world.run_for(Duration::from_secs(1));
            world.severed.extend([(rho, mallory), (mallory, rho)]);
            for held in std::mem::take(&mut world.machines[bob].held_requests) {
                held.respond(Response::Success(None));
            }
            if goes {
                world.cut(rho, mallory, Code::PipeLost);
            }
            dials.borrow_mut().clear();
            world.run_for(Duration::from_secs(100));
            let knocks = dials
                .borrow()
                .iter()
                .filter(|dial| dial.1 == mallory)
                .count();
            assert_eq!(knocks, 0, "goes: {goes}, bob asks: {bob_asks}");
            // Whom bob himself wants to talk to, he calls.
            world.request(bob, &name("mallory"), b"are you there?");
            world.run_for(Duration::from_secs(5));
            assert!(dials.borrow().contains(&(bob, mallory)));
        }
    }
}

#[test]
fn whoever_called_directly_and_acknowledges_nothing_has_nobody_knock_at_the_address_in_its_record()
{
    let (mut world, [rho, _, mallory], dials) = called_by_mallory(2);
    let token = world.request(mallory, &name("rho"), b"hello");
    assert!(matches!(
        world.outcome(mallory, token),
        Outcome::Answered(_)
    ));
    world.machines[rho].hold_requests = true;
    world.request(mallory, &name("rho"), b"and?");
    world.run_for(Duration::from_secs(1));
    // She hears, and nobody hears her.
    world.severed.insert((mallory, rho));
    for held in std::mem::take(&mut world.machines[rho].held_requests) {
        held.respond(Response::Success(None));
    }
    dials.borrow_mut().clear();
    world.run_for(Duration::from_secs(100));
    assert!(!dials.borrow().contains(&(rho, mallory)));
    world.request(rho, &name("mallory"), b"are you there?");
    world.run_for(Duration::from_secs(5));
    assert!(dials.borrow().contains(&(rho, mallory)), "it would be seen");
}

#[test]
fn whom_a_silent_caller_should_carry_us_to_is_looked_for_by_its_address_all_the_same() {
    let (mut world, [bob, mallory], dials) = lost_by_mallory(3);
    assert!(!dials.borrow().contains(&(bob, mallory)));
    // Carol is behind mallory.
    world.request(bob, &name("carol"), b"are you there?");
    world.run_for(Duration::from_secs(2));
    assert!(dials.borrow().contains(&(bob, mallory)));
}

#[test]
fn whom_we_called_at_its_address_is_called_there_again_although_it_came_through_a_router_first() {
    let (mut world, [bob, mallory], dials) = lost_by_mallory(4);
    // The session that waits goes on over a socket that bob opens, because he asks for it.
    let token = world.request(bob, &name("mallory"), b"are you there?");
    assert!(matches!(world.outcome(bob, token), Outcome::Answered(_)));
    assert_eq!(world.machines[bob].node.counts().sessions, 2);
    world.machines[mallory].hold_requests = true;
    world.request(bob, &name("mallory"), b"what for?");
    world.run_for(Duration::from_secs(6));
    dials.borrow_mut().clear();
    world.cut(bob, mallory, Code::PipeLost);
    world.run_for(Duration::from_secs(5));
    assert!(dials.borrow().contains(&(bob, mallory)));
}
