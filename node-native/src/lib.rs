//! The native nectar node.

pub mod keystore;
