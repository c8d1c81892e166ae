#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use node_core::{RegistryId, registry::RegistryConfig};
use node_native::{
    chain::{self, Account, Terms},
    keystore::{self, PassphraseSource},
};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The first accounts that every anvil funds; their keys are public knowledge.
pub(crate) const KEYS: [&str; 3] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
];

pub(crate) const CHAIN_ID: u64 = 31337;

/// A local chain that ends with the test.
pub(crate) struct Anvil {
    child: Child,
    pub(crate) url: String,
}

impl Anvil {
    pub(crate) fn start() -> Self {
        let program = anvil_program();
        let mut child = Command::new(&program)
            .args(["--port", "0", "--chain-id", &CHAIN_ID.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil tells its address");
        // Its log must be read, or it blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            url: format!("http://{address}"),
        }
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where anvil is.
pub(crate) fn anvil_program() -> PathBuf {
    let program = match std::env::var_os("NECTAR_ANVIL") {
        Some(path) => PathBuf::from(path),
        None => contracts().join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"),
    };
    assert!(
        program.exists(),
        "{} is missing: run `npm ci` in contracts/, or let NECTAR_ANVIL name anvil",
        program.display()
    );
    program
}

fn contracts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts")
}

pub(crate) fn artifact() -> PathBuf {
    contracts().join("artifacts/NectarRegistry.json")
}

/// A file that only its owner may read, as keys must be.
pub(crate) fn guarded(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// The wallet with one of [`KEYS`].
pub(crate) fn wallet(index: usize) -> alloy::signers::local::PrivateKeySigner {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet");
    guarded(&path, KEYS[index]);
    keystore::load_wallet(&path, &PassphraseSource::wallet()).unwrap()
}

/// Deploys a registry whose commitments rest for `min_age` seconds.
pub(crate) async fn deploy(anvil: &Anvil, min_age: u64) -> RegistryConfig {
    let terms = Terms {
        min_commitment_age: min_age,
        max_commitment_age: 3600,
        fee: "1000".parse().unwrap(),
        treasury: Account::from([9; 20]),
    };
    let contract = chain::deploy(&anvil.url, wallet(0), &artifact(), terms, &mut |_| {})
        .await
        .unwrap();
    RegistryConfig {
        id: RegistryId {
            chain_id: CHAIN_ID,
            contract: contract.into_array(),
        },
        tld: "nectar".into(),
        rpcs: vec![anvil.url.as_str().into()],
        quorum: None,
    }
}
