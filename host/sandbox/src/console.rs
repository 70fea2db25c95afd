//! What a guest says: log lines, and its standard output and error as lines too. Kept apart from the rest of the host's
//! side of an instance because the WASI streams need it without reaching into the store.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use pelton_core::Offset;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::{
    log::{LogLevel, LogLine, LogSink},
    log_budget::Verdict,
    redact::Redactor,
    ticker::Clock,
    usage::Usage,
};

/// The longest message, in bytes; the rest is cut.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The longest context, in bytes.
const CONTEXT_BYTES_MAX: usize = 256;

/// What a call may say in all, in bytes; each line counts [`LINE_BYTES`] more. The rest of the call is silent.
const CALL_BYTES_MAX: usize = 1024 * 1024;
const LINE_BYTES: usize = 64;

/// Lines of standard error that are taken as the last words of a guest that said nothing better.
const LAST_LINES: usize = 8;

/// What a stream takes at once, in bytes.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The context under which a guest logs its panic message, by agreement with the guest SDKs.
const PANIC: &str = "panic";

/// No stream gets that far.
const NO_OFFSET: u64 = u64::MAX;

/// Standard output or standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

pub(crate) struct Console {
    sink: Arc<dyn LogSink>,
    redactor: Arc<Redactor>,
    lines_per_second: u32,
    clock: Clock,
    usage: Arc<Usage>,
    /// The event in hand; [`NO_OFFSET`] for none.
    offset: AtomicU64,
    /// Whether there is anything in `speech`. Most calls say nothing, and should not pay for a lock.
    has_spoken: AtomicBool,
    speech: Mutex<Speech>,
}

#[derive(Default)]
struct Speech {
    said_bytes: usize,
    panic: Option<String>,
    stderr_last: VecDeque<String>,
    partial: [Vec<u8>; 2],
}

impl Console {
    pub(crate) fn new(
        sink: Arc<dyn LogSink>,
        redactor: Arc<Redactor>,
        lines_per_second: u32,
        clock: Clock,
        usage: Arc<Usage>,
    ) -> Self {
        let (offset, has_spoken) = (AtomicU64::new(NO_OFFSET), AtomicBool::new(false));
        Self { sink, redactor, lines_per_second, clock, usage, offset, has_spoken, speech: Mutex::default() }
    }

    /// A call begins.
    pub(crate) fn begin(&self, offset: Option<Offset>) {
        self.tell_dropped(offset);
        self.turn_to(offset);
        if !self.has_spoken.load(Ordering::Relaxed) {
            return;
        }
        let mut speech = self.speech();
        speech.said_bytes = 0;
        speech.panic = None;
        speech.stderr_last.clear();
        // A call that was dropped half-way may have left the beginning of a line.
        self.has_spoken.store(!speech.is_finished(), Ordering::Relaxed);
    }

    /// Another event is in hand.
    pub(crate) fn turn_to(&self, offset: Option<Offset>) {
        self.offset.store(offset.map_or(NO_OFFSET, |offset| offset.0), Ordering::Relaxed);
    }

    /// A call is over: lines that were not finished are said as they are.
    pub(crate) fn end(&self) {
        if !self.has_spoken.load(Ordering::Relaxed) {
            return;
        }
        let mut speech = self.speech();
        if speech.is_finished() {
            return;
        }
        let partial = mem::take(&mut speech.partial);
        drop(speech);
        for (channel, partial) in [Channel::Stdout, Channel::Stderr].into_iter().zip(partial) {
            if !partial.is_empty() {
                self.line(channel, &partial);
            }
        }
    }

    /// Says a line.
    pub(crate) fn log(&self, level: LogLevel, context: &str, message: &str) {
        let message = self.redactor.bounded(message, MESSAGE_BYTES_MAX);
        let context = self.redactor.bounded(context, CONTEXT_BYTES_MAX);
        let offset = Some(self.offset.load(Ordering::Relaxed)).filter(|offset| *offset != NO_OFFSET).map(Offset);
        let said_bytes = {
            let mut speech = self.speaks();
            if level == LogLevel::Critical && context == PANIC {
                speech.panic = Some(message.clone().into_owned());
            }
            speech.said_bytes = speech.said_bytes.saturating_add(message.len() + LINE_BYTES);
            speech.said_bytes
        };
        let admitted = said_bytes <= CALL_BYTES_MAX
            && self.usage.log_budget.draw(self.clock.now_ms(), self.lines_per_second) == Verdict::Say;
        if admitted {
            self.sink.log(LogLine { level, context: &context, message: &message, offset });
            return;
        }
        self.usage.log_budget.dropped();
        self.usage.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
        self.tell_dropped(offset);
    }

    /// Says how many lines were dropped, if there are any and it was not said a moment ago.
    fn tell_dropped(&self, offset: Option<Offset>) {
        let Some(dropped) = self.usage.log_budget.to_tell(self.clock.now_ms()) else { return };
        let message = format!(
            "{dropped} log lines were dropped: limits.log_rate allows {} a second, and a call {CALL_BYTES_MAX} bytes",
            self.lines_per_second,
        );
        self.sink.log(LogLine { level: LogLevel::Warn, context: "pelton", message: &message, offset });
    }

    /// What the guest said before it broke down: its panic message, or the end of its standard error.
    pub(crate) fn last_words(&self) -> Option<String> {
        let speech = self.speech();
        if speech.panic.is_some() {
            return speech.panic.clone();
        }
        let lines: Vec<&str> = speech.stderr_last.iter().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn write(&self, channel: Channel, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let mut line = mem::take(&mut self.speaks().partial[channel as usize]);
            line.extend_from_slice(&bytes[..end]);
            self.line(channel, &line);
            bytes = &bytes[end + 1..];
        }
        let mut speech = self.speaks();
        let partial = &mut speech.partial[channel as usize];
        partial.extend_from_slice(bytes);
        if partial.len() > MESSAGE_BYTES_MAX {
            let begun = partial.split_off(self.redactor.settled_bytes(partial));
            let line = mem::replace(partial, begun);
            drop(speech);
            self.line(channel, &line);
        }
    }

    fn line(&self, channel: Channel, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        match channel {
            Channel::Stdout => self.log(LogLevel::Info, "stdout", line),
            Channel::Stderr => {
                if !line.is_empty() {
                    let mut speech = self.speaks();
                    if speech.stderr_last.len() == LAST_LINES {
                        speech.stderr_last.pop_front();
                    }
                    speech.stderr_last.push_back(self.redactor.bounded(line, MESSAGE_BYTES_MAX).into_owned());
                }
                self.log(LogLevel::Warn, "stderr", line);
            }
        }
    }

    /// For what is said.
    fn speaks(&self) -> MutexGuard<'_, Speech> {
        self.has_spoken.store(true, Ordering::Relaxed);
        self.speech()
    }

    /// A sink that panicked leaves nothing half-done here, so a poisoned lock is as good as another.
    fn speech(&self) -> MutexGuard<'_, Speech> {
        self.speech.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speech {
    /// Whether no line is left without its end.
    fn is_finished(&self) -> bool {
        self.partial.iter().all(Vec::is_empty)
    }
}

/// Standard output or error of a guest, as a WASI stream.
#[derive(Clone)]
pub(crate) struct Stream {
    pub(crate) console: Arc<Console>,
    pub(crate) channel: Channel,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Only asked for by WASI p3, which is not linked; the adapter keeps the promise of the trait all the same.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.console.write(self.channel, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn log(&self, line: LogLine<'_>) {
            self.0.lock().expect("no test panics with it").push(format!("{}: {}", line.context, line.message));
        }
    }

    impl Lines {
        fn taken(&self) -> Vec<String> {
            mem::take(&mut self.0.lock().expect("no test panics with it"))
        }
    }

    fn console() -> (Arc<Lines>, Console) {
        let lines = Arc::<Lines>::default();
        let console =
            Console::new(Arc::<Lines>::clone(&lines), Arc::default(), 1_000_000, Clock::default(), Arc::default());
        (lines, console)
    }

    #[test]
    fn output_becomes_lines_wherever_it_is_cut_and_the_last_one_needs_no_end() {
        let (lines, console) = console();
        for part in ["on", "e\ntwo\r\nth", "ree"] {
            console.write(Channel::Stdout, part.as_bytes());
        }
        console.write(Channel::Stderr, b"\xffbad");
        assert_eq!(lines.taken(), ["stdout: one", "stdout: two"]);
        console.end();
        assert_eq!(lines.taken(), ["stdout: three", "stderr: \u{fffd}bad"]);
    }

    #[test]
    fn output_without_an_end_of_line_is_not_gathered_for_ever() {
        let (lines, console) = console();
        for _ in 0..100 {
            console.write(Channel::Stdout, &[b'x'; 1000]);
        }
        assert!(lines.taken().len() >= 100_000 / (MESSAGE_BYTES_MAX + 1000));
    }

    #[test]
    fn a_call_that_says_too_much_is_told_so_once_and_then_silent() {
        let (lines, console) = console();
        for _ in 0..100_000 {
            console.log(LogLevel::Info, "loop", "again and again");
        }
        let said = lines.taken();
        assert_eq!(said.len(), CALL_BYTES_MAX / ("again and again".len() + LINE_BYTES) + 1);
        assert!(said.last().is_some_and(|last| last.contains("dropped")));
        let dropped = console.usage.log_lines_dropped.load(Ordering::Relaxed);
        assert_eq!(dropped as usize + said.len() - 1, 100_000);
        console.begin(None);
        console.log(LogLevel::Info, "loop", "next call");
        assert_eq!(lines.taken(), ["loop: next call"]);
    }

    #[test]
    fn last_words_are_the_panic_message_or_else_the_end_of_standard_error() {
        let (_, console) = console();
        for line in 0..20 {
            console.write(Channel::Stderr, format!("line {line}\n").as_bytes());
        }
        let words = console.last_words().expect("there was something");
        assert!(words.starts_with("line 12") && words.ends_with("line 19"), "{words}");
        console.log(LogLevel::Critical, PANIC, "boom");
        assert_eq!(console.last_words().as_deref(), Some("boom"));
        console.begin(None);
        assert_eq!(console.last_words(), None);
    }
}
