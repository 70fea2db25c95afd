//! What compilers write, and what a handler is: core modules become components.

use anyhow::{Context, Result};
use wasm_encoder::{Module, RawSection};
use wasmparser::{Parser, Payload};

/// The first eight bytes of a component; a core module has another version there.
const MAGIC: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// What only a debugger reads, and what is many times larger than a handler. The names of functions are in another
/// section and stay: traps tell them.
const DEBUG_SECTIONS: &str = ".debug";

/// What the imports of a system are called that no handler has.
const SYSTEM: &str = "wasi_snapshot_preview1";

/// A component as it is; a core module with the description of a world in it as a component.
pub(super) fn encode(module: Vec<u8>) -> Result<Vec<u8>> {
    if module.starts_with(&MAGIC) {
        return Ok(module);
    }
    let module = without_debug_info(&module).context("read what the compiler wrote")?;
    let encoded = wit_component::ComponentEncoder::default().validate(true).module(&module);
    encoded.and_then(|mut encoder| encoder.encode()).map_err(|error| {
        let hint = if format!("{error:#}").contains(SYSTEM) {
            ": the program calls for a file, a socket or randomness of the system, and handlers have none of these"
        } else {
            ""
        };
        error.context(format!("encode the module as a component{hint}"))
    })
}

fn without_debug_info(module: &[u8]) -> Result<Vec<u8>> {
    let mut kept = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let is_debug = matches!(&payload, Payload::CustomSection(custom) if custom.name().starts_with(DEBUG_SECTIONS));
        if let Some((id, range)) = payload.as_section().filter(|_| !is_debug) {
            kept.section(&RawSection { id, data: &module[range] });
        }
    }
    Ok(kept.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_debugger_reads_is_left_out_and_names_stay() {
        let text = "(module (func $f) (@custom \".debug_info\" \"long\") (@custom \"mine\" \"kept\"))";
        let module = wat::parse_str(text).expect("valid");
        let kept = without_debug_info(&module).expect("valid");
        let has = |bytes: &[u8], part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
        assert!(has(&module, ".debug_info") && !has(&kept, ".debug_info"));
        assert!(has(&kept, "mine") && has(&kept, "name"));
    }
}
