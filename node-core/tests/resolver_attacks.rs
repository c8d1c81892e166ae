//! What peers and endpoints can make the resolver do: little.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod resolver_world;

use nectar_sim::chain::{Entry, Numbered, View};
use node_core::{
    Code, Label, Name, Now, RegistryId,
    registry::{Cause, Freshness, Lookup, NameParseError, ResolverLimits, ResolverOutput},
    time::Duration,
};
use proptest::prelude::*;
use resolver_world::{REGISTRY, World, indirect, key, world, world_with};

fn calls(world: &World) -> usize {
    world
        .methods
        .iter()
        .filter(|method| *method == "eth_call")
        .count()
}

#[test]
fn look_ups_of_one_name_share_one_read() {
    let mut world = world(3);
    let mut ids = Vec::new();
    for index in 0..100 {
        let cause = if index % 2 == 0 {
            Cause::Own
        } else {
            Cause::Peer(index)
        };
        let Lookup::Pending(id) = world.lookup("alice", Freshness::Cached, cause) else {
            panic!("nothing is cached")
        };
        ids.push(id);
    }
    for id in ids {
        assert_eq!(world.wait(id).unwrap().record.key, key(1));
    }
    assert_eq!(calls(&world), 2, "as many as the quorum needs");
}

#[test]
fn records_are_fresh_for_a_minute_and_read_again_after_it() {
    let mut world = world(1);
    let at = world.resolve("alice").unwrap().at;
    world.pass(Duration::from_secs(59));
    assert_eq!(world.resolve("alice").unwrap().at, at);
    assert_eq!(calls(&world), 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(
        world
            .resolver
            .cached(&world.name("alice"), world.now().mono),
        None
    );
    assert!(world.resolve("alice").unwrap().at > at);
    assert_eq!(calls(&world), 2);
}

#[test]
fn a_rotated_key_is_seen_within_the_lifetime_of_the_cache() {
    let mut world = world(1);
    world.resolve("alice").unwrap();
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(2).into());
    world.mine();
    assert_eq!(
        world.resolve("alice").unwrap().record.key,
        key(1),
        "still cached"
    );
    world.pass(Duration::from_secs(61));
    assert_eq!(world.resolve("alice").unwrap().record.key, key(2));
    let changes = world.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.as_ref().unwrap().record.key, key(2));
}

#[test]
fn that_a_name_is_unknown_is_forgotten_after_fifteen_seconds() {
    let mut world = world(1);
    let error = world.resolve("newcomer").unwrap_err();
    assert_eq!(error.code, Code::NameUnknown);
    world
        .chain
        .register("newcomer", indirect(3, &["router-one"]));
    world.mine();
    world.pass(Duration::from_secs(14));
    let error = world.resolve("newcomer").unwrap_err();
    assert_eq!(error.code, Code::NameUnknown);
    assert!(error.retry.unwrap() <= Duration::from_secs(1));
    assert_eq!(calls(&world), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.resolve("newcomer").unwrap().record.key, key(3));
    // Becoming known is no change of something that we held.
    assert!(world.take_changes().is_empty());
}

#[test]
fn what_we_changed_ourselves_is_read_again_at_once() {
    let mut world = world(1);
    world.resolve("alice").unwrap();
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(2).into());
    world.mine();
    let name = world.name("alice");
    world.resolver.invalidate(&name);
    assert_eq!(world.resolve("alice").unwrap().record.key, key(2));
}

#[test]
fn a_read_that_began_before_our_own_change_does_not_answer_for_it() {
    for invalidate in [true, false] {
        let mut world = world(1);
        let Lookup::Pending(early) = world.lookup("alice", Freshness::Cached, Cause::Own) else {
            panic!("not cached")
        };
        world.until_asked("eth_call");
        world
            .chain
            .update("alice", |entry| entry.networkingKey = key(2).into());
        world.mine();
        world.pass(Duration::from_millis(10));
        let name = world.name("alice");
        if invalidate {
            world.resolver.invalidate(&name);
            assert_eq!(world.wait(early).unwrap().record.key, key(1));
            assert_eq!(world.resolve("alice").unwrap().record.key, key(2));
        } else {
            assert_eq!(world.read("alice").unwrap().record.key, key(2));
            assert_eq!(world.wait(early).unwrap().record.key, key(1));
        }
    }
}

#[test]
fn ten_thousand_look_ups_by_peers_cause_no_more_reads_than_the_budget() {
    for endpoints in [1, 3] {
        let mut world = world(endpoints);
        let mut granted = 0;
        let mut refused = 0;
        // A thousand a second for ten seconds, each for a name that was never asked for, from a source of its own.
        for index in 0..10_000_u64 {
            match world.lookup(
                &format!("name{index}"),
                Freshness::Cached,
                Cause::Peer(index),
            ) {
                Lookup::Pending(_) => granted += 1,
                Lookup::Ready(Err(error)) => {
                    assert_eq!(error.code, Code::ReadBudget);
                    assert!(error.retry.unwrap() <= Duration::from_secs(1));
                    refused += 1;
                }
                Lookup::Ready(Ok(_)) => panic!("nobody registered it"),
            }
            world.pass(Duration::from_millis(1));
        }
        assert_eq!((granted, refused), (200, 9_800), "twenty a second");
        world.pass(Duration::from_secs(20));
        let quorum = if endpoints == 1 { 1 } else { 2 };
        assert_eq!(calls(&world), granted * quorum);
        // A newest block and a record from each, and once the chain.
        let chains = world
            .methods
            .iter()
            .filter(|method| *method == "eth_chainId")
            .count();
        assert_eq!(chains, endpoints);
        assert_eq!(world.asked(), granted * quorum * 2 + chains);
    }
}

#[test]
fn one_source_gets_one_read_a_second_and_one_name_one_in_ten() {
    let mut world = world(1);
    let mut by_source = 0;
    for index in 0..10_000_u64 {
        by_source += usize::from(matches!(
            world.lookup(&format!("name{index}"), Freshness::Cached, Cause::Peer(7)),
            Lookup::Pending(_)
        ));
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(by_source, 10);

    // A key that the chain does not show: everybody wants a newer record of one name than we have.
    let mut world = resolver_world::world(1);
    world.resolve("alice").unwrap();
    world.pass(Duration::from_secs(6));
    let before = calls(&world);
    for index in 0..10_000 {
        match world.lookup(
            "alice",
            Freshness::NewerThan(Duration::from_secs(5)),
            Cause::Peer(index),
        ) {
            Lookup::Pending(_) | Lookup::Ready(Ok(_)) => {}
            Lookup::Ready(Err(error)) => {
                assert_eq!(error.code, Code::KeyUnconfirmed);
                assert!(error.retry.unwrap() <= Duration::from_secs(10));
            }
        }
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(calls(&world) - before, 1, "one in ten seconds");
    // Our own look-ups are not slowed down by any of this.
    assert!(world.read("alice").is_ok());
}

#[test]
fn peers_that_wait_for_a_read_are_bounded() {
    let limits = ResolverLimits {
        waiting: 10,
        ..ResolverLimits::default()
    };
    let mut world = world_with(1, None, limits);
    for index in 0..10 {
        let lookup = world.lookup("alice", Freshness::Cached, Cause::Peer(index));
        assert!(matches!(lookup, Lookup::Pending(_)));
    }
    let Lookup::Ready(Err(error)) = world.lookup("alice", Freshness::Cached, Cause::Peer(99))
    else {
        panic!("one too many")
    };
    assert_eq!(error.code, Code::ReadBudget);
    assert!(
        matches!(
            world.lookup("alice", Freshness::Cached, Cause::Own),
            Lookup::Pending(_)
        ),
        "we may always"
    );
    world.pass(Duration::from_secs(1));
    assert!(matches!(
        world.lookup("alice", Freshness::Cached, Cause::Peer(99)),
        Lookup::Ready(Ok(_))
    ));
}

#[test]
fn a_name_of_an_unknown_registry_costs_no_read() {
    let mut world = world(1);
    let now = world.now();
    for registry in [
        RegistryId {
            chain_id: 1,
            ..REGISTRY
        },
        RegistryId {
            contract: [1; 20],
            ..REGISTRY
        },
    ] {
        let name = Name {
            registry,
            label: Label::new("alice").unwrap(),
        };
        assert!(!world.resolver.knows(&registry));
        let Lookup::Ready(Err(error)) =
            world
                .resolver
                .lookup(&name, Freshness::Cached, Cause::Peer(1), now)
        else {
            panic!("there is nobody to ask")
        };
        assert_eq!(error.code, Code::RegistryUnknown);
    }
    assert_eq!(world.asked(), 0);
}

#[test]
fn without_any_endpoint_only_pinned_names_exist() {
    let mut world = world_with(0, None, ResolverLimits::default());
    let error = world.resolve("alice").unwrap_err();
    assert_eq!(error.code, Code::NameUnknown);
    assert!(error.detail.unwrap().contains("no RPC endpoint"));
}

#[test]
fn names_are_written_with_their_ending_and_the_broken_rule_is_told() {
    let world = world(1);
    let alice = world.resolver.parse("alice.nectar").unwrap();
    assert_eq!(world.resolver.display(&alice), "alice.nectar");
    for (text, code, message) in [
        (
            "alice",
            Code::NameInvalid,
            "a name is written with its ending, such as alice.nectar",
        ),
        (
            "alice.eth",
            Code::TldUnknown,
            "no registry is configured for names that end in .eth",
        ),
        (
            "alice.nectar.eth",
            Code::TldUnknown,
            "no registry is configured for names that end in .nectar.eth",
        ),
        (
            "Alice.nectar",
            Code::NameInvalid,
            "'A' is not allowed: a name consists of a-z, 0-9 and hyphens",
        ),
        (
            ".nectar",
            Code::NameInvalid,
            "a name needs at least 3 characters",
        ),
        (
            "",
            Code::NameInvalid,
            "a name is written with its ending, such as alice.nectar",
        ),
    ] {
        let error: NameParseError = world.resolver.parse(text).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (code, message),
            "{text:?}"
        );
    }
    let foreign = Name {
        registry: RegistryId {
            chain_id: 1,
            ..REGISTRY
        },
        label: alice.label,
    };
    assert_eq!(
        world.resolver.display(&foreign),
        format!("alice@1:0x{}", "c0".repeat(20))
    );
}

/// Every answer replaced by `bytes`, at every step of a read, a probe and a poll: an error, in time, and no panic.
fn survive(bytes: &[u8]) {
    for honest_answers in 0..4 {
        let mut world = world(2);
        let name = world.name("alice");
        let now = world.now();
        world.resolver.watch(&name, now.mono);
        world.resolver.probe(&REGISTRY, now);
        let Lookup::Pending(id) = world.lookup("alice", Freshness::Cached, Cause::Own) else {
            panic!("not cached")
        };
        for _ in 0..honest_answers {
            world.pass(Duration::from_millis(50));
        }
        for url in ["http://a", "http://b"] {
            world.endpoint(url).view = View::Says(bytes.to_vec());
        }
        let result = world.wait(id);
        if honest_answers < 3 {
            assert!(result.is_err(), "{result:?}");
        }
        world.pass(Duration::from_secs(60));
        let probed = world
            .outputs
            .iter()
            .filter(|output| matches!(output, ResolverOutput::Probed { .. }))
            .count();
        assert_eq!(probed, 2);
    }
}

#[test]
fn answers_of_every_wrong_shape_are_errors() {
    for answer in [
        "",
        "null",
        "[]",
        "{}",
        "\u{0}",
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":"0x"}"#,
        r#"{"jsonrpc":"2.0","id":18446744073709551616,"result":"0x7a69"}"#,
        r#"{"jsonrpc":"2.0","id":-1,"result":"0x7a69"}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":"0x7a69"}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":3,"data":"0xzz"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32005}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"result":"0x7a69"}]"#,
    ] {
        survive(answer.as_bytes());
    }
    survive(&[b'['; 10_000]);
    survive(&vec![b'1'; 300 << 10]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(&bytes);
    }

    /// Well-formed answers with the right id and arbitrary results, at every step.
    #[test]
    fn arbitrary_results_never_panic(
        results in prop::collection::vec(result(), 1..12),
        times in prop::collection::vec(0..3_000_u64, 12),
    ) {
        let mut world = world(3);
        let name = world.name("alice");
        world.resolver.watch(&name, world.now().mono);
        world.resolver.lookup(&name, Freshness::Cached, Cause::Own, world.now());
        let mut now = world.now();
        for (result, millis) in results.iter().cycle().zip(times.iter().cycle()).take(60) {
            now = Now { mono: now.mono + Duration::from_millis(*millis), ..now };
            now.wall.0 += *millis;
            match world.resolver.poll_output() {
                Some(ResolverOutput::Fetch { id, body, .. }) => {
                    let request: serde_json::Value = serde_json::from_str(&body).unwrap();
                    let answer = format!(r#"{{"jsonrpc":"2.0","id":{},{result}}}"#, request["id"]);
                    world.resolver.handle_answer(id, Ok(answer.as_bytes()), now);
                }
                Some(_) => {}
                None => world.resolver.handle_timeout(now),
            }
        }
        now.mono = now.mono + Duration::from_secs(60);
        world.resolver.handle_timeout(now);
        prop_assert!(world.resolver.deadline().is_none_or(|deadline| deadline > now.mono));
    }
}

fn result() -> impl Strategy<Value = String> {
    let word = prop::collection::vec(any::<u8>(), 32).prop_map(hex::encode);
    let words = prop::collection::vec(
        prop_oneof![
            word,
            (0..20_u64).prop_map(|number| format!("{number:064x}")),
            (0..30_u64).prop_map(|number| format!("{:064x}", number * 32)),
            Just("f".repeat(64)),
        ],
        0..40,
    );
    prop_oneof![
        Just(r#""result":"0x7a69""#.to_owned()),
        (any::<u64>(), any::<u64>()).prop_map(|(number, time)| {
            let hash = "ab".repeat(32);
            format!(
                r#""result":{{"number":"{number:#x}","hash":"0x{hash}","timestamp":"{time:#x}"}}"#
            )
        }),
        (0..30_u64).prop_map(|number| {
            let (hash, time) = ("cd".repeat(32), resolver_world::EPOCH);
            format!(
                r#""result":{{"number":"{number:#x}","hash":"0x{hash}","timestamp":"{time:#x}"}}"#
            )
        }),
        words.clone().prop_map(|words| format!(
            r#""result":"0x{}{}""#,
            format_args!("{:064x}", 32),
            words.concat()
        )),
        words.prop_map(|words| format!(r#""error":{{"code":3,"data":"0x{}"}}"#, words.concat())),
        any::<i64>().prop_map(|code| format!(r#""error":{{"code":{code},"message":"x"}}"#)),
        Just(r#""result":[{}]"#.to_owned()),
        Just(r#""result":[]"#.to_owned()),
    ]
}

#[test]
fn nobody_below_the_quorum_has_the_others_vote_on_an_old_block() {
    for numbered in [Numbered::AsTheNewest, Numbered::AsItIs] {
        for liar in ["http://a", "http://b", "http://c"] {
            // Who answers first proposes, where all name one number.
            for latency in [1, 50, 200] {
                let mut world = world(3);
                let rotate = |entry: &mut Entry| entry.networkingKey = key(2).into();
                world.chain.update("alice", rotate);
                world.block_time = 12;
                world.pass(Duration::from_secs(60));
                let endpoint = world.endpoint(liar);
                endpoint.view = View::RollsBack(5, numbered);
                endpoint.latency = Duration::from_millis(latency);
                let what = format!("{numbered:?}, {liar}, {latency} ms");
                let resolved = world.resolve("alice").expect(&what);
                assert_eq!(resolved.record.key, key(2), "{what}");
                // Nor where nobody is left who would outvote it.
                let other = if liar == "http://a" {
                    "http://b"
                } else {
                    "http://a"
                };
                world.endpoint(other).down = true;
                world.pass(Duration::from_secs(3600));
                let known = world.resolve("alice").map(|resolved| resolved.record.key);
                assert!(known.is_err() || known == Ok(key(2)), "{what}: {known:?}");
            }
        }
    }
}

#[test]
fn endpoints_that_are_a_block_apart_say_which_block_it_is_and_agree_at_once() {
    let mut world = world(3);
    world.endpoint("http://b").view = View::Behind(1);
    world.resolve("alice").unwrap();
    let asked = |method: &str| {
        world
            .methods
            .iter()
            .filter(|asked| *asked == method)
            .count()
    };
    assert_eq!(asked("eth_getBlockByNumber"), 2);
    assert_eq!(asked("eth_getBlockByHash"), 1);
    assert_eq!(asked("eth_call"), 2);
}

#[test]
fn one_endpoint_that_is_always_a_few_blocks_behind_hides_a_change_for_no_longer_than_a_head_may_be_old()
 {
    for blocks in [0, 3, 8] {
        let mut world = world(3);
        world.resolve("alice").unwrap();
        let (name, now) = (world.name("alice"), world.now());
        world.resolver.watch(&name, now.mono);
        (0..20).for_each(|_| world.pass(Duration::from_secs(12)));
        world.endpoint("http://a").view = View::Behind(blocks);
        // It is asked first.
        world.endpoint("http://a").latency = Duration::from_millis(5);
        world.pass(Duration::from_secs(60));
        world.take_changes();
        world
            .chain
            .update("alice", |entry| entry.networkingKey = key(2).into());
        world.mine();
        let mut seconds = 0;
        while world.take_changes().is_empty() && seconds < 1200 {
            world.pass(Duration::from_secs(1));
            seconds += 1;
        }
        assert!(seconds <= 150, "{blocks} blocks behind: {seconds} s");
    }
}
