//! Who breaks the rules stays away for an hour; who does not, cannot be made to look like it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use bytes::{BufMut, BytesMut};
use common::host::{Bob, Caller, local, local_as};
use nectar_sim::{Outcome, Simulation, direct, key_of, name};
use node_core::{
    Code, Timestamp,
    channel::{HandshakeError, Identity, RECORD, initiator},
    node::{Ban, Event, PeerState, Pipe, Subject},
    time::Duration,
    wire::frame::Frame,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A frame of a type that nobody may use.
const BROKEN: &[u8] = &[0x47, 0, 0];

fn mallory() -> Subject {
    Subject::Name(name("mallory"))
}

#[test]
fn a_name_that_breaks_the_rules_cannot_come_back_for_an_hour() {
    let mut bob = Bob::new();
    let mut other = bob.mallory().ok().unwrap();
    let mut caller = bob.mallory().ok().unwrap();
    bob.tell(&mut caller, BROKEN);
    let [ban] = &bob.bans()[..] else {
        panic!("one ban")
    };
    assert_eq!(ban.subject, mallory());
    assert_eq!(ban.code, Some(Code::FrameMalformed));
    assert!(bob.events.contains(&Event::Banned(ban.clone())));
    // A session that it had besides ends, too.
    bob.tell(&mut other, &Frame::Ping(1).encode());
    while bob.says(&other.pipe).is_some() {}
    bob.wait(Duration::from_secs(11));
    assert_eq!(bob.node.counts().sessions, 0);

    // From anywhere; and no signature is verified for it.
    let refusal = |refused: Result<Caller, _>| refused.err().unwrap();
    let (code, retry) = refusal(bob.call("mallory", &key_of("mallory"), 9, 0));
    assert_eq!(code, Some(Code::Banned));
    assert_eq!(retry, HOUR - Duration::from_secs(11));
    let forged = bob.call("mallory", &key_of("somebody"), 9, 0);
    assert_eq!(refusal(forged).0, Some(Code::Banned));
    assert!(bob.carol().is_ok(), "its neighbours come in");

    bob.wait(HOUR - Duration::from_secs(12));
    assert_eq!(refusal(bob.mallory()).0, Some(Code::Banned));
    bob.wait(Duration::from_secs(1));
    assert!(bob.mallory().is_ok());
    assert_eq!(bob.bans(), []);
}

#[test]
fn what_somebody_on_the_way_can_do_bans_nobody() {
    let mut bob = Bob::new();
    for _ in 0..40 {
        let mut caller = bob.mallory().ok().unwrap();
        // A record that was altered.
        let mut record = BytesMut::from(&[RECORD][..]);
        record.put_slice(&Frame::Ping(1).encode());
        caller.channel.seal(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        bob.hear(&caller.pipe, record);
        // One of nobody's, and one that is too long.
        let caller = bob.mallory().ok().unwrap();
        bob.hear(&caller.pipe, vec![RECORD; 100]);
        let caller = bob.mallory().ok().unwrap();
        bob.hear(&caller.pipe, vec![RECORD; 1 << 17]);
        // A message 3 that does not decrypt.
        let local = local("mallory", &key_of("mallory"));
        let key = key_of("bob").verifying_key().to_bytes();
        let (_, first) = initiator::start(local, name("bob"), key, [7; 32]);
        let pipe = bob.node.accept(7, bob.now).unwrap();
        bob.hear(&pipe, first);
        assert!(bob.says(&pipe).is_some());
        bob.hear(&pipe, vec![3; 401]);
        bob.wait(Duration::from_secs(1));
    }
    assert_eq!(bob.bans(), []);
    assert!(bob.mallory().is_ok());
}

#[test]
fn timeouts_wrong_clocks_and_keys_that_nobody_registered_ban_nobody() {
    let mut bob = Bob::new();
    for _ in 0..60 {
        let clock = bob.call("mallory", &key_of("mallory"), 7, 200_000);
        assert_eq!(clock.err().unwrap().0, Some(Code::ClockSkew));
        let key = bob.call("mallory", &key_of("new"), 7, 0);
        assert_eq!(key.err().unwrap().0, Some(Code::KeyMismatch));
        let unknown = bob.call("nobody", &key_of("nobody"), 7, 0);
        assert_eq!(unknown.err().unwrap().0, Some(Code::NameUnknown));
        // Somebody who connects and says nothing, and somebody who falls silent.
        bob.node.accept(7, bob.now).unwrap();
        bob.mallory().ok().unwrap();
        bob.wait(Duration::from_secs(600));
    }
    assert_eq!(bob.bans(), []);
}

#[test]
fn a_group_that_sends_rubbish_is_banned_and_its_neighbour_is_not() {
    let mut bob = Bob::new();
    let rubbish = |bob: &mut Bob, group| {
        let pipe = bob.node.accept(group, bob.now)?;
        bob.hear(&pipe, vec![1; 1000]);
        Ok::<_, HandshakeError>(())
    };
    let sent = (0..100)
        .take_while(|_| rubbish(&mut bob, 7).is_ok())
        .count();
    assert_eq!(sent, 10);
    assert_eq!(
        bob.mallory().err().unwrap(),
        (Some(Code::Banned), HOUR / 60),
        "of group 7"
    );
    bob.wait(HOUR / 60);
    assert!(bob.mallory().is_ok(), "nobody has signed the rubbish");
    assert!(bob.call("mallory", &key_of("mallory"), 8, 0).is_ok());
    // Rubbish now and then is bad luck.
    let mut bob = Bob::new();
    for _ in 0..100 {
        rubbish(&mut bob, 7).unwrap();
        bob.wait(Duration::from_secs(300));
    }
    // What many share is never banned.
    let mut bob = Bob::new();
    for _ in 0..50 {
        rubbish(&mut bob, 1 << 63).unwrap();
    }
    assert_eq!(bob.bans(), []);
}

#[test]
fn guests_that_break_the_rules_shut_their_addresses_out_unless_a_page_made_them_do_it() {
    let mut bob = Bob::with(|config| config.guests = true);
    let breach = |bob: &mut Bob, pipe: Pipe<u64>| {
        let guest = local_as(Identity {
            name: None,
            key: [0; 32],
        });
        let mut caller = bob.enter(pipe, guest, None, 0).ok().unwrap();
        bob.tell(&mut caller, BROKEN);
    };
    for _ in 0..30 {
        let pipe = bob.node.accept_unasked(7, bob.now).unwrap();
        breach(&mut bob, pipe);
    }
    assert_eq!(bob.bans(), []);
    let breaches = (0..30).take_while(|_| {
        let accepted = bob.node.accept(7, bob.now);
        accepted.map(|pipe| breach(&mut bob, pipe)).is_ok()
    });
    assert_eq!(breaches.count(), 10);
    assert_eq!(bob.bans()[0].subject, Subject::Group(7));
}

#[test]
fn a_page_shuts_its_visitors_out_of_no_node_and_is_shut_out_with_them() {
    let mut bob = Bob::new();
    let rubbish = |bob: &mut Bob| {
        let pipe = bob.node.accept_unasked(7, bob.now)?;
        bob.hear(&pipe, vec![1; 1000]);
        Ok::<_, HandshakeError>(())
    };
    for _ in 0..60 {
        rubbish(&mut bob).unwrap();
    }
    assert_eq!(bob.bans(), []);
    assert_eq!(bob.node.scores(8, bob.now), []);
    assert!(bob.mallory().is_ok(), "from where the visitors are");
    // It is no way around a ban.
    let ban = Ban {
        subject: Subject::Group(7),
        until: Timestamp(bob.now.wall.0 + 1000),
        code: None,
    };
    let mut out = Vec::new();
    bob.node.ban(ban, bob.now, &mut out);
    assert_eq!(rubbish(&mut bob).unwrap_err().code, Code::Banned);
}

#[test]
fn an_operator_bans_and_lifts_and_bans_come_back_as_data() {
    let records = [("alice", direct("alice", 1)), ("bob", direct("bob", 2))];
    let mut world = Simulation::new(1);
    let alice = world.add_named("alice", Simulation::config("alice", &records));
    let bob = world.add_named("bob", Simulation::config("bob", &records));
    let token = world.request(alice, &name("bob"), b"?");
    assert!(matches!(world.outcome(alice, token), Outcome::Answered(_)));
    world.act(alice, |node, now, out| {
        node.keep(&name("bob"), true, None, now, out)
    });
    let ban = Ban {
        subject: Subject::Name(name("alice")),
        until: Timestamp(world.now_of(bob).wall.0 + 60_000),
        code: None,
    };
    world.act(bob, |node, now, out| node.ban(ban.clone(), now, out));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.machines[bob].node.counts().sessions, 0);
    let state = |world: &Simulation| {
        let peers = world.machines[alice].node.peers(world.now());
        peers
            .into_iter()
            .find(|peer| peer.name == name("bob"))
            .unwrap()
            .state
    };
    let PeerState::Offline { reason, .. } = state(&world) else {
        panic!("{:?}", state(&world))
    };
    assert_eq!(reason, Code::Banned);
    // Nor does bob call whom he has banned.
    let token = world.request(bob, &name("alice"), b"?");
    let Outcome::Failed(failure) = world.outcome(bob, token) else {
        panic!("refused")
    };
    assert_eq!(failure.cause, Some(Code::Banned));
    assert!(
        failure
            .retry
            .is_some_and(|retry| retry > Duration::from_secs(40))
    );

    // Another process of bob's knows what this one knew.
    let bans = world.act(bob, |node, now, _| node.bans(now));
    assert_eq!(bans, std::slice::from_ref(&ban));
    world.kill(bob);
    let bob = world.add_named("bob", Simulation::config("bob", &records));
    for ban in bans {
        world.act(bob, |node, now, out| node.ban(ban, now, out));
    }
    world.run_for(Duration::from_secs(35));
    assert!(matches!(state(&world), PeerState::Offline { .. }));
    let lifted = world.act(bob, |node, now, out| node.lift(&ban.subject, now, out));
    assert!(
        lifted
            && world.machines[bob]
                .events
                .contains(&Event::Lifted(ban.subject))
    );
    let back = world.run_until(Duration::from_secs(35), |world| {
        matches!(state(world), PeerState::Online { .. })
    });
    assert!(back);
}
