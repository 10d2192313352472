//! Watch streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::handler::{partial, write_object};
use super::negotiate::Form;
use super::response::{self, Body};
use super::table;
use crate::object::Object;
use crate::resource::Resource;
use crate::store::Change;
use crate::watch::{Changes, Cursor};

/// Between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(15);
/// A watch without `timeoutSeconds` ends after this and up to twice this, so that not all clients come back at once.
const LIFE_SECONDS: u64 = 1800;

/// What the client asked for.
pub(super) struct Settings {
    pub(super) form: Form,
    pub(super) include_object: String,
    pub(super) bookmarks: bool,
    /// `sendInitialEvents`: a bookmark tells when the objects there were have been sent.
    pub(super) initial_bookmark: bool,
    pub(super) timeout_seconds: Option<u64>,
}

struct Stream {
    cursor: Cursor,
    resource: Arc<Resource>,
    settings: Settings,
    stopped: tokio::sync::watch::Receiver<bool>,
    end: Instant,
    next_bookmark: Instant,
    told: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Start,
    Running,
    Over,
}

pub(super) fn answer(
    cursor: Cursor,
    resource: Arc<Resource>,
    settings: Settings,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Response<Body> {
    let life =
        settings.timeout_seconds.unwrap_or_else(|| rand::rng().random_range(LIFE_SECONDS..LIFE_SECONDS * 2));
    let now = Instant::now();
    let stream = Stream {
        told: cursor.position,
        cursor,
        resource,
        settings,
        stopped,
        end: now + Duration::from_secs(life.min(LIFE_SECONDS * 48)),
        next_bookmark: now + BOOKMARKS,
        state: State::Start,
    };
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, io::Error>(chunk), stream))
    });
    response::stream("application/json", chunks)
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        match self.state {
            State::Over => return None,
            State::Start => {
                self.state = State::Running;
                if let Some(chunk) = self.initial() {
                    return Some(chunk);
                }
            }
            State::Running => {}
        }
        loop {
            let wake = self.end.min(self.next_bookmark);
            let changes = tokio::select! {
                biased;
                () = crate::server::until(&mut self.stopped) => return None,
                changes = self.cursor.next() => Some(changes),
                () = tokio::time::sleep_until(wake) => None,
            };
            if let Some(changes) = changes {
                return self.changes(changes);
            }
            if Instant::now() >= self.end {
                return None;
            }
            self.next_bookmark = Instant::now() + BOOKMARKS;
            if self.settings.bookmarks
                && let Some(chunk) = self.bookmark()
            {
                return Some(chunk);
            }
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let objects = self.cursor.take_initial()?;
        let mut out = Vec::new();
        for object in &objects {
            self.event("ADDED", object, &mut out);
        }
        self.told = self.cursor.position;
        if self.settings.initial_bookmark {
            self.write_bookmark(true, &mut out);
        }
        // Without events the head of the response goes out with the first chunk all the same.
        (!out.is_empty()).then(|| out.into())
    }

    fn changes(&mut self, changes: Result<Option<Changes>, crate::Status>) -> Option<Bytes> {
        let mut out = Vec::new();
        match changes {
            Ok(None) => return None,
            Ok(Some(changes)) => {
                for (change, object) in changes {
                    let word = match change {
                        Change::Added => "ADDED",
                        Change::Modified => "MODIFIED",
                        Change::Deleted => "DELETED",
                    };
                    self.event(word, &object, &mut out);
                }
            }
            Err(status) => {
                self.state = State::Over;
                line("ERROR", status.to_json().to_string().as_bytes(), &mut out);
            }
        }
        self.told = self.cursor.position;
        Some(out.into())
    }

    fn event(&self, word: &str, object: &Object, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match self.settings.form {
            Form::Plain => write_object(object, &self.resource, &mut body),
            Form::Metadata => body = partial(object.value(&self.resource)).to_string().into_bytes(),
            Form::Table => {
                let table = table::table(&self.resource, &[object], &self.settings.include_object, None);
                body = table.to_string().into_bytes();
            }
        }
        line(word, &body, out);
    }

    /// Tells how far the client has come, when that is news.
    fn bookmark(&mut self) -> Option<Bytes> {
        self.cursor.advance();
        if self.cursor.position <= self.told {
            return None;
        }
        self.told = self.cursor.position;
        let mut out = Vec::new();
        self.write_bookmark(false, &mut out);
        Some(out.into())
    }

    fn write_bookmark(&self, initial: bool, out: &mut Vec<u8>) {
        let mut metadata =
            json!({"resourceVersion": self.cursor.position.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.settings.form {
            Form::Table => table::bookmark(&metadata),
            Form::Metadata => partial(json!({"metadata": metadata})),
            Form::Plain => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
        };
        line("BOOKMARK", object.to_string().as_bytes(), out);
    }
}

fn line(word: &str, object: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}
