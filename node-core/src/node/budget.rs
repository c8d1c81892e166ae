//! What inbound pipes may cost, by source and in all.

use super::cell::AddressGroup;
use crate::{Code, Limits, Name, channel::HandshakeError, crypto, sorted::Map, time::Duration};

/// When to come back to a node that has too many handshakes under way, or too many pipes of one source.
const SOON: Duration = Duration::from_secs(1);
/// The same where all places are taken by peers who stay.
const LATER: Duration = Duration::from_secs(5);

/// Counts inbound pipes: those in handshake, those admitted, and both by address group.
#[derive(Debug)]
pub(super) struct Budgets {
    half_open_max: usize,
    channels_max: usize,
    group_max: usize,
    caller_max: usize,
    half_open: usize,
    channels: usize,
    groups: Map<AddressGroup, usize>,
}

/// An inbound pipe's place in the count; returned with [`Budgets::close`].
#[derive(Debug)]
pub(super) struct Ticket {
    group: AddressGroup,
    /// The caller whom a router names, in its share of what that router may bring.
    caller: Option<AddressGroup>,
    admitted: bool,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            half_open_max: limits.half_open,
            channels_max: limits.inbound_channels,
            group_max: limits.channels_per_group,
            caller_max: limits.channels_per_caller,
            half_open: 0,
            channels: 0,
            groups: Map::default(),
        }
    }

    /// A pipe comes in. A circuit comes with the caller whom its router names, if it names one.
    pub(super) fn open(
        &mut self,
        group: AddressGroup,
        caller: Option<Option<&Name>>,
    ) -> Result<Ticket, HandshakeError> {
        if self.half_open >= self.half_open_max {
            return Err(HandshakeError::after(Code::HalfOpenBudget, SOON));
        }
        self.check_channels()?;
        let share = caller.map_or(usize::MAX, |caller| match caller {
            Some(_) => self.caller_max,
            None => self.caller_max.saturating_mul(2),
        });
        let caller = caller.map(|caller| share_of(group, caller));
        let used = |group: &AddressGroup| self.groups.get(group).copied().unwrap_or_default();
        if used(&group) >= self.group_max || caller.is_some_and(|caller| used(&caller) >= share) {
            return Err(HandshakeError::after(Code::SourceBudget, SOON));
        }
        for group in [caller, Some(group)].into_iter().flatten() {
            *self.groups.get_or_insert_with(group, || 0) += 1;
        }
        self.half_open += 1;
        Ok(Ticket {
            group,
            caller,
            admitted: false,
        })
    }

    /// Its peer is authenticated.
    pub(super) fn admit(&mut self, ticket: &mut Ticket) -> Result<(), HandshakeError> {
        self.check_channels()?;
        self.half_open -= 1;
        self.channels += 1;
        ticket.admitted = true;
        Ok(())
    }

    /// It is gone.
    pub(super) fn close(&mut self, ticket: &Ticket) {
        if ticket.admitted {
            self.channels -= 1;
        } else {
            self.half_open -= 1;
        }
        for group in [ticket.caller, Some(ticket.group)].into_iter().flatten() {
            if let Some(used) = self.groups.get_mut(&group) {
                *used -= 1;
                if *used == 0 {
                    self.groups.remove(&group);
                }
            }
        }
    }

    fn check_channels(&self) -> Result<(), HandshakeError> {
        if self.channels < self.channels_max {
            return Ok(());
        }
        Err(HandshakeError::after(Code::ChannelBudget, LATER))
    }

    /// Inbound channels: in handshake, admitted.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.half_open, self.channels)
    }
}

/// The group in which a caller's circuits through one router are counted. Nobody can find two names of one group.
fn share_of(router: AddressGroup, caller: Option<&Name>) -> AddressGroup {
    let caller = caller.map_or([0; 32], Name::hash);
    // Of the whole of both: whoever chooses a router's name and a caller's would find two that cancel each other out.
    let hash = crypto::hash(&[&router.to_be_bytes(), &caller]);
    hash.first_chunk()
        .map_or(router, |first| u64::from_be_bytes(*first))
        | 3 << 62
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::name::{Label, RegistryId};

    #[test]
    fn one_caller_does_not_take_all_that_a_router_may_bring() {
        let name = |label| Name {
            registry: RegistryId {
                chain_id: 1,
                contract: [0; 20],
            },
            label: Label::new(label).unwrap(),
        };
        let (mallory, alice) = (name("mallory"), name("alice"));
        let mut budgets = Budgets::new(&Limits::default());
        let mut bring = |caller: Option<&Name>, times: usize| {
            let opened = (0..times).map(|_| budgets.open(1 << 63, Some(caller)));
            opened.filter_map(Result::ok).collect::<Vec<_>>()
        };
        let mallorys = bring(Some(&mallory), 100);
        assert_eq!(mallorys.len(), 8);
        assert_eq!(bring(None, 100).len(), 16, "nameless callers share");
        assert_eq!(bring(Some(&alice), 100).len(), 8);
        assert_eq!(bring(Some(&name("bob")), 1).len(), 0, "32 in all");
        for ticket in &mallorys {
            budgets.close(ticket);
        }
        let ticket = budgets.open(1 << 63, Some(Some(&mallory)));
        assert!(ticket.is_ok(), "what is closed makes room");
        assert!(
            budgets.open(2 | 1 << 63, Some(Some(&mallory))).is_ok(),
            "another router has a share of its own"
        );
    }
}
