//! The commands other than `test`.
use std::process::ExitCode;

use anyhow::Result;

use crate::process::Log;
use crate::repo::Repo;
use crate::setup::{self, Output};
use crate::sizes::{self, kib};
use crate::wasm as module;

/// `cargo xtask wasm`
pub(crate) fn wasm(repo: &Repo) -> Result<ExitCode> {
    let size = build_module(repo)?;
    println!(
        "node-wasm/pkg/{}: {} raw, {} after Brotli",
        size.name,
        kib(size.raw),
        kib(size.brotli)
    );
    Ok(ExitCode::SUCCESS)
}

fn build_module(repo: &Repo) -> Result<sizes::Size> {
    setup::toolchain(repo, &Output::Shown)?;
    setup::npm(repo, module::tools_directory(), &Output::Shown)?;
    let log = Log::create(repo.target("xtask/wasm.log"))?;
    module::build_tools(repo, &log)
        .and_then(|()| module::build(repo, &log))
        .inspect_err(|_| eprint!("{}", log.text()))
}
