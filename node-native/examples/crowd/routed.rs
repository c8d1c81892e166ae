//! Many circuits through one router, and two that are very different.

use crate::{
    Extent, TARGETS, ask, callers,
    common::{ROUTED, Report, Role},
    proc::{self, Machine},
    tell, told,
};
use std::{thread, time::Duration};

const CIRCUITS: [usize; 3] = [200, 1000, 2000];
const CIRCUITS_QUICK: [usize; 2] = [200, 1000];
/// Messages of each circuit in a second; where their answers come late, how many fewer do not.
const PER_SECOND: u32 = 20;
const FEWER: [u32; 6] = [15, 10, 7, 5, 3, 1];
/// Microseconds within which 99 of 100 answers are wanted.
const WANTED: f64 = 10_000.0;
/// Before anything counts.
const WARM: Duration = Duration::from_secs(1);

/// What came of a window of messages.
struct Window {
    answers: f64,
    p50: f64,
    p99: f64,
    seconds: f64,
}

fn window(callers: &mut Role, per_second: u32, time: Duration) -> Window {
    let command = format!("paced {per_second} {}", time.as_millis());
    let [answers, p50, p99, seconds] = ask(callers, &command)[..] else {
        panic!("not what a window brings");
    };
    Window {
        answers,
        p50,
        p99,
        seconds,
    }
}

pub(crate) fn fanout(extent: Extent) {
    let report = Report(ROUTED);
    let (levels, time) = if extent.quick {
        (&CIRCUITS_QUICK[..], Duration::from_secs(3))
    } else {
        (&CIRCUITS[..], Duration::from_secs(10))
    };
    let mut router = Role::start(&["router"]);
    let (port, pid) = (router.hear(), router.pid());
    let mut targets = Role::start(&[&["targets", &port], &TARGETS[..]].concat());
    targets.hear();
    let mut callers = callers(&port, 0, "routed", &TARGETS);
    let mut computing = Vec::new();
    for circuits in levels {
        ask(&mut callers, &format!("connect {circuits}"));
        window(&mut callers, PER_SECOND, WARM);
        let (machine, before) = (Machine::now(), proc::computed(&pid));
        let found = window(&mut callers, PER_SECOND, time);
        // Its answer is a message, too.
        let each = (proc::computed(&pid) - before) / found.answers / 2.0;
        let busy = machine.busy();
        let figure = |what: &str, value: f64, unit: &str| {
            report.figure(&format!("fanout.{circuits}.{what}"), value, unit);
        };
        figure("p50", found.p50, "us");
        figure("p99", found.p99, "us");
        figure("answers", found.answers / found.seconds, "1/s");
        figure("cpu", each, "us/message");
        figure("busy", busy, "% of machine");
        computing.push(each);
        let mut fewer = FEWER.iter();
        let (mut rate, mut p99) = (PER_SECOND, found.p99);
        while p99 > WANTED
            && let Some(next) = fewer.next()
        {
            rate = *next;
            p99 = window(&mut callers, rate, time).p99;
        }
        if p99 <= WANTED {
            // The highest rate of those tried at which answers come in time.
            figure("in_time", f64::from(rate) * *circuits as f64, "1/s");
        }
    }
    let last = computing[computing.len() - 1];
    report.figure("fanout.cpu.growth", last / computing[0], "x");
}

/// MiB in a second of the paced bulk.
const PACE: u32 = 100;
/// Requests in a second of the circuit that is looked at.
const PROBES: u32 = 250;

pub(crate) fn fairness(extent: Extent) {
    let (rounds, time) = if extent.quick {
        (1, Duration::from_secs(4))
    } else {
        (3, Duration::from_secs(6))
    };
    beside("same", TARGETS[0], rounds, time);
    beside("apart", TARGETS[1], rounds, time);
}

/// Looks at a circuit to `target` while another goes to the first of them: quiet, paced and unbounded in turn.
fn beside(variant: &str, target: &str, rounds: usize, time: Duration) {
    let report = Report(ROUTED);
    let mut router = Role::start(&["router"]);
    let port = router.hear();
    // In processes of their own, so that they share a router and nothing else.
    let _targets = [TARGETS[0], TARGETS[1]].map(|label| {
        let mut target = Role::start(&["targets", &port, label]);
        target.hear();
        target
    });
    let mut bulk = callers(&port, 0, "routed", &TARGETS[..1]);
    let mut probe = callers(&port, 1, "routed", &[target]);
    ask(&mut bulk, "connect 1");
    ask(&mut probe, "connect 1");
    window(&mut probe, PROBES, WARM);
    // From before the first probe until after the last.
    let longer = time + WARM * 3;
    let [mut quiet, mut paced, mut full, mut rates, mut most] = [(); 5].map(|()| Vec::new());
    for _ in 0..rounds {
        quiet.push(window(&mut probe, PROBES, time).p99);
        for (mib, times, rates) in [(PACE, &mut paced, &mut rates), (0, &mut full, &mut most)] {
            tell(&mut bulk, &format!("bulk {mib} {}", longer.as_millis()));
            thread::sleep(WARM);
            times.push(window(&mut probe, PROBES, time).p99);
            rates.push(told(&mut bulk)[0]);
        }
    }
    let figure = |what: &str, value: f64, unit: &str| {
        report.figure(&format!("fairness.{variant}.{what}"), value, unit);
    };
    let (quiet, paced) = (median(quiet), median(paced));
    figure("quiet.p99", quiet, "us");
    figure("paced.p99", paced, "us");
    figure("paced.ratio", paced / quiet, "x");
    figure("paced.bulk", median(rates), "MiB/s");
    figure("full.p99", median(full), "us");
    figure("full.bulk", median(most), "MiB/s");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
