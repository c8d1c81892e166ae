//! `nectar run`.

use super::{Context, Failure, RunArgs, descriptors, resolve::resolver, serve};
use crate::{
    bans::BanFile,
    chain::shown,
    config::Config,
    http::{EXCUSES, Page},
    keystore::{self, PassphraseSource},
    node::FETCHES,
    resolve::{Clock, lookup, probe},
    stream::{AHEAD, SOCKET_BUFFERS},
    tls::ServerTls,
};
use node_core::{
    Code, Limits, Name,
    node::{Access, DRAINING},
    registry::{Freshness, Resolver, ResolverLimits},
    session::STREAM_BUFFER,
};
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

pub(super) async fn run(context: Context, args: RunArgs) -> Result<(), Failure> {
    if !args.check {
        return serve::serve(context, args.echo).await;
    }
    let Context { config, out } = context;
    let report = check(&config).await?;
    out.result(report.text, &report.value);
    match report.problems {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} of the checks failed"))),
    }
}

/// What TLS holds of one connection, in bytes: one record as it came, the same opened, and what waits to be written.
const TLS_BUFFERS: u64 = 100 << 10;

struct Report {
    text: String,
    value: Value,
    problems: usize,
}

/// Opens everything that running would open, except the port.
async fn check(config: &Config) -> Result<Report, Failure> {
    let mut text = String::new();
    let mut problems = 0;
    // Writing to a String does not fail.
    macro_rules! line {
        ($($arg:tt)*) => { let _ = writeln!(text, $($arg)*); };
    }
    // A guest makes a throw-away key for every handshake.
    let key = match &config.node.name {
        None => None,
        Some(_) => {
            let passphrase = PassphraseSource::networking();
            let key = keystore::load_networking(&config.node.key_file, &passphrase)?;
            Some(key.verifying_key().to_bytes())
        }
    };
    let name = config
        .node
        .name
        .as_ref()
        .map(|name| config.display_name(name));
    line!("name        {}", name.as_deref().unwrap_or("none, a guest"));
    if let Some(key) = key {
        let file = config.node.key_file.display();
        line!("key         {} in {file}", hex::encode(key));
    }
    // No problem: whoever checks a changed configuration does so before the restart.
    let running = key.is_some() && serve::is_in_use(&config.node.key_file);
    if running {
        line!("running     with this key: start another node only when that one has ended");
    }
    if key.is_some() {
        let file = BanFile::new(&config.node.ban_file, &config.registries);
        let (bans, others) = file.read_all()?;
        line!("bans        {} in {}", bans.len(), file.path().display());
        if !others.is_empty() {
            let others = others.join(", ");
            line!(
                "            warning: of no registry that is configured, and not followed: {others}"
            );
        }
    }
    if let (Some(faucet), Some(_)) = (&config.faucet, serve::faucet(config)?) {
        line!("faucet      pays from {}", faucet.wallet_file.display());
    }
    let mut page_hash = None;
    match &config.listen {
        None => {
            line!("listens     no: an indirect node");
        }
        Some(listen) => {
            let scheme = if listen.tls.is_some() { "wss" } else { "ws" };
            line!("listens     at {scheme}://{}", listen.address);
            if let Some(files) = &listen.tls {
                ServerTls::load(files).map_err(|error| Failure::usage(error.to_string()))?;
            }
            if let Some(page) = &listen.page {
                let hash = Page::load(page)?.hash().to_owned();
                line!("page        {hash}");
                page_hash = Some(hash);
            }
            let hosts = if config.router.host == Access::Anyone {
                "whoever lists it"
            } else {
                "those on a list"
            };
            line!(
                "routes      for {hosts}; guests may{} call",
                if config.router.guests { "" } else { " not" }
            );
        }
    }
    let mut resolver = resolver(config)?;
    let mut endpoints = Vec::new();
    for registry in &config.registries {
        line!(
            "registry    .{} = {}, {} of {} must agree",
            registry.tld,
            registry.id,
            registry.effective_quorum(),
            registry.rpcs.len()
        );
        for probed in probe(&mut resolver, registry, &Clock::new()).await? {
            match probed.result {
                Ok(report) => {
                    line!(
                        "  rpc       {}: block {}, {} ms",
                        shown(&probed.url),
                        report.head,
                        report.took.as_millis()
                    );
                    endpoints.push(json!({ "url": shown(&probed.url), "head": report.head }));
                }
                Err(error) => {
                    problems += 1;
                    line!("  rpc       {}: {error}", shown(&probed.url));
                    endpoints
                        .push(json!({ "url": shown(&probed.url), "error": error.to_string() }));
                }
            }
        }
    }
    line!("pinned      {} names", config.pinned.len());
    if let (Some(own), Some(key)) = (&config.node.name, key) {
        match own_record(&mut resolver, own, key, config.listen.is_some()).await? {
            Ok(how) => {
                line!("record      fits, {how}");
            }
            Err(problem) => {
                problems += 1;
                line!("record      {problem}");
            }
        }
    }
    let descriptors = descriptors::allowed();
    if let Some(allowed) = descriptors {
        match enough_descriptors(config, allowed) {
            Ok(()) => {
                line!("files       {allowed} may be open, sockets included");
            }
            // Not a problem until so many come.
            Err(too_few) => {
                line!("files       warning: {too_few}");
            }
        }
    }
    let worst = worst_case(config);
    line!(
        "memory      at worst {} MiB for what peers may make us hold:",
        worst.total() >> 20
    );
    line!(
        "  sessions  {} MiB for {} at once",
        worst.sessions >> 20,
        sessions(&config.limits)
    );
    line!(
        "  parked    {} MiB for up to {} sessions between two connections",
        worst.parked >> 20,
        config.limits.parked_sessions
    );
    line!(
        "  circuits  {} MiB for what a router forwards",
        worst.circuits >> 20
    );
    line!(
        "  openings  {} MiB for {} unfinished handshakes",
        worst.handshakes >> 20,
        config.limits.half_open
    );
    line!(
        "  sockets   {} MiB for what {} connections read and write at once",
        worst.sockets >> 20,
        connections(config)
    );
    line!(
        "  records   {} MiB for what is known of {} names",
        worst.records >> 20,
        ResolverLimits::default().cache_entries
    );
    line!(
        "  standings {} KiB for what is remembered of {} names and as many address groups",
        worst.standings >> 10,
        config.limits.standings
    );
    text.truncate(text.trim_end().len());
    let value = json!({
        "name": name,
        "public_key": key.map(hex::encode),
        "running": running,
        "page": page_hash,
        "listen": config.listen.as_ref().map(|listen| listen.address.to_string()),
        "endpoints": endpoints,
        "pinned": config.pinned.len(),
        "descriptors": descriptors,
        "worst_case_bytes": { "sessions": worst.sessions, "parked": worst.parked, "circuits": worst.circuits, "handshakes": worst.handshakes, "sockets": worst.sockets, "records": worst.records, "standings": worst.standings, "total": worst.total() },
        "problems": problems,
    });
    Ok(Report {
        text,
        value,
        problems,
    })
}

/// Whether others would recognise this node: how its record is known, or what does not fit.
async fn own_record(
    resolver: &mut Resolver,
    name: &Name,
    key: [u8; 32],
    listens: bool,
) -> Result<Result<String, String>, Failure> {
    let fresh = Freshness::NewerThan(Duration::ZERO);
    let shown = resolver.display(name);
    let found = lookup(resolver, name, fresh, &Clock::new()).await?;
    Ok(match found {
        Err(error) if error.code == Code::NameUnknown => Err(format!(
            "{shown} is not registered: run `nectar register {shown}`"
        )),
        Err(error) => Err(format!("of {shown} cannot be read: {error}")),
        Ok(found) if found.record.key != key => Err(format!(
            "names another key, so nobody will believe this node: run `nectar record rotate {shown}`"
        )),
        Ok(found) if found.record.is_direct() && !listens => Err(format!(
            "has an address, but this node has no [listen]: add it, or run `nectar record update {shown} --router …`"
        )),
        Ok(found) => Ok(found.how.to_string()),
    })
}

/// Bytes that peers can make this node hold when all of them do their worst at once.
struct WorstCase {
    sessions: u64,
    parked: u64,
    circuits: u64,
    handshakes: u64,
    sockets: u64,
    records: u64,
    standings: u64,
}

impl WorstCase {
    const fn total(&self) -> u64 {
        self.sessions
            .saturating_add(self.parked)
            .saturating_add(self.circuits)
            .saturating_add(self.handshakes)
            .saturating_add(self.sockets)
            .saturating_add(self.records)
            .saturating_add(self.standings)
    }
}

/// Sessions that there can be at once, whoever dialled.
fn sessions(limits: &Limits) -> usize {
    limits.inbound_channels.saturating_add(dialled(limits))
}

/// Those that the node has dialled.
fn dialled(limits: &Limits) -> usize {
    limits
        .outbound_peers
        .saturating_add(limits.routers)
        .saturating_add(DRAINING)
}

/// TCP connections that there can be at once, whatever becomes of them.
fn connections(config: &Config) -> usize {
    let accepted = config
        .listen
        .as_ref()
        .map_or(0, |listen| listen.connections.saturating_add(EXCUSES));
    accepted.saturating_add(dialled(&config.limits))
}

/// Whether so many descriptors are enough for all connections that this configuration lets come.
pub(super) fn enough_descriptors(
    config: &Config,
    allowed: usize,
) -> Result<(), descriptors::TooFew> {
    let endpoints: usize = config
        .registries
        .iter()
        .map(|registry| registry.rpcs.len())
        .sum();
    descriptors::suffice(allowed, connections(config), endpoints * FETCHES)
}

fn worst_case(config: &Config) -> WorstCase {
    let limits = &config.limits;
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let count = wide(sessions(limits));
    // Per peer: one message assembled in each direction, the inbox, what is retained, answers that it does not read, and
    // every stream's window and what an application that answers has written to it.
    let session = wide(limits.message_bytes)
        .saturating_mul(2)
        .saturating_add(limits.inbox_bytes)
        .saturating_add(wide(limits.retained_bytes))
        .saturating_add(wide(limits.outbox_bytes))
        .saturating_add(
            wide(limits.streams)
                .saturating_mul(limits.stream_window.saturating_add(wide(STREAM_BUFFER))),
        );
    let circuits = wide(limits.circuits)
        .saturating_mul(limits.circuit_window)
        .saturating_mul(2);
    let tls = config
        .listen
        .as_ref()
        .is_some_and(|listen| listen.tls.is_some());
    let socket = wide(SOCKET_BUFFERS).saturating_add(if tls { TLS_BUFFERS } else { 0 });
    // Before it is a WebSocket: what is read ahead, a head in a buffer that has just grown, and answers that wait.
    let asking = config.listen.as_ref().map_or(0, |listen| {
        wide(AHEAD).saturating_add(wide(listen.header_bytes).saturating_mul(3))
    });
    let asking = asking.saturating_add(if tls { TLS_BUFFERS } else { 0 });
    let accepted = wide(connections(config) - dialled(limits));
    let parked = wide(limits.parked_bytes);
    WorstCase {
        sessions: count.saturating_mul(session),
        // Counted in steps of a quarter.
        parked: parked.saturating_add(parked / 4),
        circuits: count.saturating_mul(circuits),
        handshakes: wide(limits.half_open)
            .saturating_mul(wide(limits.held_before_admission) + 4096),
        sockets: accepted
            .saturating_mul(socket.max(asking))
            .saturating_add(wide(dialled(limits)).saturating_mul(socket)),
        records: wide(ResolverLimits::default().cache_entries).saturating_mul(1024),
        standings: wide(limits.standings).saturating_mul(512),
    }
}
