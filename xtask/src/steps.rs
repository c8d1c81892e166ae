//! What `cargo xtask test` runs, in order.
use anyhow::Result;

use crate::process::Log;
use crate::repo::Repo;
use crate::setup::{self, Output, WASM_TARGET};
use crate::sizes::{self, kib};
use crate::tally::Tally;
use crate::test::{Outcome, Part};
use crate::{deny, wasm};

/// One thing that must hold.
pub(crate) struct Step {
    /// Where it belongs.
    pub(crate) part: Part,
    /// What a person calls it; also its log's name.
    pub(crate) name: &'static str,
    /// Earlier steps without which it cannot hold.
    pub(crate) needs: &'static [&'static str],
    /// Runs it.
    pub(crate) run: fn(&Repo, &Log) -> Result<Outcome>,
}

/// Cheap ones first, so that a typing error shows in seconds.
pub(crate) const STEPS: &[Step] = &[
    Step {
        part: Part::Setup,
        name: "toolchain",
        needs: &[],
        run: toolchain,
    },
    Step {
        part: Part::Lint,
        name: "format",
        needs: &["toolchain"],
        run: format,
    },
    Step {
        part: Part::Lint,
        name: "clippy",
        needs: &["toolchain"],
        run: clippy,
    },
    Step {
        part: Part::Lint,
        name: "clippy for wasm",
        needs: &["toolchain"],
        run: clippy_wasm,
    },
    Step {
        part: Part::Lint,
        name: "documentation",
        needs: &["toolchain"],
        run: documentation,
    },
    Step {
        part: Part::Rust,
        name: "rust tests",
        needs: &["toolchain"],
        run: rust_tests,
    },
    Step {
        part: Part::Setup,
        name: "browser",
        needs: &[],
        run: browser,
    },
    Step {
        part: Part::Setup,
        name: "wasm tools",
        needs: &["toolchain"],
        run: wasm_tools,
    },
    Step {
        part: Part::Wasm,
        name: "wasm module",
        needs: &["wasm tools"],
        run: wasm_module,
    },
    Step {
        part: Part::Wasm,
        name: "wasm tests",
        needs: &["wasm tools", "browser"],
        run: wasm_tests,
    },
    Step {
        part: Part::Setup,
        name: "cargo-deny",
        needs: &["toolchain"],
        run: cargo_deny,
    },
    Step {
        part: Part::Lint,
        name: "dependencies",
        needs: &["cargo-deny"],
        run: dependencies,
    },
];

/// The crates that stand outside the workspace are formatted alike.
const OUTSIDE: [&str; 1] = ["xtask/wasm-tools/Cargo.toml"];

fn toolchain(repo: &Repo, log: &Log) -> Result<Outcome> {
    setup::toolchain(repo, &Output::Log(log))?;
    Ok(Outcome::held())
}

fn browser(repo: &Repo, log: &Log) -> Result<Outcome> {
    setup::browser(repo, &Output::Log(log))?;
    Ok(Outcome::held())
}

fn format(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(repo.cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in OUTSIDE {
        log.require(
            repo.cargo()
                .args(["fmt", "--check", "--manifest-path", manifest]),
        )?;
    }
    Ok(Outcome::held())
}

fn clippy(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(repo.cargo().args([
        "clippy",
        "--locked",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    Ok(Outcome::held())
}

fn clippy_wasm(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(
        repo.cargo()
            .args([
                "clippy",
                "--locked",
                "--package",
                "node-wasm",
                "--all-targets",
                "--target",
                WASM_TARGET,
            ])
            .args(["--", "--deny", "warnings"]),
    )?;
    Ok(Outcome::held())
}

fn documentation(repo: &Repo, log: &Log) -> Result<Outcome> {
    let doc = || {
        let mut cargo = repo.cargo();
        cargo
            .args(["doc", "--locked", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings");
        cargo
    };
    log.require(&mut doc())?;
    log.require(doc().args(["--package", "node-wasm", "--target", WASM_TARGET]))?;
    Ok(Outcome::held())
}

fn rust_tests(repo: &Repo, log: &Log) -> Result<Outcome> {
    let (status, text) = log.run(repo.cargo().args(["test", "--locked", "--no-fail-fast"]))?;
    Outcome::counted(status.success(), Tally::of_cargo(&text))
}

fn wasm_tools(repo: &Repo, log: &Log) -> Result<Outcome> {
    setup::npm(repo, wasm::tools_directory(), &Output::Log(log))?;
    wasm::build_tools(repo, log)?;
    Ok(Outcome::held())
}

fn wasm_module(repo: &Repo, log: &Log) -> Result<Outcome> {
    let size = wasm::build(repo, log)?;
    let raw = kib(size.raw);
    Ok(Outcome::noted(format!(
        "{}, {raw} raw",
        sizes::within("module", &[size], sizes::MODULE_BUDGET)?
    )))
}

fn wasm_tests(repo: &Repo, log: &Log) -> Result<Outcome> {
    let (succeeded, text) = wasm::test(repo, log, &["--package", "node-wasm"])?;
    Outcome::counted(succeeded, Tally::of_cargo(&text))
}

fn cargo_deny(repo: &Repo, log: &Log) -> Result<Outcome> {
    deny::install(repo, log)?;
    Ok(Outcome::held())
}

fn dependencies(repo: &Repo, log: &Log) -> Result<Outcome> {
    deny::check(repo, log)?;
    deny::check_module(repo, log)?;
    Ok(Outcome::noted(
        "bans, licences, sources; no advisories".to_owned(),
    ))
}
