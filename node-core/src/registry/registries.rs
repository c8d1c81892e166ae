//! Registries and their endpoints, by number.

use super::{config::RegistryConfig, endpoint::Endpoint, heights::Heights, watch::Watch};
use alloc::vec::Vec;
use core::slice;

/// What is known of one registry.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) config: RegistryConfig,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) heights: Heights,
    pub(super) watch: Watch,
}

/// All registries, in configured order. Numbers come from here, hence are in range; that is checked in one place instead of in
/// each that uses one, of which a tab would download the line.
#[derive(Debug)]
pub(super) struct Registries(Vec<Registry>);

impl Registries {
    pub(super) fn new(registries: Vec<Registry>) -> Self {
        Self(registries)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, Registry> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> slice::IterMut<'_, Registry> {
        self.0.iter_mut()
    }

    pub(super) fn get(&self, registry: usize) -> &Registry {
        &self.0[registry]
    }

    pub(super) fn get_mut(&mut self, registry: usize) -> &mut Registry {
        &mut self.0[registry]
    }

    pub(super) fn endpoint(&self, registry: usize, endpoint: usize) -> &Endpoint {
        &self.get(registry).endpoints[endpoint]
    }

    pub(super) fn endpoint_mut(&mut self, registry: usize, endpoint: usize) -> &mut Endpoint {
        &mut self.get_mut(registry).endpoints[endpoint]
    }
}
