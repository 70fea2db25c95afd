//! Which partition an event belongs to.

use md5::{Digest, Md5};

/// The partition of a key (or of an id, for an event without a key): the first 8 bytes of its MD5 as an unsigned
/// big-endian number, modulo the stream's partitions. The same rule is written in SQL; test vectors hold them together.
///
/// # Panics
/// Never: `partitions` of 0 is taken as 1.
#[must_use]
pub fn partition_of(routing: &str, partitions: u32) -> u32 {
    let digest = Md5::digest(routing.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(first) % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `select ('x' || left(md5(k), 16))::bit(64)`, read as unsigned and taken modulo n, gives the same.
    #[test]
    fn test_vectors_hold_the_rule_in_every_language() {
        let vectors = [
            ("", 8, 4),
            ("a", 8, 0),
            ("order-1", 8, 5),
            ("order-1", 7, 5),
            ("ключ", 16, 2),
            ("octocat/Hello-World", 1024, 109),
        ];
        for (key, partitions, expected) in vectors {
            assert_eq!(partition_of(key, partitions), expected, "key {key:?} over {partitions} partitions");
        }
    }

    #[test]
    fn one_partition_takes_everything() {
        assert_eq!(partition_of("anything", 1), 0);
    }
}
