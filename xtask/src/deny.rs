//! Licences, duplicates and sources of all dependencies, by `cargo deny` and `deny.toml`.
use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::process::{self, Log};
use crate::repo::Repo;
use crate::setup::WASM_TARGET;

/// A version of ours, so that a new one's opinions arrive when we choose.
const VERSION: &str = "0.20.2";

/// Keccak for event signatures and SHAKE for ML-KEM come with different versions; the code that they share is in `keccak`.
const ALLOWED_DOUBLES: [&str; 1] = ["sha3"];

/// Builds the tool once, unless this machine has just this version.
///
/// Without optimisation: that takes a minute instead of five, and it runs for a second.
pub(crate) fn install(repo: &Repo, log: &Log) -> Result<()> {
    if is_there(repo, "cargo-deny") || is_there(repo, installed(repo)) {
        return Ok(());
    }
    log.require(
        repo.cargo()
            .args([
                "install",
                "--locked",
                "--debug",
                "--force",
                "--version",
                VERSION,
                "cargo-deny",
                "--root",
            ])
            .arg(repo.target("tools"))
            .env("CARGO_TARGET_DIR", repo.target("tools/build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    )
    .map(drop)
}

/// Advisories are left out: their database is no registry and cannot be reached from everywhere that this must run.
pub(crate) fn check(repo: &Repo, log: &Log) -> Result<()> {
    let program = if is_there(repo, "cargo-deny") {
        "cargo-deny".into()
    } else {
        installed(repo)
    };
    log.require(repo.command(program).args([
        "--locked",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
    .map(drop)
}

/// Refuses crates of which the browser's module would carry two versions.
pub(crate) fn check_module(repo: &Repo, log: &Log) -> Result<()> {
    let tree = log.require(
        repo.cargo()
            .args([
                "tree",
                "--quiet",
                "--locked",
                "--package",
                "node-wasm",
                "--target",
                WASM_TARGET,
            ])
            .args([
                "--edges",
                "normal,no-proc-macro",
                "--duplicates",
                "--depth",
                "0",
                "--prefix",
                "none",
            ]),
    )?;
    let doubles = doubles(&tree);
    if !doubles.is_empty() {
        bail!(
            "the module carries more than one version of {}",
            doubles.join(", ")
        );
    }
    Ok(())
}

fn doubles(tree: &str) -> Vec<&str> {
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| Some(line.split_once(" v")?.0))
        .collect();
    names
        .into_iter()
        .filter(|name| !ALLOWED_DOUBLES.contains(name))
        .collect()
}

fn installed(repo: &Repo) -> OsString {
    repo.target("tools/bin/cargo-deny").into()
}

fn is_there(repo: &Repo, program: impl Into<OsString>) -> bool {
    process::output(repo.command(program).arg("--version"))
        .is_ok_and(|text| text.trim().ends_with(VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_named_once_and_allowed_ones_not() {
        assert_eq!(
            doubles("syn v2.0.1\n\nsyn v3.0.9\n\nsha3 v0.11.0\n\nsha3 v0.12.0\n"),
            ["syn"]
        );
        assert!(doubles("").is_empty());
    }
}
