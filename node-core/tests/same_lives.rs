//! The same seed gives the same life, natively and in the tab: every message that a node hears, and when.
//!
//! Whatever changes how nodes behave changes these digests. `UPDATE=1` writes those of the code as it is.
#![allow(clippy::disallowed_methods, reason = "UPDATE=1 rewrites the digests")]

use nectar_sim::life::live;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOLDEN: &str = include_str!("golden/lives.txt");

/// Small ones. Processes die in all but the last, names stand on a chain in all but the second, and limits are tight in the
/// second and the last.
const SEEDS: [u64; 4] = [0, 1, 4, 7];

#[test]
fn a_seed_gives_the_same_life_natively_and_in_the_tab() {
    let told: String = SEEDS
        .map(|seed| format!("{seed} = {}\n", hex::encode(live(seed, None).trace)))
        .concat();
    #[cfg(not(target_arch = "wasm32"))]
    if std::env::var("UPDATE").is_ok() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lives.txt");
        std::fs::write(path, &told).expect("the digests can be written");
        return;
    }
    assert_eq!(
        told, GOLDEN,
        "nodes behave in another way than before: UPDATE=1 takes that for right"
    );
}
