//! A few random lives of a small network, against a model of what nodes promise. `cargo xtask soak` plays more of them.

use nectar_sim::life::live;
use std::panic::catch_unwind;

/// Chosen so that every kind of life is among them: with and without a chain, dying processes, tight limits.
const SEEDS: [u64; 8] = [0, 1, 2, 3, 5, 6, 7, 8];

#[test]
fn whatever_happens_every_operation_ends_once_in_time_and_nobody_hears_what_is_not_for_him() {
    let (mut asked, mut succeeded, mut whole) = (0, 0, 0);
    let mut failed = Vec::new();
    for seed in SEEDS {
        match catch_unwind(|| live(seed, None)) {
            Ok(story) => {
                asked += story.asked;
                succeeded += story.succeeded;
                whole += story.whole;
            }
            Err(_) => failed.push(format!("cargo xtask soak --seed {seed}")),
        }
    }
    assert!(failed.is_empty(), "again: {}", failed.join("; "));
    assert!(
        succeeded * 100 > asked * 80,
        "only {succeeded} of {asked} operations succeeded"
    );
    assert!(whole > asked / 20, "only {whole} streams came whole");
}
