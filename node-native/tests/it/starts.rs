//! What is read before a node runs, what that says when it cannot be, and what ends it meanwhile.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::cli::{failure, json, nectar, nectar_with, pinned};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

/// A directory with a key, and a configuration whose only name is pinned to it.
fn home(more: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = json(&nectar(
        directory.path(),
        &["keygen", "--json", "--unencrypted"],
    ));
    let text = pinned(&made["public_key"]) + more;
    fs::write(directory.path().join("nectar.toml"), text).unwrap();
    directory
}

fn check(directory: &Path, args: &[&str]) -> serde_json::Value {
    json(&nectar(
        directory,
        &[&["run", "--check", "--json"], args].concat(),
    ))
}

#[test]
fn a_check_reads_the_bans_and_the_faucets_wallet_and_tells_of_a_node_that_runs() {
    let directory = home("");
    let dir = directory.path();
    assert_eq!(check(dir, &[])["running"], false);
    let held = File::open(dir.join("nectar.key")).unwrap();
    held.lock().unwrap();
    let report = check(dir, &[]);
    assert_eq!(
        (&report["running"], &report["problems"]),
        (&true.into(), &0.into())
    );

    fs::write(dir.join("nectar.bans.json"), "no list").unwrap();
    let (exit, text) = failure(&nectar(dir, &["run", "--check"]));
    assert!(
        exit == 2 && text.contains("no list of bans"),
        "{exit} {text}"
    );
    fs::remove_file(dir.join("nectar.bans.json")).unwrap();
    let faucet = "[listen]\nport = 0\n[faucet]\ntld = \"nectar\"\nwallet_file = \"nowhere.key\"\n";
    let text = fs::read_to_string(dir.join("nectar.toml")).unwrap();
    let text = text.replace(
        "chain_id = 1\n",
        "chain_id = 31337\nrpcs = [\"http://127.0.0.1:1\"]\n",
    );
    fs::write(dir.join("nectar.toml"), text + faucet).unwrap();
    let (exit, text) = failure(&nectar(dir, &["run", "--check"]));
    assert!(exit == 2 && text.contains("nowhere.key"), "{exit} {text}");
}

#[test]
fn bans_that_cannot_be_read_or_locked_now_end_a_start_as_what_may_be_well_the_next_time() {
    let directory = home("");
    let dir = directory.path();
    fs::create_dir(dir.join("nectar.bans.json")).unwrap();
    let (exit, text) = failure(&nectar(dir, &["run"]));
    assert!(
        exit == 1 && text.contains("nectar.bans.json"),
        "{exit} {text}"
    );
    fs::remove_dir(dir.join("nectar.bans.json")).unwrap();
    nectar(dir, &["ban", "add", "eve.nectar"]);
    let held = File::open(dir.join("nectar.bans.lock")).unwrap();
    held.lock().unwrap();
    let (exit, text) = failure(&nectar(dir, &["ban", "lift", "eve.nectar"]));
    assert!(
        exit == 1 && text.contains("nectar.bans.lock"),
        "{exit} {text}"
    );
}

#[test]
fn large_heads_of_requests_are_in_the_worst_case() {
    let directory = tempfile::tempdir().unwrap();
    let sockets = |size| {
        let size = format!("listen.header_bytes={size}");
        let args = [
            "--port",
            "0",
            "--set",
            "listen.connections=64",
            "--set",
            &size,
        ];
        let report = check(directory.path(), &args);
        report["worst_case_bytes"]["sockets"].as_u64().unwrap()
    };
    assert!(sockets("1 MiB") >= sockets("8 KiB") + (64 << 20));
}

#[cfg(unix)]
#[test]
fn what_is_wrong_with_where_a_passphrase_comes_from_is_said_of_that() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let sealed = [("NECTAR_PASSPHRASE", "correct horse")];
    let made = json(&nectar_with(dir, &["keygen", "--json"], &sealed));
    fs::write(dir.join("nectar.toml"), pinned(&made["public_key"])).unwrap();
    let from = |file| {
        let file = [("NECTAR_PASSPHRASE_FILE", file)];
        failure(&nectar_with(dir, &["run", "--check"], &file))
    };
    let (exit, text) = from("nowhere");
    assert!(
        exit == 2 && text.contains("NECTAR_PASSPHRASE_FILE"),
        "{text}"
    );
    assert!(!text.contains("keygen"), "{text}");
    assert!(
        Command::new("mkfifo")
            .arg(dir.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let (exit, text) = from("pipe");
    assert!(exit == 2 && text.contains("not a regular file"), "{text}");
    let output = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(["run", "--check"])
        .current_dir(dir)
        .env_clear()
        .env(
            "NECTAR_PASSPHRASE",
            std::ffi::OsStr::from_bytes(b"l\xe4nger als acht"),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (exit, text) = failure(&output);
    assert!(
        exit == 2 && text.contains("NECTAR_PASSPHRASE is not UTF-8"),
        "{text}"
    );
}

#[test]
fn an_error_about_an_endpoint_in_the_configuration_keeps_its_secrets() {
    for url in [
        "htp://user:hunter2@rpc.example/hunter2?key=hunter2",
        "http://[hunter2",
    ] {
        let directory = home("");
        let path = directory.path().join("nectar.toml");
        let text = fs::read_to_string(&path).unwrap();
        let rpcs = format!("chain_id = 1\nrpcs = [\"{url}\"]\n");
        fs::write(path, text.replace("chain_id = 1\n", &rpcs)).unwrap();
        let (exit, text) = failure(&nectar(directory.path(), &["status"]));
        assert!(
            exit == 2 && text.contains("URL") && text.contains(":6:"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_node_that_listens_at_one_outer_address_is_said_to_have_no_status_to_ask_for() {
    let directory = home("[listen]\naddress = \"192.0.2.1\"\nport = 1\n");
    let (exit, text) = failure(&nectar(directory.path(), &["status"]));
    assert!(exit == 1 && text.contains("192.0.2.1 alone"), "{text}");
    let directory = home("[listen]\naddress = \"127.0.0.9\"\nport = 1\n");
    let (_, text) = failure(&nectar(directory.path(), &["status"]));
    assert!(text.contains("http://127.0.0.9:1/status"), "{text}");
}

#[cfg(unix)]
#[test]
fn who_is_told_to_end_while_it_starts_ends_properly() {
    // An endpoint that says nothing keeps the start waiting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rpc = format!("http://{}", silent.local_addr().unwrap());
    let directory =
        home("[listen]\naddress = \"127.0.0.1\"\nport = 0\n[offer]\nrouters = [\"rho.nectar\"]\n");
    let path = directory.path().join("nectar.toml");
    let text = fs::read_to_string(&path).unwrap();
    let rpcs = format!("chain_id = 1\nrpcs = [\"{rpc}\"]\n");
    fs::write(path, text.replace("chain_id = 1\n", &rpcs)).unwrap();
    let node = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .arg("run")
        .current_dir(directory.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _asking = silent.accept().unwrap();
    let pid = node.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "it did not run");
}

#[cfg(unix)]
#[test]
fn a_wallet_that_is_no_file_is_not_waited_for() {
    let directory = home("");
    let pipe = directory.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let rotate = ["record", "rotate", "alice.nectar", "--wallet", "pipe"];
    let (exit, text) = failure(&nectar(directory.path(), &rotate));
    assert!(exit == 2 && text.contains("not a regular file"), "{text}");
}
