//! `nectar resolve`: what a node believes about a name, and why.

use super::{
    Context, Failure,
    args::ResolveArgs,
    record::{describe, describe_json},
};
use crate::{
    config::Config,
    resolve::{Clock, lookup},
};
use node_core::registry::{Freshness, Provenance, ResolveError, Resolver, ResolverLimits};
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) async fn resolve(context: Context, args: ResolveArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.name.registry.apply(&mut config);
    let name = config.parse_name(&args.name.name)?;
    let mut resolver = resolver(&config)?;
    let begun = Instant::now();
    let result = lookup(
        &mut resolver,
        &name,
        Freshness::NewerThan(Duration::ZERO),
        &Clock::new(),
    )
    .await?;
    let took = begun.elapsed();
    let resolved = result.map_err(|error| explain(error, &resolver))?;

    let shown = resolver.display(&name);
    let tld = args.name.name.split_once('.').map_or("", |(_, tld)| tld);
    let block = resolved
        .block
        .map(|block| format!(" at block {}", block.number))
        .unwrap_or_default();
    let millis = took.as_micros() as f64 / 1000.0;
    let text = format!(
        "{}\nknown       {}{block}, in {millis:.1} ms",
        describe(&shown, tld, &resolved.record),
        resolved.how
    );
    let mut value = describe_json(&shown, tld, &resolved.record);
    value["known"] = match resolved.how {
        Provenance::Pinned => json!({ "by": "pinned" }),
        Provenance::OneRpc => json!({ "by": "rpc", "agreeing": 1, "of": 1 }),
        Provenance::Quorum { agreeing, of } => {
            json!({ "by": "quorum", "agreeing": agreeing, "of": of })
        }
    };
    value["block"] = resolved.block.map(|block| block.number).into();
    value["milliseconds"] = millis.into();
    out.result(text, &value);
    Ok(())
}

/// A resolver of the configured registries and pinned records.
pub(super) fn resolver(config: &Config) -> Result<Resolver, Failure> {
    Resolver::new(
        config.registries.clone(),
        config.pinned.clone(),
        ResolverLimits::default(),
    )
    .map_err(|(name, error)| {
        Failure::usage(format!("the pinned record of {name} is invalid: {error}"))
    })
}

/// Adds how each endpoint fared, which is what an operator needs when the chain cannot be read.
fn explain(error: ResolveError, resolver: &Resolver) -> Failure {
    let mut failure = Failure::from(error);
    let endpoints = resolver.health();
    // Of a single one the error has said all.
    if failure.exit != 3 && endpoints.len() > 1 {
        for endpoint in endpoints {
            let detail = endpoint.detail.as_deref().unwrap_or("no complaint");
            failure.message.push_str(&format!(
                "\n  {}: {}, {detail}",
                endpoint.host(),
                endpoint.state
            ));
        }
    }
    failure
}
