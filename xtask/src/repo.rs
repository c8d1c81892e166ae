//! Where things are.
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The repository that this binary was built from.
pub(crate) struct Repo {
    root: PathBuf,
    target: PathBuf,
}

impl Repo {
    /// Reads the target directory off the running binary, so that `CARGO_TARGET_DIR` and every configuration of cargo hold.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in no directory")?
            .to_owned();
        let binary = env::current_exe().context("cannot tell where this binary is")?;
        // target/debug/xtask; a test's binary lies one deeper, in target/debug/deps.
        let target = binary
            .ancestors()
            .skip(1)
            .find(|path| !path.ends_with("deps"))
            .and_then(Path::parent)
            .context("this binary lies in no target directory")?
            .to_owned();
        Ok(Self { root, target })
    }

    /// A path given from the repository's top.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A path under cargo's target directory.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.target.join(relative)
    }

    /// A command that runs at the repository's top.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        command
    }

    /// The cargo that started us, at the repository's top.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Set by `cargo run` for this binary alone; build scripts would be run again for the difference.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never");
        command
    }

    /// npm in one of the directories that have a `package.json`.
    pub(crate) fn npm(&self, directory: &str) -> Command {
        self.in_directory("npm", directory)
    }

    /// Node.js in one of these directories.
    pub(crate) fn node(&self, directory: &str) -> Command {
        self.in_directory("node", directory)
    }

    /// A program that an npm package of `directory` brought, running there.
    pub(crate) fn npx(&self, directory: &str, program: &str) -> Command {
        self.in_directory(self.npx_path(directory, program), directory)
    }

    /// Where such a program lies.
    pub(crate) fn npx_path(&self, directory: &str, program: &str) -> PathBuf {
        self.path(directory).join("node_modules/.bin").join(program)
    }

    fn in_directory(&self, program: impl Into<OsString>, directory: &str) -> Command {
        let mut command = self.command(program);
        command
            .current_dir(self.path(directory))
            .env("NO_COLOR", "1")
            .env_remove("FORCE_COLOR");
        command
    }
}

/// The file that a shell would start for this name.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_repository_and_the_target_directory_are_found() {
        let repo = Repo::find().unwrap();
        assert!(repo.path("xtask/src/repo.rs").is_file());
        // Cargo keeps this at the top of every target directory.
        assert!(repo.target(".rustc_info.json").is_file());
    }
}
