//! What a command prints. A reader that goes away (`nectar … | head`) is no error.

use super::Failure;
use serde_json::{Value, json};
use std::{
    fmt::{Arguments, Display},
    io::Write,
};

/// For people, or for programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read it.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// The command's result, in one of its two forms.
    pub(super) fn result(self, text: impl Display, value: &Value) {
        let _ = match self.json {
            true => writeln!(std::io::stdout(), "{value}"),
            false => writeln!(std::io::stdout(), "{text}"),
        };
    }

    /// Something to know on the way; nothing that a program needs.
    pub(super) fn note(self, text: Arguments<'_>) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    pub(super) fn failure(self, failure: &Failure) {
        let _ = match self.json {
            true => {
                let value =
                    json!({ "error": { "message": failure.message, "exit": failure.exit } });
                writeln!(std::io::stderr(), "{value}")
            }
            false => writeln!(std::io::stderr(), "error: {}", failure.message),
        };
    }
}
