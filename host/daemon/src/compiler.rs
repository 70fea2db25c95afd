//! Modules are compiled by this program itself, in a process of its own: `pelton compile-module`, which is no command for
//! people and not among those that the help shows.

use std::{ffi::OsString, path::PathBuf};

use pelton_sandbox::CompilerProgram;

const COMMAND: &str = "compile-module";

/// What starts this program as a compiler.
#[must_use]
pub(crate) fn compiler() -> CompilerProgram {
    CompilerProgram::new(this_program(), vec![COMMAND.into()])
}

/// The arguments of a compiler, if these are of one.
pub(crate) fn asked_for(mut args: impl Iterator<Item = OsString>) -> Option<impl Iterator<Item = OsString>> {
    args.next();
    args.next().filter(|command| command == COMMAND).map(|_| args)
}

/// On Linux not by its path: the file there may have been replaced by a newer version, whose code would not load here.
fn this_program() -> PathBuf {
    let itself = PathBuf::from("/proc/self/exe");
    if itself.exists() { itself } else { std::env::current_exe().unwrap_or_else(|_| "pelton".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> Option<Vec<OsString>> {
        asked_for(args.iter().map(OsString::from)).map(Iterator::collect)
    }

    #[test]
    fn only_the_first_word_makes_it_a_compiler() {
        assert_eq!(asked(&["pelton", "compile-module", "1", "2"]), Some(vec!["1".into(), "2".into()]));
        for args in [&["pelton"][..], &[], &["pelton", "run"], &["pelton", "test", "compile-module"]] {
            assert_eq!(asked(args), None);
        }
    }
}
