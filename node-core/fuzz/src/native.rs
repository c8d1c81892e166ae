//! What node-native reads from its own disk.

use crate::input::edit;
use node_core::{
    Name, RegistryId,
    channel::Identity,
    node::{Node, Subject},
    registry::RegistryConfig,
};
use node_native::{
    bans::{BanFile, shown},
    config::{Config, Override, Sources},
    keystore::{KeyError, Passphrase, PassphraseSource, load_networking, load_wallet},
};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A directory for each thread, in memory where there is such a place.
fn with_file<R>(name: &str, content: &[u8], work: impl FnOnce(&Path) -> R) -> R {
    thread_local! {
        static DIRECTORY: TempDir = {
            let memory = PathBuf::from("/dev/shm");
            let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
            made.expect("a directory")
        };
    }
    let path = DIRECTORY.with(|directory| directory.path().join(name));
    fs::write(&path, content).expect("a file in it");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of our own");
    work(&path)
}

/// A configuration is refused with a reason and a place, or a node can be made of it; the names in it show as they are read.
/// The bytes are `nectar.toml`, then settings such as `listen.port=1`, each after a byte 0xff.
pub(crate) fn config(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let settings = parts.filter_map(|setting| {
        let (path, value) = std::str::from_utf8(setting).ok()?.split_once('=')?;
        Some(Override {
            place: "--flag".into(),
            path: path.into(),
            value: value.into(),
        })
    });
    let flags: Vec<Override> = settings.collect();
    let loaded = with_file("nectar.toml", text, |path| {
        Config::load(&Sources {
            file: Some(path.into()),
            environment: Vec::new(),
            flags,
        })
    });
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return assert!(error.to_string().len() > 10),
    };
    for (name, record) in &config.pinned {
        assert_eq!(
            config.parse_name(&config.display_name(name)).as_ref(),
            Ok(name)
        );
        assert_eq!(record.check(), Ok(()));
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32])
        .verifying_key()
        .to_bytes();
    let name = config.node.name.clone();
    let made = Node::<u64>::new(config.node_config(Identity { name, key }), [1; 32]);
    assert!(
        made.is_ok(),
        "a checked configuration makes no node: {:?}",
        made.err()
    );
}

/// A key file, sealed with "passphrase" by the weakest parameters that there are, so that opening it takes no time.
const SEALED: &str = r#"{
  "nectar_key": 1,
  "kind": "networking",
  "public": "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
  "seal": { "kdf": "argon2id", "memory_kib": 8, "passes": 1, "lanes": 1,
            "salt": "000102030405060708090a0b0c0d0e0f", "cipher": "xchacha20poly1305",
            "nonce": "000102030405060708090a0b0c0d0e0f1011121314151617" },
  "secret": "19c0c0f48d1c44de0cff2ed5296a19e368afa2f8bbcb6ca4561fa00dd2cb7a20d812bf0f51ace0957a9a3dfa9cc67fc8"
}
"#;

/// A key file gives a key that belongs to what it says of itself, or none; a sealed one that was altered gives none.
pub(crate) fn keys(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let given = Passphrase::new("passphrase").expect("long enough");
    let source = PassphraseSource::Given(given);
    if how % 2 == 0 {
        if is_slow(data) {
            return;
        }
        with_file("key", data, |path| {
            if let Ok(key) = load_networking(path, &source) {
                let file: Value = serde_json::from_slice(data).expect("a key file is JSON");
                let public = hex::encode(key.verifying_key().as_bytes());
                assert_eq!(file["public"], Value::from(public));
                if file["seal"].is_null() {
                    let secret = file["secret"]
                        .as_str()
                        .and_then(|hex| hex::decode(hex).ok());
                    assert_eq!(secret, Some(key.to_bytes().to_vec()));
                }
            }
            // What it says is no secret's, whatever is wrong with it.
            if let Err(KeyError::Malformed { problem, .. }) = load_wallet(path, &source) {
                assert!(problem.len() < 200, "{problem}");
            }
        });
    } else {
        let mut text = SEALED.as_bytes().to_vec();
        edit(&mut text, data);
        if is_slow(&text) {
            return;
        }
        let opened = with_file("sealed", &text, |path| load_networking(path, &source));
        if let Ok(key) = opened {
            assert_eq!(key.to_bytes(), [1; 32]);
            let says = |text: &[u8]| {
                let mut file: Value = serde_json::from_slice(text).expect("a key file is JSON");
                // Hexadecimal digits have two spellings.
                file["secret"] = file["secret"].as_str().map(str::to_lowercase).into();
                file["seal"]["nonce"] =
                    file["seal"]["nonce"].as_str().map(str::to_lowercase).into();
                file
            };
            assert_eq!(
                says(&text),
                says(SEALED.as_bytes()),
                "an altered file was opened"
            );
        }
    }
}

/// Whether its seal asks for more than a moment, and no more than is granted.
fn is_slow(text: &[u8]) -> bool {
    let Ok(file) = serde_json::from_slice::<Value>(text) else {
        return false;
    };
    let asked = |key: &str| file["seal"][key].as_u64().unwrap_or(0);
    asked("memory_kib") > 64 || asked("passes") > 4 || asked("lanes") > 4
}

/// A list of bans reads as it was written.
pub(crate) fn bans(data: &[u8]) {
    let registries = [RegistryConfig {
        id: RegistryId {
            chain_id: 31_337,
            contract: [0xc0; 20],
        },
        tld: "nectar".into(),
        rpcs: Vec::new(),
        quorum: None,
    }];
    let read = |path: &Path| BanFile::new(path, &registries).read();
    let Ok(bans) = with_file("bans.json", data, read) else {
        return;
    };
    for ban in &bans {
        let text = shown(&ban.subject, &registries);
        let again = node_native::bans::parse(&text, &registries);
        assert_eq!(again.as_ref(), Ok(&ban.subject), "{text}");
        if let Subject::Name(name) = &ban.subject {
            assert_eq!(Name::decode(&name.to_bytes()).as_ref(), Ok(name));
        }
    }
    if bans.len() < 64 {
        let written = with_file("written.json", br#"{"nectar_bans":1,"bans":[]}"#, |path| {
            let file = BanFile::new(path, &registries);
            file.change(|list| list.clone_from(&bans))
                .expect("it can be written");
            file.read().expect("what was written is read")
        });
        assert_eq!(written, bans);
    }
}
