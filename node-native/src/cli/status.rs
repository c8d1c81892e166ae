//! `nectar status`: asks the node on this machine.

use super::{Context, Failure, args::StatusArgs};
use crate::rpc;
use serde_json::Value;
use std::{fmt::Write, net::SocketAddr};

/// Largest status that is read, in bytes.
const STATUS_MAX: usize = 4 << 20;

pub(super) async fn status(context: Context, args: StatusArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let listen = config.listen.as_ref();
    let port = args
        .port
        .or(listen.map(|listen| listen.address.port()))
        .ok_or_else(|| {
            Failure::usage("which node? give --port, or a configuration with [listen]; a node that does not listen has no status to ask for")
        })?;
    let tls = args.tls || listen.is_some_and(|listen| listen.tls.is_some());
    let at = listen.map(|listen| listen.address.ip());
    let at = at.filter(|at| args.port.is_none() && !at.is_unspecified());
    let host = match at {
        // Certificates are for names.
        Some(at) if at.is_loopback() && !tls => SocketAddr::new(at, port).to_string(),
        _ => format!("localhost:{port}"),
    };
    let url = format!("{}://{host}/status", if tls { "https" } else { "http" });
    let failed = |error: reqwest::Error| {
        let remedy = match at {
            _ if !error.is_connect() => "see its log".into(),
            Some(at) if !at.is_loopback() => format!(
                "it listens at {at} alone, and tells its status only at a loopback address: let it listen at all addresses \
                 (0.0.0.0 or ::)"
            ),
            _ => "is it running, and is this its port?".into(),
        };
        Failure::failed(format!("the node at {url} does not answer: {remedy}"))
    };
    let mut response = rpc::http_client()?.get(&url).send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > STATUS_MAX {
            return Err(Failure::failed(format!(
                "{url} answers endlessly: this is no nectar node"
            )));
        }
    }
    if !response.status().is_success() {
        return Err(Failure::failed(format!(
            "{url} answers {}: this is no nectar node, or no status of one",
            response.status()
        )));
    }
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| Failure::failed(format!("{url} answers no JSON: this is no nectar node")))?;
    out.result(describe(&value), &value);
    Ok(())
}

/// A status for people. What is not in it is left out: the node may be of another version.
fn describe(status: &Value) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    macro_rules! line {
        ($($arg:tt)*) => { let _ = writeln!(text, $($arg)*); };
    }
    let count = |key: &str| status[key].as_u64().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    line!(
        "name        {}",
        status["name"].as_str().unwrap_or("none, a guest")
    );
    line!(
        "sessions    {} connected, {} parked",
        count("sessions"),
        count("parked")
    );
    line!(
        "inbound     {} connections, {} more in handshake, {} turned away so far",
        count("inbound"),
        count("half_open"),
        count("turned_away")
    );
    line!("circuits    {} ends", count("circuits"));
    line!(
        "bans        {} now; the protocol was broken {} times so far",
        count("banned"),
        count("misbehaved")
    );
    let refused = status["refused"].as_object().into_iter().flatten();
    let refused: Vec<_> = refused
        .filter_map(|(code, count)| Some((code, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(code, count)| format!("{count} {code}"))
        .collect();
    if !refused.is_empty() {
        line!("refused     {}", refused.join(", "));
    }
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    for score in list("scores") {
        line!(
            "score       {}: {} of 100 points to a ban",
            word(&score["who"]),
            score["points"]
        );
    }
    for peer in list("peers") {
        let router = match peer["router"] == true {
            true => "a router, ",
            false => "",
        };
        let detail = match word(&peer["detail"]) {
            none if none.is_empty() => none,
            detail => format!(", {detail}"),
        };
        let trip = peer["round_trip_us"]
            .as_f64()
            .map_or_else(String::new, |micros| {
                format!(", round trip {:.1} ms", micros / 1e3)
            });
        line!(
            "peer        {}: {router}{}{detail}{trip}",
            word(&peer["name"]),
            word(&peer["state"])
        );
    }
    for endpoint in list("endpoints") {
        line!(
            "rpc         {}: {}",
            word(&endpoint["host"]),
            word(&endpoint["state"])
        );
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_the_other_commands_do() {
        let status = serde_json::json!({
            "name": "a.nectar", "sessions": 2, "parked": 1, "inbound": 1, "half_open": 0, "circuits": 4,
            "banned": 3, "misbehaved": 5, "turned_away": 6,
            "refused": { "banned": 7, "request_rate": 12, "read_budget": 0 },
            "scores": [{ "who": "m.nectar", "points": 40 }, { "who": "203.0.113.0/24", "points": 20 }],
            "peers": [
                { "name": "r.nectar", "router": true, "state": "online", "detail": "direct", "round_trip_us": 2862 },
                { "name": "b.nectar", "router": false, "state": "connecting", "detail": "", "round_trip_us": null },
            ],
            "endpoints": [{ "host": "127.0.0.1:1", "state": "Ok" }],
        });
        assert_eq!(
            describe(&status),
            "name        a.nectar\n\
             sessions    2 connected, 1 parked\n\
             inbound     1 connections, 0 more in handshake, 6 turned away so far\n\
             circuits    4 ends\n\
             bans        3 now; the protocol was broken 5 times so far\n\
             refused     7 banned, 12 request_rate\n\
             score       m.nectar: 40 of 100 points to a ban\n\
             score       203.0.113.0/24: 20 of 100 points to a ban\n\
             peer        r.nectar: a router, online, direct, round trip 2.9 ms\n\
             peer        b.nectar: connecting\n\
             rpc         127.0.0.1:1: Ok"
        );
    }
}
