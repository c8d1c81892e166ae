//! The `nectar` command.
//!
//! Results go to standard output, everything else to standard error. With `--json` both are JSON: one object per
//! result, one object `{"error": {"message", "exit"}}` per failure.
//!
//! Exit codes: 0 it is done, 1 it failed, 2 the command line, the configuration or a key file is wrong, 3 the name is
//! not registered.

mod args;
mod ban;
mod demo;
mod descriptors;
mod echo;
mod failure;
mod keygen;
mod output;
mod own;
mod ping;
mod record;
mod register;
mod resolve;
mod run;
mod serve;
mod setup;
mod status;
mod talk;

use crate::config::{Config, Override, Sources};
use args::{Cli, Command, DemoArgs, Global};
use clap::Parser;
use output::Output;
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

pub use args::{Address, CallerArgs, MessageArgs, PingArgs, RegistryArgs, RunArgs};
pub use failure::Failure;

/// Everything that a command works with.
struct Context {
    config: Config,
    out: Output,
}

/// Parses the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output::new(cli.global.json);
    start_log(&cli, out);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))
        .and_then(|runtime| {
            let result = runtime.block_on(dispatch(cli, out));
            // A look-up that DNS never answers is not waited for.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

async fn dispatch(cli: Cli, out: Output) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    // Keys and deployments need no configuration, and a broken one must not stand in their way.
    match command {
        Command::Keygen(args) => return keygen::keygen(args, out),
        Command::Deploy(args) => return setup::deploy(args, out).await,
        Command::Fund(args) => return setup::fund(args, out).await,
        Command::Demo(args) => return demo::demo(args, out).await,
        _ => {}
    }
    let flags = match &command {
        Command::Run(args) => args.overrides(),
        _ => Vec::new(),
    };
    let context = Context {
        config: load(&global, flags)?,
        out,
    };
    for warning in &context.config.warnings {
        out.note(format_args!("warning: {warning}"));
    }
    match command {
        Command::Keygen(_) | Command::Deploy(_) | Command::Fund(_) | Command::Demo(_) => Ok(()),
        Command::Register(args) => register::register(context, args).await,
        Command::Record(command) => record::record(context, command).await,
        Command::Resolve(args) => resolve::resolve(context, args).await,
        Command::Run(args) => run::run(context, args).await,
        Command::Send(args) => talk::send(context, args).await,
        Command::Request(args) => talk::request(context, args).await,
        Command::Ping(args) => ping::ping(context, args).await,
        Command::Status(args) => status::status(context, args).await,
        Command::Ban(command) => ban::ban(&context, command),
    }
}

/// The configuration under these flags; flags of the command come before those of `--set`, which are the last word.
fn load(global: &Global, flags: Vec<Override>) -> Result<Config, Failure> {
    let mut sources = Sources::from_environment();
    sources.file = global.config.clone().or(sources.file);
    sources.flags = flags;
    for set in &global.set {
        let (path, value) = set.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--set {set}: write it as --set section.key=value"))
        })?;
        sources.flags.push(Override {
            place: format!("--set {path}"),
            path: path.trim().into(),
            value: value.trim().into(),
        });
    }
    Config::load(&sources).map_err(Failure::from)
}

/// Logs to standard error, filtered by `NECTAR_LOG`: a running node tells what happens, other commands only trouble. Lines
/// for people, or with `NECTAR_LOG_FORMAT=json` an object each.
fn start_log(cli: &Cli, out: Output) {
    let default = if matches!(cli.command, Command::Run(_)) {
        "info"
    } else {
        "warn"
    };
    let wanted = std::env::var("NECTAR_LOG").unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(default.parse().unwrap_or_default())
        .parse(&wanted);
    let filter = filter.unwrap_or_else(|_| {
        out.note(format_args!(
            "warning: NECTAR_LOG={wanted} is ignored: write a level (error, warn, info, debug or trace), or module=level, \
             separated by commas"
        ));
        EnvFilter::new(default)
    });
    let format = std::env::var("NECTAR_LOG_FORMAT").unwrap_or_default();
    if !matches!(&*format, "" | "text" | "json") {
        out.note(format_args!(
            "warning: NECTAR_LOG_FORMAT={format} is ignored: write text or json"
        ));
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if format == "json" {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
