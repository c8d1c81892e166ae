//! What every peer measures, and how it says so: one JSON line per figure, the same workloads as `node-native/examples/workload.rs`.
use std::time::{Duration, Instant};

/// Prints one figure as a JSON line.
pub fn report(peer: &str, workload: &str, value: f64, unit: &str) {
    println!(
        "{}",
        serde_json::json!({"peer": peer, "workload": workload, "value": (value * 100.0).round() / 100.0, "unit": unit})
    );
}

/// Reports p50 and p99 of a set of durations in microseconds.
pub fn report_latencies(peer: &str, workload: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    report(peer, &format!("{workload}.p50"), at(0.5), "us");
    report(peer, &format!("{workload}.p99"), at(0.99), "us");
}

/// Resident set of process `pid` in KiB.
pub fn rss_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(f64::NAN)
}

/// MiB per second since then.
pub fn mib_per_s(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / (1 << 20) as f64 / since.elapsed().as_secs_f64()
}

/// Authenticated connections, opened and closed.
pub const HANDSHAKES: usize = 2000;
/// How many of them at a time.
pub const CONCURRENT: usize = 16;
/// Requests of 32 bytes, many at a time.
pub const REQUESTS: usize = 200_000;
/// One at a time, and with a stream for each, a part of them takes as long.
pub const SERIAL: usize = 40;
pub const STREAMS: usize = 100;
/// How many of them at a time.
pub const IN_FLIGHT: usize = 64;
/// Bytes one way.
pub const BULK_BYTES: u64 = 512 << 20;
/// In messages of so many.
pub const CHUNK: usize = 64 << 10;
/// Connections that do nothing.
pub const IDLE: usize = 2000;
