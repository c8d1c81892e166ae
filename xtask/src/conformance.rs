//! `cargo xtask conformance`: suites that others wrote, with counts.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process::{self, Log};
use crate::repo::{Repo, which};

/// The tests that hold primitives and patterns to published vectors.
const VECTORS: [&str; 2] = ["vectors_noise", "vectors_primitives"];

/// What the WebSocket suite is installed from.
const AUTOBAHN: &str = "xtask/autobahn.txt";

/// The published vectors, then the WebSocket suite.
pub(crate) fn run(repo: &Repo) -> Result<ExitCode> {
    let log = Log::create(repo.target("xtask/conformance.log"))?;
    println!(
        "{:<52} {:>6} {:>6} {:>8}",
        "suite", "run", "passed", "left out"
    );
    let shown = |part: Result<Vec<Suite>>| -> Result<()> {
        let suites = part.inspect_err(|_| eprint!("{}", log.text()))?;
        suites.iter().for_each(|suite| println!("{suite}"));
        Ok(())
    };
    shown(vectors(repo, &log))?;
    let python = python(repo)?;
    shown(autobahn(repo, &log, &python))?;
    Ok(ExitCode::SUCCESS)
}

/// What a suite came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    name: String,
    /// Vectors or cases that were tried.
    pub(crate) run: usize,
    passed: usize,
    /// Those that ask for something that we do not do.
    left_out: usize,
    /// Why, and what else there is to say.
    note: String,
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            run,
            passed,
            left_out,
            note,
        } = self;
        let line = format!("{name:<52} {run:>6} {passed:>6} {left_out:>8}  {note}");
        f.write_str(line.trim_end())
    }
}

impl Suite {
    /// Reads what a test prints about the suite that it has run: `suite`, its name, counts and a note, with tabs between.
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["suite", name, run, passed, left_out, note] = fields[..] else {
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            run: run.parse().ok()?,
            passed: passed.parse().ok()?,
            left_out: left_out.parse().ok()?,
            note: note.to_owned(),
        })
    }

    /// Those that a run of tests has printed, by name.
    fn all(text: &str) -> Result<Vec<Self>> {
        let mut suites: Vec<Self> = text.lines().filter_map(Self::read).collect();
        if suites.is_empty() {
            bail!("no suite ran");
        }
        if let Some(suite) = suites.iter().find(|suite| suite.passed != suite.run) {
            bail!("{suite}");
        }
        suites.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(suites)
    }
}

/// Runs the published vectors.
pub(crate) fn vectors(repo: &Repo, log: &Log) -> Result<Vec<Suite>> {
    let mut tests = repo.cargo();
    tests.args(["test", "--locked"]);
    for name in VECTORS {
        tests.args(["--test", name]);
    }
    Suite::all(&log.require(tests.args(["--", "--show-output"]))?)
}

/// Runs the Autobahn suite's client against what accepts our sockets.
fn autobahn(repo: &Repo, log: &Log, python: &Path) -> Result<Vec<Suite>> {
    let home = install(repo, log, python)?;
    let mut test = in_home(repo.cargo(), &home);
    test.args(["test", "--locked", "--test", "it", "autobahn::"])
        .args(["--", "--include-ignored", "--show-output"])
        .env("NECTAR_WSTEST", home.join("bin/wstest"));
    Suite::all(&log.require(&mut test)?)
}

/// Installs the suite under the target directory, once for each list of what it needs, and says where.
fn install(repo: &Repo, log: &Log, python: &Path) -> Result<PathBuf> {
    let home = repo.target("tools/autobahn");
    let wanted = fs::read(repo.path(AUTOBAHN)).context(AUTOBAHN)?;
    let stamp = home.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(home);
    }
    if home.exists() {
        fs::remove_dir_all(&home).context("cannot remove what was installed before")?;
    }
    fs::create_dir_all(&home)?;
    eprintln!("installing the Autobahn suite");
    log.require(
        in_home(command(repo, python), &home)
            .args(["-m", "pip", "install", "--user"])
            .args(["--no-warn-script-location", "--disable-pip-version-check"])
            .arg("--requirement")
            .arg(repo.path(AUTOBAHN)),
    )
    .context(
        "the Autobahn suite cannot be installed: pip needs its package index, and a C compiler",
    )?;
    fs::write(&stamp, wanted)?;
    Ok(home)
}

/// Lets Python have its user's packages there, namespaces among them, which a bare search path does not know.
fn in_home(mut command: Command, home: &Path) -> Command {
    command
        .env("PYTHONUSERBASE", home)
        .env_remove("PYTHONNOUSERSITE")
        .env_remove("PYTHONPATH");
    command
}

/// A Python 2.7 that runs and has pip. The suite has never been moved to another.
fn python(repo: &Repo) -> Result<PathBuf> {
    let named = std::env::var_os("NECTAR_PYTHON2").map(PathBuf::from);
    let candidates = match named {
        Some(path) => vec![path],
        None => which("python2.7").into_iter().chain(pyenv(repo)).collect(),
    };
    let runs = |python: &PathBuf| {
        process::output(command(repo, python).args(["-m", "pip", "--version"]))
            .is_ok_and(|text| text.contains("python 2.7"))
    };
    candidates.into_iter().find(runs).context(
        "the Autobahn suite runs on Python 2.7 only, and none is here that has pip: install one, as with \
         `pyenv install 2.7.18`, or let NECTAR_PYTHON2 be its path",
    )
}

/// Those that pyenv keeps, chosen or not.
fn pyenv(repo: &Repo) -> Vec<PathBuf> {
    let Ok(root) = process::output(repo.command("pyenv").arg("root")) else {
        return Vec::new();
    };
    let versions = fs::read_dir(Path::new(root.trim()).join("versions"));
    versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/python2.7")))
        .filter(|python| python.is_file())
        .collect()
}

/// A program in a directory without Python files, which would hide modules of the same names.
fn command(repo: &Repo, program: &Path) -> Command {
    let mut command = repo.command(program);
    command.current_dir(repo.path("docs"));
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_tests_print_about_suites_is_read_and_sorted() {
        let text = "\
running 3 tests
---- noise stdout ----
suite\tNoise\t38\t38\t21\tleft out: preshared keys
suite\tEd25519\t12\t12\t0\t
suite\tis no such line
";
        let suites = Suite::all(text).unwrap();
        assert_eq!(suites.len(), 2);
        assert_eq!(
            suites[1].to_string(),
            format!(
                "{:<52}     38     38       21  left out: preshared keys",
                "Noise"
            )
        );
        assert!(suites[0].to_string().ends_with(" 12     12        0"));
    }

    #[test]
    fn a_run_without_suites_or_with_a_vector_that_failed_never_passes() {
        assert!(Suite::all("test result: ok. 3 passed").is_err());
        assert!(Suite::all("suite\tNoise\t38\t37\t0\t").is_err());
    }
}
