//! `nectar run`, `request`, `send` and `ping`, as processes.

use crate::support::{Network, PATIENCE, REGISTRY, key_of};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

/// A directory with a configuration and a key for one node.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new(network: &Network, label: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_key(&directory.path().join("nectar.key"), label);
        let contract = hex::encode(REGISTRY.contract);
        let mut text = format!(
            "[node]\nname = \"{label}.nectar\"\nallow_private = true\n\
             [[registry]]\ntld = \"nectar\"\nchain_id = {}\ncontract = \"0x{contract}\"\n",
            REGISTRY.chain_id
        );
        for (name, record) in network.records() {
            let key = hex::encode(record.key);
            text += &format!(
                "[[pin]]\nname = \"{}.nectar\"\nkey = \"{key}\"\n",
                name.label
            );
            match &record.routing {
                Some(at) => {
                    text += &format!(
                        "host = \"{}\"\nport = {}\nschemes = [\"ws\"]\n",
                        at.host, at.port
                    );
                }
                None => {
                    let routers: Vec<_> = record
                        .routers
                        .iter()
                        .map(|label| format!("\"{label}.nectar\""))
                        .collect();
                    text += &format!("routers = [{}]\n", routers.join(", "));
                }
            }
        }
        std::fs::write(directory.path().join("nectar.toml"), text).unwrap();
        Self { directory }
    }

    fn nectar(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nectar"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.nectar(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.output(&[args, &["--json"]].concat());
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn failure(&self, args: &[&str]) -> (i32, String) {
        let output = self.output(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text)
    }

    /// Runs the node until the value is dropped.
    fn run(&self, address: Option<SocketAddr>, args: &[&str]) -> Running {
        let mut command = self.nectar(&["run", "--json"]);
        command.args(args).stdout(Stdio::piped());
        if let Some(address) = address {
            let port = address.port().to_string();
            command.args(["--address", &address.ip().to_string(), "--port", &port]);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let said =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("it does not run: {line}"));
        Running { child, said }
    }
}

struct Running {
    child: Child,
    said: Value,
}

impl Running {
    /// Asks it to end and waits until it has.
    #[cfg(unix)]
    fn terminate(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_key(path: &PathBuf, label: &str) {
    let key = key_of(label);
    let text = serde_json::json!({
        "nectar_key": 1,
        "kind": "networking",
        "public": hex::encode(key.verifying_key().to_bytes()),
        "seal": null,
        "secret": hex::encode(key.to_bytes()),
    });
    std::fs::write(path, text.to_string()).unwrap();
    guard(path);
}

#[cfg(unix)]
fn guard(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
}

#[cfg(not(unix))]
fn guard(_: &Path) {}

#[test]
fn nodes_that_run_answer_the_commands_of_others() {
    let network = Network::default()
        .direct("rho")
        .indirect("bob", &["rho"])
        .indirect("alice", &["rho"]);
    let [rho, bob, alice] = ["rho", "bob", "alice"].map(|label| Home::new(&network, label));
    let address = network.address("rho");
    let router = rho.run(Some(address), &["--echo"]);
    assert_eq!(router.said["name"], "rho.nectar");
    assert_eq!(router.said["listen"], address.to_string());
    let running = bob.run(None, &["--echo"]);
    assert_eq!(running.said["listen"], Value::Null);

    let answer = alice.json(&["request", "rho.nectar", "echo.1", "direct"]);
    assert_eq!(
        answer,
        serde_json::json!({ "answer": "success", "data": "direct" })
    );
    // Bob may still be on his way to the router.
    let begun = Instant::now();
    let answer = loop {
        let output = alice.output(&["request", "bob.nectar", "echo.1", "routed"]);
        if output.status.success() {
            break output.stdout;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    assert_eq!(answer, b"routed\n");

    let chat = r#"{"id":"1","text":"hello","at":1}"#;
    let sent = alice.json(&["send", "bob.nectar", "chat.1", chat]);
    assert_eq!(sent["delivered"], true);
    let (exit, text) = alice.failure(&["request", "bob.nectar", "nonsense.1"]);
    assert!(exit == 1 && text.contains("error 404"), "{exit} {text}");

    let ping = alice.json(&["ping", "bob.nectar", "--explain", "--count", "2"]);
    assert_eq!(ping["resolved"]["by"], "pinned");
    assert_eq!(ping["connected"]["route"], "via rho.nectar");
    assert_eq!(ping["round_trip_ms"].as_array().unwrap().len(), 2);
    let attempts = ping["attempts"].as_array().unwrap();
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt["route"] == "via rho.nectar" && attempt["error"].is_null()),
        "{ping}"
    );

    let (exit, text) = bob.failure(&["request", "rho.nectar", "echo.1", "?"]);
    assert!(
        exit == 1 && text.contains("in use by a running node") && text.contains("--guest"),
        "{exit} {text}"
    );
    #[cfg(unix)]
    assert!(running.terminate().success());
}

#[test]
fn a_peer_that_is_not_there_is_explained() {
    let network = Network::default().direct("alice").direct("bob");
    let alice = Home::new(&network, "alice");
    let (exit, text) = alice.failure(&["ping", "bob.nectar", "--explain"]);
    assert_eq!(exit, 1, "{text}");
    for part in ["resolved", "pinned", "route", "direct", "cannot be reached"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (exit, text) = alice.failure(&["request", "bob.elsewhere", "echo.1"]);
    assert!(exit == 2 && text.contains("elsewhere"), "{exit} {text}");
}

#[test]
fn what_is_wrong_with_ones_own_name_is_not_said_of_the_peers() {
    let network = Network::default().direct("alice").direct("bob");
    let [alice, bob] = ["alice", "bob"].map(|label| Home::new(&network, label));
    let _running = bob.run(Some(network.address("bob")), &["--echo"]);
    write_key(&alice.directory.path().join("nectar.key"), "mallory");
    for args in [
        &["ping", "bob.nectar"][..],
        &["request", "bob.nectar", "echo.1"],
        &["send", "bob.nectar", "chat.1"],
    ] {
        let (exit, text) = alice.failure(args);
        assert!(
            exit == 1
                && text.contains("alice.nectar, your own name")
                && text.contains("nectar record rotate alice.nectar"),
            "{exit} {text}"
        );
    }
    let elsewhere = format!("0x{}", "11".repeat(20));
    let registry = ["--contract", &elsewhere, "--chain-id", "31337"];
    let (exit, text) = alice.failure(&[&["ping", "bob.nectar"][..], &registry].concat());
    assert!(exit == 2 && text.contains("--guest"), "{exit} {text}");
}
