//! Whether what was built is a handler that this host can run, told where its author is.

use anyhow::{Context, Result, bail, ensure};
use pelton_sandbox::{CONTRACT, contract, is_served};

/// The interfaces a component may export to be a handler, without their versions.
const HANDLER_INTERFACES: [&str; 2] = ["pelton:worker/handler", "pelton:worker/batch-handler"];

/// A component that exports no handler builds without complaint (an export that was forgotten, another world), and so
/// does one of a contract that is newer than this program.
pub(super) fn check(component: &[u8]) -> Result<()> {
    let decoded = wit_component::decode(component).context("what was built is not a component")?;
    let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
        bail!("what was built is a package of interfaces, not a component");
    };
    let name = |key| resolve.name_world_key(key);
    let exports: Vec<String> = resolve.worlds[world].exports.keys().map(name).collect();
    let imports: Vec<String> = resolve.worlds[world].imports.keys().map(name).collect();
    let is_handler = |export: &String| HANDLER_INTERFACES.contains(&export.split('@').next().unwrap_or_default());
    ensure!(
        exports.iter().any(is_handler),
        "the component exports [{}] but none of [{}]: it is of another world, or its handler is not exported (in Rust \
         #[pelton_sdk::handler], in JavaScript `export const handler = …`, in Python @handler, in C \
         PELTON_HANDLER, in Zig pub fn handle)",
        exports.join(", "),
        HANDLER_INTERFACES.join(", "),
    );
    let Some(spoken) = contract(exports.iter().chain(&imports).map(String::as_str)) else { return Ok(()) };
    let remedy = if spoken > CONTRACT {
        "update pelton, or take the SDK of this one with `pelton build --update-sdk`"
    } else {
        "take the SDK of this pelton with `pelton build --update-sdk`"
    };
    let versions = format!(
        "the component speaks version {spoken} of the contract pelton:worker, and this pelton serves {CONTRACT}"
    );
    ensure!(is_served(&spoken), "{versions}: its SDK is of another version; {remedy}");
    if spoken > CONTRACT {
        // It runs here, unless it asks for what the newer version added.
        eprintln!("warning: {versions}; {remedy}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_without_a_handler_is_refused() {
        let empty_component = b"\0asm\x0d\0\x01\0";
        let error = check(empty_component).expect_err("no exports").to_string();
        assert!(error.starts_with("the component exports [] but none of [pelton:worker/handler"), "{error}");
    }
}
