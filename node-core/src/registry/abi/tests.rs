#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::registry::HostError;
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue, sol};
use proptest::prelude::*;

sol! {
    struct Entry {
        address owner; address manager; bytes32 networkingKey; uint8 hostKind; bytes host; uint16 port; uint8 schemes;
        string[] routers; uint32 version; uint32 epoch;
    }
    function registryVersion() external view returns (uint32);
    function resolve(string label) external view returns (Entry);
    function available(string label) external view returns (bool);
    error NameUnknown(uint256 tokenId);
    event RecordChanged(uint256 indexed tokenId, uint32 version, uint32 epoch);
}

// Written by another implementation (ethers 6) from the interface's text.
const RESOLVE_ALICE: [&str; 4] = [
    "461a4478", // resolve(string)
    "0000000000000000000000000000000000000000000000000000000000000020",
    "0000000000000000000000000000000000000000000000000000000000000005",
    "616c696365000000000000000000000000000000000000000000000000000000",
];
const INDIRECT: [&str; 19] = [
    "0000000000000000000000000000000000000000000000000000000000000020", // the tuple
    "0000000000000000000000001111111111111111111111111111111111111111", // owner
    "0000000000000000000000002222222222222222222222222222222222222222", // manager
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", // networking key
    "0000000000000000000000000000000000000000000000000000000000000000", // host kind
    "0000000000000000000000000000000000000000000000000000000000000140", // offset of the host
    "0000000000000000000000000000000000000000000000000000000000000000", // port
    "0000000000000000000000000000000000000000000000000000000000000000", // schemes
    "0000000000000000000000000000000000000000000000000000000000000160", // offset of the routers
    "0000000000000000000000000000000000000000000000000000000000000003", // version
    "0000000000000000000000000000000000000000000000000000000000000001", // epoch
    "0000000000000000000000000000000000000000000000000000000000000000", // length of the host
    "0000000000000000000000000000000000000000000000000000000000000002", // routers
    "0000000000000000000000000000000000000000000000000000000000000040", // offset of the first
    "0000000000000000000000000000000000000000000000000000000000000080", // offset of the second
    "000000000000000000000000000000000000000000000000000000000000000a",
    "726f757465722d6f6e6500000000000000000000000000000000000000000000",
    "000000000000000000000000000000000000000000000000000000000000000a",
    "726f757465722d74776f00000000000000000000000000000000000000000000",
];
const DIRECT: [&str; 14] = [
    "0000000000000000000000000000000000000000000000000000000000000020", // the tuple
    "0000000000000000000000001111111111111111111111111111111111111111", // owner
    "0000000000000000000000000000000000000000000000000000000000000000", // manager
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", // networking key
    "0000000000000000000000000000000000000000000000000000000000000003", // host kind
    "0000000000000000000000000000000000000000000000000000000000000140", // offset of the host
    "0000000000000000000000000000000000000000000000000000000000002328", // port
    "0000000000000000000000000000000000000000000000000000000000000003", // schemes
    "0000000000000000000000000000000000000000000000000000000000000180", // offset of the routers
    "0000000000000000000000000000000000000000000000000000000000000001", // version
    "0000000000000000000000000000000000000000000000000000000000000002", // epoch
    "000000000000000000000000000000000000000000000000000000000000000c",
    "6e6f64652e6578616d706c650000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
];

fn bytes(words: &[&str]) -> Vec<u8> {
    hex::decode(words.concat()).unwrap()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn direct() -> OnchainRecord {
    decode_record(&bytes(&DIRECT)).unwrap()
}

#[test]
fn calls_are_what_another_implementation_writes() {
    assert_eq!(resolve_call(&label("alice")), bytes(&RESOLVE_ALICE));
    assert_eq!(
        hex::encode(&available_call(&label("alice"))[..4]),
        "aeb8ce9b"
    );
    assert_eq!(
        available_call(&label("alice"))[4..],
        bytes(&RESOLVE_ALICE)[4..]
    );
    assert_eq!(hex::encode(registry_version_call()), "0f9be51c");
    assert_eq!(
        hex::encode(record_changed_topic()),
        "072a14b110464bda4ccd957bba50ff1dc68157f82c9435d5a8118a9e6988cf60"
    );
}

#[test]
fn records_are_read_as_another_implementation_wrote_them() {
    let record = decode_record(&bytes(&INDIRECT)).unwrap();
    assert_eq!(record.encode(), bytes(&INDIRECT));
    let record = record.check().unwrap();
    assert_eq!((record.owner, record.manager), ([0x11; 20], [0x22; 20]));
    assert_eq!(record.routing, None);
    assert_eq!(record.routers, [label("router-one"), label("router-two")]);
    assert_eq!((record.version, record.epoch), (3, 1));

    let record = direct().check().unwrap();
    let host = Host::Dns("node.example".into());
    assert_eq!(
        record.routing,
        Some(Routing {
            host,
            port: 9000,
            ws: true,
            wss: true
        })
    );
    assert_eq!((record.version, record.epoch), (1, 2));
}

#[test]
fn only_the_registrys_own_error_about_this_very_label_means_unknown() {
    let revert =
        hex::decode("b12dec7b9c0257114eb9399a2985f8e75dad7600c5d89fe3824ffa99ec1c3eb8bf3b0501")
            .unwrap();
    assert!(is_name_unknown(&revert, &label("alice")));
    assert!(!is_name_unknown(&revert, &label("bob")));
    assert!(!is_name_unknown(&revert[..35], &label("alice")));
    assert!(!is_name_unknown(&[], &label("alice")));
    // Error(string), what `require` reverts with.
    assert!(!is_name_unknown(
        &hex::decode("08c379a0").unwrap(),
        &label("alice")
    ));
}

#[test]
fn answers_of_another_shape_are_no_records() {
    assert_eq!(decode_record(&[]), Err(NotARecord::Empty));
    let good = bytes(&INDIRECT);
    for cut in [1, 31, 32, 300, good.len() - 1] {
        assert_eq!(
            decode_record(&good[..cut]),
            Err(NotARecord::Malformed),
            "cut at {cut}"
        );
    }
    for (word, value) in [
        (
            0,
            "0000000000000000000000000000000000000000000000000000000000000040",
        ),
        (
            1,
            "ff00000000000000000000001111111111111111111111111111111111111111",
        ), // an address of 32 bytes
        (
            4,
            "0000000000000000000000000000000000000000000000000000000000000100",
        ), // a uint8 of 256
        (
            5,
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ),
        (
            8,
            "0000000000000000000000000000000000000000000000007fffffffffffffff",
        ),
        (
            12,
            "0000000000000000000000000000000000000000000000000fffffffffffffff",
        ), // so many routers
    ] {
        let mut words = INDIRECT;
        words[word] = value;
        assert_eq!(
            decode_record(&bytes(&words)),
            Err(NotARecord::Malformed),
            "word {word}"
        );
    }
}

#[test]
fn short_answers_are_one_word_and_in_range() {
    let word = |last: [u8; 4]| [&[0; 28][..], &last].concat();
    assert_eq!(decode_version(&word([0, 0, 1, 2])), Some(258));
    assert_eq!(decode_version(&word([255; 4])), Some(u32::MAX));
    assert_eq!(decode_available(&word([0; 4])), Some(false));
    assert_eq!(decode_available(&word([0, 0, 0, 1])), Some(true));
    assert_eq!(decode_available(&word([0, 0, 0, 2])), None);
    assert_eq!(decode_available(&word([1, 0, 0, 1])), None);
    let mut wide = word([0; 4]);
    wide[27] = 1;
    assert_eq!(decode_version(&wide), None);
    for length in [0, 1, 4, 31, 33, 64] {
        let data = alloc::vec![0; length];
        assert_eq!(decode_version(&data), None);
        assert_eq!(decode_available(&data), None);
    }
}

#[test]
fn signatures_are_those_of_the_interface() {
    assert_eq!(selector("registryVersion()"), registryVersionCall::SELECTOR);
    assert_eq!(selector("resolve(string)"), resolveCall::SELECTOR);
    assert_eq!(selector("available(string)"), availableCall::SELECTOR);
    assert_eq!(selector("NameUnknown(uint256)"), NameUnknown::SELECTOR);
    assert_eq!(record_changed_topic(), RecordChanged::SIGNATURE_HASH.0);
}

proptest! {
    #[test]
    fn records_are_written_as_another_implementation_writes_them_and_read_back(
        record in records()
    ) {
        let written = entry(&record).abi_encode();
        prop_assert_eq!(record.encode(), &written[..]);
        prop_assert_eq!(decode_record(&written), Ok(record));
    }

    /// A byte that is changed, inserted or taken away spoils an answer, or changes the record as it would for another
    /// implementation.
    #[test]
    fn answers_that_are_altered_mean_what_another_implementation_reads_or_nothing(
        record in records(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        change in 0..3,
    ) {
        let mut data = record.encode();
        let at = at.index(data.len());
        match change {
            0 => data[at] = byte,
            1 => data.insert(at, byte),
            _ => drop(data.remove(at)),
        }
        if let Ok(read) = decode_record(&data) {
            let other = Entry::abi_decode_validate(&data).unwrap();
            prop_assert_eq!(entry(&read).abi_encode(), other.abi_encode());
        }
    }
}

fn records() -> impl Strategy<Value = OnchainRecord> {
    let fixed = any::<([u8; 20], [u8; 20], [u8; 32], u8, u16, u8, u32, u32)>();
    let host = prop::collection::vec(any::<u8>(), 0..80);
    let routers = prop::collection::vec("[a-zé-]{0,40}", 0..10);
    (fixed, host, routers).prop_map(|(fixed, host, routers)| {
        let (owner, manager, key, host_kind, port, schemes, version, epoch) = fixed;
        OnchainRecord {
            owner,
            manager,
            key,
            host_kind,
            host,
            port,
            schemes,
            routers,
            version,
            epoch,
        }
    })
}

fn entry(record: &OnchainRecord) -> Entry {
    let record = record.clone();
    Entry {
        owner: record.owner.into(),
        manager: record.manager.into(),
        networkingKey: record.key.into(),
        hostKind: record.host_kind,
        host: record.host.into(),
        port: record.port,
        schemes: record.schemes,
        routers: record.routers,
        version: record.version,
        epoch: record.epoch,
    }
}

#[test]
fn an_answer_that_points_at_one_string_over_and_over_does_not_multiply_it() {
    let mut words: Vec<String> = INDIRECT[..12]
        .iter()
        .map(|word| String::from(*word))
        .collect();
    let count = 200;
    words.push(format!("{count:064x}"));
    words.extend((0..count).map(|_| format!("{:064x}", count * 32)));
    words.push(format!("{:064x}", 32 * 200));
    words.extend((0..200).map(|_| "61".repeat(32)));
    let data = hex::decode(words.concat()).unwrap();
    assert_eq!(decode_record(&data), Err(NotARecord::Malformed));
}

#[test]
fn records_that_no_node_can_use_say_which_rule_they_break() {
    let small_order = {
        let mut key = [0; 32];
        key[0] = 1;
        key
    };
    type Spoil = fn(&mut OnchainRecord);
    let spoils: [(Spoil, RecordError); 14] = [
        (|r| r.key = [0; 32], RecordError::NoKey),
        (|r| r.key = [2; 32], RecordError::NotAKey),
        (
            |r| r.host_kind = 4,
            RecordError::HostKind {
                kind: 4,
                length: 12,
            },
        ),
        (
            |r| r.host_kind = 0,
            RecordError::HostKind {
                kind: 0,
                length: 12,
            },
        ),
        (
            |r| r.host_kind = 1,
            RecordError::HostKind {
                kind: 1,
                length: 12,
            },
        ),
        (
            |r| r.host_kind = 2,
            RecordError::HostKind {
                kind: 2,
                length: 12,
            },
        ),
        (
            |r| r.host = vec![0xff],
            RecordError::HostKind { kind: 3, length: 1 },
        ),
        (
            |r| r.host = Vec::new(),
            RecordError::Host(HostError::Length),
        ),
        (
            |r| r.host = b"Node.example".to_vec(),
            RecordError::Host(HostError::BadCharacter('N')),
        ),
        (
            |r| r.host = b"127.1".to_vec(),
            RecordError::Host(HostError::Numeric),
        ),
        (|r| r.port = 0, RecordError::NoPort),
        (|r| r.schemes = 4, RecordError::NoScheme),
        (
            |r| r.routers = vec!["router-one".into()],
            RecordError::DirectWithRouters,
        ),
        (
            |r| r.routers = vec!["Router".into()],
            RecordError::Router(crate::NameError::BadCharacter('R')),
        ),
    ];
    for (spoil, expected) in spoils {
        let mut record = direct();
        spoil(&mut record);
        assert_eq!(record.check(), Err(expected));
    }
    let weak = OnchainRecord {
        key: small_order,
        ..direct()
    };
    assert_eq!(weak.check(), Err(RecordError::WeakKey));
    let many = OnchainRecord {
        host_kind: 0,
        host: Vec::new(),
        routers: (0..9).map(|index| format!("router{index}")).collect(),
        ..direct()
    };
    assert_eq!(many.check(), Err(RecordError::TooManyRouters(9)));
}
