//! What `cargo xtask test` runs, in order.
use anyhow::{Context, Result};

use crate::process::Log;
use crate::repo::{Repo, which};
use crate::setup::{self, Output, WASM_TARGET};
use crate::sizes::{self, kib};
use crate::tally::Tally;
use crate::test::Outcome;
use crate::test::Part::{self, Contracts, Instructions, Lint, Page, Rust, Setup, Wasm};
use crate::{CONTRACTS, conformance, deny, fuzz, instructions, page, wasm};

/// One thing that must hold.
pub(crate) struct Step {
    /// Where it belongs.
    pub(crate) part: Part,
    /// What a person calls it; also its log's name.
    pub(crate) name: &'static str,
    /// Earlier steps without which it cannot hold.
    pub(crate) needs: &'static [&'static str],
    /// Runs it.
    pub(crate) run: Run,
}

type Run = fn(&Repo, &Log) -> Result<Outcome>;

/// Cheap ones first, so that a typing error shows in seconds.
pub(crate) const STEPS: &[Step] = &[
    step(Setup, "toolchain", &[], toolchain),
    step(Lint, "format", &["toolchain"], format),
    step(Lint, "clippy", &["toolchain"], clippy),
    step(Lint, "clippy for wasm", &["toolchain"], clippy_wasm),
    step(Lint, "documentation", &["toolchain"], documentation),
    step(Lint, "fuzz targets", &["toolchain"], fuzz_targets),
    step(Setup, "contract packages", &[], contract_packages),
    step(
        Contracts,
        "contract format",
        &["contract packages"],
        contract_format,
    ),
    step(
        Contracts,
        "contract build",
        &["contract packages"],
        contract_build,
    ),
    step(
        Contracts,
        "contract tests",
        &["contract build"],
        contract_tests,
    ),
    step(
        Contracts,
        "contract artifact",
        &["contract build"],
        contract_artifact,
    ),
    step(Contracts, "contract gas", &["contract build"], contract_gas),
    step(Rust, "rust tests", &["toolchain"], rust_tests),
    step(Rust, "public vectors", &["toolchain"], public_vectors),
    step(
        Instructions,
        "instructions",
        &["toolchain"],
        instruction_counts,
    ),
    step(Setup, "browser", &[], browser),
    step(Setup, "wasm tools", &["toolchain"], wasm_tools),
    step(Wasm, "wasm module", &["wasm tools"], wasm_module),
    step(Wasm, "wasm tests", &["wasm tools", "browser"], wasm_tests),
    step(
        Wasm,
        "core tests in wasm",
        &["wasm tools", "browser"],
        core_tests_in_wasm,
    ),
    step(Setup, "page packages", &[], page_packages),
    step(Page, "page types", &["page packages"], page_types),
    step(Page, "page tests", &["page packages"], page_tests),
    step(
        Page,
        "page build",
        &["page packages", "wasm module"],
        page_build,
    ),
    step(
        Page,
        "page end to end",
        &["contract packages", "page packages", "browser"],
        page_end_to_end,
    ),
    step(Page, "two tabs", &["page build", "browser"], two_tabs),
    step(
        Page,
        "demonstration",
        &["page build", "contract packages", "browser"],
        demonstration,
    ),
    step(Setup, "cargo-deny", &["toolchain"], cargo_deny),
    step(Lint, "dependencies", &["cargo-deny"], dependencies),
];

const fn step(part: Part, name: &'static str, needs: &'static [&'static str], run: Run) -> Step {
    Step {
        part,
        name,
        needs,
        run,
    }
}

/// The crates that stand outside the workspace are formatted alike.
const OUTSIDE: [&str; 2] = [fuzz::MANIFEST, "xtask/wasm-tools/Cargo.toml"];

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

// `cargo xtask fuzz` builds them with a fuzzer's instruments, and only then; that they are programs at all is seen here.
fn fuzz_targets(repo: &Repo, log: &Log) -> Result<Outcome> {
    if which("c++").is_none() {
        return Ok(Outcome::skipped("libFuzzer needs a C++ compiler"));
    }
    log.require(
        repo.cargo()
            .args(["check", "--locked", "--features", "native"])
            .args(["--manifest-path", fuzz::MANIFEST])
            .arg("--target-dir")
            .arg(repo.target("")),
    )?;
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

// The tests have run already: this counts what they tried.
fn public_vectors(repo: &Repo, log: &Log) -> Result<Outcome> {
    let suites = conformance::vectors(repo, log)?;
    let vectors: usize = suites.iter().map(|suite| suite.run).sum();
    Ok(Outcome::noted(format!(
        "{vectors} vectors of {} suites",
        suites.len()
    )))
}

fn instruction_counts(repo: &Repo, log: &Log) -> Result<Outcome> {
    instructions::check(repo, log)
}

fn contract_packages(repo: &Repo, log: &Log) -> Result<Outcome> {
    setup::npm(repo, CONTRACTS, &Output::Log(log))?;
    Ok(Outcome::held())
}

fn contract_format(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(repo.npx(CONTRACTS, "forge").args(["fmt", "--check"]))?;
    Ok(Outcome::held())
}

fn contract_build(repo: &Repo, log: &Log) -> Result<Outcome> {
    // What the artifact holds, with the tests: naming both keeps one cache for all that follows.
    log.require(repo.npx(CONTRACTS, "forge").args(["build", "src", "test"]))?;
    Ok(Outcome::held())
}

fn contract_tests(repo: &Repo, log: &Log) -> Result<Outcome> {
    let (status, text) = log.run(repo.npx(CONTRACTS, "forge").arg("test"))?;
    Outcome::counted(status.success(), Tally::of_forge(&text))
}

fn contract_artifact(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(
        repo.node(CONTRACTS)
            .args(["script/artifact.mjs", "--check"]),
    )?;
    Ok(Outcome::noted(
        "what others build against is what the source makes".to_owned(),
    ))
}

fn contract_gas(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(repo.node(CONTRACTS).arg("script/check-gas.mjs"))?;
    Ok(Outcome::noted(
        "the snapshot equals receipts of a node".to_owned(),
    ))
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
    let (succeeded, text) = wasm::test(repo, log, &["--package".into(), "node-wasm".into()], None)?;
    Outcome::counted(succeeded, Tally::of_cargo(&text))
}

// Arithmetic is the same wherever a module runs, and these take long: only where a tab's node lives.
fn core_tests_in_wasm(repo: &Repo, log: &Log) -> Result<Outcome> {
    let mut selection = vec!["--package".into(), "node-core".into()];
    for name in wasm::core_tests(repo)? {
        selection.extend(["--test".into(), name]);
    }
    let (succeeded, text) = wasm::test(repo, log, &selection, Some("shared worker"))?;
    Outcome::counted(succeeded, Tally::of_cargo(&text))
}

fn page_packages(repo: &Repo, log: &Log) -> Result<Outcome> {
    setup::npm(repo, page::DIRECTORY, &Output::Log(log))?;
    Ok(Outcome::held())
}

fn page_types(repo: &Repo, log: &Log) -> Result<Outcome> {
    log.require(repo.npm(page::DIRECTORY).args(["run", "check"]))?;
    Ok(Outcome::held())
}

fn page_tests(repo: &Repo, log: &Log) -> Result<Outcome> {
    let (status, text) = log.run(repo.npm(page::DIRECTORY).arg("test"))?;
    Outcome::counted(status.success(), Tally::of_vitest(&text))
}

fn page_build(repo: &Repo, log: &Log) -> Result<Outcome> {
    let sizes = page::build(repo, log)?;
    Ok(Outcome::noted(sizes::within(
        "page",
        &sizes,
        sizes::PAGE_BUDGET,
    )?))
}

fn page_end_to_end(repo: &Repo, log: &Log) -> Result<Outcome> {
    let browser = setup::browser_path().context("no browser in PATH")?;
    let (status, text) = log.run(
        repo.npm(page::DIRECTORY)
            .args(["run", "e2e"])
            .env("CHROMIUM", browser),
    )?;
    Outcome::counted(status.success(), Tally::of_node(&text))
}

/// The JavaScript package without the page: two tabs, a native router, pinned records.
fn two_tabs(repo: &Repo, log: &Log) -> Result<Outcome> {
    let browser = setup::browser_path().context("no browser in PATH")?;
    log.require(repo.cargo().args(["build", "--locked"]))?;
    let (status, text) = log.run(
        repo.node(page::DIRECTORY)
            .args(["--test", "../node-wasm/js/e2e/tabs.e2e.mjs"])
            .env("NECTAR_BIN", repo.target("debug/nectar"))
            .env("CHROMIUM", browser),
    )?;
    Outcome::counted(status.success(), Tally::of_node(&text))
}

/// Two people, two tabs, a chain, two routers and a native node, as `cargo xtask demo --check` shows them.
fn demonstration(repo: &Repo, log: &Log) -> Result<Outcome> {
    let itself = std::env::current_exe().context("this program's own path is unknown")?;
    log.require(repo.command(itself).args(["demo", "--check"]))?;
    Ok(Outcome::held())
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
