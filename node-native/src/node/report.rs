//! What a running node tells whoever runs it: metrics and a status.

use super::{PeerState, Route, driver::Shared};
use crate::metrics::Labelled;
use std::sync::{Arc, Weak};

/// Most names, and most networks, whose scores a status tells.
const SCORES: usize = 32;

/// Lets the site show what the node does.
pub(super) fn observe(site: &mut crate::http::Site, shared: &Weak<Shared>) {
    let node = shared.clone();
    site.status.get_or_insert_with(|| {
        Arc::new(move || {
            node.upgrade()
                .as_ref()
                .map_or(serde_json::Value::Null, status)
        })
    });
    let node = shared.clone();
    site.metrics.observe_by(
        "nectar_refused_total",
        "Times that others were refused or sent away, by the error that they were told.",
        "code",
        move || {
            node.upgrade()
                .map_or_else(Vec::new, |shared| refused(&shared))
        },
    );
    let gauge = |name, help, read: fn(&Shared) -> usize| {
        let node = shared.clone();
        site.metrics.observe(name, help, move || {
            let count = node.upgrade().map_or(0, |shared| read(&shared));
            i64::try_from(count).unwrap_or(i64::MAX)
        });
    };
    gauge(
        "nectar_banned",
        "Names and networks that are banned now.",
        |shared| shared.node.bans(shared.clock.now()).len(),
    );
    gauge(
        "nectar_scored",
        "Names and networks that have points to a ban now.",
        |shared| shared.node.scores(usize::MAX, shared.clock.now()).len(),
    );
    gauge(
        "nectar_sessions",
        "Sessions of all kinds that are connected.",
        |shared| shared.node.counts().sessions,
    );
    gauge(
        "nectar_parked",
        "Sessions that wait for another connection.",
        |shared| shared.node.counts().parked,
    );
    gauge(
        "nectar_inbound",
        "Inbound connections that are authenticated.",
        |shared| shared.node.counts().inbound,
    );
    gauge(
        "nectar_half_open",
        "Inbound connections in handshake.",
        |shared| shared.node.counts().half_open,
    );
    gauge(
        "nectar_circuits",
        "Ends of circuits, two for each that passes through.",
        |shared| shared.node.counts().circuits,
    );
}

/// How often others were refused, by the name of the error.
fn refused(shared: &Shared) -> Labelled {
    let counts = shared.node.refused().into_iter();
    counts.map(|(code, count)| (code.name(), count)).collect()
}

/// What `nectar status` and `/status` show.
pub(super) fn status(shared: &Arc<Shared>) -> serde_json::Value {
    let node = &shared.node;
    let counts = node.counts();
    let peers: Vec<_> = node
        .peers(shared.clock.now().mono)
        .into_iter()
        .map(|peer| {
            let mut value = serde_json::json!({
                "name": node.display_name(&peer.name),
                "router": peer.router,
                "round_trip_us": peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            });
            let (state, detail) = match peer.state {
                PeerState::Connecting => ("connecting", String::new()),
                PeerState::Online { route: Route::Direct, .. } => ("online", "direct".into()),
                PeerState::Online { route: Route::Via(router), .. } => ("online", format!("via {}", node.display_name(&router))),
                PeerState::Interrupted { reason } => ("interrupted", reason.name().into()),
                PeerState::Offline { reason, .. } => ("offline", reason.name().into()),
            };
            value["state"] = state.into();
            value["detail"] = detail.into();
            value
        })
        .collect();
    let endpoints: Vec<_> = node
        .endpoints()
        .iter()
        .map(|endpoint| serde_json::json!({ "host": endpoint.host(), "state": format!("{:?}", endpoint.state) }))
        .collect();
    let refused: serde_json::Map<_, _> = refused(shared)
        .into_iter()
        .map(|(code, count)| (code.to_owned(), count.into()))
        .collect();
    let scores: Vec<_> = node
        .scores(SCORES, shared.clock.now())
        .into_iter()
        .map(|score| {
            let who = crate::bans::shown(&score.subject, &node.config().registries);
            serde_json::json!({ "who": who, "points": score.points })
        })
        .collect();
    serde_json::json!({
        "name": node.config().identity.name.as_ref().map(|name| node.display_name(name)),
        "direct": node.config().direct,
        "sessions": counts.sessions,
        "parked": counts.parked,
        "inbound": counts.inbound,
        "half_open": counts.half_open,
        "circuits": counts.circuits,
        "banned": node.bans(shared.clock.now()).len(),
        "misbehaved": shared.counted.misbehaved.get(),
        "turned_away": shared.counted.turned_away.get(),
        "refused": refused,
        "scores": scores,
        "peers": peers,
        "endpoints": endpoints,
    })
}
