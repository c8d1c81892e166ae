//! The router under attack, and what is measured of the honest pair.

use super::honest::Pair;
use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, name, soon, strict},
};
use node_native::node::{Node, Request, Response};
use std::{
    cell::RefCell,
    fs::File,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

/// Between two requests of the honest pair.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests from which on a p99 means something, where it is held to a strict bound: ten of them may take longer.
const ENOUGH: usize = 1000;
/// Requests in a quiet time.
const QUIET: [usize; 2] = [ENOUGH, 200];
/// Longest that the honest pair may wait for 99 of 100 requests, on a machine that others load, too.
const GENEROUS: Duration = Duration::from_secs(2);
/// The same on a machine that does nothing else.
const STRICT: Duration = Duration::from_millis(25);
/// Longest that any request may take, on the one and on the other: nobody is left waiting while 99 of 100 are served.
const LONGEST: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// How many times as long as in a quiet time 99 of 100 may take.
const FACTOR: u32 = 10;
/// What a kernel with 250 ticks a second may keep a thread waiting that could run: it was seen to leave one of two processors
/// idle for so long while two threads of a router shared the other. No router can promise less, and a request and its answer may
/// each wait for one.
const TICK: Duration = Duration::from_millis(4);

/// Limits under which a bound on memory means something, for all attacks.
const SMALL: [(&str, &str); 14] = [
    ("limits.inbound_channels", "16"),
    ("limits.channels_per_group", "8"),
    ("limits.half_open", "16"),
    ("limits.message_bytes", "64 KiB"),
    ("limits.inbox_bytes", "128 KiB"),
    ("limits.retained_bytes", "128 KiB"),
    ("limits.outbox_bytes", "256 KiB"),
    ("limits.streams", "4"),
    ("limits.stream_window", "64 KiB"),
    ("limits.circuits", "4"),
    ("limits.circuit_window", "64 KiB"),
    ("limits.parked_bytes", "1 MiB"),
    ("listen.connections", "64"),
    ("listen.connections_per_address", "64"),
];

/// MiB by which attacks may make the memory of a router grow that have nothing held: the allocator takes 2 MiB at a time for each
/// thread, and was seen to keep 8 MiB.
pub(super) const LITTLE: u64 = 16;

/// In place of a value of these: what holds where nothing is configured.
pub(super) const DEFAULT: &str = "";

pub(super) struct Siege {
    pub(super) router: SocketAddr,
    pub(super) home: Arc<Home>,
    pub(super) network: Network,
    running: Running,
    runtime: Runtime,
    honest: RefCell<Pair>,
    /// Resident before the attack, and what peers may add to it, in bytes.
    rest: u64,
    worst: u64,
    quiet: Duration,
}

/// What an attack came to.
pub(super) struct Report<R> {
    /// What the attacker saw.
    pub(super) seen: R,
    /// How long it took.
    pub(super) took: Duration,
    /// What the router computed meanwhile.
    pub(super) computed: Duration,
    /// Most files and sockets that it had open.
    pub(super) descriptors: usize,
}

impl Siege {
    /// A router `rho` with small limits and `settings`; `callers` are direct nodes that it knows, with valid keys.
    pub(super) fn lay(settings: &[(&str, &str)], callers: &[&str]) -> Self {
        let mut network = Network::default()
            .direct("rho")
            .indirect("alice", &["rho"])
            .indirect("bob", &["rho"]);
        for label in callers {
            network = network.direct(label);
        }
        let home = Home::new(&network, "rho");
        Self::around(network, home, settings)
    }

    /// The same with names and a home of the caller's choice.
    pub(super) fn around(network: Network, home: Home, settings: &[(&str, &str)]) -> Self {
        let router = network.address("rho");
        Self::open_to(router, network, home, settings)
    }

    /// The same, listening at an address through which its own is reached, too.
    pub(super) fn open_to(
        listens: SocketAddr,
        network: Network,
        home: Home,
        settings: &[(&str, &str)],
    ) -> Self {
        let router = network.address("rho");
        let settings: Vec<String> = SMALL
            .iter()
            .filter(|(key, _)| settings.iter().all(|(other, _)| other != key))
            .chain(settings)
            .filter(|(_, value)| *value != DEFAULT)
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let port = router.port().to_string();
        let address = listens.ip().to_string();
        let at = ["--address", &address, "--port", &port];
        let check = home.json(&[&["run", "--check"][..], &at, &settings].concat());
        let worst = check["worst_case_bytes"]["total"].as_u64().unwrap();
        let mut command = home.run_command(Some(listens), &[&["--echo"][..], &settings].concat());
        command.stderr(File::create(home.path().join("log")).unwrap());
        let running = Running::begin(command);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let pair = Pair::start(router, &network);
        let mut siege = Self {
            router,
            home: Arc::new(home),
            network,
            running,
            runtime,
            honest: RefCell::new(pair),
            rest: 0,
            worst,
            quiet: Duration::ZERO,
        };
        siege.settle();
        let mut left = QUIET[usize::from(!strict())];
        siege.quiet = p99(siege.talk(|| {
            left -= 1;
            left == 0
        }));
        siege.rest = siege.memory("VmRSS");
        siege
    }

    /// Waits until Alice reaches Bob.
    fn settle(&self) {
        let begun = Instant::now();
        while let Err(error) = self.honest.borrow_mut().ask() {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
    }

    /// Lets the honest pair talk until `done`, and measures each request.
    fn talk(&self, mut done: impl FnMut() -> bool) -> Vec<Duration> {
        let mut took = Vec::new();
        loop {
            match self.honest.borrow_mut().ask() {
                Ok(time) => took.push(time),
                Err(error) => panic!(
                    "an honest request came to {error}; the router's log: {}",
                    self.log()
                ),
            }
            if done() {
                return took;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Attacks while the honest pair talks, and holds what is measured against what is promised; `growth` is what the router's
    /// memory may grow by, in MiB: about four times what was measured, since allocators differ, and [`LITTLE`] at least.
    ///
    /// Where the bounds are strict, the attack is made again and again until enough requests have been measured, and whoever
    /// was banned for it is let in before the next time. What it saw the first time is what is reported.
    pub(super) fn attack<A, R>(&self, what: &str, growth: u64, attack: A) -> Report<R>
    where
        A: AsyncFn(SocketAddr) -> R + Send + 'static,
        R: Send + 'static,
    {
        let strict = strict();
        let (said, seen) = mpsc::channel();
        let (router, home) = (self.router, self.home.clone());
        self.forget_peak();
        let before = computed(self.running.pid());
        // Of the honest pair, which is gone if there are no longer two who count.
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let attacker = std::thread::spawn(move || {
            give_way();
            // Its sockets end with it.
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let begun = Instant::now();
            let seen = runtime.block_on(attack(router));
            said.send((seen, begun.elapsed())).unwrap();
            let few = || counted.load(Ordering::Relaxed) < ENOUGH;
            while strict && few() && Arc::strong_count(&counted) > 1 {
                runtime.block_on(pardon(&home, router));
                runtime.block_on(attack(router));
            }
        });
        let mut descriptors = 0;
        let honest = self.talk(|| {
            descriptors = descriptors.max(self.descriptors());
            requests.fetch_add(1, Ordering::Relaxed);
            attacker.is_finished()
        });
        if let Err(panic) = attacker.join() {
            std::panic::resume_unwind(panic);
        }
        let (longest, requests) = (honest.iter().max().copied().unwrap(), honest.len());
        let honest = p99(honest);
        let (seen, took) = seen.try_recv().unwrap();
        let report = Report {
            seen,
            took,
            computed: computed(self.running.pid()) - before,
            descriptors,
        };
        let peak = self.memory("VmHWM");
        println!(
            "{what}: {:.1} s, router computed {:.1} s; {requests} honest requests, p99 {:.1} ms (quiet {:.1} ms), longest {:.1} ms; \
             memory {:.1} MiB (at rest {:.1}, may grow by {growth}, worst case + {:.1})",
            report.took.as_secs_f64(),
            report.computed.as_secs_f64(),
            honest.as_secs_f64() * 1e3,
            self.quiet.as_secs_f64() * 1e3,
            longest.as_secs_f64() * 1e3,
            mib(peak),
            mib(self.rest),
            mib(self.worst),
        );
        assert!(
            peak <= self.rest + self.worst,
            "{peak} bytes are more than {} at rest and {} at worst",
            self.rest,
            self.worst
        );
        assert!(
            peak <= self.rest + (growth << 20),
            "{peak} bytes are {growth} MiB more than {} at rest",
            self.rest
        );
        let most = LONGEST[usize::from(!strict)];
        assert!(
            longest <= most,
            "a request took {longest:?}, promised {most:?}"
        );
        if strict {
            assert!(requests >= ENOUGH, "only {requests} honest requests");
            let most = STRICT.min((self.quiet * FACTOR).max(TICK * 2));
            assert!(honest <= most, "p99 {honest:?}, promised {most:?}");
        } else {
            assert!(honest <= GENEROUS, "p99 {honest:?}");
        }
        report
    }

    /// The attack is over: what it took is free again, a newcomer is served, and the router ends as it should.
    pub(super) fn lift(self) {
        let quiet = [("nectar_half_open", 0), ("nectar_http_connections", 2)];
        for (metric, most) in quiet {
            // The asking connection is one, too.
            let most = most + u64::from(metric.contains("connections"));
            self.until(metric, || self.metric(metric) <= most);
        }
        self.talk(|| true);
        self.honest.borrow_mut().close();
        let newcomer = self.network.config("alice");
        self.runtime.block_on(async {
            let newcomer = Node::start(newcomer).await.unwrap();
            let rho = name("rho");
            let asked = newcomer.request(&rho, Request::new("echo.1", "new"));
            let answer = soon("a newcomer's answer", asked).await;
            assert!(matches!(answer, Ok(Response::Success(_))), "{answer:?}");
            newcomer.close().await;
        });
        let log = self.home.path().join("log");
        assert!(self.running.terminate().success(), "it does not end well");
        let log = std::fs::read_to_string(log).unwrap();
        for sign in ["panicked", "ended abnormally", "overflow"] {
            assert!(!log.contains(sign), "{log}");
        }
        assert!(log.len() < 64 << 10, "{} bytes of log", log.len());
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// Waits for what the attack leaves behind.
    pub(super) fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what}; {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `/metrics` says.
    pub(super) fn metric(&self, metric: &str) -> u64 {
        self.metric_of(self.router, metric)
    }

    /// The same of another router.
    pub(super) fn metric_of(&self, router: SocketAddr, metric: &str) -> u64 {
        self.runtime.block_on(metric_of(router, metric))
    }

    /// Lets the most that was ever resident be what is resident now.
    fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.running.pid());
        std::fs::write(path, "5").unwrap();
    }

    /// What peers may make the router hold, in bytes.
    pub(super) const fn worst(&self) -> u64 {
        self.worst
    }

    /// Tells at any time by how much the router's memory has grown.
    pub(super) fn growth(&self) -> impl Fn() -> u64 + Send + use<> {
        let (pid, rest) = (self.running.pid(), self.rest);
        move || memory(pid, "VmRSS").saturating_sub(rest)
    }

    fn memory(&self, field: &str) -> u64 {
        memory(self.running.pid(), field)
    }

    /// Files and sockets that the router has open.
    pub(super) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.running.pid());
        std::fs::read_dir(path).unwrap().count()
    }
}

async fn metric_of(router: SocketAddr, metric: &str) -> u64 {
    let headers = format!("host: {router}\r\n");
    let all = super::attacker::get(router, "/metrics", &headers).await;
    let line = all.lines().find_map(|line| {
        let value = line.strip_prefix(metric)?;
        value.strip_prefix(' ')?.parse().ok()
    });
    line.unwrap_or_else(|| panic!("{metric} is not in {all}"))
}

/// Lifts all bans, and waits until the router knows.
async fn pardon(home: &Home, router: SocketAddr) {
    for ban in home.json(&["ban", "list"]).as_array().unwrap() {
        // One that has just ended cannot be lifted.
        home.output(&["ban", "lift", ban["who"].as_str().unwrap()]);
    }
    while metric_of(router, "nectar_banned").await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long a process has computed so far, to a hundredth of a second.
pub(super) fn computed(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: u64 = [11, 12]
        .map(|at| fields[at].parse::<u64>().unwrap())
        .iter()
        .sum();
    Duration::from_millis(ticks * 10)
}

/// A figure of `/proc/PID/status`, in bytes.
pub(super) fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    line.unwrap() << 10
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// This thread runs when nobody else wants to.
fn give_way() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = thread.file_name().unwrap();
    // On Linux a thread has a priority of its own.
    let (program, least) = if strict() {
        ("chrt", ["--idle", "--pid", "0"])
    } else {
        // Where others load the machine, it would never run.
        ("renice", ["-n", "19", "-p"])
    };
    let done = Command::new(program).args(least).arg(thread).output();
    assert!(done.is_ok_and(|done| done.status.success()), "{program}");
}
