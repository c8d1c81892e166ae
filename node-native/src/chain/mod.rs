//! The registry contract: reading and changing names with transactions of our own.
//!
//! [`Chain`] speaks to one registry. It serves people at a terminal; what a running node believes about others comes from the
//! resolver of node-core, with its quorum. One endpoint, the first that can be reached, simulates transactions and says what is
//! to be shown. What goes into a transaction that is signed, what it may cost, and that it was mined, is what as many endpoints
//! say as the quorum.

mod abi;
mod agree;
mod deploy;
mod error;
mod register;
mod send;
mod transport;

use crate::rpc;
use abi::Registry;
use alloy::{
    network::EthereumWallet,
    primitives::{Address, U256},
    providers::{Provider, ProviderBuilder, RootProvider},
    rpc::{client::RpcClient, types::TransactionRequest},
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
    transports::utils::guess_local_url,
};
pub(crate) use error::shown;
use error::{About, classify};
use node_core::{
    Label, RegistryId,
    registry::{self, Host, RegistryConfig, Routing},
};
use std::sync::Arc;
use transport::Transport;

pub use alloy::primitives::{Address as Account, B256 as Hash};
pub use deploy::{Terms, deploy, faucet, fund};
pub use error::ChainError;
pub use send::Mined;

/// Chains whose money is worth nothing: Anvil's and Hardhat's, and Geth's development mode.
pub(crate) const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// Most that one transaction may cost for gas unless more is allowed, in wei. 0.1 ether; an endpoint that lies burns no more.
const MAX_FEE: U256 = U256::from_limbs([100_000_000_000_000_000, 0, 0, 0]);

/// The registry's version that this program knows.
pub const REGISTRY_VERSION: u32 = 1;

/// What happens while a transaction is under way, for people who wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A transaction was sent.
    Sent {
        /// What it does, such as "commitment".
        what: &'static str,
        /// Its hash.
        transaction: Hash,
    },
    /// A transaction is in a block.
    Mined(Mined),
    /// A commitment must rest before it is revealed.
    Resting {
        /// For how long, in seconds.
        seconds: u64,
    },
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sent { what, transaction } => {
                write!(f, "sent the {what} in transaction {transaction}")
            }
            Self::Mined(mined) => write!(f, "mined in block {}, {} gas", mined.block, mined.gas),
            Self::Resting { seconds } => write!(
                f,
                "the commitment rests for {seconds} s, so that nobody can copy it"
            ),
        }
    }
}

/// What an owner puts under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The Ed25519 networking key.
    pub key: [u8; 32],
    /// Where a direct node listens.
    pub routing: Option<Routing>,
    /// Routers of an indirect node; names of the same registry that are enlisted as routers.
    pub routers: Vec<Label>,
}

/// One registry, through its endpoints.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The endpoint that is asked first, or alone.
    provider: RootProvider,
    rpc: String,
    /// All of them, and how many must say the same.
    endpoints: Arc<[(RootProvider, String)]>,
    quorum: usize,
    max_fee: U256,
    tld: String,
    chain_id: u64,
    contract: Address,
    wallet: Option<EthereumWallet>,
    account: Address,
}

impl Chain {
    /// Connects to the first of the registry's endpoints that can be reached, and checks its chain and the contract.
    ///
    /// An endpoint that answers wrongly is an error rather than a reason to try the next: it is a mistake in the
    /// configuration that somebody must see.
    pub async fn connect(
        registry: &RegistryConfig,
        wallet: Option<PrivateKeySigner>,
    ) -> Result<Self, ChainError> {
        let mut last = ChainError::NoRpc;
        for rpc in &registry.rpcs {
            let chain = Self::at(rpc, &registry.tld, registry.id, wallet.clone())?;
            match chain.check().await {
                Err(error @ ChainError::Unreachable { .. }) => last = error,
                Err(error) => return Err(error),
                Ok(()) => {
                    let all = registry
                        .rpcs
                        .iter()
                        .map(|rpc| Ok((provider(rpc)?, rpc.to_string())));
                    return Ok(Self {
                        endpoints: all.collect::<Result<_, ChainError>>()?,
                        quorum: registry.effective_quorum().into(),
                        ..chain
                    });
                }
            }
        }
        Err(last)
    }

    fn at(
        rpc: &str,
        tld: &str,
        id: RegistryId,
        wallet: Option<PrivateKeySigner>,
    ) -> Result<Self, ChainError> {
        let provider = provider(rpc)?;
        let account = wallet
            .as_ref()
            .map(PrivateKeySigner::address)
            .unwrap_or_default();
        Ok(Self {
            endpoints: [(provider.clone(), rpc.into())].into(),
            quorum: 1,
            max_fee: MAX_FEE,
            provider,
            rpc: rpc.into(),
            tld: tld.into(),
            chain_id: id.chain_id,
            contract: id.contract.into(),
            wallet: wallet.map(EthereumWallet::from),
            account,
        })
    }

    /// Allows a transaction to cost so much for gas, in wei, instead of 0.1 ether.
    pub fn max_fee(self, max_fee: U256) -> Self {
        Self { max_fee, ..self }
    }

    async fn check(&self) -> Result<(), ChainError> {
        let found = self
            .provider
            .get_chain_id()
            .await
            .map_err(|error| self.failed(error, None))?;
        if found != self.chain_id {
            return Err(ChainError::WrongChain {
                rpc: shown(&self.rpc),
                found,
                wanted: self.chain_id,
            });
        }
        let code = self
            .provider
            .get_code_at(self.contract)
            .await
            .map_err(|error| self.failed(error, None))?;
        if code.is_empty() {
            return Err(ChainError::NoContract {
                contract: self.contract,
                chain_id: self.chain_id,
            });
        }
        // A contract without this function reverts, or answers something that is not a version.
        let version = match self.call(Registry::registryVersionCall {}, None).await {
            Ok(version) => version,
            Err(error @ ChainError::Unreachable { .. }) => return Err(error),
            Err(_) => return Err(ChainError::NotARegistry(self.contract)),
        };
        if version != REGISTRY_VERSION {
            return Err(ChainError::RegistryVersion {
                contract: self.contract,
                version,
                known: REGISTRY_VERSION,
            });
        }
        Ok(())
    }

    /// The account that pays and owns; zeros without a wallet.
    pub const fn account(&self) -> Address {
        self.account
    }

    /// What an account has, in wei.
    pub async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        let balance = self.provider.get_balance(account).await;
        balance.map_err(|error| self.failed(error, None))
    }

    /// What a registration takes.
    pub async fn terms(&self) -> Result<Terms, ChainError> {
        Ok(Terms {
            min_commitment_age: self
                .ask_all(Registry::minCommitmentAgeCall {}, None)
                .await?,
            max_commitment_age: self
                .ask_all(Registry::maxCommitmentAgeCall {}, None)
                .await?,
            fee: self.ask_all(Registry::feeCall {}, None).await?,
            treasury: Address::ZERO,
        })
    }

    /// Whether nobody has the name.
    pub async fn available(&self, label: &Label) -> Result<bool, ChainError> {
        self.call(
            Registry::availableCall {
                label: label.to_string(),
            },
            Some(label),
        )
        .await
    }

    /// Who has a name.
    async fn owner(&self, label: &Label) -> Result<Address, ChainError> {
        let call = Registry::ownerOfCall {
            tokenId: token(label),
        };
        self.call(call, Some(label)).await
    }

    /// The record as one endpoint tells it, unchecked: owners must be able to see what is wrong with theirs.
    pub async fn record(&self, label: &Label) -> Result<registry::OnchainRecord, ChainError> {
        let data = self
            .eth_call(registry::resolve_call(label), Some(label))
            .await?;
        registry::decode_record(&data).map_err(|error| ChainError::Invalid(format!("{error:?}")))
    }

    /// The record as the quorum tells it, unchecked: what of it is to stay is signed again.
    pub async fn agreed_record(
        &self,
        label: &Label,
    ) -> Result<registry::OnchainRecord, ChainError> {
        let asked = |chain: Self| {
            let label = label.clone();
            async move { chain.record(&label).await }
        };
        self.agreed(asked).await
    }

    /// Replaces the whole record.
    pub async fn update(
        &self,
        label: &Label,
        record: &NewRecord,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        let record = self.encode(record).await?;
        self.change(
            "record",
            Registry::setRecordCall {
                tokenId: token(label),
                record,
            },
            label,
            progress,
        )
        .await
    }

    /// Replaces the networking key and nothing else.
    pub async fn rotate(
        &self,
        label: &Label,
        key: [u8; 32],
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        NewRecord {
            key,
            routing: None,
            routers: Vec::new(),
        }
        .check()?;
        self.change(
            "new key",
            Registry::rotateKeyCall {
                tokenId: token(label),
                key: key.into(),
            },
            label,
            progress,
        )
        .await
    }

    /// Lets `manager` change the record; zeros take the right back.
    pub async fn set_manager(
        &self,
        label: &Label,
        manager: Address,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        self.change(
            "manager",
            Registry::setManagerCall {
                tokenId: token(label),
                manager,
            },
            label,
            progress,
        )
        .await
    }

    /// Gives the name away. Its record is cleared and its epoch grows.
    pub async fn transfer(
        &self,
        label: &Label,
        to: Address,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        let from = self.owner(label).await?;
        self.change(
            "transfer",
            Registry::transferFromCall {
                from,
                to,
                tokenId: token(label),
            },
            label,
            progress,
        )
        .await
    }

    /// Makes the name one that others may list as their router.
    pub async fn enlist(
        &self,
        label: &Label,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<u32, ChainError> {
        self.change(
            "enlistment",
            Registry::enlistCall {
                tokenId: token(label),
            },
            label,
            progress,
        )
        .await?;
        self.agreed_index(label)
            .await?
            .ok_or_else(|| ChainError::RouterNotEnlisted(self.shown(label)))
    }

    /// The index of an enlisted router, as one endpoint says.
    pub async fn router_index(&self, label: &Label) -> Result<Option<u32>, ChainError> {
        let index = self.call(index_of(label), Some(label)).await?;
        Ok((index != 0).then_some(index))
    }

    /// The same as the quorum says.
    async fn agreed_index(&self, label: &Label) -> Result<Option<u32>, ChainError> {
        let index = self.ask_all(index_of(label), Some(label)).await?;
        Ok((index != 0).then_some(index))
    }

    /// The record as the contract takes it.
    async fn encode(&self, record: &NewRecord) -> Result<abi::Record, ChainError> {
        record.check()?;
        let mut routers = Vec::with_capacity(record.routers.len());
        for router in &record.routers {
            let Some(index) = self.agreed_index(router).await? else {
                let shown = self.shown(router);
                return Err(match self.available(router).await? {
                    true => ChainError::RouterUnknown(shown),
                    false => ChainError::RouterNotEnlisted(shown),
                });
            };
            routers.push(index);
        }
        let (host_kind, host, port, schemes) = match &record.routing {
            None => (0, Vec::new(), 0, 0),
            Some(Routing {
                host,
                port,
                ws,
                wss,
            }) => {
                let (kind, host) = match host {
                    Host::V4(address) => (1, address.octets().to_vec()),
                    Host::V6(address) => (2, address.octets().to_vec()),
                    Host::Dns(name) => (3, name.as_bytes().to_vec()),
                };
                (kind, host, *port, u8::from(*ws) | u8::from(*wss) << 1)
            }
        };
        Ok(abi::Record {
            networkingKey: record.key.into(),
            hostKind: host_kind,
            host: host.into(),
            port,
            schemes,
            routers,
        })
    }

    async fn change<C: SolCall>(
        &self,
        what: &'static str,
        call: C,
        label: &Label,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Mined, ChainError> {
        self.send(
            what,
            self.request(call.abi_encode(), U256::ZERO),
            Some(label),
            progress,
        )
        .await
    }

    async fn call<C: SolCall>(
        &self,
        call: C,
        label: Option<&Label>,
    ) -> Result<C::Return, ChainError> {
        let data = self.eth_call(call.abi_encode(), label).await?;
        C::abi_decode_returns(&data).map_err(|error| ChainError::Invalid(error.to_string()))
    }

    /// What the quorum answers.
    async fn ask_all<C>(&self, call: C, label: Option<&Label>) -> Result<C::Return, ChainError>
    where
        C: SolCall + Clone + Send + Sync,
        C::Return: PartialEq + Send,
    {
        let asked = |chain: Self| {
            let (call, label) = (call.clone(), label.cloned());
            async move { chain.call(call, label.as_ref()).await }
        };
        self.agreed(asked).await
    }

    async fn eth_call(&self, data: Vec<u8>, label: Option<&Label>) -> Result<Vec<u8>, ChainError> {
        let answer = self
            .provider
            .call(self.request(data, U256::ZERO))
            .latest()
            .await;
        answer
            .map(|bytes| bytes.to_vec())
            .map_err(|error| self.failed(error, label))
    }

    fn request(&self, data: Vec<u8>, value: U256) -> TransactionRequest {
        TransactionRequest::default()
            .from(self.account)
            .to(self.contract)
            .input(data.into())
            .value(value)
    }

    /// A name as people write it.
    fn shown(&self, label: &Label) -> String {
        format!("{label}.{}", self.tld)
    }

    fn failed(
        &self,
        error: alloy::transports::TransportError,
        label: Option<&Label>,
    ) -> ChainError {
        classify(
            error,
            &About {
                label,
                tld: &self.tld,
                account: self.account,
                rpc: &self.rpc,
            },
        )
    }
}

impl NewRecord {
    /// The checks that every node makes when it reads the record.
    fn check(&self) -> Result<(), registry::RecordError> {
        let Self {
            key,
            routing,
            routers,
        } = self.clone();
        registry::Record::unowned(key, routing, routers).check()
    }
}

fn provider(rpc: &str) -> Result<RootProvider, ChainError> {
    let unusable = |detail: String| ChainError::Unreachable {
        rpc: shown(rpc),
        detail,
    };
    let url = rpc
        .parse::<reqwest::Url>()
        .map_err(|error| unusable(error.to_string()))?;
    let client = rpc::http_client().map_err(|error| unusable(error.to_string()))?;
    let client = RpcClient::new(Transport { client, url }, guess_local_url(rpc));
    Ok(ProviderBuilder::new()
        .disable_recommended_fillers()
        .connect_client(client))
}

fn index_of(label: &Label) -> Registry::indexOfCall {
    Registry::indexOfCall {
        tokenId: token(label),
    }
}

fn token(label: &Label) -> U256 {
    U256::from_be_bytes(registry::token_id(label))
}
