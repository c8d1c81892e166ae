//! What programs that measure have in common: their roles in processes of their own, names, keys and records, and how a
//! figure is reported.
//!
//! Every connection is a full mutual handshake between two names with keys of their own; records are pinned, so that no
//! chain is measured.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use node_core::{
    Label, RegistryId,
    registry::{Host, Record, RegistryConfig, Routing},
};
use node_native::{
    config::Listen,
    node::{Access, IncomingStream, Name, Node, NodeConfig, Response, RouterPolicy},
};
use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// As the `nectar` command's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A direct node.
pub(crate) const DIRECT: &str = "nectar";
/// Caller, router and target.
pub(crate) const ROUTED: &str = "nectar-routed";
/// Bytes of a chunk of bulk.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes of a request, of its answer, and of what a stream carries each way.
pub(crate) const SMALL: usize = 32;
/// Every bound that many who call from one address would run into.
const MANY: usize = 40_000;

const REGISTRY: RegistryId = RegistryId {
    chain_id: 31_337,
    contract: [0xbe; 20],
};

// Processes.

/// A process that ends with this one.
pub(crate) struct Role {
    pub(crate) child: Child,
    said: BufReader<ChildStdout>,
}

impl Role {
    /// Starts this program in another role.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next line that it says. The first is the port at which it is ready.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a role ended early");
        line.trim().to_owned()
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between two circuits to one target: its router brings it a hundred a second, and as many at once.
pub(crate) const BROUGHT_EVERY: Duration = Duration::from_millis(12);

/// What the process was started with, for as long as it runs.
pub(crate) fn arguments() -> &'static [&'static str] {
    let words = std::env::args().skip(1).map(|word| &*word.leak());
    words.collect::<Vec<_>>().leak()
}

/// Runs a role as a task of its own, as applications do: the thread that waits for it would have to be woken for everything.
pub(crate) fn run(role: impl Future<Output = ()> + Send + 'static) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::spawn(role).await.unwrap() });
}

/// Says the port, then waits until whoever started us is gone.
pub(crate) async fn ready(address: Option<SocketAddr>) {
    println!("{}", address.map_or(0, |address| address.port()));
    gone().await;
}

/// Resolves when whoever started us is gone.
pub(crate) async fn gone() {
    let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = gone.await;
}

/// Resident memory of a process.
pub(crate) fn resident_kib(pid: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.trim().parse().unwrap()
}

// Figures.

#[derive(Clone, Copy)]
pub(crate) struct Report(pub(crate) &'static str);

impl Report {
    pub(crate) fn figure(self, workload: &str, value: f64, unit: &str) {
        let value = (value * 100.0).round() / 100.0;
        println!(
            "{}",
            serde_json::json!({ "peer": self.0, "workload": workload, "value": value, "unit": unit })
        );
    }
}

/// What a share of the times does not exceed, in microseconds. They are sorted.
pub(crate) fn percentile(times: &[Duration], share: f64) -> f64 {
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

// Servers and routers.

/// A node that knows so many callers, echoes requests and streams, and swallows streams.
pub(crate) fn serving(label: &str, callers: usize) -> NodeConfig {
    let config = config(label)
        .serve("echo.1", |request| async move {
            Response::Success(Some(request.payload))
        })
        .serve_stream("echo.1", echo)
        .serve_stream("sink.1", sink);
    know_callers(config, callers)
}

/// Targets behind the router at `port`, once they can be reached there.
pub(crate) async fn behind_router(port: u16, labels: &[&str], callers: usize) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(labels.len());
    for label in labels {
        nodes.push(behind(serving(label, callers), port, label).await);
    }
    nodes
}

/// One of them, of this configuration.
pub(crate) async fn behind(config: NodeConfig, port: u16, label: &str) -> Node {
    let config = config
        .pin(name("router"), direct("router", port))
        .pin(name(label), indirect(label));
    let node = Node::start(config).await.unwrap();
    let mut events = node.events();
    while !node.is_reachable() {
        assert!(events.next().await.is_some());
    }
    node
}

/// Routes for all who come.
pub(crate) async fn route(labels: &[&str], callers: usize) {
    let config = know_callers(config("router"), callers).router(for_anyone());
    let config = labels.iter().fold(config, |config, label| {
        config.pin(name(label), indirect(label))
    });
    let node = Node::start(config.listen_with(listen())).await.unwrap();
    ready(node.local_addr()).await;
}

pub(crate) const fn for_anyone() -> RouterPolicy {
    RouterPolicy {
        host: Access::Anyone,
        call: Access::Anyone,
        guests: false,
    }
}

pub(crate) fn listen() -> Listen {
    Listen {
        connections: MANY,
        connections_per_address: MANY,
        ..Listen::at((Ipv4Addr::LOCALHOST, 0).into())
    }
}

fn know_callers(config: NodeConfig, callers: usize) -> NodeConfig {
    (0..callers).fold(config, |config, index| {
        let label = caller(index);
        config.pin(name(&label), record(&label, None, &[]))
    })
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

// Callers, names, keys and records.

/// The label of the caller with this number.
pub(crate) fn caller(index: usize) -> String {
    format!("caller-{index}")
}

/// Whom callers of these targets know, like records from the chain: the targets behind the router at `port`, or one that
/// listens there itself.
pub(crate) fn known(port: u16, labels: &[&str], routed: bool) -> Vec<(Name, Record)> {
    let targets = labels.iter().map(|label| {
        let record = if routed {
            indirect(label)
        } else {
            direct(label, port)
        };
        (name(label), record)
    });
    let router = routed.then(|| (name("router"), direct("router", port)));
    router.into_iter().chain(targets).collect()
}

/// A node that knows these and everything that it needs.
pub(crate) fn calling(index: usize, known: &[(Name, Record)]) -> NodeConfig {
    let config = config(&caller(index)).calls_only();
    known
        .iter()
        .cloned()
        .fold(config, |config, (name, record)| config.pin(name, record))
}

pub(crate) fn registry() -> RegistryConfig {
    RegistryConfig {
        id: REGISTRY,
        tld: "bench".into(),
        rpcs: Vec::new(),
        quorum: None,
    }
}

pub(crate) fn config(label: &str) -> NodeConfig {
    NodeConfig::named(name(label), key(label))
        .registry(registry())
        .allow_private(true)
        .with_core(|core| {
            // Everybody calls from one address here.
            core.limits.inbound_channels = MANY;
            core.limits.channels_per_group = MANY;
            core.limits.half_open = MANY;
            core.limits.handshake_rate = u32::MAX;
            core.limits.stranger_requests = u32::MAX;
            core.limits.outbound_peers = MANY;
            core.limits.circuits = MANY;
            core.resolver.cache_entries = MANY;
        })
}

pub(crate) fn name(label: &str) -> Name {
    Name {
        registry: REGISTRY,
        label: Label::new(label).unwrap(),
    }
}

pub(crate) fn record(label: &str, routing: Option<Routing>, routers: &[&str]) -> Record {
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

pub(crate) fn key(label: &str) -> SigningKey {
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

pub(crate) fn indirect(label: &str) -> Record {
    record(label, None, &["router"])
}
