//! Short names for what the browser's module and its script call each other by.
//!
//! The bindings generator makes them unique with hashes, which do not compress: 2 KiB of the module and as much of its
//! script. The optimiser gives the module short ones and says which; here the script follows.
use std::collections::HashMap;

use anyhow::{Result, bail};

/// What the optimiser calls the one module that it lets everything come from.
const MODULE: &str = "a";

/// Former names and what each is called now, as the optimiser prints them when it shortens imports and exports.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    /// Where everything came from.
    module: &'a str,
    imports: HashMap<&'a str, &'a str>,
    exports: HashMap<&'a str, &'a str>,
}

impl<'a> Names<'a> {
    /// Reads `{ "imports": [ ["module", "from", "to"], … ], "exports": [ ["from", "to"], … ] }`, an entry in each line.
    ///
    /// # Errors
    ///
    /// There are no imports or no exports, or imports come from several modules.
    pub(crate) fn read(printed: &'a str) -> Result<Self> {
        let mut names = Self::default();
        for line in printed.lines() {
            let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            match quoted[..] {
                [module, from, to] => {
                    if !names.imports.is_empty() && module != names.module {
                        bail!("imports come from {} and from {module}", names.module);
                    }
                    names.module = module;
                    names.imports.insert(from, to);
                }
                [from, to] => drop(names.exports.insert(from, to)),
                _ => {}
            }
        }
        if names.imports.is_empty() || names.exports.is_empty() {
            bail!("the optimiser named no imports or no exports");
        }
        Ok(names)
    }

    /// The script with the new names: `from: function` in the object with the imports, `wasm.from` for exports.
    ///
    /// # Errors
    ///
    /// The script does not provide each import once, or does not say once where they come from.
    pub(crate) fn apply(&self, script: &str) -> Result<String> {
        let (mut text, mut provided) = (String::with_capacity(script.len()), 0);
        let mut rest = script;
        while let Some(start) = rest.find(identifies) {
            let (before, found) = rest.split_at(start);
            let end = found.find(|c| !identifies(c)).unwrap_or(found.len());
            let (token, after) = found.split_at(end);
            text.push_str(before);
            let name = match (self.imports.get(token), self.exports.get(token)) {
                (Some(to), _) if after.starts_with(": function") => {
                    provided += 1;
                    to
                }
                (_, Some(to)) if text.ends_with("wasm.") => to,
                _ => token,
            };
            text.push_str(name);
            rest = after;
        }
        text.push_str(rest);
        if provided != self.imports.len() {
            bail!(
                "the script provides {provided} of {} imports",
                self.imports.len()
            );
        }
        let from = format!("\"{}\": import", self.module);
        if text.matches(&from).count() != 1 {
            bail!("the script does not say once where imports come from");
        }
        Ok(text.replace(&from, &format!("\"{MODULE}\": import")))
    }
}

/// Whether a character can stand in a name.
fn identifies(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const PRINTED: &str = r#"{
 "imports": [
  ["./x_bg.js", "__wbg_then_65", "a"],
  ["./x_bg.js", "__wbg_then_65f", "$b"]
 ],
"exports": [
  ["memory", "c"],
  ["invoke_1", "d"]
 ]
}"#;

    #[test]
    fn a_script_follows_where_it_provides_imports_and_uses_exports_and_nowhere_else() {
        let script = "\
            const memory = wasm.memory.buffer;\n\
            function invoke_1(x) { wasm.invoke_1(x); other.invoke_1(x); wasm.invoke_12(); }\n\
            const import0 = { __wbg_then_65: function() {}, __wbg_then_65f: function() {} };\n\
            return { \"./x_bg.js\": import0 };";
        assert_eq!(
            Names::read(PRINTED).unwrap().apply(script).unwrap(),
            "\
            const memory = wasm.c.buffer;\n\
            function invoke_1(x) { wasm.d(x); other.invoke_1(x); wasm.invoke_12(); }\n\
            const import0 = { a: function() {}, $b: function() {} };\n\
            return { \"a\": import0 };"
        );
    }

    #[test]
    fn a_script_that_lacks_an_import_or_its_module_is_refused() {
        let names = Names::read(PRINTED).unwrap();
        for script in [
            "{ __wbg_then_65: function() {} } { \"./x_bg.js\": import0 }",
            "{ __wbg_then_65: function() {}, __wbg_then_65f: function() {} } { \"./y_bg.js\": import0 }",
        ] {
            assert!(names.apply(script).is_err(), "{script}");
        }
        assert!(Names::read("{\n \"imports\": [\n ],\n\"exports\": [\n ]\n}").is_err());
    }
}
