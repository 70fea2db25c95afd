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
const LINE_BYTES_MAX: u64 = 128 << 20;

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

/// Events of a file, read as they are asked for.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    format: Format,
    fields: Fields,
    /// Gives an id to an event that has none, from the number of its line.
    made_up_id: fn(u64) -> String,
    line: u64,
    buffer: Vec<u8>,
    /// Bytes read so far.
    pub(crate) bytes: u64,
    /// Bytes of the file, where it is one.
    pub(crate) total_bytes: Option<u64>,
}

impl Lines {
    pub(crate) fn open(path: &Path, format: Format, fields: Fields) -> anyhow::Result<Self> {
        let (reader, name, total_bytes): (Box<dyn BufRead + Send>, _, _) = if path == Path::new("-") {
            (Box::new(BufReader::new(io::stdin())), "standard input".to_owned(), None)
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
            let total_bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            (Box::new(BufReader::new(file)), name, total_bytes)
        };
        let made_up_id = |_| format!("{:032x}", rand::random::<u128>());
        Ok(Self { reader, name, format, fields, made_up_id, line: 0, buffer: Vec::new(), bytes: 0, total_bytes })
    }

    /// Gives an event that has no id the number of its line, where every run is to be the same.
    pub(crate) fn with_numbers_as_ids(self) -> Self {
        Self { made_up_id: |line| line.to_string(), ..self }
    }

    /// The next event and the number of its line; `None` at the end. Empty lines are passed over.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u64, NewEvent)>> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer);
            let read = read.with_context(|| format!("cannot read {}", self.name))?;
            self.bytes += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LINE_BYTES_MAX {
                bail!("{}: longer than {LINE_BYTES_MAX} bytes", self.place(self.line));
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            let event = self.parse().map_err(|reason| anyhow::anyhow!("{}: {reason}", self.place(self.line)))?;
            return Ok(Some((self.line, event)));
        }
    }

    /// A line, as errors name it.
    pub(crate) fn place(&self, line: u64) -> String {
        format!("{}, line {line}", self.name)
    }

    fn parse(&self) -> Result<NewEvent, String> {
        let text = std::str::from_utf8(self.buffer.trim_ascii()).map_err(|error| format!("not UTF-8: {error}"))?;
        let made_up_id = || (self.made_up_id)(self.line);
        if self.format == Format::Event {
            return parse_event(text, made_up_id);
        }
        let payload: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let read =
            |what, source: &Option<Source>| source.as_ref().map(|source| source.read(what, &payload)).transpose();
        Ok(NewEvent {
            id: read("id", &self.fields.id)?.unwrap_or_else(made_up_id),
            key: read("key", &self.fields.key)?,
            kind: read("kind", &self.fields.kind)?.unwrap_or_default(),
            headers: Vec::new(),
            payload: text.as_bytes().to_vec(),
        })
    }
}
