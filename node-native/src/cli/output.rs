//! What a command prints. A reader that goes away (`nectar … | head`) is no error.
//!
//! Names of software, errors of endpoints, a status: much of it is in the words of others, and a terminal obeys what is written
//! to it. So no text leaves with control characters. Only data goes as it came, to whoever is no terminal.

use super::Failure;
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    fmt::{Arguments, Display, Write as _},
    io::{IsTerminal, Write},
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
        let text = match self.json {
            true => harmless(&value.to_string()),
            false => harmless(&text.to_string()),
        };
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// What a peer sent, as it came if a program reads it.
    pub(super) fn data(self, data: &[u8]) {
        let mut stdout = std::io::stdout();
        let data = readable(data, stdout.is_terminal());
        let _ = stdout.write_all(&data);
        let _ = stdout.write_all(b"\n");
    }

    /// Something to know on the way; nothing that a program needs.
    pub(super) fn note(self, text: Arguments<'_>) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", harmless(&text.to_string()));
        }
    }

    pub(super) fn failure(self, failure: &Failure) {
        let text = match self.json {
            true => {
                json!({ "error": { "message": failure.message, "exit": failure.exit } }).to_string()
            }
            false => format!("error: {}", failure.message),
        };
        let _ = writeln!(std::io::stderr(), "{}", harmless(&text));
    }
}

/// Data for a terminal or for a program.
fn readable(data: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    match terminal {
        true => Cow::Owned(harmless(&String::from_utf8_lossy(data)).into_bytes()),
        false => Cow::Borrowed(data),
    }
}

/// A text whose control characters, but for new lines and tabs, are written as JSON writes them: in JSON it is the same text.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            // Writing to a String does not fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn what_others_wrote_steers_no_terminal_and_is_left_alone_on_its_way_to_a_program() {
        // Clears the screen, sets the title, goes back, moves by one character of eight bits, deletes.
        let evil = "\u{1b}[2Jone\ttwo\n\u{1b}]0;title\u{7}\r\u{8}\u{9b}1A\u{7f}ü";
        assert_eq!(
            readable(evil.as_bytes(), true).as_ref(),
            "\\u001b[2Jone\ttwo\n\\u001b]0;title\\u0007\\u000d\\u0008\\u009b1A\\u007fü".as_bytes()
        );
        assert_eq!(readable(evil.as_bytes(), false).as_ref(), evil.as_bytes());
        // Also a byte that is a control character where no UTF-8 is expected.
        assert_eq!(readable(b"\x9b1A", true).as_ref(), "\u{fffd}1A".as_bytes());
        assert_eq!(readable(b"\x9b1A", false).as_ref(), b"\x9b1A");
    }

    #[test]
    fn json_means_the_same_without_its_control_characters() {
        let value = json!({ "agent\u{9b}": "\u{1b}[2J\u{7f}\u{9b}\n\t\\ü" });
        let shown = harmless(&value.to_string());
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
