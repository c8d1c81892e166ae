#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::support::{Anvil, CHAIN_ID, artifact, deploy, wallet};
use node_core::{
    Label, Name,
    registry::{Freshness, Host, RegistryConfig, Resolver, ResolverLimits, Routing},
};
use node_native::{
    chain::{self, Account, Chain, ChainError, NewRecord, Progress},
    resolve::{Clock, lookup},
};
use std::time::Duration;

/// An Ed25519 public key from RFC 8032's tests.
pub(crate) const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
pub(crate) const OTHER_KEY: &str =
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

pub(crate) fn key(text: &str) -> [u8; 32] {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).unwrap();
    key
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn indirect(routers: &[&str]) -> NewRecord {
    NewRecord {
        key: key(KEY),
        routing: None,
        routers: routers.iter().map(|text| label(text)).collect(),
    }
}

fn direct(host: &str) -> NewRecord {
    let routing = Routing {
        host: Host::parse(host).unwrap(),
        port: 9444,
        ws: true,
        wss: true,
    };
    NewRecord {
        key: key(KEY),
        routing: Some(routing),
        routers: Vec::new(),
    }
}

async fn connect(registry: &RegistryConfig, account: usize) -> Chain {
    Chain::connect(registry, Some(wallet(account)))
        .await
        .unwrap()
}

async fn register(
    chain: &Chain,
    name: &str,
    record: &NewRecord,
) -> Result<chain::Mined, ChainError> {
    chain
        .register(&label(name), chain.account(), record, &mut |_| {})
        .await
}

#[tokio::test]
async fn a_name_is_registered_resolved_changed_rotated_and_given_away() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let chain = connect(&registry, 0).await;
    let alice = label("alice");
    let mut seen = Vec::new();
    let record = direct("192.0.2.7");
    let mined = chain
        .register(&alice, chain.account(), &record, &mut |step| {
            seen.push(step)
        })
        .await
        .unwrap();
    assert!(mined.gas > 100_000);
    assert!(
        matches!(seen[2], Progress::Resting { seconds: 0 }),
        "{seen:?}"
    );

    // What was written is what every node reads.
    let mut resolver = Resolver::new(
        vec![registry.clone()],
        Vec::new(),
        ResolverLimits::default(),
    )
    .unwrap();
    let name = Name {
        registry: registry.id,
        label: alice.clone(),
    };
    let clock = Clock::new();
    let fresh = Freshness::NewerThan(Duration::ZERO);
    let resolved = lookup(&mut resolver, &name, fresh, &clock)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (resolved.record.key, &resolved.record.routing),
        (record.key, &record.routing)
    );
    assert_eq!(resolved.record.owner, chain.account().into_array());
    let version = resolved.record.version;

    let moved = direct("router.example");
    chain.update(&alice, &moved, &mut |_| {}).await.unwrap();
    chain
        .rotate(&alice, key(OTHER_KEY), &mut |_| {})
        .await
        .unwrap();
    let resolved = lookup(&mut resolver, &name, fresh, &clock)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (resolved.record.key, &resolved.record.routing),
        (key(OTHER_KEY), &moved.routing)
    );
    assert!(resolved.record.version > version);

    let manager = connect(&registry, 1).await;
    let refused = manager
        .rotate(&alice, key(KEY), &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ChainError::NotAuthorized { .. }),
        "{refused}"
    );
    chain
        .set_manager(&alice, manager.account(), &mut |_| {})
        .await
        .unwrap();
    manager.rotate(&alice, key(KEY), &mut |_| {}).await.unwrap();
    let refused = manager
        .transfer(&alice, manager.account(), &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ChainError::NotAuthorized { .. }),
        "a manager cannot give the name away: {refused}"
    );

    let epoch = chain.record(&alice).await.unwrap().epoch;
    chain
        .transfer(&alice, Account::from([7; 20]), &mut |_| {})
        .await
        .unwrap();
    let sold = chain.record(&alice).await.unwrap();
    assert_eq!(
        (sold.owner, sold.key, sold.epoch),
        ([7; 20], [0; 32], epoch + 1)
    );
}

#[tokio::test]
async fn a_commitment_rests_before_it_is_revealed() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 2).await;
    let chain = connect(&registry, 0).await;
    let begun = std::time::Instant::now();
    register(&chain, "alice", &indirect(&[])).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn routers_are_enlisted_before_they_are_listed() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let chain = connect(&registry, 0).await;
    register(&chain, "router", &direct("2001:db8::7"))
        .await
        .unwrap();
    let error = register(&chain, "alice", &indirect(&["router"]))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("nectar record enlist router.nectar` first"),
        "{error}"
    );
    assert_eq!(
        chain.enlist(&label("router"), &mut |_| {}).await.unwrap(),
        1
    );
    let error = chain
        .enlist(&label("router"), &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, ChainError::AlreadyEnlisted { index: 1, .. }),
        "{error}"
    );
    register(&chain, "alice", &indirect(&["router"]))
        .await
        .unwrap();
    assert_eq!(
        chain.record(&label("alice")).await.unwrap().routers,
        ["router"]
    );
}

#[tokio::test]
async fn a_taken_name_an_unknown_one_and_a_useless_record_are_told_apart() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let (first, second) = (connect(&registry, 0).await, connect(&registry, 1).await);
    register(&first, "alice", &indirect(&[])).await.unwrap();
    let error = register(&second, "alice", &indirect(&[]))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "alice.nectar is taken: choose another name"
    );
    let error = second
        .rotate(&label("nobody"), key(KEY), &mut |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, ChainError::NameUnknown(_)), "{error}");
    let error = second.record(&label("nobody")).await.unwrap_err();
    assert!(matches!(error, ChainError::NameUnknown(_)), "{error}");
    let weak = NewRecord {
        key: [0; 32],
        ..indirect(&[])
    };
    let error = register(&second, "bobby", &weak).await.unwrap_err();
    assert!(matches!(error, ChainError::Record(_)), "{error}");
    assert!(
        first.available(&label("bobby")).await.unwrap(),
        "nothing was registered"
    );
}

#[tokio::test]
async fn a_wrong_chain_a_missing_contract_and_another_contract_are_told_apart() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let fails = async |change: &dyn Fn(&mut RegistryConfig)| {
        let mut registry = registry.clone();
        change(&mut registry);
        Chain::connect(&registry, None).await.unwrap_err()
    };
    let error = fails(&|registry| registry.id.chain_id = 1).await;
    assert!(
        matches!(
            error,
            ChainError::WrongChain {
                found: CHAIN_ID,
                wanted: 1,
                ..
            }
        ),
        "{error}"
    );
    let error = fails(&|registry| registry.id.contract = [1; 20]).await;
    assert!(matches!(error, ChainError::NoContract { .. }), "{error}");
    // The contract that deterministic deployments use; anvil has it from the start.
    let other = "0x4e59b44847b379578588920ca78fbf26c0b4956c"
        .parse::<Account>()
        .unwrap();
    let error = fails(&|registry| registry.id.contract = other.into_array()).await;
    assert!(matches!(error, ChainError::NotARegistry(_)), "{error}");
    let error = fails(&|registry| registry.rpcs.clear()).await;
    assert!(matches!(error, ChainError::NoRpc), "{error}");
    let error = fails(&|registry| registry.rpcs = vec!["http://127.0.0.1:1/secret".into()]).await;
    let text = error.to_string();
    assert!(
        text.contains("http://127.0.0.1:1 cannot be reached") && !text.contains("secret"),
        "{text}"
    );
    let mut two = registry.clone();
    two.rpcs.insert(0, "http://127.0.0.1:1".into());
    assert!(
        Chain::connect(&two, None).await.is_ok(),
        "the next endpoint is asked"
    );
}

#[tokio::test]
async fn an_account_without_money_is_told_how_much_it_needs() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet");
    let poor =
        node_native::keystore::create_wallet(&path, &node_native::keystore::Protection::FileMode)
            .unwrap();
    let account = poor.address();
    let chain = Chain::connect(&registry, Some(poor)).await.unwrap();
    let error = register(&chain, "alice", &indirect(&[])).await.unwrap_err();
    assert!(
        matches!(error, ChainError::InsufficientFunds { .. }),
        "{error}"
    );
    chain::fund(
        &anvil.url,
        wallet(0),
        account,
        "1000000000000000000".parse().unwrap(),
    )
    .await
    .unwrap();
    register(&chain, "alice", &indirect(&[])).await.unwrap();
    let reader = Chain::connect(&registry, None).await.unwrap();
    let error = reader
        .rotate(&label("alice"), key(OTHER_KEY), &mut |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ChainError::NoWallet | ChainError::NotAuthorized { .. }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_compiled_registry_is_not_deployed() {
    let dir = tempfile::tempdir().unwrap();
    let terms = chain::Terms {
        min_commitment_age: 0,
        max_commitment_age: 1,
        fee: Default::default(),
        treasury: Account::ZERO,
    };
    for text in [
        "",
        "{}",
        "{\"bytecode\": \"0x\"}",
        "{\"bytecode\": \"0xzz\"}",
    ] {
        let path = dir.path().join("artifact.json");
        std::fs::write(&path, text).unwrap();
        let error = chain::deploy("http://127.0.0.1:1", wallet(0), &path, terms, &mut |_| {})
            .await
            .unwrap_err();
        assert!(
            matches!(error, ChainError::Artifact { .. }),
            "{text}: {error}"
        );
    }
    let error = chain::deploy(
        "http://127.0.0.1:1",
        wallet(0),
        &artifact(),
        terms,
        &mut |_| {},
    )
    .await
    .unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_faucet_pays_everyone_who_asks_at_once() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let faucet = chain::faucet(anvil.url.clone(), wallet(0), 7_000_000);
    let (first, second, third) = tokio::join!(faucet([1; 20]), faucet([2; 20]), faucet([3; 20]));
    let hashes = [first.unwrap(), second.unwrap(), third.unwrap()];
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2]);
    let chain = connect(&registry, 0).await;
    for account in [[1; 20], [2; 20], [3; 20]] {
        assert_eq!(
            chain
                .balance(Account::from(account))
                .await
                .unwrap()
                .to_string(),
            "7000000"
        );
    }
    let broken = chain::faucet("http://127.0.0.1:1".into(), wallet(0), 1);
    assert!(
        broken([1; 20])
            .await
            .unwrap_err()
            .contains("cannot be reached")
    );
}
