//! The name of a handler's version.

use std::{
    fmt::Write,
    io::{self, Read},
};

use sha2::{Digest, Sha256};

const PREFIX: &str = "sha256:";

/// The SHA-256 digest of a module, as `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    written(&Sha256::digest(bytes))
}

/// That of a file, without having it in memory.
pub(crate) fn digest_of_file(file: &mut impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut part = vec![0; 256 * 1024];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(written(&digest.finalize())),
            Ok(bytes) => digest.update(&part[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn written(digest: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + 64);
    text.push_str(PREFIX);
    for byte in digest {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
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
        assert_eq!(digest_of_file(&mut &b"abc"[..]).expect("memory can be read"), expected);
    }
}
