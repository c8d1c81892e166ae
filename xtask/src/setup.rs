//! Installing what the machine lacks.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, Log};
use crate::repo::{Repo, which};

/// Names that the programs of one browser go by.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// The target that a browser runs.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// How a step of setting up reports: into a log, or to the person who waits.
pub(crate) enum Output<'a> {
    /// Shown only on failure.
    Log(&'a Log),
    /// Shown at once.
    Shown,
}

impl Output<'_> {
    fn run(&self, command: &mut Command) -> Result<()> {
        match self {
            Self::Log(log) => log.require(command).map(drop),
            Self::Shown => process::run(command),
        }
    }
}

/// The compiler's parts that `rust-toolchain.toml` names. rustup may be told not to install these by itself.
pub(crate) fn toolchain(repo: &Repo, output: &Output<'_>) -> Result<()> {
    let sysroot = process::output(repo.command("rustc").args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    if !sysroot.join("lib/rustlib").join(WASM_TARGET).is_dir() {
        rustup(repo, output, &["target", "add", WASM_TARGET])?;
    }
    for (component, binary) in [("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")] {
        if !sysroot.join("bin").join(binary).exists() {
            rustup(repo, output, &["component", "add", component])?;
        }
    }
    Ok(())
}

fn rustup(repo: &Repo, output: &Output<'_>, args: &[&str]) -> Result<()> {
    if which("rustup").is_none() {
        bail!(
            "the Rust toolchain lacks {}; without rustup, install it the way you installed Rust",
            args.join(" ")
        );
    }
    output.run(repo.command("rustup").args(args))
}

/// The packages that `directory/package-lock.json` names, installed once for each content of it.
pub(crate) fn npm(repo: &Repo, directory: &str, output: &Output<'_>) -> Result<()> {
    if which("npm").is_none() {
        bail!("npm is missing: install Node.js 20.19 or newer");
    }
    let lock = repo.path(directory).join("package-lock.json");
    let wanted = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    // Beside the packages, so that it goes when they go. The whole lock rather than a hash: it costs a few kilobytes.
    let stamp = repo.path(directory).join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    output.run(
        repo.npm(directory)
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Chromium and its driver, by Debian's packages where we may install them.
pub(crate) fn browser(repo: &Repo, output: &Output<'_>) -> Result<()> {
    if browser_path().is_some() && which("chromedriver").is_some() {
        return Ok(());
    }
    if !may_install(repo)? {
        bail!(
            "Chromium or its driver is missing. Install both, of one version, so that `chromium` and `chromedriver` are in \
             PATH: on Debian, apt-get install chromium chromium-driver"
        );
    }
    apt_get(repo, output, &["chromium", "chromium-driver"])
}

/// Valgrind, by Debian's package where we may install it. Nothing depends on it: a sentence where there is none.
pub(crate) fn valgrind(repo: &Repo, output: &Output<'_>) -> Result<Option<&'static str>> {
    if which("valgrind").is_none() {
        if !may_install(repo)? {
            return Ok(Some(
                "valgrind is missing: on Debian, apt-get install valgrind",
            ));
        }
        if apt_get(repo, output, &["valgrind"]).is_err() {
            return Ok(Some("valgrind is missing, and apt-get cannot install it"));
        }
    }
    Ok(None)
}

fn may_install(repo: &Repo) -> Result<bool> {
    let root = process::output(repo.command("id").arg("-u"))?.trim() == "0";
    Ok(root && which("apt-get").is_some())
}

fn apt_get(repo: &Repo, output: &Output<'_>, packages: &[&str]) -> Result<()> {
    output.run(repo.command("apt-get").arg("update"))?;
    output.run(
        repo.command("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// The browser that the tests drive.
pub(crate) fn browser_path() -> Option<PathBuf> {
    BROWSERS.into_iter().find_map(which)
}
