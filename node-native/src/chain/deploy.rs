//! What one needs once: a registry of one's own, and money on a development chain.

use super::{Chain, ChainError, Mined, Progress};
use crate::http::FaucetFn;
use alloy::{
    network::TransactionBuilder,
    primitives::{Address, U256},
    providers::Provider,
    rpc::types::TransactionRequest,
    signers::local::PrivateKeySigner,
    sol_types::SolValue,
};
use node_core::RegistryId;
use serde::Deserialize;
use std::{path::Path, sync::Arc};

/// What a registry asks of whoever registers; fixed for ever when it is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds that a commitment must rest. At 0 a registration can be copied while it is under way.
    pub min_commitment_age: u64,
    /// Seconds after which a commitment has lapsed.
    pub max_commitment_age: u64,
    /// Wei per registration.
    pub fee: U256,
    /// Who receives them.
    pub treasury: Address,
}

/// Most that such a transaction may cost for gas, in wei. 1 ether: a deployment takes some three million gas.
const DEPLOYMENT_FEE: U256 = U256::from_limbs([1_000_000_000_000_000_000, 0, 0, 0]);

/// Deploys the registry that was compiled into `artifact`, and returns its address.
pub async fn deploy(
    rpc: &str,
    wallet: PrivateKeySigner,
    artifact: &Path,
    terms: Terms,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Address, ChainError> {
    let mut code = read_artifact(artifact)?;
    let Terms {
        min_commitment_age,
        max_commitment_age,
        fee,
        treasury,
    } = terms;
    code.extend((min_commitment_age, max_commitment_age, fee, treasury).abi_encode_params());
    let chain = without_registry(rpc, wallet).await?;
    let request = TransactionRequest::default()
        .from(chain.account)
        .with_deploy_code(code);
    let mined = chain.send("registry", request, None, progress).await?;
    mined
        .created
        .ok_or_else(|| ChainError::Invalid("the receipt of a deployment names no contract".into()))
}

/// Sends `wei` to an account.
pub async fn fund(
    rpc: &str,
    wallet: PrivateKeySigner,
    to: Address,
    wei: U256,
) -> Result<Mined, ChainError> {
    let chain = without_registry(rpc, wallet).await?;
    let request = TransactionRequest::default()
        .from(chain.account)
        .to(to)
        .value(wei);
    chain.send("payment", request, None, &mut |_| {}).await
}

/// Sends `wei` of `wallet` to whoever asks, one after the other: two at once would use the same nonce.
///
/// Made for `/faucet` on development chains; the configuration refuses it elsewhere.
pub fn faucet(rpc: String, wallet: PrivateKeySigner, wei: u128) -> FaucetFn {
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    Arc::new(move |address| {
        let (rpc, wallet, turn) = (rpc.clone(), wallet.clone(), turn.clone());
        Box::pin(async move {
            let _turn = turn.lock().await;
            let mined = fund(&rpc, wallet, Address::from(address), U256::from(wei)).await;
            mined
                .map(|mined| mined.transaction.to_string())
                .map_err(|error| error.to_string())
        })
    })
}

/// For transactions that concern no registry; the chain is whichever the endpoint serves.
async fn without_registry(rpc: &str, wallet: PrivateKeySigner) -> Result<Chain, ChainError> {
    let none = RegistryId {
        chain_id: 0,
        contract: [0; 20],
    };
    let mut chain = Chain::at(rpc, "", none, Some(wallet))?;
    chain.max_fee = DEPLOYMENT_FEE;
    chain.chain_id = chain
        .provider
        .get_chain_id()
        .await
        .map_err(|error| chain.failed(error, None))?;
    Ok(chain)
}

fn read_artifact(path: &Path) -> Result<Vec<u8>, ChainError> {
    #[derive(Deserialize)]
    struct Artifact {
        bytecode: String,
    }
    let failed = |problem: String| ChainError::Artifact {
        path: path.display().to_string(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let artifact: Artifact =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let code = artifact
        .bytecode
        .strip_prefix("0x")
        .unwrap_or(&artifact.bytecode);
    match hex::decode(code) {
        Ok(code) if !code.is_empty() => Ok(code),
        Ok(_) => Err(failed("its bytecode is empty".into())),
        Err(error) => Err(failed(format!("its bytecode is not hex: {error}"))),
    }
}
