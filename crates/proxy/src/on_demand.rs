//! Clusters that requests ask for: workers wait, the control thread asks the control plane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

/// How many clusters may be waited for at a time: their names come from requests.
const MOST: usize = 1000;

/// The clusters that are asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    open: Mutex<HashMap<Arc<str>, watch::Sender<State>>>,
    questions: mpsc::UnboundedSender<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    answered: bool,
}

/// Questions, for the control thread.
pub(crate) type Questions = mpsc::UnboundedReceiver<Arc<str>>;

impl Asked {
    /// Nothing is asked for yet.
    pub(crate) fn new() -> (Self, Questions) {
        let (questions, inbox) = mpsc::unbounded_channel();
        (Self { open: Mutex::default(), questions }, inbox)
    }

    /// Asks for a cluster, unless somebody has. `None` when nobody will answer.
    pub(crate) fn ask(&self, cluster: &str) -> Option<Wait> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(cluster) {
            return Some(Wait(known.subscribe()));
        }
        if open.len() >= MOST {
            open.retain(|_, waiting| waiting.receiver_count() > 0);
            if open.len() >= MOST {
                return None;
            }
        }
        let name: Arc<str> = cluster.into();
        self.questions.send(name.clone()).ok()?;
        let (tell, wait) = watch::channel(State::default());
        open.insert(name, tell);
        Some(Wait(wait))
    }

    /// The cluster is there, or is known not to be; whether somebody had asked.
    pub(crate) fn answer(&self, cluster: &str) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.remove(cluster) {
            Some(waiting) => {
                waiting.send_replace(State { answered: true });
                true
            }
            None => false,
        }
    }

    /// Whether anybody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Answers for those clusters that `known` has.
    pub(crate) fn answer_known(&self, known: impl Fn(&str) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|name, waiting| {
            let there = known(name);
            if there {
                waiting.send_replace(State { answered: true });
            }
            !there
        });
    }
}

/// Somebody who waits for a cluster.
#[derive(Debug)]
pub(crate) struct Wait(watch::Receiver<State>);

impl Wait {
    /// Whether there is an answer.
    pub(crate) fn is_over(&self) -> bool {
        self.0.borrow().answered
    }

    /// Waits for it.
    pub(crate) async fn changed(&mut self) {
        // A question that nobody holds any more has no answer.
        if self.0.changed().await.is_err() && !self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
