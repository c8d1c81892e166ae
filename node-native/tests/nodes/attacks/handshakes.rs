//! Handshakes that are replayed, reflected, out of time, or under names that look like others.

use super::{
    attacker::{Caller, Wire, now, somewhere},
    siege::{LITTLE, Siege},
    stranger::{self, Hello, Speech, bytes, uint},
};
use crate::support::{key_of, name};
use node_core::Code;

#[test]
fn a_handshake_that_was_recorded_opens_nothing_and_bans_nobody() {
    let siege = Siege::lay(&[], &["mallory"]);
    let report = siege.attack(
        "replayed and reflected handshakes",
        LITTLE,
        async |router| {
            let caller = Caller::named("mallory");
            // What somebody on the way hears of an honest handshake.
            let mut wire = Wire::open(router, somewhere(1)).await.unwrap();
            let (dialling, message1) = caller.dial("rho");
            wire.send(&message1).await.unwrap();
            let message2 = wire.message().await.unwrap();
            let (message3, _) = caller.conclude(dialling, &message2);
            let mut codes = Vec::new();
            for n in 0..20 {
                // The whole of it again: the answer is another one, and message 3 does not fit it.
                let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                wire.send(&message1).await.unwrap();
                let other = wire.message().await.unwrap();
                assert_ne!(other, message2);
                wire.send(&message3).await.unwrap();
                codes.push(("replayed", wire.closed().await));
                // What the router said, back to it: as a beginning, and as an answer.
                for reflected in [&other, &message2] {
                    let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                    wire.send(reflected).await.unwrap();
                    codes.push(("reflected", wire.closed().await));
                }
                let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                wire.send(&message1).await.unwrap();
                let answer = wire.message().await.unwrap();
                wire.send(&answer).await.unwrap();
                codes.push(("reflected", wire.closed().await));
                let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                wire.send(&message3).await.unwrap();
                codes.push(("message 3 first", wire.closed().await));
            }
            // Whose handshake it was comes in as before.
            let entered = caller.enter(router, somewhere(1), "rho").await;
            (codes, entered.map(drop))
        },
    );
    let (codes, entered) = report.seen;
    for (what, code) in codes {
        let refused = matches!(
            code,
            Some(Code::DecryptFailed | Code::Malformed | Code::VersionUnknown)
        );
        assert!(refused, "{what}: {code:?}");
    }
    assert_eq!(entered, Ok(()));
    siege.lift();
}

#[test]
fn a_clock_that_is_two_minutes_off_is_told_so_and_not_banned() {
    let siege = Siege::lay(&[], &["mallory"]);
    let report = siege.attack("stale and future clocks", LITTLE, async |router| {
        let mut came = Vec::new();
        // From a network each: a flood from one is refused for that.
        for (n, seconds) in (0..).zip([
            -1_000_000_000,
            -3600,
            -125,
            -100,
            100,
            125,
            3600,
            1_000_000_000_000,
        ]) {
            let mut caller = Caller::named("mallory");
            caller.skew = seconds * 1000;
            let entered = caller.enter(router, somewhere(n), "rho").await;
            came.push((seconds, entered.map(drop)));
        }
        came
    });
    for (seconds, came) in report.seen {
        let expected = if seconds.abs() < 120 {
            Ok(())
        } else {
            Err(Some(Code::ClockSkew))
        };
        assert_eq!(came, expected, "{seconds} s");
    }
    siege.lift();
}

#[test]
fn a_name_that_looks_like_another_is_no_name_or_somebody_else() {
    let siege = Siege::lay(&[], &["mallory"]);
    let labels = [
        // Other letters, other cases, other ends, and what nobody sees.
        "al\u{456}ce",
        "\u{430}lice",
        "Alice",
        "ALICE",
        "alice\0",
        "alice ",
        "alice.",
        "alice.nectar",
        "-alice",
        "alice-",
        "al--ice",
        "al\u{200b}ice",
        "xn--alce-2nd",
        "\u{ff41}lice",
        "",
        // Names, but others.
        "a1ice",
        "allce",
        "alicee",
        "bobs",
    ];
    let report = siege.attack("names that differ by look", LITTLE, async move |router| {
        let mut came = Vec::new();
        for (n, label) in (0..).zip(labels) {
            // Alice's own key does not help.
            for key in ["alice", "mallory"] {
                let mut encoded = name("aaa").to_bytes();
                encoded.truncate(28);
                encoded.extend_from_slice(label.as_bytes());
                let hello = Hello::new(now().0)
                    .with(2, bytes(&encoded))
                    .with(3, bytes(&name("rho").to_bytes()))
                    .with(1, uint(now().0));
                let speech = Speech::honest(
                    key_of(key).to_bytes(),
                    stranger::AS_INITIATOR,
                    hello.block(),
                );
                let (mut dialling, message1) =
                    stranger::Initiator::dial(1, [1; 32], [2; 32], [3; 32]);
                let mut wire = Wire::open(router, somewhere(n)).await.unwrap();
                wire.send(&message1).await.unwrap();
                let message2 = wire.message().await.unwrap();
                dialling.hear(&message2).unwrap();
                wire.send(&dialling.say(&speech).0).await.unwrap();
                came.push((label, key, wire.closed().await));
            }
        }
        came
    });
    for (label, key, code) in report.seen {
        let is_a_name = ["a1ice", "allce", "alicee", "bobs"].contains(&label);
        let expected = match code {
            Some(Code::Malformed) => !is_a_name,
            Some(Code::NameUnknown | Code::ChainUnavailable) => is_a_name,
            _ => false,
        };
        assert!(expected, "{label:?} with the key of {key}: {code:?}");
    }
    siege.lift();
}
