//! What inbound pipes may cost, by source and in all.

use super::cell::AddressGroup;
use crate::{Code, Limits, sorted::Map};

/// Counts inbound pipes: those in handshake, those admitted, and both by address group.
#[derive(Debug)]
pub(super) struct Budgets {
    half_open_max: usize,
    channels_max: usize,
    group_max: usize,
    half_open: usize,
    channels: usize,
    groups: Map<AddressGroup, usize>,
}

/// An inbound pipe's place in the count; returned with [`Budgets::close`].
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) group: AddressGroup,
    admitted: bool,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            half_open_max: limits.half_open,
            channels_max: limits.inbound_channels,
            group_max: limits.channels_per_group,
            half_open: 0,
            channels: 0,
            groups: Map::default(),
        }
    }

    /// A pipe comes in.
    pub(super) fn open(&mut self, group: AddressGroup) -> Result<Ticket, Code> {
        if self.half_open >= self.half_open_max {
            return Err(Code::HalfOpenBudget);
        }
        if self.channels >= self.channels_max {
            return Err(Code::ChannelBudget);
        }
        let used = self.groups.get_or_insert_with(group, || 0);
        if *used >= self.group_max {
            return Err(Code::SourceBudget);
        }
        *used += 1;
        self.half_open += 1;
        Ok(Ticket {
            group,
            admitted: false,
        })
    }

    /// Its peer is authenticated.
    pub(super) fn admit(&mut self, ticket: &mut Ticket) -> Result<(), Code> {
        if self.channels >= self.channels_max {
            return Err(Code::ChannelBudget);
        }
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
        if let Some(used) = self.groups.get_mut(&ticket.group) {
            *used -= 1;
            if *used == 0 {
                self.groups.remove(&ticket.group);
            }
        }
    }

    /// Inbound channels: in handshake, admitted.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.half_open, self.channels)
    }
}
