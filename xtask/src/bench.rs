//! `cargo xtask bench`: our workloads, and others' beside them.
//!
//! What is compared is measured in turn, round by round, because a shared machine's speed changes from one minute to the next:
//! of rates the median of all rounds counts, of latencies the least.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::commands;
use crate::page;
use crate::process::{self, Group};
use crate::repo::Repo;
use crate::setup::{self, Output};

/// Where the peers' programs are: workspaces of their own, so that nobody who does not compare compiles them.
const PEERS: &str = "xtask/peers";

/// How often a peer is started for one round.
const ATTEMPTS: usize = 3;

/// How long a server may take until it accepts, or, over UDP, what it is given.
const COMES_UP: Duration = Duration::from_secs(10);
const UNSEEN: Duration = Duration::from_secs(1);

/// A goal: ours against theirs, as a ratio.
struct Goal {
    workload: &'static str,
    ours: &'static str,
    theirs: &'static str,
    /// What theirs is compared in, where that has another name.
    their_workload: &'static str,
    ratio: f64,
    /// Whether less is better.
    least: bool,
}

const fn at_least(ours: Measured, theirs: Measured, ratio: f64) -> Goal {
    Goal {
        workload: ours[0],
        ours: ours[1],
        theirs: theirs[1],
        their_workload: theirs[0],
        ratio,
        least: false,
    }
}

const fn at_most(ours: Measured, theirs: Measured, ratio: f64) -> Goal {
    Goal {
        least: true,
        ..at_least(ours, theirs, ratio)
    }
}

/// A workload, and who did it.
type Measured = [&'static str; 2];

const DIRECT: &str = "nectar";
const ROUTED: &str = "nectar-routed";
const RAW: &str = "raw-ws";
const LIBP2P: &str = "libp2p-ws";
const LIBP2P_RELAYED: &str = "libp2p-ws-relayed";
const IROH: &str = "iroh-quic";
const IROH_RELAYED: &str = "iroh-relayed";
const HANDSHAKE: &str = "handshake";
const SERIAL: &str = "request.serial.p50";
const PIPELINED: &str = "request.pipelined";
const ECHOED: &str = "stream.pipelined";
const BULK: &str = "bulk";
const IDLE: &str = "idle.rss";
const TAB: &str = "nectar-tab";
const TAB_ROUTED: &str = "nectar-tab-routed";

/// Every peer's "pipelined" is an echo over one stream.
const GOALS: [Goal; 19] = [
    at_least([HANDSHAKE, DIRECT], [HANDSHAKE, RAW], 0.25),
    at_least([HANDSHAKE, DIRECT], [HANDSHAKE, LIBP2P], 3.5),
    at_most([SERIAL, DIRECT], [SERIAL, RAW], 1.3),
    at_most([SERIAL, DIRECT], [SERIAL, LIBP2P], 0.75),
    at_most([SERIAL, ROUTED], [SERIAL, LIBP2P_RELAYED], 0.75),
    at_most([SERIAL, ROUTED], [SERIAL, IROH_RELAYED], 0.7),
    at_least([PIPELINED, DIRECT], [PIPELINED, RAW], 4.0),
    at_least([PIPELINED, DIRECT], [PIPELINED, IROH], 1.1),
    at_least([ECHOED, DIRECT], [PIPELINED, RAW], 4.0),
    at_least([ECHOED, DIRECT], [PIPELINED, IROH], 1.1),
    at_least([PIPELINED, ROUTED], [PIPELINED, IROH_RELAYED], 1.0),
    at_least([ECHOED, ROUTED], [PIPELINED, IROH_RELAYED], 1.0),
    at_least([BULK, DIRECT], [BULK, RAW], 0.5),
    at_least([BULK, DIRECT], [BULK, IROH], 2.2),
    at_least([BULK, DIRECT], [BULK, LIBP2P], 4.0),
    at_least([BULK, ROUTED], [BULK, LIBP2P_RELAYED], 2.2),
    at_least([BULK, ROUTED], [BULK, IROH_RELAYED], 3.0),
    at_most([IDLE, DIRECT], [IDLE, RAW], 0.5),
    at_most([IDLE, ROUTED], [IDLE, LIBP2P_RELAYED], 0.5),
];

/// What one of our figures is to be by itself.
struct Bound {
    workload: &'static str,
    peer: &'static str,
    value: f64,
    unit: &'static str,
    /// Whether less is better.
    most: bool,
}

const fn within([workload, peer]: [&'static str; 2], value: f64, unit: &'static str) -> Bound {
    Bound {
        workload,
        peer,
        value,
        unit,
        most: true,
    }
}

const fn beyond([workload, peer]: [&'static str; 2], value: f64, unit: &'static str) -> Bound {
    Bound {
        workload,
        peer,
        value,
        unit,
        most: false,
    }
}

/// What is wanted where many are there at once, which the example `crowd` measures, and of a node in a page.
const BOUNDS: [Bound; 21] = [
    within(["held.rss", DIRECT], 9.0, "KiB/conn"),
    within(["held.rss.after", DIRECT], 9.0, "KiB/conn"),
    within(["scale.rss.spread", DIRECT], 15.0, "%"),
    within(["scale.cpu.spread", DIRECT], 15.0, "%"),
    within(["scale.p50.spread", DIRECT], 15.0, "%"),
    beyond(["resolve.pinned", DIRECT], 2e6, "1/s"),
    beyond(["resolve.cached", DIRECT], 2e6, "1/s"),
    within(["fanout.2000.p99", ROUTED], 10_000.0, "us"),
    within(["fanout.cpu.growth", ROUTED], 1.0, "x"),
    within(["fairness.same.paced.ratio", ROUTED], 3.0, "x"),
    within(["fairness.same.full.p99", ROUTED], 5000.0, "us"),
    within(["fairness.apart.paced.ratio", ROUTED], 3.0, "x"),
    within(["fairness.apart.full.p99", ROUTED], 5000.0, "us"),
    beyond(["tab.send", TAB], 100.0, "MiB/s"),
    beyond(["tab.receive", TAB], 100.0, "MiB/s"),
    beyond(["tab.requests", TAB], 950.0, "1/s"),
    within(["tab.longest_task", TAB], 50.0, "ms"),
    beyond(["tab.send", TAB_ROUTED], 60.0, "MiB/s"),
    beyond(["tab.receive", TAB_ROUTED], 60.0, "MiB/s"),
    beyond(["tab.requests", TAB_ROUTED], 950.0, "1/s"),
    within(["tab.longest_task", TAB_ROUTED], 50.0, "ms"),
];

/// What is wanted.
struct Plan {
    quick: bool,
    rounds: usize,
    crowd: bool,
    tab: bool,
    peers: bool,
}

impl Plan {
    fn read(args: &[&str]) -> Result<Self> {
        let mut plan = Self {
            quick: false,
            rounds: 1,
            crowd: false,
            tab: false,
            peers: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--quick" => plan.quick = true,
                "--crowd" => plan.crowd = true,
                "--tab" => plan.tab = true,
                "--peers" => plan.peers = true,
                "--rounds" => {
                    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
                    plan.rounds = rounds
                        .filter(|rounds| (1..=100).contains(rounds))
                        .context("--rounds takes a number from 1 to 100")?;
                }
                other => {
                    bail!(
                        "bench knows no {other}: give --quick, --rounds N, --crowd, --tab or --peers"
                    )
                }
            }
        }
        Ok(plan)
    }
}

/// What was measured: by peer and workload, one value a round.
type Figures = BTreeMap<(String, String), Vec<f64>>;

/// Prints a JSON line for every figure as it comes, and with peers a table of ratios at the end.
pub(crate) fn run(repo: &Repo, args: &[&str]) -> Result<ExitCode> {
    let plan = Plan::read(args)?;
    let programs = if plan.crowd {
        &["workload", "crowd"][..]
    } else {
        &["workload"]
    };
    let mut build = repo.cargo();
    build.args(["build", "--locked", "--release"]);
    for program in programs {
        build.args(["--example", program]);
    }
    if plan.tab {
        build.args(["--example", "tab"]);
    }
    process::run(&mut build)?;
    if plan.tab {
        setup::browser(repo, &Output::Shown)?;
        setup::npm(repo, page::DIRECTORY, &Output::Shown)?;
        commands::wasm(repo)?;
    }
    if plan.peers {
        for peers in ["sockets", "iroh"] {
            eprintln!("building {PEERS}/{peers}; several minutes the first time");
            process::run(
                repo.cargo()
                    .args(["build", "--locked", "--release", "--manifest-path"])
                    .arg(repo.path(PEERS).join(peers).join("Cargo.toml"))
                    .env("CARGO_TARGET_DIR", repo.target("peers")),
            )?;
        }
    }
    let mut figures = Figures::new();
    for _ in 0..plan.rounds {
        for program in programs {
            let mut program = repo.command(repo.target("release/examples").join(program));
            if plan.quick {
                program.arg("--quick");
            }
            note(&process::output(&mut program)?, &mut figures)?;
        }
        if plan.tab {
            note(&process::output(&mut in_a_tab(repo)?)?, &mut figures)?;
        }
        if plan.peers {
            for peer in ALL {
                // Some of them fail to connect now and then.
                let measured = (0..ATTEMPTS).find_map(|_| peer.measure(repo).ok());
                match measured {
                    Some(output) => note(&output, &mut figures)?,
                    None => eprintln!("{} measured nothing in this round", peer.program),
                }
            }
        }
    }
    if plan.crowd || plan.tab {
        print!("{}", bounds(&figures));
    }
    if plan.peers {
        print!("{}", table(&figures));
    }
    Ok(ExitCode::SUCCESS)
}

/// What measures a node in a page.
fn in_a_tab(repo: &Repo) -> Result<Command> {
    let browser = setup::browser_path().context("no browser in PATH")?;
    let mut node = repo.node(page::DIRECTORY);
    node.arg("../node-wasm/js/e2e/rates.mjs")
        .arg(repo.target("release/examples/tab"))
        .env("CHROMIUM", browser);
    Ok(node)
}

/// A peer's program, in its roles.
struct Peer {
    program: &'static str,
    relayed: bool,
    /// Whether its server accepts TCP.
    tcp: bool,
}

const ALL: [Peer; 5] = [
    Peer {
        program: "raw",
        relayed: false,
        tcp: true,
    },
    Peer {
        program: "libp2p",
        relayed: false,
        tcp: true,
    },
    Peer {
        program: "libp2p",
        relayed: true,
        tcp: true,
    },
    Peer {
        program: "iroh-peer",
        relayed: false,
        tcp: false,
    },
    Peer {
        program: "iroh-peer",
        relayed: true,
        tcp: false,
    },
];

impl Peer {
    /// Runs every role in a process of its own; what the client printed.
    fn measure(&self, repo: &Repo) -> Result<String> {
        let [port, via] = [free_port()?, free_port()?].map(|port| port.to_string());
        let command = |args: &[&str]| {
            let mut command = repo.command(repo.target("peers/release").join(self.program));
            command.args(args);
            command
        };
        let start = |args: &[&str]| {
            let mut command = command(args);
            Group::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let relay = self.relayed.then(|| start(&["relay", &via])).transpose()?;
        if relay.is_some() {
            accepts(&via)?;
        }
        let mut server = vec!["server", &port];
        if self.relayed {
            server.extend(["--relay", &via]);
        }
        let server = start(&server)?;
        if self.tcp {
            accepts(&port)?;
        }
        if self.relayed || !self.tcp {
            // Its place at the relay, and what listens over UDP, cannot be seen from here.
            thread::sleep(UNSEEN * 2);
        }
        // Memory is that of whoever stands in the middle, where there is one.
        let pid = relay.as_ref().unwrap_or(&server).id().to_string();
        let mut client = command(&["client", &port, &pid]);
        if self.relayed {
            client.args(["--via", &via]);
        }
        client.stderr(Stdio::null());
        process::output(&mut client)
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn accepts(port: &str) -> Result<()> {
    let port: u16 = port.parse()?;
    let until = Instant::now() + COMES_UP;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > until {
            bail!("nobody accepts at port {port}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Prints the lines that are figures, and remembers them.
fn note(output: &str, figures: &mut Figures) -> Result<()> {
    for line in output.lines().filter(|line| line.starts_with('{')) {
        println!("{line}");
        let (peer, workload) = (text(line, "peer")?, text(line, "workload")?);
        let value = after(line, "\"value\":")?;
        let value = value.split([',', '}']).next().unwrap_or_default().trim();
        let value = value.parse().with_context(|| line.to_owned())?;
        figures.entry((peer, workload)).or_default().push(value);
    }
    Ok(())
}

/// A text of one of our own lines, which escape nothing.
fn text(line: &str, key: &str) -> Result<String> {
    let value = after(line, &format!("\"{key}\":"))?.trim_start();
    let value = value
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next());
    value.map(str::to_owned).with_context(|| line.to_owned())
}

fn after<'a>(line: &'a str, what: &str) -> Result<&'a str> {
    let (_, rest) = line
        .split_once(what)
        .with_context(|| format!("no {what} in {line}"))?;
    Ok(rest)
}

/// What our figures are to be, what they are, and whether that is met.
fn bounds(figures: &Figures) -> String {
    let mut table = String::from("\n| workload | | | goal | met |\n|---|---|---|---|---|\n");
    for bound in &BOUNDS {
        let key = (bound.peer.to_owned(), bound.workload.to_owned());
        let Some(values) = figures.get(&key) else {
            continue;
        };
        let value = summary(values, false);
        let (sign, met) = match bound.most {
            true => ("≤", value <= bound.value),
            false => ("≥", value >= bound.value),
        };
        table += &format!(
            "| {} | {} | {} {} | {sign} {} | {} |\n",
            bound.workload,
            bound.peer,
            shown(value),
            bound.unit,
            bound.value,
            if met { "yes" } else { "no" },
        );
    }
    table
}

/// The goals, what was measured, and whether they are met.
fn table(figures: &Figures) -> String {
    let mut table = String::from(
        "\n| workload | ours | | compared with | | ratio | goal | met |\n|---|---|---|---|---|---|---|---|\n",
    );
    for goal in &GOALS {
        let value = |peer: &str, workload: &str| {
            let values = figures.get(&(peer.to_owned(), workload.to_owned()))?;
            // Memory does not flicker: any round's says the same.
            Some(summary(values, goal.least && workload != IDLE))
        };
        let (Some(ours), Some(theirs)) = (
            value(goal.ours, goal.workload),
            value(goal.theirs, goal.their_workload),
        ) else {
            continue;
        };
        let ratio = ours / theirs;
        let (sign, met) = match goal.least {
            true => ("≤", ratio <= goal.ratio),
            false => ("≥", ratio >= goal.ratio),
        };
        table += &format!(
            "| {} | {} | {} | {} | {} | {ratio:.2} | {sign} {} | {} |\n",
            goal.workload,
            goal.ours,
            shown(ours),
            goal.theirs,
            shown(theirs),
            goal.ratio,
            if met { "yes" } else { "no" },
        );
    }
    table
}

/// The median, or the least.
fn summary(values: &[f64], least: bool) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = if least { 0 } else { values.len() / 2 };
    values.get(at).copied().unwrap_or(f64::NAN)
}

fn shown(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn ratios_are_those_of_medians_and_of_the_least_latency() {
        let mut figures = Figures::new();
        for (ours, theirs) in [(10.0, 100.0), (30.0, 100.0), (20.0, 90.0)] {
            note(
                &format!(
                    "{{\"peer\":\"nectar\",\"unit\":\"1/s\",\"value\":{ours},\"workload\":\"handshake\"}}\n\
                     warming up\n\
                     {{\"peer\":\"raw-ws\",\"unit\":\"1/s\",\"value\":{theirs},\"workload\":\"handshake\"}}\n\
                     {{\"peer\":\"nectar\",\"unit\":\"us\",\"value\":{ours},\"workload\":\"request.serial.p50\"}}\n\
                     {{\"peer\":\"raw-ws\",\"unit\":\"us\",\"value\":{theirs},\"workload\":\"request.serial.p50\"}}\n"
                ),
                &mut figures,
            )
            .unwrap();
        }
        let table = table(&figures);
        assert!(
            table.contains("| handshake | nectar | 20.0 | raw-ws | 100.0 | 0.20 | ≥ 0.25 | no |"),
            "{table}"
        );
        assert!(
            table.contains(
                "| request.serial.p50 | nectar | 10.0 | raw-ws | 90.0 | 0.11 | ≤ 1.3 | yes |"
            ),
            "{table}"
        );
        assert_eq!(
            table.lines().count(),
            5,
            "what was not measured is left out"
        );
    }

    #[test]
    fn bounds_hold_the_median_of_rounds_to_what_it_is_to_be() {
        let mut figures = Figures::new();
        for (memory, rate) in [(8.0, 1e6), (9.5, 3e6), (8.5, 2e6)] {
            let lines = format!(
                "{{\"peer\":\"nectar\",\"unit\":\"KiB/conn\",\"value\":{memory},\"workload\":\"held.rss\"}}\n\
                 {{\"peer\":\"nectar\",\"unit\":\"1/s\",\"value\":{rate},\"workload\":\"resolve.pinned\"}}\n\
                 {{\"peer\":\"nectar-routed\",\"unit\":\"us\",\"value\":10001,\"workload\":\"fanout.2000.p99\"}}\n"
            );
            note(&lines, &mut figures).unwrap();
        }
        let table = bounds(&figures);
        let rows: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(
            rows,
            [
                "| held.rss | nectar | 8.5 KiB/conn | ≤ 9 | yes |",
                "| resolve.pinned | nectar | 2000000 1/s | ≥ 2000000 | yes |",
                "| fanout.2000.p99 | nectar-routed | 10001 us | ≤ 10000 | no |",
            ]
        );
    }

    #[test]
    fn wrong_arguments_are_refused_before_anything_is_built() {
        for (args, says) in [
            (&["--fast"][..], "bench knows no --fast"),
            (&["--rounds"], "--rounds takes"),
            (&["--rounds", "0"], "--rounds takes"),
        ] {
            let error = Plan::read(args).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Plan::read(&["--quick", "--rounds", "5", "--crowd", "--tab", "--peers"]).is_ok());
    }
}
