//! What containers print: one file per run of a container, rotated, the one before kept.
//!
//! A line is stored as `TIME STREAM TEXT`, so that `--timestamps` and `--since` can be answered.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A file larger than this is put aside; one such piece is kept.
const ROTATE_AT: u64 = 10 << 20;
/// A longer line is split.
const LONGEST_LINE: usize = 64 << 10;

/// The log files of one container: `RUN.log`, and `RUN.log.1` for the piece before.
#[derive(Clone, Debug)]
pub(crate) struct LogFolder {
    path: PathBuf,
}

impl LogFolder {
    pub(crate) fn new(pod: &Path, container: &str) -> Self {
        Self { path: pod.join("logs").join(container) }
    }

    /// Opens the log of run `run`, for both streams; forgets runs before the previous one.
    pub(crate) fn start(&self, run: i32) -> io::Result<LogWriter> {
        fs::create_dir_all(&self.path)?;
        for entry in fs::read_dir(&self.path)?.flatten() {
            if run_of(&entry.path()).is_none_or(|old| old + 1 < run) {
                fs::remove_file(entry.path())?;
            }
        }
        LogWriter::open(self.file(run))
    }

    /// The latest run that has a log, or the one before.
    pub(crate) fn latest(&self, previous: bool) -> Option<i32> {
        let mut runs: Vec<i32> =
            fs::read_dir(&self.path).ok()?.flatten().filter_map(|entry| run_of(&entry.path())).collect();
        runs.sort_unstable();
        runs.dedup();
        if previous { runs.iter().rev().nth(1).copied() } else { runs.last().copied() }
    }

    pub(crate) fn file(&self, run: i32) -> PathBuf {
        self.path.join(format!("{run}.log"))
    }
}

fn run_of(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// Appends lines to a log file. Clones write to the same file.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    inner: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogWriter {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { inner: Arc::new(Mutex::new(Open { path, file, size })) })
    }

    /// A line of the node's own.
    pub(crate) fn say(&self, text: &str) {
        self.write("stdout", &[text.as_bytes()]);
    }

    /// Copies a stream to the log until its end.
    pub(crate) async fn copy(self, stream: &'static str, mut from: impl AsyncRead + Unpin) {
        let mut pending: Vec<u8> = Vec::new();
        let mut chunk = vec![0; 16 << 10];
        while let Ok(count) = from.read(&mut chunk).await {
            if count == 0 {
                break;
            }
            pending.extend_from_slice(&chunk[..count]);
            let end = match pending.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => last + 1,
                None if pending.len() >= LONGEST_LINE => pending.len(),
                None => continue,
            };
            let rest = pending.split_off(end);
            self.write_text(stream, &pending);
            pending = rest;
        }
        if !pending.is_empty() {
            self.write_text(stream, &pending);
        }
    }

    fn write_text(&self, stream: &str, text: &[u8]) {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        self.write(stream, &lines);
    }

    fn write(&self, stream: &str, lines: &[&[u8]]) {
        let head = format!("{:.9} {stream} ", crate::instant::now());
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(head.as_bytes());
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        if let Err(error) = self.inner.lock().append(&text) {
            tracing::warn!(%error, "cannot write a container's log");
        }
    }
}

impl Open {
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size > ROTATE_AT {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        self.size += text.len() as u64;
        self.file.write_all(text)
    }
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// What a reader of a log wants of it (`kubectl logs`' flags).
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQuery {
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
}

/// A log from its beginning on; [`LogReader::more`] reads on where the last call ended.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    query: LogQuery,
    file: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl LogReader {
    pub(crate) fn open(path: PathBuf, query: LogQuery) -> Self {
        Self { path, query, file: None, partial: Vec::new() }
    }

    /// All lines that are there now, the rotated piece included.
    pub(crate) fn begin(&mut self) -> io::Result<Vec<u8>> {
        let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
        let tail = self.query.tail.unwrap_or(usize::MAX);
        for path in [rotated(&self.path), self.path.clone()] {
            let Ok(file) = File::open(&path) else { continue };
            let mut reader = BufReader::new(file);
            while let Some(line) = self.next_line(&mut reader)? {
                lines.push_back(line);
                if lines.len() > tail {
                    lines.pop_front();
                }
            }
            self.file = Some(reader);
        }
        Ok(lines.into_iter().flatten().collect())
    }

    /// Lines written since, also after a rotation.
    pub(crate) fn more(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Some(mut reader) = self.file.take() else { return self.begin() };
        while let Some(line) = self.next_line(&mut reader)? {
            out.extend(line);
        }
        self.file = Some(reader);
        if self.was_rotated()? {
            let mut reader = BufReader::new(File::open(&self.path)?);
            while let Some(line) = self.next_line(&mut reader)? {
                out.extend(line);
            }
            self.file = Some(reader);
        }
        Ok(out)
    }

    fn was_rotated(&mut self) -> io::Result<bool> {
        let Some(reader) = &mut self.file else { return Ok(false) };
        let at = reader.stream_position()?;
        let end = reader.get_mut().seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(at))?;
        use std::os::unix::fs::MetadataExt;
        let open = reader.get_ref().metadata()?;
        Ok(at >= end && fs::metadata(&self.path).is_ok_and(|now| now.ino() != open.ino()))
    }

    /// The next whole line in the form asked for; none at the end.
    fn next_line(&mut self, reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
        loop {
            reader.by_ref().read_until(b'\n', &mut self.partial)?;
            if self.partial.last() != Some(&b'\n') {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.partial);
            if let Some(line) = self.shaped(&line) {
                return Ok(Some(line));
            }
        }
    }

    fn shaped(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (time, _stream, text) = (parts.next()?, parts.next()?, parts.next()?);
        if let Some(since) = self.query.since {
            let at: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
            if at < since {
                return None;
            }
        }
        if self.query.timestamps { Some([time, b" ", text].concat()) } else { Some(text.to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn lines_are_kept_and_the_run_before_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path(), "app");
        for run in 0..3 {
            let writer = folder.start(run).unwrap();
            writer.copy("stdout", format!("run {run}\nhalf").as_bytes()).await;
        }
        assert_eq!(folder.latest(false), Some(2));
        assert_eq!(folder.latest(true), Some(1));
        assert!(!folder.file(0).exists());
        let mut reader = LogReader::open(folder.file(1), LogQuery::default());
        assert_eq!(text(reader.begin().unwrap()), "run 1\nhalf\n");
    }

    #[test]
    fn a_reader_follows_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path(), "app");
        let writer = folder.start(0).unwrap();
        writer.say("one");
        writer.say("two");
        let mut reader = LogReader::open(folder.file(0), LogQuery { tail: Some(1), ..LogQuery::default() });
        assert_eq!(text(reader.begin().unwrap()), "two\n");
        writer.inner.lock().size = ROTATE_AT + 1;
        writer.say("three");
        assert_eq!(text(reader.more().unwrap()), "three\n");
        assert_eq!(text(reader.more().unwrap()), "");
        let mut whole = LogReader::open(folder.file(0), LogQuery::default());
        assert_eq!(text(whole.begin().unwrap()), "one\ntwo\nthree\n");
    }

    #[test]
    fn lines_carry_their_time_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(dir.path(), "app");
        folder.start(0).unwrap().say("a b");
        let timestamps = LogQuery { timestamps: true, ..LogQuery::default() };
        let line = text(LogReader::open(folder.file(0), timestamps).begin().unwrap());
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(rest, "a b\n");
        let later = crate::instant::now() + std::time::Duration::from_secs(3600);
        let since = LogQuery { since: Some(later), ..LogQuery::default() };
        assert_eq!(text(LogReader::open(folder.file(0), since).begin().unwrap()), "");
    }
}
