//! Who may talk to whom: what the registry says decides, in virtual time, against a chain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nectar_sim::{
    Chain,
    chain::{Entry, View},
    world::{EPOCH_MS, NodeId, Outcome, REGISTRY, World, direct, key_of, name},
};
use node_core::{
    Code, Name, RegistryId,
    node::{Access, Event, Failure, NodeConfig, PeerState},
    registry::{Host, Record, RegistryConfig},
    time::Duration,
    wire::frame::Response,
};
use std::{cell::RefCell, rc::Rc};

const RPC: &str = "http://rpc.test";

/// A world whose nodes resolve names on a chain; blocks come every two seconds of virtual time.
struct Town {
    world: World,
    chain: Rc<RefCell<Chain>>,
    views: Rc<RefCell<Vec<(String, View, Duration)>>>,
    reads: Rc<RefCell<Vec<String>>>,
}

fn entry(record: &Record) -> Entry {
    let mut entry = Entry {
        owner: record.owner.into(),
        networkingKey: record.key.into(),
        routers: record
            .routers
            .iter()
            .map(|label| label.as_str().into())
            .collect(),
        ..Entry::default()
    };
    if let Some(routing) = &record.routing {
        let Host::V4(address) = &routing.host else {
            panic!("tests use IPv4")
        };
        entry.hostKind = 1;
        entry.host = address.octets().to_vec().into();
        entry.port = routing.port;
        entry.schemes = 1;
    }
    entry
}

impl Town {
    fn new(seed: u64, rpcs: &[&str]) -> Self {
        let mut chain = Chain::new(REGISTRY.chain_id, REGISTRY.contract, EPOCH_MS / 1000);
        for (label, host) in [("alice", 1), ("bob", 2), ("carol", 3)] {
            chain.register(label, entry(&direct(label, host)));
        }
        chain.mine(EPOCH_MS / 1000);
        let chain = Rc::new(RefCell::new(chain));
        let views = rpcs
            .iter()
            .map(|url| (url.to_string(), View::Honest, Duration::from_millis(5)));
        let views = Rc::new(RefCell::new(views.collect::<Vec<_>>()));
        let reads = Rc::new(RefCell::new(Vec::new()));
        let mut world = World::new(seed);
        let (on, seen, read) = (chain.clone(), views.clone(), reads.clone());
        world.rpc = Box::new(move |url, body, now| {
            read.borrow_mut().push(body.into());
            let mut chain = on.borrow_mut();
            // Blocks come with the world's clock, whatever the asking node's own clock says.
            let time = EPOCH_MS / 1000 + now.mono.as_micros() / 1_000_000;
            while (chain.height() * 2 + EPOCH_MS / 1000) < time {
                let next = EPOCH_MS / 1000 + chain.height() * 2 + 2;
                chain.mine(next.min(time));
            }
            let views = seen.borrow();
            let (_, view, delay) = views
                .iter()
                .find(|(known, ..)| known == url)
                .expect("a known endpoint");
            (*delay, Ok(chain.answer_as(view, body)))
        });
        Self {
            world,
            chain,
            views,
            reads,
        }
    }

    fn config(&self, label: &str) -> NodeConfig {
        let mut config = World::config(label, &[]);
        config.registries = vec![RegistryConfig {
            id: REGISTRY,
            tld: "nectar".into(),
            rpcs: self
                .views
                .borrow()
                .iter()
                .map(|(url, ..)| url.as_str().into())
                .collect(),
            quorum: None,
        }];
        config.direct = true;
        config
    }

    fn add(&mut self, label: &str, host: u8) -> NodeId {
        let config = self.config(label);
        self.add_with(config, label, host)
    }

    fn add_with(&mut self, config: NodeConfig, key: &str, host: u8) -> NodeId {
        self.world.add(
            config,
            key_of(key),
            Some((Host::V4([10, 0, 0, host].into()), 9000)),
        )
    }

    fn change(&mut self, change: impl FnOnce(&mut Chain)) {
        let mut chain = self.chain.borrow_mut();
        change(&mut chain);
        let time = EPOCH_MS / 1000 + self.world.now().as_micros() / 1_000_000;
        chain.mine(time);
    }

    fn ask(&mut self, from: NodeId, to: &Name) -> Result<Response, Failure> {
        let token = self.world.request(from, to, b"?");
        match self.world.outcome(from, token) {
            Outcome::Answered(response) => Ok(response),
            Outcome::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    fn cause(&mut self, from: NodeId, to: &str) -> Code {
        let failure = self.ask(from, &name(to)).expect_err("must fail");
        assert_eq!(failure.code, Code::Offline, "{failure}");
        failure.cause.unwrap()
    }
}

#[test]
fn names_on_the_chain_find_each_other() {
    let mut town = Town::new(1, &[RPC]);
    let alice = town.add("alice", 1);
    town.add("bob", 2);
    assert!(town.ask(alice, &name("bob")).is_ok());
    let how = town.world.machines[alice]
        .events
        .iter()
        .find_map(|event| match event {
            Event::Peer {
                state: PeerState::Online { how, .. },
                ..
            } => *how,
            _ => None,
        });
    assert_eq!(how.unwrap().to_string(), "on the word of one RPC endpoint");
}

#[test]
fn an_unregistered_name_is_unknown() {
    let mut town = Town::new(2, &[RPC]);
    let alice = town.add("alice", 1);
    assert_eq!(town.cause(alice, "nobody"), Code::NameUnknown);
}

#[test]
fn an_unknown_registry_is_refused_without_a_read() {
    let mut town = Town::new(3, &[RPC]);
    let alice = town.add("alice", 1);
    town.world.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let stranger = Name {
        registry: RegistryId {
            chain_id: 5,
            contract: [5; 20],
        },
        label: name("bob").label,
    };
    assert_eq!(
        town.ask(alice, &stranger).unwrap_err().cause,
        Some(Code::RegistryUnknown)
    );
    assert_eq!(town.reads.borrow().len(), before);
}

#[test]
fn a_caller_of_an_unknown_registry_is_refused_without_a_read() {
    let mut town = Town::new(4, &[RPC]);
    town.add("bob", 2);
    town.world.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let elsewhere = RegistryId {
        chain_id: 5,
        contract: [5; 20],
    };
    let mut config = World::config("alice", &[("bob", direct("bob", 2))]);
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
    let alice = town.world.add(config, key_of("alice"), None);
    assert_eq!(town.cause(alice, "bob"), Code::RegistryUnknown);
    assert_eq!(town.reads.borrow().len(), before);
}

#[test]
fn a_caller_whose_key_is_not_the_registered_one_is_refused() {
    let mut town = Town::new(5, &[RPC]);
    let bob = town.add("bob", 2);
    let mut config = town.config("alice");
    config.identity.key = key_of("mallory").verifying_key().to_bytes();
    let mallory = town.add_with(config, "mallory", 1);
    assert_eq!(town.cause(mallory, "bob"), Code::KeyMismatch);
    assert!(town.world.machines[bob].requests.is_empty());
    assert_eq!(town.world.machines[bob].node.counts().sessions, 0);
    let told = town.world.machines[mallory]
        .events
        .contains(&Event::Identity(Code::KeyMismatch));
    assert!(told, "its own operator is told");
}

#[test]
fn whoever_answers_at_the_address_with_another_key_is_not_talked_to() {
    let mut town = Town::new(6, &[RPC]);
    let alice = town.add("alice", 1);
    let mut config = town.config("bob");
    config.identity.key = key_of("mallory").verifying_key().to_bytes();
    town.add_with(config, "mallory", 2);
    assert_eq!(town.cause(alice, "bob"), Code::KeyMismatch);
}

#[test]
fn whoever_answers_under_another_name_is_not_talked_to() {
    let mut town = Town::new(7, &[RPC]);
    let alice = town.add("alice", 1);
    let config = town.config("carol");
    town.add_with(config, "carol", 2);
    assert_eq!(town.cause(alice, "bob"), Code::WrongName);
}

#[test]
fn a_rotated_key_ends_what_the_old_one_made_within_the_caches_lifetime() {
    let mut town = Town::new(8, &[RPC]);
    let alice = town.add("alice", 1);
    let bob = town.add("bob", 2);
    assert!(town.ask(alice, &name("bob")).is_ok());
    town.change(|chain| chain.update("bob", |entry| entry.networkingKey = [7; 32].into()));
    let ended = town.world.run_until(Duration::from_secs(60), |w| {
        w.machines[alice].node.counts().sessions == 0
    });
    assert!(ended, "the session with the old key outlives the cache");
    // The new key is in use somewhere else; here the old one still answers, and is refused.
    town.change(|chain| {
        chain.update("bob", |entry| {
            entry.networkingKey = key_of("bobby").verifying_key().to_bytes().into()
        });
    });
    town.world.run_for(Duration::from_secs(61));
    assert_eq!(town.cause(alice, "bob"), Code::KeyMismatch);
    town.world.kill(bob);
    let mut config = town.config("bob");
    config.identity.key = key_of("bobby").verifying_key().to_bytes();
    town.add_with(config, "bobby", 2);
    assert!(
        town.ask(alice, &name("bob")).is_ok(),
        "the new key forms a new session"
    );
}

#[test]
fn a_caller_with_a_freshly_rotated_key_is_let_in_after_one_more_read() {
    let mut town = Town::new(9, &[RPC]);
    let alice = town.add("alice", 1);
    let bob = town.add("bob", 2);
    assert!(town.ask(alice, &name("bob")).is_ok());
    town.world.run_for(Duration::from_secs(20));
    town.world.kill(alice);
    town.change(|chain| {
        chain.update("alice", |entry| {
            entry.networkingKey = key_of("alice2").verifying_key().to_bytes().into()
        });
    });
    let mut config = town.config("alice");
    config.identity.key = key_of("alice2").verifying_key().to_bytes();
    let again = town.add_with(config, "alice2", 1);
    assert!(town.ask(again, &name("bob")).is_ok());
    assert_eq!(town.world.machines[bob].requests.len(), 2);
}

#[test]
fn a_contact_whose_name_was_sold_is_not_talked_to_until_the_person_confirms() {
    let mut town = Town::new(10, &[RPC]);
    let alice = town.add("alice", 1);
    town.world.act(alice, |node, now, out| {
        node.keep(&name("bob"), true, Some(1), now, out)
    });
    town.change(|chain| {
        let record = entry(&direct("bob", 2));
        chain.transfer("bob", [9; 20]);
        chain.update("bob", |entry| {
            *entry = Entry {
                epoch: entry.epoch,
                version: entry.version,
                owner: entry.owner,
                ..record
            };
        });
    });
    let bob = town.add("bob", 2);
    assert_eq!(town.cause(alice, "bob"), Code::EpochChanged);
    assert!(
        town.world.machines[bob].requests.is_empty(),
        "the new owner learns nothing"
    );
    let token = town.world.request(bob, &name("alice"), b"let me in");
    let Outcome::Failed(failure) = town.world.outcome(bob, token) else {
        panic!("refused")
    };
    assert_eq!(
        failure.cause,
        Some(Code::EpochChanged),
        "nor may it call in the old owner's name"
    );
    town.world.machines[alice].node.confirm_epoch(&name("bob"));
    assert!(town.ask(alice, &name("bob")).is_ok());
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
        let mut world = World::new(11);
        let alice = world.add_named("alice", World::config("alice", &records));
        world.add_named("bob", World::config("bob", &records));
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
fn a_node_does_not_talk_to_itself() {
    let mut town = Town::new(12, &[RPC]);
    let alice = town.add("alice", 1);
    assert_eq!(
        town.ask(alice, &name("alice")).unwrap_err().code,
        Code::Myself
    );
}

#[test]
fn a_name_outside_the_allow_list_is_refused() {
    let mut town = Town::new(13, &[RPC]);
    let alice = town.add("alice", 1);
    let mut config = town.config("bob");
    config.allow = Access::Only([name("carol")].into());
    town.add_with(config, "bob", 2);
    assert_eq!(town.cause(alice, "bob"), Code::NotAllowed);
    let carol = town.add("carol", 3);
    assert!(town.ask(carol, &name("bob")).is_ok());
}

#[test]
fn a_broken_signer_fails_the_attempt_and_nothing_else() {
    let mut town = Town::new(14, &[RPC]);
    let alice = town.add("alice", 1);
    town.add("bob", 2);
    town.world.machines[alice].signs = false;
    assert_eq!(town.cause(alice, "bob"), Code::SignerFailed);
    town.world.machines[alice].signs = true;
    assert!(town.ask(alice, &name("bob")).is_ok());
}

#[test]
fn two_of_three_endpoints_outvote_one_that_lies_about_a_key() {
    let mut town = Town::new(15, &["http://a.test", "http://b.test", "http://c.test"]);
    let mallory = key_of("mallory").verifying_key().to_bytes();
    for liar in 0..3 {
        for (at, view) in town.views.borrow_mut().iter_mut().enumerate() {
            view.1 = if at == liar {
                View::OtherKey("bob".into(), mallory)
            } else {
                View::Honest
            };
        }
        town.world.run_for(Duration::from_secs(61));
        let mut config = town.config("alice");
        config.direct = false;
        let alice = town.world.add(config, key_of("alice"), None);
        if liar == 0 {
            town.add("bob", 2);
        }
        assert!(town.ask(alice, &name("bob")).is_ok(), "liar {liar}");
        town.world.kill(alice);
    }
}

#[test]
fn with_every_endpoint_down_pinned_names_still_talk_and_others_say_why_not() {
    let mut town = Town::new(16, &[RPC]);
    town.world.rpc = Box::new(|_, _, _| {
        (
            Duration::from_millis(5),
            Err(node_core::registry::FetchFailure::Unreachable),
        )
    });
    let pinned = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let config = |label: &str, town: &Town| NodeConfig {
        pinned: World::config(label, &pinned).pinned,
        ..town.config(label)
    };
    let (a, b) = (config("alice", &town), config("bob", &town));
    let alice = town.add_with(a, "alice", 1);
    town.add_with(b, "bob", 2);
    assert!(town.ask(alice, &name("bob")).is_ok());
    let failure = town.ask(alice, &name("carol")).unwrap_err();
    assert!(
        matches!(
            failure.cause,
            Some(Code::ChainUnavailable | Code::RpcUnreachable)
        ),
        "{failure}"
    );
}

#[test]
fn callers_with_random_names_cause_no_more_reads_than_the_budget() {
    let mut town = Town::new(17, &[RPC]);
    town.add("bob", 2);
    town.world.run_for(Duration::from_secs(1));
    let before = town.reads.borrow().len();
    let began = town.world.now();
    for n in 0..300u32 {
        let label = format!("stranger-{n}");
        let mut config = World::config(&label, &[("bob", direct("bob", 2))]);
        config.direct = false;
        let id = town.world.add(config, key_of(&label), None);
        let token = town.world.request(id, &name("bob"), b"?");
        let _ = town.world.run_until(Duration::from_millis(100), |w| {
            w.machines[id].outcomes.contains_key(&token)
        });
    }
    let seconds = town.world.now().since(began).as_secs();
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
    let mut town = Town::new(18, &[RPC]);
    let alice = town.add("alice", 1);
    // Two processes of one name, one after the other: the newer takes the older one's place.
    for host in [2, 4] {
        let bob = town.add("bob", host);
        assert!(town.ask(bob, &name("alice")).is_ok());
    }
    for machine in &mut town.world.machines[alice + 1..] {
        machine.dead = true;
    }
    let polls = |town: &Town| {
        let reads = town.reads.borrow();
        reads
            .iter()
            .filter(|read| read.contains("eth_getLogs"))
            .count()
    };
    town.world.run_for(Duration::from_secs(120));
    let before = polls(&town);
    assert!(
        before > 0,
        "changes were looked for while there was a session"
    );
    town.world.run_for(Duration::from_secs(120));
    assert_eq!(polls(&town), before);
}
