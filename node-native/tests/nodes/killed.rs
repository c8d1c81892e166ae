//! Routers that are killed without a word, again and again, while two nodes talk through them.

use crate::{
    pair::{Answer, Pair, Talk},
    support::strict,
};
use node_native::node::{Code, Event, PeerState};
use std::time::{Duration, Instant};

/// On a machine that does nothing else, and on one that others load, too.
const KILLS: [usize; 2] = [100, 20];
/// The longest interruption of 99 of 100. The kernel closes a dead process's sockets, so nobody has to notice a silence.
const INTERRUPTION: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_killed_in_turn_under_load_cost_no_request_and_no_byte_and_little_time() {
    let which = usize::from(!strict());
    let begun = Instant::now();
    let mut pair = Pair::behind(&["rho", "sigma"]).await;
    let talk = Talk::begin(&pair).await;
    let mut kills = Vec::new();
    let mut events = pair.alice.events();
    let mut reasons = Vec::new();
    for _ in 0..KILLS[which] {
        let router = pair.in_use();
        kills.push(pair.kill(router));
        talk.goes_on().await;
        assert_ne!(pair.in_use(), router);
        pair.start(router).await;
        pair.settle().await;
        while let Some(event) = events.try_next() {
            if let Event::Peer {
                state: PeerState::Interrupted { reason },
                ..
            } = event
            {
                reasons.push(reason);
            }
        }
    }
    let answers = talk.end().await;
    assert!(reasons.len() >= kills.len());
    // Who dies has broken no rule.
    assert!(
        reasons.iter().all(|reason| *reason == Code::PipeLost),
        "{reasons:?}"
    );

    let interrupted: Vec<_> = kills
        .iter()
        .map(|killed| {
            let under_way = |answer: &&Answer| answer.asked < *killed && answer.came > *killed;
            answers.iter().filter(under_way).count()
        })
        .collect();
    let all: usize = interrupted.iter().sum();
    assert!(
        all > 2 * kills.len(),
        "too few were under way: {interrupted:?}"
    );
    let mut gaps: Vec<_> = (0..kills.len())
        .map(|n| longest_gap(&answers, kills[n], kills.get(n + 1).copied()))
        .collect();
    gaps.sort_unstable();
    let p99 = gaps[(gaps.len() * 99).div_ceil(100) - 1];
    println!(
        "{} kills in {:.1} s, {} answers, {all} of them under way when a router died; interruptions p50 {:?}, p99 {p99:?}",
        kills.len(),
        begun.elapsed().as_secs_f64(),
        answers.len(),
        gaps[gaps.len() / 2],
    );
    assert!(p99 <= INTERRUPTION[which], "{gaps:?}");
}

/// The longest time without an answer that ended between a kill and the next one.
fn longest_gap(answers: &[Answer], killed: Instant, next: Option<Instant>) -> Duration {
    let gaps = answers.windows(2).filter_map(|pair| {
        let [before, after] = [pair[0].came, pair[1].came];
        let counts = after > killed && next.is_none_or(|next| after <= next);
        counts.then(|| after - before)
    });
    gaps.max().unwrap()
}
