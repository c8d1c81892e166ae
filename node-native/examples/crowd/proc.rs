//! What Linux tells about processes.

use std::{fs, os::unix::process::CommandExt, process::Command};

/// Microseconds in one of the hundredths of a second in which Linux counts, on every machine that runs this.
const TICK: f64 = 10_000.0;

/// Time for which a process has computed, in microseconds.
pub(crate) fn computed(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything, in its brackets.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|field| field.parse::<f64>().unwrap())
        .sum::<f64>()
        * TICK
}

/// What all processors together have done so far.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    all: f64,
    idle: f64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let times: Vec<f64> = stat
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .skip(1)
            // Guests' time is in that of users.
            .take(8)
            .map(|field| field.parse().unwrap())
            .collect();
        Self {
            all: times.iter().sum(),
            idle: times[3] + times[4],
        }
    }

    /// How much of the time since then nobody idled, in percent.
    pub(crate) fn busy(self) -> f64 {
        let now = Self::now();
        (1.0 - (now.idle - self.idle) / (now.all - self.all)) * 100.0
    }
}

/// How many descriptors a process may have here. Where fewer are granted at first, the program starts over with all of them.
pub(crate) fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut granted = line
        .unwrap()
        .split_whitespace()
        .map(|limit| limit.parse().unwrap_or(usize::MAX));
    let (soft, hard) = (granted.next().unwrap(), granted.next().unwrap());
    if soft < hard {
        // The call itself can only be reached by unsafe code or one more dependency.
        let raise = r#"ulimit -n "$(ulimit -Hn)" && exec "$0" "$@""#;
        let failure = Command::new("sh")
            .args(["-c", raise])
            .arg(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .exec();
        panic!("{failure}");
    }
    soft
}
