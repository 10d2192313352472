//! How a workload answers: what the header `x-do` asks for.

use std::time::Duration;

/// What one request asks a workload to do. Without any wish: status 200, body `hello`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// The status.
    pub(crate) status: Option<u16>,
    /// How long to wait before the head of the answer.
    pub(crate) delay: Duration,
    /// End the connection (HTTP/2: the stream) without an answer.
    pub(crate) reset: bool,
    /// Never answer.
    pub(crate) hang: bool,
    /// More response headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Option<String>,
    /// So many bytes of body.
    pub(crate) size: Option<usize>,
    /// The body in that many pieces, with that pause before each.
    pub(crate) pieces: Option<(usize, Duration)>,
    /// Break off in the middle of the body.
    pub(crate) cut: bool,
    /// Trailers.
    pub(crate) trailers: Vec<(String, String)>,
    /// The request's body is the answer's.
    pub(crate) echo: bool,
    /// Answer before the request's body came.
    pub(crate) early: bool,
    /// Take an upgrade, and give back what comes.
    pub(crate) upgrade: bool,
}

impl Behaviour {
    /// Reads wishes such as `status=503;delay=200ms;until=2;on=a-v1`: `until=N` limits them to the first N requests of a
    /// call, `on=POD` to a workload. `attempt` counts from 0.
    pub(crate) fn read(text: &str, pod: &str, attempt: usize) -> Result<Self, String> {
        let mut out = Self::default();
        let mut holds = true;
        for wish in text.split(';').filter(|wish| !wish.is_empty()) {
            let (key, value) = wish.split_once('=').unwrap_or((wish, ""));
            let bad = || format!("x-do: {wish:?} cannot be read");
            match key {
                "until" => holds &= attempt < value.parse().map_err(|_| bad())?,
                "on" => holds &= value.split(',').any(|other| other == pod),
                "status" => out.status = Some(value.parse().map_err(|_| bad())?),
                "delay" => out.delay = millis(value).ok_or_else(bad)?,
                "reset" => out.reset = true,
                "hang" => out.hang = true,
                "h" => out.headers.push(pair(value).ok_or_else(bad)?),
                "large" => {
                    let size = value.parse().map_err(|_| bad())?;
                    out.headers.push(("x-large".to_owned(), "x".repeat(size)));
                }
                "trailer" => out.trailers.push(pair(value).ok_or_else(bad)?),
                "body" => out.body = Some(value.to_owned()),
                "size" => out.size = Some(value.parse().map_err(|_| bad())?),
                "pieces" => {
                    let (count, pause) = value.split_once('/').ok_or_else(bad)?;
                    out.pieces = Some((count.parse().map_err(|_| bad())?, millis(pause).ok_or_else(bad)?));
                }
                "cut" => out.cut = true,
                "echo" => out.echo = true,
                "early" => out.early = true,
                "upgrade" => out.upgrade = true,
                _ => return Err(format!("x-do: unknown wish {wish:?}")),
            }
        }
        Ok(if holds { out } else { Self::default() })
    }

    /// The body's pieces, each after its pause.
    pub(crate) fn pieces(&self, request: &str) -> Vec<(Duration, String)> {
        let whole = match (&self.body, self.size, self.echo) {
            (Some(body), _, _) => body.clone(),
            (None, Some(size), _) => "x".repeat(size),
            (None, None, true) => request.to_owned(),
            (None, None, false) => "hello".to_owned(),
        };
        match self.pieces {
            Some((count, pause)) => (0..count).map(|_| (pause, whole.clone())).collect(),
            None => vec![(Duration::ZERO, whole)],
        }
    }
}

fn millis(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    Some((name.to_owned(), value.to_owned()))
}
