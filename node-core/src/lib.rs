//! The core of a nectar node, without input or output.
//!
//! Nothing in this crate opens a socket, reads a clock, draws entropy, spawns a task or waits. Time comes in as an
//! argument, randomness as seeds, chain answers and signatures as inputs; whatever the node wants done leaves as an
//! output. The same code runs natively, in a browser tab and in the simulator, bit for bit.
//!
//! ```text
//!  pipe      a socket, or a circuit through a router: carries whole binary messages
//!  channel   one handshake, its keys and counters; lives and dies with its pipe
//!  session   ordered frames between two names, acknowledged and retained; outlives channels
//!  node      control plane: names, records, admission, routes, budgets
//! ```
#![forbid(unsafe_code)]

extern crate alloc;

pub mod channel;
pub mod code;
pub mod limits;
pub mod name;
pub mod node;
pub mod registry;
pub mod session;
pub mod sorted;
pub mod time;
pub mod wire;

pub use nectar_crypto as crypto;

pub use code::Code;
pub use limits::Limits;
pub use name::{Label, Name, NameError, RegistryId};
pub use time::{Instant, Now, Timestamp};
