//! The native nectar node.
