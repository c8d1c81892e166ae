//! From what is written to what it means, or to an error.

use super::{
    Config, ConfigError,
    file::{File, RegistrySection},
    layers::{Merged, Places},
    listen,
    names::Names,
};
use node_core::{RegistryId, node::RouterPolicy, registry::RegistryConfig};

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
        offer,
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
    // Checked in any case, but nobody reaches a router that does not listen.
    let router = names.router(router)?;
    let router = if listen.is_some() {
        router
    } else {
        RouterPolicy::default()
    };
    let listen = listen
        .map(|section| listen::listen(section, &places))
        .transpose()?;
    let offer = names.offer(offer, &node, &router)?;
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
        offer,
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

/// Whether a URL can be an RPC endpoint. What is wrong is said without the URL, which may hold a secret.
pub(crate) fn check_rpc(text: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("this is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("this is not an http or https URL".into());
    }
    Ok(())
}
