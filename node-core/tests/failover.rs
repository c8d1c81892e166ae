//! Sessions of whole nodes whose sockets and routers die under them, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod failover_net;

use bytes::Bytes;
use failover_net::{MS, Net, config};
use nectar_sim::{Outcome, name};
use node_core::{Code, node::Event, time::Duration, wire::frame::Response};
use std::task::{Context, Poll, Waker};

#[test]
fn a_socket_that_is_cut_between_two_nodes_costs_no_request_whoever_dialled() {
    for (seed, code) in [
        (2, Code::PipeLost),
        (3, Code::Superseded),
        (4, Code::RecordForged),
    ] {
        let mut net = Net::new(seed);
        net.talk(net.alice, "dan");
        let slowest = net.pace(
            "dan",
            |net| net.world.cut(net.alice, net.dan, code),
            Duration::from_secs(1),
        );
        assert!(slowest <= 300 * MS, "{slowest:?}");
        assert_eq!(net.world.machines[net.dan].node.counts().parked, 0);
    }
}

#[test]
fn a_request_is_answered_once_although_its_answer_was_lost_with_the_socket() {
    let mut net = Net::new(5);
    net.talk(net.alice, "dan");
    net.world.silence(net.alice, net.dan);
    // The request is swallowed, or its answer.
    let first = net.ask(net.alice, "dan", b"swallowed", Duration::from_secs(20));
    net.world.run_for(5 * MS);
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    assert!(matches!(
        net.world.outcome(net.alice, first),
        Outcome::Answered(_)
    ));
    let second = net.ask(
        net.alice,
        "dan",
        b"answer swallowed",
        Duration::from_secs(20),
    );
    net.world.run_for(5 * MS);
    net.world.silence(net.alice, net.dan);
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.handled.borrow()[&b"answer swallowed"[..]], 1);
    assert!(!net.world.machines[net.alice].outcomes.contains_key(&second));
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    assert!(matches!(
        net.world.outcome(net.alice, second),
        Outcome::Answered(_)
    ));
    assert!(net.handled.borrow().values().all(|times| *times == 1));
}

#[test]
fn a_stream_continues_in_the_middle_over_another_router() {
    let mut net = Net::new(6);
    net.talk(net.alice, "bob");
    let token = net.world.open_stream(net.alice, &name("bob"));
    let Outcome::Opened(ours) = net.world.outcome(net.alice, token) else {
        panic!("opened")
    };
    let data: Bytes = (0..3_000_000_u32).map(|at| ((at * 7) >> 5) as u8).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut left, mut read) = (data.clone(), Vec::new());
    let mut theirs = None;
    let mut killed = 0;
    let done = net.world.run_until(Duration::from_secs(60), |_| false);
    assert!(!done);
    for _ in 0..4_000 {
        while !left.is_empty() {
            let mut piece = left.slice(..left.len().min(20_000));
            let length = piece.len();
            match ours.poll_write(&mut piece, &mut cx) {
                Poll::Ready(written) => written.unwrap(),
                Poll::Pending => break,
            }
            left = left.slice(length..);
            if left.is_empty() {
                ours.finish();
            }
        }
        net.world.run_for(5 * MS);
        if theirs.is_none() {
            let incoming = net.world.machines[net.bob].streams.pop();
            theirs = incoming.and_then(|incoming| incoming.accept());
        }
        let mut ended = false;
        if let Some(stream) = &theirs {
            loop {
                match stream.poll_read(&mut cx) {
                    Poll::Ready(Ok(Some(bytes))) => read.extend_from_slice(&bytes),
                    Poll::Ready(Ok(None)) => {
                        ended = true;
                        break;
                    }
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => break,
                }
            }
        }
        if killed == 0 && read.len() > 1_000_000 {
            let router = net.router_in_use();
            net.world.kill(router);
            killed = read.len();
        }
        if ended {
            break;
        }
    }
    assert!(killed > 0 && killed < data.len());
    assert!(read == data, "{} of {} bytes", read.len(), data.len());
}

#[test]
fn requests_in_flight_to_a_process_that_is_gone_are_never_reported_as_answered() {
    let mut net = Net::new(7);
    net.talk(net.alice, "dan");
    let token = net.ask(net.alice, "dan", b"lost", Duration::from_secs(90));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    let dan = net.world.add_named("dan", config("dan"));
    net.count(dan);
    // The new process does not know the session: the outcome is unknown, and new requests go to the new process.
    let Outcome::Failed(failure) = net.world.outcome(net.alice, token) else {
        panic!("nobody answered")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown);
    net.talk(net.alice, "dan");
    assert_eq!(net.world.machines[net.alice].node.counts().parked, 0);
}

#[test]
fn a_session_that_begins_anew_after_a_refused_one_has_the_whole_handshakes_time() {
    let mut net = Net::new(41);
    net.talk(net.alice, "dan");
    // A round trip takes 1.4 s: asking for the old session and attaching a new one takes longer than an offer may.
    net.world.latency = Duration::from_millis(700);
    net.world.kill(net.dan);
    let dan = net.world.add_named("dan", config("dan"));
    net.count(dan);
    net.world.machines[net.alice].events.clear();
    net.world.run_for(Duration::from_secs(1));
    net.talk(net.alice, "dan");
    let attempts = net.world.machines[net.alice].events.iter();
    let attempts: Vec<_> = attempts
        .filter_map(|event| match event {
            Event::Attempt {
                name: to, result, ..
            } if *to == name("dan") => Some(*result),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [Ok(())]);
}

#[test]
fn past_the_window_a_sent_request_has_an_unknown_outcome_and_an_unsent_one_says_offline() {
    let mut net = Net::new(8);
    net.talk(net.alice, "dan");
    let sent = net.ask(net.alice, "dan", b"sent", Duration::from_secs(300));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    net.world.run_for(Duration::from_secs(1));
    let began = net.world.now();
    let unsent = net.ask(net.alice, "dan", b"unsent", Duration::from_secs(300));
    let Outcome::Failed(failure) = net.world.outcome(net.alice, unsent) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::Offline, "{failure}");
    assert!(net.world.now().since(began) < Duration::from_secs(10));
    let Outcome::Failed(failure) = net.world.outcome(net.alice, sent) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::OutcomeUnknown);
    let waited = net.world.now().since(began);
    assert!(
        waited > Duration::from_secs(57) && waited < Duration::from_secs(61),
        "{waited:?}"
    );
    net.world.run_for(Duration::from_secs(1));
    assert_eq!(net.world.machines[net.alice].node.counts().parked, 0);
    assert!(net.handled.borrow().get(&b"unsent"[..]).is_none());
}

#[test]
fn a_deadline_runs_while_a_session_waits() {
    let mut net = Net::new(9);
    net.talk(net.alice, "dan");
    let token = net.ask(net.alice, "dan", b"short", Duration::from_secs(5));
    net.world.run_for(5 * MS);
    net.world.kill(net.dan);
    let began = net.world.now();
    let Outcome::Failed(failure) = net.world.outcome(net.alice, token) else {
        panic!("dan is dead")
    };
    assert_eq!(failure.code, Code::Timeout);
    assert!(net.world.now().since(began) <= Duration::from_secs(5));
}

#[test]
fn both_sides_coming_back_at_once_end_with_one_session_and_lose_nothing() {
    for seed in 10..20 {
        let mut net = Net::new(seed);
        for (from, to) in [(net.alice, "bob"), (net.bob, "alice")] {
            net.world.act(from, |node, now, out| {
                node.keep(&name(to), true, None, now, out)
            });
        }
        net.talk(net.alice, "bob");
        net.world.run_for(Duration::from_secs(6));
        let slowest = net.pace(
            "bob",
            |net| {
                let router = net.router_in_use();
                let back = net.ask(net.bob, "alice", b"back", Duration::from_secs(60));
                net.world.run_for(3 * MS);
                net.world.kill(router);
                net.world.run_for(Duration::from_secs(2));
                assert!(matches!(
                    net.world.machines[net.bob].outcomes.remove(&back),
                    Some(Outcome::Answered(_))
                ));
            },
            Duration::from_secs(4),
        );
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        net.world.run_for(Duration::from_secs(40));
        // One with each living router, one with each other; those with the dead router wait or are over.
        for node in [net.alice, net.bob] {
            assert_eq!(net.world.machines[node].node.counts().sessions, 2);
        }
        assert_eq!(net.handled.borrow()[&b"back"[..]], 1);
    }
}

#[test]
fn a_second_process_of_a_name_does_not_get_what_waits_for_the_first() {
    let mut net = Net::new(21);
    net.talk(net.alice, "dan");
    // dan asks alice; the answer waits at alice when the socket dies.
    net.world.machines[net.alice].hold_requests = true;
    net.ask(net.dan, "alice", b"secret answer", Duration::from_secs(50));
    net.world.run_for(Duration::from_secs(1));
    net.world.machines[net.alice].hold_requests = false;
    net.world.freeze(net.dan);
    net.world.cut(net.alice, net.dan, Code::PipeLost);
    let second = net.world.add_named("dan", config("dan"));
    net.count(second);
    net.talk(second, "alice");
    net.world.run_for(Duration::from_secs(5));
    let held = net.world.machines[net.alice].held_requests.pop().unwrap();
    assert!(
        !held.respond(Response::Success(Some("secret answer".into()))),
        "there is nobody any more who may hear it"
    );
    net.world.run_for(Duration::from_secs(5));
    assert!(net.world.machines[second].outcomes.is_empty());
    assert_eq!(
        net.world.machines[net.alice].node.counts().parked,
        0,
        "the first one's is over"
    );
}

#[test]
fn sessions_that_wait_are_bounded_in_number_and_bytes() {
    let mut net = Net::with(22, |config| {
        config.limits.parked_sessions = 1;
        config.limits.session_kept = Duration::from_secs(1000);
    });
    net.talk(net.bob, "dan");
    net.talk(net.alice, "dan");
    for node in [net.alice, net.bob] {
        net.world.machines[node].dead = true;
        net.world.cut(node, net.dan, Code::PipeLost);
        net.world.run_for(Duration::from_secs(1));
    }
    let counts = net.world.machines[net.dan].node.counts();
    assert_eq!(counts.parked, 1);
    let left = net.waiting_at_dan();
    assert_eq!(left, [name("bob")], "the one that waited longest ended");

    let mut net = Net::with(23, |config| {
        config.limits.parked_bytes = 100_000;
        config.limits.session_kept = Duration::from_secs(1000);
    });
    for (node, to, length) in [(net.alice, "alice", 80_000), (net.bob, "bob", 30_000)] {
        net.talk(node, "dan");
        let payload = vec![1; length];
        let stream = net.world.open_stream(net.dan, &name(to));
        let Outcome::Opened(stream) = net.world.outcome(net.dan, stream) else {
            panic!("opened")
        };
        let mut data = Bytes::from(payload);
        let mut cx = Context::from_waker(Waker::noop());
        net.world.machines[node].dead = true;
        assert!(stream.poll_write(&mut data, &mut cx).is_ready());
        net.world.run_for(MS);
        net.world.cut(node, net.dan, Code::PipeLost);
        net.world.run_for(Duration::from_secs(1));
        std::mem::forget(stream);
    }
    let counts = net.world.machines[net.dan].node.counts();
    assert_eq!(counts.parked, 1);
    let left = net.waiting_at_dan();
    assert_eq!(left, [name("bob")], "the larger one ended");
}

#[test]
fn a_session_that_is_closed_over_a_circuit_is_over_and_does_not_wait() {
    let mut net = Net::new(24);
    net.talk(net.alice, "bob");
    net.world.run_for(Duration::from_secs(1));
    net.world
        .act(net.alice, |node, _, _| node.shut_down(Code::GoingAway, MS));
    net.world.run_for(Duration::from_secs(5));
    assert!(!net.interrupted(net.bob, "alice"));
    assert_eq!(net.world.machines[net.bob].node.counts().parked, 0);
}

#[test]
fn a_peer_that_died_without_a_word_is_noticed_within_20_s_although_nothing_is_asked_of_it() {
    for (dies, lives) in [("alice", "dan"), ("dan", "alice")] {
        let mut net = Net::new(60);
        net.talk(net.alice, "dan");
        let (dies, stays) = match dies {
            "alice" => (net.alice, net.dan),
            _ => (net.dan, net.alice),
        };
        net.world.run_for(Duration::from_secs(7));
        net.world.freeze(dies);
        net.world.run_for(Duration::from_secs(20));
        let parked = net.world.machines[stays].node.counts().parked;
        assert!(parked > 0, "{lives} knows");
    }
}
