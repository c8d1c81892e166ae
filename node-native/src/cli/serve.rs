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
    http::{FaucetFn, Page, PublicRouter, Site, WellKnown},
    keystore::{self, PassphraseSource},
    node::{Code, Event, Node, NodeConfig, PeerState, Route},
    resolve::Clock,
};
use ed25519_dalek::SigningKey;
use futures_util::{StreamExt, stream::FuturesUnordered};
use node_core::{
    Instant, Label, Name,
    node::{Ban, Subject},
    registry::RegistryConfig,
    time::take,
    wire::upgrade::PATH,
};
use serde_json::json;
use std::{collections::HashMap, fs::File, path::Path, time::Duration};
use tracing::Level;

/// How often a line about peers that are no routers of ours is logged: one a second, 20 at once; worst case 15 MB a day. Whoever
/// has a name comes and goes as often as he likes, and would push out of the journal what others have to say.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(20);

/// Time that an endpoint has to say where a router listens. 5 s: the node starts only then, and a router is to be back within a
/// minute. Worst case: as long for each router that is offered.
const OFFERED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn serve(context: Context, echo: bool) -> Result<(), Failure> {
    let Context { config, out } = context;
    let no_signals = |error| Failure::failed(format!("signals cannot be received: {error}"));
    // Whoever is asked for a passphrase is ended by a signal as ever.
    let key = match &config.node.name {
        Some(_) => Some(own_key(&config, "use another key (--key)")?),
        None => None,
    };
    let faucet = faucet(&config)?;
    // What follows may wait for others, and the first process of a container hears no signal that it does not listen for.
    let ended = ended();
    tokio::pin!(ended);
    let started = tokio::select! {
        started = start(&config, echo, key, faucet) => started?,
        result = &mut ended => {
            tracing::info!("told to end before the node runs");
            return result.map_err(no_signals);
        }
    };
    let Started {
        node,
        own,
        page,
        lock: _lock,
    } = started;
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
    let (mut said, clock) = (Said::new(node.name()), Clock::new());
    loop {
        tokio::select! {
            result = &mut ended => {
                result.map_err(no_signals)?;
                break;
            }
            Some(event) = events.next() => tell(&node, own.as_ref(), &event, &mut said, clock.now().mono),
        }
    }
    tracing::info!("saying goodbye");
    node.close().await;
    Ok(())
}

/// A node that runs.
struct Started {
    node: Node,
    own: Option<Own>,
    /// The page's hash.
    page: Option<String>,
    /// Held until the end: two processes with one key would take each other's place at every router.
    lock: Option<File>,
}

/// Starts the node, with its key and its faucet.
async fn start(
    config: &Config,
    echo: bool,
    key: Option<(SigningKey, File)>,
    faucet: Option<FaucetFn>,
) -> Result<Started, Failure> {
    let (identity, own, lock) = match key {
        Some((key, lock)) => {
            let own = Own::new(key.verifying_key().to_bytes());
            (NodeConfig::from_file(config, key), Some(own), Some(lock))
        }
        None => (NodeConfig::guest_from_file(config), None, None),
    };
    let site = site(config, faucet).await?;
    let page = site.page.as_ref().map(|page| page.hash().to_owned());
    let mut node_config = identity.site(site);
    if echo {
        node_config = echo::serve(node_config);
    }
    if let Some(allowed) = descriptors::allowed()
        && let Err(too_few) = enough_descriptors(config, allowed)
    {
        tracing::warn!("of files and sockets {too_few}");
    }
    let node = Node::start(node_config).await?;
    if echo {
        echo::chat(&node);
    }
    Ok(Started {
        node,
        own,
        page,
        lock,
    })
}

/// Whether a node runs with the key in this file.
pub(super) fn is_in_use(key_file: &Path) -> bool {
    // A lock that others may share keeps no other check from looking.
    let tried = File::open(key_file).map(|file| file.try_lock_shared());
    matches!(tried, Ok(Err(std::fs::TryLockError::WouldBlock)))
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
async fn site(config: &Config, faucet: Option<FaucetFn>) -> Result<Site, Failure> {
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
    Ok(Site {
        page: listen.page.as_deref().map(Page::load).transpose()?,
        well_known: WellKnown::of(config, routers),
        faucet,
        ..Site::default()
    })
}

/// Who gives test money away, if that is configured.
pub(super) fn faucet(config: &Config) -> Result<Option<FaucetFn>, Failure> {
    let Some(faucet) = &config.faucet else {
        return Ok(None);
    };
    let rpc = config
        .registry(&faucet.tld)
        .and_then(|registry| registry.rpcs.first())
        .ok_or(ChainError::NoRpc)?;
    let wallet = keystore::load_wallet(&faucet.wallet_file, &PassphraseSource::wallet())?;
    Ok(Some(chain::faucet(rpc.to_string(), wallet, faucet.amount)))
}

/// Where a router listens and its index, if it is one that others may list. One endpoint below the quorum is not believed: it
/// would send visitors where it likes.
async fn offered(config: &Config, name: &Name) -> Result<Option<PublicRouter>, ChainError> {
    let registry = config
        .registries
        .iter()
        .find(|registry| registry.id == name.registry)
        .ok_or(ChainError::NoRpc)?;
    let asked = registry.rpcs.iter().map(|rpc| {
        let only = RegistryConfig {
            rpcs: vec![rpc.clone()],
            ..registry.clone()
        };
        tokio::time::timeout(OFFERED_WITHIN, offered_by(only, &name.label))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut told, mut failure) = (Vec::new(), ChainError::NoRpc);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Ok(answer)) => {
                told.push(answer.clone());
                let alike = told.iter().filter(|other| **other == answer).count();
                if alike >= registry.effective_quorum().into() {
                    return Ok(answer.map(|(url, index)| PublicRouter {
                        name: config.display_name(name),
                        url,
                        index,
                    }));
                }
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = ChainError::Invalid(format!("nothing within {OFFERED_WITHIN:?}")),
        }
    }
    if told.is_empty() {
        return Err(failure);
    }
    let detail = "not the same at as many endpoints as the quorum says";
    Err(match failure {
        ChainError::NoRpc => ChainError::Invalid(detail.into()),
        other => ChainError::Invalid(format!("{detail}; from another {other}")),
    })
}

/// What one endpoint says: the address to dial, and the index.
async fn offered_by(
    registry: RegistryConfig,
    label: &Label,
) -> Result<Option<(String, u32)>, ChainError> {
    let chain = Chain::connect(&registry, None).await?;
    let Some(index) = chain.router_index(label).await? else {
        return Ok(None);
    };
    let record = chain.record(label).await?.check();
    let Some(routing) = record.map_err(ChainError::Record)?.routing else {
        return Ok(None);
    };
    let scheme = if routing.wss { "wss" } else { "ws" };
    let url = format!("{scheme}://{}:{}{PATH}", routing.host, routing.port);
    Ok(Some((url, index)))
}

/// What the log has said. It is not filled with what it says already, nor by strangers.
struct Said {
    me: Option<Name>,
    /// Our routers, and why each is offline, as was said last.
    routers: HashMap<Name, Option<Code>>,
    /// When there may be [`LINES`] about others again.
    full_at: Instant,
    /// How many lines about others were left out since the last line.
    left_out: u64,
}

impl Said {
    fn new(me: Option<&Name>) -> Self {
        Self {
            me: me.cloned(),
            routers: HashMap::new(),
            full_at: Instant::default(),
            left_out: 0,
        }
    }

    /// Whether the log gets the line about an event, and what that says beside. `heard` is whether the log has lines of its
    /// level at all; `all`, whether it is to leave out nothing.
    fn admit(&mut self, event: &Event, heard: bool, all: bool, now: Instant) -> Option<String> {
        // What is not heard changes what is new all the same.
        if !self.is_new(event) || !heard {
            return None;
        }
        if !(all || self.is_ours(event))
            && take(&mut self.full_at, LINE_INTERVAL, LINES, now).is_err()
        {
            self.left_out += 1;
            return None;
        }
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            left_out => format!(" (before it, {left_out} more about other peers were not logged)"),
        })
    }

    /// Whether an event says more than the log does. A router that is out of reach is tried every few seconds, and comes to
    /// the same each time.
    fn is_new(&mut self, event: &Event) -> bool {
        let Event::Peer {
            name,
            router,
            state,
        } = event
        else {
            return true;
        };
        if !router {
            self.routers.remove(name);
            return true;
        }
        let last = self.routers.entry(name.clone()).or_default();
        match state {
            // Whether it is this node's own fault has to be looked up each time, for the chain may not have answered.
            PeerState::Offline { reason, .. } if own::may_be_ours(*reason) => true,
            PeerState::Offline { reason, .. } => last.replace(*reason) != Some(*reason),
            PeerState::Online { .. } => {
                *last = None;
                true
            }
            PeerState::Connecting | PeerState::Interrupted { .. } => true,
        }
    }

    /// Whether an event is about this node, its routers, or what its operator did.
    fn is_ours(&self, event: &Event) -> bool {
        let name = match event {
            Event::Peer { router, .. } => return *router,
            Event::Misbehaved { name, .. } => name.as_ref(),
            Event::Banned(Ban { code: None, .. }) => return true,
            Event::Banned(Ban { subject, .. }) | Event::Lifted(subject) => match subject {
                Subject::Name(name) => Some(name),
                Subject::Group(_) => None,
            },
            Event::RecordChanged(resolved) => Some(&resolved.name),
            Event::Reachable(_)
            | Event::Identity(_)
            | Event::Latency { .. }
            | Event::Attempt { .. } => return true,
        };
        name.is_some_and(|name| self.me.as_ref() == Some(name) || self.routers.contains_key(name))
    }
}

/// Tells the operator what happens, unless too much does.
fn tell(node: &Node, own: Option<&Own>, event: &Event, said: &mut Said, now: Instant) {
    let Some((level, line)) = line(node, event) else {
        return;
    };
    let doubt = own.filter(|_| {
        matches!(event, Event::Peer { state: PeerState::Offline { reason, .. }, .. } if own::may_be_ours(*reason))
    });
    let loudest = doubt.map_or(level, |_| Level::ERROR);
    let Some(more) = said.admit(event, is_heard(loudest), is_heard(Level::DEBUG), now) else {
        return;
    };
    match (doubt, event) {
        (Some(own), Event::Peer { name, .. }) => {
            let (node, own, who) = (node.clone(), own.clone(), node.display_name(name));
            tokio::spawn(async move {
                match own.fault(&node).await {
                    Some(fault) => {
                        let fault = fault.told(&me(&node));
                        log(
                            Level::ERROR,
                            &format!("{who} refuses this node: {fault}{more}"),
                        );
                    }
                    None => log(level, &format!("{line}{more}")),
                }
            });
        }
        _ => log(level, &format!("{line}{more}")),
    }
}

fn me(node: &Node) -> String {
    node.name()
        .map(|name| node.display_name(name))
        .unwrap_or_default()
}

/// What is to be said about an event, with the remedy where there is one.
fn line(node: &Node, event: &Event) -> Option<(Level, String)> {
    let shown = |name: &Name| node.display_name(name);
    Some(match event {
        Event::Peer {
            name,
            router,
            state,
        } => {
            let who = match router {
                true => format!("the router {}", shown(name)),
                false => shown(name),
            };
            match state {
                PeerState::Connecting => (Level::DEBUG, format!("{who}: connecting")),
                PeerState::Online {
                    route: Route::Direct,
                    ..
                } => (Level::INFO, format!("{who} is online")),
                PeerState::Online {
                    route: Route::Via(hop),
                    ..
                } => (
                    Level::INFO,
                    format!("{who} is online, through {}", shown(hop)),
                ),
                PeerState::Interrupted { reason } => {
                    (Level::INFO, format!("{who} is interrupted: {reason}"))
                }
                PeerState::Offline { reason, .. } => {
                    let level = if *router { Level::WARN } else { Level::INFO };
                    (level, format!("{who} is offline: {reason}"))
                }
            }
        }
        Event::Reachable(true) => (Level::INFO, "others can reach this node".into()),
        Event::Reachable(false) => (
            Level::WARN,
            "nobody can reach this node at the moment".into(),
        ),
        Event::Identity(code) => {
            let why = match code {
                Code::NameUnknown => Fault::Unregistered.told(&me(node)),
                Code::KeyMismatch => Fault::OtherKey.told(&me(node)),
                Code::Superseded => {
                    format!("{code}: one name, one node; stop the other one and start this again")
                }
                code => trouble(*code, &node.endpoints()).map_or_else(
                    || code.to_string(),
                    |trouble| format!("{trouble}; trying again within a minute"),
                ),
            };
            (
                Level::ERROR,
                format!("this node's own name cannot be used: {why}"),
            )
        }
        Event::Misbehaved { name, code } => {
            let who = name.as_ref().map_or_else(|| "a stranger".into(), shown);
            (Level::WARN, format!("{who} broke the protocol: {code}"))
        }
        Event::Banned(ban) => {
            let who = node.display_subject(&ban.subject);
            let time = minutes(ban.until.distance(Clock::new().now().wall));
            let line = match ban.code {
                None => format!("{who} is banned by the operator for {time}"),
                Some(why) => format!("{who} is banned for {time}: {why}"),
            };
            (Level::WARN, line)
        }
        Event::Lifted(subject) => {
            let who = node.display_subject(subject);
            (Level::INFO, format!("{who} is no longer banned"))
        }
        Event::RecordChanged(resolved) => {
            let who = shown(&resolved.name);
            (Level::INFO, format!("the record of {who} changed"))
        }
        Event::Latency { .. } | Event::Attempt { .. } => return None,
    })
}

/// Whether the log has lines of this level about peers.
fn is_heard(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        Level::INFO => tracing::enabled!(Level::INFO),
        _ => tracing::enabled!(Level::DEBUG),
    }
}

fn log(level: Level, line: &str) {
    match level {
        Level::ERROR => tracing::error!("{line}"),
        Level::WARN => tracing::warn!("{line}"),
        Level::INFO => tracing::info!("{line}"),
        _ => tracing::debug!("{line}"),
    }
}

/// Resolves when somebody wants the end: by `kill`, which is listened for from now on, or by Ctrl-C, from the first poll on.
#[cfg(unix)]
pub(super) fn ended() -> impl Future<Output = std::io::Result<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = signal(SignalKind::terminate());
    async {
        let mut terminate = terminate?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
}

#[cfg(not(unix))]
pub(super) async fn ended() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;
    use node_core::{RegistryId, Timestamp};

    fn name(label: &str) -> Name {
        Name {
            registry: RegistryId {
                chain_id: 1,
                contract: [1; 20],
            },
            label: Label::new(label).unwrap(),
        }
    }

    fn peer(label: &str, router: bool, state: PeerState) -> Event {
        Event::Peer {
            name: name(label),
            router,
            state,
        }
    }

    fn breach(label: &str) -> Event {
        Event::Misbehaved {
            name: Some(name(label)),
            code: Code::Malformed,
        }
    }

    fn banned(label: &str, code: Option<Code>) -> Event {
        Event::Banned(Ban {
            subject: Subject::Name(name(label)),
            until: Timestamp(0),
            code,
        })
    }

    const OFFLINE: PeerState = PeerState::Offline {
        reason: Code::GoingAway,
        retry: None,
    };
    const INTERRUPTED: PeerState = PeerState::Interrupted {
        reason: Code::GoingAway,
    };

    #[test]
    fn strangers_have_twenty_lines_and_one_a_second_whatever_they_do_and_the_rest_is_counted() {
        let mut said = Said::new(Some(&name("ourselves")));
        let mut tell = |event: &Event, seconds| {
            let now = Instant::default() + Duration::from_secs(seconds);
            said.admit(event, true, false, now)
        };
        let all = [
            peer("mallory", false, OFFLINE),
            peer("mordred", false, INTERRUPTED),
            breach("mallory"),
            banned("mallory", Some(Code::Malformed)),
            Event::Lifted(Subject::Group(1)),
        ];
        let told = all.iter().cycle().take(143).map(|event| tell(event, 0));
        assert_eq!(told.filter(Option::is_some).count(), 20);
        assert_eq!(
            tell(&all[0], 1).unwrap(),
            " (before it, 123 more about other peers were not logged)"
        );
        assert_eq!(tell(&all[0], 1), None);
        assert_eq!(
            tell(&Event::Reachable(true), 1).unwrap(),
            " (before it, 1 more about other peers were not logged)"
        );
        let told = all.iter().cycle().take(100).map(|event| tell(event, 60));
        assert_eq!(told.filter(Option::is_some).count(), 20);
    }

    #[test]
    fn what_is_about_this_node_its_routers_or_its_operator_is_always_told() {
        let mut said = Said::new(Some(&name("ourselves")));
        let mut tell = |event: &Event| said.admit(event, true, false, Instant::default());
        while tell(&breach("mallory")).is_some() {}
        assert!(tell(&breach("rho")).is_none(), "not known to be a router");
        for _ in 0..50 {
            for event in [
                peer("rho", true, INTERRUPTED),
                breach("rho"),
                banned("rho", Some(Code::Malformed)),
                Event::Lifted(Subject::Name(name("rho"))),
                breach("ourselves"),
                banned("mallory", None),
                Event::Reachable(false),
                Event::Identity(Code::Superseded),
            ] {
                assert!(tell(&event).is_some(), "{event:?}");
            }
        }
        assert!(tell(&peer("rho", true, OFFLINE)).is_some());
        assert!(tell(&peer("rho", true, OFFLINE)).is_none(), "said already");
        assert!(tell(&peer("rho", false, OFFLINE)).is_none(), "no longer");
        assert!(tell(&breach("rho")).is_none());
    }

    #[test]
    fn who_wants_to_hear_all_does_and_what_nobody_hears_takes_no_place() {
        let mut said = Said::new(None);
        let gone = peer("mallory", false, OFFLINE);
        let now = Instant::default();
        for _ in 0..1000 {
            assert_eq!(said.admit(&gone, false, false, now), None);
        }
        for _ in 0..1000 {
            assert_eq!(said.admit(&gone, true, true, now), Some(String::new()));
        }
        let told = (0..1000).filter(|_| said.admit(&gone, true, false, now).is_some());
        assert_eq!(told.count(), 20);
    }
}
