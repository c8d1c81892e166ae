//! Bans on disk: they survive a restart, and an operator changes them while the node runs.
//!
//! The file is what the node and `nectar ban` agree on. Both change it under a lock and replace it whole. The node looks at it
//! every second: what was added is a ban, what was removed is lifted. So whoever may write the file may ban, and nobody else.

use crate::config;
use node_core::{
    Code, Timestamp,
    node::{AddressGroup, Ban, Subject},
    registry::RegistryConfig,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Largest file that is read, in bytes. A full table of bans has a fifth of it.
const FILE_MAX: u64 = 2 << 20;

/// Why bans cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BansError {
    /// The file cannot be read, written or locked.
    #[error("the bans in {0} cannot be kept: {1}")]
    File(PathBuf, io::Error),
    /// It is no list of bans.
    #[error("{0} is no list of bans: {1}; correct it, or remove it to begin without any")]
    Content(PathBuf, String),
}

/// A file of bans.
#[derive(Clone, Debug)]
pub struct BanFile {
    path: PathBuf,
    registries: Vec<RegistryConfig>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    nectar_bans: u32,
    bans: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// A name, or a network.
    who: String,
    /// Milliseconds since the Unix epoch.
    until: u64,
    /// The name of the error; nothing if the operator decided so.
    why: Option<String>,
}

impl BanFile {
    /// The bans in the file at `path`, with names as these registries end them.
    pub fn new(path: &Path, registries: &[RegistryConfig]) -> Self {
        Self {
            path: path.to_owned(),
            registries: registries.to_vec(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it was last changed; `None` if it does not exist.
    pub fn modified(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).ok()?.modified().ok()
    }

    /// What stands in it, also what has ended. A file that does not exist has no bans.
    pub fn read(&self) -> Result<Vec<Ban>, BansError> {
        let size = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
            Ok(metadata) => metadata.len(),
        };
        if size > FILE_MAX {
            return Err(self.wrong("it is too large"));
        }
        let text = fs::read(&self.path).map_err(|error| self.failed(error))?;
        let document: Document =
            serde_json::from_slice(&text).map_err(|error| self.wrong(error))?;
        if document.nectar_bans != 1 {
            return Err(self.wrong("its version is not 1"));
        }
        let bans = document.bans.into_iter().map(|entry| {
            let code = entry.why.map(|why| {
                let code = Code::ALL.iter().find(|code| code.name() == why);
                code.copied()
                    .ok_or_else(|| self.wrong(format!("{why:?} is no error of this version")))
            });
            Ok(Ban {
                subject: parse(&entry.who, &self.registries).map_err(|why| self.wrong(why))?,
                until: Timestamp(entry.until),
                code: code.transpose()?,
            })
        });
        bans.collect()
    }

    /// Lets nobody else change it, reads it, and writes what `change` makes of it, unless that is the same.
    pub fn change<R>(&self, change: impl FnOnce(&mut Vec<Ban>) -> R) -> Result<R, BansError> {
        let lock = File::create(self.path.with_extension("lock"))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| self.failed(error))?;
        let before = self.read()?;
        let mut bans = before.clone();
        let result = change(&mut bans);
        if bans != before {
            self.write(&bans).map_err(|error| self.failed(error))?;
        }
        drop(lock);
        Ok(result)
    }

    fn write(&self, bans: &[Ban]) -> io::Result<()> {
        let entry = |ban: &Ban| Entry {
            who: shown(&ban.subject, &self.registries),
            until: ban.until.0,
            why: ban.code.map(|code| code.name().to_owned()),
        };
        let document = Document {
            nectar_bans: 1,
            bans: bans.iter().map(entry).collect(),
        };
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        serde_json::to_writer_pretty(&mut file, &document)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    fn failed(&self, error: io::Error) -> BansError {
        BansError::File(self.path.clone(), error)
    }

    fn wrong(&self, why: impl ToString) -> BansError {
        BansError::Content(self.path.clone(), why.to_string())
    }
}

/// How people write who is banned: a name, or a network.
pub fn shown(subject: &Subject, registries: &[RegistryConfig]) -> String {
    match subject {
        Subject::Name(name) => {
            let registry = registries.iter().find(|known| known.id == name.registry);
            registry.map_or_else(
                || name.to_string(),
                |registry| format!("{}.{}", name.label, registry.tld),
            )
        }
        Subject::Group(group) if group & IPV6 != 0 => {
            let prefix = u128::from(group & 0xffff_ffff_ffff) << 80;
            format!("{}/48", Ipv6Addr::from_bits(prefix))
        }
        Subject::Group(group) => {
            let prefix = u32::try_from(group & 0xff_ffff).unwrap_or_default() << 8;
            format!("{}/24", Ipv4Addr::from_bits(prefix))
        }
    }
}

/// Reads a name, an address, or a network of the size that is banned at once.
pub fn parse(text: &str, registries: &[RegistryConfig]) -> Result<Subject, String> {
    let (address, size) = match text.split_once('/') {
        Some((address, size)) => (address, Some(size)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return config::parse_name(text, registries)
            .map(Subject::Name)
            .map_err(|error| format!("{text:?} is neither a name nor a network: {error}"));
    };
    let whole = if unfold(address).is_ipv4() {
        "24"
    } else {
        "48"
    };
    let group = group(address);
    if size.is_some_and(|size| size != whole) {
        return Err(format!(
            "{text:?}: addresses are banned by /{whole}, write {}",
            shown(&Subject::Group(group), registries)
        ));
    }
    if group & SHARED != 0 {
        return Err(format!(
            "{text:?} is of this machine or of a private network: many may come from there through a proxy"
        ));
    }
    Ok(Subject::Group(group))
}

const IPV6: AddressGroup = 1 << 62;
/// Not a banned one: [`node_core::node::Node::accept`]. The other bit keeps them apart from sessions of routers.
const SHARED: AddressGroup = 1 << 63 | 1 << 61;

/// What one operator usually holds, as a number: an IPv4 /24 or an IPv6 /48. Behind an address of this machine or of a private
/// network may be a proxy, and behind that everybody.
pub fn group(address: IpAddr) -> AddressGroup {
    match unfold(address) {
        IpAddr::V4(address) => {
            u64::from(u32::from(address) >> 8) | if is_shared(address.into()) { SHARED } else { 0 }
        }
        IpAddr::V6(address) => {
            let prefix = u64::try_from(u128::from(address) >> 80).unwrap_or_default();
            prefix | IPV6 | if is_shared(address.into()) { SHARED } else { 0 }
        }
    }
}

/// The IPv4 address that a translator has put into an IPv6 one: a mapped one, NAT64's (`64:ff9b::/96`), 6to4's. Through one
/// translator come people who have nothing to do with each other but for the prefix that it gives to all of them. An address of
/// any other kind stays as it is; where another prefix holds an IPv4 address is the secret of the network that chose it.
pub(crate) fn unfold(address: IpAddr) -> IpAddr {
    let IpAddr::V6(outer) = address else {
        return address;
    };
    let inner = match outer.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => u32::from(high) << 16 | u32::from(low),
        _ => return address,
    };
    Ipv4Addr::from_bits(inner).into()
}

/// Whether an address is one of this network, where a proxy may stand for people who have nothing to do with each other.
pub(crate) fn is_shared(address: IpAddr) -> bool {
    match unfold(address) {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;
    use node_core::RegistryId;

    fn registries() -> Vec<RegistryConfig> {
        vec![RegistryConfig {
            id: RegistryId {
                chain_id: 1,
                contract: [1; 20],
            },
            tld: "nectar".into(),
            rpcs: Vec::new(),
            quorum: None,
        }]
    }

    #[test]
    fn addresses_of_one_operator_share_a_group() {
        let of = |text: &str| group(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(
            of("::ffff:192.0.2.1"),
            of("192.0.2.1"),
            "a mapped address is an IPv4 address"
        );
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_ne!(of("::192.0.2.1"), of("192.0.2.1"));
        for (text, inner) in [
            ("64:ff9b::192.0.2.1", "192.0.2.1"),
            ("2002:c000:201:7::1", "192.0.2.1"),
            ("64:ff9b::10.1.2.3", "10.1.2.3"),
        ] {
            assert_eq!(
                of(text),
                of(inner),
                "{text}: what a translator passes on is not the translator's"
            );
        }
        for text in ["64:ff9b:1::192.0.2.1", "64:ff9b:0:0:1::192.0.2.1"] {
            assert_ne!(of(text), of("192.0.2.1"), "{text}: only its network knows");
        }
        for text in ["255.255.255.255", "ffff:ffff:ffff:ffff::", "8.8.8.8"] {
            assert_eq!(of(text) >> 63, 0, "{text}");
        }
        for text in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1"] {
            assert_eq!(of(text) >> 63, 1, "{text} may be a proxy");
        }
    }

    #[test]
    fn who_is_banned_reads_as_it_is_written() {
        for text in ["mallory.nectar", "192.0.2.0/24", "2001:db8:1::/48"] {
            let subject = parse(text, &registries()).unwrap();
            assert_eq!(shown(&subject, &registries()), text);
        }
        assert_eq!(
            parse("192.0.2.7/33", &registries()).unwrap_err(),
            "\"192.0.2.7/33\": addresses are banned by /24, write 192.0.2.0/24"
        );
        for text in ["192.0.2.77", "64:ff9b::192.0.2.77", "2002:c000:24d::1"] {
            let one = parse(text, &registries()).unwrap();
            assert_eq!(shown(&one, &registries()), "192.0.2.0/24");
        }
        assert_eq!(
            parse("2002:c000:24d::/48", &registries()).unwrap_err(),
            "\"2002:c000:24d::/48\": addresses are banned by /24, write 192.0.2.0/24"
        );
        for text in ["mallory", "mallory.other", "192.0.2.0/16", "127.0.0.1", ""] {
            assert!(parse(text, &registries()).is_err(), "{text}");
        }
    }

    #[test]
    fn bans_are_on_disk_as_they_were_and_a_broken_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = BanFile::new(&directory.path().join("nectar.bans.json"), &registries());
        assert_eq!(file.read().unwrap(), []);
        let bans = [
            ("mallory.nectar", Some(Code::FrameMalformed)),
            ("192.0.2.0/24", None),
        ];
        let bans: Vec<_> = bans
            .map(|(who, code)| Ban {
                subject: parse(who, &registries()).unwrap(),
                until: Timestamp(1_900_000_000_123),
                code,
            })
            .into();
        file.change(|all| all.clone_from(&bans)).unwrap();
        assert_eq!(file.read().unwrap(), bans);
        for broken in ["", "{}", "[1]", r#"{"nectar_bans":2,"bans":[]}"#] {
            fs::write(file.path(), broken).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(
                error.contains("nectar.bans.json is no list of bans"),
                "{error}"
            );
            assert!(file.change(Vec::clear).is_err(), "nothing is overwritten");
        }
    }
}
