//! Reads events from a file, one a line, in either format.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, bail};
use pelton_core::NewEvent;
use serde_json::Value;

use crate::{cli::Format, event_json::parse_event};

/// The longest line. Above it, it is no event that any stream would take.
pub(crate) const LINE_BYTES_MAX: u64 = 128 << 20;

/// Where the key, the kind and the id of a payload come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) key: Option<Source>,
    pub(crate) kind: Option<Source>,
    pub(crate) id: Option<Source>,
}

/// A text that is the same for every event, or a JSON pointer (RFC 6901) into the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Literal(String),
    Pointer(String),
}

impl Source {
    pub(crate) fn of(text: &str) -> Self {
        if text.starts_with('/') { Self::Pointer(text.into()) } else { Self::Literal(text.into()) }
    }

    fn read(&self, what: &str, payload: &Value) -> Result<String, String> {
        let pointer = match self {
            Self::Literal(text) => return Ok(text.clone()),
            Self::Pointer(pointer) => pointer,
        };
        match payload.pointer(pointer) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(found @ (Value::Number(_) | Value::Bool(_))) => Ok(found.to_string()),
            Some(_) => {
                Err(format!("--{what} {pointer} finds a list, an object or null; expected a string or a number"))
            }
            None => Err(format!("--{what} {pointer} finds nothing in the payload")),
        }
    }
}

/// Lines of text, read as they are asked for, one in memory at a time.
pub(crate) struct TextLines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    bytes_max: u64,
    line: u64,
    buffer: Vec<u8>,
    /// Bytes read so far.
    bytes: u64,
}

impl TextLines {
    /// Lines of up to so many bytes of what errors call by this name.
    pub(crate) fn new(from: impl Read + Send + 'static, name: String, bytes_max: u64) -> Self {
        Self { reader: Box::new(BufReader::new(from)), name, bytes_max, line: 0, buffer: Vec::new(), bytes: 0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The next line and its number; `None` at the end. Empty lines are passed over.
    ///
    /// # Errors
    /// What cannot be read, is longer than it may be, or is not UTF-8.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u64, &str)>> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let read = self.reader.by_ref().take(self.bytes_max).read_until(b'\n', &mut self.buffer);
            let read = read.with_context(|| format!("cannot read {}", self.name))? as u64;
            self.bytes += read;
            if read == 0 {
                return Ok(None);
            }
            if read == self.bytes_max {
                bail!("{}: longer than {} bytes", self.place(self.line), self.bytes_max);
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        match std::str::from_utf8(self.buffer.trim_ascii()) {
            Ok(text) => Ok(Some((self.line, text))),
            Err(error) => bail!("{}: not UTF-8: {error}", self.place(self.line)),
        }
    }

    /// A line, as errors name it.
    fn place(&self, line: u64) -> String {
        format!("{}, line {line}", self.name)
    }
}

/// Events of a file, read as they are asked for.
pub(crate) struct Lines {
    text: TextLines,
    format: Format,
    fields: Fields,
    /// Gives an id to an event that has none, from the number of its line.
    made_up_id: fn(u64) -> String,
    /// Bytes of the file, where it is one.
    pub(crate) total_bytes: Option<u64>,
}

impl Lines {
    /// Opens a file, or whatever else can be read to an end.
    pub(crate) fn open(path: &Path, format: Format, fields: Fields) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let text = TextLines::new(io::stdin(), "standard input".to_owned(), LINE_BYTES_MAX);
            return Ok(Self::new(text, format, fields, None));
        }
        let file = File::open(path).map_err(|reason| {
            anyhow::anyhow!("cannot open {}: {reason}; correct the path, or say - for standard input", path.display())
        })?;
        let total_bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        Ok(Self::new(TextLines::new(file, path.display().to_string(), LINE_BYTES_MAX), format, fields, total_bytes))
    }

    /// Those of a file that is open.
    pub(crate) fn of(file: File, path: &Path, format: Format) -> Self {
        Self::new(TextLines::new(file, path.display().to_string(), LINE_BYTES_MAX), format, Fields::default(), None)
    }

    fn new(text: TextLines, format: Format, fields: Fields, total_bytes: Option<u64>) -> Self {
        let made_up_id = |_| format!("{:032x}", rand::random::<u128>());
        Self { text, format, fields, made_up_id, total_bytes }
    }

    /// Gives an event that has no id the number of its line, where every run is to be the same.
    pub(crate) fn with_numbers_as_ids(self) -> Self {
        Self { made_up_id: |line| line.to_string(), ..self }
    }

    /// The next event and the number of its line; `None` at the end. Empty lines are passed over.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u64, NewEvent)>> {
        let Some((line, text)) = self.text.next()? else { return Ok(None) };
        let made_up_id = || (self.made_up_id)(line);
        match parse(text, self.format, &self.fields, made_up_id) {
            Ok(event) => Ok(Some((line, event))),
            Err(reason) => bail!("{}: {reason}", self.place(line)),
        }
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.text.bytes
    }

    /// A line, as errors name it.
    pub(crate) fn place(&self, line: u64) -> String {
        self.text.place(line)
    }
}

fn parse(text: &str, format: Format, fields: &Fields, made_up_id: impl Fn() -> String) -> Result<NewEvent, String> {
    if format == Format::Event {
        return parse_event(text, made_up_id);
    }
    let payload: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let read = |what, source: &Option<Source>| source.as_ref().map(|source| source.read(what, &payload)).transpose();
    Ok(NewEvent {
        id: read("id", &fields.id)?.unwrap_or_else(made_up_id),
        key: read("key", &fields.key)?,
        kind: read("kind", &fields.kind)?.unwrap_or_default(),
        headers: Vec::new(),
        payload: text.as_bytes().to_vec(),
    })
}
