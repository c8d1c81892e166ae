//! Names are the same bytes, and the same hash, in a tab as natively.
use node_core::{Label, Name, RegistryId};
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_name_has_the_bytes_and_the_hash_that_other_nodes_compute() {
    let name = Name {
        registry: RegistryId {
            chain_id: 31337,
            contract: [0xc0; 20],
        },
        label: Label::new("alice").expect("a valid label"),
    };
    assert_eq!(Name::decode(&name.to_bytes()), Ok(name.clone()));
    // SHA-256 of 0000000000007a69 ‖ c0 × 20 ‖ "alice", computed elsewhere.
    let expected = [
        0x77, 0xa5, 0xdf, 0x60, 0x36, 0xbf, 0x7e, 0x59, 0xeb, 0xb7, 0xba, 0x52, 0x59, 0xa2, 0xe5,
        0x57, 0xdc, 0x1b, 0xdd, 0xf3, 0xa2, 0x20, 0x69, 0x6d, 0xd8, 0x7d, 0x2f, 0x01, 0x33, 0x4f,
        0xff, 0x1a,
    ];
    assert_eq!(name.hash(), expected);
}
