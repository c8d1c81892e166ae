//! The honest pair: two nodes in a process of their own, who ask each other through a router that others attack.

use crate::support::{Network, direct_at, name, soon};
use node_native::node::{Node, Request, Response};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::runtime::Builder;

/// Alice and Bob, in a process of their own: whatever an attacker's thread holds while it gives way, they do not wait for.
pub(super) struct Pair {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

/// What the pair's process finds the router's address in, and whom else it knows.
const PAIR: &str = "NECTAR_TEST_PAIR";
/// Whom it knows anyway: the router and itself.
const PARTIES: [&str; 3] = ["rho", "alice", "bob"];
/// How each of its lines begins: the test runner has others.
const SAID: &str = "honest: ";

impl Pair {
    pub(super) fn start(router: SocketAddr, network: &Network) -> Self {
        let known = network
            .records()
            .iter()
            .map(|(name, _)| name.label.as_str());
        let others = known.filter(|label| !PARTIES.contains(label));
        let told: Vec<String> = others.map(str::to_owned).collect();
        let told = format!("{router} {}", told.join(" "));
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "attacks::honest::the_honest_pair"])
            .args(["--ignored", "--nocapture"])
            .env(PAIR, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, said }
    }

    /// A request and its answer: how long it took, or what went wrong.
    pub(super) fn ask(&mut self) -> Result<Duration, String> {
        writeln!(self.process.stdin.as_mut().unwrap()).unwrap();
        let line = self.said.find_map(|line| {
            let line = line.unwrap();
            let (_, said) = line.split_once(SAID)?;
            Some(said.to_owned())
        });
        let said = line.expect("the honest pair is gone");
        match said.parse() {
            Ok(nanos) => Ok(Duration::from_nanos(nanos)),
            Err(_) => Err(said),
        }
    }

    pub(super) fn close(&mut self) {
        drop(self.process.stdin.take());
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "the honest pair ended with {ended}");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "what the process of the honest pair does, not a test"]
fn the_honest_pair() {
    let Ok(told) = std::env::var(PAIR) else {
        return;
    };
    let (router, others) = told.split_once(' ').unwrap_or((&told, ""));
    let network = Network::default()
        .known("rho", direct_at("rho", router.parse().unwrap()))
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"]);
    let network = others
        .split_whitespace()
        .fold(network, |network, label| network.indirect(label, &[]));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let [alice, bob] = ["alice", "bob"].map(|label| {
        let config = network.config(label).with_core(|core| {
            core.limits.stranger_requests = u32::MAX;
        });
        runtime.block_on(Node::start(config)).unwrap()
    });
    for line in std::io::stdin().lines() {
        line.unwrap();
        let begun = Instant::now();
        let request = Request::new("echo.1", "0123456789abcdef");
        let answer = runtime.block_on(alice.request(&name("bob"), request));
        let took = begun.elapsed().as_nanos();
        match answer {
            Ok(Response::Success(Some(_))) => println!("{SAID}{took}"),
            other => println!("{SAID}{other:?}"),
        }
    }
    runtime.block_on(async {
        soon("closing", alice.close()).await;
        soon("closing", bob.close()).await;
    });
}
