//! Many at once, and slow ones.

use super::{
    attacker::{self, BINARY, CONTINUED, Caller, Wire, frame, somewhere, tcp},
    siege::{DEFAULT, LITTLE, Siege},
};
use crate::{
    home::Home,
    sockets::Sockets,
    support::{Network, strict},
};
use futures_util::{StreamExt, future::join_all, stream};
use node_core::{Code, Label, Name, wire::frame::Frame};
use node_native::http::EXCUSES;
use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Connections that an attacker opens and holds.
const MANY: usize = 10_000;
/// Those of them that ask for a WebSocket and do not finish, or do not even begin, their handshake.
const UPGRADED: usize = 1000;
/// Attempts to connect under way: fewer than a listening socket keeps.
const AT_ONCE: usize = 200;
/// What `listen.connections` is where nothing is configured.
const PLACES: usize = 4096;
/// Descriptors that are neither the attacker's nor the router's.
const BESIDE: usize = 1000;
/// Whoever waits for the end of a connection has it by then. When more come than the kernel keeps for the router, some only
/// believe to be connected, and nobody is there to throw them out.
const END: Duration = Duration::from_secs(25);

/// How many connections an attacker can hold here: it, and the router that begins after this, may have as many descriptors as
/// the system allows at all. They are no more than one test needs, which has them until it drops the other value.
fn many() -> (usize, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let [soft, hard] = [0, 1].map(|at| {
        let limit = open.unwrap().split_whitespace().nth(at).unwrap();
        limit.parse().unwrap_or(usize::MAX)
    });
    let wanted = hard.min(MANY + 2 * BESIDE);
    if soft < wanted {
        let raised = Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string()])
            .arg(format!("--nofile={wanted}:"))
            .status();
        assert!(raised.is_ok_and(|done| done.success()), "prlimit");
    }
    let many = MANY.min(wanted.saturating_sub(BESIDE));
    assert!(
        many == MANY || !strict(),
        "only {hard} files and sockets are allowed"
    );
    if many < MANY {
        println!("{many} connections instead of {MANY}: only {hard} files and sockets are allowed");
    }
    (many, alone)
}

/// Opens a connection, and says as much as is due at most: a handshake, for those that go so far, or a part of a head.
async fn half_open(to: SocketAddr, n: usize, from: Ipv4Addr) -> Option<TcpStream> {
    let mut stream = tcp(to, from).await.ok()?;
    let mut said = Vec::new();
    match n {
        n if n < UPGRADED => {
            said.extend([attacker::UPGRADE, "\r\n"].concat().as_bytes());
            if n % 2 == 1 {
                let (_, message1) = Caller::guest().dial("rho");
                said.extend(frame(0x80 | BINARY, &message1));
            }
        }
        n if n % 2 == 1 => said.extend(&attacker::UPGRADE.as_bytes()[..60]),
        _ => {}
    }
    // Whoever finds no place is cut off at once.
    let _ = stream.write_all(&said).await;
    Some(stream)
}

/// Opens them, and has all of them open at the end, whatever the other side thinks of that.
async fn flood(to: SocketAddr, many: Range<usize>, from: fn(u32) -> Ipv4Addr) -> Vec<TcpStream> {
    let opening = many.map(|n| half_open(to, n, from(n as u32)));
    let opened = stream::iter(opening).buffer_unordered(AT_ONCE);
    opened.filter_map(async |opened| opened).collect().await
}

/// How many are thrown out within a time.
async fn thrown_out(streams: &mut [TcpStream], within: Duration) -> usize {
    let ends = streams.iter_mut().map(async |stream| {
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard);
        tokio::time::timeout(within, end).await.is_ok()
    });
    let ends = join_all(ends).await;
    ends.into_iter().filter(|thrown_out| *thrown_out).count()
}

/// What holds where nothing is configured, but for the times that a head and a handshake have, which are 10 and 30 s.
const AS_USUAL: [(&str, &str); 7] = [
    ("listen.connections", DEFAULT),
    ("listen.connections_per_address", DEFAULT),
    ("limits.half_open", DEFAULT),
    ("limits.inbound_channels", DEFAULT),
    ("limits.channels_per_group", DEFAULT),
    ("limits.handshake_timeout", "20s"),
    ("listen.header_timeout", "20s"),
];

#[test]
fn ten_thousand_connections_from_few_addresses_leave_places_for_others() {
    let (many, _alone) = many();
    let siege = Siege::lay(&AS_USUAL, &["mallory"]);
    let before = siege.descriptors();
    let report = siege.attack("connections from 50 addresses", 160, async move |router| {
        // Four of them have 32 unfinished handshakes each: half of what there may be in all.
        let from = |n| {
            somewhere(if n < UPGRADED as u32 {
                n % 4
            } else {
                4 + n % 46
            })
        };
        let streams = flood(router, 0..many, from).await;
        let mallory = Caller::named("mallory");
        let newcomer = mallory.enter(router, somewhere(60), "rho").await;
        (streams.len(), newcomer.map(drop))
    });
    let (held, newcomer) = report.seen;
    println!(
        "{held} held; the router had {} descriptors",
        report.descriptors
    );
    assert!(held > many * 99 / 100, "{held}");
    assert!(report.descriptors <= before + PLACES + EXCUSES);
    assert_eq!(newcomer, Ok(()), "50 addresses have 64 places each");
    siege.lift();
}

#[test]
fn ten_thousand_connections_held_together_take_the_places_that_there_are_and_lose_them_in_time() {
    let (many, _alone) = many();
    let siege = Siege::lay(&AS_USUAL, &["mallory"]);
    let before = siege.descriptors();
    let report = siege.attack(
        "connections from as many addresses",
        160,
        async move |router| {
            // Beyond 256 unfinished handshakes they are turned away, and their places are free again.
            let mut streams = flood(router, 0..UPGRADED.min(many), somewhere).await;
            let turned_away = thrown_out(&mut streams, Duration::from_secs(3)).await;
            let begun = Instant::now();
            streams.extend(flood(router, UPGRADED..many, somewhere).await);
            let held = streams.len();
            let mallory = Caller::named("mallory");
            let newcomer = || mallory.enter(router, somewhere(MANY as u32), "rho");
            let late = newcomer().await.map(drop);
            let took = begun.elapsed();
            let thrown_out = thrown_out(&mut streams, END).await;
            let again = newcomer().await.map(drop);
            (held, turned_away, late, took, thrown_out, again)
        },
    );
    let (held, turned_away, late, took, thrown_out, again) = report.seen;
    println!(
        "{held} held after {took:.1?}, {turned_away} turned away in their handshake, {thrown_out} thrown out in the end; \
         the router had {} descriptors",
        report.descriptors
    );
    assert!(held > many * 99 / 100, "{held}");
    assert!(report.descriptors <= before + PLACES + EXCUSES);
    // Unless this took so long that the first have lost theirs.
    let soon = took < Duration::from_secs(16);
    assert!(soon || !strict(), "{took:?}");
    if soon {
        assert!(report.descriptors > before + PLACES.min(many) * 9 / 10);
        assert!(turned_away > UPGRADED / 2, "{turned_away}");
        assert!(
            many < PLACES || late == Err(None),
            "without a place: {late:?}"
        );
    }
    assert!(thrown_out > held * 9 / 10, "{thrown_out}");
    assert_eq!(again, Ok(()));
    assert!(siege.metric("nectar_http_refused_total") > 0);
    siege.lift();
}

/// Between two bytes that drip: anything that takes longer than is allowed takes much longer.
const DRIP: Duration = Duration::from_millis(40);

#[test]
fn whoever_drips_is_cut_off_when_the_handshakes_time_is_over() {
    let siege = Siege::lay(
        &[
            ("listen.header_timeout", "500ms"),
            ("limits.handshake_timeout", "1s"),
            ("limits.keepalive", "500ms"),
            ("limits.keepalive_retry", "200ms"),
        ],
        &["mallory"],
    );
    let report = siege.attack("slow-loris", LITTLE, async |router| {
        let drip = async |wire: &mut Wire, bytes: &[u8], unit: usize| {
            let begun = Instant::now();
            for part in bytes.chunks(unit) {
                if wire.write(part).await.is_err() {
                    break;
                }
                let waited = tokio::time::timeout(DRIP, wire.next()).await;
                if let Ok(Err(_) | Ok((attacker::CLOSE, _))) = waited {
                    return begun.elapsed();
                }
            }
            wire.closed().await;
            begun.elapsed()
        };
        // The head of the request, byte by byte.
        let head = async {
            let stream = tcp(router, somewhere(1)).await.unwrap();
            let mut wire = Wire::of(stream);
            let endless = "accept: everything\r\n".repeat(100);
            let endless = format!("{}{endless}", attacker::UPGRADE);
            drip(&mut wire, endless.as_bytes(), 1).await
        };
        // Message 1, byte by byte; and in frames of one byte each.
        let (_, message1) = Caller::named("mallory").dial("rho");
        let bytes = frame(0x80 | BINARY, &message1);
        let message = async {
            let mut wire = Wire::open(router, somewhere(2)).await.unwrap();
            drip(&mut wire, &bytes, 1).await
        };
        let mut frames = frame(BINARY, &message1[..1]);
        for byte in &message1[1..] {
            frames.extend(frame(CONTINUED, &[*byte]));
        }
        let fragments = async {
            let mut wire = Wire::open(router, somewhere(3)).await.unwrap();
            drip(&mut wire, &frames, 7).await
        };
        // Message 3 after an honest beginning.
        let third = async {
            let mallory = Caller::named("mallory");
            let mut wire = Wire::open(router, somewhere(4)).await.unwrap();
            let (dialling, message1) = mallory.dial("rho");
            wire.send(&message1).await.unwrap();
            let message2 = wire.message().await.unwrap();
            let (message3, _) = mallory.conclude(dialling, &message2);
            assert!(DRIP * message3.len() as u32 > Duration::from_secs(8));
            drip(&mut wire, &frame(0x80 | BINARY, &message3), 1).await
        };
        tokio::join!(head, message, fragments, third)
    });
    let (head, message, fragments, third) = report.seen;
    for (what, took) in [
        ("head", head),
        ("message 1", message),
        ("fragments", fragments),
        ("message 3", third),
    ] {
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
    }
    let report = siege.attack("a record that drips", LITTLE, async |router| {
        let mut peer = Caller::named("mallory")
            .enter(router, somewhere(5), "rho")
            .await
            .unwrap();
        // Once it has answered, it is known how fast it could be.
        let token = peer.until(|frame| match frame {
            Frame::Ping(token) => Some(*token),
            _ => None,
        });
        let token = token.await.unwrap();
        peer.say(&[Frame::Pong(token)]).await.unwrap();
        let record = peer.seal(&[attacker::request(4, &[7; 8000])]);
        let begun = Instant::now();
        for part in frame(0x80 | BINARY, &record).chunks(1) {
            if peer.wire.write(part).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    });
    assert!(report.seen < Duration::from_secs(10), "{:?}", report.seen);
    siege.lift();
}

#[test]
fn handshakes_with_random_names_cost_bounded_look_ups_and_computing() {
    let handshakes: u32 = if strict() { 10_000 } else { 1_500 };
    let world = Sockets::new();
    let network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"]);
    let home = Home::new(&network, "rho");
    home.reads(world.rpc());
    let siege = Siege::around(
        network,
        home,
        &[
            ("limits.half_open", "64"),
            ("limits.inbound_channels", "64"),
        ],
    );
    let before = world.asked();
    let report = siege.attack(
        "handshakes with random names",
        LITTLE,
        async move |router| {
            let mut codes = Vec::new();
            for round in 0..handshakes.div_ceil(30) {
                let calls = (0..30).map(|n| async move {
                    let at = round * 30 + n;
                    let mut caller = Caller::named("mallory");
                    caller.name = Some(Name {
                        label: Label::new(&format!("random-{at}")).unwrap(),
                        ..caller.name.unwrap()
                    });
                    let entered = caller.enter(router, somewhere(at % 1000), "rho").await;
                    entered.map(drop)
                });
                codes.extend(join_all(calls).await);
            }
            codes
        },
    );
    let refused = |code| {
        report
            .seen
            .iter()
            .filter(|came| **came == Err(Some(code)))
            .count()
    };
    let unknown = refused(Code::NameUnknown);
    let told = unknown + refused(Code::ReadBudget) + refused(Code::KeyUnconfirmed);
    assert!(
        unknown > 0 && report.seen.iter().all(Result::is_err),
        "{:?}",
        report.seen
    );
    assert!(told > report.seen.len() / 2, "{:?}", report.seen);
    // 20 reads a second, each of which asks for a block and a record; and the router's own.
    let seconds = report.took.as_secs() as usize + 1;
    let asked = world.asked() - before;
    assert!(
        asked <= 20 * (seconds + 1) * 3 + 20,
        "asked {asked} times in {seconds} s"
    );
    let each = report.computed / report.seen.len() as u32;
    let most = Duration::from_millis(if strict() { 2 } else { 30 });
    assert!(each <= most, "{each:?} for a handshake");
    println!("{asked} questions for {handshakes} names, {each:?} of computing for each");
    siege.lift();
}
