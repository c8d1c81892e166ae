//! Routers that are killed or stopped without a word, again and again, while two nodes talk through them.

use crate::{
    pair::{Answer, Pair, Talk},
    support::strict,
};
use node_native::node::{Code, Event, PeerState};
use std::time::{Duration, Instant};

/// On a machine that does nothing else, and on one that others load, too.
const KILLS: [usize; 2] = [100, 20];
/// The same where nothing is configured, which takes longer.
const USUAL_KILLS: [usize; 2] = [10, 3];
/// What is lost sooner than 5 s after it came is not looked for at once.
const STEADY: Duration = Duration::from_millis(5500);
/// The longest interruption of 99 of 100. The kernel closes a dead process's sockets, so nobody has to notice a silence.
const INTERRUPTION: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];
/// Processes that are stopped instead: their sockets stay open, and take what is sent until they are full.
const STOPS: [usize; 2] = [30, 5];
const SILENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

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

    println!("{} s", begun.elapsed().as_secs());
    assert_short(&kills, &answers, INTERRUPTION[which]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_configured_a_killed_router_costs_as_little_if_it_was_there_for_a_while() {
    let which = usize::from(!strict());
    let mut pair = Pair::as_usual(&["rho", "sigma"]).await;
    let talk = Talk::begin(&pair).await;
    let mut kills = Vec::new();
    for _ in 0..USUAL_KILLS[which] {
        tokio::time::sleep(STEADY).await;
        let router = pair.in_use();
        kills.push(pair.kill(router));
        talk.goes_on().await;
        pair.start(router).await;
        pair.settle().await;
    }
    let answers = talk.end().await;
    assert_short(&kills, &answers, INTERRUPTION[which]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_stopped_in_turn_under_load_cost_no_request_and_no_byte_and_at_most_2_s() {
    let which = usize::from(!strict());
    let mut pair = Pair::behind(&["rho", "sigma"]).await;
    let talk = Talk::begin(&pair).await;
    let mut stops = Vec::new();
    for _ in 0..STOPS[which] {
        let router = pair.in_use();
        stops.push(pair.stop(router));
        talk.goes_on().await;
        assert_ne!(pair.in_use(), router);
        pair.kill(router);
        pair.start(router).await;
        pair.settle().await;
    }
    let answers = talk.end().await;
    assert_short(&stops, &answers, SILENCE[which]);
}

/// Of 99 of 100 kills, neither was any request that was under way held for longer than that, nor was there a longer time
/// without any answer.
fn assert_short(kills: &[Instant], answers: &[Answer], most: Duration) {
    let held: Vec<Vec<Duration>> = kills
        .iter()
        .map(|killed| {
            let under_way = |answer: &&Answer| answer.asked < *killed && answer.came > *killed;
            let under_way = answers.iter().filter(under_way);
            under_way.map(|answer| answer.came - *killed).collect()
        })
        .collect();
    let all: usize = held.iter().map(Vec::len).sum();
    assert!(all > 2 * kills.len(), "too few were under way: {held:?}");
    let gaps: Vec<_> = (0..kills.len())
        .map(|n| longest_gap(answers, kills[n], kills.get(n + 1).copied()))
        .collect();
    let held = held.iter().filter_map(|held| held.iter().max().copied());
    let [gap, held] = [gaps, held.collect::<Vec<_>>()].map(|mut times| {
        times.sort_unstable();
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        (times[times.len() / 2], p99)
    });
    println!(
        "{} kills, {} answers, {all} of them under way when a router died; without an answer p50 {:?}, p99 {:?}; \
         a request held p50 {:?}, p99 {:?}",
        kills.len(),
        answers.len(),
        gap.0,
        gap.1,
        held.0,
        held.1,
    );
    assert!(gap.1 <= most && held.1 <= most, "{gap:?}, {held:?}");
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
