//! The TypeScript constants of the error table are the Rust table, rendered.
//!
//! `UPDATE=1 cargo test -p node-core --test codes_ts` writes the file anew after the table changed.
#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that fails"
)]

use node_core::Code;
use std::{fmt::Write, fs, path::Path};

#[test]
fn the_typescript_constants_are_the_error_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node-wasm/js/codes.ts");
    let rendered = render();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &rendered).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap();
    assert!(
        written == rendered,
        "node-wasm/js/codes.ts differs from node-core/src/code.rs; \
         run `UPDATE=1 cargo test -p node-core --test codes_ts` and commit the result"
    );
}

fn render() -> String {
    let mut out = String::from(
        "// The error table of node-core/src/code.rs, written by node-core/tests/codes_ts.rs. Do not edit.\n\n\
         export type Fault = \"peer\" | \"incompatible\" | \"identity\" | \"limit\" | \"network\" | \"caller\" | \"nobody\";\n\
         export type Retry = \"never\" | \"later\" | \"elsewhere\";\n\n\
         /** Every error that crosses a wire or reaches an application, by its name. */\n\
         export const codes = {\n",
    );
    for code in Code::ALL {
        writeln!(
            out,
            "  {}: {{ code: {}, fault: {:?}, retry: {:?}, meaning: {:?} }},",
            code.name(),
            code.as_u16(),
            format!("{:?}", code.fault()).to_lowercase(),
            format!("{:?}", code.retry()).to_lowercase(),
            code.meaning(),
        )
        .unwrap();
    }
    out.push_str(
        "} as const satisfies Record<string, { code: number; fault: Fault; retry: Retry; meaning: string }>;\n\n\
         /** The name of an error. */\n\
         export type CodeName = keyof typeof codes;\n",
    );
    out
}
