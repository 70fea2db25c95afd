//! Tells what a handler said from where it trapped.

/// How wasmtime begins a backtrace.
const HEADING: &str = "error while executing at wasm backtrace:";

/// Takes the reason of a failure apart: what the handler and the host said, and the frames of the backtrace, one a line,
/// if there is one.
#[must_use]
pub fn split_backtrace(reason: &str) -> (&str, Option<&str>) {
    let begins = |at: &usize| *at == 0 || reason.as_bytes()[*at - 1] == b'\n';
    // The host writes it last.
    let Some(at) = reason.rmatch_indices(HEADING).map(|(at, _)| at).find(begins) else { return (reason, None) };
    let frames = reason[at + HEADING.len()..].trim_start_matches(['\r', '\n']);
    (reason[..at].trim_end(), Some(frames.trim_end()).filter(|frames| !frames.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_told_from_what_was_said() {
        let reason = "boom: 1\nwasm `unreachable` executed\nerror while executing at wasm backtrace:\n    0:    0x1 - m!a\n    1:    0x2 - m!b";
        let frames = "    0:    0x1 - m!a\n    1:    0x2 - m!b";
        assert_eq!(split_backtrace(reason), ("boom: 1\nwasm `unreachable` executed", Some(frames)));
    }

    #[test]
    fn a_reason_without_one_stays_whole() {
        for reason in ["", "no such order", "said: error while executing at wasm backtrace: none"] {
            assert_eq!(split_backtrace(reason), (reason, None));
        }
    }

    #[test]
    fn a_backtrace_that_was_cut_short_is_none() {
        assert_eq!(split_backtrace("trap\nerror while executing at wasm backtrace:"), ("trap", None));
    }
}
