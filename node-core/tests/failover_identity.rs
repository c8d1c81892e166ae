//! Sessions that wait for another pipe while the chain says that their peer is no longer who it was, or cannot say
//! anything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nectar_sim::{
    NodeId, Outcome, Token, Town, World, key_of, name,
    world::{Place, Plan},
};
use node_core::{Code, session::Request, time::Duration};

/// alice and bob talk; bob has a request of alice's that it does not answer; then their socket dies silently.
struct Waiting {
    town: Town,
    alice: NodeId,
    bob: NodeId,
    asked: Token,
}

fn waiting(seed: u64) -> Waiting {
    let mut town = Town::new(seed);
    town.register(&["alice", "bob", "carol"], Place::Direct);
    let [alice, bob] = ["alice", "bob"].map(|label| town.start(Plan::named(label).on_chain()));
    let token = town.simulation.request(alice, &name("bob"), b"hello");
    assert!(matches!(
        town.simulation.outcome(alice, token),
        Outcome::Answered(_)
    ));
    town.simulation.machines[bob].handler = Box::new(|_, _| None);
    town.simulation.machines[bob].hold_requests = true;
    let asked = town.simulation.token();
    let request = Request::new("echo.1", b"wait".as_slice());
    let long = Some(Duration::from_secs(500));
    town.simulation.act(alice, |node, now, out| {
        node.request(asked, &name("bob"), request, long, now, out)
    });
    town.simulation.run_for(Duration::from_secs(1));
    Waiting {
        town,
        alice,
        bob,
        asked,
    }
}

impl Waiting {
    fn parked(&self, node: NodeId) -> usize {
        self.town.simulation.machines[node].node.counts().parked
    }

    /// The socket dies, and nobody gets through for as long as the other side is kept out.
    fn cut(&mut self) {
        self.town
            .simulation
            .cut(self.alice, self.bob, Code::PipeLost);
    }

    /// bob is gone, and alice's session with him waits.
    fn lose_bob(&mut self) {
        self.town.simulation.machines[self.bob].dead = true;
        self.cut();
        self.town.simulation.run_for(Duration::from_secs(1));
        assert_eq!(self.parked(self.alice), 1);
    }

    fn ends_before_its_window_is_over(&mut self) {
        let began = self.town.simulation.now();
        assert_eq!(self.outcome(), Code::OutcomeUnknown);
        let took = self.town.simulation.now().since(began);
        assert!(took < Duration::from_secs(40), "{took:?}");
        assert_eq!(self.parked(self.alice), 0);
    }

    fn outcome(&mut self) -> Code {
        match self.town.simulation.outcome(self.alice, self.asked) {
            Outcome::Failed(failure) => failure.code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_session_that_waits_ends_when_its_peers_key_is_rotated() {
    let mut w = waiting(1);
    w.lose_bob();
    w.town.change("bob", |record| {
        record.key = key_of("bobby").verifying_key().to_bytes();
    });
    w.ends_before_its_window_is_over();
}

#[test]
fn a_session_that_waits_ends_when_its_peers_name_is_sold_even_if_the_key_stays() {
    let mut w = waiting(2);
    w.lose_bob();
    w.town.mine(|registry| {
        let same = registry.record("bob").unwrap().clone();
        registry.sell("bob", [9; 20]);
        registry.change("bob", |record| {
            record.key = same.key;
            record.routing = same.routing.clone();
        });
    });
    w.ends_before_its_window_is_over();
}

#[test]
fn whoever_comes_back_with_a_key_that_was_rotated_away_gets_nothing_of_his_session() {
    let mut w = waiting(3);
    // alice dialled; bob keeps the session for her.
    w.town.simulation.machines[w.alice].dead = true;
    w.cut();
    w.town.simulation.run_for(Duration::from_secs(1));
    assert_eq!(w.parked(w.bob), 1);
    w.town.change("alice", |record| {
        record.key = key_of("alice2").verifying_key().to_bytes();
    });
    // Whoever stole the key also has the memory of the process, and comes back with both.
    w.town.simulation.run_for(Duration::from_secs(15));
    assert_eq!(w.parked(w.bob), 0, "it ended with the key");
    w.town.simulation.machines[w.alice].dead = false;
    w.cut();
    w.town.simulation.run_for(Duration::from_secs(20));
    let counts = w.town.simulation.machines[w.bob].node.counts();
    assert_eq!((counts.sessions, counts.parked), (0, 0));
}

#[test]
fn another_name_does_not_get_a_session_by_its_number() {
    // carol knows nothing but a number; to bob she is carol, whatever she presents. Her node's own sessions are hers.
    let mut w = waiting(4);
    w.town.simulation.machines[w.alice].dead = true;
    w.cut();
    let carol = w.town.start(Plan::named("carol").on_chain());
    let token = w.town.simulation.request(carol, &name("bob"), b"mine?");
    w.town.simulation.run_for(Duration::from_secs(2));
    assert!(w.town.simulation.machines[carol].outcomes.is_empty());
    assert_eq!(w.parked(w.bob), 1, "alice's session is where it was");
    for held in std::mem::take(&mut w.town.simulation.machines[w.bob].held_requests) {
        let mine = held.request.payload == b"mine?"[..];
        let from = held.from().cloned();
        assert_eq!(from, Some(name(if mine { "carol" } else { "alice" })));
        held.respond(node_core::wire::frame::Response::Success(None));
    }
    assert!(matches!(
        w.town.simulation.outcome(carol, token),
        Outcome::Answered(_)
    ));
    w.town.simulation.machines[w.alice].dead = false;
    w.cut();
    assert!(matches!(
        w.town.simulation.outcome(w.alice, w.asked),
        Outcome::Answered(_)
    ));
}
