//! What the chain says about a name, and how we come to know it.
