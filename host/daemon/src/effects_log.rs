//! What handlers did, as log lines: for whoever looks on while a handler is written (`pelton dev`), or asks for it with
//! `PELTON_LOG=info,effects=trace`.

use pelton_core::{Effects, Emit};
use pelton_sandbox::Place;
use tracing::{Level, enabled, trace};

use crate::logging::one_line;

/// How much of a payload or a value is shown, in characters.
const SHOWN_MAX: usize = 160;

/// Tells what was committed. Costs nothing unless it is asked for by name, or everything is: payloads and values are for no log
/// that others read.
pub(crate) fn tell(place: &Place, effects: &Effects) {
    if !enabled!(target: "effects", Level::TRACE) {
        return;
    }
    let Place { group, partition, .. } = place;
    for Emit { stream, event } in &effects.emits {
        let (kind, key, payload) = (event.kind.as_str(), event.key.as_deref(), shown(&event.payload));
        trace!(target: "effects", %group, partition, to = %stream, kind, key, "emitted {payload}");
    }
    for (key, value) in &effects.state {
        match value {
            Some(value) => trace!(target: "effects", %group, partition, key, "state is {}", shown(value)),
            None => trace!(target: "effects", %group, partition, key, "state is deleted"),
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return format!("{} bytes that are no text", bytes.len()) };
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    one_line(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_or_no_text_is_shown_in_short() {
        assert_eq!(shown(b"{\"n\":1}"), "{\"n\":1}");
        assert_eq!(shown(&[0xff; 300]), "300 bytes that are no text");
        assert_eq!(shown("ä".repeat(200).as_bytes()).chars().count(), SHOWN_MAX + 1);
    }
}
