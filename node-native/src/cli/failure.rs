//! How a command ends when it does not succeed.

use crate::{
    bans::BansError,
    chain::ChainError,
    config::ConfigError,
    http::{BindError, PageError},
    keystore::KeyError,
    node::{NodeError, StartError},
    rpc::ClientError,
};
use node_core::{
    Code,
    registry::{EndpointHealth, NameParseError, ResolveError},
};

/// A message for people and an exit code for scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code; see the module's documentation.
    pub exit: u8,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    /// It did not work: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: 1,
            message: message.into(),
        }
    }

    /// What was asked for makes no sense: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: 2,
            message: message.into(),
        }
    }

    /// The name is not registered: exit code 3.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self {
            exit: 3,
            message: message.into(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<NameParseError> for Failure {
    fn from(error: NameParseError) -> Self {
        let remedy = match error {
            NameParseError::TldUnknown(_) => {
                ": add a [[registry]] to nectar.toml, or give --tld, --chain-id, --contract and --rpc"
            }
            _ => "",
        };
        Self::usage(format!("{error}{remedy}"))
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::NameUnknown(_) => Self::unknown(error.to_string()),
            ChainError::NoRpc
            | ChainError::NoWallet
            | ChainError::NameInvalid { .. }
            | ChainError::Record(_)
            | ChainError::WrongChain { .. }
            | ChainError::NoContract { .. }
            | ChainError::NotARegistry(_)
            | ChainError::Artifact { .. } => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error.code {
            Code::NameUnknown => Self::unknown(error.to_string()),
            Code::WrongChain => Self::usage(format!(
                "{error}: correct chain_id (--chain-id), or give an endpoint of that chain with rpcs (--rpc)"
            )),
            Code::NotARegistry => Self::usage(format!("{error}: correct contract (--contract)")),
            Code::RpcInvalid => Self::failed(format!(
                "{error}: either contract (--contract) is not a nectar registry, or the endpoint is broken"
            )),
            Code::RpcUnreachable => Self::failed(unanswered(error.detail.as_deref())),
            _ => Self::failed(error.to_string()),
        }
    }
}

/// What `code` says about the RPC endpoints, with the name of each and what was wrong with it; `None` if it is about
/// something else.
pub(super) fn trouble(code: Code, endpoints: &[EndpointHealth]) -> Option<String> {
    if !matches!(
        code,
        Code::RpcUnreachable
            | Code::RpcStale
            | Code::RpcDisagree
            | Code::RpcInvalid
            | Code::WrongChain
            | Code::NotARegistry
    ) {
        return None;
    }
    let each: Vec<_> = endpoints
        .iter()
        .filter_map(|endpoint| {
            Some(format!(
                "{}: {}",
                endpoint.host(),
                endpoint.detail.as_ref()?
            ))
        })
        .collect();
    let detail = (!each.is_empty()).then(|| each.join(", "));
    if code == Code::RpcUnreachable {
        return Some(unanswered(detail.as_deref()));
    }
    let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
    let remedy = match code {
        Code::WrongChain | Code::NotARegistry => "; correct chain_id, contract or rpcs",
        _ => "",
    };
    Some(format!("{code}{detail}{remedy}"))
}

/// An endpoint that sends an error page is no more of use than one that is silent, but it is not silent.
fn unanswered(detail: Option<&str>) -> String {
    let detail = detail.unwrap_or("none is configured");
    format!(
        "no RPC endpoint gives an answer of use: {detail}; check that it runs, and that rpcs (--rpc) is right"
    )
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind(error) => error.into(),
            StartError::Client(error) => error.into(),
            StartError::Bans(error) => error.into(),
            StartError::Config(_) | StartError::Tls(_) => Self::usage(error.to_string()),
            StartError::Entropy(_) => Self::failed(error.to_string()),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let retry = error.retry.map_or_else(String::new, |retry| {
            format!("; try again in {} s", retry.as_secs() + 1)
        });
        let message = format!("{error}{retry}");
        match error.reason() {
            Code::NameUnknown => Self::unknown(format!("{error}: check the spelling")),
            Code::AddressRefused => Self::failed(format!(
                "{message}: if it is a node of your own network, give --allow-private"
            )),
            _ => Self::failed(message),
        }
    }
}

impl From<BansError> for Failure {
    fn from(error: BansError) -> Self {
        match error {
            // What nobody can read or write now may be well in a moment: the service starts again.
            BansError::File(..) | BansError::Locked(..) => Self::failed(error.to_string()),
            BansError::Content(..) => Self::usage(error.to_string()),
        }
    }
}

impl From<PageError> for Failure {
    fn from(error: PageError) -> Self {
        Self::usage(error.to_string())
    }
}
