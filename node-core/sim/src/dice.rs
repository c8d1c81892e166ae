//! Chance that can be had again.

/// Numbers that look random: the same seed rolls the same ones, everywhere (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`, which is at least 1.
    pub const fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % sides
    }

    /// A number below `sides`, which is at least 1, as an index.
    pub const fn index(&mut self, sides: usize) -> usize {
        self.roll(sides as u64) as usize
    }

    /// True once in so many times.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// Maps numbers to numbers so that neighbours have nothing in common.
pub(crate) const fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
