//! Sections that hold names, and so need to know the registries.

use super::{
    ConfigError, Faucet, Node, Offer,
    file::{AnyOr, FaucetSection, NodeSection, OfferSection, PinSection, RouterSection},
    layers::Places,
    parse_name, relative_to,
};
use crate::chain::DEVELOPMENT_CHAINS;
use node_core::{
    Label, Name,
    node::{Access, RouterPolicy},
    registry::{Host, NameParseError, Record, RegistryConfig, Routing},
};

/// Longest user agent, in bytes.
const USER_AGENT_MAX: usize = 64;
/// One ether, in wei.
const ETHER: u128 = 1_000_000_000_000_000_000;

/// Reads names among these registries.
pub(super) struct Names<'a> {
    pub(super) registries: &'a [RegistryConfig],
    pub(super) places: &'a Places,
}

impl Names<'_> {
    fn name(&self, path: &str, text: &str) -> Result<Name, ConfigError> {
        parse_name(text, self.registries).map_err(|error| {
            let remedy = match error {
                NameParseError::TldUnknown(_) => "add a [[registry]] with this tld",
                NameParseError::NoTld(_) => "write it as \"label.tld\"",
                NameParseError::Label(_) => {
                    "choose 3 to 63 of a-z, 0-9 and single hyphens between them"
                }
            };
            ConfigError::new(self.places.of(path), format!("{text:?}: {error}"), remedy)
        })
    }

    pub(super) fn node(&self, section: NodeSection) -> Result<Node, ConfigError> {
        let name = section
            .name
            .map(|name| self.name("node.name", &name))
            .transpose()?;
        let user_agent = section
            .user_agent
            .unwrap_or_else(|| concat!("nectar/", env!("CARGO_PKG_VERSION")).into());
        if user_agent.len() > USER_AGENT_MAX || user_agent.chars().any(char::is_control) {
            return Err(ConfigError::new(
                self.places.of("node.user_agent"),
                "the user agent is longer than 64 bytes or holds control characters",
                "shorten it",
            ));
        }
        let key_file = section.key_file.unwrap_or_else(|| "nectar.key".into());
        let key_file = relative_to(self.places.base("node.key_file"), key_file);
        let ban_file = match section.ban_file {
            Some(path) => relative_to(self.places.base("node.ban_file"), path),
            None => key_file.with_extension("bans.json"),
        };
        Ok(Node {
            name,
            key_file,
            ban_file,
            user_agent,
            allow: self.allowed("node.allow", section.allow)?,
            guests: section.guests,
            allow_private: section.allow_private,
        })
    }

    pub(super) fn pin(
        &self,
        index: usize,
        section: PinSection,
    ) -> Result<(Name, Record), ConfigError> {
        let path = |key: &str| format!("pin[{index}].{key}");
        let fail = |key: &str, problem: String, remedy: &str| {
            Err(ConfigError::new(
                self.places.of(&path(key)),
                problem,
                remedy,
            ))
        };
        let name = self.name(&path("name"), &section.name)?;
        let mut key = [0; 32];
        if hex::decode_to_slice(&section.key, &mut key).is_err() {
            return fail(
                "key",
                format!("{:?} is not a networking key", section.key),
                "write 64 hex digits, as `nectar keygen` prints them",
            );
        }
        let routing = match (section.host, section.port) {
            (None, None) if section.schemes.is_none() => None,
            (Some(host), Some(port)) => {
                let host = match Host::parse(&host) {
                    Ok(host) => host,
                    Err(error) => {
                        return fail(
                            "host",
                            error.to_string(),
                            "write an IP address or a DNS name",
                        );
                    }
                };
                let schemes = section.schemes.unwrap_or_else(|| vec!["ws".into()]);
                if let Some(wrong) = schemes
                    .iter()
                    .find(|scheme| !matches!(scheme.as_str(), "ws" | "wss"))
                {
                    return fail(
                        "schemes",
                        format!("{wrong:?} is not a scheme"),
                        "write [\"ws\"], [\"wss\"] or both",
                    );
                }
                let has = |scheme: &str| schemes.iter().any(|other| other == scheme);
                Some(Routing {
                    host,
                    port,
                    ws: has("ws"),
                    wss: has("wss"),
                })
            }
            _ => {
                return fail(
                    "host",
                    "half an address".into(),
                    "give host and port, or neither",
                );
            }
        };
        let mut routers = Vec::with_capacity(section.routers.len());
        for (i, router) in section.routers.iter().enumerate() {
            routers.push(self.router_label(&path(&format!("routers[{i}]")), &name, router)?);
        }
        let record = Record::unowned(key, routing, routers);
        match record.check() {
            Ok(()) => Ok((name, record)),
            Err(error) => fail("name", error.to_string(), "correct this [[pin]]"),
        }
    }

    /// A record lists routers of its own registry only.
    fn router_label(&self, path: &str, of: &Name, text: &str) -> Result<Label, ConfigError> {
        let router = self.name(path, text)?;
        if router.registry != of.registry {
            return Err(ConfigError::new(
                self.places.of(path),
                format!("{text:?} belongs to another registry"),
                "list routers with the same ending as the name",
            ));
        }
        Ok(router.label)
    }

    /// What pages are offered: the node itself if it is a router, unless the section says otherwise.
    pub(super) fn offer(
        &self,
        section: OfferSection,
        node: &Node,
        router: &RouterPolicy,
    ) -> Result<Offer, ConfigError> {
        let routers = match section.routers {
            Some(written) => written
                .iter()
                .enumerate()
                .map(|(i, name)| self.name(&format!("offer.routers[{i}]"), name))
                .collect::<Result<_, _>>()?,
            None if router.host == Access::Nobody => Vec::new(),
            None => node.name.iter().cloned().collect(),
        };
        let echo = section
            .echo
            .map(|name| self.name("offer.echo", &name))
            .transpose()?;
        Ok(Offer { routers, echo })
    }

    pub(super) fn router(&self, section: RouterSection) -> Result<RouterPolicy, ConfigError> {
        Ok(RouterPolicy {
            host: self.allowed("router.host", section.host)?,
            call: self.allowed("router.call", section.call)?,
            guests: section.guests,
        })
    }

    fn allowed(&self, path: &str, written: Option<AnyOr>) -> Result<Access, ConfigError> {
        match written {
            None => Ok(Access::Anyone),
            Some(AnyOr::Word(word)) if word == "anyone" => Ok(Access::Anyone),
            Some(AnyOr::Word(word)) => Err(ConfigError::new(
                self.places.of(path),
                format!("{word:?} is neither \"anyone\" nor a list"),
                "write \"anyone\", or a list of names such as [\"alice.nectar\"]",
            )),
            Some(AnyOr::List(list)) => list
                .iter()
                .enumerate()
                .map(|(i, name)| self.name(&format!("{path}[{i}]"), name))
                .collect::<Result<Vec<_>, _>>()
                .map(|names| Access::Only(names.into())),
        }
    }

    pub(super) fn faucet(&self, section: FaucetSection) -> Result<Faucet, ConfigError> {
        let fail = |key: &str, problem: String, remedy: &str| {
            Err(ConfigError::new(
                self.places.of(&format!("faucet.{key}")),
                problem,
                remedy,
            ))
        };
        let Some(registry) = self
            .registries
            .iter()
            .find(|registry| *registry.tld == *section.tld)
        else {
            return fail(
                "tld",
                format!("no registry is configured for .{}", section.tld),
                "add a [[registry]] with this tld",
            );
        };
        if !DEVELOPMENT_CHAINS.contains(&registry.id.chain_id) {
            return fail(
                "tld",
                format!(
                    "chain {} is no development chain: a faucet would give real money away",
                    registry.id.chain_id
                ),
                "remove [faucet]",
            );
        }
        let amount = match section.amount.as_deref().map(parse_amount) {
            None => ETHER,
            Some(Some(amount)) => amount,
            Some(None) => {
                return fail(
                    "amount",
                    "not an amount".into(),
                    "write a number and its unit, as in \"1 ether\" or \"5 gwei\"",
                );
            }
        };
        let wallet_file = relative_to(self.places.base("faucet.wallet_file"), section.wallet_file);
        Ok(Faucet {
            tld: section.tld,
            wallet_file,
            amount,
        })
    }
}

fn parse_amount(text: &str) -> Option<u128> {
    let (number, unit) = text.trim().split_once(' ')?;
    let unit = match unit.trim() {
        "wei" => 1,
        "gwei" => 1_000_000_000,
        "ether" => ETHER,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(unit)
}
