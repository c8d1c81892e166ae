//! What a hello may and may not be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    Actor, NOW, call, call_of, code, connect, encoded_name, name,
    stranger::{AS_INITIATOR, Hello, Speech, bytes, pad, text, uint},
};
use node_core::Code;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn malformed_hellos_are_refused() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let good = call_of(&alice, &bob);
    let cbor = good.cbor();
    let twice = Hello([good.0.clone(), vec![(1, uint(NOW.0))]].concat());
    let mut dirty = good.block();
    dirty[255] = 1;
    let mut indefinite = cbor.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    let mut negative = cbor.clone();
    negative[1] = 0x20;
    let mut claims_more = cbor.clone();
    claims_more[0] += 1;
    let mut claims_less = cbor.clone();
    claims_less[0] -= 1;
    let too_long = [vec![1, 0], vec![0; 254]].concat();
    let huge_map = pad(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 256);
    let mut cases = vec![
        ("a field twice", twice.block()),
        ("padding that is not zero", dirty),
        ("a map without a length", pad(&indefinite, 256)),
        ("a key that is not unsigned", pad(&negative, 256)),
        ("fewer entries than announced", pad(&claims_more, 256)),
        ("bytes after the map", pad(&claims_less, 256)),
        ("longer than its block", too_long),
        ("more entries than there are bytes", huge_map),
        ("nothing at all", vec![0; 256]),
        ("not a map", pad(&uint(1), 256)),
        (
            "a version of two bytes",
            good.clone().with(0, uint(256)).block(),
        ),
        (
            "a timestamp in words",
            good.clone().with(1, text("now")).block(),
        ),
        (
            "features beyond 32 bits",
            good.clone().with(4, uint(1 << 32)).block(),
        ),
        (
            "a nonce of 7 bytes",
            good.clone().with(6, bytes(&[0; 7])).block(),
        ),
        (
            "a user agent with a line break",
            good.clone().with(7, text("a\nb")).block(),
        ),
        (
            "a user agent of 49 characters",
            good.clone().with(7, text(&"a".repeat(49))).block(),
        ),
        (
            "a head that is no pair",
            good.clone().with(8, uint(1)).block(),
        ),
        (
            "an own name against the rules",
            good.clone().with(2, bytes(&encoded_name("Alice"))).block(),
        ),
        (
            "an own name cut short",
            good.clone().with(2, bytes(&[0; 20])).block(),
        ),
        (
            "a target against the rules",
            good.clone().with(3, bytes(&encoded_name("b--b"))).block(),
        ),
        (
            "an unknown field that does not parse",
            good.clone().with(40, vec![0x9f]).block(),
        ),
    ];
    for required in [0, 1, 3, 6] {
        cases.push((
            "a required field missing",
            good.clone().without(required).block(),
        ));
    }
    for (what, block) in cases {
        let result = call(&bob, &Speech::honest(alice.secret, AS_INITIATOR, block));
        assert_eq!(code(result), Code::Malformed, "{what}");
    }
    for blocks in [0, 5] {
        let speech = Speech::honest(
            alice.secret,
            AS_INITIATOR,
            pad(&[], blocks * 256 + 2)[..blocks * 256].to_vec(),
        );
        assert_eq!(
            code(call(&bob, &speech)),
            Code::Malformed,
            "{blocks} blocks"
        );
    }
}

#[test]
fn what_later_versions_add_is_skipped() {
    let (alice, bob) = (Actor::named("alice", 1), Actor::named("bob", 2));
    let nested = [vec![0x81; 100], vec![0x00]].concat();
    let hello = call_of(&alice, &bob)
        .with(9, text("new"))
        .with(1 << 40, nested)
        .without(4)
        .without(5);
    for length in [512, 768, 1024] {
        let speech = Speech::honest(alice.secret, AS_INITIATOR, pad(&hello.cbor(), length));
        let channel = call(&bob, &speech).unwrap();
        assert_eq!(channel.peer().name, Some(alice.name()));
        assert_eq!(
            (channel.features(), channel.privacy()),
            (0, 0),
            "absent bits are zero"
        );
    }
}

#[test]
fn the_longest_names_leave_their_block_and_lose_only_what_is_optional() {
    let mut alice = Actor::named(&"a".repeat(63), 1);
    alice.local.hello.user_agent = "u".repeat(48).as_str().into();
    alice.local.hello.head = Some(node_core::channel::ChainHead {
        number: u64::MAX,
        hash: [1; 32],
    });
    alice.local.hello.features = u32::MAX;
    alice.local.hello.privacy = u32::MAX;
    let seen = |alice: &Actor, bob: &Actor| connect(alice, bob, 3).2.peer().clone();

    let peer = seen(&alice, &Actor::named(&"b".repeat(63), 2));
    assert_eq!(peer.name, Some(alice.name()));
    assert_eq!(
        (peer.hello.head, peer.hello.user_agent.as_str()),
        (None, &"u".repeat(28)[..])
    );
    let peer = seen(&alice, &Actor::named(&"b".repeat(40), 2));
    assert_eq!(
        (peer.hello.head, peer.hello.user_agent.as_str()),
        (alice.local.hello.head, "uuuuuu")
    );
    alice.local.identity.name = Some(name("alice"));
    let peer = seen(&alice, &Actor::named("bob", 2));
    assert_eq!(peer.hello, alice.local.hello);
}
