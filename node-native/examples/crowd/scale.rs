//! What one connection costs beside others that idle.

use crate::{
    Extent, SERVER, ask, callers,
    common::{DIRECT, Report, Role, resident_kib},
    proc, spread,
};
use std::{thread, time::Duration};

const LEVELS: [usize; 4] = [100, 1000, 5000, 15_000];
const LEVELS_QUICK: [usize; 2] = [100, 1000];
/// Connections that are there before memory counts, so that what is needed once is there as well.
const BEFORE: usize = 64;
/// Between two pings of a connection that idles: a window of this length has one of each.
const ROUND: Duration = Duration::from_secs(15);
/// Requests before anything counts.
const WARM: Duration = Duration::from_secs(2);

pub(crate) fn measure(extent: Extent) {
    let report = Report(DIRECT);
    let levels = if extent.quick {
        &LEVELS_QUICK[..]
    } else {
        &LEVELS[..]
    };
    let mut server = Role::start(&["server"]);
    let (port, pid) = (server.hear(), server.pid());
    let mut asking = callers(&port, 0, "direct", &[SERVER]);
    let mut idling = callers(&port, 1, "direct", &[SERVER]);
    ask(&mut asking, "connect 1");
    ask(&mut asking, &format!("serial {}", WARM.as_millis()));
    ask(&mut idling, &format!("connect {BEFORE}"));
    let before = resident_kib(&pid);

    let [mut computing, mut medians, mut memory] = [(); 3].map(|()| Vec::new());
    for level in levels {
        let others = (*level).min(extent.most);
        ask(&mut idling, &format!("connect {}", BEFORE + others));
        // Until what a handshake leaves behind is gone.
        thread::sleep(ROUND);
        let each = (resident_kib(&pid) - before) / others as f64;
        let idle = spent(&pid, || thread::sleep(ROUND));
        let mut answered = Vec::new();
        let both = spent(&pid, || {
            answered = ask(&mut asking, &format!("serial {}", ROUND.as_millis()));
        });
        // Keepalive of the others is not the requests'.
        let per_request = (both - idle) / answered[0];
        let figure = |what: &str, value: f64, unit: &str| {
            report.figure(&format!("scale.{others}.{what}"), value, unit);
        };
        figure("rss", each, "KiB/conn");
        figure("idle", idle / (BEFORE + others) as f64, "us/ping");
        figure("cpu", per_request, "us/request");
        figure("p50", answered[1], "us");
        computing.push(per_request);
        medians.push(answered[1]);
        memory.push(each);
    }
    report.figure("scale.rss.spread", spread(&memory), "%");
    report.figure("scale.cpu.spread", spread(&computing), "%");
    report.figure("scale.p50.spread", spread(&medians), "%");
}

/// What a process computes while something is done, in microseconds.
fn spent(pid: &str, during: impl FnOnce()) -> f64 {
    let before = proc::computed(pid);
    during();
    proc::computed(pid) - before
}
