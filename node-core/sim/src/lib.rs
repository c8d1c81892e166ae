//! Whole nodes in virtual time.

pub mod chain;

pub use chain::Chain;
