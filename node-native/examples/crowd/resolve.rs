//! Look-ups of records that are known.

use crate::{
    Extent,
    common::{DIRECT, Report, caller, config, name, record, registry, run},
};
use nectar_sim::Chain;
use node_core::{
    Name, Now,
    registry::{Cause, Freshness, Lookup, Record, Resolver, ResolverLimits, ResolverOutput},
};
use node_native::{node::Node, resolve::Clock};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Names that are known, and looked up in turn.
const NAMES: usize = 1000;
/// Look-ups between two looks at the clock.
const BATCH: usize = 10_000;
const ENDPOINT: &str = "http://127.0.0.1:1";

pub(crate) fn measure(extent: Extent) {
    let report = Report(DIRECT);
    let time = Duration::from_secs(if extent.quick { 1 } else { 3 });
    let records: Vec<(Name, Record)> = (0..NAMES)
        .map(|index| {
            let label = caller(index);
            (name(&label), record(&label, None, &["router"]))
        })
        .collect();
    let names: Vec<Name> = records.iter().map(|(name, _)| name.clone()).collect();

    let registries = vec![registry()];
    let pinned = Resolver::new(registries, records.clone(), ResolverLimits::default()).unwrap();
    let rate = look_up(pinned, &names, Clock::new().now(), time);
    report.figure("resolve.pinned", rate, "1/s");

    let now = Clock::new().now();
    let rate = look_up(from_chain(&records, now), &names, now, time);
    report.figure("resolve.cached", rate, "1/s");

    run(async move {
        let config = records
            .into_iter()
            .fold(config("asking"), |config, (name, record)| {
                config.pin(name, record)
            });
        let node = Node::start(config.calls_only()).await.unwrap();
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < time {
            for name in names.iter().cycle().take(BATCH) {
                black_box(node.resolve(name, false).await.unwrap());
            }
            count += BATCH;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        report.figure("resolve.node", rate, "1/s");
    });
}

/// Look-ups per second, at a moment at which all are fresh.
fn look_up(mut resolver: Resolver, names: &[Name], now: Now, time: Duration) -> f64 {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < time {
        for name in names.iter().cycle().take(BATCH) {
            let known = resolver.lookup(black_box(name), Freshness::Cached, Cause::Own, now);
            assert!(matches!(black_box(known), Lookup::Ready(Ok(_))));
        }
        count += BATCH;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// A resolver that has read these records from a chain.
fn from_chain(records: &[(Name, Record)], now: Now) -> Resolver {
    let mut registry = registry();
    registry.rpcs.push(ENDPOINT.into());
    let seconds = now.wall.0 / 1000;
    let mut chain = Chain::new(registry.id.chain_id, registry.id.contract, seconds - 1);
    for (name, record) in records {
        chain.register(name.label.as_str(), record.into());
    }
    chain.mine(seconds);
    let limits = ResolverLimits::default();
    let mut resolver = Resolver::new(vec![registry], Vec::new(), limits).unwrap();
    for (name, _) in records {
        resolver.lookup(name, Freshness::Cached, Cause::Own, now);
        while let Some(output) = resolver.poll_output() {
            if let ResolverOutput::Fetch { id, body, .. } = output {
                let answer = chain.answer(&body);
                resolver.handle_answer(id, Ok(&answer), now);
            }
        }
    }
    resolver
}
