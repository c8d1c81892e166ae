//! Who may talk to whom: what the registry says decides. What only virtual time, or a look at every read, can show.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nectar_sim::{
    NodeId, Outcome, Simulation, Town, World,
    chain::View,
    direct, key_of, name,
    world::{Place, Plan},
};
use node_core::{
    Code, Name, RegistryId,
    node::{Event, Failure},
    registry::RegistryConfig,
    time::Duration,
    wire::frame::Response,
};

/// How long a record counts as fresh.
const CACHED: Duration = Duration::from_secs(60);

/// A town in which alice, bob and carol are registered at addresses of their own.
fn town(seed: u64) -> Town {
    registered(Town::new(seed))
}

fn registered(mut town: Town) -> Town {
    town.register(&["alice", "bob", "carol"], Place::Direct);
    town
}

fn start(town: &mut Town, label: &str) -> NodeId {
    town.start(Plan::named(label).on_chain())
}

fn ask(town: &mut Town, from: NodeId, to: &Name) -> Result<Response, Failure> {
    let token = town.simulation.request(from, to, b"?");
    match town.simulation.outcome(from, token) {
        Outcome::Answered(response) => Ok(response),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn cause(town: &mut Town, from: NodeId, to: &str) -> Code {
    let failure = ask(town, from, &name(to)).expect_err("must fail");
    assert_eq!(failure.code, Code::Offline, "{failure}");
    failure.cause.unwrap()
}

#[test]
fn an_unknown_registry_is_refused_without_a_read() {
    let mut town = town(3);
    let alice = start(&mut town, "alice");
    town.simulation.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let stranger = Name {
        registry: RegistryId {
            chain_id: 5,
            contract: [5; 20],
        },
        label: name("bob").label,
    };
    assert_eq!(
        ask(&mut town, alice, &stranger).unwrap_err().cause,
        Some(Code::RegistryUnknown)
    );
    assert_eq!(town.reads.borrow().len(), before);
}

#[test]
fn a_caller_of_an_unknown_registry_is_refused_without_a_read() {
    let mut town = town(4);
    start(&mut town, "bob");
    town.simulation.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let elsewhere = RegistryId {
        chain_id: 5,
        contract: [5; 20],
    };
    let mut config = Simulation::config("alice", &[("bob", direct("bob", 2))]);
    config.identity.name = Some(Name {
        registry: elsewhere,
        label: name("alice").label,
    });
    config.registries.push(RegistryConfig {
        id: elsewhere,
        tld: "other".into(),
        rpcs: Vec::new(),
        quorum: None,
    });
    let alice = town.simulation.add(config, key_of("alice"), None);
    assert_eq!(cause(&mut town, alice, "bob"), Code::RegistryUnknown);
    assert_eq!(town.reads.borrow().len(), before);
}

#[test]
fn a_rotated_key_ends_what_the_old_one_made_within_the_caches_lifetime() {
    let mut town = town(8);
    let alice = start(&mut town, "alice");
    start(&mut town, "bob");
    assert!(ask(&mut town, alice, &name("bob")).is_ok());
    start(&mut town, "carol");
    town.change("bob", |record| {
        record.key = key_of("bobby").verifying_key().to_bytes();
    });
    let ended = town.simulation.run_until(Duration::from_secs(60), |w| {
        w.machines[alice].node.counts().sessions == 0
    });
    assert!(ended, "the session with the old key outlives the cache");
    town.simulation.run_for(Duration::from_secs(61));
    assert_eq!(cause(&mut town, alice, "bob"), Code::KeyMismatch);
    assert!(ask(&mut town, alice, &name("carol")).is_ok());
}

#[test]
fn a_rotation_that_a_reorganisation_undoes_lets_the_old_key_in_again_and_ends_what_the_new_one_made()
 {
    let [one, three] = [
        &["http://a.test"][..],
        &["http://a.test", "http://b.test", "http://c.test"],
    ];
    for (urls, restarts) in [(one, false), (three, false), (one, true), (three, true)] {
        let mut town = registered(Town::with_endpoints(19, urls));
        let alice = start(&mut town, "alice");
        let old = start(&mut town, "bob");
        assert!(ask(&mut town, alice, &name("bob")).is_ok());
        town.change("bob", |record| {
            record.key = key_of("bobby").verifying_key().to_bytes();
        });
        let rotated = town.registry.borrow().chain.height();
        let ended = |town: &mut Town| {
            town.simulation
                .run_until(CACHED, |w| w.machines[alice].node.counts().sessions == 0)
        };
        assert!(
            ended(&mut town),
            "the session with the old key outlives the cache"
        );
        let bob = if restarts {
            town.simulation.kill(old);
            let new = town.start(Plan::named("bob").key("bobby").on_chain());
            assert!(ask(&mut town, alice, &name("bob")).is_ok(), "the new key");
            town.undo(rotated);
            assert!(
                ended(&mut town),
                "the session with the new key outlives the cache"
            );
            for (from, to) in [(alice, "bob"), (new, "alice")] {
                let why = cause(&mut town, from, to);
                // One who has just read the record does not read it again for a caller.
                assert!(
                    matches!(why, Code::KeyMismatch | Code::KeyUnconfirmed),
                    "{why}"
                );
            }
            town.simulation.kill(new);
            start(&mut town, "bob")
        } else {
            assert_eq!(cause(&mut town, alice, "bob"), Code::KeyMismatch);
            town.undo(rotated);
            old
        };
        let undone = town.simulation.now();
        // Whoever is refused tries again.
        while ask(&mut town, bob, &name("alice")).is_err() {
            let took = town.simulation.now().since(undone);
            assert!(took <= CACHED, "the old key is refused for {took:?}");
            town.simulation.run_for(Duration::from_secs(1));
        }
        assert!(ask(&mut town, alice, &name("bob")).is_ok(), "the old key");
        for machine in &town.simulation.machines {
            let node = &machine.node;
            assert_eq!(node.bans(town.simulation.now_of(alice)), []);
            let accused = |event: &Event| matches!(event, Event::Misbehaved { .. });
            assert!(!machine.events.iter().any(accused), "{:?}", machine.events);
        }
    }
}

#[test]
fn a_key_against_a_record_that_was_just_read_is_unconfirmed_and_the_caller_told_when_to_come_back()
{
    let mut town = town(9);
    let bob = start(&mut town, "bob");
    let token = town.simulation.token();
    let alice = name("alice");
    town.simulation.act(bob, |node, now, out| {
        node.resolve(token, &alice, true, now, out)
    });
    town.simulation.outcome(bob, token);
    // What bob's endpoint shows is a block behind: alice has another key by now.
    town.change("alice", |record| {
        record.key = key_of("new").verifying_key().to_bytes();
    });
    let caller = town.start(Plan::named("alice").key("new").on_chain());
    town.simulation.run_for(Duration::from_secs(1));
    let failure = ask(&mut town, caller, &name("bob")).expect_err("must fail");
    assert_eq!(failure.cause, Some(Code::KeyUnconfirmed), "{failure}");
    // The chain is asked once the record is old enough, and that is the time it was given.
    let retry = failure.retry.expect("a time to come back");
    assert!(retry > Duration::ZERO && retry <= Duration::from_secs(5));
    town.simulation.run_for(retry);
    assert!(ask(&mut town, caller, &name("bob")).is_ok());
}

#[test]
fn a_contact_whose_name_was_sold_is_not_talked_to_until_the_person_confirms() {
    let mut town = town(10);
    let alice = start(&mut town, "alice");
    town.simulation.act(alice, |node, now, out| {
        node.keep(&name("bob"), true, Some(1), now, out)
    });
    town.mine(|registry| registry.sell("bob", [9; 20]));
    let bob = start(&mut town, "bob");
    assert_eq!(cause(&mut town, alice, "bob"), Code::EpochChanged);
    assert!(
        town.simulation.machines[bob].requests.is_empty(),
        "the new owner learns nothing"
    );
    let token = town.simulation.request(bob, &name("alice"), b"let me in");
    let Outcome::Failed(failure) = town.simulation.outcome(bob, token) else {
        panic!("refused")
    };
    assert_eq!(
        failure.cause,
        Some(Code::EpochChanged),
        "nor may it call in the old owner's name"
    );
    town.simulation.machines[alice]
        .node
        .confirm_epoch(&name("bob"));
    assert!(ask(&mut town, alice, &name("bob")).is_ok());
}

#[test]
fn clocks_beyond_the_window_are_told_apart_from_attacks() {
    for (skew, fine) in [
        (119_000, true),
        (-119_000, true),
        (125_000, false),
        (-125_000, false),
    ] {
        let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
        let mut world = Simulation::new(11);
        let alice = world.add_named("alice", Simulation::config("alice", &records));
        world.add_named("bob", Simulation::config("bob", &records));
        world.machines[alice].skew_ms = skew;
        let token = world.request(alice, &name("bob"), b"?");
        match world.outcome(alice, token) {
            Outcome::Answered(_) => assert!(fine, "{skew}"),
            Outcome::Failed(failure) => {
                assert!(!fine, "{skew}");
                assert_eq!(failure.cause, Some(Code::ClockSkew));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_broken_signer_fails_the_attempt_and_nothing_else() {
    let mut town = town(14);
    let alice = start(&mut town, "alice");
    start(&mut town, "bob");
    town.simulation.machines[alice].signs = false;
    assert_eq!(cause(&mut town, alice, "bob"), Code::SignerFailed);
    town.simulation.machines[alice].signs = true;
    assert!(ask(&mut town, alice, &name("bob")).is_ok());
}

#[test]
fn two_of_three_endpoints_outvote_one_that_lies_about_a_key() {
    let mut town = registered(Town::with_endpoints(
        15,
        &["http://a.test", "http://b.test", "http://c.test"],
    ));
    let mallory = key_of("mallory").verifying_key().to_bytes();
    for liar in 0..3 {
        for (at, endpoint) in town.endpoints.borrow_mut().iter_mut().enumerate() {
            endpoint.view = if at == liar {
                View::OtherKey("bob".into(), mallory)
            } else {
                View::Honest
            };
        }
        town.simulation.run_for(Duration::from_secs(61));
        let alice = start(&mut town, "alice");
        if liar == 0 {
            start(&mut town, "bob");
        }
        assert!(ask(&mut town, alice, &name("bob")).is_ok(), "liar {liar}");
        town.simulation.kill(alice);
    }
}

#[test]
fn callers_with_random_names_cause_no_more_reads_than_the_budget() {
    let mut town = town(17);
    start(&mut town, "bob");
    town.simulation.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let began = town.simulation.now();
    for n in 0..300u32 {
        let label = format!("stranger-{n}");
        let mut config = Simulation::config(&label, &[("bob", direct("bob", 2))]);
        config.direct = false;
        let id = town.simulation.add(config, key_of(&label), None);
        let token = town.simulation.request(id, &name("bob"), b"?");
        let _ = town.simulation.run_until(Duration::from_millis(100), |w| {
            w.machines[id].outcomes.contains_key(&token)
        });
    }
    let seconds = town.simulation.now().since(began).as_secs();
    let reads = (town.reads.borrow().len() - before) as u64;
    // Each resolution is a head and a call, and bob's own housekeeping reads now and then.
    assert!(
        reads <= (seconds + 2) * 20 * 2,
        "{reads} reads in {seconds} s"
    );
    assert!(reads >= 20, "the budget is not zero either: {reads}");
}

#[test]
fn a_name_is_not_watched_once_its_last_session_is_over_however_many_there_were() {
    let mut town = town(18);
    let alice = start(&mut town, "alice");
    // Two processes of one name, one after the other: the newer takes the older one's place.
    for _ in 0..2 {
        let bob = start(&mut town, "bob");
        assert!(ask(&mut town, bob, &name("alice")).is_ok());
    }
    for machine in &mut town.simulation.machines[alice + 1..] {
        machine.dead = true;
    }
    let polls = |town: &Town| {
        let reads = town.reads.borrow();
        reads
            .iter()
            .filter(|read| read.contains("eth_getLogs"))
            .count()
    };
    town.simulation.run_for(Duration::from_secs(120));
    let before = polls(&town);
    assert!(
        before > 0,
        "changes were looked for while there was a session"
    );
    town.simulation.run_for(Duration::from_secs(120));
    assert_eq!(polls(&town), before);
}

#[test]
fn a_router_carries_to_a_peer_whose_record_ceased_to_be_fresh_while_it_was_let_in() {
    let mut town = town(20);
    town.register(&["rho"], Place::Direct);
    town.register(&["dave"], Place::Behind(&["rho"]));
    // A read takes longer than what it brings counts as fresh.
    town.show(0, View::Honest, Duration::from_secs(2));
    let rho = Plan::router("rho").on_chain();
    town.start(rho.with(|config| {
        config.resolver.fresh_for = Duration::from_secs(1);
    }));
    town.start(Plan::named("dave"));
    let carol = town.start(Plan::named("carol"));
    town.simulation.run_for(Duration::from_secs(20));
    assert!(ask(&mut town, carol, &name("dave")).is_ok());
}

/// Bob, who reads the chain, has proved to alice who he is, and she takes her time with her ATTACH.
fn about_to_attach(seed: u64, bob: Plan) -> (Town, [NodeId; 2]) {
    let mut town = town(seed);
    let bob = town.start(bob.on_chain());
    let alice = town.start(Plan::named("alice"));
    town.simulation.run_for(Duration::from_secs(1));
    town.simulation.wire = Some(Vec::new());
    town.simulation.request(bob, &name("alice"), b"?");
    let proved = town.simulation.run_until(Duration::from_secs(5), |world| {
        let mut wire = world.wire.iter().flatten();
        wire.any(|(from, to, message)| (*from, *to) == (bob, alice) && message[0] == 3)
    });
    assert!(proved);
    town.simulation.put_to_sleep(alice);
    (town, [alice, bob])
}

fn reads_anew(town: &mut Town, node: NodeId, whose: &str) {
    let token = town.simulation.token();
    town.simulation.act(node, |node, now, out| {
        node.resolve(token, &name(whose), true, now, out)
    });
    let outcome = town.simulation.outcome(node, token);
    assert!(matches!(outcome, Outcome::Resolved(_)), "{outcome:?}");
}

#[test]
fn whose_key_was_replaced_while_it_was_let_in_has_no_session_however_long_ago_that_was_read() {
    let bob = Plan::named("bob").with(|config| {
        config.resolver.fresh_for = Duration::from_secs(1);
    });
    let (mut town, [alice, bob]) = about_to_attach(22, bob);
    town.change("alice", |record| {
        record.key = key_of("new").verifying_key().to_bytes();
    });
    reads_anew(&mut town, bob, "alice");
    town.simulation.run_for(Duration::from_secs(3));
    town.simulation.wake(alice);
    town.simulation.run_for(Duration::from_secs(1));
    assert!(town.simulation.machines[alice].requests.is_empty());
}

#[test]
fn whoever_sold_its_name_while_it_was_let_in_has_no_session_under_it() {
    let (mut town, [alice, bob]) = about_to_attach(21, Plan::named("bob"));
    town.mine(|registry| registry.chain.transfer("alice", [9; 20]));
    reads_anew(&mut town, bob, "alice");
    town.simulation.wake(alice);
    town.simulation.run_for(Duration::from_secs(30));
    assert!(town.simulation.machines[alice].requests.is_empty());
    assert_eq!(town.simulation.machines[bob].node.counts().sessions, 0);
}
