//! What `[listen]` means.

use super::{
    Allow, ConfigError, Listen, TlsFiles,
    file::{AnyOr, ListenSection},
    layers::Places,
    relative_to,
};
use node_core::registry::Host;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// What works without a word of configuration.
const PORT: u16 = 9444;
const CONNECTIONS: usize = 4096;
const CONNECTIONS_PER_ADDRESS: usize = 64;
const TLS_HANDSHAKES_PER_ADDRESS: u32 = 50;
const REQUESTS_PER_ADDRESS: u32 = 100;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: usize = 16 << 10;

impl Listen {
    /// Listens at `address` without TLS, with the bounds that hold where nothing is configured.
    pub const fn at(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            page: None,
            public: None,
            origins: Allow::Anyone,
            page_connect: Allow::Anyone,
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            tls_handshakes_per_address: TLS_HANDSHAKES_PER_ADDRESS,
            requests_per_address: REQUESTS_PER_ADDRESS,
            header_timeout: HEADER_TIMEOUT,
            header_bytes: HEADER_BYTES,
        }
    }
}

pub(super) fn listen(section: ListenSection, places: &Places) -> Result<Listen, ConfigError> {
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
        (
            "tls_handshakes_per_address",
            section.tls_handshakes_per_address.map(|rate| rate as usize),
        ),
        (
            "requests_per_address",
            section.requests_per_address.map(|rate| rate as usize),
        ),
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
        tls_handshakes_per_address: section
            .tls_handshakes_per_address
            .unwrap_or(TLS_HANDSHAKES_PER_ADDRESS),
        requests_per_address: section.requests_per_address.unwrap_or(REQUESTS_PER_ADDRESS),
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
