//! What the core proves in virtual time (`node-core/tests/scenarios.rs`), over real sockets.

use crate::sockets::Sockets;

nectar_sim::scenarios!(Sockets::new());

/// With somebody on the way, whom most scenarios must not notice.
mod through_proxies {
    use super::Sockets;

    nectar_sim::scenarios!(Sockets::through_proxies());
    nectar_sim::harmed_scenarios!(Sockets::through_proxies());
}
