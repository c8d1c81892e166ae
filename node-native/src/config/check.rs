//! From what is written to what it means, or to an error.

use super::{
    Allow, Config, ConfigError, Faucet, Listen, Node, RouterPolicy, TlsFiles,
    file::{
        AnyOr, FaucetSection, File, ListenSection, NodeSection, PinSection, RegistrySection,
        RouterSection,
    },
    layers::{Merged, Places},
    parse_name, relative_to,
};
use node_core::{
    Label, Name, RegistryId,
    registry::{Host, Record, RegistryConfig, Routing},
};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Ports and sizes that work without a word of configuration.
const PORT: u16 = 9444;
const CONNECTIONS: usize = 4096;
const CONNECTIONS_PER_ADDRESS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: usize = 16 << 10;
const USER_AGENT_MAX: usize = 64;
/// Chains whose money is worth nothing: Anvil's and Hardhat's, and Geth's development mode.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];
/// One ether, in wei.
const ETHER: u128 = 1_000_000_000_000_000_000;

pub(super) fn check(merged: Merged) -> Result<Config, ConfigError> {
    let Merged {
        file,
        places,
        warnings,
    } = merged;
    let File {
        node,
        listen,
        registry,
        pin,
        router,
        limits,
        faucet,
    } = file;
    let registries = registries(registry, &places)?;
    let names = Names {
        registries: &registries,
        places: &places,
    };
    let node = names.node(node)?;
    let pinned = pin
        .into_iter()
        .enumerate()
        .map(|(i, pin)| names.pin(i, pin))
        .collect::<Result<Vec<_>, _>>()?;
    let router = names.router(router)?;
    let listen = listen
        .map(|section| self::listen(section, &places))
        .transpose()?;
    let faucet = faucet.map(|section| names.faucet(section)).transpose()?;
    let limits = limits.apply().map_err(|name| {
        let path = format!("limits.{name}");
        ConfigError::new(
            places.of(&path),
            format!("{path} is out of range"),
            "use a smaller number",
        )
    })?;
    Ok(Config {
        node,
        listen,
        registries,
        pinned,
        router,
        limits,
        faucet,
        warnings,
    })
}

fn registries(
    sections: Vec<RegistrySection>,
    places: &Places,
) -> Result<Vec<RegistryConfig>, ConfigError> {
    let mut out: Vec<RegistryConfig> = Vec::new();
    for (index, section) in sections.into_iter().enumerate() {
        let at = |key: &str| places.of(&format!("registry[{index}].{key}"));
        let fail = |key: &str, problem: String, remedy: &str| {
            Err(ConfigError::new(at(key), problem, remedy))
        };
        if section.tld.is_empty() || !section.tld.split('.').all(is_tld_part) {
            return fail(
                "tld",
                format!("{:?} is not an ending for names", section.tld),
                "use lower-case letters, digits and hyphens without a leading dot, as in \"nectar\"",
            );
        }
        let Some(contract) = parse_address(&section.contract) else {
            return fail(
                "contract",
                format!("{:?} is not a contract's address", section.contract),
                "write 0x and 40 hex digits",
            );
        };
        for (i, rpc) in section.rpcs.iter().enumerate() {
            if let Err(problem) = check_rpc(rpc) {
                return fail(
                    &format!("rpcs[{i}]"),
                    problem,
                    "write it as \"https://host/path\" or \"http://127.0.0.1:8545\"",
                );
            }
        }
        let id = RegistryId {
            chain_id: section.chain_id,
            contract,
        };
        let rpcs = section.rpcs.len();
        let quorum = match section.quorum {
            None => None,
            Some(quorum) if quorum >= 1 && quorum <= rpcs => u8::try_from(quorum).ok(),
            Some(quorum) => {
                return fail(
                    "quorum",
                    format!("{quorum} of {rpcs} RPC endpoints cannot agree"),
                    "choose a number between 1 and that of the rpcs, or leave it out",
                );
            }
        };
        if out.iter().any(|other| *other.tld == *section.tld) {
            return fail(
                "tld",
                format!(".{} is configured twice", section.tld),
                "give each registry an ending of its own",
            );
        }
        if out.iter().any(|other| other.id == id) {
            return fail(
                "contract",
                "this registry is configured twice".into(),
                "remove one of the two",
            );
        }
        out.push(RegistryConfig {
            id,
            tld: section.tld.into(),
            rpcs: section.rpcs.into_iter().map(Into::into).collect(),
            quorum,
        });
    }
    Ok(out)
}

fn is_tld_part(part: &str) -> bool {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    !part.is_empty()
        && part.len() <= 63
        && part.chars().all(allowed)
        && !part.starts_with('-')
        && !part.ends_with('-')
}

/// Reads `0x` and 40 hex digits.
pub(crate) fn parse_address(text: &str) -> Option<[u8; 20]> {
    let mut address = [0; 20];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut address).ok()?;
    Some(address)
}

/// Whether a URL can be an RPC endpoint.
pub(crate) fn check_rpc(text: &str) -> Result<(), String> {
    let url =
        reqwest::Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{text:?} is not an http or https URL"));
    }
    Ok(())
}

fn listen(section: ListenSection, places: &Places) -> Result<Listen, ConfigError> {
    let fail = |key: &str, problem: String, remedy: &str| {
        Err(ConfigError::new(
            places.of(&format!("listen.{key}")),
            problem,
            remedy,
        ))
    };
    let path = |key: &str, path: PathBuf| relative_to(places.base(&format!("listen.{key}")), path);
    let tls = match (section.tls_cert, section.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: path("tls_cert", cert),
            key: path("tls_key", key),
        }),
        (None, None) => None,
        (Some(_), None) => {
            return fail(
                "tls_cert",
                "a certificate without its key".into(),
                "set listen.tls_key too",
            );
        }
        (None, Some(_)) => {
            return fail(
                "tls_key",
                "a key without its certificate".into(),
                "set listen.tls_cert too",
            );
        }
    };
    let address = SocketAddr::new(
        section.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        section.port.unwrap_or(PORT),
    );
    if let Some(Err(error)) = section.public_host.as_deref().map(Host::parse) {
        return fail(
            "public_host",
            error.to_string(),
            "write an IP address or a DNS name, without scheme and port",
        );
    }
    if section.public_port == Some(0) {
        return fail(
            "public_port",
            "nobody can dial port 0".into(),
            "write the port that others use",
        );
    }
    if section.public_port.is_some() && section.public_host.is_none() {
        return fail(
            "public_port",
            "a public port without a public host".into(),
            "set listen.public_host too",
        );
    }
    let public = section
        .public_host
        .map(|host| (host, section.public_port.unwrap_or(address.port())));
    for (key, count) in [
        ("connections", section.connections),
        ("connections_per_address", section.connections_per_address),
    ] {
        if count == Some(0) {
            return fail(
                key,
                "with 0 connections nobody can connect".into(),
                "use a number of at least 1",
            );
        }
    }
    let header_bytes = match section.header_bytes.map(|size| usize::try_from(size.0)) {
        None => HEADER_BYTES,
        Some(Ok(bytes)) if (HEADER_BYTES / 2..=1 << 20).contains(&bytes) => bytes,
        Some(_) => {
            return fail(
                "header_bytes",
                "out of range".into(),
                "use a size between \"8 KiB\" and \"1 MiB\"",
            );
        }
    };
    let origins = origins("origins", section.origins, places)?;
    let page_connect = origins_list("page_connect", section.page_connect, places)?;
    Ok(Listen {
        address,
        tls,
        page: section.page.map(|page| path("page", page)),
        public,
        origins,
        page_connect,
        connections: section.connections.unwrap_or(CONNECTIONS),
        connections_per_address: section
            .connections_per_address
            .unwrap_or(CONNECTIONS_PER_ADDRESS),
        header_timeout: section.header_timeout.map_or(HEADER_TIMEOUT, |time| time.0),
        header_bytes,
    })
}

fn origins(
    key: &str,
    written: Option<AnyOr>,
    places: &Places,
) -> Result<Allow<String>, ConfigError> {
    let allowed = origins_list(key, written, places)?;
    if let Allow::Only(list) = &allowed
        && let Some(wrong) = list.iter().find(|origin| !origin.starts_with("http"))
    {
        return Err(ConfigError::new(
            places.of(&format!("listen.{key}")),
            format!("{wrong:?} is not the origin of a page"),
            "write scheme, host and port, as in \"https://app.example\"",
        ));
    }
    Ok(allowed)
}

/// Origins are compared byte by byte with what browsers send, so they must be written as browsers do.
fn origins_list(
    key: &str,
    written: Option<AnyOr>,
    places: &Places,
) -> Result<Allow<String>, ConfigError> {
    let path = format!("listen.{key}");
    match written {
        None => Ok(Allow::Anyone),
        Some(AnyOr::Word(word)) if word == "any" => Ok(Allow::Anyone),
        Some(AnyOr::Word(word)) => Err(ConfigError::new(
            places.of(&path),
            format!("{word:?} is neither \"any\" nor a list"),
            "write \"any\", or a list of origins such as [\"https://app.example\"]",
        )),
        Some(AnyOr::List(list)) => {
            for origin in &list {
                let canonical = reqwest::Url::parse(origin).ok().and_then(|url| {
                    let port = url
                        .port()
                        .map(|port| format!(":{port}"))
                        .unwrap_or_default();
                    Some(format!("{}://{}{port}", url.scheme(), url.host_str()?))
                });
                if canonical.as_ref() != Some(origin) {
                    return Err(ConfigError::new(
                        places.of(&path),
                        format!("{origin:?} is not an origin"),
                        match canonical {
                            Some(canonical) => format!("write {canonical:?}"),
                            None => {
                                "write scheme, host and port, as in \"https://app.example\"".into()
                            }
                        },
                    ));
                }
            }
            Ok(Allow::Only(list))
        }
    }
}

/// Whatever holds names needs to know their registries.
struct Names<'a> {
    registries: &'a [RegistryConfig],
    places: &'a Places,
}

impl Names<'_> {
    fn name(&self, path: &str, text: &str) -> Result<Name, ConfigError> {
        parse_name(text, self.registries).map_err(|error| {
            let remedy = match error {
                node_core::registry::NameParseError::TldUnknown(_) => {
                    "add a [[registry]] with this tld"
                }
                _ => "write it as \"label.tld\"",
            };
            ConfigError::new(self.places.of(path), format!("{text:?}: {error}"), remedy)
        })
    }

    fn node(&self, section: NodeSection) -> Result<Node, ConfigError> {
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
        Ok(Node {
            name,
            key_file: relative_to(self.places.base("node.key_file"), key_file),
            user_agent,
            allow_private: section.allow_private,
        })
    }

    fn pin(&self, index: usize, section: PinSection) -> Result<(Name, Record), ConfigError> {
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
        let record = Record {
            owner: [0; 20],
            manager: [0; 20],
            key,
            routing,
            routers,
            version: 1,
            epoch: 1,
        };
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

    fn router(&self, section: RouterSection) -> Result<RouterPolicy, ConfigError> {
        Ok(RouterPolicy {
            host: self.allowed("router.host", section.host)?,
            call: self.allowed("router.call", section.call)?,
            guests: section.guests,
        })
    }

    fn allowed(&self, path: &str, written: Option<AnyOr>) -> Result<Allow<Name>, ConfigError> {
        match written {
            None => Ok(Allow::Anyone),
            Some(AnyOr::Word(word)) if word == "anyone" => Ok(Allow::Anyone),
            Some(AnyOr::Word(word)) => Err(ConfigError::new(
                self.places.of(path),
                format!("{word:?} is neither \"anyone\" nor a list"),
                "write \"anyone\", or a list of names such as [\"alice.nectar\"]",
            )),
            Some(AnyOr::List(list)) => list
                .iter()
                .enumerate()
                .map(|(i, name)| self.name(&format!("{path}[{i}]"), name))
                .collect::<Result<_, _>>()
                .map(Allow::Only),
        }
    }

    fn faucet(&self, section: FaucetSection) -> Result<Faucet, ConfigError> {
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
