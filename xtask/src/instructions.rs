//! The instructions that pieces of a node's work take, counted by Valgrind and held to figures that are committed. Time says
//! little on a machine that does other things as well; instructions are the same each time.
use std::env;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::process::{self, Log};
use crate::repo::Repo;
use crate::setup::{self, Output};
use crate::test::Outcome;

/// The figures, and the compiler that they are of.
const FIGURES: &str = "node-core/benches/instructions.txt";

/// What `node-core/examples/instructions.rs` can do.
const PIECES: [&str; 5] = ["handshake", "exchange", "records", "requests", "routed"];

/// What `handshake` has beyond `exchange`: a node's work for a caller without the cryptography, in which it would be lost.
const BOOKKEEPING: &str = "bookkeeping";

/// By how many percent a piece may differ from its figure, more or less: who makes something better takes that for right, or
/// the next who makes it worse is not told.
const TOLERANCE: u64 = 5;
/// The same for another compiler than that of the figures.
const TOLERANCE_ELSEWHERE: u64 = 15;

/// Counts, and compares. `UPDATE=1` writes the figures of the code as it is.
pub(crate) fn check(repo: &Repo, log: &Log) -> Result<Outcome> {
    let report = Output::Log(log);
    if let Some(why) = unlike_the_figures() {
        return Ok(Outcome::skipped(why));
    }
    if let Some(why) = setup::valgrind(repo, &report)? {
        return Ok(Outcome::skipped(why));
    }
    log.require(repo.cargo().args([
        "build",
        "--locked",
        "--release",
        "--package=node-core",
        "--features=fast-crypto",
        "--example=instructions",
    ]))?;
    let compiler = process::output(repo.command("rustc").arg("--version"))?;
    let compiler = compiler.trim();
    let mut counted: Vec<_> = PIECES
        .into_iter()
        .map(|piece| Ok((piece, count(repo, log, piece)?)))
        .collect::<Result<_>>()?;
    if let [(_, handshake), (_, exchange), ..] = counted[..] {
        counted.push((BOOKKEEPING, handshake.saturating_sub(exchange)));
    }
    let path = repo.path(FIGURES);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, written(compiler, &counted))?;
        return Ok(Outcome::noted(format!("{FIGURES} was written")));
    }
    let figures = fs::read_to_string(&path).with_context(|| format!("cannot read {FIGURES}"))?;
    compare(&figures, compiler, &counted).map(Outcome::noted)
}

/// Why counts of this machine would not be those of the figures.
fn unlike_the_figures() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return None;
    }
    Some("the figures are of x86-64 with AVX2")
}

fn count(repo: &Repo, log: &Log, piece: &str) -> Result<u64> {
    let counts = repo.target("xtask").join(format!("{piece}.callgrind"));
    log.require(
        repo.command("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=*measured*"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(repo.target("release/examples/instructions"))
            .arg(piece),
    )?;
    let text = fs::read_to_string(&counts)
        .with_context(|| format!("valgrind has left no {}", counts.display()))?;
    total(&text).with_context(|| format!("{} has no sum", counts.display()))
}

/// The sum of what was counted, which a file of callgrind's ends with.
fn total(text: &str) -> Option<u64> {
    let mut lines = text.lines().rev();
    let count = lines.find_map(|line| line.strip_prefix("totals: "))?;
    count.trim().parse().ok().filter(|count| *count > 0)
}

fn written(compiler: &str, counted: &[(&str, u64)]) -> String {
    let pieces: String = counted
        .iter()
        .map(|(piece, count)| format!("{piece} {count}\n"))
        .collect();
    format!(
        "# Instructions of the pieces of work in ../examples/instructions.rs, as valgrind counts them on x86-64 with AVX2.\n\
         # UPDATE=1 cargo xtask test instructions writes them anew.\n{compiler}\n{pieces}"
    )
}

/// What there is to say of counts that are as they should be.
fn compare(figures: &str, compiler: &str, counted: &[(&str, u64)]) -> Result<String> {
    let known = figures.lines().any(|line| line == compiler);
    let tolerance = if known {
        TOLERANCE
    } else {
        TOLERANCE_ELSEWHERE
    };
    let mut said = Vec::new();
    let mut wrong = Vec::new();
    for (piece, count) in counted {
        let figure = figures
            .lines()
            .find_map(|line| line.strip_prefix(piece)?.trim().parse::<u64>().ok())
            .with_context(|| format!("{FIGURES} says nothing of {piece}"))?;
        let change = (*count as f64 / figure as f64 - 1.0) * 100.0;
        let line = format!("{piece} {change:+.1} %");
        if count.abs_diff(figure) * 100 > figure * tolerance {
            wrong.push(format!("{line}: {count} instructions, {figure} before"));
        }
        said.push(line);
    }
    if !wrong.is_empty() {
        bail!(
            "{}; up to {tolerance} % is taken for nothing, and UPDATE=1 takes it for right",
            wrong.join("; ")
        );
    }
    Ok(said.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn counts_are_held_to_their_figures_in_both_directions() {
        let figures = written("rustc 1.95.0", &[("records", 1000), ("routed", 2000)]);
        let check = |compiler, records| {
            compare(
                &figures,
                compiler,
                &[("records", records), ("routed", 2000)],
            )
        };
        assert_eq!(
            check("rustc 1.95.0", 1010).unwrap(),
            "records +1.0 %, routed +0.0 %"
        );
        for (records, change) in [(1051, "+5.1 %"), (949, "-5.1 %")] {
            let error = check("rustc 1.95.0", records).unwrap_err().to_string();
            assert!(
                error.contains(change) && error.contains("UPDATE=1"),
                "{error}"
            );
            assert!(check("rustc 1.96.0", records).is_ok(), "another compiler");
        }
        assert!(check("rustc 1.96.0", 1200).is_err());
        assert!(compare(&figures, "rustc 1.95.0", &[("handshake", 1)]).is_err());
    }

    #[test]
    fn a_sum_is_read_and_none_of_nothing() {
        assert_eq!(total("fn=(1)\n1 5\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("totals: 0\n"), None);
        assert_eq!(total("fn=(1)\n"), None);
    }
}
