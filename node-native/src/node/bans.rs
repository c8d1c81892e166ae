//! Keeps the node's bans and their file the same.

use super::{
    Token,
    driver::{Shared, lock},
};
use crate::bans::{BanFile, BansError};
use node_core::node::{Ban, Output};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file of bans, and what stood in it when the node last saw it.
#[derive(Debug)]
pub(super) struct Bans {
    file: BanFile,
    seen: Mutex<(Option<SystemTime>, Vec<Ban>)>,
    changed: Notify,
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
        // What cannot be read is not complained of again until it is changed.
        seen.0 = self.file.modified();
        let written = self.file.read()?;
        let out = follow(shared, &written, &mut seen.1);
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
            out = follow(shared, written, &mut seen.1);
            written.clone_from(&seen.1);
        });
        if agreed.is_err()
            && let Some(stands) = stands
        {
            // Nothing was written: what the file lacks was not lifted.
            seen.1 = stands;
        }
        seen.0 = self.file.modified();
        drop(seen);
        carry_out(shared, out);
        agreed
    }

    /// Agrees with the file as long as the node runs.
    pub(super) async fn keep(&self, shared: &Arc<Shared>) {
        // What the log says once, until it is something else or over.
        let mut said: Option<String> = None;
        loop {
            let told = tokio::time::timeout(LOOK, self.changed.notified()).await;
            if told.is_ok() || said.is_some() || self.file.modified() != lock(&self.seen).0 {
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
fn follow(shared: &Shared, written: &[Ban], seen: &mut Vec<Ban>) -> Vec<Output<Token>> {
    let (node, now, mut out) = (&shared.node, shared.clock.now(), Vec::new());
    for ban in written.iter().filter(|ban| !seen.contains(ban)) {
        node.ban(ban.clone(), now, &mut out);
    }
    for gone in seen.iter() {
        if !written.iter().any(|ban| ban.subject == gone.subject) {
            node.lift(&gone.subject, now, &mut out);
        }
    }
    *seen = node.bans(now);
    out
}

fn carry_out(shared: &Arc<Shared>, mut out: Vec<Output<Token>>) {
    shared.carry_out(&mut out);
}
