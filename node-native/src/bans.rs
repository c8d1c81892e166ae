//! Bans on disk: they survive a restart, and an operator changes them while the node runs.
//!
//! The file is what the node and `nectar ban` agree on. Both change it under a lock and replace it whole. The node looks at it
//! every second: what was added is a ban, what was removed is lifted. So whoever may write the file may ban, and nobody else.
//!
//! Root may run the commands for a node that another user runs: new files belong to whom their directory belongs to.

use crate::{config, resolve::Clock};
use node_core::{
    Code, Timestamp,
    node::{AddressGroup, Ban, Subject},
    registry::{NameParseError, RegistryConfig},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// Largest file that is read, in bytes. A full table of bans has a fifth of it.
const FILE_MAX: u64 = 2 << 20;

/// Longest that a change waits for another one. 2 s: each takes milliseconds.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two tries to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why bans cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BansError {
    /// The file cannot be read, written or locked.
    #[error("the bans in {0} cannot be kept: {1}")]
    File(PathBuf, io::Error),
    /// Another program keeps everybody from changing it.
    #[error(
        "the bans in {0} cannot be kept: another program has locked {1} for more than two seconds; end it, or remove that file"
    )]
    Locked(PathBuf, PathBuf),
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

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// A name, or a network.
    who: String,
    /// Milliseconds since the Unix epoch.
    until: u64,
    /// The name of the error; nothing if the operator decided so.
    why: Option<String>,
}

/// What a file was when it was looked at. A later one differs in something, also one that was written in the same tick of the
/// file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self {
            inode,
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// What stands in a file.
struct Written {
    bans: Vec<Ban>,
    /// Those of names of no registry that is configured, which nobody can follow. They stay as they are: the registry may only
    /// have been renamed.
    others: Vec<Entry>,
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

    /// What it is now; `None` if it does not exist.
    pub fn stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.path).ok().map(Stamp::from)
    }

    /// What stands in it, also what has ended. A file that does not exist has no bans.
    pub fn read(&self) -> Result<Vec<Ban>, BansError> {
        Ok(self.load()?.bans)
    }

    /// The same, and names in it of no registry that is configured: they stay, and are not followed.
    pub fn read_all(&self) -> Result<(Vec<Ban>, Vec<String>), BansError> {
        let Written { bans, others } = self.load()?;
        Ok((bans, others.into_iter().map(|entry| entry.who).collect()))
    }

    fn load(&self) -> Result<Written, BansError> {
        let mut written = Written {
            bans: Vec::new(),
            others: Vec::new(),
        };
        let size = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(written),
            Err(error) => return Err(self.failed(error)),
            // Reading from a pipe would not end.
            Ok(metadata) if !metadata.is_file() => {
                return Err(self.failed(io::Error::other("it is no file")));
            }
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
        let now = Clock::new().now().wall;
        for entry in document.bans {
            let subject = match parse(&entry.who, &self.registries) {
                Ok(subject) => subject,
                Err(_) if self.is_of_another_registry(&entry.who) => {
                    if Timestamp(entry.until) > now {
                        written.others.push(entry);
                    }
                    continue;
                }
                Err(why) => return Err(self.wrong(why)),
            };
            let code = entry.why.map(|why| {
                let code = Code::ALL.iter().find(|code| code.name() == why);
                code.copied()
                    .ok_or_else(|| self.wrong(format!("{why:?} is no error of this version")))
            });
            written.bans.push(Ban {
                subject,
                until: Timestamp(entry.until),
                code: code.transpose()?,
            });
        }
        Ok(written)
    }

    fn is_of_another_registry(&self, who: &str) -> bool {
        let is_network = who.contains('/') || who.parse::<IpAddr>().is_ok();
        let parsed = config::parse_name(who, &self.registries);
        !is_network && matches!(parsed, Err(NameParseError::TldUnknown(_)))
    }

    /// Lets nobody else change it, reads it, and writes what `change` makes of it, unless that is the same. Returns what the file
    /// is then, too: seen later, it could be what somebody else has made of it.
    pub fn change<R>(
        &self,
        change: impl FnOnce(&mut Vec<Ban>) -> R,
    ) -> Result<(R, Option<Stamp>), BansError> {
        let lock = self.lock()?;
        let mut stamp = self.stamp();
        let before = self.load()?;
        let mut bans = before.bans.clone();
        let result = change(&mut bans);
        if bans != before.bans {
            let written = self.write(&bans, &before.others);
            stamp = Some(written.map_err(|error| self.failed(error))?);
        }
        drop(lock);
        Ok((result, stamp))
    }

    /// Locks a file beside it, which is for its owner alone: whoever may open that can keep the lock.
    fn lock(&self) -> Result<File, BansError> {
        let path = self.path.with_extension("lock");
        let failed = |error| BansError::File(path.clone(), error);
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(failed(io::Error::other("it is no file")));
        }
        let open = || match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => create(&path, 0o600),
            opened => opened,
        };
        let file = match open() {
            // Somebody else has just created it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(),
            opened => opened,
        };
        let (file, begun) = (file.map_err(failed)?, Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCKED_WITHIN => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(BansError::Locked(self.path.clone(), path));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn write(&self, bans: &[Ban], others: &[Entry]) -> io::Result<Stamp> {
        let entry = |ban: &Ban| Entry {
            who: shown(&ban.subject, &self.registries),
            until: ban.until.0,
            why: ban.code.map(|code| code.name().to_owned()),
        };
        let document = Document {
            nectar_bans: 1,
            bans: bans
                .iter()
                .map(entry)
                .chain(others.iter().cloned())
                .collect(),
        };
        let beside = self.path.with_extension("new");
        // What a process left that was killed here. A new one is never a link that leads elsewhere.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = create(&beside, 0o644)?;
        if let Ok(before) = fs::metadata(&self.path) {
            file.set_permissions(before.permissions())?;
        }
        serde_json::to_writer_pretty(&mut file, &document)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let stamp = Stamp::from(file.metadata()?);
        fs::rename(&beside, &self.path)?;
        Ok(stamp)
    }

    fn failed(&self, error: io::Error) -> BansError {
        BansError::File(self.path.clone(), error)
    }

    fn wrong(&self, why: impl ToString) -> BansError {
        BansError::Content(self.path.clone(), why.to_string())
    }
}

/// Creates a file that is not there, with this mode at most, for whom its directory belongs to.
#[cfg(unix)]
fn create(path: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let directory = fs::metadata(directory)?;
    if directory.uid() != file.metadata()?.uid() {
        // Only root can, and nobody else needs to.
        let _ = fchown(&file, Some(directory.uid()), Some(directory.gid()));
    }
    Ok(file)
}

#[cfg(not(unix))]
fn create(path: &Path, _: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).open(path)
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
/// Not a banned one: [`node_core::node::Node::accept`]. The other bit keeps them apart from routers.
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

    fn ban(who: &str) -> Ban {
        Ban {
            subject: parse(who, &registries()).unwrap(),
            until: Timestamp(u64::MAX),
            code: None,
        }
    }

    fn file(directory: &tempfile::TempDir) -> BanFile {
        BanFile::new(&directory.path().join("nectar.bans.json"), &registries())
    }

    #[test]
    fn bans_of_a_registry_that_was_renamed_stay_until_they_end_and_keep_nobody_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let text = r#"{"nectar_bans":1,"bans":[{"who":"mallory.test","until":9999999999999,"why":null},
            {"who":"mordred.test","until":1,"why":null},{"who":"eve.nectar","until":9999999999999,"why":null}]}"#;
        fs::write(file.path(), text).unwrap();
        assert_eq!(file.read().unwrap().len(), 1);
        assert_eq!(file.read_all().unwrap().1, ["mallory.test"]);
        file.change(|bans| bans.push(ban("192.0.2.0/24"))).unwrap();
        assert_eq!(file.read().unwrap().len(), 2);
        assert_eq!(file.read_all().unwrap().1, ["mallory.test"]);
        for wrong in ["192.0.2.0/16", "mallory", "-.nectar"] {
            let text = text.replace("mallory.test", wrong);
            fs::write(file.path(), text).unwrap();
            assert!(file.read().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_changed_the_file_is_known_from_what_changed_it_at_the_same_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let change = |who| file.change(|bans| bans.push(ban(who))).unwrap().1;
        let (first, second) = (change("eve.nectar"), change("adam.nectar"));
        assert_eq!(file.stamp(), second);
        let at = |stamp: Option<Stamp>| Stamp {
            modified: None,
            ..stamp.unwrap()
        };
        assert_ne!(at(first), at(second));
        assert_eq!(file.change(|_| ()).unwrap().1, second, "nothing changed");
    }

    #[cfg(unix)]
    #[test]
    fn the_lock_is_for_its_owner_and_nobody_waits_for_it_without_end() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        file.change(|_| ()).unwrap();
        let path = directory.path().join("nectar.bans.lock");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        let error = file.change(|_| ()).unwrap_err();
        assert!(matches!(error, BansError::Locked(..)), "{error}");
        assert!(error.to_string().contains("nectar.bans.lock"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_root_writes_belongs_to_whom_the_directory_belongs_to_and_its_mode_stays() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
        let directory = tempfile::tempdir().unwrap();
        if chown(directory.path(), Some(65_532), Some(65_532)).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let file = file(&directory);
        let beside = directory.path().join("nectar.bans.new");
        // The node's user leads nobody elsewhere.
        let elsewhere = directory.path().join("elsewhere");
        symlink(&elsewhere, &beside).unwrap();
        file.change(|bans| bans.push(ban("eve.nectar"))).unwrap();
        assert!(!elsewhere.exists());
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(file.path(), mode).unwrap();
        file.change(|bans| bans.push(ban("adam.nectar"))).unwrap();
        for path in [file.path(), &directory.path().join("nectar.bans.lock")] {
            let metadata = fs::metadata(path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (65_532, 65_532));
        }
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
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
