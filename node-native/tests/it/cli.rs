#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::support::{Anvil, KEYS, artifact, deploy, guarded};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs `nectar` in `dir` with an environment of its own.
pub(crate) fn nectar(dir: &Path, args: &[&str]) -> Output {
    nectar_with(dir, args, &[])
}

pub(crate) fn nectar_with(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A configuration under which `alice.nectar` has this key, without any chain.
pub(crate) fn pinned(key: &Value) -> String {
    format!(
        "[node]\nname = \"alice.nectar\"\n[[registry]]\ntld = \"nectar\"\nchain_id = 1\n\
         contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\n\
         [[pin]]\nname = \"alice.nectar\"\nkey = {key}\n"
    )
}

/// The exit code and what was said to whoever looks.
pub(crate) fn failure(output: &Output) -> (i32, String) {
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn keys_are_made_once_sealed_or_unencrypted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let made = json(&nectar(dir, &["keygen", "--json", "--unencrypted"]));
    assert_eq!(made["public_key"].as_str().unwrap().len(), 64);
    assert_eq!(
        (&made["file"], &made["sealed"]),
        (&"nectar.key".into(), &false.into())
    );
    let (exit, text) = failure(&nectar(dir, &["keygen", "--unencrypted"]));
    assert!(
        exit == 2 && text.contains("nectar.key exists and is not overwritten"),
        "{exit} {text}"
    );

    let (exit, text) = failure(&nectar(dir, &["keygen", "--out", "b.key"]));
    assert!(
        exit == 2 && text.contains("NECTAR_PASSPHRASE") && text.contains("--unencrypted"),
        "{exit} {text}"
    );
    assert!(!dir.join("b.key").exists());
    let passphrase = [("NECTAR_PASSPHRASE", "correct horse battery")];
    let made = json(&nectar_with(
        dir,
        &["keygen", "--json", "--out", "b.key"],
        &passphrase,
    ));
    assert_eq!(made["sealed"], true);
    std::fs::write(dir.join("nectar.toml"), pinned(&made["public_key"])).unwrap();
    let check = ["run", "--check", "--key", "b.key"];
    let (exit, text) = failure(&nectar_with(
        dir,
        &check,
        &[("NECTAR_PASSPHRASE", "wrong horse")],
    ));
    assert!(
        exit == 2 && text.contains("the passphrase does not open b.key"),
        "{exit} {text}"
    );
    assert!(nectar_with(dir, &check, &passphrase).status.success());
    guarded(&dir.join("pass"), "correct horse battery\n");
    assert!(
        nectar_with(dir, &check, &[("NECTAR_PASSPHRASE_FILE", "pass")])
            .status
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_lives_its_whole_life_on_the_command_line() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let contract = format!("0x{}", hex::encode(registry.id.contract));
    let config = format!(
        "[node]\nname = \"alice.nectar\"\n[[registry]]\ntld = \"nectar\"\nchain_id = 31337\ncontract = \"{contract}\"\nrpcs = [\"{}\"]\n",
        anvil.url
    );
    std::fs::write(dir.join("nectar.toml"), config).unwrap();
    guarded(&dir.join("wallet"), KEYS[0]);
    let variables = [
        ("NECTAR_WALLET_KEY_FILE", "wallet"),
        ("NECTAR_LOG", "trace"),
    ];
    let run = |args: &[&str]| {
        let output = nectar_with(dir, args, &variables);
        let log = String::from_utf8_lossy(&output.stderr).to_lowercase();
        // Eight bytes side by side.
        let mut parts = KEYS[0].as_bytes()[2..].windows(16);
        let told = parts.any(|part| log.contains(std::str::from_utf8(part).unwrap()));
        assert!(!told, "the wallet's key is in the log of {args:?}");
        output
    };

    let key = json(&run(&["keygen", "--json", "--unencrypted"]));
    let args = [
        "register",
        "alice.nectar",
        "--host",
        "192.0.2.7",
        "--port",
        "9444",
        "--scheme",
        "ws,wss",
        "--enlist",
    ];
    let (exit, text) = failure(&nectar(dir, &args));
    assert!(
        exit == 2 && text.contains("NECTAR_WALLET_KEY_FILE"),
        "{exit} {text}"
    );
    let made = json(&run(&[&args[..], &["--json"]].concat()));
    assert_eq!(
        (&made["public_key"], &made["router_index"]),
        (&key["public_key"], &1.into())
    );
    let (exit, text) = failure(&run(&["register", "alice.nectar", "--json"]));
    assert!(
        exit == 1 && text.contains("alice.nectar is yours already: `nectar record update`"),
        "{exit} {text}"
    );

    let (exit, text) = failure(&run(&[
        "register",
        "bob.nectar",
        "--router",
        "nobody.nectar",
    ]));
    assert!(
        exit == 1 && text.contains("nobody has registered nobody.nectar, so it is no router"),
        "{exit} {text}"
    );

    let found = json(&run(&["resolve", "alice.nectar", "--json"]));
    assert_eq!(
        (&found["public_key"], &found["known"]["by"]),
        (&key["public_key"], &"rpc".into())
    );
    assert_eq!(found["routing"]["wss"], true);
    let shown = json(&run(&["record", "show", "alice.nectar", "--json"]));
    assert_eq!(
        (&shown["routing"], &shown["router_index"]),
        (&found["routing"], &1.into())
    );
    let text = run(&["resolve", "alice.nectar"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("directly, ws+wss://192.0.2.7:9444")
            && text.contains("on the word of one RPC"),
        "{text}"
    );
    let (exit, text) = failure(&run(&["resolve", "nobody.nectar"]));
    assert!(
        exit == 3 && text.contains("nobody has registered"),
        "{exit} {text}"
    );
    let (exit, _) = failure(&run(&["record", "show", "nobody.nectar"]));
    assert_eq!(exit, 3);

    let other = json(&run(&[
        "keygen",
        "--json",
        "--unencrypted",
        "--out",
        "other.key",
    ]));
    json(&run(&[
        "record",
        "rotate",
        "alice.nectar",
        "--key",
        "other.key",
        "--json",
    ]));
    let (exit, text) = failure(&run(&["record", "update", "alice.nectar"]));
    assert!(
        exit == 2 && text.contains("nothing to change"),
        "{exit} {text}"
    );
    json(&run(&[
        "record",
        "update",
        "alice.nectar",
        "--host",
        "router.example",
        "--port",
        "443",
        "--scheme",
        "wss",
        "--json",
    ]));
    let found = json(&run(&["resolve", "alice.nectar", "--json"]));
    assert_eq!(
        (&found["public_key"], &found["routing"]["host"]),
        (&other["public_key"], &"router.example".into())
    );

    let check = run(&["run", "--check"]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(
        text.contains("names another key") && check.status.code() == Some(1),
        "{text}"
    );
    let check = run(&["run", "--check", "--key", "other.key"]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(
        text.contains("has an address, but this node has no [listen]"),
        "{text}"
    );
    let report = json(&run(&[
        "run",
        "--check",
        "--json",
        "--key",
        "other.key",
        "--port",
        "0",
    ]));
    assert_eq!(
        (&report["name"], &report["problems"]),
        (&"alice.nectar".into(), &0.into())
    );
    assert!(report["worst_case_bytes"]["total"].as_u64().unwrap() > 0);

    json(&run(&[
        "record",
        "manager",
        "alice.nectar",
        "--to",
        &format!("0x{}", "11".repeat(20)),
        "--json",
    ]));
    json(&run(&[
        "record",
        "manager",
        "alice.nectar",
        "--to",
        "none",
        "--json",
    ]));
    json(&run(&[
        "record",
        "transfer",
        "alice.nectar",
        "--to",
        &format!("0x{}", "22".repeat(20)),
        "--json",
    ]));
    let shown = json(&run(&["record", "show", "alice.nectar", "--json"]));
    assert!(
        shown["invalid"]
            .as_str()
            .unwrap()
            .contains("no networking key"),
        "{shown}"
    );
    let (exit, text) = failure(&run(&["record", "rotate", "alice.nectar"]));
    assert!(
        exit == 1 && text.contains("may not change alice.nectar"),
        "{exit} {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_deployed_and_an_account_funded_from_the_command_line() {
    let anvil = Anvil::start();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wallet = [("NECTAR_WALLET_KEY", KEYS[0])];
    let artifact = artifact().display().to_string();
    let args = [
        "deploy",
        "--json",
        "--rpc",
        &anvil.url,
        "--artifact",
        &artifact,
        "--min-age",
        "0",
        "--max-age",
        "60",
    ];
    let deployed = json(&nectar_with(dir, &args, &wallet));
    let contract = deployed["contract"].as_str().unwrap();
    let made = json(&nectar(
        dir,
        &["keygen", "--json", "--wallet", "--unencrypted"],
    ));
    let account = made["address"].as_str().unwrap();
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let register = [
        "register",
        "bob.nectar",
        "--json",
        "--public-key",
        key,
        "--wallet",
        "wallet.key",
    ];
    let registry = [
        "--rpc",
        &anvil.url,
        "--contract",
        contract,
        "--chain-id",
        "31337",
    ];
    let (exit, text) = failure(&nectar(dir, &[&register[..], &registry].concat()));
    let remedy = format!("nectar fund {account} --rpc {}", anvil.url);
    assert!(exit == 1 && text.contains(&remedy), "{exit} {text}");
    json(&nectar_with(
        dir,
        &["fund", account, "--json", "--rpc", &anvil.url],
        &wallet,
    ));
    let registered = json(&nectar(dir, &[&register[..], &registry].concat()));
    assert_eq!(registered["owner"], account);
    let (exit, text) = failure(&nectar_with(dir, &args, &[("NECTAR_WALLET_KEY", "12345")]));
    assert!(
        exit == 2
            && text.contains("NECTAR_WALLET_KEY does not hold a private key")
            && !text.contains("12345"),
        "{text}"
    );
}
