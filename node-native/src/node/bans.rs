//! Keeps the node's bans and their file the same.

use super::{
    Token,
    driver::{Shared, lock},
};
use crate::bans::{BanFile, BansError, Stamp};
use node_core::node::{Ban, Output, Subject};
use std::{
    mem::discriminant,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file of bans, and what stood in it when the node last saw it.
#[derive(Debug)]
pub(super) struct Bans {
    file: BanFile,
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// What the node held.
    bans: Vec<Ban>,
    /// What an operator has written for which the node had no place. It stays in the file, and has one once another ban is over.
    waiting: Vec<Ban>,
}

impl Bans {
    pub(super) fn new(file: BanFile) -> Self {
        Self {
            file,
            seen: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The node has banned somebody, or lifted a ban.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Does what an operator has written.
    pub(super) fn heed(&self, shared: &Arc<Shared>) -> Result<(), BansError> {
        let mut seen = lock(&self.seen);
        // What is written from here on differs from it.
        seen.stamp = self.file.stamp();
        let (written, others) = self.file.read_all()?;
        if !others.is_empty() {
            tracing::warn!(
                "bans of names of no registry that is configured are kept and not followed: {}",
                others.join(", ")
            );
        }
        let out = follow(shared, &written, &mut seen);
        drop(seen);
        carry_out(shared, out);
        Ok(())
    }

    /// Does what an operator has written, and writes what the node has decided.
    fn agree(&self, shared: &Arc<Shared>) -> Result<(), BansError> {
        let mut seen = lock(&self.seen);
        let (mut out, mut stands) = (Vec::new(), None);
        let agreed = self.file.change(|written| {
            stands = Some(written.clone());
            out = follow(shared, written, &mut seen);
            written.clone_from(&seen.bans);
            written.extend_from_slice(&seen.waiting);
        });
        let agreed = match agreed {
            Ok(((), stamp)) => {
                seen.stamp = stamp;
                Ok(())
            }
            Err(error) => {
                if let Some(mut stands) = stands {
                    // Nothing was written: what the file lacks was not lifted.
                    stands.retain(|ban| !seen.waiting.contains(ban));
                    seen.bans = stands;
                }
                Err(error)
            }
        };
        drop(seen);
        carry_out(shared, out);
        agreed
    }

    /// Whether there is something to agree on beside what the node has done.
    fn is_due(&self) -> bool {
        let seen = lock(&self.seen);
        !seen.waiting.is_empty() || self.file.stamp() != seen.stamp
    }

    /// Agrees with the file as long as the node runs.
    pub(super) async fn keep(&self, shared: &Arc<Shared>) {
        // What the log says once, until it is something else or over.
        let mut said: Option<String> = None;
        loop {
            let told = tokio::time::timeout(LOOK, self.changed.notified()).await;
            if told.is_ok() || said.is_some() || self.is_due() {
                let shared = shared.clone();
                let agreed = tokio::task::spawn_blocking(move || {
                    shared
                        .bans
                        .as_ref()
                        .map_or(Ok(()), |bans| bans.agree(&shared))
                });
                let failed = agreed.await.ok().and_then(Result::err);
                let failed = failed.map(|error| error.to_string());
                if let Some(failed) = failed.as_ref().filter(|_| failed != said) {
                    tracing::error!("{failed}");
                }
                said = failed;
            }
        }
    }
}

/// Bans and lifts what an operator has added and removed since the file was `seen`, which becomes what the node holds now.
fn follow(shared: &Shared, written: &[Ban], seen: &mut Seen) -> Vec<Output<Token>> {
    let (node, now, mut out) = (&shared.node, shared.clock.now(), Vec::new());
    let most = node.config().limits.standings.max(1);
    let is_full = |bans: &[Ban], like: &Subject| {
        let alike = |ban: &&Ban| discriminant(&ban.subject) == discriminant(like);
        bans.iter().filter(alike).count() >= most
    };
    let mut held = node.bans(now);
    for ban in written.iter().filter(|ban| !seen.bans.contains(ban)) {
        // One that waits would drive out another, which would wait then.
        if !seen.waiting.contains(ban) || !is_full(&held, &ban.subject) {
            node.ban(ban.clone(), now, &mut out);
            if seen.waiting.contains(ban) {
                held.push(ban.clone());
            }
        }
    }
    for gone in seen.bans.iter() {
        if !written.iter().any(|ban| ban.subject == gone.subject) {
            node.lift(&gone.subject, now, &mut out);
        }
    }
    let held = node.bans(now);
    let has = |bans: &[Ban], ban: &Ban| bans.iter().any(|other| other.subject == ban.subject);
    let waits = |ban: &&Ban| {
        let was_driven_out = || !has(&seen.bans, ban) || is_full(&held, &ban.subject);
        ban.code.is_none() && ban.until > now.wall && !has(&held, ban) && was_driven_out()
    };
    let waiting: Vec<_> = written.iter().filter(waits).cloned().collect();
    if seen.waiting.is_empty() && !waiting.is_empty() {
        tracing::warn!(
            "{} bans in the file are more than limits.standings allows ({most} names and as many networks), and wait until others \
             are over",
            waiting.len()
        );
    }
    (seen.bans, seen.waiting) = (held, waiting);
    out
}

fn carry_out(shared: &Arc<Shared>, mut out: Vec<Output<Token>>) {
    shared.carry_out(&mut out);
}
