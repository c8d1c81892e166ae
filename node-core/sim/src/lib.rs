//! Virtual network, clock and chain: runs whole nectar nodes in virtual time.

pub mod chain;
pub mod world;

pub use chain::Chain;
pub use world::World;
