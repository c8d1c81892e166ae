//! Time as the core sees it: handed in, never read.

use core::ops::{Add, Sub};
pub use core::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since an origin of its choosing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant `micros` microseconds after the driver's origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the driver's origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, delay: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, delay: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// A token bucket as one point in time: when it will be full again. One token comes back per `interval`, and a bucket
/// that needs longer than `burst` to be full is empty.
/// The error says how long to wait for one.
pub fn take(
    full_at: &mut Instant,
    interval: Duration,
    burst: Duration,
    now: Instant,
) -> Result<(), Duration> {
    let after = (*full_at).max(now) + interval;
    match after.since(now).checked_sub(burst) {
        None | Some(Duration::ZERO) => {
            *full_at = after;
            Ok(())
        }
        Some(wait) => Err(wait),
    }
}

/// Wall-clock time in milliseconds since the Unix epoch. It may jump; only handshakes, chain heads and bans look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Distance between two wall-clock times, whichever is later. Never saturates towards "recent".
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

/// Both clocks, read by the driver at one moment and handed to every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers and round-trip times.
    pub mono: Instant,
    /// For timestamps that other machines see.
    pub wall: Timestamp,
}
