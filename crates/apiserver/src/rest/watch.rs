//! Watch streams.

use std::collections::VecDeque;
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
use crate::api::Api;
use crate::object::Object;
use crate::rendered;
use crate::resource::Resource;
use crate::status::Status;
use crate::store::Change;
use crate::watch::Cursor;

/// Between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(15);
/// A watch without `timeoutSeconds` ends after this and up to twice this, so that not all clients come back at once.
const LIFE_SECONDS: u64 = 1800;

/// Bytes after which what is to be told goes out.
const CHUNK: usize = 64 << 10;

/// What the client asked for.
pub(super) struct Settings {
    pub(super) form: Form,
    pub(super) include_object: String,
    /// `allowWatchBookmarks`.
    pub(super) bookmarks: bool,
    /// `sendInitialEvents`: a bookmark tells when the objects there were have been sent.
    pub(super) initial_bookmark: bool,
    pub(super) timeout_seconds: Option<u64>,
}

struct Stream {
    api: Arc<Api>,
    cursor: Cursor,
    resource: Arc<Resource>,
    settings: Settings,
    stopped: tokio::sync::watch::Receiver<bool>,
    end: Instant,
    next_bookmark: Instant,
    told: u64,
    /// What is to be told before anything else is asked for.
    queue: VecDeque<(Change, Arc<Object>)>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// The objects there are.
    Initial,
    Running,
    Over,
}

pub(super) fn answer(
    api: Arc<Api>,
    mut cursor: Cursor,
    resource: Arc<Resource>,
    settings: Settings,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Response<Body> {
    let life =
        settings.timeout_seconds.unwrap_or_else(|| rand::rng().random_range(LIFE_SECONDS..LIFE_SECONDS * 2));
    let now = Instant::now();
    let initial = cursor.take_initial().unwrap_or_default();
    let stream = Stream {
        api,
        told: cursor.position,
        cursor,
        resource,
        settings,
        stopped,
        end: now + Duration::from_secs(life.min(LIFE_SECONDS * 48)),
        next_bookmark: now + BOOKMARKS,
        queue: initial.into_iter().map(|object| (Change::Added, object)).collect(),
        state: State::Initial,
    };
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, io::Error>(chunk), stream))
    });
    response::stream("application/json", chunks)
}

/// A watch that cannot begin where it was asked to.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let mut out = Vec::new();
    line("ERROR", status.to_json().to_string().as_bytes(), &mut out);
    response::json_bytes(200, out)
}

impl Stream {
    /// Part of the answer. Nothing is worked out before the client has taken what came before.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if *self.stopped.borrow() {
                return None;
            }
            if let Some(chunk) = self.queued() {
                return Some(chunk);
            }
            match self.state {
                State::Over => return None,
                State::Initial => {
                    self.state = State::Running;
                    self.told = self.cursor.position;
                    if self.settings.initial_bookmark {
                        return Some(self.bookmark(true));
                    }
                }
                State::Running => {
                    if let Some(chunk) = self.wait().await {
                        return Some(chunk);
                    }
                }
            }
        }
    }

    /// Waits for changes, for the time of a bookmark, and for the end.
    async fn wait(&mut self) -> Option<Bytes> {
        let wake = self.end.min(self.next_bookmark);
        let changes = tokio::select! {
            biased;
            () = crate::server::until(&mut self.stopped) => {
                self.state = State::Over;
                return None;
            }
            changes = self.cursor.next() => Some(changes),
            () = tokio::time::sleep_until(wake) => None,
        };
        match changes {
            Some(Ok(Some(changes))) => {
                self.queue.extend(changes);
                None
            }
            Some(Ok(None)) => {
                self.state = State::Over;
                None
            }
            // The client is too slow: it has to list again.
            Some(Err(status)) => {
                self.state = State::Over;
                let mut out = Vec::new();
                line("ERROR", status.to_json().to_string().as_bytes(), &mut out);
                Some(out.into())
            }
            None => {
                let now = Instant::now();
                if now >= self.end {
                    self.state = State::Over;
                }
                self.next_bookmark = now + BOOKMARKS;
                self.news().then(|| self.bookmark(false))
            }
        }
    }

    /// Some of what is queued.
    fn queued(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < CHUNK
            && let Some((change, object)) = self.queue.pop_front()
        {
            let word = match change {
                Change::Added => "ADDED",
                Change::Modified => "MODIFIED",
                Change::Deleted => "DELETED",
            };
            self.event(word, &object, &mut out);
        }
        if self.queue.is_empty() {
            self.told = self.cursor.position;
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn event(&self, word: &str, object: &Object, out: &mut Vec<u8>) {
        let form = match self.settings.form {
            Form::Plain if !crate::convert::differs(&self.resource) => {
                begin(word, out);
                write_object(object, &self.resource, out);
                return end(out);
            }
            Form::Plain => rendered::Form::Object,
            Form::Metadata => rendered::Form::Metadata,
            Form::Table => rendered::Form::Table {
                include: self.settings.include_object.clone(),
                second: time::OffsetDateTime::now_utc().unix_timestamp(),
            },
        };
        let key = rendered::Key {
            resource_version: object.resource_version,
            resource: self.resource.clone(),
            form,
        };
        line(word, &self.api.rendered.of(key, || self.render(object)), out);
    }

    fn render(&self, object: &Object) -> Vec<u8> {
        match self.settings.form {
            Form::Plain => {
                let mut out = Vec::new();
                write_object(object, &self.resource, &mut out);
                out
            }
            Form::Metadata => partial(object.value(&self.resource)).to_string().into_bytes(),
            Form::Table => {
                let table = table::table(&self.resource, &[object], &self.settings.include_object, None);
                table.to_string().into_bytes()
            }
        }
    }

    /// Whether a bookmark would tell the client anything.
    fn news(&mut self) -> bool {
        if self.settings.bookmarks {
            self.cursor.advance();
        }
        self.settings.bookmarks && self.cursor.position > self.told
    }

    /// Tells how far the client has come.
    fn bookmark(&mut self, initial: bool) -> Bytes {
        self.told = self.cursor.position;
        let mut out = Vec::new();
        self.write_bookmark(initial, &mut out);
        out.into()
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
    begin(word, out);
    out.extend_from_slice(object);
    end(out);
}

fn begin(word: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}
