//! Lists of texts and tables, as in `http = ["https://a.example", { origin = "https://b.example", private = true }]`.

use std::ops::Range;

use super::{Section, mismatch};

/// One value of such a list.
pub(in super::super) enum Item<'a> {
    /// A text, and where it stands.
    Text(String, Range<usize>),
    /// A table.
    Table(Section<'a>),
}

impl<'a> Section<'a> {
    /// The values of a list; those that are neither a text nor a table are faults, and left out.
    pub(in super::super) fn items(&self, name: &'static str, expected: &str) -> Option<Vec<Item<'a>>> {
        let (path, value) = self.find(name)?;
        let Some(list) = value.get_ref().as_array() else {
            self.document.fault(&value.span(), mismatch(&path, expected, value.get_ref()));
            return None;
        };
        let mut items = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let (span, path) = (item.span(), format!("{path}[{index}]"));
            if let Some(text) = item.get_ref().as_str() {
                match self.document.interpolate(text) {
                    Ok(text) => items.push(Item::Text(text, span)),
                    Err(reason) => self.document.fault(&span, format!("{path}: {reason}")),
                }
            } else if let Some(table) = item.get_ref().as_table() {
                items.push(Item::Table(Section::of(self.document, path, span, Some(table))));
            } else {
                self.document.fault(&span, mismatch(&path, "a string or a table", item.get_ref()));
            }
        }
        Some(items)
    }

    /// Reports a fault of one value of a list.
    pub(in super::super) fn fault_in(&self, name: &'static str, span: &Range<usize>, message: impl std::fmt::Display) {
        self.document.fault(span, format!("{}: {message}", self.path_of(name)));
    }

    /// Where this table stands.
    pub(in super::super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}
