//! What strangers do to the reads of those who are known.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::host::Bob;
use nectar_sim::{direct, key_of};
use node_core::{Code, time::Duration};

/// Somebody who has registered nothing calls twice a second, from so many networks in turn, as one of so many others whom Bob
/// knows. How often Carol is refused, who is known as well and calls from one of those networks or from another.
fn refused(known: usize, networks: u64, from: u64) -> usize {
    let labels: Vec<String> = (0..known).map(|index| format!("known{index}")).collect();
    let names = labels.iter().map(String::as_str).chain(["carol"]);
    let records: Vec<_> = names
        .map(|label| {
            let mut record = direct("mallory", 9);
            record.key = key_of(label).verifying_key().to_bytes();
            (label, record)
        })
        .collect();
    let mut bob = Bob::on_chain(&records);
    for (network, (label, _)) in (1000..).zip(&records) {
        let caller = bob.call(label, &key_of(label), network, 0).unwrap();
        let mut out = Vec::new();
        bob.node
            .closed(&caller.pipe, Code::PipeLost, bob.now, &mut out);
        bob.note(out);
        bob.wait(Duration::from_millis(100));
    }
    // What was read is not fresh any more.
    bob.wait(Duration::from_secs(120));
    let stranger = key_of("nobody");
    let mut claimed = labels.iter().cycle();
    let mut refused = 0;
    for second in 0..40 {
        for network in 0..networks {
            let _ = bob.call(claimed.next().unwrap(), &stranger, network, 0);
        }
        bob.wait(Duration::from_millis(500));
        if second >= 12 {
            refused += usize::from(bob.call("carol", &key_of("carol"), from, 0).is_err());
        }
        bob.wait(Duration::from_millis(500));
    }
    refused
}

#[test]
fn who_claims_the_names_of_others_uses_up_no_reads_of_theirs() {
    assert_eq!(refused(220, 20, 99), 0, "from everywhere");
    assert_eq!(refused(11, 1, 0), 0, "from the same network");
}
