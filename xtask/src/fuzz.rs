//! `cargo xtask fuzz`: feeds the targets of `node-core/fuzz` with what libFuzzer finds.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::{Repo, which};

/// A version of ours, so that a new one's opinions arrive when we choose.
const CARGO_FUZZ: &str = "0.13.2";

const DIRECTORY: &str = "node-core/fuzz/libfuzzer";
/// The crate of the binaries, outside the workspace.
pub(crate) const MANIFEST: &str = "node-core/fuzz/libfuzzer/Cargo.toml";
const CORPUS: &str = "node-core/fuzz/corpus";

/// How long a single input may take, in seconds, before it counts as a finding.
const INPUT_SECONDS: u32 = 60;

/// Beyond the time that was asked for: reading the corpus, and the last input.
const GRACE: Duration = Duration::from_secs(600);

/// A target as its file says.
struct Target {
    name: String,
    /// Whether it needs node-native, which takes long to build with a fuzzer's instruments.
    native: bool,
}

/// Runs each target for so many minutes, one after the other; all of them where none is named. What is found goes to the
/// target directory. Ends with the first input that breaks something.
pub(crate) fn run(repo: &Repo, args: &[&str]) -> Result<ExitCode> {
    let (minutes, names) = match args {
        ["--minutes", minutes, names @ ..] => {
            let minutes = minutes.parse().ok().filter(|minutes: &u32| *minutes > 0);
            (minutes.context("--minutes takes a whole number")?, names)
        }
        names => (1, names),
    };
    let targets = selected(targets(repo)?, names)?;
    let program = install(repo)?;
    for target in targets {
        let found = repo.target(&format!("fuzz/found/{}", target.name));
        let findings = repo.target(&format!("fuzz/findings/{}", target.name));
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&findings)?;
        process::run(cargo_fuzz(repo, &program, "build", &target).arg(&target.name))?;
        eprintln!("{}: {minutes} min", target.name);
        let mut fuzz = cargo_fuzz(repo, &program, "run", &target);
        // What is new goes to the first corpus; the second one, which is kept, is only read.
        fuzz.arg(&target.name)
            .arg(&found)
            .arg(repo.path(CORPUS).join(&target.name))
            .arg("--")
            .args([
                format!("-max_total_time={}", u64::from(minutes) * 60),
                format!("-timeout={INPUT_SECONDS}"),
                format!("-artifact_prefix={}/", findings.display()),
                "-print_final_stats=1".to_owned(),
            ]);
        let at_most = Duration::from_secs(u64::from(minutes) * 60) + GRACE;
        process::run_within(&mut fuzz, at_most).with_context(|| {
            format!(
                "{} is broken by what lies in {}: correct the code, and keep the input in {CORPUS}/{}",
                target.name,
                findings.display(),
                target.name
            )
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// cargo-fuzz without a sanitizer: our crates have no unsafe code whose mistakes it could find, and the stable compiler can do
/// without. Overflows and debug assertions are checked. Nor are comparisons traced: in cryptography that takes more than half
/// of the time, and the few values that a parser looks for stand in the corpus.
fn cargo_fuzz(repo: &Repo, program: &Path, command: &str, target: &Target) -> Command {
    let mut cargo = repo.command(program);
    cargo
        .args([command, "--sanitizer", "none", "--no-trace-compares"])
        .args(["--fuzz-dir", DIRECTORY])
        .arg("--target-dir")
        .arg(repo.target("fuzz/build"))
        .args(target.native.then_some("--features=native"));
    cargo
}

fn targets(repo: &Repo) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for (directory, native) in [("targets", false), ("targets/native", true)] {
        let directory = repo.path(DIRECTORY).join(directory);
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(name) = path.file_stem()
            {
                targets.push(Target {
                    name: name.to_string_lossy().into_owned(),
                    native,
                });
            }
        }
    }
    targets.sort_by(|one, other| (one.native, &one.name).cmp(&(other.native, &other.name)));
    Ok(targets)
}

fn selected(targets: Vec<Target>, names: &[&str]) -> Result<Vec<Target>> {
    let known = |name: &str| targets.iter().any(|target| target.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = targets.iter().map(|target| &*target.name).collect();
        bail!(
            "no target is named {unknown:?}: there are {}",
            all.join(", ")
        );
    }
    let wanted = |target: &Target| names.is_empty() || names.contains(&&*target.name);
    Ok(targets.into_iter().filter(wanted).collect())
}

/// The program's path, after building it where it is missing. libFuzzer itself comes as C++ with its crate.
fn install(repo: &Repo) -> Result<PathBuf> {
    if which("c++").is_none() {
        bail!(
            "a C++ compiler is missing, of which libFuzzer is built: on Debian, apt-get install g++"
        );
    }
    let own = repo.target("tools/bin/cargo-fuzz");
    let is_there = |program: &Path| {
        process::output(repo.command(program).arg("--version"))
            .is_ok_and(|text| text.trim().ends_with(CARGO_FUZZ))
    };
    for program in which("cargo-fuzz").into_iter().chain([own.clone()]) {
        if is_there(&program) {
            return Ok(program);
        }
    }
    process::run(
        repo.cargo()
            .args(["install", "--locked", "--debug", "--force"])
            .args(["--version", CARGO_FUZZ, "cargo-fuzz", "--root"])
            .arg(repo.target("tools"))
            .env("CARGO_TARGET_DIR", repo.target("tools/build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    )?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn targets_are_selected_by_name_and_unknown_ones_refused_with_the_known_ones() {
        let all = || targets(&Repo::find().unwrap()).unwrap();
        let names = |targets: Vec<Target>| -> Vec<String> {
            targets.into_iter().map(|target| target.name).collect()
        };
        assert!(names(all()).contains(&"frames".to_owned()));
        assert_eq!(
            names(selected(all(), &["link", "frames"]).unwrap()),
            ["frames", "link"]
        );
        assert_eq!(names(selected(all(), &[]).unwrap()), names(all()));
        let native = selected(all(), &["config"]).unwrap();
        assert!(native[0].native);
        let error = selected(all(), &["farms"]).err().unwrap().to_string();
        assert!(error.contains("\"farms\"") && error.contains("frames"));
    }
}
