//! The status of a pod, from what its containers do. Pure; the words are those `kubectl get pod` shows.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Which of a pod's lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with restartPolicy Always: started in its turn, then running on.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Waiting { reason: &'static str, message: Option<String> },
    Running { since: Timestamp },
    Terminated(Exit),
}

/// How a container's process ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) message: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) container_id: String,
}

impl Exit {
    fn reason(&self) -> &'static str {
        if self.code == 0 { "Completed" } else { "Error" }
    }
}

/// One container as its supervisor sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) last: Option<Exit>,
    /// Started, and its start-up probe has passed.
    pub(crate) started: bool,
    /// Started, and its readiness probe passes.
    pub(crate) ready: bool,
    pub(crate) restarts: i32,
    pub(crate) id: Option<String>,
}

impl Report {
    pub(crate) fn new(name: &str, image: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            role,
            state: State::Waiting { reason: "PodInitializing", message: None },
            last: None,
            started: false,
            ready: false,
            restarts: 0,
            id: None,
        }
    }

    /// Whether what it is for has been reached in the order of init containers.
    pub(crate) fn is_passed(&self) -> bool {
        match self.role {
            Role::Init => matches!(&self.state, State::Terminated(exit) if exit.code == 0),
            Role::Sidecar => self.started,
            Role::Main => true,
        }
    }

    fn status(&self) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self
                .id
                .as_ref()
                .map_or_else(String::new, |_| format!("lateen://built-in/{}", self.image)),
            container_id: self.id.clone(),
            ready: match (self.role, &self.state) {
                (Role::Init, State::Terminated(exit)) => exit.code == 0,
                (Role::Init, _) => false,
                _ => self.ready,
            },
            restart_count: self.restarts,
            started: Some(self.started),
            ..ContainerStatus::default()
        };
        status.state = Some(state(&self.state));
        status.last_state = Some(match &self.last {
            Some(exit) => ContainerState { terminated: Some(terminated(exit)), ..ContainerState::default() },
            None => ContainerState::default(),
        });
        status
    }
}

fn state(state: &State) -> ContainerState {
    let mut out = ContainerState::default();
    match state {
        State::Waiting { reason, message } => {
            out.waiting =
                Some(ContainerStateWaiting { reason: Some((*reason).to_owned()), message: message.clone() });
        }
        State::Running { since } => {
            out.running = Some(ContainerStateRunning { started_at: Some(Time(*since)) });
        }
        State::Terminated(exit) => out.terminated = Some(terminated(exit)),
    }
    out
}

fn terminated(exit: &Exit) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(exit.container_id.clone()),
        exit_code: exit.code,
        finished_at: Some(Time(exit.finished)),
        message: exit.message.clone(),
        reason: Some(exit.reason().to_owned()),
        signal: exit.signal,
        started_at: Some(Time(exit.started)),
    }
}

/// What the node knows of a pod besides its containers.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: String,
    pub(crate) started: Timestamp,
    pub(crate) now: Timestamp,
    /// The pod is on its way out: nothing of it counts as ready.
    pub(crate) terminating: bool,
}

/// The status to publish. `former` keeps the times of conditions that did not change.
pub(crate) fn pod_status(spec: &PodSpec, reports: &[Report], facts: &Facts, former: &PodStatus) -> PodStatus {
    let initialized = reports.iter().all(|report| report.role == Role::Main || report.is_passed());
    let ready = initialized
        && !facts.terminating
        && reports.iter().filter(|report| report.role != Role::Init).all(|report| report.ready);
    let phase = phase(spec, reports, initialized);
    let of = |main: bool| -> Vec<ContainerStatus> {
        reports.iter().filter(|report| (report.role == Role::Main) == main).map(Report::status).collect()
    };
    let finished = matches!(phase, "Succeeded" | "Failed");
    let conditions = [
        ("PodReadyToStartContainers", !finished, ""),
        ("Initialized", initialized, "ContainersNotInitialized"),
        ("Ready", ready, if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" }),
        ("ContainersReady", ready, if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" }),
        ("PodScheduled", true, ""),
    ];
    let unready = unready(reports);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(
            conditions
                .map(|(kind, holds, reason)| condition(kind, holds, reason, &unready, facts, former))
                .to_vec(),
        ),
        container_statuses: Some(of(true)),
        init_container_statuses: Some(of(false)).filter(|statuses| !statuses.is_empty()),
        host_ip: Some(facts.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: facts.host_ip.clone() }]),
        pod_ip: facts.pod_ip.clone(),
        pod_ips: facts.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        qos_class: Some(qos_class(spec).to_owned()),
        start_time: Some(former.start_time.clone().unwrap_or(Time(facts.started))),
        ..PodStatus::default()
    }
}

fn phase(spec: &PodSpec, reports: &[Report], initialized: bool) -> &'static str {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let init_failed = |report: &Report| {
        report.role == Role::Init && matches!(&report.state, State::Terminated(exit) if exit.code != 0)
    };
    if !initialized {
        return if policy == "Never" && reports.iter().any(init_failed) { "Failed" } else { "Pending" };
    }
    let main: Vec<&Report> = reports.iter().filter(|report| report.role == Role::Main).collect();
    let ended = |report: &&Report| match &report.state {
        State::Terminated(exit) => Some(exit.code),
        _ => None,
    };
    let codes: Option<Vec<i32>> = main.iter().map(ended).collect();
    match codes {
        Some(codes) if policy != "Always" && codes.iter().all(|code| *code == 0) => "Succeeded",
        Some(_) if policy == "Never" => "Failed",
        Some(_) => "Running",
        None if main.iter().any(|report| never_ran(report)) => "Pending",
        None => "Running",
    }
}

fn never_ran(report: &Report) -> bool {
    matches!(report.state, State::Waiting { .. }) && report.last.is_none()
}

fn unready(reports: &[Report]) -> String {
    let names = |wanted: &dyn Fn(&&Report) -> bool| -> Vec<&str> {
        reports.iter().filter(wanted).map(|report| &*report.name).collect()
    };
    let init = names(&|report| report.role != Role::Main && !report.is_passed());
    if !init.is_empty() {
        return format!("containers with incomplete status: [{}]", init.join(" "));
    }
    let main = names(&|report| report.role != Role::Init && !report.ready);
    format!("containers with unready status: [{}]", main.join(" "))
}

fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    facts: &Facts,
    former: &PodStatus,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let before = former.conditions.iter().flatten().find(|one| one.type_ == kind && one.status == status);
    let said = !holds && !reason.is_empty() && reason != "PodCompleted";
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: before
            .and_then(|one| one.last_transition_time.clone())
            .or(Some(Time(facts.now))),
        reason: (!holds && !reason.is_empty()).then(|| reason.to_owned()),
        message: said.then(|| message.to_owned()),
        ..PodCondition::default()
    }
}

/// Guaranteed when every container has equal limits and requests, BestEffort when none has any.
fn qos_class(spec: &PodSpec) -> &'static str {
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let named = |container: &k8s_openapi::api::core::v1::Container| {
        let resources = container.resources.clone().unwrap_or_default();
        (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default())
    };
    if all().map(named).all(|(limits, requests)| limits.is_empty() && requests.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = all().map(named).all(|(limits, requests)| {
        ["cpu", "memory"].iter().all(|name| limits.contains_key(*name))
            && (requests.is_empty() || requests == limits)
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(policy: &str) -> PodSpec {
        serde_json::from_value(json!({"restartPolicy": policy, "containers": [{"name": "app"}]})).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            pod_ip: Some("127.10.0.10".into()),
            host_ip: "127.10.0.1".into(),
            started: Timestamp::UNIX_EPOCH,
            now: Timestamp::UNIX_EPOCH,
            terminating: false,
        }
    }

    fn main(name: &str) -> Report {
        let mut report = Report::new(name, "x/y", Role::Main);
        report.state = State::Running { since: Timestamp::UNIX_EPOCH };
        (report.started, report.ready) = (true, true);
        report
    }

    fn exit(code: i32) -> Exit {
        let at = Timestamp::UNIX_EPOCH;
        let container_id = "lateen://1".to_owned();
        Exit { code, signal: None, message: None, started: at, finished: at, container_id }
    }

    fn phase_of(policy: &str, reports: &[Report]) -> String {
        pod_status(&spec(policy), reports, &facts(), &PodStatus::default()).phase.unwrap()
    }

    fn condition_of(status: &PodStatus, kind: &str) -> String {
        status.conditions.iter().flatten().find(|one| one.type_ == kind).unwrap().status.clone()
    }

    #[test]
    fn a_pod_is_ready_when_all_of_it_is() {
        let status =
            pod_status(&spec("Always"), &[main("app"), main("istio-proxy")], &facts(), &PodStatus::default());
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(condition_of(&status, "Ready"), "True");
        let mut slow = main("istio-proxy");
        slow.ready = false;
        let status = pod_status(&spec("Always"), &[main("app"), slow], &facts(), &status);
        assert_eq!(condition_of(&status, "Ready"), "False");
        assert_eq!(condition_of(&status, "Initialized"), "True");
        let message = status.conditions.iter().flatten().find_map(|one| one.message.clone());
        assert_eq!(message.unwrap(), "containers with unready status: [istio-proxy]");
    }

    #[test]
    fn phases_follow_the_restart_policy() {
        let ended = |code| {
            let mut report = main("app");
            report.state = State::Terminated(exit(code));
            report
        };
        assert_eq!(phase_of("Never", &[ended(0)]), "Succeeded");
        assert_eq!(phase_of("Never", &[ended(1)]), "Failed");
        assert_eq!(phase_of("OnFailure", &[ended(1)]), "Running");
        assert_eq!(phase_of("Always", &[ended(0)]), "Running");
    }

    #[test]
    fn an_unknown_image_leaves_the_pod_pending() {
        let mut report = Report::new("app", "redis", Role::Main);
        report.state = State::Waiting { reason: "ErrImagePull", message: None };
        assert_eq!(phase_of("Always", &[report.clone()]), "Pending");
        let mut running = Report::new("istio-proxy", "proxyv2", Role::Main);
        running.state = State::Running { since: Timestamp::UNIX_EPOCH };
        assert_eq!(phase_of("Always", &[running, report.clone()]), "Pending", "one has never run");
        report.state = State::Waiting { reason: "CrashLoopBackOff", message: None };
        report.last = Some(exit(1));
        assert_eq!(phase_of("Always", &[report]), "Running");
    }

    #[test]
    fn init_containers_come_first() {
        let mut init = Report::new("istio-init", "proxyv2", Role::Init);
        let waiting = Report::new("app", "x", Role::Main);
        assert_eq!(phase_of("Always", &[init.clone(), waiting.clone()]), "Pending");
        init.state = State::Terminated(exit(0));
        let mut sidecar = Report::new("istio-proxy", "proxyv2", Role::Sidecar);
        let status = pod_status(
            &spec("Always"),
            &[init.clone(), sidecar.clone(), waiting],
            &facts(),
            &PodStatus::default(),
        );
        assert_eq!(condition_of(&status, "Initialized"), "False");
        sidecar.started = true;
        let status =
            pod_status(&spec("Always"), &[init, sidecar, main("app")], &facts(), &PodStatus::default());
        assert_eq!(condition_of(&status, "Initialized"), "True");
        // The native sidecar counts for readiness, the finished init container does not.
        assert_eq!(condition_of(&status, "Ready"), "False");
        assert_eq!(status.init_container_statuses.unwrap().len(), 2);
    }

    #[test]
    fn conditions_keep_their_time_until_they_change() {
        let first = pod_status(&spec("Always"), &[main("app")], &facts(), &PodStatus::default());
        let mut later = facts();
        later.now = Timestamp::from_second(100).unwrap();
        let second = pod_status(&spec("Always"), &[main("app")], &later, &first);
        assert_eq!(first.conditions, second.conditions);
        later.terminating = true;
        let third = pod_status(&spec("Always"), &[main("app")], &later, &second);
        assert_eq!(condition_of(&third, "Ready"), "False");
    }
}
