//! How long requests and streams are held up when something between two nodes dies, stops or loses what it is given, in
//! virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod failover_net;

use bytes::Bytes;
use failover_net::{MS, Net};
use nectar_sim::{NodeId, Outcome, Token};
use node_core::{Code, Instant, node::Stream, time::Duration};
use std::task::{Context, Poll, Waker};

const TWO_SECONDS: Duration = Duration::from_secs(2);

/// The slowest request to bob in each of several networks, in each of which something is done to the router in use while
/// a hundred a second are asked; the shortest first.
fn slowest(
    nets: impl Iterator<Item = Net>,
    disturb: impl Fn(&mut Net, NodeId),
    time: Duration,
) -> Vec<Duration> {
    let over = |mut net: Net| {
        net.talk(net.alice, "bob");
        let disturb = |net: &mut Net| {
            let router = net.router_in_use();
            disturb(net, router);
        };
        let slowest = net.pace("bob", disturb, time);
        assert!(slowest > 4 * net.world.latency, "its end was noticed");
        slowest
    };
    let mut all: Vec<_> = nets.map(over).collect();
    all.sort();
    all
}

/// What all but one in a hundred keep to; says so.
fn p99(what: &str, sorted: &[Duration]) -> Duration {
    let worst = sorted.len().div_ceil(100);
    let p99 = sorted[sorted.len() - 1 - worst];
    let (median, most) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    println!(
        "slowest request over {} {what}: median {median:?}, p99 {p99:?}, most {most:?}",
        sorted.len()
    );
    p99
}

#[test]
fn of_a_hundred_routers_in_use_that_are_killed_99_cost_no_request_more_than_300_ms() {
    let nets = (0..100).map(Net::somewhere);
    let slowest = slowest(nets, |net, router| net.world.kill(router), 500 * MS);
    let p99 = p99("routers that are killed", &slowest);
    assert!(p99 <= 300 * MS, "{p99:?}");
}

#[test]
fn of_a_hundred_routers_in_use_that_freeze_99_cost_no_request_more_than_2_s() {
    let nets = (0..100).map(Net::somewhere);
    let slowest = slowest(nets, |net, router| net.world.freeze(router), 500 * MS);
    let p99 = p99("routers that freeze", &slowest);
    assert!(p99 <= TWO_SECONDS, "{p99:?}");
}

#[test]
fn a_router_that_restarts_as_planned_costs_no_request() {
    let restarts = |net: &mut Net, router| {
        net.world.act(router, |node, _, _| {
            node.shut_down(Code::GoingAway, Duration::from_secs(5))
        });
    };
    let slowest = slowest((30..36).map(Net::new), restarts, Duration::from_secs(3));
    let worst = *slowest.last().unwrap();
    println!("slowest request over six planned restarts, 10 ms per hop: {worst:?}");
    assert!(worst <= 300 * MS, "{worst:?}");
}

#[test]
fn a_socket_that_takes_nothing_any_more_is_left_within_2_s() {
    for way in 0..2 {
        // What is on its way still arrives.
        let stalls = |net: &mut Net, router| {
            let ways = [(router, net.alice), (net.alice, router)];
            net.world.stalled.insert(ways[way]);
        };
        let slowest = slowest((40..45).map(Net::new), stalls, TWO_SECONDS);
        let worst = *slowest.last().unwrap();
        println!("slowest request over a socket that takes nothing, way {way}: {worst:?}");
        assert!(worst <= TWO_SECONDS, "{worst:?}");
    }
}

/// What is lost from a moment on.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// What goes through the socket that there is; another one works.
    Socket,
    /// Everything between the two, through whichever socket.
    Way,
}

impl Loss {
    fn happens(self, net: &mut Net, [from, to]: [NodeId; 2]) {
        match self {
            Self::Socket => net.world.silence_way(from, to),
            Self::Way => drop(net.world.severed.insert((from, to))),
        }
    }
}

#[test]
fn what_is_lost_one_way_between_two_direct_nodes_is_told_again_within_2_s() {
    for seed in 40..43 {
        for back in [false, true] {
            let mut net = Net::new(seed);
            let lose = |net: &mut Net| {
                let (from, to) = if back {
                    (net.dan, net.alice)
                } else {
                    (net.alice, net.dan)
                };
                Loss::Socket.happens(net, [from, to]);
            };
            let dan = net.dan;
            let took = under_way(&mut net, dan, "dan", lose);
            println!("back: {back}, seed {seed}: {took:?}");
            assert!(took <= TWO_SECONDS, "back: {back}, seed {seed}: {took:?}");
        }
    }
}

#[test]
fn what_is_lost_one_way_at_a_router_is_told_again_over_the_other_within_2_s() {
    let ways: [fn(&Net, NodeId) -> [NodeId; 2]; 4] = [
        |net, router| [net.alice, router],
        |net, router| [router, net.alice],
        |net, router| [net.bob, router],
        |net, router| [router, net.bob],
    ];
    for (at, way) in ways.into_iter().enumerate() {
        for loss in [Loss::Socket, Loss::Way] {
            let mut net = Net::new(50 + at as u64);
            let lose = |net: &mut Net| {
                let way = way(net, net.router_in_use());
                loss.happens(net, way);
            };
            let bob = net.bob;
            let took = under_way(&mut net, bob, "bob", lose);
            println!("way {at}, {loss:?}: {took:?}");
            assert!(took <= TWO_SECONDS, "way {at}, {loss:?}: {took:?}");
        }
    }
}

/// Bytes that travel each way through the stream: enough for most of it to be still to come at the loss.
const LENGTH: usize = 3_000_000;

/// Loses something in the middle of a stream that runs both ways, with requests under way in both directions, and sees
/// that each of these is handled and answered once, and that the stream comes whole. How long after the loss the last
/// request was answered.
fn under_way(net: &mut Net, peer: NodeId, label: &str, lose: impl FnOnce(&mut Net)) -> Duration {
    net.talk(net.alice, label);
    let mut ends = net.open(net.alice, peer, label).map(End::new);
    let (mut lose, mut lost_at) = (Some(lose), Instant::default());
    let (mut asked, mut took) = (Vec::<(NodeId, Token)>::new(), None);
    let limit = net.world.now() + Duration::from_secs(60);
    while took.is_none() || ends.iter().any(|end| !end.is_over()) {
        assert!(net.world.now() < limit, "{asked:?}, and {ends:?}");
        ends.iter_mut().for_each(End::go_on);
        net.world.run_for(MS);
        if ends[1].got.len() > LENGTH / 3
            && let Some(lose) = lose.take()
        {
            for number in 0..10_u8 {
                // The first have arrived, and their answers are on the way back; the last have yet to leave.
                net.world.run_for(5 * MS);
                let (from, to) = [(net.alice, label), (peer, "alice")][usize::from(number % 2)];
                let token = net.ask(from, to, &[b'w', number], Duration::from_secs(60));
                asked.push((from, token));
            }
            assert!(ends.iter().all(|end| !end.is_over()));
            lose(net);
            lost_at = net.world.now();
        }
        asked.retain(
            |(node, token)| match net.world.machines[*node].outcomes.remove(token) {
                None => true,
                Some(Outcome::Answered(_)) => false,
                Some(other) => panic!("{other:?}"),
            },
        );
        if lose.is_none() && asked.is_empty() && took.is_none() {
            took = Some(net.world.now().since(lost_at));
        }
    }
    let handled = net.handled.borrow();
    for number in 0..10 {
        assert_eq!(
            handled.get(&[b'w', number][..]),
            Some(&1),
            "request {number}"
        );
    }
    let took = took.unwrap();
    assert!(took > 500 * MS, "nothing that was asked was lost: {took:?}");
    took
}

/// One end of a stream that carries the same bytes both ways.
struct End {
    stream: Stream<Token>,
    data: Bytes,
    left: Bytes,
    finished: bool,
    got: Vec<u8>,
    ended: bool,
}

impl End {
    fn new(stream: Stream<Token>) -> Self {
        let data: Bytes = (0..LENGTH).map(|at| ((at * 7) >> 5) as u8).collect();
        Self {
            stream,
            left: data.clone(),
            data,
            finished: false,
            got: Vec::new(),
            ended: false,
        }
    }

    /// Writes what fits and reads what is there.
    fn go_on(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.finished {
            let mut piece = self.left.slice(..self.left.len().min(20_000));
            let length = piece.len();
            if length == 0 {
                self.stream.finish();
                self.finished = true;
            } else if let Poll::Ready(written) = self.stream.poll_write(&mut piece, &mut cx) {
                written.unwrap();
                self.left = self.left.slice(length..);
            } else {
                break;
            }
        }
        while !self.ended
            && let Poll::Ready(read) = self.stream.poll_read(&mut cx)
        {
            match read.unwrap() {
                Some(bytes) => self.got.extend_from_slice(&bytes),
                None => {
                    assert!(self.got == self.data, "not the same bytes");
                    self.ended = true;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.finished && self.ended
    }
}

impl core::fmt::Debug for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes left, {} came", self.left.len(), self.got.len())
    }
}
