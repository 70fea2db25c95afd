//! Texts from guests, made fit to be kept.

use std::borrow::Cow;

/// The text, cut to about so many bytes at a character's border. A NUL becomes U+FFFD, because reasons are stored and no
/// store keeps text with NUL in it.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let cut = if text.len() > bytes_max {
        let kept = &text[..text.floor_char_boundary(bytes_max)];
        Cow::Owned(format!("{kept}… ({} bytes more)", text.len() - kept.len()))
    } else {
        Cow::Borrowed(text)
    };
    if cut.contains('\0') { Cow::Owned(cut.replace('\0', "\u{fffd}")) } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_left_alone_and_a_long_one_is_cut_between_characters() {
        assert!(matches!(bounded("short", 5), Cow::Borrowed("short")));
        assert_eq!(bounded("жжж", 3), "ж… (4 bytes more)");
    }

    #[test]
    fn a_nul_does_not_reach_a_store() {
        assert_eq!(bounded("a\0b", 10), "a\u{fffd}b");
    }
}
