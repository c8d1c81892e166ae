//! `cargo xtask test`: runs the steps, shows what failed, and closes with the sum.
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use crate::process::Log;
use crate::repo::Repo;
use crate::steps::{STEPS, Step};
use crate::tally::Tally;

/// What a person may ask for by itself. Setting up belongs to no part and runs when a step needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What other steps need.
    Setup,
    /// Everything that reads the sources without running them.
    Lint,
    /// The native tests.
    Rust,
    /// What pieces of a node's work cost.
    Instructions,
    /// The browser's module and its tests.
    Wasm,
    /// The registry.
    Contracts,
    /// The page, to the end.
    Page,
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "lint" => Self::Lint,
            "rust" => Self::Rust,
            "instructions" => Self::Instructions,
            "wasm" => Self::Wasm,
            "contracts" => Self::Contracts,
            "page" => Self::Page,
            _ => bail!(
                "no part is named {text:?}: there are lint, rust, instructions, wasm, contracts and page"
            ),
        })
    }
}

/// What a step that ran to its end found.
pub(crate) struct Outcome {
    /// Its counts.
    pub(crate) tally: Tally,
    /// What the table says beside them.
    pub(crate) note: String,
}

impl Outcome {
    /// A step without counts held.
    pub(crate) fn held() -> Self {
        Self::noted(String::new())
    }

    /// A step without counts held, and has something to say.
    pub(crate) const fn noted(note: String) -> Self {
        Self {
            tally: Tally::ONE_PASSED,
            note,
        }
    }

    /// A step cannot run on this machine, and says why.
    pub(crate) fn skipped(why: &str) -> Self {
        Self {
            tally: Tally::ONE_SKIPPED,
            note: format!("not run: {why}"),
        }
    }

    /// What a test runner counted, checked against how it ended.
    ///
    /// # Errors
    /// A runner that succeeded without running any test shows nothing, and so fails.
    pub(crate) fn counted(succeeded: bool, tally: Option<Tally>) -> Result<Self> {
        let mut tally = tally.unwrap_or_default();
        if !succeeded && tally.failed == 0 {
            // It broke before or after its tests: a compiler's error, a crash.
            tally.failed = 1;
        }
        if tally.passed + tally.failed == 0 {
            bail!("no test ran");
        }
        Ok(Self {
            tally,
            note: String::new(),
        })
    }
}

/// Runs the parts, or everything where none is named.
pub(crate) fn run(repo: &Repo, parts: &[Part]) -> Result<ExitCode> {
    let began = Instant::now();
    let mut rows: Vec<Row> = Vec::new();
    for step in selected(STEPS, parts) {
        let broken = step
            .needs
            .iter()
            .copied()
            .find(|need| rows.iter().any(|row| row.name == *need && row.failed()));
        rows.push(match broken {
            Some(need) => {
                println!("{}: not run, because {need} failed", step.name);
                Row {
                    name: step.name,
                    tally: Tally::ONE_FAILED,
                    took: Duration::ZERO,
                    note: format!("needs {need}"),
                }
            }
            None => run_step(repo, step)?,
        });
    }
    let total: Tally = rows.iter().map(|row| row.tally).sum();
    println!(
        "\n{:<22} {:>7} {:>7} {:>8} {:>8}",
        "step", "passed", "failed", "skipped", "seconds"
    );
    for Row {
        name,
        tally,
        took,
        note,
    } in &rows
    {
        let line = format!(
            "{name:<22} {:>7} {:>7} {:>8} {:>8.1}  {note}",
            tally.passed,
            tally.failed,
            tally.skipped,
            took.as_secs_f64()
        );
        println!("{}", line.trim_end());
    }
    println!("{:<22} {:>33.1}\n", "in all", began.elapsed().as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 && total.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line of the closing table.
struct Row {
    name: &'static str,
    tally: Tally,
    took: Duration,
    note: String,
}

impl Row {
    const fn failed(&self) -> bool {
        self.tally.failed > 0
    }
}

fn run_step(repo: &Repo, step: &Step) -> Result<Row> {
    print!("{} ... ", step.name);
    std::io::stdout().flush()?;
    let log = Log::create(
        repo.target("xtask")
            .join(format!("{}.log", step.name.replace(' ', "-"))),
    )?;
    let began = Instant::now();
    let outcome = (step.run)(repo, &log);
    let took = began.elapsed();
    let (tally, note, error) = match outcome {
        Ok(Outcome { tally, note }) => (tally, note, None),
        Err(error) => (Tally::ONE_FAILED, "see above".to_owned(), Some(error)),
    };
    let row = Row {
        name: step.name,
        tally,
        took,
        note,
    };
    println!(
        "{}, {:.1} s",
        if row.failed() {
            "FAILED"
        } else if row.tally == Tally::ONE_SKIPPED {
            &row.note
        } else {
            "ok"
        },
        took.as_secs_f64()
    );
    if row.failed() {
        println!("──── {}", log.path().display());
        println!("{}", log.text().trim_end());
        if let Some(error) = error {
            println!("{error:#}");
        }
        println!("──── end of {}", step.name);
    }
    Ok(row)
}

/// The steps of these parts and whatever they need, in the order of the list.
fn selected<'a>(steps: &'a [Step], parts: &[Part]) -> Vec<&'a Step> {
    let mut names: BTreeSet<&str> = steps
        .iter()
        .filter(|step| parts.is_empty() || parts.contains(&step.part))
        .map(|step| step.name)
        .collect();
    // A step needs earlier ones only, so one pass from the end finds all.
    for step in steps.iter().rev() {
        if names.contains(step.name) {
            names.extend(step.needs);
        }
    }
    steps
        .iter()
        .filter(|step| names.contains(step.name))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own_and_needs_earlier_ones() {
        for (at, step) in STEPS.iter().enumerate() {
            let earlier: Vec<&str> = STEPS.iter().take(at).map(|step| step.name).collect();
            assert!(!earlier.contains(&step.name), "{} twice", step.name);
            for need in step.needs {
                assert!(
                    earlier.contains(need),
                    "{} needs {need}, which is no earlier step",
                    step.name
                );
            }
        }
    }

    #[test]
    fn a_part_brings_what_it_needs_and_nothing_else() {
        let step = |part, name, needs| Step {
            part,
            name,
            needs,
            run: |_, _| Ok(Outcome::held()),
        };
        let steps = [
            step(Part::Setup, "target", &[][..]),
            step(Part::Setup, "browser", &[]),
            step(Part::Rust, "tests", &["target"]),
            step(Part::Wasm, "module", &["target"]),
            step(Part::Page, "page", &["module"]),
        ];
        let names = |parts: &[Part]| {
            selected(&steps, parts)
                .iter()
                .map(|step| step.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[Part::Page]), ["target", "module", "page"]);
        assert_eq!(names(&[Part::Rust]), ["target", "tests"]);
        assert_eq!(names(&[]).len(), steps.len());
    }

    #[test]
    fn a_run_without_tests_or_with_a_bad_exit_never_passes() {
        let tally = |passed, failed| {
            Some(Tally {
                passed,
                failed,
                skipped: 0,
            })
        };
        assert!(Outcome::counted(true, None).is_err());
        assert!(Outcome::counted(true, tally(0, 0)).is_err());
        assert_eq!(
            Outcome::counted(false, tally(3, 0)).unwrap().tally,
            tally(3, 1).unwrap()
        );
        assert_eq!(
            Outcome::counted(false, None).unwrap().tally,
            Tally::ONE_FAILED
        );
        assert_eq!(
            Outcome::counted(true, tally(3, 0)).unwrap().tally,
            tally(3, 0).unwrap()
        );
    }

    #[test]
    fn unknown_parts_are_refused_with_the_known_ones() {
        assert_eq!("wasm".parse::<Part>().unwrap(), Part::Wasm);
        let error = "setup".parse::<Part>().unwrap_err().to_string();
        assert!(error.contains("\"setup\"") && error.contains("contracts"));
    }
}
