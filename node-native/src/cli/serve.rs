//! `nectar run` itself: a node until it is told to stop.

use super::{
    Context, Failure,
    ban::minutes,
    descriptors, echo,
    failure::trouble,
    own::{self, Fault, Own},
    run::enough_descriptors,
};
use crate::{
    chain::{self, Chain, ChainError},
    config::{Config, EXAMPLE},
    http::{Page, PublicRouter, Site, WellKnown},
    keystore::{self, PassphraseSource},
    node::{Code, Event, Node, NodeConfig, PeerState, Route},
    resolve::Clock,
};
use ed25519_dalek::SigningKey;
use node_core::{Name, wire::upgrade::PATH};
use serde_json::json;
use std::{collections::HashMap, fs::File};

pub(super) async fn serve(context: Context, echo: bool) -> Result<(), Failure> {
    let Context { config, out } = context;
    let site = site(&config).await?;
    let page = site.page.as_ref().map(|page| page.hash().to_owned());
    // Held until the end: two processes with one key would take each other's place at every router.
    let (identity, own, _lock) = match &config.node.name {
        Some(_) => {
            let (key, lock) = own_key(&config, "use another key (--key)")?;
            let own = Own::new(key.verifying_key().to_bytes());
            (NodeConfig::from_file(&config, key), Some(own), Some(lock))
        }
        None => (NodeConfig::guest_from_file(&config), None, None),
    };
    let mut node_config = identity.site(site);
    if echo {
        node_config = echo::serve(node_config);
    }
    if let Some(allowed) = descriptors::allowed()
        && let Err(too_few) = enough_descriptors(&config, allowed)
    {
        tracing::warn!("of files and sockets {too_few}");
    }
    let node = Node::start(node_config).await?;
    if echo {
        echo::chat(&node);
    }
    let mut events = node.events();
    let name = node
        .name()
        .map_or_else(|| "a guest".into(), |name| node.display_name(name));
    if config.registries.is_empty() {
        out.note(format_args!(
            "note: no registry is configured, by {} in this directory or --config: only pinned names are known",
            Config::FILE
        ));
    }
    if config.node.name.is_none() && config.listen.is_none() {
        out.note(format_args!(
            "note: without node.name (--name) and without [listen] nobody can reach this node; \
             {EXAMPLE} explains the settings of {}",
            Config::FILE
        ));
    }
    let tls = config
        .listen
        .as_ref()
        .is_some_and(|listen| listen.tls.is_some());
    let listens = node.local_addr().map(|address| address.to_string());
    let at = listens.as_ref().map_or_else(String::new, |address| {
        format!(" at {}://{address}", if tls { "wss" } else { "ws" })
    });
    out.result(
        match &page {
            Some(hash) => format!("{name} runs{at}, page {hash}"),
            None => format!("{name} runs{at}"),
        },
        &json!({ "name": node.name().map(|_| name.as_str()), "listen": listens, "tls": tls, "page": page }),
    );
    let ended = ended();
    tokio::pin!(ended);
    let mut said = Said::default();
    loop {
        tokio::select! {
            result = &mut ended => {
                result.map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))?;
                break;
            }
            Some(event) = events.next() => {
                // Whoever is out of reach is tried every few seconds, and comes to the same each time.
                if said.is_new(&event) {
                    tell(&node, own.as_ref(), &event);
                }
            }
        }
    }
    tracing::info!("saying goodbye");
    node.close().await;
    Ok(())
}

/// The key of the configured name, and a lock that keeps other processes from using it at the same time. `instead` is what
/// to do where one already does, other than stopping it.
pub(super) fn own_key(config: &Config, instead: &str) -> Result<(SigningKey, File), Failure> {
    let path = &config.node.key_file;
    let key = keystore::load_networking(path, &PassphraseSource::networking())?;
    let file = File::open(path)
        .map_err(|error| Failure::usage(format!("cannot open {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok((key, file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Failure::failed(format!(
            "{} is in use by a running node: a second one would take its place; stop it, or {instead}",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => {
            // Some file systems know no locks. The network itself settles who is the newer one.
            tracing::warn!(%error, "the key file cannot be locked");
            Ok((key, file))
        }
    }
}

/// What the port serves beside WebSockets.
pub(super) async fn site(config: &Config) -> Result<Site, Failure> {
    let Some(listen) = &config.listen else {
        return Ok(Site::default());
    };
    let mut routers = Vec::new();
    for name in &config.offer.routers {
        match offered(config, name).await {
            Ok(Some(router)) => routers.push(router),
            // Without a page here, whoever may want to know asks for it.
            Ok(None) if listen.page.is_none() => tracing::debug!(
                "{} is not told to pages of other origins: it has no address, or is not enlisted",
                config.display_name(name)
            ),
            Ok(None) => tracing::warn!(
                "{} is not offered to pages: it has no address, or is not enlisted (`nectar record enlist`)",
                config.display_name(name)
            ),
            Err(error) if listen.page.is_none() => tracing::debug!(
                "{} is not told to pages of other origins: {error}",
                config.display_name(name)
            ),
            Err(error) => tracing::warn!(
                "{} is not offered to pages: {error}",
                config.display_name(name)
            ),
        }
    }
    let faucet = match &config.faucet {
        None => None,
        Some(faucet) => {
            let rpc = config
                .registry(&faucet.tld)
                .and_then(|registry| registry.rpcs.first())
                .ok_or(ChainError::NoRpc)?;
            let wallet = keystore::load_wallet(&faucet.wallet_file, &PassphraseSource::wallet())?;
            Some(chain::faucet(rpc.to_string(), wallet, faucet.amount))
        }
    };
    Ok(Site {
        page: listen.page.as_deref().map(Page::load).transpose()?,
        well_known: WellKnown::of(config, routers),
        faucet,
        ..Site::default()
    })
}

async fn offered(config: &Config, name: &Name) -> Result<Option<PublicRouter>, ChainError> {
    let registry = config
        .registries
        .iter()
        .find(|registry| registry.id == name.registry)
        .ok_or(ChainError::NoRpc)?;
    let chain = Chain::connect(registry, None).await?;
    let Some(index) = chain.router_index(&name.label).await? else {
        return Ok(None);
    };
    let record = chain.record(&name.label).await?.check();
    let Some(routing) = record.map_err(ChainError::Record)?.routing else {
        return Ok(None);
    };
    let scheme = if routing.wss { "wss" } else { "ws" };
    Ok(Some(PublicRouter {
        name: config.display_name(name),
        url: format!("{scheme}://{}:{}{PATH}", routing.host, routing.port),
        index,
    }))
}

/// Why our routers are offline, as the log said last.
#[derive(Default)]
struct Said(HashMap<Name, Code>);

impl Said {
    /// Whether an event says more than the log does.
    fn is_new(&mut self, event: &Event) -> bool {
        match event {
            Event::Peer {
                name,
                router: true,
                state: PeerState::Offline { reason, .. },
            } => self.0.insert(name.clone(), *reason) != Some(*reason),
            Event::Peer {
                name,
                state: PeerState::Online { .. },
                ..
            } => {
                self.0.remove(name);
                true
            }
            _ => true,
        }
    }
}

/// Tells the operator what happens, with the remedy where there is one.
fn tell(node: &Node, own: Option<&Own>, event: &Event) {
    let shown = |name: &Name| node.display_name(name);
    let me = || node.name().map(shown).unwrap_or_default();
    match event {
        Event::Peer {
            name,
            router,
            state,
        } => {
            let who = shown(name);
            match state {
                PeerState::Connecting => tracing::debug!("{who}: connecting"),
                PeerState::Online {
                    route: Route::Direct,
                    ..
                } => tracing::info!(router, "{who} is online"),
                PeerState::Online {
                    route: Route::Via(hop),
                    ..
                } => tracing::info!("{who} is online, through {}", shown(hop)),
                PeerState::Interrupted { reason } => {
                    tracing::info!("{who} is interrupted: {reason}");
                }
                PeerState::Offline { reason, .. } => match own {
                    Some(own) if own::may_be_ours(*reason) => {
                        let (node, own) = (node.clone(), own.clone());
                        let (me, router, reason) = (me(), *router, *reason);
                        tokio::spawn(async move {
                            match own.fault(&node).await {
                                Some(fault) => {
                                    tracing::error!("{who} refuses this node: {}", fault.told(&me));
                                }
                                None => offline(&who, router, reason),
                            }
                        });
                    }
                    _ => offline(&who, *router, *reason),
                },
            }
        }
        Event::Reachable(true) => tracing::info!("others can reach this node"),
        Event::Reachable(false) => tracing::warn!("nobody can reach this node at the moment"),
        Event::Identity(code) => {
            let why = match code {
                Code::NameUnknown => Fault::Unregistered.told(&me()),
                Code::KeyMismatch => Fault::OtherKey.told(&me()),
                Code::Superseded => {
                    format!("{code}: one name, one node; stop the other one and start this again")
                }
                code => trouble(*code, &node.endpoints()).map_or_else(
                    || code.to_string(),
                    |trouble| format!("{trouble}; trying again within a minute"),
                ),
            };
            tracing::error!("this node's own name cannot be used: {why}");
        }
        Event::Misbehaved { name, code } => {
            let who = name.as_ref().map_or_else(|| "a stranger".into(), shown);
            tracing::warn!("{who} broke the protocol: {code}");
        }
        Event::Banned(ban) => {
            let who = node.display_subject(&ban.subject);
            let time = minutes(ban.until.distance(Clock::new().now().wall));
            match ban.code {
                None => tracing::warn!("{who} is banned by the operator for {time}"),
                Some(why) => tracing::warn!("{who} is banned for {time}: {why}"),
            }
        }
        Event::Lifted(subject) => {
            tracing::info!("{} is no longer banned", node.display_subject(subject));
        }
        Event::RecordChanged(resolved) => {
            tracing::info!("the record of {} changed", shown(&resolved.name));
        }
        Event::Latency { .. } | Event::Attempt { .. } => {}
    }
}

fn offline(who: &str, router: bool, reason: Code) {
    if router {
        tracing::warn!("the router {who} is offline: {reason}");
    } else {
        tracing::info!("{who} is offline: {reason}");
    }
}

#[cfg(unix)]
pub(super) async fn ended() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
pub(super) async fn ended() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
