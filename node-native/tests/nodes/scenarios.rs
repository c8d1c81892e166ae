//! What the core proves in virtual time (`node-core/tests/scenarios.rs`), over real sockets.

use crate::sockets::Sockets;

nectar_sim::scenarios!(Sockets::new());
