//! `nectar ping`: whether a peer is there, and, with `--explain`, what happens on the way.

use super::{Context, Failure, PingArgs, talk::Caller};
use crate::node::{Event, Name, Node, NodeError, PeerState, Resolved, Route};
use node_core::registry::Provenance;
use serde_json::{Value, json};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

pub(super) async fn ping(context: Context, args: PingArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.caller.registry.apply(&mut config);
    let to = config.parse_name(&args.name)?;
    let caller = Caller::start(config, &args.caller).await?;
    let mut report = Report::default();
    let result = match measure(&caller.node, &to, &args, &mut report).await {
        Err(Trouble::Peer(error)) => Err(caller.failure(error, &to).await),
        Err(Trouble::Chain(failure)) => Err(failure),
        Ok(()) => Ok(()),
    };
    caller.node.close().await;
    if let Err(failure) = result {
        // What went well until then is what explains the failure.
        if args.explain {
            out.note(format_args!("{}", report.text.trim_end()));
        }
        return Err(failure);
    }
    out.result(report.text.trim_end(), &report.value);
    Ok(())
}

/// Where it failed.
enum Trouble {
    /// The name could not be resolved.
    Chain(Failure),
    /// The peer, or what lies between.
    Peer(NodeError),
}

#[derive(Default)]
struct Report {
    text: String,
    value: Value,
}

impl Report {
    fn line(&mut self, what: &str, text: impl std::fmt::Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{what:<12}{text}");
    }
}

async fn measure(
    node: &Node,
    to: &Name,
    args: &PingArgs,
    report: &mut Report,
) -> Result<(), Trouble> {
    report.value = json!({ "name": args.name });
    let mut events = node.events();
    if args.explain {
        let begun = Instant::now();
        let resolved = node.resolve(to, true).await;
        match &resolved {
            Ok(resolved) => report.resolved(node, resolved, begun.elapsed()),
            Err(error) => {
                let after = millis(begun.elapsed());
                report.line("resolved", format_args!("no: {error}, after {after}"));
            }
        }
        resolved.map_err(|error| Trouble::Chain(error.into()))?;
    }
    let begun = Instant::now();
    let connected = node.connect(to).await;
    if args.explain {
        report.value["attempts"] = json!([]);
        while let Some(event) = events.try_next() {
            report.attempt(node, to, &event);
        }
        report.connected(node, to, &connected, begun.elapsed());
    }
    connected.map_err(Trouble::Peer)?;
    let mut times = Vec::with_capacity(args.count as usize);
    for _ in 0..args.count {
        times.push(node.ping(to).await.map_err(Trouble::Peer)?);
    }
    report.round_trips(&times);
    Ok(())
}

impl Report {
    fn resolved(&mut self, node: &Node, resolved: &Resolved, took: Duration) {
        let block = resolved
            .block
            .map(|block| format!(" at block {}", block.number))
            .unwrap_or_default();
        self.line(
            "resolved",
            format_args!("{}{block}, in {}", resolved.how, millis(took)),
        );
        let record = &resolved.record;
        let reach = match &record.routing {
            Some(routing) => format!("at {routing}"),
            None if record.routers.is_empty() => "nowhere: it can only call".into(),
            None => {
                let routers = record.routers.iter().map(|label| {
                    node.display_name(&Name {
                        registry: resolved.name.registry,
                        label: label.clone(),
                    })
                });
                format!("through {}", routers.collect::<Vec<_>>().join(", "))
            }
        };
        self.line("reached", &reach);
        self.value["resolved"] = json!({
            "by": match resolved.how {
                Provenance::Pinned => "pinned",
                Provenance::OneRpc => "rpc",
                Provenance::Quorum { .. } => "quorum",
            },
            "block": resolved.block.map(|block| block.number),
            "reached": reach,
            "milliseconds": took.as_secs_f64() * 1e3,
        });
    }

    fn attempt(&mut self, node: &Node, to: &Name, event: &Event) {
        let Event::Attempt {
            name,
            route,
            result,
            took,
        } = event
        else {
            return;
        };
        let over = match route {
            Route::Direct if name == to => "direct".to_owned(),
            Route::Direct => format!("to router {}", node.display_name(name)),
            Route::Via(router) => format!("via {}", node.display_name(router)),
        };
        match result {
            Ok(()) => self.line("route", format_args!("{over}: open in {}", millis(*took))),
            Err(code) => self.line(
                "route",
                format_args!("{over}: {code}, in {}", millis(*took)),
            ),
        }
        if let Some(attempts) = self.value["attempts"].as_array_mut() {
            attempts.push(json!({
                "route": over,
                "error": result.err().map(|code| code.name()),
                "milliseconds": took.as_secs_f64() * 1e3,
            }));
        }
    }

    fn connected(
        &mut self,
        node: &Node,
        to: &Name,
        connected: &Result<(), NodeError>,
        took: Duration,
    ) {
        if let Err(error) = connected {
            return self.line(
                "connected",
                format_args!("no: {error}, after {}", millis(took)),
            );
        }
        let peer = node.peers().into_iter().find(|peer| peer.name == *to);
        if let Some(PeerState::Online { route, agent, .. }) = peer.map(|peer| peer.state) {
            let route = match route {
                Route::Direct => "direct".to_owned(),
                Route::Via(router) => format!("via {}", node.display_name(&router)),
            };
            let agent = if agent.is_empty() {
                "unknown software"
            } else {
                &*agent
            };
            self.line(
                "connected",
                format_args!("{route}, to {agent}, in {}", millis(took)),
            );
            self.value["connected"] =
                json!({ "route": route, "agent": agent, "milliseconds": took.as_secs_f64() * 1e3 });
        }
    }

    fn round_trips(&mut self, times: &[Duration]) {
        let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) else {
            return;
        };
        self.line(
            "round trip",
            format_args!(
                "{} at best, {} at worst, {} times",
                millis(*least),
                millis(*most),
                times.len()
            ),
        );
        let all: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        self.value["round_trip_ms"] = all.into();
    }
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
