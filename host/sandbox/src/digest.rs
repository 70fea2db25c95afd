//! The name of a handler's version.

use std::fmt::Write;

use sha2::{Digest, Sha256};

const PREFIX: &str = "sha256:";

/// The SHA-256 digest of a module, as `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let mut digest = String::with_capacity(PREFIX.len() + 64);
    digest.push_str(PREFIX);
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

/// The digits alone, as a file name has them.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix(PREFIX).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_sha256sum() {
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(b"abc"), expected);
    }
}
