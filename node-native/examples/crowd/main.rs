//! What nectar costs when many are there at once, each role in a process of its own over loopback:
//!
//! ```text
//! cargo run --release --example crowd [-- [--quick] [--only held|scale|resolve|fanout|fairness]]
//! ```
//!
//! One JSON line per figure, as of the example `workload`. Connections are as many as the descriptors of a process allow,
//! 15,000 at most; how many they were is a figure as well.
//!
//! - `held`: memory of a connection that idles in a node which is a router too, after a round of keepalive, and after
//!   1 MiB has passed over each and another round.
//! - `scale`: what one connection's requests cost beside others that idle, and the memory of each of those.
//! - `resolve`: look-ups per second of records that are known.
//! - `fanout`: small messages there and back over many circuits through one router, each sent when it is due, however late
//!   others are: how long after that its answer comes, and the router's computing for each message.
//! - `fairness`: how long an answer takes on one circuit while another one carries bulk through the same router, to the same
//!   target or to another.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails has nothing to report"
)]

mod callers;
#[path = "../common/mod.rs"]
mod common;
mod held;
mod paced;
mod proc;
mod resolve;
mod routed;
mod scale;

use callers::Callers;
use common::{Role, arguments, behind_router, for_anyone, listen, ready, route, run, serving};
use node_native::node::Node;
use std::io::Write;

/// Connections to one process, where its descriptors suffice.
const MOST: usize = 15_000;
/// Descriptors beside those of connections.
const BESIDE: usize = 500;
/// Those whom servers know: the connections, and a few more to measure with.
const KNOWN: usize = MOST + BESIDE;
/// Those whom a router and its targets know.
const KNOWN_ROUTED: usize = 2500;
const SERVER: &str = "server";
const TARGETS: [&str; 4] = ["target-0", "target-1", "target-2", "target-3"];

/// How much of everything is done.
#[derive(Clone, Copy)]
struct Extent {
    quick: bool,
    /// Connections at most.
    most: usize,
}

/// What `--only` selects, and how it is measured.
type Measurement = (&'static str, fn(Extent));

fn main() {
    match *arguments() {
        [] => coordinate(false, None),
        ["--quick"] => coordinate(true, None),
        ["--only", only] => coordinate(false, Some(only)),
        ["--quick", "--only", only] => coordinate(true, Some(only)),
        ["server"] => run(serve()),
        ["router"] => run(route(&TARGETS, KNOWN_ROUTED)),
        ["targets", port, ref labels @ ..] => run(targets(port, labels)),
        ["callers", port, first, way, ref labels @ ..] => {
            Callers::new(port, first, way == "routed", labels).obey();
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: crowd [--quick] [--only held|scale|resolve|fanout|fairness]");
    std::process::exit(2);
}

fn coordinate(quick: bool, only: Option<&str>) {
    let all: [Measurement; 5] = [
        ("held", held::measure),
        ("scale", scale::measure),
        ("resolve", resolve::measure),
        ("fanout", routed::fanout),
        ("fairness", routed::fairness),
    ];
    if only.is_some_and(|only| all.iter().all(|(name, _)| *name != only)) {
        usage();
    }
    let most = MOST.min(proc::descriptors().saturating_sub(BESIDE));
    let extent = Extent { quick, most };
    for (name, measure) in all {
        if only.is_none_or(|only| only == name) {
            measure(extent);
        }
    }
}

// The roles.

async fn serve() {
    let config = serving(SERVER, KNOWN)
        .router(for_anyone())
        .listen_with(listen());
    let node = Node::start(config).await.unwrap();
    ready(node.local_addr()).await;
}

async fn targets(port: &str, labels: &[&str]) {
    let _nodes = behind_router(port.parse().unwrap(), labels, KNOWN_ROUTED).await;
    ready(None).await;
}

/// Callers in a process of their own, numbered from `first` on, who turn to these targets in turn.
fn callers(port: &str, first: usize, way: &str, labels: &[&str]) -> Role {
    let first = first.to_string();
    Role::start(&[&["callers", port, &first, way], labels].concat())
}

/// Has callers begin something.
fn tell(callers: &mut Role, command: &str) {
    let pipe = callers.child.stdin.as_mut().unwrap();
    writeln!(pipe, "{command}").unwrap();
}

/// The figures that a command brings, once it is done.
fn told(callers: &mut Role) -> Vec<f64> {
    let line = callers.hear();
    line.split(' ')
        .map(|figure| figure.parse().unwrap())
        .collect()
}

fn ask(callers: &mut Role, command: &str) -> Vec<f64> {
    tell(callers, command);
    told(callers)
}

/// How far values are from the middle between the least and the most, in percent.
fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    (most - least) / (most + least) * 100.0
}
