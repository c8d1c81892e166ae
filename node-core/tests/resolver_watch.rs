//! Changes on the chain are noticed while sessions live, whoever withholds them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod resolver_world;

use nectar_sim::chain::View;
use node_core::{
    Code,
    registry::{Cause, Freshness, ResolverLimits},
    time::Duration,
};
use resolver_world::{World, indirect, key, world, world_with};

const SECOND: Duration = Duration::from_secs(1);

fn watched(endpoints: usize) -> World {
    let mut world = world(endpoints);
    world.resolve("alice").unwrap();
    let (name, now) = (world.name("alice"), world.now());
    world.resolver.watch(&name, now.mono);
    world
}

fn called(world: &World, method: &str) -> usize {
    world
        .methods
        .iter()
        .filter(|called| *called == method)
        .count()
}

fn rotate(world: &mut World, seed: u8) {
    world
        .chain
        .update("alice", |entry| entry.networkingKey = key(seed).into());
    world.mine();
}

#[test]
fn a_rotated_key_is_told_after_one_poll_and_only_once() {
    let mut world = watched(3);
    rotate(&mut world, 2);
    world.pass(SECOND * 13);
    let changes = world.take_changes();
    assert_eq!(changes.len(), 1);
    let resolved = changes[0].1.as_ref().unwrap();
    assert_eq!((resolved.record.key, resolved.record.version), (key(2), 2));
    let calls = called(&world, "eth_call");
    world.pass(SECOND * 120);
    assert!(world.take_changes().is_empty());
    assert_eq!(
        called(&world, "eth_call"),
        calls,
        "the same event in the blocks read twice is no news"
    );
}

#[test]
fn while_nothing_changes_two_small_requests_per_interval_are_all_that_is_asked() {
    let mut world = watched(1);
    // The first poll finds the registration, which may have been read or not.
    world.pass(SECOND * 13);
    let before = world.asked();
    world.pass(SECOND * 120);
    assert_eq!(world.asked() - before, 20);
    assert_eq!(called(&world, "eth_getLogs"), 11);
}

#[test]
fn a_sale_is_told_as_an_unusable_record_and_then_as_a_new_epoch() {
    let mut world = watched(1);
    world.chain.transfer("alice", [9; 20]);
    world.mine();
    world.pass(SECOND * 13);
    let changes = world.take_changes();
    assert_eq!(changes[0].1.as_ref().unwrap_err().code, Code::RecordInvalid);
    assert_eq!(
        world
            .resolver
            .cached(&world.name("alice"), world.now().mono),
        None
    );
    world.chain.update("alice", |entry| {
        let (version, epoch) = (entry.version, entry.epoch);
        *entry = indirect(9, &[]);
        (entry.version, entry.epoch) = (version, epoch);
    });
    world.mine();
    world.pass(SECOND * 13);
    let changes = world.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.as_ref().unwrap().record.epoch, 2);
    assert_eq!(world.resolve("alice").unwrap().record.epoch, 2);
}

#[test]
fn a_change_that_a_reorganisation_takes_back_is_read_again() {
    let mut world = watched(3);
    world.pass(SECOND * 30);
    rotate(&mut world, 2);
    world.pass(SECOND * 13);
    assert_eq!(world.take_changes().len(), 1);
    world.chain.reorganise(2);
    (0..3).for_each(|_| {
        world.mine();
    });
    world.pass(SECOND * 26);
    let changes = world.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.as_ref().unwrap().record.key, key(1));
}

#[test]
fn an_endpoint_that_hides_changes_delays_them_by_one_interval() {
    for hides in ["http://a", "http://b"] {
        let mut world = watched(2);
        world.endpoint(hides).view = View::HidesLogs;
        rotate(&mut world, 2);
        world.pass(SECOND * 26);
        let changes = world.take_changes();
        assert_eq!(changes.len(), 1, "{hides}");
        assert_eq!(changes[0].1.as_ref().unwrap().record.key, key(2));
    }
}

#[test]
fn where_no_logs_are_given_watched_names_are_read_every_minute() {
    let mut world = watched(1);
    world.endpoint("http://a").view = View::RefusesLogs;
    rotate(&mut world, 2);
    world.pass(SECOND * 75);
    assert_eq!(world.take_changes().len(), 1);
    let calls = called(&world, "eth_call");
    world.pass(SECOND * 600);
    let calls = called(&world, "eth_call") - calls;
    assert!((5..=50).contains(&calls), "{calls} reads in ten minutes");
}

#[test]
fn whoever_slept_for_thousands_of_blocks_reads_the_names_and_not_the_blocks() {
    let mut world = watched(1);
    world.pass(SECOND * 13);
    let logs = called(&world, "eth_getLogs");
    rotate(&mut world, 2);
    let time = world.now().wall.0 / 1000;
    (0..2_000).for_each(|_| {
        world.chain.mine(time);
    });
    world.pass(SECOND * 12);
    assert_eq!(world.take_changes().len(), 1);
    assert_eq!(called(&world, "eth_getLogs"), logs);
    world.pass(SECOND * 12);
    assert_eq!(
        called(&world, "eth_getLogs"),
        logs + 1,
        "from then on the blocks again"
    );
}

#[test]
fn a_change_between_the_read_and_the_watch_is_not_missed() {
    let mut world = world(1);
    world.resolve("alice").unwrap();
    rotate(&mut world, 2);
    (0..30).for_each(|_| {
        world.mine();
    });
    let (name, now) = (world.name("alice"), world.now());
    world.resolver.watch(&name, now.mono);
    world.pass(SECOND * 13);
    assert_eq!(world.take_changes().len(), 1);
}

#[test]
fn a_quiet_name_is_read_again_now_and_then_all_the_same() {
    let limits = ResolverLimits {
        watch_refresh: SECOND * 120,
        ..ResolverLimits::default()
    };
    let mut world = world_with(1, None, limits);
    world.resolve("alice").unwrap();
    let (name, now) = (world.name("alice"), world.now());
    world.resolver.watch(&name, now.mono);
    world.endpoint("http://a").view = View::HidesLogs;
    rotate(&mut world, 2);
    world.pass(SECOND * 140);
    assert_eq!(world.take_changes().len(), 1);
}

#[test]
fn nothing_is_polled_once_nobody_watches() {
    let mut world = watched(1);
    let (name, now) = (world.name("alice"), world.now());
    world.resolver.watch(&name, now.mono);
    world.resolver.unwatch(&name);
    world.pass(SECOND * 13);
    assert_eq!(called(&world, "eth_getLogs"), 1, "somebody still does");
    world.resolver.unwatch(&name);
    world.resolver.unwatch(&name);
    let before = world.asked();
    world.pass(SECOND * 60);
    assert_eq!(world.asked(), before);
    assert_eq!(world.resolver.deadline(), None);
}

#[test]
fn pinned_names_are_not_watched() {
    let mut world = world(1);
    let record = (*world.resolve("alice").unwrap().record).clone();
    let name = world.name("alice");
    world.resolver.pin(name.clone(), record).unwrap();
    world.resolver.watch(&name, world.now().mono);
    assert_eq!(world.resolver.deadline(), None);
}

#[test]
fn a_crowd_of_unknown_names_does_not_make_us_forget_what_we_watch() {
    let limits = ResolverLimits {
        cache_entries: 300,
        ..ResolverLimits::default()
    };
    let mut world = world_with(1, None, limits);
    world.resolve("alice").unwrap();
    let (name, now) = (world.name("alice"), world.now());
    world.resolver.watch(&name, now.mono);
    // As many look-ups as the budget for peers allows, for a minute: four times what the cache holds.
    for index in 0..1_200 {
        world.lookup(
            &format!("name{index}"),
            Freshness::Cached,
            Cause::Peer(index),
        );
        world.pass(Duration::from_millis(50));
    }
    world.take_changes();
    rotate(&mut world, 2);
    world.pass(SECOND * 13);
    assert_eq!(world.take_changes().len(), 1, "the change is seen as one");
}

#[test]
fn events_that_make_no_sense_do_not_blind_us() {
    let mut world = watched(1);
    rotate(&mut world, 2);
    world.endpoint("http://a").view = View::ForgesLogs;
    world.pass(SECOND * 90);
    assert_eq!(world.take_changes().len(), 1);
}

#[test]
fn a_change_is_told_although_the_others_have_not_the_block_for_most_of_a_minute() {
    for first in ["http://a", "http://b", "http://c"] {
        let mut world = watched(3);
        world.block_time = 12;
        world.pass(SECOND * 60);
        world.take_changes();
        for url in ["http://a", "http://b", "http://c"] {
            let blocks = if url == first { 0 } else { 4 };
            world.endpoint(url).view = View::Behind(blocks);
        }
        rotate(&mut world, 2);
        world.pass(SECOND * 100);
        let changes = world.take_changes();
        assert_eq!(changes.len(), 1, "{first}");
    }
}
