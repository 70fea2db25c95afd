//! Tables with any keys: texts, lists of texts, and texts that nobody is shown.

use pelton_sandbox::Secret;
use toml::de::DeValue;

use super::{Section, a, mismatch};

impl Section<'_> {
    /// A table of strings with any keys, as in `config = { currency = "EUR" }`.
    pub(in super::super) fn string_map(&self, name: &'static str) -> Vec<(String, String)> {
        let Some(section) = self.section_if_set(name) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (key, value) in section.table.into_iter().flatten() {
            let path = section.path_of(key.get_ref());
            match value.get_ref().as_str().map(|text| self.document.interpolate(text)) {
                Some(Ok(text)) => pairs.push((key.get_ref().to_string(), text)),
                Some(Err(reason)) => self.document.fault(&value.span(), format!("{path}: {reason}")),
                None => self.document.fault(&value.span(), mismatch(&path, "a string", value.get_ref())),
            }
        }
        pairs
    }

    /// A table of lists of strings with any keys, as in `headers = { tier = ["gold"] }`.
    pub(in super::super) fn string_lists(&self, name: &'static str) -> Vec<(String, Vec<String>)> {
        let Some(section) = self.section_if_set(name) else { return Vec::new() };
        let mut lists = Vec::new();
        for (key, value) in section.table.into_iter().flatten() {
            let path = section.path_of(key.get_ref());
            let items = value.get_ref().as_array().into_iter().flatten();
            let texts: Option<Vec<_>> = items.map(|item| item.get_ref().as_str()).collect();
            let texts = texts.filter(|_| value.get_ref().as_array().is_some());
            let Some(texts) = texts else {
                self.document.fault(&value.span(), mismatch(&path, "a list of strings", value.get_ref()));
                continue;
            };
            match texts.into_iter().map(|text| self.document.interpolate(text)).collect() {
                Ok(texts) => lists.push((key.get_ref().to_string(), texts)),
                Err(reason) => self.document.fault(&value.span(), format!("{path}: {reason}")),
            }
        }
        lists
    }

    /// A table of strings with any keys, of which no message shows a value.
    pub(in super::super) fn secret_map(&self, name: &'static str) -> Vec<(String, Secret)> {
        let Some((path, value)) = self.find(name) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.document.fault(&value.span(), untold(&path, "a table of strings", value.get_ref()));
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (key, value) in table {
            let path = format!("{path}.{}", key.get_ref());
            match value.get_ref().as_str().map(|text| self.document.interpolate(text)) {
                Some(Ok(text)) => pairs.push((key.get_ref().to_string(), Secret::new(text))),
                Some(Err(reason)) => self.document.fault(&value.span(), format!("{path}: {reason}")),
                None => self.document.fault(&value.span(), untold(&path, "a string", value.get_ref())),
            }
        }
        pairs
    }

    /// Reports a fault of one entry of such a table.
    pub(in super::super) fn fault_of_entry(&self, name: &'static str, key: &str, message: impl std::fmt::Display) {
        let Some((path, value)) = self.find(name) else { return };
        let entry = value.get_ref().as_table().and_then(|table| table.get(key));
        self.document.fault(&entry.unwrap_or(value).span(), format!("{path}.{key}: {message}"));
    }
}

/// As [`mismatch`], without what was found: it may be a secret that stands in the wrong place.
fn untold(path: &str, expected: &str, found: &DeValue<'_>) -> String {
    format!("{path}: expected {expected}, found {} (what is in secrets is not shown)", a(found.type_str()))
}
