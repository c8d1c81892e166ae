//! What can be typed.

use crate::{
    chain::Chain,
    config::{Config, Override, check_rpc, parse_address, parse_time},
    keystore::{self, PassphraseSource},
};
use alloy::primitives::{U256, utils::parse_ether};
use clap::{ArgAction, Args, Parser, Subcommand};
use node_core::{
    Name, RegistryId,
    registry::{Host, RegistryConfig, Routing},
};
use std::{path::PathBuf, str::FromStr, time::Duration};

use super::Failure;

/// Nodes that find each other by names registered onchain and talk end-to-end encrypted.
#[derive(Debug, Parser)]
#[command(
    name = "nectar",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line, configuration or key file, 3 name not registered."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Heads the options that every command takes, which would otherwise stand between its own.
const EVERYWHERE: &str = "Options of every command";

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Configuration file; ./nectar.toml if it exists [env: NECTAR_CONFIG]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Put a setting over the configuration file, such as listen.port=8080; may be repeated
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(super) set: Vec<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a networking key, or a wallet
    Keygen(KeygenArgs),
    /// Register a name onchain, with its record
    Register(RegisterArgs),
    /// Show or change the record of a name
    #[command(subcommand)]
    Record(RecordCommand),
    /// Look a name up as a node does, and say how the answer is known
    Resolve(ResolveArgs),
    /// Run a node
    Run(RunArgs),
    /// Send a peer a message and wait until its application has taken it
    Send(MessageArgs),
    /// Ask a peer and print its answer
    Request(MessageArgs),
    /// Measure the round trip to a peer
    Ping(PingArgs),
    /// Show what a node on this machine does
    Status(StatusArgs),
    /// Show, add and lift bans of the configured node, running or not
    #[command(subcommand)]
    Ban(BanCommand),
    /// Deploy a registry of your own
    Deploy(DeployArgs),
    /// Send money from the wallet to an account
    Fund(FundArgs),
    /// Run everything on this machine: a chain, two routers, a node to talk to, and the page
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub(super) struct KeygenArgs {
    /// Where to write it; nothing is overwritten [default: nectar.key, or wallet.key]
    #[arg(long, short, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Make a wallet, which owns names and pays, instead of a networking key
    #[arg(long)]
    pub(super) wallet: bool,
    /// Do not seal it with a passphrase; the file's mode alone guards it
    #[arg(long)]
    pub(super) unencrypted: bool,
}

/// Which registry, if not as configured.
#[derive(Clone, Debug, Default, Args)]
pub struct RegistryArgs {
    /// RPC endpoint instead of the configured ones; may be repeated
    #[arg(long, value_name = "URL", value_parser = rpc_url)]
    pub rpc: Vec<String>,
    /// Address of the registry's contract
    #[arg(long, value_name = "0x…", requires = "chain_id")]
    pub contract: Option<Address>,
    /// Chain that the registry is on
    #[arg(long, value_name = "N", requires = "contract")]
    pub chain_id: Option<u64>,
    /// Ending of its names
    #[arg(long, value_name = "TLD", default_value = "nectar")]
    pub tld: String,
}

impl RegistryArgs {
    /// Puts these flags over the registries of `config`.
    pub fn apply(&self, config: &mut Config) {
        let found = config
            .registries
            .iter_mut()
            .find(|registry| *registry.tld == *self.tld);
        let registry = match (found, self.contract, self.chain_id) {
            (Some(found), None, _) | (Some(found), _, None) => found,
            (Some(found), Some(contract), Some(chain_id)) => {
                found.id = RegistryId {
                    chain_id,
                    contract: contract.0,
                };
                found.quorum = None;
                found
            }
            (None, Some(contract), Some(chain_id)) => {
                config.registries.push(RegistryConfig {
                    id: RegistryId {
                        chain_id,
                        contract: contract.0,
                    },
                    tld: self.tld.as_str().into(),
                    rpcs: Vec::new(),
                    quorum: None,
                });
                match config.registries.last_mut() {
                    Some(added) => added,
                    None => return,
                }
            }
            (None, _, _) => return,
        };
        if !self.rpc.is_empty() {
            registry.rpcs = self.rpc.iter().map(|rpc| rpc.as_str().into()).collect();
            registry.quorum = None;
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct WalletArgs {
    /// Key file of the wallet that signs and pays [env: NECTAR_WALLET_KEY_FILE, NECTAR_WALLET_KEY]
    #[arg(long, value_name = "FILE")]
    wallet: Option<PathBuf>,
}

impl WalletArgs {
    pub(super) fn load(&self) -> Result<alloy::signers::local::PrivateKeySigner, Failure> {
        Ok(keystore::wallet(self.wallet.as_deref())?.ok_or(crate::chain::ChainError::NoWallet)?)
    }
}

/// What a transaction may cost.
#[derive(Debug, Args)]
pub(super) struct FeeArgs {
    /// Most that a transaction may cost for gas [default: 0.1]
    #[arg(long, value_name = "ETHER", value_parser = ether)]
    max_fee: Option<U256>,
}

impl FeeArgs {
    pub(super) fn apply(&self, chain: Chain) -> Chain {
        match self.max_fee {
            Some(max_fee) => chain.max_fee(max_fee),
            None => chain,
        }
    }
}

/// The networking key of a record.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Networking key file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Networking key in hex, if its file is elsewhere
    #[arg(long, value_name = "HEX", conflicts_with = "key", value_parser = public_key)]
    public_key: Option<PublicKey>,
}

impl KeyArgs {
    /// The key that was given. A sealed file is opened: a key that nobody can use must not be registered.
    pub(super) fn given(&self) -> Result<Option<[u8; 32]>, Failure> {
        match (&self.public_key, &self.key) {
            (Some(key), _) => Ok(Some(key.0)),
            (None, Some(file)) => Ok(Some(open(file)?)),
            (None, None) => Ok(None),
        }
    }

    /// The key that was given, else the configured one.
    pub(super) fn or_configured(&self, config: &Config) -> Result<[u8; 32], Failure> {
        match self.given()? {
            Some(key) => Ok(key),
            None => open(&config.node.key_file),
        }
    }
}

fn open(file: &std::path::Path) -> Result<[u8; 32], Failure> {
    Ok(
        keystore::load_networking(file, &PassphraseSource::networking())?
            .verifying_key()
            .to_bytes(),
    )
}

/// Where a node is reached: at an address of its own, or through routers.
#[derive(Debug, Args)]
pub(super) struct ReachArgs {
    /// Public IP address or DNS name of a direct node
    #[arg(long, value_name = "HOST", requires = "port", conflicts_with = "router", value_parser = host)]
    host: Option<Host>,
    /// Public port of a direct node
    #[arg(long, value_name = "PORT", requires = "host", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Schemes that a direct node serves
    #[arg(long, value_name = "ws|wss", requires = "host", value_delimiter = ',', default_values = ["ws"])]
    scheme: Vec<Scheme>,
    /// Router of an indirect node; may be repeated, in order of preference
    #[arg(long, value_name = "NAME")]
    pub(super) router: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scheme {
    Ws,
    Wss,
}

impl ReachArgs {
    pub(super) fn routing(&self) -> Option<Routing> {
        let (host, port) = (self.host.clone()?, self.port?);
        let has = |scheme| self.scheme.contains(&scheme);
        Some(Routing {
            host,
            port,
            ws: has(Scheme::Ws),
            wss: has(Scheme::Wss),
        })
    }

    /// The routers, which must be of the name's own registry.
    pub(super) fn routers(
        &self,
        config: &Config,
        of: &Name,
    ) -> Result<Vec<node_core::Label>, Failure> {
        let mut routers = Vec::with_capacity(self.router.len());
        for text in &self.router {
            let router = config.parse_name(text)?;
            if router.registry != of.registry {
                return Err(Failure::usage(format!(
                    "{text} belongs to another registry than the name that would list it"
                )));
            }
            routers.push(router.label);
        }
        Ok(routers)
    }
}

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The name, such as alice.nectar
    pub(super) name: String,
    #[command(flatten)]
    pub(super) key: KeyArgs,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
    /// Account that will own the name [default: the wallet's]
    #[arg(long, value_name = "0x…")]
    pub(super) owner: Option<Address>,
    /// Enlist the name as a router that others may list
    #[arg(long)]
    pub(super) enlist: bool,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
    #[command(flatten)]
    pub(super) fee: FeeArgs,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum RecordCommand {
    /// Show a record as one RPC endpoint tells it, unchecked
    Show(NameArgs),
    /// Change a record: what is not given stays
    Update(UpdateArgs),
    /// Replace the networking key
    Rotate(RotateArgs),
    /// Make the name a router that others may list
    Enlist(ChangeArgs),
    /// Let an account change the record, or nobody with `none`
    Manager(ManagerArgs),
    /// Give the name away; its record is cleared
    Transfer(AccountArgs),
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The name, such as alice.nectar
    pub(super) name: String,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    pub(super) name: NameArgs,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
    #[command(flatten)]
    pub(super) fee: FeeArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) key: KeyArgs,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// The account
    #[arg(long, value_name = "0x…")]
    pub(super) to: Address,
}

#[derive(Debug, Args)]
pub(super) struct ManagerArgs {
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    /// The account; `none` takes the right back
    #[arg(long, value_name = "0x…|none", value_parser = address_or_none)]
    pub(super) to: Address,
}

#[derive(Debug, Args)]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    pub(super) name: NameArgs,
}

/// What `nectar run` takes beside the configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Read and check everything, print what it means and may cost, and end
    #[arg(long)]
    pub check: bool,
    /// The node's name [setting: node.name]
    #[arg(long)]
    pub name: Option<String>,
    /// Networking key file [setting: node.key_file]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Listen at this address [setting: listen.address]
    #[arg(long, value_name = "IP")]
    pub address: Option<String>,
    /// Listen at this port [setting: listen.port]
    #[arg(long)]
    pub port: Option<String>,
    /// Serve the page in this directory [setting: listen.page]
    #[arg(long, value_name = "DIR")]
    pub page: Option<PathBuf>,
    /// Dial private addresses too [setting: node.allow_private]
    #[arg(long)]
    pub allow_private: bool,
    /// Answer whoever writes: echo.1 requests, chat.1 messages, file.1 streams
    #[arg(long)]
    pub echo: bool,
}

impl RunArgs {
    /// These flags as settings.
    pub fn overrides(&self) -> Vec<Override> {
        let path = |path: &PathBuf| path.display().to_string();
        [
            ("--name", "node.name", self.name.clone()),
            ("--key", "node.key_file", self.key.as_ref().map(path)),
            ("--address", "listen.address", self.address.clone()),
            ("--port", "listen.port", self.port.clone()),
            ("--page", "listen.page", self.page.as_ref().map(path)),
            (
                "--allow-private",
                "node.allow_private",
                self.allow_private.then(|| "true".into()),
            ),
        ]
        .into_iter()
        .filter_map(|(place, path, value)| {
            Some(Override {
                place: place.into(),
                path: path.into(),
                value: value?,
            })
        })
        .collect()
    }
}

/// What commands that talk to one peer take: `nectar send` and `nectar request`.
#[derive(Clone, Debug, Args)]
pub struct MessageArgs {
    /// The peer, such as bob.nectar
    pub name: String,
    /// Application protocol, such as echo.1
    pub protocol: String,
    /// What to send; `-` reads standard input
    #[arg(default_value = "")]
    pub payload: String,
    /// How long to wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as a heading")]
    pub caller: CallerArgs,
}

/// As whom a command talks.
#[derive(Clone, Debug, Default, Args)]
pub struct CallerArgs {
    /// Call as a guest, without the configured name
    #[arg(long)]
    pub guest: bool,
    /// Dial private addresses too [setting: node.allow_private]
    #[arg(long)]
    pub allow_private: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as a heading")]
    pub registry: RegistryArgs,
}

/// What `nectar ping` takes.
#[derive(Clone, Debug, Args)]
pub struct PingArgs {
    /// The peer, such as bob.nectar
    pub name: String,
    /// Say how the name was resolved, which routes were tried, and how long each step took
    #[arg(long)]
    pub explain: bool,
    /// How many round trips to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as a heading")]
    pub caller: CallerArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Port of the node [default: listen.port]
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// The node serves TLS
    #[arg(long)]
    pub(super) tls: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// Show who is banned, until when, and what for
    List,
    /// Ban a name or a network: its sessions end, and it may not come back
    Add(BanAddArgs),
    /// Lift a ban before its end
    Lift(BanLiftArgs),
}

#[derive(Debug, Args)]
pub(super) struct BanAddArgs {
    /// A name such as mallory.nectar, or a network (IPv4 /24, IPv6 /48) such as 203.0.113.0/24
    pub(super) who: String,
    /// For how long, such as 30min or 24h [default: limits.ban]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(super) time: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct BanLiftArgs {
    /// As `nectar ban list` shows it
    pub(super) who: String,
}

#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    /// RPC endpoint of the chain
    #[arg(long, value_name = "URL", value_parser = rpc_url)]
    pub(super) rpc: String,
    /// The compiled contract, contracts/artifacts/NectarRegistry.json
    #[arg(long, value_name = "FILE")]
    pub(super) artifact: PathBuf,
    /// Seconds that a commitment must rest before it is revealed; at 0 registrations can be copied on the way
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) min_age: u64,
    /// Seconds after which a commitment has lapsed
    #[arg(long, value_name = "SECONDS", default_value_t = 86400)]
    pub(super) max_age: u64,
    /// Wei per registration
    #[arg(long, value_name = "WEI", default_value_t = 0, requires = "treasury")]
    pub(super) fee: u128,
    /// Who receives the fees
    #[arg(long, value_name = "0x…")]
    pub(super) treasury: Option<Address>,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory of the built page
    #[arg(long, value_name = "DIR")]
    pub(super) page: Option<PathBuf>,
    /// The anvil program
    #[arg(long, value_name = "PROGRAM")]
    pub(super) anvil: Option<PathBuf>,
    /// The compiled contract, contracts/artifacts/NectarRegistry.json
    #[arg(long, value_name = "FILE")]
    pub(super) contract: Option<PathBuf>,
    /// Port of the page; otherwise 7700 if it is free
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Write a JSON object with the page's address here once everything runs
    #[arg(long, value_name = "FILE")]
    pub(super) ready: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct FundArgs {
    /// Who receives it
    pub(super) to: Address,
    /// How much, in wei
    #[arg(long, value_name = "WEI", default_value_t = 1_000_000_000_000_000_000)]
    pub(super) wei: u128,
    /// RPC endpoint of the chain
    #[arg(long, value_name = "URL", value_parser = rpc_url)]
    pub(super) rpc: String,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
}

/// An account or contract, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub [u8; 20]);

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_address(text)
            .map(Self)
            .ok_or("an address is 0x and 40 hex digits")
    }
}

fn address_or_none(text: &str) -> Result<Address, &'static str> {
    match text {
        "none" => Ok(Address([0; 20])),
        text => text.parse(),
    }
}

#[derive(Clone, Copy, Debug)]
struct PublicKey([u8; 32]);

fn public_key(text: &str) -> Result<PublicKey, &'static str> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key)
        .map_err(|_| "a networking key is 64 hex digits, as `nectar keygen` prints it")?;
    Ok(PublicKey(key))
}

fn ether(text: &str) -> Result<U256, &'static str> {
    parse_ether(text).map_err(|_| "write an amount of ether, such as 0.5")
}

fn rpc_url(text: &str) -> Result<String, String> {
    check_rpc(text).map(|()| text.to_owned())
}

fn host(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_private_key() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                for secret in ["private_key", "secret", "passphrase"] {
                    assert!(!name.contains(secret), "{name}");
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
