//! The browser's module: building it and running its tests.
use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::glue::Names;
use crate::process::Log;
use crate::repo::{Repo, which};
use crate::setup::WASM_TARGET;
use crate::sizes::{self, Size};

/// Where a page imports the module from.
const PACKAGE: &str = "node-wasm/pkg";

/// Tools with dependencies of their own, outside the workspace.
const TOOLS: &str = "xtask/wasm-tools";

/// What every browser of the last years runs, and the compiler uses. Named one by one: a module optimised with all that the
/// optimiser knows is refused by browsers.
const FEATURES: [&str; 7] = [
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

/// Builds `node-wasm` into `node-wasm/pkg` and returns the module's size.
pub(crate) fn build(repo: &Repo, log: &Log) -> Result<Size> {
    log.require(
        repo.cargo()
            .args(["build", "--locked", "--package", "node-wasm", "--lib"])
            .args(["--profile", "wasm", "--target", WASM_TARGET])
            .args(["--config", &remapping()?]),
    )?;
    let package = repo.path(PACKAGE);
    if package.exists() {
        fs::remove_dir_all(&package).context("cannot replace the former node-wasm/pkg")?;
    }
    let module = repo.target(WASM_TARGET).join("wasm/node_wasm.wasm");
    log.require(
        repo.command(tool(repo, "bindgen")?)
            .args(["--target", "web", "--out-name", "node_wasm"])
            // What applications use is declared in `node-wasm/js/wasm.d.ts`.
            .arg("--no-typescript")
            .args([
                "--out-dir".as_ref(),
                package.as_os_str(),
                module.as_os_str(),
            ]),
    )?;
    let bound = package.join("node_wasm_bg.wasm");
    let optimised = package.join("node_wasm_bg.opt.wasm");
    let names = log.require(
        repo.npx(TOOLS, "wasm-opt")
            .args([
                // Twice for speed, with every value under a name of its own in between, compresses better than once or twice
                // for size.
                "-O2",
                "--ssa-nomerge",
                "-O2",
                // Larger functions that are put into their only caller save bytes here and cost more after compression.
                "--one-caller-inline-max-function-size=15",
                "--always-inline-max-function-size=2",
                "--flexible-inline-max-function-size=1",
                // What was generated from one function for several types stands together, and compresses better.
                "--reorder-functions-by-name",
                "--minify-imports-and-exports-and-modules",
                "--strip-debug",
                "--strip-producers",
                "--strip-target-features",
            ])
            .args(FEATURES)
            .arg(&bound)
            .arg("--output")
            .arg(&optimised),
    )?;
    fs::rename(&optimised, &bound)?;
    let script = package.join("node_wasm.js");
    let text = fs::read_to_string(&script).context("cannot read the module's script")?;
    fs::write(&script, Names::read(&names)?.apply(&text)?)?;
    sizes::measure(repo, &[bound])?
        .pop()
        .context("the module was not measured")
}

/// Takes the directory with the sources of the dependencies out of what panics say: the module is the same on every machine,
/// and tells nobody where it was built.
fn remapping() -> Result<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let sources = home.context("no home directory")?.join("registry/src");
    let mut flags = Vec::new();
    for registry in
        fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?
    {
        let directory = registry?.path();
        flags.push(format!("--remap-path-prefix={}/=", directory.display()));
    }
    flags.sort();
    Ok(format!("target.{WASM_TARGET}.rustflags={flags:?}"))
}

/// Builds the bindings generator and the test runner.
pub(crate) fn build_tools(repo: &Repo, log: &Log) -> Result<()> {
    log.require(
        repo.cargo()
            .args(["build", "--locked", "--bins", "--manifest-path"])
            .arg(repo.path(TOOLS).join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", repo.target("wasm-tools")),
    )
    .map(drop)
}

/// The directory with the optimiser's `package.json`.
pub(crate) const fn tools_directory() -> &'static str {
    TOOLS
}

/// The integration tests of node-core that also run here: those that say so by naming the test crate of this target.
///
/// # Errors
/// None at all would show nothing.
pub(crate) fn core_tests(repo: &Repo) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo.path("node-core/tests")).context("node-core has no tests")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path)?.contains("wasm_bindgen_test")
        {
            let name = path.file_stem().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    if names.is_empty() {
        bail!("no test of node-core runs in a browser");
    }
    names.sort();
    Ok(names)
}

/// Runs the tests of these cargo arguments, in Node.js, a page and both kinds of worker, or in one `place` of these.
///
/// Returns whether cargo was content, and its output.
pub(crate) fn test(
    repo: &Repo,
    log: &Log,
    selection: &[String],
    place: Option<&str>,
) -> Result<(bool, String)> {
    let driver = which("chromedriver").context("chromedriver is not in PATH")?;
    let runner = tool(repo, "test-runner")?;
    let runner = runner
        .to_str()
        .context("the target directory's path is not text")?;
    let mut cargo = repo.cargo();
    cargo
        .args([
            "test",
            "--locked",
            "--no-fail-fast",
            "--target",
            WASM_TARGET,
        ])
        .args(selection)
        // As a list, because cargo splits the variable's text at spaces.
        .arg("--config")
        .arg(format!("target.{WASM_TARGET}.runner = [{runner:?}]"))
        .env("CHROMEDRIVER", driver)
        .env(
            "WASM_BINDGEN_TEST_WEBDRIVER_JSON",
            repo.path(TOOLS).join("webdriver.json"),
        )
        .env("WASM_BINDGEN_TEST_TIMEOUT", "120")
        .env("WASM_BINDGEN_TEST_DRIVER_TIMEOUT", "30");
    if let Some(place) = place {
        cargo.env("NECTAR_WASM_TEST_PLACE", place);
    }
    let (status, text) = log.run(&mut cargo)?;
    Ok((status.success(), text))
}

fn tool(repo: &Repo, name: &str) -> Result<PathBuf> {
    let path = repo.target("wasm-tools/debug").join(name);
    if !path.exists() {
        bail!("{} is missing", path.display());
    }
    Ok(path)
}
