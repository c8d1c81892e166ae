//! Commit, rest, reveal.

use super::{
    Chain, ChainError, Mined, NewRecord, Progress,
    abi::{Record, Registry},
};
use alloy::{
    primitives::{Address, B256, U256, keccak256},
    providers::Provider,
    sol_types::{SolCall, SolValue},
};
use node_core::Label;
use std::time::Duration;

/// Longest time that a commitment is let rest, in seconds. A day: a registry whose commitments must be older is none to wait for
/// at a terminal.
const MOST_REST: u64 = 24 * 60 * 60;
/// How far a chain's clock may lag behind ours before we stop waiting for it.
const CLOCK_LAG: u32 = 120;

impl Chain {
    /// Registers a name with its whole record, for `owner`.
    ///
    /// Two transactions: one that commits to everything without showing it, and, after the registry's minimum age, one
    /// that reveals it. Only then is the name visible, and nobody can be faster with it.
    pub async fn register(
        &self,
        label: &Label,
        owner: Address,
        record: &NewRecord,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        if !self.available(label).await? {
            let name = self.shown(label);
            return Err(match self.owner(label).await {
                Ok(holder) if holder == owner => ChainError::NameYours(name),
                _ => ChainError::NameTaken(name),
            });
        }
        let record = self.encode(record).await?;
        let mut salt = B256::ZERO;
        getrandom::fill(salt.as_mut_slice())
            .map_err(|error| ChainError::Entropy(error.to_string()))?;
        let terms = self.terms().await?;
        if terms.min_commitment_age > MOST_REST {
            return Err(ChainError::RestsTooLong(terms.min_commitment_age));
        }
        let commitment = self.commitment(label, owner, &record, salt);
        self.change(
            "commitment",
            Registry::commitCall { commitment },
            label,
            progress,
        )
        .await?;

        let reveal = Registry::registerCall {
            label: label.to_string(),
            owner,
            record,
            salt,
        };
        let reveal = self.request(reveal.abi_encode(), terms.fee);
        progress(Progress::Resting {
            seconds: terms.min_commitment_age,
        });
        tokio::time::sleep(Duration::from_secs(terms.min_commitment_age)).await;
        // The chain's clock decides, and it moves with its blocks.
        for _ in 0..CLOCK_LAG {
            match self.provider.estimate_gas(reveal.clone()).await {
                Err(error) if is_too_new(&error) => {
                    tokio::time::sleep(Duration::from_secs(1)).await
                }
                _ => break,
            }
        }
        self.send("registration", reveal, Some(label), progress)
            .await
    }

    /// What `makeCommitment` of the contract says. Computed here: an endpoint that is asked knows the name before anything
    /// protects it, and could answer with the commitment to a record of its own.
    fn commitment(&self, label: &Label, owner: Address, record: &Record, salt: B256) -> B256 {
        let all = (
            U256::from(self.chain_id),
            self.contract,
            label.to_string(),
            owner,
            keccak256(record.abi_encode()),
            salt,
        );
        keccak256(all.abi_encode_params())
    }
}

fn is_too_new(error: &alloy::transports::TransportError) -> bool {
    error
        .as_error_resp()
        .and_then(|payload| payload.as_decoded_error::<Registry::CommitmentTooNew>())
        .is_some()
}
