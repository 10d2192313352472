//! Where a pod's containers report what they do.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node::status::{Report, State};

/// The reports of one pod's containers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    reports: Arc<Mutex<Vec<Report>>>,
    changed: watch::Sender<()>,
}

impl Board {
    pub(crate) fn new(reports: Vec<Report>) -> Self {
        Self { reports: Arc::new(Mutex::new(reports)), changed: watch::Sender::new(()) }
    }

    /// What all containers do now.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.reports.lock().clone()
    }

    /// What one container does now.
    pub(crate) fn report(&self, index: usize) -> Option<Report> {
        self.reports.lock().get(index).cloned()
    }

    /// Tells of a change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes a container's report.
    pub(crate) fn update(&self, index: usize, change: impl FnOnce(&mut Report)) {
        let mut reports = self.reports.lock();
        let Some(report) = reports.get_mut(index) else { return };
        let before = report.clone();
        change(report);
        let differs = *report != before;
        drop(reports);
        if differs {
            self.changed.send_replace(());
        }
    }

    /// A container waits, for this reason.
    pub(crate) fn waiting(&self, index: usize, reason: &'static str, message: impl Into<Option<String>>) {
        let message = message.into();
        self.update(index, |report| {
            report.state = State::Waiting { reason, message };
            (report.started, report.ready) = (false, false);
        });
    }

    /// Waits until a container's report is as wanted.
    pub(crate) async fn until(&self, index: usize, wanted: impl Fn(&Report) -> bool) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.report(index).is_none_or(|report| wanted(&report)) || changes.changed().await.is_err() {
                return;
            }
        }
    }
}
