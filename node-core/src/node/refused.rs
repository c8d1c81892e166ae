//! How often others were refused, by the reason.

use crate::Code;
use core::sync::atomic::{AtomicU64, Ordering};

/// What others are refused for: a spent budget, or who they are. Breaches of the protocol are counted elsewhere, and what
/// only those find out who dial is not told to anybody.
const REASONS: [Code; 22] = [
    Code::NameUnknown,
    Code::KeyMismatch,
    Code::KeyUnconfirmed,
    Code::WrongTarget,
    Code::WeakKey,
    Code::NotAllowed,
    Code::Banned,
    Code::EpochChanged,
    Code::GuestRefused,
    Code::ReadBudget,
    Code::CircuitLimit,
    Code::CircuitRate,
    Code::TargetBusy,
    Code::HostingRefused,
    Code::CallingRefused,
    Code::QueueFull,
    Code::ChannelBudget,
    Code::HalfOpenBudget,
    Code::SourceBudget,
    Code::Overloaded,
    Code::RequestRate,
    Code::RecordInvalid,
];

/// A count for each reason. Taken without any lock: who is refused a thousand times a second must cost little.
#[derive(Debug, Default)]
pub(super) struct Refused([AtomicU64; REASONS.len()]);

impl Refused {
    /// Somebody was refused, or sent away, with `code`.
    pub(super) fn count(&self, code: Code) {
        let counts = REASONS.iter().zip(&self.0);
        for (_, count) in counts.filter(|(reason, _)| **reason == code) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> [(Code, u64); REASONS.len()] {
        core::array::from_fn(|at| (REASONS[at], self.0[at].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Fault;

    #[test]
    fn every_code_about_a_budget_or_an_identity_is_counted_but_those_that_only_a_dialler_meets() {
        let refused = Refused::default();
        for code in Code::ALL {
            refused.count(*code);
        }
        let counted = refused.counts();
        for code in Code::ALL {
            let tells = matches!(code.fault(), Fault::Limit | Fault::Identity);
            let dialler = matches!(code, Code::WrongName | Code::AddressRefused);
            let count = counted.iter().filter(|(reason, _)| reason == code);
            let count: Vec<_> = count.map(|(_, count)| *count).collect();
            assert_eq!(count, vec![1; usize::from(tells && !dialler)], "{code:?}");
        }
    }
}
