//! Many at once, and slow ones.

use super::{
    attacker::{self, BINARY, CONTINUED, Caller, Wire, frame, somewhere, tcp},
    siege::Siege,
};
use crate::{home::Home, sockets::Sockets, support::Network};
use futures_util::{StreamExt, future::join_all, stream};
use node_core::{Code, Label, Name, wire::frame::Frame};
use node_native::http::EXCUSES;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How far an attacker goes before it stops.
const STAGES: u32 = 4;
/// How long it stays at most.
const LINGERING: Duration = Duration::from_secs(5);

/// Connects, says a part, and stays until it is thrown out: whether it was. When more come than the kernel keeps for the
/// router, some only believe to be connected, and nobody is there to throw them out.
async fn linger(to: SocketAddr, n: u32) -> bool {
    let Ok(mut stream) = tcp(to, somewhere(n)).await else {
        return false;
    };
    let said = match n % STAGES {
        0 => "",
        1 => &attacker::UPGRADE[..60],
        _ => &[attacker::UPGRADE, "\r\n"].concat(),
    };
    // Whoever finds no place is cut off at once.
    let _ = stream.write_all(said.as_bytes()).await;
    if n % STAGES == 3 {
        let (_, message1) = Caller::guest().dial("rho");
        let _ = stream.write_all(&frame(0x80 | BINARY, &message1)).await;
    }
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    tokio::time::timeout(LINGERING, end).await.is_ok()
}

#[test]
fn ten_thousand_connections_that_never_finish_hold_no_more_than_their_places_and_leave_them() {
    const PLACES: usize = 256;
    let siege = Siege::lay(
        &[
            ("listen.connections", "256"),
            ("listen.header_timeout", "300ms"),
            ("limits.handshake_timeout", "300ms"),
        ],
        &[],
    );
    let before = siege.descriptors();
    let report = siege.attack("10,000 half-open connections", async |router| {
        // Two batches at a time: a process may have as few as 1,024 descriptors.
        let batches = (0..25).map(|batch| {
            let lingering = (0..400).map(move |n| linger(router, batch * 400 + n));
            async { join_all(lingering).await }
        });
        let ends: Vec<_> = stream::iter(batches).buffer_unordered(2).collect().await;
        ends.concat()
            .into_iter()
            .filter(|thrown_out| *thrown_out)
            .count()
    });
    assert!(
        report.descriptors <= before + PLACES + EXCUSES,
        "{} descriptors",
        report.descriptors
    );
    println!("{} of 10,000 were thrown out", report.seen);
    assert!(report.seen > 5_000, "{}", report.seen);
    assert!(siege.metric("nectar_http_refused_total") > 0);
    siege.lift();
}

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
    let report = siege.attack("slow-loris", async |router| {
        let drip = async |wire: &mut Wire, bytes: &[u8], unit: usize| {
            let begun = Instant::now();
            for part in bytes.chunks(unit) {
                if wire.write(part).await.is_err() {
                    break;
                }
                let waited = tokio::time::timeout(Duration::from_millis(20), wire.next()).await;
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
            drip(&mut wire, attacker::UPGRADE.as_bytes(), 1).await
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
    let report = siege.attack("a record that drips", async |router| {
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
    const HANDSHAKES: u32 = 600;
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
    let report = siege.attack("600 handshakes with random names", async |router| {
        let mut codes = Vec::new();
        for round in 0..HANDSHAKES / 30 {
            let calls = (0..30).map(|n| async move {
                let at = round * 30 + n;
                let mut caller = Caller::named("mallory");
                caller.name = Some(Name {
                    label: Label::new(&format!("random-{at}")).unwrap(),
                    ..caller.name.unwrap()
                });
                let entered = caller.enter(router, somewhere(at % 200), "rho").await;
                entered.map(drop)
            });
            codes.extend(join_all(calls).await);
        }
        codes
    });
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
    let each = report.computed / HANDSHAKES;
    assert!(each < Duration::from_millis(30), "{each:?} for a handshake");
    println!("{asked} questions for {HANDSHAKES} names, {each:?} of computing for each");
    siege.lift();
}
