//! What the resolver believes when endpoints are slow, stale, wrong, lying or gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod resolver_world;

use nectar_sim::chain::View;
use node_core::{
    Code,
    registry::{
        EndpointState, FetchFailure, Freshness, Provenance, ResolveError, ResolverLimits,
        ResolverOutput,
    },
    time::Duration,
};
use resolver_world::{CHAIN_ID, World, indirect, key, world, world_with};

fn code(result: Result<node_core::registry::Resolved, ResolveError>) -> Code {
    result.unwrap_err().code
}

#[test]
fn one_endpoint_is_believed_and_said_to_be_one() {
    let mut world = world(1);
    let resolved = world.resolve("alice").unwrap();
    assert_eq!(resolved.how, Provenance::OneRpc);
    assert_eq!(resolved.how.to_string(), "on the word of one RPC endpoint");
    assert_eq!(resolved.record.key, key(1));
    assert_eq!(
        resolved
            .record
            .routers
            .iter()
            .map(|label| label.as_str())
            .collect::<Vec<_>>(),
        ["router-one", "router-two"]
    );
    assert_eq!(resolved.block.unwrap().number, world.chain.height());
    assert_eq!(
        world.methods,
        ["eth_chainId", "eth_getBlockByNumber", "eth_call"]
    );
}

#[test]
fn two_of_three_agree_at_one_block_and_the_third_is_left_alone() {
    let mut world = world(3);
    let resolved = world.resolve("alice").unwrap();
    assert_eq!(resolved.how, Provenance::Quorum { agreeing: 2, of: 3 });
    assert_eq!(world.endpoint("http://c").asked, 0);
}

#[test]
fn a_lie_about_a_key_is_outvoted_and_the_liar_is_asked_last_from_then_on() {
    for liar in ["http://a", "http://b", "http://c"] {
        let mut world = world(3);
        world.endpoint(liar).view = View::OtherKey("alice".into(), key(66));
        // Its lie comes first.
        world.endpoint(liar).latency = Duration::from_millis(1);
        let resolved = world.resolve("alice").unwrap();
        assert_eq!(resolved.record.key, key(1), "{liar}");
        assert_eq!(resolved.how, Provenance::Quorum { agreeing: 2, of: 3 });
        if liar != "http://c" {
            assert_eq!(world.state(liar), EndpointState::Lying);
            let asked = world.endpoint(liar).asked;
            world.pass(Duration::from_secs(61));
            assert_eq!(world.resolve("alice").unwrap().record.key, key(1));
            assert_eq!(world.endpoint(liar).asked, asked, "it is passed over");
        }
    }
}

#[test]
fn a_name_that_one_endpoint_denies_is_still_found() {
    let mut world = world(3);
    world.endpoint("http://a").view = View::Denies("alice".into());
    assert_eq!(world.resolve("alice").unwrap().record.key, key(1));
    assert_eq!(world.state("http://a"), EndpointState::Lying);
}

#[test]
fn two_endpoints_that_contradict_each_other_prove_nothing() {
    let mut world = world(2);
    world.endpoint("http://b").view = View::OtherKey("alice".into(), key(66));
    assert_eq!(code(world.resolve("alice")), Code::RpcDisagree);
    assert_eq!(
        world
            .resolver
            .cached(&world.name("alice"), world.now().mono),
        None
    );
    // Nobody can tell which of them lies.
    assert_ne!(world.state("http://a"), EndpointState::Lying);
    assert_ne!(world.state("http://b"), EndpointState::Lying);
}

#[test]
fn a_liar_with_one_dead_endpoint_beside_it_convinces_nobody() {
    let mut world = world(3);
    world.endpoint("http://a").view = View::OtherKey("alice".into(), key(66));
    world.endpoint("http://b").down = true;
    assert_eq!(code(world.resolve("alice")), Code::RpcDisagree);
}

#[test]
fn with_every_endpoint_down_the_error_says_so_at_once_and_pinned_names_still_resolve() {
    let mut world = world(3);
    world.resolve("alice").unwrap();
    let pinned = world.resolve("alice").unwrap().record;
    world.pass(Duration::from_secs(61));
    world
        .endpoints
        .values_mut()
        .for_each(|endpoint| endpoint.down = true);
    let before = world.now().mono;
    let error = world.resolve("alice").unwrap_err();
    assert_eq!(error.code, Code::RpcUnreachable);
    assert_eq!(error.for_peer(), Code::ChainUnavailable);
    assert!(error.retry.is_some());
    assert!(world.now().mono.since(before) < Duration::from_secs(1));

    let name = world.name("bob");
    world.resolver.pin(name, (*pinned).clone()).unwrap();
    assert_eq!(world.resolve("bob").unwrap().how, Provenance::Pinned);

    world
        .endpoints
        .values_mut()
        .for_each(|endpoint| endpoint.down = false);
    assert!(
        world.resolve("alice").is_ok(),
        "it recovers as soon as they do"
    );
}

#[test]
fn endpoints_that_never_answer_end_in_an_error_after_their_time() {
    let mut world = world(3);
    world
        .endpoints
        .values_mut()
        .for_each(|endpoint| endpoint.latency = Duration::from_secs(3600));
    let before = world.now().mono;
    assert_eq!(code(world.resolve("alice")), Code::RpcUnreachable);
    assert!(world.now().mono.since(before) <= ResolverLimits::default().read_deadline);
}

#[test]
fn a_slow_endpoint_costs_one_hedge_and_is_then_passed_over() {
    let mut world = world(3);
    world.endpoint("http://a").latency = Duration::from_secs(3);
    let before = world.now().mono;
    world.resolve("alice").unwrap();
    let first = world.now().mono.since(before);
    assert!(
        first >= Duration::from_secs(1) && first < Duration::from_millis(1500),
        "{first:?}"
    );
    assert_eq!(world.state("http://a"), EndpointState::Slow);

    let before = world.now().mono;
    world.read("alice").unwrap();
    assert!(world.now().mono.since(before) < Duration::from_millis(300));
}

#[test]
fn a_failed_endpoint_is_replaced_at_once() {
    let mut world = world(3);
    world.endpoint("http://a").down = true;
    let before = world.now().mono;
    assert_eq!(
        world.resolve("alice").unwrap().how,
        Provenance::Quorum { agreeing: 2, of: 3 }
    );
    assert!(world.now().mono.since(before) < Duration::from_millis(500));
    assert_eq!(world.state("http://a"), EndpointState::Unreachable);
}

#[test]
fn a_stale_head_is_passed_over_and_alone_it_is_an_error() {
    let mut one = world(1);
    one.block_time = 0;
    one.pass(Duration::from_secs(121));
    let error = one.resolve("alice").unwrap_err();
    assert_eq!(error.code, Code::RpcStale);
    assert_eq!(&*error.detail.unwrap(), "a: its newest block is 121 s old");
    assert_eq!(one.state("http://a"), EndpointState::Stale);

    let mut three = world(3);
    three.pass(Duration::from_secs(240));
    three.endpoint("http://b").view = View::Behind(11);
    assert_eq!(
        three.resolve("alice").unwrap().how,
        Provenance::Quorum { agreeing: 2, of: 3 }
    );
    assert_eq!(three.state("http://b"), EndpointState::Stale);
}

#[test]
fn a_head_from_the_future_is_refused_with_a_word_about_clocks() {
    let mut world = world(1);
    let time = world.now().wall.0 / 1000 + 200;
    world.chain.mine(time);
    let error = world.resolve("alice").unwrap_err();
    assert_eq!(error.code, Code::RpcStale);
    assert!(error.detail.unwrap().contains("is our clock right?"));
}

#[test]
fn endpoints_a_few_blocks_apart_meet_at_the_lower_block() {
    let mut world = world(2);
    world.pass(Duration::from_secs(60));
    world.endpoint("http://a").view = View::Behind(3);
    let resolved = world.resolve("alice").unwrap();
    assert_eq!(resolved.block.unwrap().number, world.chain.height() - 3);
    assert_eq!(resolved.how, Provenance::Quorum { agreeing: 2, of: 2 });
}

#[test]
fn a_reorganisation_between_head_and_call_is_read_again_at_the_new_head() {
    for endpoints in [1, 3] {
        let mut world = world(endpoints);
        world.block_time = 0;
        let node_core::registry::Lookup::Pending(id) =
            world.lookup("alice", Freshness::Cached, node_core::registry::Cause::Own)
        else {
            panic!("nothing is cached");
        };
        world.until_asked("eth_call");
        // The answers are on their way: the block that they are about vanishes, and in the new one the key is another.
        world.chain.reorganise(2);
        world
            .chain
            .update("alice", |entry| entry.networkingKey = key(2).into());
        (0..3).for_each(|_| {
            world.mine();
        });
        let resolved = world.wait(id).unwrap();
        assert_eq!(resolved.record.key, key(2));
        assert_eq!(resolved.block.unwrap().number, world.chain.height());
        assert!(
            world
                .resolver
                .health()
                .iter()
                .all(|health| health.state == EndpointState::Ok
                    || health.state == EndpointState::Untried
                    || endpoints > 1)
        );
    }
}

#[test]
fn a_block_that_one_endpoint_made_up_is_not_read_at() {
    for liar in ["http://a", "http://b"] {
        let mut world = world(3);
        world.endpoint(liar).view = View::InventsBlocks;
        let resolved = world.resolve("alice").unwrap();
        assert_eq!(
            resolved.block.unwrap().number,
            world.chain.height(),
            "{liar}"
        );
        assert_eq!(world.state(liar), EndpointState::Invalid, "{liar}");
    }
}

#[test]
fn an_endpoint_of_another_chain_is_never_asked_for_a_record() {
    let mut world = world(1);
    world.endpoint("http://a").view = View::WrongChain(1);
    let error = world.resolve("alice").unwrap_err();
    assert_eq!(error.code, Code::WrongChain);
    assert_eq!(
        &*error.detail.unwrap(),
        &format!("a: it serves chain 1, not {CHAIN_ID}")
    );
    assert!(!world.methods.iter().any(|method| method == "eth_call"));
}

#[test]
fn an_address_without_a_registry_is_told_from_an_unknown_name() {
    for (view, expected) in [
        (View::NoContract, Code::NotARegistry),
        (View::OtherContract, Code::RpcInvalid),
        (View::WithoutBlockHashes, Code::RpcInvalid),
        (View::RateLimited, Code::RpcUnreachable),
        (View::Says(b"<html>".to_vec()), Code::RpcInvalid),
        (View::Says(vec![b' '; 300 << 10]), Code::RpcInvalid),
    ] {
        let mut world = world(1);
        world.endpoint("http://a").view = view.clone();
        assert_eq!(code(world.resolve("alice")), expected, "{view:?}");
    }
    assert_eq!(code(world(1).resolve("nobody")), Code::NameUnknown);
}

#[test]
fn an_older_version_is_not_believed_from_one_endpoint_until_it_insists_at_a_later_block() {
    let mut world = world(1);
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(2).into());
    world.mine();
    assert_eq!(world.read("alice").unwrap().record.version, 2);

    // The change was in a block that is replaced.
    world.chain.reorganise(1);
    world.mine();
    let error = world.read("alice").unwrap_err();
    assert_eq!(error.code, Code::RpcDisagree);
    assert!(error.retry.is_some());
    assert_eq!(
        code(world.read("alice")),
        Code::RpcDisagree,
        "saying it twice at one block proves nothing"
    );
    world.mine();
    assert_eq!(world.read("alice").unwrap().record.version, 1);
}

#[test]
fn with_more_endpoints_an_older_version_costs_a_second_opinion() {
    let mut world = world_with(3, Some(1), ResolverLimits::default());
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(2).into());
    world.mine();
    assert_eq!(world.read("alice").unwrap().how, Provenance::OneRpc);

    // The fastest endpoint, which is asked first, says that the name was never registered: the others are asked, and it
    // is found out.
    for (url, millis) in [("http://a", 10), ("http://b", 200), ("http://c", 300)] {
        world.endpoint(url).latency = Duration::from_millis(millis);
    }
    (0..4).for_each(|_| assert!(world.read("alice").is_ok()));
    world.endpoint("http://a").view = View::Denies("alice".into());
    let resolved = world.read("alice").unwrap();
    assert_eq!(
        (resolved.record.version, resolved.how),
        (2, Provenance::Quorum { agreeing: 2, of: 3 })
    );
    assert_eq!(world.state("http://a"), EndpointState::Lying);

    // A real rollback on all of them is believed, by two.
    world.endpoint("http://a").view = View::Honest;
    world.chain.reorganise(1);
    world.mine();
    assert_eq!(world.read("alice").unwrap().record.version, 1);
}

#[test]
fn endpoints_that_fall_behind_what_was_read_do_not_bring_the_old_key_back() {
    let mut world = world(2);
    world.pass(Duration::from_secs(24));
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(2).into());
    world.mine();
    assert_eq!(world.read("alice").unwrap().record.key, key(2));
    world.block_time = 0;
    for url in ["http://a", "http://b"] {
        world.endpoint(url).view = View::Behind(1);
    }
    assert_eq!(code(world.read("alice")), Code::RpcStale);
    for url in ["http://a", "http://b"] {
        world.endpoint(url).view = View::Honest;
    }
    assert_eq!(world.read("alice").unwrap().record.key, key(2));
}

#[test]
fn a_sold_name_has_no_usable_record_until_its_new_owner_sets_one() {
    let mut world = world(1);
    world.resolve("alice").unwrap();
    world.chain.transfer("alice", [9; 20]);
    world.mine();
    let error = world.read("alice").unwrap_err();
    assert_eq!(error.code, Code::RecordInvalid);
    assert!(error.detail.unwrap().contains("waits for its new owner"));
    world.chain.update("alice", |entry| {
        *entry = nectar_sim::chain::Entry {
            epoch: 2,
            version: 2,
            ..indirect(9, &[])
        }
    });
    world.mine();
    let record = world.read("alice").unwrap().record;
    assert_eq!((record.epoch, record.version, record.key), (2, 3, key(9)));
}

#[test]
fn a_weak_key_is_no_record() {
    let mut world = world(1);
    let mut weak = indirect(1, &[]);
    weak.networkingKey = [0; 32].into();
    weak.networkingKey[0] = 1;
    world.chain.register("weak", weak);
    world.mine();
    let error = world.resolve("weak").unwrap_err();
    assert_eq!(error.code, Code::RecordInvalid);
    assert!(error.detail.unwrap().contains("small order"));
}

#[test]
fn probes_tell_good_endpoints_from_every_kind_of_bad_one() {
    for (view, down, expected) in [
        (View::Honest, false, None),
        (View::Honest, true, Some(Code::RpcUnreachable)),
        (View::WrongChain(1), false, Some(Code::WrongChain)),
        (View::NoContract, false, Some(Code::NotARegistry)),
        (View::OtherContract, false, Some(Code::NotARegistry)),
        (View::WithoutBlockHashes, false, Some(Code::RpcInvalid)),
        (View::Says(Vec::new()), false, Some(Code::RpcInvalid)),
    ] {
        let mut world = world(1);
        world.endpoint("http://a").view = view.clone();
        world.endpoint("http://a").down = down;
        assert_eq!(probe(&mut world), expected, "{view:?}");
    }
    let mut stale = world(1);
    stale.block_time = 0;
    stale.pass(Duration::from_secs(300));
    assert_eq!(probe(&mut stale), Some(Code::RpcStale));
}

fn probe(world: &mut World) -> Option<Code> {
    let now = world.now();
    let ids = world.resolver.probe(&resolver_world::REGISTRY, now);
    world.pass(Duration::from_secs(10));
    let [ResolverOutput::Probed { id, result, .. }] = &world.outputs[..] else {
        panic!("one probe, one answer")
    };
    assert_eq!(*id, ids[0]);
    match result {
        Ok(report) => {
            assert_eq!((report.head, report.registry_version), (5, 1));
            assert_eq!(report.took, Duration::from_millis(150));
            None
        }
        Err(error) => Some(error.code),
    }
}

#[test]
fn fetches_that_a_driver_reports_failed_are_no_different_from_those_that_time_out() {
    for failure in [
        FetchFailure::Unreachable,
        FetchFailure::Timeout,
        FetchFailure::Status(429),
        FetchFailure::TooLarge,
    ] {
        let mut world = world(1);
        let now = world.now();
        let name = world.name("alice");
        world.resolver.lookup(
            &name,
            Freshness::Cached,
            node_core::registry::Cause::Own,
            now,
        );
        let Some(ResolverOutput::Fetch { id, .. }) = world.resolver.poll_output() else {
            panic!("a fetch")
        };
        world.resolver.handle_answer(id, Err(failure), now);
        let Some(ResolverOutput::Done {
            result: Err(error), ..
        }) = world.resolver.poll_output()
        else {
            panic!("an error")
        };
        assert!(
            error.detail.unwrap().starts_with("a: "),
            "the endpoint is named"
        );
        world.resolver.handle_answer(id, Ok(b"{}"), now);
        assert_eq!(
            world.resolver.poll_output(),
            None,
            "a second answer to one fetch is nothing"
        );
    }
}
