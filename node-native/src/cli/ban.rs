//! `nectar ban`: who may not come back for a while.

use super::{
    Context, Failure,
    args::{BanAddArgs, BanCommand, BanLiftArgs},
};
use crate::{
    bans::{self, BanFile},
    resolve::Clock,
};
use node_core::{Timestamp, node::Ban};
use serde_json::json;
use std::{fmt::Write, mem::discriminant, time::Duration};

pub(super) fn ban(context: &Context, command: BanCommand) -> Result<(), Failure> {
    let config = &context.config;
    if config.node.name.is_none() {
        return Err(Failure::usage(
            "a node without a name keeps no bans: give node.name in the configuration",
        ));
    }
    let file = BanFile::new(&config.node.ban_file, &config.registries);
    match command {
        BanCommand::List => list(context, &file),
        BanCommand::Add(args) => add(context, &file, &args),
        BanCommand::Lift(args) => lift(context, &file, &args),
    }
}

fn list(context: &Context, file: &BanFile) -> Result<(), Failure> {
    let now = Clock::new().now().wall;
    let (mut bans, others) = file.read_all()?;
    bans.retain(|ban| ban.until > now);
    let mut text = String::new();
    let mut values = Vec::new();
    for ban in &bans {
        let who = bans::shown(&ban.subject, &context.config.registries);
        let left = ban.until.distance(now);
        let why = ban.code.map_or("by the operator", |code| code.meaning());
        // Writing to a String does not fail.
        let _ = writeln!(text, "{who}  for another {}  {why}", minutes(left));
        values.push(json!({
            "who": who,
            "until": ban.until.0,
            "why": ban.code.map(|code| code.name()),
        }));
    }
    text.truncate(text.trim_end().len());
    if bans.is_empty() {
        text.push_str("nobody is banned");
    }
    for who in others {
        context.out.note(format_args!(
            "warning: {who} is kept and not followed, its registry is not configured"
        ));
    }
    context.out.result(text, &values.into());
    Ok(())
}

fn add(context: &Context, file: &BanFile, args: &BanAddArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let subject = bans::parse(&args.who, &config.registries).map_err(Failure::usage)?;
    let time = args.time.unwrap_or(config.limits.ban);
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (now, most) = (Clock::new().now().wall, config.limits.standings.max(1));
    let ban = Ban {
        subject,
        until: Timestamp(now.0.saturating_add(millis)),
        code: None,
    };
    let (fits, _) = file.change(|bans| {
        // What the node has decided makes room for what its operator decides.
        let rivals = bans.iter().filter(|other| {
            other.code.is_none()
                && other.until > now
                && discriminant(&other.subject) == discriminant(&ban.subject)
                && other.subject != ban.subject
        });
        let fits = rivals.count() < most;
        if fits {
            bans.retain(|other| other.subject != ban.subject);
            bans.push(ban.clone());
        }
        fits
    })?;
    if !fits {
        return Err(Failure::failed(format!(
            "{} is not banned: {most} bans of its kind are all that the node keeps; lift one, or raise limits.standings",
            bans::shown(&ban.subject, &config.registries)
        )));
    }
    let who = bans::shown(&ban.subject, &config.registries);
    out.result(
        format!("{who} is banned for {}: {}", minutes(time), follows(file)),
        &json!({ "who": who, "until": ban.until.0 }),
    );
    Ok(())
}

fn lift(context: &Context, file: &BanFile, args: &BanLiftArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let subject = bans::parse(&args.who, &config.registries).map_err(Failure::usage)?;
    let who = bans::shown(&subject, &config.registries);
    let (found, _) = file.change(|bans| {
        let before = bans.len();
        bans.retain(|ban| ban.subject != subject);
        bans.len() < before
    })?;
    if !found {
        return Err(Failure::failed(format!("{who} is not banned")));
    }
    out.result(
        format!("{who} is no longer banned: {}", follows(file)),
        &json!({ "who": who }),
    );
    Ok(())
}

/// Who heeds what was written.
fn follows(file: &BanFile) -> String {
    let path = file.path().display();
    format!("written to {path}, which a running node follows within a second")
}

/// A time as people read it, rounded up.
pub(super) fn minutes(time: Duration) -> String {
    match time.as_secs().div_ceil(60) {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes.div_ceil(60)),
    }
}
