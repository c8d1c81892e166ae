//! The workloads that nectar is measured by, each role in a process of its own over loopback:
//!
//! ```text
//! cargo run --release --example workload [-- [--quick] [--only handshake|serial|pipelined|stream_pipelined|stream_each|bulk|idle]]
//! ```
//!
//! One JSON line per figure: `peer` is `nectar` (direct) or `nectar-routed` (caller, router, target), `workload` and
//! `unit` say what was measured. Every connection is a full mutual handshake between two names with keys of their own;
//! records are pinned, so that no chain is measured. Memory is the server's, or the router's where there is one.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails has nothing to report"
)]

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{StreamExt, stream};
use node_core::{
    Label, RegistryId,
    registry::{Host, Record, RegistryConfig, Routing},
};
use node_native::{
    config::Listen,
    node::{Access, IncomingStream, Name, Node, NodeConfig, Request, Response, RouterPolicy},
};
use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const REGISTRY: RegistryId = RegistryId {
    chain_id: 31_337,
    contract: [0xbe; 20],
};
const CONCURRENT: usize = 16;
const IN_FLIGHT: usize = 64;
const CHUNK: usize = 64 << 10;
/// Bytes of a request, of its answer, and of what a stream carries each way.
const SMALL: usize = 32;
/// Callers that the server and the router know.
const CALLERS: usize = 5000;

/// How much of everything is done.
#[derive(Clone, Copy)]
struct Extent {
    handshakes: usize,
    requests: usize,
    bulk: u64,
    idle: usize,
}

const FULL: Extent = Extent {
    handshakes: 2000,
    requests: 20_000,
    bulk: 512 << 20,
    idle: 2000,
};
const QUICK: Extent = Extent {
    handshakes: 400,
    requests: 5000,
    bulk: 128 << 20,
    idle: 400,
};
/// Every workload.
const ALL: &str = "all";
/// Through a router, a fifth of the connections says as much.
const ROUTED_SHARE: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => coordinate("full", ALL),
        ["--quick"] => coordinate("quick", ALL),
        ["--only", only] => coordinate("full", only),
        ["--quick", "--only", only] => coordinate("quick", only),
        ["server"] => run(serve(None)),
        ["server", "--router", port] => run(serve(Some(port.parse().unwrap()))),
        ["router"] => run(route()),
        ["client", extent, only, port, pid] => run(measure(extent, only, port, pid, false)),
        ["client", extent, only, port, pid, "--routed"] => {
            run(measure(extent, only, port, pid, true));
        }
        _ => {
            eprintln!("usage: workload [--quick] [--only WORKLOAD]");
            std::process::exit(2);
        }
    }
}

fn run(role: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(role);
}

/// Starts the roles and lets the client print its figures.
fn coordinate(extent: &str, only: &str) {
    {
        let server = Role::start(&["server"]);
        Role::client(&["client", extent, only, &server.port, &server.pid()]);
    }
    let router = Role::start(&["router"]);
    let _server = Role::start(&["server", "--router", &router.port]);
    Role::client(&[
        "client",
        extent,
        only,
        &router.port,
        &router.pid(),
        "--routed",
    ]);
}

/// A process that ends with this one.
struct Role {
    child: Child,
    port: String,
}

impl Role {
    /// Starts one that says on which port it is ready.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut port)
            .unwrap();
        let port = port.trim().to_owned();
        assert!(!port.is_empty(), "{arguments:?} did not start");
        Self { child, port }
    }

    fn client(arguments: &[&str]) {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?} failed");
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// The roles.

async fn serve(router: Option<u16>) {
    let config = config("server")
        .serve("echo.1", |request| async move {
            Response::Success(Some(request.payload))
        })
        .serve_stream("echo.1", echo)
        .serve_stream("sink.1", sink);
    let config = know_callers(config);
    let node = match router {
        None => Node::start(config.listen_with(listen())).await.unwrap(),
        Some(port) => {
            let config = config
                .pin(name("router"), direct("router", port))
                .pin(name("server"), behind_router());
            Node::start(config).await.unwrap()
        }
    };
    if router.is_some() {
        let mut events = node.events();
        while !node.is_reachable() {
            assert!(events.next().await.is_some());
        }
    }
    ready(node.local_addr()).await;
}

async fn route() {
    let config = know_callers(config("router"))
        .pin(name("server"), behind_router())
        .router(RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false,
        });
    let node = Node::start(config.listen_with(listen())).await.unwrap();
    ready(node.local_addr()).await;
}

/// Says the port, then waits until the coordinator is gone.
async fn ready(address: Option<SocketAddr>) {
    println!("{}", address.map_or(0, |address| address.port()));
    let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = gone.await;
}

async fn echo(incoming: IncomingStream) {
    let mut stream = incoming.accept();
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_chunk(chunk).await.is_err() {
            return;
        }
    }
    stream.finish();
}

/// Takes everything, then says so with one byte.
async fn sink(incoming: IncomingStream) {
    let mut stream = incoming.accept();
    while let Ok(Some(_)) = stream.read_chunk().await {}
    if stream.write_chunk(Bytes::from_static(&[1])).await.is_ok() {
        stream.finish();
    }
}

async fn measure(extent: &str, only: &str, port: &str, pid: &str, routed: bool) {
    let port = port.parse().unwrap();
    let wanted = |workload| only == ALL || only == workload;
    let mut extent = if extent == "quick" { QUICK } else { FULL };
    if routed {
        extent.handshakes /= ROUTED_SHARE;
        extent.idle /= ROUTED_SHARE;
    }
    let report = Report(if routed { "nectar-routed" } else { "nectar" });
    let tls = node_native::tls::client_config().unwrap();
    // Whom callers know, like a record from the chain: made once.
    let known = if routed {
        vec![
            (name("router"), direct("router", port)),
            (name("server"), behind_router()),
        ]
    } else {
        vec![(name("server"), direct("server", port))]
    };
    let caller = async |index: usize| {
        let config = config(&format!("caller-{index}"))
            .tls(tls.clone())
            .calls_only();
        let config = known
            .iter()
            .cloned()
            .fold(config, |config, (name, record)| config.pin(name, record));
        let node = Node::start(config).await.unwrap();
        node.connect(&name("server")).await.unwrap();
        node
    };

    if wanted("handshake") {
        let begun = Instant::now();
        stream::iter(0..extent.handshakes)
            .for_each_concurrent(CONCURRENT, |index| {
                let caller = &caller;
                async move { drop(caller(index).await) }
            })
            .await;
        report.rate("handshake", extent.handshakes, begun);
    }

    let node = caller(extent.handshakes).await;
    if wanted("serial") {
        serial(&node, extent, report).await;
    }
    if wanted("pipelined") {
        pipelined(&node, extent, report).await;
    }
    if wanted("stream_pipelined") {
        stream_pipelined(&node, extent, report).await;
    }
    if wanted("stream_each") {
        stream_each(&node, extent, report).await;
    }
    if wanted("bulk") {
        bulk(&node, extent, report).await;
    }
    if wanted("idle") {
        let before = resident_kib(pid);
        let mut held = Vec::with_capacity(extent.idle);
        for index in 0..extent.idle {
            held.push(caller(extent.handshakes + 1 + index).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let growth = (resident_kib(pid) - before) / extent.idle as f64;
        report.figure("idle.rss", growth, "KiB/conn");
    }
}

async fn serial(node: &Node, extent: Extent, report: Report) {
    let to = name("server");
    let payload = Bytes::from_static(&[7; SMALL]);
    let mut times = Vec::with_capacity(extent.requests / 4);
    for _ in 0..extent.requests / 4 {
        let begun = Instant::now();
        let request = Request::new("echo.1", payload.clone());
        let answer = node.request(&to, request).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(answer, Response::Success(Some(payload.clone())));
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    report.figure("request.serial.p50", at(0.5), "us");
    report.figure("request.serial.p99", at(0.99), "us");
}

async fn pipelined(node: &Node, extent: Extent, report: Report) {
    let to = name("server");
    let payload = Bytes::from_static(&[7; SMALL]);
    let begun = Instant::now();
    let requests = stream::iter(0..extent.requests)
        .map(|_| node.request(&to, Request::new("echo.1", payload.clone())));
    let answered = requests
        .buffer_unordered(IN_FLIGHT)
        .filter(|answer| std::future::ready(answer.is_ok()))
        .count()
        .await;
    assert_eq!(answered, extent.requests);
    report.rate("request.pipelined", extent.requests, begun);
}

/// The same bytes over one stream, which is what others call pipelined.
async fn stream_pipelined(node: &Node, extent: Extent, report: Report) {
    let mut stream = node
        .open_stream(&name("server"), "echo.1", "")
        .await
        .unwrap();
    let payload = Bytes::from_static(&[7; SMALL]);
    let begun = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    while answered < extent.requests * SMALL {
        while asked < extent.requests && asked < answered / SMALL + IN_FLIGHT {
            stream.write_chunk(payload.clone()).await.unwrap();
            asked += 1;
        }
        answered += stream.read_chunk().await.unwrap().unwrap().len();
    }
    report.rate("stream.pipelined", extent.requests, begun);
    stream.finish();
}

async fn stream_each(node: &Node, extent: Extent, report: Report) {
    let to = name("server");
    let payload = Bytes::from_static(&[7; SMALL]);
    let count = extent.requests / 10;
    let begun = Instant::now();
    for _ in 0..count {
        let mut stream = node.open_stream(&to, "echo.1", "").await.unwrap();
        stream.write_chunk(payload.clone()).await.unwrap();
        let mut answered = 0;
        while answered < SMALL {
            answered += stream.read_chunk().await.unwrap().unwrap().len();
        }
        stream.finish();
    }
    report.rate("request.stream_each", count, begun);
}

async fn bulk(node: &Node, extent: Extent, report: Report) {
    let chunk = Bytes::from(vec![9; CHUNK]);
    let mut stream = node
        .open_stream(&name("server"), "sink.1", "")
        .await
        .unwrap();
    let begun = Instant::now();
    for _ in 0..extent.bulk / CHUNK as u64 {
        stream.write_chunk(chunk.clone()).await.unwrap();
    }
    stream.finish();
    assert!(
        stream.read_chunk().await.unwrap().is_some(),
        "the receiver has it all"
    );
    let mib = extent.bulk as f64 / f64::from(1 << 20);
    report.figure("bulk", mib / begun.elapsed().as_secs_f64(), "MiB/s");
}

// Figures.

#[derive(Clone, Copy)]
struct Report(&'static str);

impl Report {
    fn figure(self, workload: &str, value: f64, unit: &str) {
        let value = (value * 100.0).round() / 100.0;
        println!(
            "{}",
            serde_json::json!({ "peer": self.0, "workload": workload, "value": value, "unit": unit })
        );
    }

    fn rate(self, workload: &str, count: usize, begun: Instant) {
        self.figure(
            workload,
            count as f64 / begun.elapsed().as_secs_f64(),
            "1/s",
        );
    }
}

/// Resident memory of a process.
fn resident_kib(pid: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.trim().parse().unwrap()
}

// Names, keys and records.

fn config(label: &str) -> NodeConfig {
    NodeConfig::named(name(label), key(label))
        .registry(RegistryConfig {
            id: REGISTRY,
            tld: "bench".into(),
            rpcs: Vec::new(),
            quorum: None,
        })
        .allow_private(true)
        .with_core(|core| {
            // Everybody calls from one address here.
            core.limits.inbound_channels = 2 * CALLERS;
            core.limits.channels_per_group = 2 * CALLERS;
            core.limits.half_open = 2 * CALLERS;
            core.limits.handshake_rate = u32::MAX;
            core.limits.stranger_requests = u32::MAX;
            core.limits.outbound_peers = 2 * CALLERS;
            core.limits.circuits = 2 * CALLERS;
            core.resolver.cache_entries = 2 * CALLERS;
        })
}

fn know_callers(config: NodeConfig) -> NodeConfig {
    (0..CALLERS).fold(config, |config, index| {
        let label = format!("caller-{index}");
        config.pin(name(&label), record(&label, None, &[]))
    })
}

fn listen() -> Listen {
    Listen {
        connections: 2 * CALLERS,
        connections_per_address: 2 * CALLERS,
        ..Listen::at((Ipv4Addr::LOCALHOST, 0).into())
    }
}

fn name(label: &str) -> Name {
    Name {
        registry: REGISTRY,
        label: Label::new(label).unwrap(),
    }
}

fn key(label: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..label.len()].copy_from_slice(label.as_bytes());
    SigningKey::from_bytes(&seed)
}

fn direct(label: &str, port: u16) -> Record {
    let routing = Routing {
        host: Host::V4(Ipv4Addr::LOCALHOST),
        port,
        ws: true,
        wss: false,
    };
    record(label, Some(routing), &[])
}

fn behind_router() -> Record {
    record("server", None, &["router"])
}

fn record(label: &str, routing: Option<Routing>, routers: &[&str]) -> Record {
    Record {
        owner: [1; 20],
        manager: [0; 20],
        key: key(label).verifying_key().to_bytes(),
        routing,
        routers: routers.iter().map(|router| name(router).label).collect(),
        version: 1,
        epoch: 1,
    }
}
