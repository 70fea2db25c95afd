//! Names of streams, groups, handlers and hosts.

/// The longest name, in bytes.
const BYTES_MAX: usize = 128;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a name; expected 1 to {BYTES_MAX} letters, digits, '_', '-' or '.', beginning with a letter or digit"
)]
pub struct NameFault {
    /// What was found.
    pub name: String,
}

/// Checks a name. The alphabet leaves out `/` and `@`, which separate a group from the rest in the ids of emitted
/// events, and everything that a shell, a URL or a metric's label would need quoted.
///
/// # Errors
/// [`NameFault`] with the text and the rule.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.len() <= BYTES_MAX && name.chars().all(legal) {
        Ok(())
    } else {
        Err(NameFault { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_need_no_quotes() {
        for good in ["orders", "a", "7-eleven", "billing.v2_x"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "-a", ".hidden", "a/b", "a@b", "a b", "ключ", &"x".repeat(BYTES_MAX + 1)] {
            assert!(check_name(bad).is_err(), "{bad:?} passed");
        }
    }
}
