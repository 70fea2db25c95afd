//! Reads a table of `workers.toml` field by field, and collects what is wrong with line and path instead of giving up
//! at the first fault.

mod items;
mod maps;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::units;
pub(super) use items::Item;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong, with the path of the field, what was found, what was expected and the remedy.
    pub message: String,
}

/// The text of a file, where values come from and faults go to.
pub(super) struct Document<'a> {
    text: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
    faults: RefCell<Vec<Fault>>,
    /// Where fields stand of which more may turn out to be wrong, by path.
    lines: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { text, environment, faults: RefCell::default(), lines: RefCell::default() }
    }

    pub(super) fn fault(&self, span: &Range<usize>, message: impl Into<String>) {
        self.faults.borrow_mut().push(Fault { line: self.line(span), message: message.into() });
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    /// The text that a syntax error is about.
    pub(super) fn text_at(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default().trim()
    }

    /// How many faults were found so far.
    pub(super) fn count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// A variable of the environment; an empty one counts as not set.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// All faults, in the order of the file, each once; and where the fields stand that were asked for by [`Section::mark`].
    pub(super) fn into_faults(self) -> (Vec<Fault>, BTreeMap<String, usize>) {
        let mut faults: Vec<Fault> = Vec::new();
        for fault in self.faults.into_inner() {
            // What is wrong with the defaults is found again with every group that takes them.
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        faults.sort_by_key(|fault| fault.line);
        (faults, self.lines.into_inner())
    }

    /// Replaces `${VAR}` and `${VAR:-default}`.
    fn interpolate(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                // The text around it is not shown: it may be a secret.
                return Err("\"${\" without \"}\"; write ${NAME} or ${NAME:-default}".into());
            };
            let inner = &rest[start + 2..start + end];
            let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, or)| (name, Some(or)));
            if !is_variable(name) {
                return Err("\"${…}\" holds no name of a variable; write ${NAME} or ${NAME:-default}".into());
            }
            match (self.environment)(name).filter(|value| !value.is_empty() || default.is_none()) {
                Some(value) => out.push_str(&value),
                None => match default {
                    Some(default) => out.push_str(default),
                    None => {
                        return Err(format!(
                            "environment variable {name} is not set; set it, or give a default: ${{{name}:-…}}"
                        ));
                    }
                },
            }
            rest = &rest[start + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// A table that is being read. Fields that nobody asked for are faults: see [`Self::finish`].
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    path: String,
    span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    /// Where a field is looked for if this table does not set it: `[defaults]`.
    fallback: Option<&'a Section<'a>>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(document: &'a Document<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::of(document, String::new(), table.span(), Some(table.get_ref()))
    }

    fn of(document: &'a Document<'a>, path: String, span: Range<usize>, table: Option<&'a DeTable<'a>>) -> Self {
        Self { document, path, span, table, fallback: None, known: RefCell::default() }
    }

    pub(super) fn with_fallback(mut self, fallback: &'a Section<'a>) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// The table of this name; an empty one if there is none.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        self.section_if_set(name)
            .unwrap_or_else(|| Self::of(self.document, self.path_of(name), self.span.clone(), None))
    }

    /// The table of this name, if it is set here or in the fallback.
    pub(super) fn section_if_set(&self, name: &'static str) -> Option<Section<'a>> {
        let (path, value) = self.find(name)?;
        let Some(table) = value.get_ref().as_table() else {
            self.document.fault(&value.span(), mismatch(&path, "a table", value.get_ref()));
            return None;
        };
        Some(Self::of(self.document, path, value.span(), Some(table)))
    }

    /// The tables in this one, by name, as in `[groups.NAME]`.
    pub(super) fn named_sections(&self) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let (name, path) = (key.get_ref().to_string(), self.path_of(key.get_ref()));
            if let Err(fault) = pelton_core::check_name(&name) {
                self.document.fault(&key.span(), format!("{}: {fault}", self.path));
            }
            match value.get_ref().as_table() {
                Some(table) => {
                    sections.push((name, Self::of(self.document, path, key.span(), Some(table))));
                }
                None => self.document.fault(&value.span(), mismatch(&path, "a table", value.get_ref())),
            }
        }
        sections
    }

    /// As [`Self::section_if_set`], where people write the word of one field alone.
    pub(super) fn section_or_word(&self, name: &'static str, field: &str) -> Option<Section<'a>> {
        if let Some((path, value)) = self.find(name)
            && let Some(word) = value.get_ref().as_str()
        {
            let message = format!("expected a table, found the string {word:?}; write {{ {field} = {word:?} }}");
            self.document.fault(&value.span(), format!("{path}: {message}"));
            return None;
        }
        self.section_if_set(name)
    }

    /// How many faults the document has so far.
    pub(super) fn faults(&self) -> usize {
        self.document.count()
    }

    /// Remembers where a field stands: whoever looks at more than the file may find more wrong with it.
    pub(super) fn mark(&self, name: &'static str) {
        let span = self.find(name).map_or(self.span.clone(), |(_, value)| value.span());
        self.document.lines.borrow_mut().insert(self.path_of(name), self.document.line(&span));
    }

    /// Reports a fault of this table as a whole.
    pub(super) fn fault(&self, message: impl std::fmt::Display) {
        self.document.fault(&self.span, format!("{}: {message}", self.path));
    }

    /// Reports a fault of one field.
    pub(super) fn fault_at(&self, name: &'static str, message: impl std::fmt::Display) {
        match self.find(name) {
            Some((path, value)) => self.document.fault(&value.span(), format!("{path}: {message}")),
            None => self.document.fault(&self.span, format!("{}: {message}", self.path_of(name))),
        }
    }

    /// Reports a fault that concerns more than one field, where the first of them that is set stands.
    pub(super) fn fault_among(&self, names: &[&'static str], message: impl std::fmt::Display) {
        let span = names.iter().find_map(|name| self.find(name)).map_or(self.span.clone(), |(_, value)| value.span());
        self.document.fault(&span, message.to_string());
    }

    /// Whether this very table sets one of these, and not only the fallback.
    pub(super) fn sets_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.table.is_some_and(|table| table.contains_key(*name)))
    }

    pub(super) fn is_set(&self, name: &'static str) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn string(&self, name: &'static str) -> Option<String> {
        self.read(name, "a string", |value| value.as_str().map(str::to_owned))
            .and_then(|text| self.document.interpolate(&text).map_err(|reason| self.fault_at(name, reason)).ok())
    }

    pub(super) fn required_string(&self, name: &'static str, example: &str) -> Option<String> {
        if !self.is_set(name) {
            self.fault(format_args!("{name} is missing; add {name} = {example}"));
            return None;
        }
        self.string(name)
    }

    pub(super) fn strings(&self, name: &'static str) -> Option<Vec<String>> {
        let values = self.read(name, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        })?;
        let interpolated = values.iter().map(|text| self.document.interpolate(text)).collect::<Result<_, _>>();
        interpolated.map_err(|reason| self.fault_at(name, reason)).ok()
    }

    pub(super) fn boolean(&self, name: &'static str) -> Option<bool> {
        self.boolean_or(name, "true or false")
    }

    /// True or false, where something else is possible too.
    pub(super) fn boolean_or(&self, name: &'static str, expected: &str) -> Option<bool> {
        self.read(name, expected, DeValue::as_bool)
    }

    pub(super) fn number(&self, name: &'static str) -> Option<f64> {
        self.read(name, "a number", |value| match value {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(_) => integer(value).map(|number| number as f64),
            _ => None,
        })
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, name: &'static str, least: u64, most: u64) -> Option<u64> {
        let number = self.read(name, "a whole number", integer)?;
        if number < i128::from(least) || number > i128::from(most) {
            self.fault_at(name, format_args!("expected {least} to {most}, found {number}"));
            return None;
        }
        u64::try_from(number).ok()
    }

    pub(super) fn duration(&self, name: &'static str) -> Option<Duration> {
        let text = self.string_of(name, "a duration in quotes, such as \"30s\"")?;
        units::duration(&text).map_err(|reason| self.fault_at(name, reason)).ok()
    }

    /// A duration that stands for ever if it is not set.
    pub(super) fn duration_or_for_ever(&self, name: &'static str, what: &str) -> Option<Duration> {
        let text = self.string_of(name, "a duration in quotes, such as \"30d\"")?;
        let or = |reason| format!("{reason}; or leave it out to keep {what} for ever");
        units::duration(&text).map_err(|reason| self.fault_at(name, or(reason))).ok()
    }

    pub(super) fn size(&self, name: &'static str) -> Option<u64> {
        let text = self.string_of(name, "a size in quotes, such as \"64MiB\"")?;
        units::size(&text).map_err(|reason| self.fault_at(name, reason)).ok()
    }

    /// One of a closed set of words.
    pub(super) fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let expected: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let expected = match expected.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        self.word_or(name, words, &expected)
    }

    /// One of a closed set of words, where something else is possible too.
    pub(super) fn word_or<T: Copy>(&self, name: &'static str, words: &[(&str, T)], expected: &str) -> Option<T> {
        let text = self.string_of(name, expected)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.fault_at(name, format_args!("expected {expected}, found {text:?}"));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn is_table(&self, name: &'static str) -> bool {
        self.find(name).is_some_and(|(_, value)| value.get_ref().as_table().is_some())
    }

    /// Reports every field that was not asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flatten().map(|(key, _)| key) {
            if known.contains(key.get_ref().as_ref()) {
                continue;
            }
            let place = if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) };
            let expected: Vec<&str> = known.iter().copied().collect();
            let message =
                format!("unknown field {:?} in {place}; expected one of: {}", key.get_ref(), expected.join(", "));
            self.document.fault(&key.span(), message);
        }
    }

    fn string_of(&self, name: &'static str, expected: &str) -> Option<String> {
        let text = self.read(name, expected, |value| value.as_str().map(str::to_owned))?;
        self.document.interpolate(&text).map_err(|reason| self.fault_at(name, reason)).ok()
    }

    fn read<T>(&self, name: &'static str, expected: &str, get: impl Fn(&DeValue<'a>) -> Option<T>) -> Option<T> {
        let (path, value) = self.find(name)?;
        let got = get(value.get_ref());
        if got.is_none() {
            self.document.fault(&value.span(), mismatch(&path, expected, value.get_ref()));
        }
        got
    }

    fn find(&self, name: &'static str) -> Option<(String, &'a Spanned<DeValue<'a>>)> {
        self.known.borrow_mut().insert(name);
        // The fallback is asked in any case: what it sets for nobody is not unknown.
        let fallback = self.fallback.and_then(|fallback| fallback.find(name));
        let own = self.table.and_then(|table| table.get(name)).map(|value| (self.path_of(name), value));
        own.or(fallback)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn is_variable(name: &str) -> bool {
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

fn mismatch(path: &str, expected: &str, found: &DeValue<'_>) -> String {
    let shown = match found {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Boolean(flag) => format!("the boolean {flag}"),
        other => a(other.type_str()),
    };
    format!("{path}: expected {expected}, found {shown}")
}

/// The name of a type with its article.
fn a(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}
