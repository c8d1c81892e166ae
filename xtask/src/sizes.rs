//! Sizes of what a browser downloads, and their budgets.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::repo::Repo;

/// The module, after Brotli.
pub(crate) const MODULE_BUDGET: u64 = 160 * 1024;

/// The page's own scripts and styles together, after Brotli, each file on its own as a server sends it.
pub(crate) const PAGE_BUDGET: u64 = 60 * 1024;

/// The wallet library, loaded when a person registers a name, has a chunk of its own that is named so.
const WALLET_CHUNK: &str = "ethers";

/// A file before and after Brotli, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// The file's name.
    pub(crate) name: String,
    /// As it lies on disk.
    pub(crate) raw: u64,
    /// Compressed at the highest quality, as a server stores it once.
    pub(crate) brotli: u64,
}

/// Measures files with the Brotli that Node.js brings.
pub(crate) fn measure(repo: &Repo, files: &[PathBuf]) -> Result<Vec<Size>> {
    const SCRIPT: &str = "\
        const { readFileSync } = require('fs'); const { brotliCompressSync } = require('zlib');\
        for (const file of process.argv.slice(1)) {\
          const bytes = readFileSync(file); console.log(bytes.length, brotliCompressSync(bytes).length);\
        }";
    let text = process::output(repo.command("node").args(["-e", SCRIPT, "--"]).args(files))?;
    let sizes = parse(&text, files)?;
    if sizes.len() != files.len() {
        bail!(
            "{} files were given and {} measured",
            files.len(),
            sizes.len()
        );
    }
    Ok(sizes)
}

/// The page's scripts and styles below `directory`, without the wallet's chunk.
pub(crate) fn page_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if counts(&path) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        bail!("{} holds no script", directory.display());
    }
    found.sort();
    Ok(found)
}

/// Says whether the files together keep within the budget, in words.
pub(crate) fn within(what: &str, sizes: &[Size], budget: u64) -> Result<String> {
    let total: u64 = sizes.iter().map(|size| size.brotli).sum();
    let said = format!("{what}: {} of {} after Brotli", kib(total), kib(budget));
    if total > budget {
        let files: Vec<String> = sizes
            .iter()
            .map(|size| format!("{} {}", size.name, kib(size.brotli)))
            .collect();
        bail!("{said}, too large: {}", files.join(", "));
    }
    Ok(said)
}

/// Bytes as a person reads them.
pub(crate) fn kib(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1024);
    format!("{}.{} KiB", tenths / 10, tenths % 10)
}

fn counts(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default();
    (extension == "js" || extension == "css") && !name.starts_with(WALLET_CHUNK)
}

fn parse(text: &str, files: &[PathBuf]) -> Result<Vec<Size>> {
    text.lines()
        .zip(files)
        .map(|(line, file)| {
            let (raw, brotli) = line
                .split_once(' ')
                .with_context(|| format!("no two sizes: {line}"))?;
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Ok(Size {
                name,
                raw: raw.parse()?,
                brotli: brotli.parse()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn size(name: &str, brotli: u64) -> Size {
        Size {
            name: name.into(),
            raw: brotli * 3,
            brotli,
        }
    }

    #[test]
    fn a_budget_is_kept_to_the_byte_and_a_refusal_names_the_files() {
        assert_eq!(
            within("page", &[size("a.js", 1000), size("b.css", 24)], 1024).unwrap(),
            "page: 1.0 KiB of 1.0 KiB after Brotli"
        );
        let error = within("page", &[size("a.js", 1000), size("b.css", 25)], 1024)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "page: 1.1 KiB of 1.0 KiB after Brotli, too large: a.js 1.0 KiB, b.css 0.1 KiB"
        );
    }

    #[test]
    fn the_wallet_and_what_is_neither_script_nor_style_do_not_count() {
        let counted = |name: &str| counts(Path::new(name));
        assert!(
            counted("dist/assets/index-1a2b.js")
                && counted("dist/worker.js")
                && counted("style.css")
        );
        assert!(!counted("dist/assets/ethers-9f.js"));
        assert!(
            !counted("node_wasm_bg.wasm") && !counted("index.html") && !counted("index.js.map")
        );
    }

    #[test]
    fn sizes_are_read_line_by_line() {
        let files = [PathBuf::from("x/a.js"), PathBuf::from("b.css")];
        assert_eq!(
            parse("30 10\n7 5\n", &files).unwrap(),
            [
                Size {
                    name: "a.js".into(),
                    raw: 30,
                    brotli: 10
                },
                Size {
                    name: "b.css".into(),
                    raw: 7,
                    brotli: 5
                }
            ]
        );
        assert!(parse("30\n", &files).is_err());
    }
}
