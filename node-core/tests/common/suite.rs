//! Counting what a published suite has in it.

/// How many vectors of a suite were tried, and how many ask for what we do not do.
pub(crate) struct Tried {
    name: String,
    /// Vectors that hold: one that does not ends the test.
    passed: usize,
    left_out: usize,
}

impl Tried {
    pub(crate) fn of(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            passed: 0,
            left_out: 0,
        }
    }

    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Prints the counts, as `cargo xtask conformance` reads them, with the reason for leaving some out. A suite of which
    /// fewer than `least` were tried fails.
    pub(crate) fn end(self, least: usize, left_out_because: &str) {
        let Self {
            name,
            passed,
            left_out,
        } = self;
        assert!(passed >= least, "{name}: only {passed}");
        assert_eq!(
            left_out > 0,
            !left_out_because.is_empty(),
            "{name}: {left_out}"
        );
        println!("suite\t{name}\t{passed}\t{passed}\t{left_out}\t{left_out_because}");
    }
}
