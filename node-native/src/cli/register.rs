//! `nectar register`.

use super::{Context, Failure, args::RegisterArgs};
use crate::chain::{Mined, NewRecord};
use serde_json::{Value, json};

pub(super) async fn register(context: Context, args: RegisterArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.registry.apply(&mut config);
    let name = config.parse_name(&args.name)?;
    let record = NewRecord {
        key: args.key.or_configured(&config)?,
        routing: args.reach.routing(),
        routers: args.reach.routers(&config, &name)?,
    };
    let wallet = args.wallet.load()?;
    let chain = super::record::connect(&config, &name, Some(wallet)).await?;
    let chain = args.fee.apply(chain);
    let owner = args.owner.map_or(chain.account(), |owner| owner.0.into());
    if args.enlist && owner != chain.account() {
        return Err(Failure::usage(
            "only the owner can enlist a name: leave --enlist to the new owner",
        ));
    }
    if record.routing.is_none() && record.routers.is_empty() {
        out.note(format_args!(
            "note: without --host and --router, {} can call but not be called",
            args.name
        ));
    }
    let mut progress = |step: crate::chain::Progress| out.note(format_args!("{step}"));
    let mined = chain
        .register(&name.label, owner, &record, &mut progress)
        .await?;
    let index = match args.enlist {
        true => Some(chain.enlist(&name.label, &mut progress).await?),
        false => None,
    };
    let mut value = json!({
        "name": config.display_name(&name),
        "owner": owner.to_string(),
        "public_key": hex::encode(record.key),
        "router_index": index,
    });
    add_mined(&mut value, &mined);
    out.result(
        format_args!("{} is registered to {owner}", config.display_name(&name)),
        &value,
    );
    Ok(())
}

/// Adds the transaction to a result.
pub(super) fn add_mined(value: &mut Value, mined: &Mined) {
    if let Value::Object(map) = value {
        map.insert("transaction".into(), mined.transaction.to_string().into());
        map.insert("block".into(), mined.block.into());
        map.insert("gas".into(), mined.gas.into());
    }
}
