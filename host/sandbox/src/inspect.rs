//! Whether a component can be a handler: what it is, what it exports, and whether the host serves all that it imports.

use semver::Version;
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker, types::ComponentItem},
};

use crate::{
    bindings,
    error::LoadError,
    grants::{Grants, HttpGrant},
    host::Host,
    linkers::Linkers,
};

/// The version of the contract in `wit/worker.wit` that this host speaks. It also serves components of every earlier
/// version with the same major and, below 1.0, minor number: these only ever add functions and interfaces.
pub const CONTRACT: Version = Version::new(0, 1, 0);

/// Whose versions are the contract's.
const PACKAGE: &str = "pelton:worker/";
const HANDLER: &str = "handler";
const BATCH_HANDLER: &str = "batch-handler";

/// What the names of the imports begin with that only a handler with origins has.
const HTTP: &str = "wasi:http/";
/// How many names an error tells: enough for whoever wrote a handler, and no more than can be read. Looking for the next
/// one takes time, and a component may have any number.
const NAMES_MAX: usize = 20;

/// The first four bytes of any WebAssembly.
const MAGIC: &[u8] = b"\0asm";

/// Which world a handler is of, found out by what it exports. A component that exports both is a [`World::Worker`]: one
/// at a time, the host always knows which event failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// One event a call.
    Worker,
    /// A batch a call.
    BatchWorker,
}

impl World {
    /// Its name in `wit/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::BatchWorker => "batch-worker",
        }
    }
}

/// A component that was found to be a handler, ready to be instantiated.
#[derive(Clone)]
pub(crate) enum Handler {
    Worker(bindings::worker::WorkerPre<Host>),
    Batch(bindings::batch_worker::BatchWorkerPre<Host>),
}

impl Handler {
    pub(crate) fn world(&self) -> World {
        match self {
            Self::Worker(_) => World::Worker,
            Self::Batch(_) => World::BatchWorker,
        }
    }
}

/// What can be told from the bytes alone, better than a parser would tell it.
pub(crate) fn check_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if !bytes.starts_with(MAGIC) {
        let begin = &bytes[..bytes.len().min(16)];
        return Err(LoadError::NotWasm { found: format!("\"{}\"", begin.escape_ascii()) });
    }
    match bytes.get(4..8) {
        None => Err(LoadError::Invalid(format!("it ends after {} bytes, within its header", bytes.len()))),
        // Version and layer, two bytes each: layer 0 is a core module.
        Some([_, _, 0, 0]) => Err(LoadError::CoreModule),
        Some(_) => Ok(()),
    }
}

/// Finds the world and links the imports that are granted.
pub(crate) fn handler(component: &Component, linkers: &Linkers, grants: &Grants) -> Result<Handler, LoadError> {
    let engine = component.engine();
    let exports: Vec<String> = component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect();
    let world = if exports.iter().any(|name| interface(name) == Some(HANDLER)) {
        World::Worker
    } else if exports.iter().any(|name| interface(name) == Some(BATCH_HANDLER)) {
        World::BatchWorker
    } else if let Some(found) = contract(exports.iter().map(String::as_str)).filter(|found| !is_served(found)) {
        return Err(LoadError::Contract { found, served: CONTRACT });
    } else {
        let found = match exports.len().checked_sub(NAMES_MAX) {
            _ if exports.is_empty() => "nothing".into(),
            None | Some(0) => exports.join(", "),
            Some(more) => format!("{} and {more} more", exports[..NAMES_MAX].join(", ")),
        };
        return Err(LoadError::NoWorld { found, expected: format!("{} or {}", full(HANDLER), full(BATCH_HANDLER)) });
    };
    let linked = link_granted(component, linkers, grants)?;
    let (export, handler) = match world {
        World::Worker => (HANDLER, bindings::worker::WorkerPre::new(linked).map(Handler::Worker)),
        World::BatchWorker => (BATCH_HANDLER, bindings::batch_worker::BatchWorkerPre::new(linked).map(Handler::Batch)),
    };
    handler.map_err(|error| LoadError::Export { export: full(export), fault: chain(&error) })
}

/// The version of the contract that a component speaks, told from the names of what it imports or exports.
#[must_use]
pub fn contract<'a>(names: impl Iterator<Item = &'a str>) -> Option<Version> {
    let versions = names.filter_map(|name| name.strip_prefix(PACKAGE)?.split_once('@')?.1.parse().ok());
    versions.max()
}

/// Whether this host can run components that speak this version: as long as it serves each function that they import.
#[must_use]
pub fn is_served(version: &Version) -> bool {
    let compatible = |version: &Version| if version.major > 0 { (version.major, 0) } else { (0, version.minor) };
    compatible(version) == compatible(&CONTRACT)
}

/// The interface of the contract that a name stands for, in a version that is served.
fn interface(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    is_served(&version.parse().ok()?).then_some(interface)
}

fn full(interface: &str) -> String {
    format!("{PACKAGE}{interface}@{CONTRACT}")
}

/// Whether it imports any interface of these packages.
pub(crate) fn imports_any(component: &Component, packages: &[&str]) -> bool {
    let component_type = component.component_type();
    component_type.imports(component.engine()).any(|(name, _)| packages.iter().any(|package| name.starts_with(package)))
}

/// Links the imports, or names each one that is not granted or not served.
fn link_granted(component: &Component, linkers: &Linkers, grants: &Grants) -> Result<InstancePre<Host>, LoadError> {
    let engine = component.engine();
    let component_type = component.component_type();
    let http: Vec<&str> =
        component_type.imports(engine).map(|(name, _)| name).filter(|name| name.starts_with(HTTP)).collect();
    if http.is_empty() {
        return link(component, &linkers.plain, engine);
    }
    let linked = link(component, &linkers.http, engine);
    if grants.http != HttpGrant::None {
        return linked;
    }
    let mut faults: Vec<String> = http.iter().map(|name| format!("{name} (not granted)")).collect();
    if let Some(last) = faults.last_mut() {
        let handler = &grants.handler;
        *last = format!(
            "{last}: handler \"{handler}\" may call nobody; name the origins that it calls under allow.http, or write \
             `http = []` there if its toolchain imports this without need"
        );
    }
    if let Err(LoadError::Imports(others)) = linked {
        faults.extend(others);
    }
    Err(LoadError::Imports(faults))
}

/// Links the imports, or names each one that cannot be. wasmtime stops at the first, so what is missing is replaced by a
/// stand-in and the rest looked at again.
fn link(component: &Component, linker: &Linker<Host>, engine: &Engine) -> Result<InstancePre<Host>, LoadError> {
    let mut error = match linker.instantiate_pre(component) {
        Ok(linked) => return Ok(linked),
        Err(error) => error,
    };
    let mut faults = Vec::new();
    let mut linker = linker.clone();
    linker.allow_shadowing(true);
    let component_type = component.component_type();
    let mut imports: Vec<(&str, ComponentItem)> =
        component_type.imports(engine).map(|(name, import)| (name, import.ty)).collect();
    loop {
        let said = error.to_string();
        let Some(index) = imports.iter().position(|(name, _)| said.contains(&format!("`{name}`"))) else {
            faults.push(chain(&error));
            break;
        };
        let (name, item) = imports.swap_remove(index);
        faults.push(format!("{name} ({})", causes(&error)));
        if faults.len() == NAMES_MAX {
            faults.push("and maybe more".into());
            break;
        }
        if stand_in(&mut linker, name, &item, engine).is_err() {
            break;
        }
        match linker.instantiate_pre(component) {
            Ok(_) => break,
            Err(next) => error = next,
        }
    }
    if let Some(newer) =
        contract(component_type.imports(engine).map(|(name, _)| name)).filter(|found| *found > CONTRACT)
    {
        faults.push(format!(
            "it was built for version {newer} of the contract pelton:worker, and this host serves {CONTRACT}: update the host"
        ));
    }
    Err(LoadError::Imports(faults))
}

/// Puts something of the right shape in the place of an import. It is never called: the linker is thrown away.
fn stand_in(linker: &mut Linker<Host>, name: &str, item: &ComponentItem, engine: &Engine) -> wasmtime::Result<()> {
    let unserved = |_: wasmtime::StoreContextMut<'_, Host>, _, _: &[_], _: &mut [_]| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("not served"))
    };
    match item {
        ComponentItem::ComponentInstance(instance) => {
            let mut stand_in = linker.instance(name)?;
            for (name, export) in instance.exports(engine) {
                match export.ty {
                    ComponentItem::ComponentFunc(_) => stand_in.func_new(name, unserved)?,
                    ComponentItem::Resource(_) => {
                        let resource = wasmtime::component::ResourceType::host::<()>();
                        stand_in.resource(name, resource, |_, _| Ok(()))?;
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        ComponentItem::ComponentFunc(_) => linker.root().func_new(name, unserved),
        _ => Err(wasmtime::Error::msg("no stand-in for this kind of import")),
    }
}

fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

/// Without the outermost, which only repeats the name.
fn causes(error: &wasmtime::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_component_is_told_from_its_first_bytes() {
        assert_eq!(check_bytes(b""), Err(LoadError::Empty));
        assert_eq!(check_bytes(b"\x7fELF"), Err(LoadError::NotWasm { found: "\"\\x7fELF\"".into() }));
        assert_eq!(check_bytes(b"\0asm\x01\0\0\0"), Err(LoadError::CoreModule));
        assert!(matches!(check_bytes(b"\0asm\x0d"), Err(LoadError::Invalid(_))));
        assert_eq!(check_bytes(b"\0asm\x0d\0\x01\0"), Ok(()));
    }
}
