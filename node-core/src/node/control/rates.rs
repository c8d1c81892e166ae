//! How fast strangers may ask: a name, or the address group of a guest, over all of its sessions and after them.

use super::Control;
use crate::{
    Now,
    node::{
        cell::{Bucket, PipeKind, Rate, SessionCell, source_of_circuits},
        standing::{Subject, is_shared},
        timers::lock,
    },
};
use alloc::vec;

impl<T> Control<T> {
    /// Finds out what a peer's requests take tokens from.
    ///
    /// Guests whose group people share who have nothing to do with each other have a bucket each, and all of them another one,
    /// with tokens for as many as may be there at once: whoever comes again and again is not faster for it.
    pub(in super::super) fn bound_rates(&mut self, cell: &SessionCell<T>, now: Now) {
        let group = match (&cell.peer.name, cell.pipe().as_ref().map(|pipe| &pipe.kind)) {
            (Some(name), _) => {
                let alone = self.rate(Subject::Name(name.clone()), 1, now);
                return cell.set_rates(vec![alone]);
            }
            (None, Some(PipeKind::Socket { group, .. })) => group.unwrap_or_default(),
            (None, Some(PipeKind::Circuit { hop, .. })) => source_of_circuits(hop),
            (None, None) => return cell.set_rates(vec![own()]),
        };
        if !is_shared(group) {
            let alone = self.rate(Subject::Group(group), 1, now);
            return cell.set_rates(vec![alone]);
        }
        let sharers = u32::try_from(self.config.limits.channels_per_group).unwrap_or(u32::MAX);
        let together = self.rate(Subject::Group(group), sharers, now);
        cell.set_rates(vec![own(), together]);
    }

    fn rate(&mut self, subject: Subject, sharers: u32, now: Now) -> Rate {
        Rate {
            bucket: self.standings.requests(&subject, now),
            subject: Some(subject),
            sharers,
        }
    }

    /// A session is over, or its peer a stranger again: what that has taken is remembered.
    pub(super) fn keep_rates(&mut self, cell: &SessionCell<T>, now: Now) {
        for rate in cell.take_rates() {
            let Some(subject) = rate.subject else {
                continue;
            };
            let full_at = *lock(&rate.bucket);
            self.standings.set_requests(&subject, full_at, now);
        }
    }
}

/// Of nobody else, and forgotten with the session.
fn own() -> Rate {
    Rate {
        bucket: Bucket::default(),
        subject: None,
        sharers: 1,
    }
}
