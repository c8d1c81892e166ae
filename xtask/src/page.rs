//! The page: building it.
use std::path::PathBuf;

use anyhow::Result;

use crate::process::Log;
use crate::repo::Repo;
use crate::sizes::{self, Size};

/// Where the page lives.
pub(crate) const DIRECTORY: &str = "www";

/// Builds the page around the module in `node-wasm/pkg`, and measures what it loads beside it.
pub(crate) fn build(repo: &Repo, log: &Log) -> Result<Vec<Size>> {
    log.require(repo.npm(DIRECTORY).args(["run", "build"]))?;
    sizes::measure(repo, &sizes::page_files(&built(repo))?)
}

/// What a server serves.
pub(crate) fn built(repo: &Repo) -> PathBuf {
    repo.path(DIRECTORY).join("dist")
}
