//! Asking a running container its probes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::time::{Instant, sleep};

use crate::node::board::Board;
use crate::node::events::Events;
use crate::node::probe::{Check, ProbeError, Runner};

/// How often a container that is not ready yet is asked, whatever its period: so that a mesh is up in seconds.
const EAGER: Duration = Duration::from_millis(150);

/// The probes of a container.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    startup: Option<Check>,
    readiness: Option<Check>,
    liveness: Option<Check>,
}

/// A probe that cannot be carried out, with its name.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {source}")]
pub(crate) struct BadProbe {
    name: &'static str,
    source: ProbeError,
}

impl Checks {
    pub(crate) fn new(
        container: &Container,
        address: impl Fn(u16) -> std::net::IpAddr + Copy,
    ) -> Result<Self, BadProbe> {
        let one = |name, probe: &Option<Probe>| match probe {
            Some(probe) => {
                Check::new(probe, container, address).map(Some).map_err(|source| BadProbe { name, source })
            }
            None => Ok(None),
        };
        Ok(Self {
            startup: one("startupProbe", &container.startup_probe)?,
            readiness: one("readinessProbe", &container.readiness_probe)?,
            liveness: one("livenessProbe", &container.liveness_probe)?,
        })
    }

    /// Asks until the container has to be restarted; then returns which probe said so.
    pub(crate) async fn run(
        &self,
        pod: &Pod,
        board: &Board,
        index: usize,
        events: &Events,
        runner: &dyn Runner,
    ) -> &'static str {
        let place = Place { pod, board, index, events, runner };
        if let Some(startup) = &self.startup
            && !place.starts(startup).await
        {
            return "startup";
        }
        let readiness = self.readiness.clone();
        board.update(index, |report| {
            report.started = true;
            report.ready = readiness.is_none();
        });
        let ready = async {
            match &self.readiness {
                Some(check) => place.follow(check).await,
                None => std::future::pending().await,
            }
        };
        let alive = async {
            match &self.liveness {
                Some(check) => place.lives(check).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ready => {}
            () = alive => {}
        }
        "liveness"
    }
}

struct Place<'a> {
    pod: &'a Pod,
    board: &'a Board,
    index: usize,
    events: &'a Events,
    runner: &'a dyn Runner,
}

impl Place<'_> {
    /// Whether the start-up probe passes before it gives up.
    async fn starts(&self, check: &Check) -> bool {
        let mut tally = check.tally();
        let mut counted = Instant::now() + check.delay;
        loop {
            match check.ask(self.runner).await {
                Ok(()) => {
                    if tally.count(true) == Some(true) {
                        return true;
                    }
                }
                // Failures count at the probe's own pace, from its own delay on.
                Err(error) if Instant::now() >= counted => {
                    counted = Instant::now() + check.period;
                    self.unhealthy("Startup", &error);
                    if tally.count(false) == Some(false) {
                        return false;
                    }
                }
                Err(_) => {}
            }
            sleep(EAGER.min(check.period)).await;
        }
    }

    /// Keeps the report's readiness as the probe says, for ever.
    async fn follow(&self, check: &Check) {
        let mut tally = check.tally();
        let mut told = Instant::now() + check.delay.max(check.period);
        loop {
            let answer = check.ask(self.runner).await;
            if let Some(ready) = tally.count(answer.is_ok()) {
                self.board.update(self.index, |report| report.ready = ready);
            }
            if let Err(error) = answer
                && Instant::now() >= told
            {
                told = Instant::now() + check.period;
                self.unhealthy("Readiness", &error);
            }
            let ready = self.board.report(self.index).is_some_and(|report| report.ready);
            sleep(if ready { check.period } else { EAGER.min(check.period) }).await;
        }
    }

    /// Returns when the liveness probe gives the container up.
    async fn lives(&self, check: &Check) {
        let mut tally = check.tally();
        sleep(check.delay).await;
        loop {
            let answer = check.ask(self.runner).await;
            if let Err(error) = &answer {
                self.unhealthy("Liveness", error);
            }
            if tally.count(answer.is_ok()) == Some(false) {
                return;
            }
            sleep(check.period).await;
        }
    }

    fn unhealthy(&self, which: &str, error: &str) {
        self.events.warning(self.pod, "Unhealthy", format!("{which} probe failed: {error}"));
    }
}
