//! One transaction: simulated, priced, signed, sent, mined.

use super::{Chain, ChainError, DEVELOPMENT_CHAINS, Progress, shown};
use alloy::{
    network::{NetworkTransactionBuilder, TransactionBuilder},
    primitives::{Address, B256, U256},
    providers::Provider,
    rpc::types::TransactionRequest,
};
use node_core::Label;
use std::time::Duration;

/// How long a transaction may wait for a block.
const MINED_WITHIN: Duration = Duration::from_secs(120);
/// Pauses between looks for a receipt: short at first for development chains, then gentle on public endpoints.
const POLL_FIRST: Duration = Duration::from_millis(50);
const POLL_LAST: Duration = Duration::from_secs(2);

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Its hash.
    pub transaction: B256,
    /// Height of its block.
    pub block: u64,
    /// Gas that it took.
    pub gas: u64,
    /// The contract that it created.
    pub created: Option<Address>,
}

impl Chain {
    /// Sends a transaction whose simulation succeeds, and waits for its block.
    pub(super) async fn send(
        &self,
        what: &'static str,
        request: TransactionRequest,
        label: Option<&Label>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        let wallet = self.wallet.as_ref().ok_or(ChainError::NoWallet)?;
        let failed = |error| self.failed(error, label);
        let lacking = |balance, needed| ChainError::InsufficientFunds {
            account: self.account,
            balance,
            needed,
            development: DEVELOPMENT_CHAINS
                .contains(&self.chain_id)
                .then(|| shown(&self.rpc)),
        };
        let balance = self
            .provider
            .get_balance(self.account)
            .await
            .map_err(failed)?;
        let value = request.value.unwrap_or_default();
        // Simulations of accounts without money fail with words that differ from node to node.
        if balance.is_zero() || balance < value {
            return Err(lacking(balance, value.max(U256::ONE)));
        }
        let estimate = self
            .provider
            .estimate_gas(request.clone())
            .await
            .map_err(failed)?;
        // State may move between simulation and block.
        let gas = estimate.saturating_add(estimate / 5);
        let fees = self
            .provider
            .estimate_eip1559_fees()
            .await
            .map_err(failed)?;
        let needed = U256::from(gas)
            .saturating_mul(U256::from(fees.max_fee_per_gas))
            .saturating_add(value);
        if balance < needed {
            return Err(lacking(balance, needed));
        }
        let nonce = self
            .provider
            .get_transaction_count(self.account)
            .pending()
            .await
            .map_err(failed)?;
        let request = request
            .with_chain_id(self.chain_id)
            .with_nonce(nonce)
            .with_gas_limit(gas)
            .with_max_fee_per_gas(fees.max_fee_per_gas)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
        let signed = request
            .build(wallet)
            .await
            .map_err(|error| ChainError::Signing(error.to_string()))?;
        let pending = self
            .provider
            .send_tx_envelope(signed)
            .await
            .map_err(failed)?;
        let transaction = *pending.tx_hash();
        progress(Progress::Sent { what, transaction });
        let mined = tokio::time::timeout(MINED_WITHIN, self.mined(transaction))
            .await
            .map_err(|_| ChainError::NotMined(transaction))??;
        progress(Progress::Mined(mined));
        Ok(mined)
    }

    async fn mined(&self, transaction: B256) -> Result<Mined, ChainError> {
        let mut pause = POLL_FIRST;
        loop {
            // A look that fails is no news about the transaction, which is sent already.
            match self.provider.get_transaction_receipt(transaction).await {
                Ok(Some(receipt)) if !receipt.status() => {
                    return Err(ChainError::Failed(transaction));
                }
                Ok(Some(receipt)) => {
                    return Ok(Mined {
                        transaction,
                        block: receipt.block_number.unwrap_or_default(),
                        gas: receipt.gas_used,
                        created: receipt.contract_address,
                    });
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, %transaction, "no receipt"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_LAST);
        }
    }
}
