//! `nectar deploy` and `nectar fund`: what a chain of one's own begins with.

use super::{
    Failure,
    args::{DeployArgs, FundArgs},
    output::Output,
};
use crate::chain::{self, Account, Terms};
use alloy::primitives::{U256, utils::format_ether};
use serde_json::json;

pub(super) async fn deploy(args: DeployArgs, out: Output) -> Result<(), Failure> {
    if args.min_age >= args.max_age {
        return Err(Failure::usage("--min-age must be less than --max-age"));
    }
    let terms = Terms {
        min_commitment_age: args.min_age,
        max_commitment_age: args.max_age,
        fee: U256::from(args.fee),
        treasury: args
            .treasury
            .map(|treasury| Account::from(treasury.0))
            .unwrap_or_default(),
    };
    let wallet = args.wallet.load()?;
    let mut progress = |step| out.note(format_args!("{step}"));
    let contract = chain::deploy(&args.rpc, wallet, &args.artifact, terms, &mut progress).await?;
    out.result(
        format_args!("{contract}"),
        &json!({ "contract": contract.to_string() }),
    );
    Ok(())
}

pub(super) async fn fund(args: FundArgs, out: Output) -> Result<(), Failure> {
    let (to, wei) = (Account::from(args.to.0), U256::from(args.wei));
    let mined = chain::fund(&args.rpc, args.wallet.load()?, to, wei).await?;
    out.result(
        format_args!("{} ether sent to {to}", format_ether(wei)),
        &json!({ "to": to.to_string(), "wei": wei.to_string(), "transaction": mined.transaction.to_string() }),
    );
    Ok(())
}
