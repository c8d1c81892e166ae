//! The `nectar` command with a configuration and a key of its own.

use crate::support::{Network, PATIENCE, REGISTRY, key_of};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Instant,
};

/// A directory with a configuration and a key for one node.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(network: &Network, label: &str) -> Self {
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

    /// A node that pins nothing, and reads the chain at `rpc`.
    pub(crate) fn on_chain(label: &str, rpc: &str) -> Self {
        let home = Self::new(&Network::default(), label);
        home.reads(rpc);
        home
    }

    /// Lets it read the chain at `rpc` beside what it pins.
    pub(crate) fn reads(&self, rpc: &str) {
        let path = self.path().join("nectar.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replacen(
            "[[registry]]\n",
            &format!("[[registry]]\nrpcs = [\"{rpc}\"]\n"),
            1,
        );
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn nectar(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nectar"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.nectar(args).output().unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.output(&[args, &["--json"]].concat());
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn failure(&self, args: &[&str]) -> (i32, String) {
        let output = self.output(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text)
    }

    /// Runs the node until the value is dropped.
    pub(crate) fn run(&self, address: Option<SocketAddr>, args: &[&str]) -> Running {
        Running::begin(self.run_command(address, args))
    }

    /// The command that runs the node.
    pub(crate) fn run_command(&self, address: Option<SocketAddr>, args: &[&str]) -> Command {
        let mut command = self.nectar(&["run", "--json"]);
        command.args(args);
        if let Some(address) = address {
            let port = address.port().to_string();
            command.args(["--address", &address.ip().to_string(), "--port", &port]);
        }
        command
    }
}

/// A node that ends with this value.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said when it began.
    pub(crate) said: Value,
}

impl Running {
    /// Starts a command that [`Home::run_command`] gave.
    pub(crate) fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let said =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("it does not run: {line}"));
        Self {
            child,
            stdout,
            said,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, and gives what else it wrote to standard output.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.child.kill().unwrap();
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Sends it a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Asks it to end and waits until it has.
    #[cfg(unix)]
    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        self.signal("TERM");
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

/// A key file that is not sealed.
pub(crate) fn write_key(path: &PathBuf, label: &str) {
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
