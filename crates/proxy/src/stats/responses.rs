//! Figures of responses by status, for clusters and routes.

use std::ops::Deref;
use std::sync::OnceLock;

use super::figures::{CheckedStats, ClassFigures, ClusterFigures, HttpStats, RouteFigures};
use super::{Figure, Kind};

impl HttpStats {
    /// Counts a response.
    pub(crate) fn count_status(&self, status: u16) {
        self.downstream_rq_completed.inc();
        match status / 100 {
            1 => self.downstream_rq_1xx.inc(),
            2 => self.downstream_rq_2xx.inc(),
            3 => self.downstream_rq_3xx.inc(),
            4 => self.downstream_rq_4xx.inc(),
            5 => self.downstream_rq_5xx.inc(),
            _ => {}
        }
    }
}

/// `cluster.NAME.*`
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    figures: ClusterFigures,
    responses: ResponseStats,
    /// Made when a request for it is checked first.
    checked: OnceLock<Box<CheckedStats>>,
}

impl ClusterStats {
    /// Calls `with` with every figure.
    pub(crate) fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.figures.each(&mut with);
        self.responses.each(&mut with);
        if let Some(checked) = self.checked.get() {
            checked.each(|name, kind, value| with(&format!("ext_authz.{name}"), kind, value));
        }
    }

    /// What authorization services said about requests for the cluster.
    pub(crate) fn checked(&self) -> &CheckedStats {
        self.checked.get_or_init(Box::default)
    }

    /// Counts a response of the cluster, or of ours in its place.
    pub(crate) fn count_status(&self, status: u16) {
        self.responses.count(status);
    }
}

impl Deref for ClusterStats {
    type Target = ClusterFigures;

    fn deref(&self) -> &ClusterFigures {
        &self.figures
    }
}

/// `vhost.NAME.route.PREFIX.*`
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    figures: RouteFigures,
    responses: ResponseStats,
}

impl RouteStats {
    /// Calls `with` with every figure.
    pub(super) fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.figures.each(&mut with);
        self.responses.each(&mut with);
    }

    /// Counts a response.
    pub(crate) fn count_status(&self, status: u16) {
        self.responses.count(status);
    }
}

impl Deref for RouteStats {
    type Target = RouteFigures;

    fn deref(&self) -> &RouteFigures {
        &self.figures
    }
}

/// `upstream_rq_2xx`, `upstream_rq_200` and the like.
#[derive(Debug, Default)]
struct ResponseStats {
    classes: ClassFigures,
    /// Of single statuses; made when the first response comes.
    statuses: OnceLock<Box<[Figure]>>,
}

/// The first status, and how many there are.
const STATUSES: (u16, usize) = (100, 500);

impl ResponseStats {
    fn count(&self, status: u16) {
        let (first, count) = STATUSES;
        let figures =
            self.statuses.get_or_init(|| std::iter::repeat_with(Figure::default).take(count).collect());
        if let Some(figure) = status.checked_sub(first).and_then(|at| figures.get(usize::from(at))) {
            figure.inc();
        }
        let classes = &self.classes;
        classes.upstream_rq_completed.inc();
        match status / 100 {
            1 => classes.upstream_rq_1xx.inc(),
            2 => classes.upstream_rq_2xx.inc(),
            3 => classes.upstream_rq_3xx.inc(),
            4 => classes.upstream_rq_4xx.inc(),
            5 => classes.upstream_rq_5xx.inc(),
            _ => {}
        }
    }

    /// Calls `with` with every class, and every status that was seen.
    fn each(&self, with: &mut impl FnMut(&str, Kind, u64)) {
        self.classes.each(&mut *with);
        let figures = self.statuses.get().map_or(&[][..], |figures| figures);
        for (status, figure) in (STATUSES.0..).zip(figures) {
            if figure.value() > 0 {
                with(&format!("upstream_rq_{status}"), Kind::Counter, figure.value());
            }
        }
    }
}
