//! The nectar command.
fn main() {}
