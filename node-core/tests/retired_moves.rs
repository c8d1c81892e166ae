//! Sessions that are retired, or superseded, while they move from channel to channel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod resumption_pair;

use bytes::{Bytes, BytesMut};
use common::admit;
use nectar_sim::name;
use node_core::{
    Code,
    session::{Request, Resumed},
    time::Duration,
    wire::frame::AttachStatus,
};
use resumption_pair::{
    MTU, opened,
    ours::{Dans, Other, Ours, sealed},
};
use std::{sync::Arc, task::Waker};

/// We have asked dan something, and he is there; `kept`, as a contact of ours, and nobody's router.
fn connected(kept: bool) -> (Ours, Dans) {
    let mut ours = Ours::new("alice");
    if kept {
        ours.act(|node, now, out| node.keep(&name("dan"), true, None, now, out));
    }
    ours.ask(1);
    let mut dans = ours.reached();
    ours.answers(&mut dans);
    assert_eq!(ours.answered, [1]);
    pass(&mut ours, &mut dans, Duration::from_secs(6));
    (ours, dans)
}

/// Time in which both do what is due.
fn pass(ours: &mut Ours, dans: &mut Dans, time: Duration) {
    let end = ours.now + time;
    while ours.now < end {
        ours.pass(Duration::from_millis(10));
        dans.session.handle_timeout(ours.now, &mut dans.events);
        ours.answers(dans);
    }
}

/// We have asked dan to go on over another socket, as we do when a channel is old or he is silent; what he says over the former
/// one that he retires the session comes first, then his answer. Which requests are answered, and which fail: before that, during
/// it, and after.
fn retired_on_the_move(retires: bool) -> (Vec<u64>, Vec<(u64, Code)>) {
    let (mut ours, mut dans) = connected(true);
    assert_eq!(ours.dialled.len(), 0);
    // He is silent for a moment: another way is looked for while this one stays.
    ours.ask(2);
    let lost = ours.say(&dans.pipe.clone()).expect("the request");
    let (pipe, channel, attach) = ours.picked_up();
    assert_eq!(attach.status, AttachStatus::Resume);
    // What was on its way comes now, and he answers it.
    let record = BytesMut::from(&lost[..]);
    dans.session
        .handle_record(record, ours.now, &mut dans.events)
        .unwrap();
    if retires {
        dans.session.go_away(Duration::ZERO);
    }
    ours.answers(&mut dans);
    ours.ask(3);
    let (now, events) = (ours.now, &mut dans.events);
    let resumed = dans.session.presented(channel, &attach, MTU, now, events);
    assert!(matches!(resumed, Resumed::Done));
    dans.pipe = pipe;
    ours.answers(&mut dans);
    // Dan is there all the time.
    let mut others = Vec::new();
    for _ in 0..55 {
        ours.pass(Duration::from_secs(1));
        ours.answers(&mut dans);
        while !ours.dialled.is_empty() {
            let (pipe, channel, attach) = ours.picked_up();
            others.push(ours.accepted(pipe, channel, &attach));
        }
        for dans in &mut others {
            ours.answers(dans);
        }
    }
    ours.pass(Duration::from_secs(30));
    (ours.answered, ours.failed)
}

#[test]
fn what_is_asked_while_a_session_moves_is_answered() {
    assert_eq!(retired_on_the_move(false), (vec![1, 2, 3], vec![]));
}

#[test]
fn what_is_asked_while_a_session_moves_that_is_retired_is_answered_over_the_next() {
    assert_eq!(retired_on_the_move(true), (vec![1, 2, 3], vec![]));
}

/// Dan, whose name has the lower hash, asks something and retires the session; the router that carries it carries others as well,
/// so that his word and his long request are two records. The pipe breaks between them, and he comes back for the session.
/// What we answer.
fn comes_back(retires: bool) -> AttachStatus {
    let (mut ours, mut dans) = connected(false);
    assert!(ours.actor.name().hash() > ours.dan.name().hash());
    let now = ours.now;
    let request = Request::new("echo.1", vec![7; 30_000]);
    let deadline = now + Duration::from_secs(60);
    dans.session.request(9, request, deadline, now).unwrap();
    if retires {
        // As his node does when it drains.
        dans.session.go_away(Duration::ZERO);
        let first = dans.session.poll_transmit(now, true, &mut dans.events);
        let first = first.unwrap();
        assert!(first.len() < 1000);
        let pipe = dans.pipe.clone();
        ours.hear(&pipe, first.freeze());
        while let Some(record) = ours.say(&pipe) {
            let (session, events) = (&mut dans.session, &mut dans.events);
            session
                .handle_record(BytesMut::from(&record[..]), now, events)
                .unwrap();
        }
    }
    // It is on its way.
    let mut lost = || dans.session.poll_transmit(now, true, &mut dans.events);
    while lost().unwrap().len() < 30_000 {}
    let pipe = dans.pipe.clone();
    ours.lose(&pipe);
    let unsent = dans.session.park(Code::PipeLost, now, &mut dans.events);
    assert_eq!(
        unsent.unwrap().len(),
        0,
        "it cannot go over another session"
    );
    // He dials.
    ours.pass(Duration::from_millis(100));
    let pipe = ours.node.accept(1, ours.now()).unwrap();
    let (dialling, message1) = ours.dan.dial(&ours.actor, 77);
    ours.hear(&pipe, message1);
    let message2 = ours.say(&pipe).expect("message 2");
    let (message3, mut channel) = ours.dan.conclude(dialling, &message2).unwrap();
    ours.hear(&pipe, message3);
    let attach = dans.session.offer(&channel).unwrap();
    let attach = sealed(&mut channel, attach);
    ours.hear(&pipe, attach);
    let answer = ours.say(&pipe).expect("an answer");
    let (answer, _) = opened(&mut channel, BytesMut::from(&answer[..]));
    answer.status
}

#[test]
fn who_asks_and_loses_his_pipe_goes_on_with_his_session() {
    assert_eq!(comes_back(false), AttachStatus::Resume);
}

#[test]
fn who_asks_and_loses_his_pipe_goes_on_with_his_session_although_he_retired_it() {
    assert_eq!(comes_back(true), AttachStatus::Resume);
}

/// Both sleep for so long, with the pipe between them as it was; we are asked for something when we wake, and then hear dan.
fn asked_after(sleep: Duration) -> (Vec<u64>, Vec<(u64, Code)>) {
    let (mut ours, mut dans) = connected(false);
    ours.now = ours.now + sleep;
    ours.ask(2);
    // He is there, and has something to say every few seconds.
    let deadline = ours.now + Duration::from_secs(600);
    for token in 100..200 {
        let payload = Bytes::from_static(b"?");
        let told = dans
            .session
            .message(token, "chat.1".into(), payload, deadline);
        told.unwrap();
        ours.answers(&mut dans);
        pass(&mut ours, &mut dans, Duration::from_secs(1));
    }
    ours.ask(3);
    ours.answers(&mut dans);
    ours.answers(&mut dans);
    (ours.answered, ours.failed)
}

#[test]
fn what_is_asked_when_a_node_wakes_is_answered() {
    for seconds in [1, 20, 80] {
        let (answered, failed) = asked_after(Duration::from_secs(seconds));
        assert_eq!((answered, failed), (vec![1, 2, 3], vec![]), "{seconds} s");
    }
}

/// We sleep, and when we wake, so much is asked of us at once. How much is answered, and what fails.
fn asked_at_once(requests: u64) -> (usize, Vec<(u64, Code)>) {
    let (mut ours, mut dans) = connected(false);
    ours.now = ours.now + Duration::from_secs(80);
    for token in 0..requests {
        ours.ask(100 + token);
    }
    for _ in 0..100 {
        ours.answers(&mut dans);
        ours.pass(Duration::from_millis(10));
    }
    (ours.answered.len(), ours.failed)
}

#[test]
fn however_much_is_asked_when_a_node_wakes_breaks_no_rate() {
    for requests in [100, 500] {
        let all = usize::try_from(requests).unwrap() + 1;
        assert_eq!(asked_at_once(requests), (all, vec![]));
    }
}

/// Dan is silent for a moment, and another way to him is looked for. Then he says that another process of our name is there,
/// over the pipe that there is. The ATTACH that he hears over the other one.
#[test]
fn who_is_superseded_while_it_looks_for_another_way_does_not_take_its_name_back() {
    let (mut ours, mut dans) = connected(true);
    ours.ask(2);
    let lost = ours.say(&dans.pipe.clone()).expect("the request");
    ours.pass(Duration::from_secs(3));
    assert_eq!(ours.dialled.len(), 1, "another way is looked for");
    // The request comes, is answered, and then he says it.
    dans.session
        .handle_record(BytesMut::from(&lost[..]), ours.now, &mut dans.events)
        .unwrap();
    ours.answers(&mut dans);
    assert_eq!(
        (&ours.answered[..], &ours.failed[..]),
        (&[1, 2][..], &[][..])
    );
    dans.session.close(Code::Superseded, None);
    ours.carry(&mut dans);
    assert_eq!(ours.node.counts().sessions, 0);
    // Nobody wants anything of him, and no person says anything.
    assert_eq!(dialled_on(&mut ours), None, "it takes its name back");
}

/// What dan hears first on the channel that is being begun with him, if it comes so far.
fn dialled_on(ours: &mut Ours) -> Option<AttachStatus> {
    let pipe = ours.dialled.pop()?;
    ours.act(|node, _, _| node.opened(&pipe, None));
    let message1 = ours.say(&pipe)?;
    let (message2, state) = ours.dan.answer(&message1, 99).unwrap();
    ours.hear(&pipe, message2);
    let message3 = ours.say(&pipe)?;
    let mut channel = admit(state, &message3).unwrap();
    let record = ours.say(&pipe)?;
    let (attach, _) = opened(&mut channel, BytesMut::from(&record[..]));
    Some(attach.status)
}

/// Dan retires the session, on which something of his is under way, so that we dial for the next; then he says over it that another
/// process of our name is there.
#[test]
fn who_is_superseded_on_a_session_that_was_retired_does_not_take_its_name_back() {
    let (mut ours, mut dans) = connected(true);
    dans.session.open_stream("p".into(), Bytes::new());
    dans.session.go_away(Duration::ZERO);
    ours.carry(&mut dans);
    ours.pass(Duration::from_millis(10));
    dans.session.close(Code::Superseded, None);
    ours.carry(&mut dans);
    assert_eq!(ours.node.counts().sessions, 0);
    // What it has begun may fail; nothing is begun any more.
    for pipe in std::mem::take(&mut ours.dialled) {
        ours.lose(&pipe);
    }
    ours.pass(Duration::from_secs(300));
    assert_eq!(ours.dialled.len(), 0, "it comes back");
}

/// Dan retires a session, on which something of ours takes long; the pipe ends, which another thread hears while one reads the
/// record that says so. What becomes of what we ask later.
fn parked_while_retired(races: bool) -> (Vec<u64>, Vec<(u64, Code)>, usize) {
    let (mut ours, mut old) = connected(true);
    let request = Request::new("echo.1", b"?".as_slice());
    let (timeout, to) = (Some(Duration::from_secs(3600)), name("dan"));
    ours.act(|node, now, out| node.request(77, &to, request, timeout, now, out));
    ours.carry(&mut old);
    // It is not answered.
    old.events.clear();
    let (node, now, pipe) = (ours.node.clone(), ours.now(), old.pipe.clone());
    let other = Arc::<Other>::default();
    let waker = Waker::from(other.clone());
    // Something to answer, so that the pipe is woken.
    old.session.ping(ours.now);
    old.session.go_away(Duration::ZERO);
    let record = old
        .session
        .poll_transmit(ours.now, false, &mut old.events)
        .unwrap();
    if races {
        let mut out = Vec::new();
        assert!(node.poll_transmit(&pipe, &waker, now, &mut out).is_none());
        let lost = pipe.clone();
        other.is_to(move || {
            let mut out = Vec::new();
            node.closed(&lost, Code::PipeLost, now, &mut out);
        });
    }
    ours.hear(&pipe, record.freeze());
    if !races {
        ours.lose(&pipe);
    }
    let parked = old.session.park(Code::PipeLost, ours.now, &mut old.events);
    assert!(parked.is_some());
    ours.pass(Duration::from_millis(100));
    ours.ask(2);
    let mut dials = 0;
    let mut others: Vec<Dans> = Vec::new();
    for _ in 0..100 {
        ours.pass(Duration::from_secs(1));
        while !ours.dialled.is_empty() {
            dials += 1;
            let (pipe, channel, attach) = ours.picked_up();
            if attach.status == AttachStatus::Resume && attach.sid == *old.session.id() {
                let now = ours.now;
                let resumed = old
                    .session
                    .presented(channel, &attach, MTU, now, &mut old.events);
                assert!(matches!(resumed, Resumed::Done));
                old.pipe = pipe;
                // He drains it, and says so again.
                old.session.go_away(Duration::ZERO);
                ours.carry(&mut old);
            } else {
                others.push(ours.accepted(pipe, channel, &attach));
            }
        }
        ours.answers(&mut old);
        for dans in &mut others {
            ours.answers(dans);
        }
    }
    (ours.answered, ours.failed, dials)
}

#[test]
fn a_session_that_one_thread_retires_while_another_parks_it_holds_up_nothing() {
    for races in [false, true] {
        let (answered, failed, dials) = parked_while_retired(races);
        assert_eq!((answered, failed), (vec![1, 2], vec![]), "races: {races}");
        assert!(dials < 5, "{dials} dials, races: {races}");
    }
}

/// Dan calls although we have a session with him, and we give that one up. From just before that on he hears nothing over its
/// socket, or we do not hear what he begins there. Whether it is over half a minute later.
fn given_up_unheard(dan_is_deaf: bool) -> bool {
    // Neither notices that the socket is dead.
    let mut ours = Ours::with("bob", |config| {
        config.limits.keepalive = Duration::from_secs(600);
    });
    assert!(ours.actor.name().hash() < ours.dan.name().hash());
    ours.ask(1);
    let mut used = ours.reached();
    ours.answers(&mut used);
    let mut given_up = ours.called();
    if !dan_is_deaf {
        given_up.session.open_stream("p".into(), Bytes::new());
    }
    let pipe = given_up.pipe.clone();
    for _ in 0..70 {
        let (now, events) = (ours.now, &mut given_up.events);
        given_up.session.ping(now);
        while let Some(record) = given_up.session.poll_transmit(now, false, events) {
            if dan_is_deaf {
                ours.hear(&pipe, record.freeze());
            }
        }
        while let Some(record) = ours.say(&pipe) {
            if !dan_is_deaf {
                let record = BytesMut::from(&record[..]);
                given_up.session.handle_record(record, now, events).unwrap();
            }
        }
        ours.pass(Duration::from_millis(500));
        ours.answers(&mut used);
    }
    ours.node.counts().sessions < 2
}

#[test]
fn a_session_that_was_given_up_is_not_over_before_its_peer_has_heard_that_and_been_heard() {
    for dan_is_deaf in [false, true] {
        assert!(!given_up_unheard(dan_is_deaf), "deaf: {dan_is_deaf}");
    }
}
