//! What is kept of fuzzing holds, on every run of the tests and by the stable compiler.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the inputs are files")]

use nectar_fuzz::TARGETS;
use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_input_that_is_kept_holds() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = files(&here().join("corpus").join(target.name));
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in inputs {
            let data = fs::read(&input).unwrap();
            if catch_unwind(|| (target.run)(&data)).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
#[cfg(feature = "native")]
fn every_target_has_a_binary_and_a_corpus_and_nothing_else_has() {
    use std::collections::BTreeSet;
    let targets: BTreeSet<String> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut binaries = BTreeSet::new();
    for directory in ["libfuzzer/targets", "libfuzzer/targets/native"] {
        let sources = files(&here().join(directory));
        binaries.extend(sources.iter().filter(|path| path.is_file()).map(stem));
    }
    assert_eq!(binaries, targets);
    assert_eq!(
        files(&here().join("corpus"))
            .iter()
            .map(stem)
            .collect::<BTreeSet<_>>(),
        targets
    );
}
