//! The project's own commands. `cargo xtask` lists them.
//!
//! Whatever a command needs and the machine lacks (npm packages, the wasm target, a browser) it installs first, or says what
//! to install. All cargo commands here select the workspace's default members, or node-wasm alone for its own target:
//! another selection would resolve other features and compile the dependencies once more.

mod bench;
mod commands;
mod conformance;
mod deny;
mod fuzz;
mod glue;
mod instructions;
mod page;
mod process;
mod repo;
mod setup;
mod sizes;
mod steps;
mod tally;
mod test;
mod wasm;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::repo::Repo;
use crate::test::Part;

/// Where the registry lives.
const CONTRACTS: &str = "contracts";

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [PART]...   everything that must hold, or only: lint, rust, instructions, wasm, contracts, page
  wasm             build the browser's module into node-wasm/pkg
  demo             a chain, two routers, an echo node and the page, all on this machine
  demo --check     the same, driven by two browsers instead of a person
  bench [--quick] [--rounds N] [--crowd] [--tab] [--peers]
                   the workloads, as JSON lines; with crowd, those of thousands of connections as well (eight minutes a
                   round); with tab, those of a page's node in Chromium; with peers, others' beside ours in turn; with any
                   of them, a table of the goals
  fuzz [--minutes N] [TARGET]...
                   looks for inputs that break something, N minutes (1) for each target
  attack           attacks a running node, one attack after the other, and asserts what its honest peers are promised
  conformance      suites that others wrote: vectors of Noise and of the primitives, WebSockets (needs Python 2.7)
  soak --minutes N [--seed S]
                   plays random lives of small networks, from seed S on, or from one that nobody has tried
  soak --seed S    plays one of them again, and tells what happens
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let repo = Repo::find()?;
    process::stop_children_on_signals()?;
    match args.as_slice() {
        [] | ["help"] | [.., "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        ["test", parts @ ..] => {
            let parts = parts
                .iter()
                .map(|part| part.parse())
                .collect::<Result<Vec<Part>>>()?;
            test::run(&repo, &parts)
        }
        ["wasm"] => commands::wasm(&repo),
        ["demo"] => commands::demo(&repo),
        ["demo", "--check"] => commands::demo_check(&repo),
        ["bench", args @ ..] => bench::run(&repo, args),
        ["fuzz", args @ ..] => fuzz::run(&repo, args),
        ["attack"] => commands::attack(&repo),
        ["conformance"] => conformance::run(&repo),
        ["soak", args @ ..] if !args.is_empty() => commands::soak(&repo, args),
        other => bail!("unknown arguments: {}\n\n{USAGE}", other.join(" ")),
    }
}
