//! Keeps secrets out of what a handler says: log lines and reasons are stored and shown, and end up in tickets.
//!
//! Found is a value as it is. One that the handler wrote in another form (encoded, in pieces with something between them)
//! is not: this guards against mistakes, and a handler that means to tell a secret can.

use std::{borrow::Cow, ops::Range};

use crate::{grants::Grants, text};

/// Shorter lines of a secret of several lines are likely to be found in any text, and tell little.
const LINE_BYTES_MIN: usize = 8;

/// The values that are taken out, and what stands there instead.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    patterns: Vec<Pattern>,
    longest_bytes: usize,
}

struct Pattern {
    value: String,
    instead: String,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.instead)
    }
}

impl Redactor {
    /// One that knows every secret granted, whole and by lines, for output comes in lines.
    pub(crate) fn of(grants: &Grants) -> Self {
        let mut values: Vec<(&str, &str)> = Vec::new();
        for (name, secret) in &grants.secrets {
            let whole = secret.reveal();
            // One read from a file ends its line, and is said without.
            let bare = whole.trim_end_matches(['\r', '\n']);
            let lines = bare.lines().filter(|line| line.len() >= LINE_BYTES_MIN);
            values
                .extend([whole, bare].into_iter().chain(lines).filter(|value| !value.is_empty()).map(|v| (&**name, v)));
        }
        values.dedup();
        // What stands instead must not tell a secret itself, which it would of one that is called what it is.
        let tells = |text: &str| values.iter().any(|(_, value)| text.contains(value));
        let patterns: Vec<Pattern> = values
            .iter()
            .map(|(name, value)| {
                let candidates = [format!("[secret {name}]"), "***".to_owned()];
                let instead = candidates.into_iter().find(|text| !tells(text)).unwrap_or_default();
                Pattern { value: (*value).to_owned(), instead }
            })
            .collect();
        let longest_bytes = patterns.iter().map(|pattern| pattern.value.len()).max().unwrap_or(0);
        Self { patterns, longest_bytes }
    }

    /// As [`text::bounded`], with no secret in it, nor the beginning of one at the cut.
    pub(crate) fn bounded<'a>(&self, text: &'a str, bytes_max: usize) -> Cow<'a, str> {
        if self.patterns.is_empty() {
            return text::bounded(text, bytes_max);
        }
        // A secret that begins before the cut ends within this. What is looked through is as bounded as what is kept.
        let window = &text[..text.floor_char_boundary(bytes_max.saturating_add(self.longest_bytes))];
        let whole = window.len() == text.len();
        let mut hits = self.hits(window.as_bytes());
        if !whole && let Some((length, pattern)) = self.begun(window.as_bytes()) {
            hits.push((window.len() - length..window.len(), pattern));
        }
        if hits.is_empty() {
            return text::bounded(text, bytes_max);
        }
        let redacted = replaced(window, hits);
        if whole {
            return Cow::Owned(text::bounded(&redacted, bytes_max).into_owned());
        }
        let more = text.len() - window.len();
        let kept = &redacted[..redacted.floor_char_boundary(bytes_max)];
        Cow::Owned(format!("{}… (over {more} bytes more)", text::bounded(kept, bytes_max)))
    }

    /// How much of this may be passed on when more is to follow: what is left may be the beginning of a secret.
    pub(crate) fn settled_bytes(&self, output: &[u8]) -> usize {
        let Some((begun_bytes, _)) = self.begun(output) else { return output.len() };
        let mut settled = output.len() - begun_bytes;
        let mut hits = self.hits(output);
        hits.sort_by_key(|(range, _)| std::cmp::Reverse(range.end));
        // Nor is a secret to be cut that is there as a whole.
        for (range, _) in hits {
            if range.start < settled && settled < range.end {
                settled = range.start;
            }
        }
        // All of it is secret; what stands instead is short.
        if settled == 0 { output.len() } else { settled }
    }

    /// The longest beginning of a pattern that the text ends with, short of a whole one.
    fn begun(&self, text: &[u8]) -> Option<(usize, &Pattern)> {
        let begun = |pattern: &Pattern| {
            let value = pattern.value.as_bytes();
            (1..value.len().min(text.len() + 1)).rev().find(|length| text.ends_with(&value[..*length]))
        };
        let found = self.patterns.iter().filter_map(|pattern| Some((begun(pattern)?, pattern)));
        found.max_by_key(|(length, _)| *length)
    }

    /// Every place where a pattern lies. They may overlap.
    fn hits(&self, text: &[u8]) -> Vec<(Range<usize>, &Pattern)> {
        let mut hits = Vec::new();
        for pattern in &self.patterns {
            let value = pattern.value.as_bytes();
            let places = text.windows(value.len()).enumerate().filter(|(_, window)| *window == value);
            hits.extend(places.map(|(begin, _)| (begin..begin + value.len(), pattern)));
        }
        hits
    }
}

/// The text with what overlaps taken out as one.
fn replaced(text: &str, mut hits: Vec<(Range<usize>, &Pattern)>) -> String {
    hits.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for (range, pattern) in hits {
        if range.start >= end {
            redacted.push_str(&text[end..range.start]);
            redacted.push_str(&pattern.instead);
        }
        end = end.max(range.end);
    }
    redacted.push_str(&text[end..]);
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::Secret;

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        let secrets = secrets.iter().map(|(name, value)| ((*name).into(), Secret::new((*value).into()))).collect();
        Redactor::of(&Grants { secrets, ..Grants::nothing("invoice") })
    }

    #[test]
    fn a_value_is_replaced_by_its_name_wherever_it_stands() {
        let redactor = redactor(&[("key", "sk-123"), ("word", "жук"), ("empty", "")]);
        assert_eq!(
            redactor.bounded("sk-123, sk-12 and жук.sk-123", 100),
            "[secret key], sk-12 and [secret word].[secret key]"
        );
        assert!(matches!(redactor.bounded("nothing of it", 100), Cow::Borrowed("nothing of it")));
    }

    #[test]
    fn without_secrets_a_text_is_only_cut() {
        let none = redactor(&[("empty", "")]);
        assert!(matches!(none.bounded("short", 5), Cow::Borrowed("short")));
        assert_eq!(none.bounded("longer", 4), "long… (2 bytes more)");
    }

    #[test]
    fn lines_of_a_secret_are_secret_unless_they_are_short() {
        let redactor = redactor(&[("pem", "BEGIN\r\nMIIEpAIBAAKC\r\nq83w==\n")]);
        assert_eq!(redactor.bounded("it says MIIEpAIBAAKC and BEGIN", 100), "it says [secret pem] and BEGIN");
        let short = self::redactor(&[("pin", "1234\n")]);
        assert_eq!(short.bounded("it is 1234", 100), "it is [secret pin]");
        assert_eq!(redactor.bounded("<BEGIN\r\nMIIEpAIBAAKC\r\nq83w==\n>", 100), "<[secret pem]>");
    }

    #[test]
    fn values_that_overlap_leave_nothing_behind() {
        let both = redactor(&[("a", "abcd"), ("b", "cdef")]);
        assert_eq!(both.bounded("-abcdef-", 100), "-[secret a]-");
        let itself = redactor(&[("a", "aba")]);
        assert_eq!(itself.bounded("ababa", 100), "[secret a]");
        let inner = redactor(&[("a", "bc"), ("b", "abcd")]);
        assert_eq!(inner.bounded("abcd bc", 100), "[secret b] [secret a]");
    }

    #[test]
    fn no_cut_leaves_a_part_of_a_secret() {
        let secret = "ghijklmnopqrstuv";
        let redactor = redactor(&[("key", secret)]);
        for before in 0..40 {
            for after in [0, 1, 50] {
                for bytes_max in 1..60 {
                    let text = format!("{}{secret}{secret}{}", "x".repeat(before), "y".repeat(after));
                    let kept = redactor.bounded(&text, bytes_max);
                    assert!(!kept.contains("gh"), "{before} {after} {bytes_max}: {kept}");
                    assert!(kept.len() <= bytes_max + 40, "{kept}");
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_a_secret_is_kept_back_until_more_is_known() {
        let redactor = redactor(&[("key", "abcabd"), ("other", "bX")]);
        for (output, kept_back) in [("", 0), ("x", 0), ("xab", 2), ("xabcab", 5), ("abcabd", 0), ("b", 0), ("xb", 1)] {
            assert_eq!(output.len() - redactor.settled_bytes(output.as_bytes()), kept_back, "{output}");
        }
    }

    #[test]
    fn a_secret_that_ends_as_it_begins_is_kept_back_as_a_whole() {
        let redactor = redactor(&[("key", "aba")]);
        assert_eq!(redactor.settled_bytes(b"xxaba"), 2);
        assert_eq!(redactor.settled_bytes(b"aba"), 3);
    }

    #[test]
    fn what_stands_instead_does_not_tell_the_secret() {
        assert_eq!(redactor(&[("password", "password")]).bounded("my password", 100), "my ***");
        assert_eq!(redactor(&[("star", "*"), ("s", "s")]).bounded("*s", 100), "");
        assert_eq!(format!("{:?}", redactor(&[("key", "abc")]).patterns), "[[secret key]]");
    }
}
