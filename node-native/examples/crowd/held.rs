//! The memory of connections that idle.

use crate::{
    Extent, SERVER, ask, callers,
    common::{DIRECT, Report, Role, resident_kib},
};
use std::{thread, time::Duration};

/// Connections that are there before memory counts, so that what is needed once is there as well.
const BEFORE: usize = 64;
/// Two rounds of keepalive and a little, and one.
const REST: Duration = Duration::from_secs(35);
const REST_QUICK: Duration = Duration::from_secs(20);
/// What passes over each connection.
const PASSING: usize = 1 << 20;

pub(crate) fn measure(extent: Extent) {
    let report = Report(DIRECT);
    let (held, rest) = if extent.quick {
        (extent.most / 10, REST_QUICK)
    } else {
        (extent.most, REST)
    };
    let mut server = Role::start(&["server"]);
    let (port, pid) = (server.hear(), server.pid());
    let mut callers = callers(&port, 0, "direct", &[SERVER]);
    ask(&mut callers, &format!("connect {BEFORE}"));
    let before = resident_kib(&pid);
    let each = || (resident_kib(&pid) - before) / (held - BEFORE) as f64;
    let all_there = |connected: &[f64]| assert_eq!(connected, [held as f64]);

    all_there(&ask(&mut callers, &format!("connect {held}")));
    report.figure("held.connections", held as f64, "conn");
    report.figure("held.rss.new", each(), "KiB/conn");
    thread::sleep(rest);
    report.figure("held.rss", each(), "KiB/conn");
    all_there(&ask(&mut callers, &format!("pass {PASSING}")));
    thread::sleep(rest);
    report.figure("held.rss.after", each(), "KiB/conn");
    all_there(&ask(&mut callers, "connected"));
}
