//! How fast one address may begin TLS handshakes, which are dear before anybody has said who it is, and ask by HTTP, which is
//! cheap but has no end.

use super::slots::holder;
use crate::bans;
use node_core::time::{Duration, Instant, take};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// The windows of the rates: twice as many TLS handshakes at once, and five times as many requests, a page's files and more.
pub(super) const HANDSHAKES: Duration = Duration::from_secs(2);
pub(super) const REQUESTS: Duration = Duration::from_secs(5);
/// Addresses that are remembered; 4,096, worst case 256 KiB. While they are, all others are bounded by the places for
/// connections alone.
const ADDRESSES: usize = 4096;

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    burst: Duration,
    /// When the bucket of each is full again.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Pace {
    pub(super) fn new(per_second: u32, burst: Duration) -> Self {
        Self {
            burst,
            interval: Duration::from_secs(1) / per_second.max(1),
            full_at: Mutex::default(),
        }
    }

    /// Takes one from an address's bucket. False if that is empty.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        // Clients of a proxy have nothing to do with each other.
        if bans::is_shared(address) {
            return true;
        }
        let address = holder(address);
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ADDRESSES && !all.contains_key(&address) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= ADDRESSES {
                return true;
            }
        }
        let full_at = all.entry(address).or_insert(now);
        take(full_at, self.interval, self.burst, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often an address may at once, so long after the beginning.
    fn burst(pace: &Pace, address: [u8; 4], millis: u64) -> usize {
        let now = Instant::default() + Duration::from_millis(millis);
        (0..1000)
            .take_while(|_| pace.take(address.into(), now))
            .count()
    }

    #[test]
    fn an_address_begins_a_hundred_tls_handshakes_at_once_and_fifty_a_second() {
        let pace = Pace::new(50, HANDSHAKES);
        let burst = |address, millis| burst(&pace, address, millis);
        assert_eq!(burst([192, 0, 2, 1], 0), 100);
        assert_eq!(burst([192, 0, 2, 1], 0), 0);
        assert_eq!(burst([192, 0, 2, 2], 0), 100, "its neighbour");
        assert_eq!(burst([192, 0, 2, 1], 1000), 50);
        assert_eq!(burst([192, 0, 2, 1], 10_000), 100);
        assert_eq!(burst([127, 0, 0, 1], 0), 1000, "clients of a proxy");
    }

    #[test]
    fn an_address_makes_five_hundred_requests_at_once_and_a_hundred_a_second() {
        let pace = Pace::new(100, REQUESTS);
        let burst = |address, millis| burst(&pace, address, millis);
        assert_eq!(burst([192, 0, 2, 1], 0), 500);
        assert_eq!(burst([192, 0, 2, 1], 1000), 100);
        assert_eq!(burst([192, 0, 2, 2], 1000), 500, "its neighbour");
    }

    #[test]
    fn a_crowd_of_addresses_is_not_remembered_and_shuts_nobody_out() {
        let (pace, begun) = (Pace::new(50, HANDSHAKES), Instant::default());
        for address in 0..3 * u32::try_from(ADDRESSES).unwrap_or_default() {
            let address = IpAddr::from((0xc000_0000 + address).to_be_bytes());
            assert!(pace.take(address, begun));
        }
        let known = || pace.full_at.lock().map(|all| all.len()).unwrap_or_default();
        assert_eq!(known(), ADDRESSES);
        // Those whose buckets are full again leave their places.
        assert!(pace.take([198, 51, 100, 1].into(), begun + HANDSHAKES));
        assert_eq!(known(), 1);
    }
}
