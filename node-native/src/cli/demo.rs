//! `nectar demo`: everything on this machine. A chain with a registry, two routers, a node to talk to, and the page.

use super::{DemoArgs, Failure, echo, output::Output};
use crate::{
    chain::{self, Chain, NewRecord, Terms},
    config::Listen,
    http::{Page, PublicRegistry, PublicRouter, Site, WellKnown},
    node::{Access, Node, NodeConfig, RouterPolicy},
};
use alloy::{
    primitives::{Address, U256},
    signers::local::PrivateKeySigner,
};
use ed25519_dalek::SigningKey;
use node_core::{
    Label, Name, RegistryId,
    registry::{Host, RegistryConfig, Routing},
};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// Chain id of development chains.
const CHAIN_ID: u64 = 31_337;
/// Ending of the demonstration's names.
const TLD: &str = "nectar";
/// The routers and the node to talk to.
const CAST: [&str; 3] = ["loach", "perch", "echo"];
/// Where the page is, then the chain and the other nodes, where nobody else is. Always the same: a page that knows the
/// last demonstration asks its chain where this one's is.
const PAGE_PORT: u16 = 7700;
/// How long the chain may take to come up.
const CHAIN_COMES_UP: Duration = Duration::from_secs(20);
/// Seconds that a commitment rests: enough to be seen, not enough to annoy.
const REST: u64 = 2;
/// What the faucet gives, in wei: a tenth of a coin.
const GIFT: u128 = 100_000_000_000_000_000;

pub(super) async fn demo(args: DemoArgs, out: Output) -> Result<(), Failure> {
    // Listened for from the beginning: the chain is a process of its own, and must not outlive a demonstration that is
    // told to end while it is still being set up.
    let ended = ended();
    tokio::pin!(ended);
    let mut show = tokio::select! {
        biased;
        result = &mut ended => return result,
        show = set_up(&args, &out) => show?,
    };
    let result = tokio::select! {
        biased;
        result = &mut ended => result,
        status = show.anvil.wait() => Err(Failure::failed(format!("the chain {}: start the demo again", ended_with(status)))),
    };
    for node in show.nodes {
        node.close().await;
    }
    // Only what was started here, by its own handle.
    let _ = show.anvil.kill().await;
    out.note(format_args!("everything has ended"));
    result
}

/// Resolves when somebody wants the end: by Ctrl-C, by `kill`, or by closing the terminal.
async fn ended() -> Result<(), Failure> {
    #[cfg(unix)]
    let ended = async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            result = super::serve::ended() => result,
            _ = hangup.recv() => Ok(()),
        }
    };
    #[cfg(not(unix))]
    let ended = super::serve::ended();
    ended
        .await
        .map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))
}

/// A demonstration that runs. Dropping it ends the chain at once.
struct Show {
    anvil: Child,
    nodes: [Node; 3],
}

/// How a process ended, in words.
fn ended_with(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("ended ({error})"),
    }
}

async fn set_up(args: &DemoArgs, out: &Output) -> Result<Show, Failure> {
    let (Some(page), Some(anvil), Some(contract)) = (&args.page, &args.anvil, &args.contract)
    else {
        return Err(Failure::usage(
            "--page, --anvil and --contract are needed: `cargo xtask demo`, in a clone of the sources, builds what they \
             name, and starts this with them",
        ));
    };
    let page = Page::load(page)?;
    if !contract.is_file() {
        return Err(Failure::usage(format!(
            "{}: there is no such file; it is made by building the contracts",
            contract.display()
        )));
    }
    let began = std::time::Instant::now();
    let [page_port, chain_port, perch_port, echo_port] = ports(args.port)?;
    out.note(format_args!("starting a chain"));
    let (chain, rpc) = start_chain(anvil, chain_port).await?;
    let [bank, loach, perch, echo] = wallets()?;

    out.note(format_args!("deploying the registry"));
    let terms = Terms {
        min_commitment_age: REST,
        max_commitment_age: 86_400,
        fee: U256::ZERO,
        treasury: bank.address(),
    };
    let contract = chain::deploy(&rpc, bank.clone(), contract, terms, &mut |_| {}).await?;
    let registry = RegistryConfig {
        id: RegistryId {
            chain_id: CHAIN_ID,
            contract: contract.into_array(),
        },
        tld: TLD.into(),
        rpcs: vec![rpc.as_str().into()],
        quorum: None,
    };

    out.note(format_args!("registering {}", CAST.join(", ")));
    let ports = [page_port, perch_port, echo_port];
    let stage = Stage { registry, ports };
    let (loach, perch, echo) = tokio::try_join!(
        stage.register(0, loach),
        stage.register(1, perch),
        stage.register(2, echo),
    )?;

    let routers = [&loach, &perch];
    let well_known = WellKnown {
        registries: vec![PublicRegistry::of(&stage.registry)],
        routers: routers.into_iter().filter_map(Actor::offered).collect(),
        echo: Some(format!("{}.{TLD}", CAST[2])),
        node: Some(format!("{}.{TLD}", CAST[0])),
        ..WellKnown::default()
    };
    let site = Site {
        page: Some(page),
        well_known,
        faucet: Some(chain::faucet(rpc.clone(), bank, GIFT)),
        ..Site::default()
    };
    let nodes = [
        Node::start(stage.router(&loach).site(site)).await?,
        Node::start(stage.router(&perch)).await?,
        Node::start(echo::serve(stage.node(&echo))).await?,
    ];
    echo::chat(&nodes[2]);

    let address = format!("http://localhost:{}", stage.ports[0]);
    out.result(
        format!(
            "\n  Open {address} in two different browsers, or in one and in a private window.\n\n\
             \x20 Each becomes a node: choose a name, and add the other's name as a contact.\n\
             \x20 {0}.{TLD} answers whatever you send it. The routers are {1}.{TLD} and {2}.{TLD};\n\
             \x20 the chain is at {rpc}, its registry at {contract}.\n\n\
             \x20 Ready after {3:.1} s. Ctrl-C ends everything.",
            CAST[2],
            CAST[0],
            CAST[1],
            began.elapsed().as_secs_f64(),
        ),
        &json!({ "page": address, "rpc": rpc, "contract": contract, "echo": format!("{}.{TLD}", CAST[2]) }),
    );
    if let Some(ready) = &args.ready {
        let facts = json!({ "page": address, "rpc": rpc, "contract": contract });
        write_whole(ready, &facts.to_string())?;
    }
    Ok(Show {
        anvil: chain,
        nodes,
    })
}

/// Where everybody is.
struct Stage {
    registry: RegistryConfig,
    ports: [u16; 3],
}

/// One of the demonstration's own nodes.
struct Actor {
    name: Name,
    key: SigningKey,
    address: SocketAddr,
    /// Its number as a router.
    index: Option<u32>,
}

impl Actor {
    fn offered(&self) -> Option<PublicRouter> {
        Some(PublicRouter {
            name: format!("{}.{TLD}", self.name.label),
            url: format!("ws://{}", self.address),
            index: self.index?,
        })
    }
}

impl Stage {
    /// Registers one of the cast, as anybody would: with transactions of its own wallet.
    async fn register(&self, at: usize, wallet: PrivateKeySigner) -> Result<Actor, Failure> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
        let key = SigningKey::from_bytes(&secret);
        let label = Label::new(CAST[at]).map_err(|error| Failure::failed(error.to_string()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[at]));
        let record = NewRecord {
            key: key.verifying_key().to_bytes(),
            routing: Some(Routing {
                host: Host::V4(Ipv4Addr::LOCALHOST),
                port: address.port(),
                ws: true,
                wss: false,
            }),
            routers: Vec::new(),
        };
        let owner: Address = wallet.address();
        let chain = Chain::connect(&self.registry, Some(wallet)).await?;
        chain.register(&label, owner, &record, &mut |_| {}).await?;
        let is_router = at < 2;
        let index = match is_router {
            true => Some(chain.enlist(&label, &mut |_| {}).await?),
            false => None,
        };
        let name = Name {
            registry: self.registry.id,
            label,
        };
        Ok(Actor {
            name,
            key,
            address,
            index,
        })
    }

    fn node(&self, actor: &Actor) -> NodeConfig {
        NodeConfig::named(actor.name.clone(), actor.key.clone())
            .registry(self.registry.clone())
            .listen_with(Listen::at(actor.address))
            .allow_guests(true)
            .allow_private(true)
    }

    fn router(&self, actor: &Actor) -> NodeConfig {
        self.node(actor).router(RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: true,
        })
    }
}

/// Starts anvil and waits until it answers.
async fn start_chain(program: &Path, port: u16) -> Result<(Child, String), Failure> {
    let mut anvil = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        // Blocks come by themselves, so that the chain's clock goes on, and at once when there is a transaction.
        .args(["--block-time", "2", "--mixed-mining", "--silent"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Failure::usage(format!(
                "{} cannot be started: {error}; `npm ci` in contracts installs it",
                program.display()
            ))
        })?;
    let rpc = format!("http://127.0.0.1:{port}");
    let up = async {
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = up => Ok((anvil, rpc)),
        status = anvil.wait() => Err(Failure::failed(format!("the chain {} before it was up", ended_with(status)))),
        () = tokio::time::sleep(CHAIN_COMES_UP) => {
            Err(Failure::failed(format!("the chain did not answer within {} s", CHAIN_COMES_UP.as_secs())))
        }
    }
}

/// The first of the accounts that every anvil gives money to. Their keys are public, and worth nothing elsewhere.
fn wallets() -> Result<[PrivateKeySigner; 4], Failure> {
    let wallet = |key: &str| {
        let wallet: Result<PrivateKeySigner, _> = key.parse();
        wallet.map_err(|error| Failure::failed(format!("a development key: {error}")))
    };
    Ok([
        wallet("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")?,
        wallet("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")?,
        wallet("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a")?,
        wallet("7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6")?,
    ])
}

/// Four ports: for the page the one that was asked for, or else the usual one; then those that follow; of all but the
/// first another one if it is taken.
fn ports(wanted: Option<u16>) -> Result<[u16; 4], Failure> {
    let usual = |port: u16| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) if port != 0 => Ok(port),
        _ => free_port(),
    };
    let page = match wanted {
        Some(0) => free_port()?,
        // Before anything is started.
        Some(page) => match TcpListener::bind((Ipv4Addr::LOCALHOST, page)) {
            Ok(_) => page,
            Err(error) => {
                return Err(Failure::failed(format!(
                    "the page cannot have port {page}: {error}; give another --port, or none"
                )));
            }
        },
        None => usual(PAGE_PORT)?,
    };
    let after = |distance| usual(page.checked_add(distance).unwrap_or_default());
    Ok([page, after(1)?, after(2)?, after(3)?])
}

fn free_port() -> Result<u16, Failure> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    taken
        .map(|address| address.port())
        .map_err(|error| Failure::failed(format!("no free port: {error}")))
}

/// Whoever waits for the file finds it whole.
fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("{}: {error}", path.display()));
    let beside = path.with_extension("partial");
    std::fs::write(&beside, text).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
