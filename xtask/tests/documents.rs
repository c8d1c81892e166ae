//! What documents say about files and tests exists.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands between backticks, in order; blocks of code aside, whose fences would pair up with them.
fn spans(text: &str) -> Vec<String> {
    let mut fenced = false;
    let prose: Vec<&str> = text
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        })
        .collect();
    let prose = prose.join(" ");
    let parts = prose.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// The file and the name of every test that stands in a paragraph of proof: `Shown by`, then files, each followed by its
/// tests.
fn proofs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let Some(listed) = paragraph.trim_start().strip_prefix("Shown by ") else {
            continue;
        };
        let mut file = None;
        for span in spans(listed) {
            if span.contains('/') {
                file = Some(span);
            } else {
                let file = file.clone().expect("a test stands after its file");
                found.push((file, span));
            }
        }
    }
    found
}

/// Whether `source`, the text of `file`, holds a test called `name`.
fn has_test(file: &str, source: &str, name: &str) -> bool {
    if file.ends_with(".sol") {
        return source.contains(&format!("function {name}("));
    }
    if !file.ends_with(".rs") {
        return source.contains(&format!("(\"{name}\", "));
    }
    // Scenarios become tests by standing in their table.
    if file.contains("/scenarios/") {
        let table = fs::read_to_string(root().join("node-core/sim/src/scenarios/mod.rs")).unwrap();
        let listed = |line: &str| line.trim().trim_end_matches(';') == name;
        return source.contains(&format!("fn {name}(")) && table.lines().any(listed);
    }
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let item = before.rsplit("\n\n").next().unwrap_or_default();
    item.contains("test]") || item.contains("test(")
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let proofs = proofs(&text);
    let named = text.matches("Shown by ").count();
    assert!(
        proofs.len() > 100 && named > 20,
        "{} tests in {named} places were found",
        proofs.len()
    );
    let missing: Vec<String> = proofs
        .iter()
        .filter(|(file, name)| {
            !fs::read_to_string(root().join(file)).is_ok_and(|source| has_test(file, &source, name))
        })
        .map(|(file, name)| format!("{file}: {name}"))
        .collect();
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn a_test_that_is_gone_is_missed() {
    let text = "Shown by `a/b.rs`: `one`,\n`two words`; `c/d.sol`: `three`.\n\nNot `four`.";
    let named: Vec<_> = [
        ("a/b.rs", "one"),
        ("a/b.rs", "two words"),
        ("c/d.sol", "three"),
    ]
    .map(|(file, name)| (file.to_owned(), name.to_owned()))
    .into();
    assert_eq!(proofs(text), named);
    let source = "#[test]\nfn one() {}\n\nfn helper() {}\n\n#[tokio::test]\nasync fn two() {}\n";
    for (name, there) in [
        ("one", true),
        ("helper", false),
        ("two", true),
        ("on", false),
    ] {
        assert_eq!(has_test("tests/a.rs", source, name), there, "{name}");
    }
    assert!(has_test("a.ts", "test(\"a b\", async () => {})", "a b"));
    assert!(!has_test("a.ts", "// a b", "a b"));
    assert!(!has_test("a.sol", "function test_ab() public", "test_a"));
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    let documents = [
        "README.md",
        "SECURITY.md",
        "contracts/README.md",
        "docs/ARCHITECTURE.md",
        "docs/OPERATING.md",
        "docs/PROTOCOL.md",
        "node-wasm/js/README.md",
    ];
    let mut links = 0;
    for document in documents {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{document} links to {target}");
        }
    }
    assert!(links > 20, "{links} links were found");
}
