//! Starting programs, and ending everything that they started.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// No single program here takes longer, cold, on two cores. One that does hangs.
const LONGEST: Duration = Duration::from_secs(25 * 60);

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Process groups that live, each led by a child of ours.
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends every child's process group when this process is asked to end, then this process.
///
/// A child leads a group of its own, hence a terminal's Ctrl-C reaches only us.
pub(crate) fn stop_children_on_signals() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let groups = GROUPS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            for group in &groups {
                signal_group("TERM", *group);
            }
            let deadline = Instant::now() + GRACE;
            while groups.iter().any(|group| group_lives(*group)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(50));
            }
            for group in &groups {
                signal_group("KILL", *group);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A running program with all that it starts. Dropping it ends the whole group.
pub(crate) struct Group {
    child: Child,
}

impl Group {
    /// Starts `command` at the head of a process group of its own, without standard input.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        // Locked over the start, so that a signal cannot fall between it and the registration.
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        groups.insert(child.id());
        Ok(Self { child })
    }

    /// The program's process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program itself has ended, and how.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .context("cannot wait for a child process")
    }

    fn wait(mut self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("still running after {} s, ended", at_most.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.child.id();
        if group_lives(group) {
            signal_group("TERM", group);
            let deadline = Instant::now() + GRACE;
            while group_lives(group) && Instant::now() < deadline {
                // Reaps the leader, which would count as living until then.
                let _ = self.child.try_wait();
                thread::sleep(Duration::from_millis(20));
            }
            signal_group("KILL", group);
        }
        let _ = self.child.wait();
        GROUPS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&group);
    }
}

/// Runs a program whose output the person reads as it comes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    run_within(command, LONGEST)
}

/// Runs such a program that may take as long as a person has asked for.
pub(crate) fn run_within(command: &mut Command, at_most: Duration) -> Result<()> {
    let line = shown(command);
    let status = Group::start(command)?
        .wait(at_most)
        .with_context(|| line.clone())?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Runs a program and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        bail!(
            "{line}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: output is not text"))
}

/// A file that collects what several programs print, shown only if one fails.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Starts an empty log.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path })
    }

    /// Runs a program to its end and returns what it printed. An exit code other than zero is not an error here.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(ExitStatus, String)> {
        let line = shown(command);
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        writeln!(file, "$ {line}")?;
        let from = fs::metadata(&self.path)?.len();
        command.stdout(file.try_clone()?).stderr(file);
        let status = Group::start(command)?.wait(LONGEST).with_context(|| line)?;
        let printed = fs::read(&self.path)?;
        let printed = printed.get(usize::try_from(from)?..).unwrap_or_default();
        Ok((status, without_colours(&String::from_utf8_lossy(printed))))
    }

    /// Runs a program that must succeed, and returns what it printed.
    pub(crate) fn require(&self, command: &mut Command) -> Result<String> {
        let (status, text) = self.run(command)?;
        if !status.success() {
            bail!("{}: {status}", shown(command));
        }
        Ok(text)
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        fs::read(&self.path).map_or_else(
            |error| format!("{}: {error}", self.path.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}

/// Drops the escape sequences with which terminals colour text.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            let _ = chars.find(|c| ('@'..='~').contains(c));
        }
    }
    plain
}

fn signal_group(signal: &str, group: u32) {
    // The group may be gone by now, which is what we want.
    let _ = kill(signal, group);
}

fn group_lives(group: u32) -> bool {
    kill("0", group).is_ok_and(|status| status.success())
}

/// The program rather than the call, which only unsafe code can reach without another dependency.
fn kill(signal: &str, group: u32) -> std::io::Result<ExitStatus> {
    Command::new("kill")
        .args([&format!("-{signal}"), "--", &format!("-{group}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn colours_are_dropped_and_nothing_else() {
        assert_eq!(without_colours("\u{1b}[1;32mok\u{1b}[0m [3] ü"), "ok [3] ü");
        assert_eq!(without_colours("cut \u{1b}["), "cut ");
    }

    #[test]
    fn dropping_a_group_ends_what_its_leader_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let group = Group::start(&mut command).unwrap();
        let id = group.child.id();
        assert!(group_lives(id));
        drop(group);
        assert!(!group_lives(id));
    }

    #[test]
    fn a_log_returns_what_each_program_printed_and_keeps_it_all() {
        let path = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        let log = Log::create(path.clone()).unwrap();
        assert_eq!(
            log.require(Command::new("echo").arg("one")).unwrap(),
            "one\n"
        );
        let (status, text) = log
            .run(Command::new("sh").args(["-c", "echo two; exit 3"]))
            .unwrap();
        assert_eq!((status.code(), text.as_str()), (Some(3), "two\n"));
        assert_eq!(
            log.text(),
            "$ echo one\none\n$ sh -c echo two; exit 3\ntwo\n"
        );
        fs::remove_file(path).unwrap();
    }
}
