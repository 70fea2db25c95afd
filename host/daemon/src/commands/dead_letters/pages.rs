//! Reads dead letters page by page: there may be millions.

use std::collections::VecDeque;

use pelton_core::Offset;
use pelton_store::{LetterInfo, LetterQuery, ReadLimit, Store, StoreError};

/// Letters read at once.
const PAGE: ReadLimit = ReadLimit { events: 500, bytes: 4 << 20 };

/// Dead letters of a group, by partition and offset.
pub(super) struct Pages<'a> {
    store: &'a dyn Store,
    group: &'a str,
    query: LetterQuery,
    after: Option<(u32, Offset)>,
    page: VecDeque<LetterInfo>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(store: &'a dyn Store, group: &'a str, query: LetterQuery) -> Self {
        Self { store, group, query, after: None, page: VecDeque::new() }
    }

    /// The next one; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<LetterInfo>, StoreError> {
        if self.page.is_empty() {
            self.page = self.store.letters(self.group, &self.query, self.after, PAGE).await?.into();
            self.after = self.page.back().map(|last| (last.partition, last.letter.event.offset)).or(self.after);
        }
        Ok(self.page.pop_front())
    }
}

/// The dead letter at a place, if there is one.
pub(in crate::commands) async fn one(
    store: &dyn Store,
    group: &str,
    partition: u32,
    offset: Offset,
) -> Result<Option<LetterInfo>, StoreError> {
    let query = LetterQuery { partition: Some(partition), offset: Some(offset), ..LetterQuery::default() };
    Pages::new(store, group, query).next().await
}
