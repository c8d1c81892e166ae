//! How many tests passed: read off what each test runner prints.
use std::iter::Sum;

/// What a step counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that held.
    pub(crate) passed: usize,
    /// Tests that did not, and runs that ended before they could tell.
    pub(crate) failed: usize,
    /// Tests that exist and did not run.
    pub(crate) skipped: usize,
}

impl Tally {
    /// A step without tests of its own.
    pub(crate) const ONE_PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// A step that could not run here.
    pub(crate) const ONE_SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };
    /// A step that failed as a whole.
    pub(crate) const ONE_FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    /// `cargo test` and the wasm runner: the sum of their lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`. A test
    /// that finds that it cannot run here returns, which counts as passed, and says a line `SKIPPED …`.
    pub(crate) fn of_cargo(text: &str) -> Option<Self> {
        let gave_up = text.lines().filter(|line| line.starts_with("SKIPPED "));
        let gave_up = gave_up.count();
        let mut tally = sum(text.lines().filter_map(|line| {
            let counts = line
                .trim()
                .strip_prefix("test result: ")?
                .split_once(". ")?
                .1;
            Some(count(
                counts.split(';'),
                &["passed"],
                &["failed"],
                &["ignored"],
            ))
        }))?;
        tally.passed = tally.passed.saturating_sub(gave_up);
        tally.skipped += gave_up;
        Some(tally)
    }

    /// forge: `Ran 2 test suites in 31.60ms (…): 12 tests passed, 0 failed, 1 skipped (13 total tests)`.
    pub(crate) fn of_forge(text: &str) -> Option<Self> {
        sum(text
            .lines()
            .filter(|line| line.contains(" total tests)"))
            .filter_map(|line| {
                let counts = line.trim().strip_prefix("Ran ")?.split_once("): ")?.1;
                let counts = counts
                    .replace("tests passed", "passed")
                    .replace("test passed", "passed");
                Some(count(
                    counts.split([',', '(']),
                    &["passed"],
                    &["failed"],
                    &["skipped"],
                ))
            }))
    }

    /// vitest: `Tests  1 failed | 11 passed | 2 skipped (14)`.
    pub(crate) fn of_vitest(text: &str) -> Option<Self> {
        sum(text.lines().filter_map(|line| {
            let counts = line.trim().strip_prefix("Tests ")?;
            Some(count(
                counts.split('|'),
                &["passed"],
                &["failed"],
                &["skipped", "todo"],
            ))
        }))
    }

    /// Node's own runner: `# pass 3`, `# fail 0`, `# skipped 1`, with `#` or `ℹ` by where it prints to.
    pub(crate) fn of_node(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().rev().find_map(|line| {
                let line = line.trim_start_matches(['#', 'ℹ', ' ']);
                line.strip_prefix(key)?
                    .strip_prefix(' ')?
                    .trim()
                    .parse()
                    .ok()
            })
        };
        let failed: usize = value("fail")?;
        let cancelled: usize = value("cancelled").unwrap_or(0);
        Some(Self {
            passed: value("pass")?,
            failed: failed + cancelled,
            skipped: value("skipped").unwrap_or(0),
        })
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |a, b| Self {
            passed: a.passed + b.passed,
            failed: a.failed + b.failed,
            skipped: a.skipped + b.skipped,
        })
    }
}

/// The sum, or nothing where there was nothing to sum: a runner that never reported is not one that passed.
fn sum(tallies: impl Iterator<Item = Tally>) -> Option<Tally> {
    let mut tallies = tallies.peekable();
    tallies.peek()?;
    Some(tallies.sum())
}

/// Reads phrases such as `3 passed` or `9 passed (12)`. Phrases of other form count nothing.
fn count<'a>(
    phrases: impl Iterator<Item = &'a str>,
    passed: &[&str],
    failed: &[&str],
    skipped: &[&str],
) -> Tally {
    let mut tally = Tally::default();
    for phrase in phrases {
        let Some((number, word)) = phrase.trim().split_once(' ') else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        let word = word.split('(').next().unwrap_or_default().trim();
        if passed.contains(&word) {
            tally.passed += number;
        } else if failed.contains(&word) {
            tally.failed += number;
        } else if skipped.contains(&word) {
            tally.skipped += number;
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tally(passed: usize, failed: usize, skipped: usize) -> Option<Tally> {
        Some(Tally {
            passed,
            failed,
            skipped,
        })
    }

    #[test]
    fn cargo_binaries_and_doctests_are_summed() {
        let text = "\
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests node_core
test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.20s
";
        assert_eq!(Tally::of_cargo(text), tally(4, 2, 1));
    }

    #[test]
    fn a_test_that_gave_up_has_not_passed() {
        let text = "\
test a ... ok
SKIPPED b: no network namespace to be had here: unshare: not found
test b ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        assert_eq!(Tally::of_cargo(text), tally(1, 0, 1));
    }

    #[test]
    fn a_test_that_prints_a_result_does_not_count() {
        assert_eq!(
            Tally::of_cargo("println: test result: ok. 3 passed; 0 failed"),
            None
        );
    }

    #[test]
    fn a_runner_that_reported_nothing_is_told_from_one_without_tests() {
        assert_eq!(Tally::of_cargo("error: could not compile"), None);
        assert_eq!(
            Tally::of_cargo("test result: ok. 0 passed; 0 failed; 0 ignored"),
            tally(0, 0, 0)
        );
        assert_eq!(Tally::of_forge("Error: compiler run failed"), None);
        assert_eq!(
            Tally::of_vitest("No test files found, exiting with code 1"),
            None
        );
        assert_eq!(Tally::of_node("SyntaxError"), None);
    }

    #[test]
    fn forge_counts_its_total_and_not_each_suite_again() {
        let text = "\
Ran 2 tests for test/A.t.sol:A
Suite result: ok. 2 passed; 0 failed; 0 skipped; finished in 1.94ms (1.59ms CPU time)

Ran 2 test suites in 31.60ms (4.05ms CPU time): 12 tests passed, 1 failed, 3 skipped (16 total tests)
";
        assert_eq!(Tally::of_forge(text), tally(12, 1, 3));
    }

    #[test]
    fn vitest_counts_tests_and_not_files() {
        let text = "\
 Test Files  1 failed | 2 passed (3)
      Tests  2 failed | 9 passed | 1 skipped (12)
   Start at  12:00:00
";
        assert_eq!(Tally::of_vitest(text), tally(9, 2, 1));
    }

    #[test]
    fn node_counts_cancelled_as_failed() {
        assert_eq!(
            Tally::of_node("# tests 6\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 1\n"),
            tally(3, 2, 1)
        );
        assert_eq!(Tally::of_node("ℹ pass 2\nℹ fail 0\n"), tally(2, 0, 0));
    }
}
