//! How many files and sockets the system lets this process have open.

use std::fmt;

/// What is open beside connections: files, the runtime's own.
const BESIDE: usize = 64;

/// Fewer than the configured connections can need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooFew {
    allowed: usize,
    connections: usize,
    needed: usize,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            allowed,
            connections,
            needed,
        } = self;
        write!(
            f,
            "only {allowed} may be open, too few for {connections} connections: allow {needed} (`ulimit -n`, or LimitNOFILE of \
             a systemd unit), or lower listen.connections"
        )
    }
}

/// Whether `allowed` descriptors are enough for so many connections of peers, and so many to endpoints of chains.
pub(super) fn suffice(allowed: usize, connections: usize, endpoints: usize) -> Result<(), TooFew> {
    let needed = connections.saturating_add(endpoints).saturating_add(BESIDE);
    if allowed >= needed {
        return Ok(());
    }
    Err(TooFew {
        allowed,
        connections,
        needed,
    })
}

/// How many this process may have; `None` where that is unknown or without limit.
pub(super) fn allowed() -> Option<usize> {
    // Linux tells it there; elsewhere it takes a call that only unsafe code or one more dependency can reach.
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_soft_one() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             62812                62812                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(
            soft_limit("Max open files            unlimited            unlimited            files"),
            None
        );
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn every_connection_needs_one_and_the_rest_some() {
        assert_eq!(suffice(4224, 4112, 48), Ok(()));
        let problem = suffice(4223, 4112, 48).map_err(|problem| problem.to_string());
        assert!(problem.is_err_and(|said| said.contains("4223") && said.contains("allow 4224")));
    }
}
