//! What goes wrong with a chain, in words that say what to do.

use super::abi::Registry::RegistryErrors;
use alloy::{
    primitives::{Address, B256, U256, utils::format_ether},
    sol_types::SolInterface,
    transports::{RpcError, TransportErrorKind},
};
use node_core::{Label, NameError};

/// Why something onchain could not be read or done.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No endpoint is configured.
    #[error("no RPC endpoint is configured: give rpcs in [[registry]], or --rpc")]
    NoRpc,
    /// No connection, or no answer in time.
    #[error(
        "the RPC endpoint {rpc} cannot be reached ({detail}): check that it runs and that its URL is right"
    )]
    Unreachable {
        /// Its URL, without path and query, which may hold a secret.
        rpc: String,
        /// What the network said.
        detail: String,
    },
    /// It answered with an error that is no revert.
    #[error("the RPC endpoint refused: {0}")]
    Refused(String),
    /// It answered, but not what was asked.
    #[error("the RPC endpoint's answer makes no sense: {0}")]
    Invalid(String),
    /// Fewer endpoints than the quorum say the same.
    #[error(
        "of {of} RPC endpoints no {quorum} say the same, as the quorum asks for: `nectar run --check` shows which one does not answer; \
         correct rpcs, or give one that you trust with --rpc"
    )]
    Disagree {
        /// How many must.
        quorum: usize,
        /// How many there are.
        of: usize,
    },
    /// Gas that costs more than was allowed.
    #[error(
        "this was not sent: it may cost {} ether for gas, and {} ether is the most that is allowed; if the endpoints tell the true \
         price, allow more where the command has --max-fee",
        format_ether(*.fee), format_ether(*.most)
    )]
    TooDear {
        /// What it may cost, in wei.
        fee: U256,
        /// What it may cost at most, in wei.
        most: U256,
    },
    /// A registry that takes too long to wait for.
    #[error(
        "commitments to this registry must rest for {0} s, more than the day that is waited at most: is contract right?"
    )]
    RestsTooLong(u64),
    /// Another chain than configured.
    #[error(
        "{rpc} serves chain {found}, but chain {wanted} is configured: correct chain_id or the RPC's URL"
    )]
    WrongChain {
        /// The endpoint.
        rpc: String,
        /// The chain that it serves.
        found: u64,
        /// The chain that is configured.
        wanted: u64,
    },
    /// Nothing is deployed there.
    #[error("there is no contract at {contract} on chain {chain_id}: correct contract or chain_id")]
    NoContract {
        /// The address.
        contract: Address,
        /// The chain.
        chain_id: u64,
    },
    /// Something else is deployed there.
    #[error("the contract at {0} is not a nectar registry: correct contract")]
    NotARegistry(Address),
    /// A registry of the future.
    #[error(
        "the registry at {contract} has version {version}, this program knows version {known}: update it"
    )]
    RegistryVersion {
        /// The address.
        contract: Address,
        /// Its version.
        version: u32,
        /// Ours.
        known: u32,
    },
    /// Somebody has this name, which is written with its ending, as all names in these errors are.
    #[error("{0} is taken: choose another name")]
    NameTaken(String),
    /// Whoever asks for the name has it.
    #[error("{0} is yours already: `nectar record update` changes what its record says")]
    NameYours(String),
    /// Nobody has it.
    #[error("nobody has registered {0}")]
    NameUnknown(String),
    /// The contract's rules, which are ours.
    #[error("{label:?} is no valid name: {rule}")]
    NameInvalid {
        /// What was asked for.
        label: String,
        /// The broken rule.
        rule: NameError,
    },
    /// Not the owner, and not the manager.
    #[error("{account} may not change {name}: only its owner and its manager may")]
    NotAuthorized {
        /// The name.
        name: String,
        /// The account that tried.
        account: Address,
    },
    /// A router that was never enlisted cannot stand in a record.
    #[error("{0} is not enlisted as a router: its owner must run `nectar record enlist {0}` first")]
    RouterNotEnlisted(String),
    /// Nor one that nobody owns.
    #[error("nobody has registered {0}, so it is no router: give the name of another one")]
    RouterUnknown(String),
    /// Once is enough.
    #[error("{name} is enlisted already, as router {index}")]
    AlreadyEnlisted {
        /// The name.
        name: String,
        /// Its index.
        index: u32,
    },
    /// Not enough money. Nobody says how much it will take before there is something.
    #[error(
        "{account} has {}: send it some{}",
        lacks(*.balance, *.needed), at_hand(*.account, .development.as_deref())
    )]
    InsufficientFunds {
        /// Who pays.
        account: Address,
        /// What it has, in wei.
        balance: U256,
        /// What may be needed, in wei.
        needed: U256,
        /// The endpoint, without path and query, if it serves a development chain.
        development: Option<String>,
    },
    /// A transaction needs a wallet.
    #[error(
        "this needs a wallet: give --wallet FILE, or set NECTAR_WALLET_KEY_FILE or NECTAR_WALLET_KEY"
    )]
    NoWallet,
    /// The contract refused for another reason.
    #[error("the contract refused: {0}")]
    Reverted(String),
    /// A transaction that failed although its simulation did not.
    #[error("transaction {0} was mined but failed: somebody else was probably faster; try again")]
    Failed(B256),
    /// A transaction that nobody mines.
    #[error(
        "transaction {0} is sent but was not mined within two minutes: look it up before trying again"
    )]
    NotMined(B256),
    /// The signer or the encoder failed.
    #[error("the transaction could not be signed: {0}")]
    Signing(String),
    /// A compiled contract that cannot be used.
    #[error("{path} is not a compiled registry: {problem}")]
    Artifact {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The record itself.
    #[error("this record is invalid: {0}")]
    Record(#[from] node_core::registry::RecordError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Entropy(String),
}

/// What a call was about, to turn the contract's hashes back into what a person typed.
pub(super) struct About<'a> {
    pub(super) label: Option<&'a Label>,
    /// The registry's ending.
    pub(super) tld: &'a str,
    pub(super) account: Address,
    pub(super) rpc: &'a str,
}

impl About<'_> {
    /// The name, with its ending.
    fn name(&self) -> Option<String> {
        Some(format!("{}.{}", self.label?, self.tld))
    }
}

fn lacks(balance: U256, needed: U256) -> String {
    match balance.is_zero() {
        true => "no money to pay for this".into(),
        false => format!(
            "{} ether, but this takes up to {} ether",
            format_ether(balance),
            format_ether(needed)
        ),
    }
}

/// Where money comes from, if it is worth nothing.
fn at_hand(account: Address, development: Option<&str>) -> String {
    match development {
        Some(rpc) => format!(
            "; on this development chain by `nectar fund {account} --rpc {rpc}`, with the wallet of an account that has some"
        ),
        None => String::new(),
    }
}

/// The error behind a failed request.
pub(super) fn classify(error: RpcError<TransportErrorKind>, about: &About<'_>) -> ChainError {
    match error {
        RpcError::ErrorResp(payload) => match payload.as_revert_data() {
            Some(data) => reverted(&data, about),
            None if payload.message.contains("revert") => {
                ChainError::Reverted(foreign(&payload.message))
            }
            None => ChainError::Refused(foreign(&payload.message)),
        },
        RpcError::Transport(kind) => {
            let detail = match &kind {
                TransportErrorKind::Custom(source) => innermost(&**source),
                other => other.to_string(),
            };
            ChainError::Unreachable {
                rpc: shown(about.rpc),
                detail: foreign(&detail),
            }
        }
        other => ChainError::Invalid(foreign(&other.to_string())),
    }
}

fn reverted(data: &[u8], about: &About<'_>) -> ChainError {
    let Ok(error) = RegistryErrors::abi_decode(data) else {
        return ChainError::Reverted(if data.is_empty() {
            "it gave no reason".into()
        } else {
            format!("0x{}", hex::encode(data.get(..36).unwrap_or(data)))
        });
    };
    match (error, about.name()) {
        (RegistryErrors::NameTaken(_), Some(name)) => ChainError::NameTaken(name),
        (
            RegistryErrors::NameUnknown(_) | RegistryErrors::ERC721NonexistentToken(_),
            Some(name),
        ) => ChainError::NameUnknown(name),
        (RegistryErrors::NotAuthorized(error), Some(name)) => ChainError::NotAuthorized {
            name,
            account: error.account,
        },
        (
            RegistryErrors::ERC721IncorrectOwner(_) | RegistryErrors::ERC721InsufficientApproval(_),
            Some(name),
        ) => ChainError::NotAuthorized {
            name,
            account: about.account,
        },
        (RegistryErrors::AlreadyEnlisted(error), Some(name)) => ChainError::AlreadyEnlisted {
            name,
            index: error.index,
        },
        (RegistryErrors::LabelInvalid(error), _) => match Label::new(&error.label) {
            Err(rule) => ChainError::NameInvalid {
                label: error.label,
                rule,
            },
            Ok(_) => ChainError::Reverted(format!("it breaks rule {} of the contract", error.rule)),
        },
        (other, _) => ChainError::Reverted(describe(&other)),
    }
}

/// The name and arguments of an error for which there is no better sentence.
fn describe(error: &RegistryErrors) -> String {
    let debug = format!("{error:?}");
    // `NameTaken(NameTaken { tokenId: 1 })` says its name twice.
    match debug.split_once('(') {
        Some((_, inner)) => inner.trim_end_matches(')').to_owned(),
        None => debug,
    }
}

/// Origin of a URL: the rest may hold an API key.
pub(crate) fn shown(rpc: &str) -> String {
    reqwest::Url::parse(rpc)
        .map(|url| url.origin().ascii_serialization())
        .unwrap_or_else(|_| "<not a URL>".into())
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Text of an endpoint, bounded and without control characters, fit for a terminal.
fn foreign(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;
    use crate::chain::abi::Registry;
    use alloy::sol_types::SolError;

    #[test]
    fn reverts_become_sentences_about_what_was_typed() {
        let label = Label::new("alice").unwrap();
        let about = About {
            label: Some(&label),
            tld: "nectar",
            account: Address::ZERO,
            rpc: "",
        };
        let say = |data: Vec<u8>| reverted(&data, &about).to_string();
        assert_eq!(
            say(Registry::NameTaken { tokenId: U256::ONE }.abi_encode()),
            "alice.nectar is taken: choose another name"
        );
        assert_eq!(
            say(Registry::LabelInvalid {
                label: "Al".into(),
                rule: 1
            }
            .abi_encode()),
            "\"Al\" is no valid name: a name needs at least 3 characters"
        );
        let other = say(Registry::RouterDuplicate { index: 7 }.abi_encode());
        assert!(other.contains("RouterDuplicate { index: 7 }"), "{other}");
        assert!(say(vec![]).contains("no reason"));
        assert!(say(vec![1, 2, 3, 4]).contains("0x01020304"));
    }

    #[test]
    fn an_endpoint_is_shown_without_its_secret() {
        assert_eq!(
            shown("https://rpc.example/v3/secret?key=1"),
            "https://rpc.example"
        );
    }
}
