//! `nectar demo`, and how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::support::{anvil_program, artifact, guarded};
use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A loaded machine takes its time to start a chain.
const PATIENCE: Duration = Duration::from_secs(60);

/// A demonstration, and the port of its chain.
struct Demo {
    child: Child,
    chain: u16,
}

impl Demo {
    /// Starts it, and waits until its chain answers. `directory` gets `ready` once everything runs.
    fn start(directory: &Path) -> Self {
        let at = |name: &str| directory.join(name);
        std::fs::create_dir(at("page")).unwrap();
        std::fs::write(at("page/index.html"), "<!doctype html>").unwrap();
        // Says where the chain is before it becomes the chain.
        let program = at("anvil");
        let anvil = anvil_program();
        let script = format!(
            "#!/bin/sh\necho \"$@\" > '{}'\nexec '{}' \"$@\"\n",
            at("args").display(),
            anvil.display()
        );
        guarded(&program, &script);
        make_executable(&program);
        let mut child = Command::new(env!("CARGO_BIN_EXE_nectar"))
            .args(["demo", "--port", "0"])
            .arg("--page")
            .arg(at("page"))
            .arg("--anvil")
            .arg(program)
            .arg("--contract")
            .arg(artifact())
            .arg("--ready")
            .arg(at("ready"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("said")).unwrap())
            .spawn()
            .unwrap();
        let mut chain = None;
        until("the chain answers", || {
            assert!(child.try_wait().unwrap().is_none(), "the demo ended");
            chain = std::fs::read_to_string(at("args"))
                .ok()
                .and_then(|args| port_of(&args))
                .filter(|port| answers(*port));
            chain.is_some()
        });
        Self {
            child,
            chain: chain.unwrap(),
        }
    }

    /// Sends it a signal, and waits for its end.
    fn end(mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
        let mut status = None;
        until("the demo ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = self.child.id().to_string();
            let _ = Command::new("kill").arg(&pid).status();
            let _ = self.child.wait();
        }
    }
}

fn port_of(args: &str) -> Option<u16> {
    let (_, port) = args.split_once("--port ")?;
    port.split_whitespace().next()?.parse().ok()
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn make_executable(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(path, mode).unwrap();
}

#[test]
fn a_demonstration_takes_its_chain_along_whoever_ends_it() {
    for signal in ["HUP", "TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let demo = Demo::start(directory.path());
        until("everything runs", || {
            directory.path().join("ready").exists()
        });
        let chain = demo.chain;
        let status = demo.end(signal);
        assert!(status.success(), "{signal}: {status}");
        assert!(!answers(chain), "{signal}: its chain runs on");
        let said = std::fs::read_to_string(directory.path().join("said")).unwrap();
        assert!(said.ends_with("everything has ended\n"), "{signal}: {said}");
    }
}

#[test]
fn a_demonstration_that_is_ended_while_it_is_set_up_leaves_no_chain_behind() {
    for signal in ["HUP", "TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let demo = Demo::start(directory.path());
        let chain = demo.chain;
        let status = demo.end(signal);
        assert!(status.success(), "{signal}: {status}");
        assert!(
            !directory.path().join("ready").exists(),
            "{signal}: it came too late to say anything"
        );
        // It was killed, and nobody waited for it.
        until("its chain is gone", || !answers(chain));
    }
}

#[test]
fn a_demonstration_whose_port_is_occupied_says_so_before_it_starts_anything() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("index.html"), "<!doctype html>").unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(["demo", "--port", &port, "--anvil", "/nonexistent"])
        .arg("--page")
        .arg(&page)
        .arg("--contract")
        .arg(artifact())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let problem = format!("error: the page cannot have port {port}: ");
    assert!(
        said.starts_with(&problem) && said.contains("give another --port"),
        "{said}"
    );
}
