//! The commands other than `test`.
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Group, Log};
use crate::repo::Repo;
use crate::setup::{self, Output};
use crate::sizes::{self, Size, kib};
use crate::{CONTRACTS, page, wasm as module};

/// How long the demonstration may take to come up once it is built.
const DEMO_COMES_UP: Duration = Duration::from_secs(60);

/// `cargo xtask wasm`
pub(crate) fn wasm(repo: &Repo) -> Result<ExitCode> {
    setup::toolchain(repo, &Output::Shown)?;
    let size = build_module(repo, &Log::create(repo.target("xtask/wasm.log"))?)?;
    println!(
        "node-wasm/pkg/{}: {} raw, {} after Brotli",
        size.name,
        kib(size.raw),
        kib(size.brotli)
    );
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask demo`: returns only if it fails, for it becomes the program that it has built. So a Ctrl-C reaches that one,
/// which ends what it started.
pub(crate) fn demo(repo: &Repo) -> Result<ExitCode> {
    let error = demonstration(repo)?.exec();
    Err(error).context("cannot start nectar demo")
}

/// `cargo xtask demo --check`
pub(crate) fn demo_check(repo: &Repo) -> Result<ExitCode> {
    setup::browser(repo, &Output::Shown)?;
    let mut demonstration = demonstration(repo)?;
    let shots = repo.target("demo");
    fs::create_dir_all(&shots)?;
    let ready = shots.join("ready.json");
    if ready.exists() {
        fs::remove_file(&ready).context("cannot remove what the last run left")?;
    }
    let printed = shots.join("demo.log");
    let log = File::create(&printed)?;
    demonstration
        .arg("--ready")
        .arg(&ready)
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut running = Group::start(&mut demonstration)?;
    let checked = until_ready(&mut running, &ready).and_then(|()| {
        process::run(
            repo.node(page::DIRECTORY)
                .arg("e2e/demo-check.mjs")
                .args([&ready, &shots])
                .env(
                    "CHROMIUM",
                    setup::browser_path().context("no browser in PATH")?,
                ),
        )
    });
    drop(running);
    if checked.is_err() {
        eprintln!(
            "──── what nectar demo printed\n{}",
            fs::read_to_string(&printed)?
        );
    }
    checked.map(|()| ExitCode::SUCCESS)
}

/// `cargo xtask soak`: becomes the program that plays random lives.
pub(crate) fn soak(repo: &Repo, args: &[&str]) -> Result<ExitCode> {
    soakable(args)?;
    process::run(
        repo.cargo()
            .args(["build", "--locked", "--release", "--example", "soak"]),
    )?;
    let mut soak = repo.command(repo.target("release/examples/soak"));
    Err(soak.args(args).exec()).context("cannot start the random lives")
}

/// Whether the program will understand, which would say so only after it has been built.
fn soakable(args: &[&str]) -> Result<()> {
    let (mut begins, mut ends) = (false, false);
    for pair in args.chunks(2) {
        let &[name, value] = pair else {
            bail!("{} has no value", pair.join(" "));
        };
        let number = match name {
            "--seed" | "--seeds" => value.parse::<u64>().is_ok(),
            "--threads" => value.parse::<usize>().is_ok(),
            "--minutes" => value.parse::<f64>().is_ok(),
            _ => bail!("soak knows no {name}: give --minutes N, --seed S, or both"),
        };
        if !number {
            bail!("{name} {value} is no number");
        }
        begins |= name == "--seed";
        ends |= matches!(name, "--minutes" | "--seeds");
    }
    if !begins && !ends {
        bail!("say for how long (--minutes N), or which seed (--seed S)");
    }
    Ok(())
}

/// `cargo xtask attack`: the tests of the same name, those that kill and restart routers, and those with somebody on the way,
/// optimised and one by one, with the bounds that hold on a machine which does nothing else.
pub(crate) fn attack(repo: &Repo) -> Result<ExitCode> {
    process::run(
        repo.cargo()
            .args([
                "test",
                "--locked",
                "--release",
                "--test",
                "nodes",
                "attacks::",
            ])
            .args(["--", "killed::", "restarts::", "through_proxies::"])
            .args(["--nocapture", "--test-threads=1"])
            .env("NECTAR_ATTACKS", "strict"),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Builds everything that a demonstration shows; what returns starts it:
///
/// `nectar demo --page DIRECTORY --anvil PROGRAM --contract ARTIFACT [--ready FILE]`
///
/// Once everything runs it writes to FILE, where one is given, what a driver must know: a JSON object whose `page` is the
/// page's address.
fn demonstration(repo: &Repo) -> Result<Command> {
    setup::toolchain(repo, &Output::Shown)?;
    for directory in [CONTRACTS, page::DIRECTORY] {
        setup::npm(repo, directory, &Output::Shown)?;
    }
    let log = Log::create(repo.target("xtask/demo.log"))?;
    build_module(repo, &log)?;
    eprintln!("building the page");
    let sizes = shown_if_failed(&log, page::build(repo, &log))?;
    // Too large a page is a failed test, not a reason to show nothing.
    let said = sizes::within("page", &sizes, sizes::PAGE_BUDGET);
    eprintln!("{}", said.unwrap_or_else(|error| error.to_string()));
    eprintln!("building the nectar command");
    // The workspace's default members, as the tests build them: another selection compiles its dependencies anew.
    process::run(repo.cargo().args(["build", "--locked"]))?;
    let mut nectar = repo.command(repo.target("debug/nectar"));
    nectar.arg("demo").arg("--page").arg(page::built(repo));
    nectar.arg("--anvil").arg(repo.npx_path(CONTRACTS, "anvil"));
    nectar
        .arg("--contract")
        .arg(repo.path(CONTRACTS).join("artifacts/NectarRegistry.json"));
    Ok(nectar)
}

fn build_module(repo: &Repo, log: &Log) -> Result<Size> {
    setup::npm(repo, module::tools_directory(), &Output::Shown)?;
    eprintln!("building the browser's module");
    shown_if_failed(
        log,
        module::build_tools(repo, log).and_then(|()| module::build(repo, log)),
    )
}

fn shown_if_failed<T>(log: &Log, result: Result<T>) -> Result<T> {
    result.inspect_err(|_| eprint!("{}", log.text()))
}

fn until_ready(running: &mut Group, ready: &Path) -> Result<()> {
    let deadline = Instant::now() + DEMO_COMES_UP;
    while !ready.exists() {
        if let Some(status) = running.ended()? {
            bail!("nectar demo ended before it was ready: {status}");
        }
        if Instant::now() >= deadline {
            bail!(
                "nectar demo was not ready after {} s",
                DEMO_COMES_UP.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::soakable;

    #[test]
    fn arguments_that_the_random_lives_would_refuse_are_refused_before_they_are_built() {
        for (args, says) in [
            (&["--minutes", "x"][..], "--minutes x is no number"),
            (&["--seed"], "--seed has no value"),
            (&["--hours", "1"], "soak knows no --hours"),
            (&["--threads", "2"], "say for how long"),
        ] {
            let said = soakable(args).map_or_else(|error| error.to_string(), |()| "fine".into());
            assert!(said.contains(says), "{args:?}: {said}");
        }
        for args in [
            &["--minutes", "0.5"][..],
            &["--seed", "42"],
            &["--seeds", "9", "--threads", "2", "--seed", "1"],
        ] {
            assert!(soakable(args).is_ok(), "{args:?}");
        }
    }
}
