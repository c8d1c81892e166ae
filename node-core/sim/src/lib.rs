//! Whole nodes in virtual time, and what any two of them must be able to do in any world.
//!
//! [`Simulation`] has nodes, a network and a clock; [`Chain`] is a chain with one registry on it. [`Town`] puts both
//! together and is a [`World`], in which [`scenarios`](mod@scenarios) happen. [`LyingRouter`] serves whoever drives it, in any time.

pub mod chain;
mod dice;
mod faults;
mod liar;
pub mod life;
mod machine;
mod names;
mod network;
mod order;
mod registry;
pub mod scenarios;
mod simulation;
mod town;
mod wired;
pub mod world;

pub use chain::Chain;
pub use dice::Dice;
pub use liar::{Lie, LineId, LyingRouter};
pub use machine::{Handler, Machine};
pub use names::{REGISTRY, direct, indirect, key_of, name};
pub use network::{OnSocket, Tamper};
pub use registry::Registry;
pub use simulation::{EPOCH_MS, OPEN_ROUTER, Rpc, Simulation};
pub use town::{Endpoint, Town};
pub use wired::Wired;
pub use world::{NodeId, Outcome, Token, World};
