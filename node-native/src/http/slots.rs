//! How many connections there are, in all and per address.

use crate::{bans::unfold, metrics::Gauge};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug)]
pub(super) struct Slots {
    total: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    open: Arc<Gauge>,
}

impl Slots {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_address,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from `address`, unless a budget is spent.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, open: Arc<Gauge>) -> Option<Slot> {
        let address = holder(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.total >= self.total || here >= self.per_address {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(address, here + 1);
        open.add(1);
        Some(Slot {
            slots: self.clone(),
            address,
            open,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self
            .slots
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.total = taken.total.saturating_sub(1);
        // The map holds addresses with connections only, so that addresses of the past cost nothing.
        match taken.by_address.get_mut(&self.address) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                taken.by_address.remove(&self.address);
            }
        }
        self.open.add(-1);
    }
}

/// Whoever has one IPv6 address has the whole /64, unless a translator made it of an IPv4 address.
pub(super) fn holder(address: IpAddr) -> IpAddr {
    match unfold(address) {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn slots_are_bounded_in_all_and_per_address_and_come_back() {
        let slots = Slots::new(3, 2);
        let open = Arc::new(Gauge::default());
        let take = |address: &str| slots.take(address.parse().unwrap(), open.clone());
        let first = take("192.0.2.1").unwrap();
        let _second = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none(), "two per address");
        let _third = take("2001:db8::1").unwrap();
        assert!(take("192.0.2.2").is_none(), "three in all");
        drop(first);
        assert_eq!(open.get(), 2);
        let _fourth = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_none());
    }

    #[test]
    fn who_comes_through_a_translator_takes_nobody_elses_places() {
        let slots = Slots::new(10, 1);
        let open = Arc::new(Gauge::default());
        let take = |address: &str| slots.take(address.parse().unwrap(), open.clone());
        let _nat64 = take("64:ff9b::192.0.2.1").unwrap();
        let _other = take("64:ff9b::192.0.2.2").unwrap();
        for same in ["192.0.2.1", "::ffff:192.0.2.1", "2002:c000:201:1::1"] {
            assert!(take(same).is_none(), "{same}");
        }
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let slots = Slots::new(10, 1);
        let open = Arc::new(Gauge::default());
        let _first = slots
            .take("2001:db8::1".parse().unwrap(), open.clone())
            .unwrap();
        assert!(
            slots
                .take("2001:db8::ffff:1".parse().unwrap(), open.clone())
                .is_none()
        );
        let other = slots
            .take("2001:db8:0:1::1".parse().unwrap(), open.clone())
            .unwrap();
        drop(other);
        assert_eq!(slots.taken.lock().unwrap().by_address.len(), 1);
    }
}
