//! The workloads that nectar is measured by, each role in a process of its own over loopback:
//!
//! ```text
//! cargo run --release --example workload [-- [--quick] [--only handshake|serial|pipelined|stream_pipelined|stream_each|bulk|idle]]
//! ```
//!
//! One JSON line per figure: `peer` is `nectar` (direct) or `nectar-routed` (caller, router, target), `workload` and
//! `unit` say what was measured. Memory is the server's, or the router's where there is one.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails has nothing to report"
)]

mod common;

use bytes::Bytes;
use common::{
    BROUGHT_EVERY, CHUNK, DIRECT, ROUTED, Report, Role, SMALL, arguments, behind_router, calling,
    known, listen, name, percentile, ready, resident_kib, route, run, serving,
};
use futures_util::{StreamExt, stream};
use node_native::node::{Node, Request, Response};
use std::{
    process::Command,
    time::{Duration, Instant},
};

const CONCURRENT: usize = 16;
const IN_FLIGHT: usize = 64;
/// One at a time, and with a stream for each, a part of the requests takes as long.
const SERIAL: usize = 40;
const STREAMS: usize = 100;
/// Callers that the server and the router know.
const CALLERS: usize = 5000;
const TARGET: &str = "server";

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
    requests: 200_000,
    bulk: 512 << 20,
    idle: 2000,
};
const QUICK: Extent = Extent {
    handshakes: 400,
    requests: 40_000,
    bulk: 128 << 20,
    idle: 400,
};
/// Every workload.
const ALL: &str = "all";
/// Through a router, a fifth of the connections says as much, and of handshakes there are what it brings a target at once.
const ROUTED_SHARE: usize = 5;
const ROUTED_HANDSHAKES: usize = 80;

fn main() {
    match *arguments() {
        [] => coordinate("full", ALL),
        ["--quick"] => coordinate("quick", ALL),
        ["--only", only] => coordinate("full", only),
        ["--quick", "--only", only] => coordinate("quick", only),
        ["server"] => run(serve(None)),
        ["server", "--router", port] => run(serve(Some(port.parse().unwrap()))),
        ["router"] => run(route(&[TARGET], CALLERS)),
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

/// Starts the roles and lets the client print its figures.
fn coordinate(extent: &str, only: &str) {
    {
        let mut server = Role::start(&["server"]);
        client(&["client", extent, only, &server.hear(), &server.pid()]);
    }
    let mut router = Role::start(&["router"]);
    let port = router.hear();
    let mut server = Role::start(&["server", "--router", &port]);
    // Ready, and known to the router.
    server.hear();
    client(&["client", extent, only, &port, &router.pid(), "--routed"]);
}

fn client(arguments: &[&str]) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "{arguments:?} failed");
}

async fn serve(router: Option<u16>) {
    if let Some(port) = router {
        let _nodes = behind_router(port, &[TARGET], CALLERS).await;
        return ready(None).await;
    }
    let config = serving(TARGET, CALLERS).listen_with(listen());
    let node = Node::start(config).await.unwrap();
    ready(node.local_addr()).await;
}

async fn measure(extent: &str, only: &str, port: &str, pid: &str, routed: bool) {
    let port = port.parse().unwrap();
    let wanted = |workload| only == ALL || only == workload;
    let mut extent = if extent == "quick" { QUICK } else { FULL };
    if routed {
        extent.handshakes = ROUTED_HANDSHAKES;
        extent.idle /= ROUTED_SHARE;
    }
    let report = Report(if routed { ROUTED } else { DIRECT });
    let tls = node_native::tls::client_config().unwrap();
    let known = known(port, &[TARGET], routed);
    let caller = async |index: usize| {
        let config = calling(index, &known).tls(tls.clone());
        let node = Node::start(config).await.unwrap();
        node.connect(&name(TARGET)).await.unwrap();
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
        rate(report, "handshake", extent.handshakes, begun);
    }

    if routed {
        tokio::time::sleep(BROUGHT_EVERY).await;
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
            if routed {
                tokio::time::sleep(BROUGHT_EVERY).await;
            }
            held.push(caller(extent.handshakes + 1 + index).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let growth = (resident_kib(pid) - before) / extent.idle as f64;
        report.figure("idle.rss", growth, "KiB/conn");
    }
}

async fn serial(node: &Node, extent: Extent, report: Report) {
    let to = name(TARGET);
    let payload = Bytes::from_static(&[7; SMALL]);
    let mut times = Vec::with_capacity(extent.requests / SERIAL);
    for _ in 0..extent.requests / SERIAL {
        let begun = Instant::now();
        let request = Request::new("echo.1", payload.clone());
        let answer = node.request(&to, request).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(answer, Response::Success(Some(payload.clone())));
    }
    times.sort();
    report.figure("request.serial.p50", percentile(&times, 0.5), "us");
    report.figure("request.serial.p99", percentile(&times, 0.99), "us");
}

async fn pipelined(node: &Node, extent: Extent, report: Report) {
    let to = name(TARGET);
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
    rate(report, "request.pipelined", extent.requests, begun);
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
    rate(report, "stream.pipelined", extent.requests, begun);
    stream.finish();
}

async fn stream_each(node: &Node, extent: Extent, report: Report) {
    let to = name(TARGET);
    let payload = Bytes::from_static(&[7; SMALL]);
    let count = extent.requests / STREAMS;
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
    rate(report, "request.stream_each", count, begun);
}

async fn bulk(node: &Node, extent: Extent, report: Report) {
    let chunk = Bytes::from(vec![9; CHUNK]);
    let mut stream = node.open_stream(&name(TARGET), "sink.1", "").await.unwrap();
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

fn rate(report: Report, workload: &str, count: usize, begun: Instant) {
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    report.figure(workload, rate, "1/s");
}
