//! What the contract answers.

use crate::{input::Input, memory::claimed};
use alloy_sol_types::SolValue as _;
use nectar_sim::chain::Entry;
use node_core::registry::{NotARecord, OnchainRecord, decode_available, decode_record};

/// A record is read as the contract writes it, byte for byte, and in no other way; all that the contract writes is read.
pub(crate) fn run(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    if how % 2 == 0 {
        let (record, bytes) = claimed(|| decode_record(data));
        assert!(
            bytes <= 8 * data.len() + 1024,
            "{bytes} bytes for {}",
            data.len()
        );
        match record {
            Ok(record) => {
                assert_eq!(record.encode(), data);
                check(record);
            }
            Err(error) => assert_eq!(error == NotARecord::Empty, data.is_empty()),
        }
        let truth = decode_available(data);
        assert_eq!(
            truth.is_some(),
            data.len() == 32 && data[..31] == [0; 31] && data[31] < 2
        );
    } else {
        let record = composed(&mut Input::new(data));
        let written = record.encode();
        assert_eq!(written, entry(&record).abi_encode(), "{record:?}");
        assert_eq!(decode_record(&written), Ok(record.clone()));
        check(record);
    }
}

/// A record that a node can use says what the contract's said, and stands up to being checked again.
fn check(record: OnchainRecord) {
    let onchain = record.clone();
    let Ok(record) = record.check() else { return };
    assert_eq!(record.check(), Ok(()));
    assert_eq!(
        (record.key, record.version, record.epoch),
        (onchain.key, onchain.version, onchain.epoch)
    );
    assert!(
        record
            .routers
            .iter()
            .map(|label| label.as_str())
            .eq(onchain.routers.iter())
    );
    assert_eq!(record.routing.is_none(), onchain.host_kind == 0);
}

fn composed(input: &mut Input<'_>) -> OnchainRecord {
    let host = usize::from(input.u8());
    OnchainRecord {
        owner: input.array(),
        manager: input.array(),
        key: input.array(),
        host_kind: input.u8() % 5,
        port: input.u16(),
        schemes: input.u8(),
        version: input.u32(),
        epoch: input.u32(),
        host: input.take(host).to_vec(),
        routers: (0..input.u8() % 12)
            .map(|_| {
                let length = input.u8() % 80;
                String::from_utf8_lossy(input.take(length.into())).into_owned()
            })
            .collect(),
    }
}

fn entry(record: &OnchainRecord) -> Entry {
    Entry {
        owner: record.owner.into(),
        manager: record.manager.into(),
        networkingKey: record.key.into(),
        hostKind: record.host_kind,
        host: record.host.clone().into(),
        port: record.port,
        schemes: record.schemes,
        routers: record.routers.clone(),
        version: record.version,
        epoch: record.epoch,
    }
}
