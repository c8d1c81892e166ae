//! A nectar node in a browser tab.
