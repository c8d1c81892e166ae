//! Nodes with pinned records, each at an address of its own.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use node_core::registry::{Host, Record, RegistryConfig};
use node_native::node::{
    Access, Name, Node, NodeConfig, NodeError, Request, Response, RouterPolicy,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use nectar_sim::{REGISTRY, key_of, name};

/// Longer than anything here takes; shorter than a test run's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this machine does nothing else, so that what is promised can be asserted as it is promised.
pub(crate) fn strict() -> bool {
    std::env::var("NECTAR_ATTACKS").is_ok_and(|how| how == "strict")
}

/// Who exists, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network(Vec<(Name, Record)>);

impl Network {
    /// A direct node, at an address that nobody else has.
    pub(crate) fn direct(mut self, label: &str) -> Self {
        self.0.push((name(label), direct_at(label, free_address())));
        self
    }

    pub(crate) fn indirect(mut self, label: &str, routers: &[&str]) -> Self {
        self.0
            .push((name(label), nectar_sim::indirect(label, routers)));
        self
    }

    /// A name with a record of the test's choice.
    pub(crate) fn known(mut self, label: &str, record: Record) -> Self {
        self.0.push((name(label), record));
        self
    }

    /// Lets a name have a key of its own choice.
    pub(crate) fn rekey(&mut self, label: &str, key: &VerifyingKey) {
        let found = self.0.iter_mut().find(|(known, _)| *known == name(label));
        found.unwrap().1.key = key.to_bytes();
    }

    pub(crate) fn records(&self) -> &[(Name, Record)] {
        &self.0
    }

    pub(crate) fn record(&self, label: &str) -> Record {
        let found = self.0.iter().find(|(known, _)| *known == name(label));
        found.unwrap().1.clone()
    }

    pub(crate) fn address(&self, label: &str) -> SocketAddr {
        let routing = self.record(label).routing.unwrap();
        let Host::V4(host) = routing.host else {
            panic!("an IPv4 address")
        };
        SocketAddr::new(host.into(), routing.port)
    }

    /// A node that answers `echo.1`; a direct one is a router too.
    pub(crate) fn config(&self, label: &str) -> NodeConfig {
        let config = self.know(NodeConfig::named(name(label), key_of(label)));
        if self.record(label).routing.is_none() {
            return config;
        }
        config.listen(self.address(label)).router(RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: true,
        })
    }

    pub(crate) async fn start(&self, label: &str) -> Node {
        log();
        Node::start(self.config(label)).await.unwrap()
    }

    /// A node that knows everybody, and answers `echo.1`.
    pub(crate) fn know(&self, config: NodeConfig) -> NodeConfig {
        let config = config
            .registry(RegistryConfig {
                id: REGISTRY,
                tld: "nectar".into(),
                rpcs: Vec::new(),
                quorum: None,
            })
            .allow_private(true)
            .serve("echo.1", |request| async move {
                Response::Success(Some(request.payload))
            });
        self.0.iter().fold(config, |config, (name, record)| {
            config.pin(name.clone(), record.clone())
        })
    }
}

/// What nodes have to say, for whoever sets `NECTAR_LOG`.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::from_env("NECTAR_LOG");
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}

/// A direct node's record at an address of this machine.
pub(crate) fn direct_at(label: &str, address: SocketAddr) -> Record {
    let mut record = nectar_sim::direct(label, 0);
    let (IpAddr::V4(host), Some(routing)) = (address.ip(), &mut record.routing) else {
        panic!("an IPv4 address")
    };
    (routing.host, routing.port) = (Host::V4(host), address.port());
    record
}

/// Every node has a loopback address of its own, so that no port can be taken in between. Systems that have only one
/// loopback address choose a port instead.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    if cfg!(target_os = "linux") {
        let [.., high, low] = std::process::id().to_be_bytes();
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let (port, last) = (9444 + next / 254, (next % 254 + 1) as u8);
        return SocketAddr::new(Ipv4Addr::new(127, high % 127 + 1, low, last).into(), port);
    }
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut taken = TAKEN.lock().unwrap();
        if !taken.contains(&address.port()) {
            taken.push(address.port());
            return address;
        }
    }
}

/// What `future` comes to, if it does so in time.
pub(crate) async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("too slow: {what}"))
}

/// The whole answer to a request over HTTP.
pub(crate) async fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn echo(
    from: &Node,
    to: &str,
    payload: &'static [u8],
) -> Result<Response, NodeError> {
    let request = Request::new("echo.1", payload);
    soon("an echo", from.request(&name(to), request)).await
}

pub(crate) fn ok(payload: &'static [u8]) -> Result<Response, NodeError> {
    Ok(Response::Success(Some(Bytes::from_static(payload))))
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
