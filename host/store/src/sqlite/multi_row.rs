//! Statements over many rows at once.

/// Rows a statement, largest first. Few sizes, so that every statement is prepared once and stays in the cache.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Payload that goes into one statement, in bytes: each is copied once more for it.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// One statement in several sizes.
pub(super) struct MultiRow([String; SIZES.len()]);

impl MultiRow {
    /// `before`, then `row` as often as there are rows, separated by commas, then `after`.
    pub(super) fn new(before: &str, row: &str, after: &str) -> Self {
        Self(SIZES.map(|size| format!("{before} {} {after}", vec![row; size].join(", "))))
    }

    /// The statement for as many of so many rows as one takes, and how many that are. At least 1.
    pub(super) fn first_of(&'static self, rows: usize) -> (usize, &'static str) {
        let size = SIZES.iter().position(|size| *size <= rows).unwrap_or(SIZES.len() - 1);
        (SIZES[size], &self.0[size])
    }
}

/// How many rows with payloads of these sizes, in bytes, go into one statement at most. At least 1.
pub(super) fn fitting(payloads: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |payload: &usize| {
        bytes += payload;
        bytes <= STATEMENT_BYTES_MAX
    };
    payloads.take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn the_largest_statement_that_fits_comes_first() {
        static VALUES: LazyLock<MultiRow> = LazyLock::new(|| MultiRow::new("VALUES", "(?)", ""));
        assert_eq!(VALUES.first_of(5), (4, "VALUES (?), (?), (?), (?) "));
        assert_eq!([1, 3, 63, 64, 9_999].map(|rows| VALUES.first_of(rows).0), [1, 1, 16, 64, 256]);
    }
}
