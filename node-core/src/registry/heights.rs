//! How high a chain is, by more than one endpoint's word.

use super::config::ResolverLimits;
use alloc::vec::Vec;

/// The newest blocks that endpoints told, for whatever purpose they were asked.
///
/// A newest block is one endpoint's claim. What it may cause is bounded by the height that as many as the quorum have
/// reached: one of them is honest, so that no honest endpoint's chain is lower for long, and a liar alone moves it neither
/// up nor down.
#[derive(Debug)]
pub(super) struct Heights {
    /// Endpoints that must agree.
    need: usize,
    /// By endpoint.
    told: Vec<Option<u64>>,
    agreed: Option<u64>,
}

impl Heights {
    pub(super) fn new(endpoints: usize, need: usize) -> Self {
        Self {
            need,
            told: alloc::vec![None; endpoints],
            agreed: None,
        }
    }

    /// Takes the height of an endpoint's newest block.
    pub(super) fn told(&mut self, endpoint: usize, height: u64, limits: &ResolverLimits) {
        if let Some(told) = self.told.get_mut(endpoint) {
            *told = Some(height);
        }
        if self.need == 1 {
            self.agreed = Some(height);
            return;
        }
        let heights = ascending(&self.told);
        let nth = self.need - 1;
        let (Some(&at_most), Some(&at_least)) = (heights.get(nth), heights.iter().nth_back(nth))
        else {
            return;
        };
        self.agreed = Some(match self.agreed {
            None => at_least,
            // Of two endpoints either can say that the chain is low. That it has fallen, because it began anew, counts once
            // a quorum says so and no quorum says otherwise.
            Some(agreed) if at_least.max(at_most) < agreed.saturating_sub(lag(limits)) => {
                at_least.max(at_most)
            }
            Some(agreed) => agreed.max(at_least),
        });
    }

    /// The height that a quorum has reached, if an endpoint that tells `height` can be on the same chain: not further from
    /// it than an honest one lags behind or has run ahead since the others were asked.
    pub(super) fn agreed_near(&self, height: u64, limits: &ResolverLimits) -> Option<u64> {
        self.agreed
            .filter(|agreed| agreed.abs_diff(height) <= lag(limits))
    }

    /// Whether what an endpoint told last is not near the height that a quorum has reached.
    pub(super) fn is_far(&self, endpoint: usize, limits: &ResolverLimits) -> bool {
        let told = self.told.get(endpoint).copied().flatten();
        told.is_some_and(|height| self.agreed_near(height, limits).is_none())
    }
}

/// Heights, lowest first. One for each endpoint, so few that a tab need not download a sort for them.
pub(super) fn ascending(heights: &[Option<u64>]) -> Vec<u64> {
    let mut ordered = Vec::new();
    for height in heights.iter().flatten() {
        let at = ordered.partition_point(|other| other <= height);
        ordered.insert(at, *height);
    }
    ordered
}

/// Half of what one poll looks through, 250 blocks: 50 min of blocks of 12 s, a minute of blocks of 250 ms. A liar who stays
/// within it, below and above by turns, is still in reach of one poll.
const fn lag(limits: &ResolverLimits) -> u64 {
    limits.log_range / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(need: usize, told: &[(usize, u64)]) -> Option<u64> {
        let mut heights = Heights::new(3, need);
        for (endpoint, height) in told {
            heights.told(*endpoint, *height, &ResolverLimits::default());
        }
        heights.agreed
    }

    #[test]
    fn nobody_alone_moves_the_height_of_three() {
        let honest = [(0, 1000), (1, 1001)];
        for lie in [0, 740, 1260, u64::MAX] {
            let told = [honest[0], honest[1], (2, lie)];
            let agreed = agreed(2, &told).unwrap_or_default();
            assert!((1000..=1001).contains(&agreed), "{lie}: {agreed}");
        }
        assert_eq!(
            agreed(2, &[(0, 1000)]),
            None,
            "one endpoint agrees with nobody"
        );
    }

    #[test]
    fn a_chain_that_began_anew_is_low_once_a_quorum_says_so() {
        let before = [(0, 1000), (1, 1000), (2, 1000)];
        assert_eq!(agreed(2, &[&before[..], &[(0, 3)]].concat()), Some(1000));
        assert_eq!(
            agreed(2, &[&before[..], &[(0, 3), (1, 4)]].concat()),
            Some(4)
        );
        // Of two, both must say so.
        assert_eq!(agreed(2, &[(0, 1000), (1, 1000), (0, 3)]), Some(1000));
        assert_eq!(agreed(2, &[(0, 1000), (1, 1000), (0, 3), (1, 4)]), Some(4));
    }

    #[test]
    fn where_one_suffices_its_word_counts() {
        assert_eq!(agreed(1, &[(0, 1000), (0, 3)]), Some(3));
        assert_eq!(agreed(1, &[(0, 3), (0, 5000)]), Some(5000));
    }
}
