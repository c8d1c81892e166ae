//! What is wrong with a node's own name.
//!
//! What others refuse about us has the same codes as what we find wrong with them. Told as it comes, it would blame
//! them.

use crate::node::{Code, Node, ResolveError};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Others refuse a node again and again; the chain is asked about it no more often than this.
const AGAIN: Duration = Duration::from_secs(10);

/// Why nobody can believe a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody has registered its name.
    Unregistered,
    /// Another key is registered.
    OtherKey,
}

impl Fault {
    /// For whoever runs the node called `name`: what it is, and what to do.
    pub(super) fn told(self, name: &str) -> String {
        match self {
            Self::Unregistered => {
                format!("{name} is not registered: run `nectar register {name}`")
            }
            Self::OtherKey => format!(
                "this node's own key is not, or no longer, the one that is registered for {name}: run it with the new \
                 key (--key), or register this one with `nectar record rotate {name}`"
            ),
        }
    }
}

/// Whether a refusal with this code may be about the caller.
pub(super) const fn may_be_ours(code: Code) -> bool {
    matches!(
        code,
        Code::NameUnknown | Code::KeyMismatch | Code::KeyUnconfirmed
    )
}

/// Asks the chain what is wrong with the name and the key of `node`, if anything is.
pub(super) async fn fault(node: &Node, key: [u8; 32]) -> Result<Option<Fault>, ResolveError> {
    let Some(name) = node.name() else {
        return Ok(None);
    };
    match node.resolve(name, true).await {
        Err(error) if error.code == Code::NameUnknown => Ok(Some(Fault::Unregistered)),
        Err(error) => Err(error),
        Ok(found) if found.record.key != key => Ok(Some(Fault::OtherKey)),
        Ok(_) => Ok(None),
    }
}

/// A node's own key, and what was found when it was last doubted.
#[derive(Clone, Debug)]
pub(super) struct Own {
    key: [u8; 32],
    last: Arc<Mutex<Option<Doubt>>>,
}

#[derive(Debug)]
struct Doubt {
    at: Instant,
    found: Option<Fault>,
}

impl Own {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            last: Arc::default(),
        }
    }

    /// [`fault`], asked now or a moment ago; none also when the chain does not answer.
    pub(super) async fn fault(&self, node: &Node) -> Option<Fault> {
        let mut last = self.last.lock().await;
        match &*last {
            Some(doubt) if doubt.at.elapsed() < AGAIN => doubt.found,
            _ => {
                let found = fault(node, self.key).await.ok().flatten();
                let at = Instant::now();
                *last = Some(Doubt { at, found });
                found
            }
        }
    }
}
