//! One transaction: simulated, priced, signed, sent, mined.

use super::{Chain, ChainError, DEVELOPMENT_CHAINS, Progress, shown};
use alloy::{
    eips::eip2718::Encodable2718,
    network::{NetworkTransactionBuilder, TransactionBuilder},
    primitives::{Address, B256, U256},
    providers::Provider,
    rpc::types::TransactionRequest,
    transports::TransportError,
};
use futures_util::future::join_all;
use node_core::Label;
use std::time::Duration;

/// How long a transaction may wait for a block.
const MINED_WITHIN: Duration = Duration::from_secs(120);
/// Time that an endpoint has to take a transaction, before it is looked for in blocks. 10 s.
const PASSED_ON_WITHIN: Duration = Duration::from_secs(10);
/// Time that the first endpoint has for a block that the quorum has seen. 10 s.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(10);
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
        let fees = self.prices().await?;
        let fee = U256::from(gas).saturating_mul(U256::from(fees.max_fee_per_gas));
        if fee > self.max_fee {
            return Err(ChainError::TooDear {
                fee,
                most: self.max_fee,
            });
        }
        let needed = fee.saturating_add(value);
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
        let transaction = *signed.tx_hash();
        self.pass_on(&signed.encoded_2718()).await.map_err(failed)?;
        progress(Progress::Sent { what, transaction });
        let mined = tokio::time::timeout(MINED_WITHIN, self.mined(transaction))
            .await
            .map_err(|_| ChainError::NotMined(transaction))??;
        let _ = tokio::time::timeout(CAUGHT_UP_WITHIN, self.caught_up(transaction)).await;
        progress(Progress::Mined(mined));
        Ok(mined)
    }

    /// Gives a signed transaction to every endpoint, since one may keep it to itself. If none has it, what the first says is what
    /// is wrong with it.
    async fn pass_on(&self, transaction: &[u8]) -> Result<(), TransportError> {
        let sent = self.each().map(|chain| {
            let sent = async move { chain.provider.send_raw_transaction(transaction).await };
            tokio::time::timeout(PASSED_ON_WITHIN, sent)
        });
        let mut failure = None;
        for sent in join_all(sent).await {
            match sent {
                Ok(Err(error)) if !has_it(&error) => {
                    failure.get_or_insert(error);
                }
                // One that has not answered may have it all the same.
                _ => return Ok(()),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// What became of a transaction, as the quorum says.
    async fn mined(&self, transaction: B256) -> Result<Mined, ChainError> {
        let mut pause = POLL_FIRST;
        loop {
            // A look that fails is no news about the transaction, which is sent already.
            match self.agreed(|chain| chain.receipt(transaction)).await {
                Ok(Some((true, mined))) => return Ok(mined),
                Ok(Some((false, _))) => return Err(ChainError::Failed(transaction)),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, %transaction, "no receipt"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_LAST);
        }
    }

    /// Waits until the first endpoint, which simulates what comes next, has the block, too.
    async fn caught_up(&self, transaction: B256) {
        while !matches!(self.clone().receipt(transaction).await, Ok(Some(_))) {
            tokio::time::sleep(POLL_LAST).await;
        }
    }

    /// Whether a transaction succeeded, and where, if it is in a block.
    async fn receipt(self, transaction: B256) -> Result<Option<(bool, Mined)>, ChainError> {
        let receipt = self.provider.get_transaction_receipt(transaction).await;
        let receipt = receipt.map_err(|error| self.failed(error, None))?;
        Ok(receipt.map(|receipt| {
            let mined = Mined {
                transaction,
                block: receipt.block_number.unwrap_or_default(),
                gas: receipt.gas_used,
                created: receipt.contract_address,
            };
            (receipt.status(), mined)
        }))
    }
}

/// Whether an endpoint refuses a transaction because it has it already, from another: in the words of Geth and those like it, of
/// Besu, and of Nethermind.
fn has_it(error: &TransportError) -> bool {
    let said = error
        .as_error_resp()
        .map(|said| said.message.to_lowercase());
    let words = ["already known", "known transaction", "alreadyknown"];
    said.is_some_and(|said| words.iter().any(|word| said.contains(word)))
}
