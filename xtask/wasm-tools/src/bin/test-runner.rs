//! Runs one wasm test binary, as cargo's runner for `wasm32-unknown-unknown`.
//!
//! A binary that says where it belongs (`wasm_bindgen_test_configure!`) runs there once. Any other runs everywhere that a
//! node may live: in Node.js, in a page, in a dedicated worker and in a shared worker. Every place is a process of its
//! own, because the runner reads its settings from the environment, and all of them run even when one fails.
//!
//! `NECTAR_WASM_TEST_PLACE` narrows these to one, for tests that compute alike in all of them.
use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode};

/// The custom section that `wasm_bindgen_test_configure!` leaves in the module.
const CONFIGURED: &[u8] = b"__wasm_bindgen_test_unstable";

/// What a person reads, and the variable by which the runner is told.
const PLACES: [(&str, Option<&str>); 4] = [
    ("Node.js", None),
    ("page", Some("WASM_BINDGEN_USE_BROWSER")),
    (
        "dedicated worker",
        Some("WASM_BINDGEN_USE_DEDICATED_WORKER"),
    ),
    ("shared worker", Some("WASM_BINDGEN_USE_SHARED_WORKER")),
];

/// Names the only place that is wanted.
const ONLY: &str = "NECTAR_WASM_TEST_PLACE";

/// Set for the processes that run one place.
const PLACED: &str = "NECTAR_WASM_TEST_PLACED";

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    if env::var_os(PLACED).is_some() || says_where(&args) {
        return match wasm_bindgen_cli::wasm_bindgen_test_runner::run_cli_with_args(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("test runner: {error:?}");
                ExitCode::FAILURE
            }
        };
    }
    let only = env::var(ONLY).ok();
    let wanted = |place: &str| only.as_deref().is_none_or(|only| only == place);
    if !PLACES.iter().any(|(place, _)| wanted(place)) {
        eprintln!("test runner: {ONLY} names no place that is known here");
        return ExitCode::FAILURE;
    }
    let mut all = ExitCode::SUCCESS;
    for (place, variable) in PLACES.into_iter().filter(|(place, _)| wanted(place)) {
        println!("in {place}:");
        if !runs_in(variable, &args) {
            eprintln!("test runner: failed in {place}");
            all = ExitCode::FAILURE;
        }
    }
    all
}

fn says_where(args: &[OsString]) -> bool {
    // An unreadable file is reported by the runner itself.
    args.get(1).is_none_or(|file| {
        fs::read(file).map_or(true, |module| {
            module
                .windows(CONFIGURED.len())
                .any(|window| window == CONFIGURED)
        })
    })
}

fn runs_in(variable: Option<&str>, args: &[OsString]) -> bool {
    let Ok(this) = env::current_exe() else {
        return false;
    };
    let mut command = Command::new(this);
    command.args(args.iter().skip(1)).env(PLACED, "1");
    if let Some(variable) = variable {
        command.env(variable, "1");
    }
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("test runner: cannot start again: {error}");
            false
        }
    }
}
