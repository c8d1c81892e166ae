//! The nectar command.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_native::cli::main()
}
