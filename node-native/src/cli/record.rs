//! `nectar record`.

use super::{
    Context, Failure,
    args::{AccountArgs, ChangeArgs, ManagerArgs, NameArgs, RecordCommand, RotateArgs, UpdateArgs},
    output::Output,
    register::add_mined,
};
use crate::{
    chain::{Account, Chain, ChainError, Mined, NewRecord, Progress},
    config::Config,
};
use alloy::signers::local::PrivateKeySigner;
use node_core::{
    Name,
    registry::{OnchainRecord, Record},
};
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) async fn record(context: Context, command: RecordCommand) -> Result<(), Failure> {
    match command {
        RecordCommand::Show(args) => show(context, args).await,
        RecordCommand::Update(args) => update(context, args).await,
        RecordCommand::Rotate(args) => rotate(context, args).await,
        RecordCommand::Enlist(args) => enlist(context, args).await,
        RecordCommand::Manager(args) => manager(context, args).await,
        RecordCommand::Transfer(args) => transfer(context, args).await,
    }
}

/// The chain that a name lives on.
pub(super) async fn connect(
    config: &Config,
    name: &Name,
    wallet: Option<PrivateKeySigner>,
) -> Result<Chain, Failure> {
    let registry = config
        .registries
        .iter()
        .find(|registry| registry.id == name.registry)
        .ok_or(ChainError::NoRpc)?;
    Ok(Chain::connect(registry, wallet).await?)
}

async fn show(context: Context, args: NameArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.registry.apply(&mut config);
    let name = config.parse_name(&args.name)?;
    let chain = connect(&config, &name, None).await?;
    let onchain = chain.record(&name.label).await?;
    let router_index = chain.router_index(&name.label).await?;
    let tld = name_ending(&args.name);
    match onchain.clone().check() {
        Ok(record) => {
            let mut value = describe_json(&config.display_name(&name), tld, &record);
            value["router_index"] = router_index.into();
            let mut text = describe(&config.display_name(&name), tld, &record);
            if let Some(index) = router_index {
                let _ = write!(text, "\nenlisted    as router {index}");
            }
            out.result(text, &value);
        }
        // Its owner must see it to repair it, and nobody else may take it for usable.
        Err(problem) => out.result(
            format_args!(
                "name        {}\nowner       {}\nunusable    {problem}\nversion     {} of epoch {}",
                config.display_name(&name), account(&onchain.owner), onchain.version, onchain.epoch
            ),
            &json!({ "name": config.display_name(&name), "invalid": problem.to_string(), "owner": account(&onchain.owner),
                     "version": onchain.version, "epoch": onchain.epoch, "router_index": router_index }),
        ),
    }
    Ok(())
}

async fn update(context: Context, args: UpdateArgs) -> Result<(), Failure> {
    let change = Change::prepare(context, args.change).await?;
    let key = args.key.given()?;
    let (routing, routers) = (
        args.reach.routing(),
        args.reach.routers(&change.config, &change.name)?,
    );
    if key.is_none() && routing.is_none() && routers.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give --key, --host with --port, or --router",
        ));
    }
    let current = change.chain.agreed_record(&change.name.label).await?;
    let keeps_reach = routing.is_none() && routers.is_empty();
    let record = match keeps_reach {
        // What stays must make sense, too.
        true => {
            let current = OnchainRecord {
                key: key.unwrap_or(current.key),
                ..current
            };
            let current = current.check().map_err(ChainError::Record)?;
            NewRecord {
                key: current.key,
                routing: current.routing,
                routers: current.routers,
            }
        }
        false => NewRecord {
            key: key.unwrap_or(current.key),
            routing,
            routers,
        },
    };
    let mined = change
        .chain
        .update(&change.name.label, &record, &mut change.progress())
        .await?;
    change.done(
        "record updated",
        json!({ "public_key": hex::encode(record.key) }),
        &mined,
    )
}

async fn rotate(context: Context, args: RotateArgs) -> Result<(), Failure> {
    let change = Change::prepare(context, args.change).await?;
    let key = args.key.or_configured(&change.config)?;
    let mined = change
        .chain
        .rotate(&change.name.label, key, &mut change.progress())
        .await?;
    change.done(
        "key rotated",
        json!({ "public_key": hex::encode(key) }),
        &mined,
    )
}

async fn enlist(context: Context, args: ChangeArgs) -> Result<(), Failure> {
    let change = Change::prepare(context, args).await?;
    let index = change
        .chain
        .enlist(&change.name.label, &mut change.progress())
        .await?;
    let name = change.config.display_name(&change.name);
    change.out.result(
        format_args!("{name} is router {index}"),
        &json!({ "name": name, "router_index": index }),
    );
    Ok(())
}

async fn manager(context: Context, args: ManagerArgs) -> Result<(), Failure> {
    let change = Change::prepare(context, args.change).await?;
    let manager = Account::from(args.to.0);
    let mined = change
        .chain
        .set_manager(&change.name.label, manager, &mut change.progress())
        .await?;
    change.done(
        "manager set",
        json!({ "manager": manager.to_string() }),
        &mined,
    )
}

async fn transfer(context: Context, args: AccountArgs) -> Result<(), Failure> {
    let change = Change::prepare(context, args.change).await?;
    let to = Account::from(args.to.0);
    let mined = change
        .chain
        .transfer(&change.name.label, to, &mut change.progress())
        .await?;
    change.done(
        "transferred, its record is cleared",
        json!({ "owner": to.to_string() }),
        &mined,
    )
}

/// Everything that a change of a record begins with.
struct Change {
    config: Config,
    out: Output,
    name: Name,
    chain: Chain,
}

impl Change {
    async fn prepare(context: Context, args: ChangeArgs) -> Result<Self, Failure> {
        let Context { mut config, out } = context;
        args.name.registry.apply(&mut config);
        let name = config.parse_name(&args.name.name)?;
        let chain = connect(&config, &name, Some(args.wallet.load()?)).await?;
        let chain = args.fee.apply(chain);
        Ok(Self {
            config,
            out,
            name,
            chain,
        })
    }

    fn progress(&self) -> impl FnMut(Progress) + Send + use<> {
        let out = self.out;
        move |step| out.note(format_args!("{step}"))
    }

    fn done(&self, what: &str, mut value: Value, mined: &Mined) -> Result<(), Failure> {
        let name = self.config.display_name(&self.name);
        value["name"] = name.as_str().into();
        add_mined(&mut value, mined);
        self.out.result(format_args!("{name}: {what}"), &value);
        Ok(())
    }
}

fn name_ending(text: &str) -> &str {
    text.split_once('.').map_or("", |(_, tld)| tld)
}

fn account(bytes: &[u8; 20]) -> String {
    Account::from(*bytes).to_string()
}

/// A record for people.
pub(super) fn describe(name: &str, tld: &str, record: &Record) -> String {
    let mut text = format!("name        {name}");
    // Writing to a String does not fail. Pinned records have no owner.
    if record.owner != [0; 20] {
        let _ = write!(text, "\nowner       {}", account(&record.owner));
    }
    if record.manager != [0; 20] {
        let _ = write!(text, "\nmanager     {}", account(&record.manager));
    }
    let _ = write!(text, "\nkey         {}", hex::encode(record.key));
    match &record.routing {
        Some(routing) => {
            let _ = write!(text, "\nreached     directly, {routing}");
        }
        None if record.routers.is_empty() => {
            text.push_str("\nreached     not at all: it has neither address nor routers")
        }
        None => {
            let routers: Vec<_> = record
                .routers
                .iter()
                .map(|router| format!("{router}.{tld}"))
                .collect();
            let _ = write!(text, "\nreached     through {}", routers.join(", "));
        }
    }
    let _ = write!(
        text,
        "\nversion     {} of epoch {}",
        record.version, record.epoch
    );
    text
}

/// A record for programs.
pub(super) fn describe_json(name: &str, tld: &str, record: &Record) -> Value {
    let routing = record.routing.as_ref().map(|routing| {
        json!({ "host": routing.host.to_string(), "port": routing.port, "ws": routing.ws, "wss": routing.wss })
    });
    let routers: Vec<_> = record
        .routers
        .iter()
        .map(|router| format!("{router}.{tld}"))
        .collect();
    json!({
        "name": name,
        "owner": account(&record.owner),
        "manager": (record.manager != [0; 20]).then(|| account(&record.manager)),
        "public_key": hex::encode(record.key),
        "routing": routing,
        "routers": routers,
        "version": record.version,
        "epoch": record.epoch,
    })
}
