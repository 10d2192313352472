//! Verbs of istioctl's that are not supported yet, and what does something of theirs.
//!
//! The list is asked only for what the command line refuses: an entry that is supported by now has no effect.

/// A verb, and what to use in its place where something fits.
struct Verb {
    words: &'static [&'static str],
    instead: &'static str,
}

const fn verb(words: &'static [&'static str], instead: &'static str) -> Verb {
    Verb { words, instead }
}

const DESCRIBE: &str =
    "`lateen explain` tells where a call goes and why, `kubectl describe` shows the objects";
const CHECK_INJECT: &str = "`kubectl get namespace --show-labels` and the pod's labels decide; `lateen kube-inject -f FILE` shows the outcome";
const REMOTE: &str = "several clusters in one mesh need it";
const DASHBOARD: &str = "`kubectl port-forward` reaches a program's port";
const AMBIENT: &str = "ambient mode is not part of it; pods get sidecars";

/// The longest words first, so that a group's own entry comes last.
const VERBS: &[Verb] = &[
    verb(&["add-to-mesh"], "`lateen kube-inject -f FILE` puts proxies into pods"),
    verb(&["kube-uninject"], "pods without the label for injection come without a proxy"),
    verb(&["options"], ""),
    verb(&["remove-from-mesh"], "pods without the label for injection come without a proxy"),
    verb(&["version"], "it is `lateen version`"),
    verb(&["analyze"], "`lateen validate -f FILE` checks manifests"),
    verb(
        &["admin", "log"],
        "`kubectl -n istio-system port-forward deploy/istiod 9876`, then `curl -X PUT localhost:9876/scopej/ads -d '{\"output_level\":\"debug\"}'`",
    ),
    verb(&["admin"], ""),
    verb(
        &["bug-report"],
        "`lateen proxy-status`, `lateen proxy-config all POD` and `lateen logs` show what it would collect",
    ),
    verb(&["check-inject"], CHECK_INJECT),
    verb(&["completion"], ""),
    verb(&["config"], "flags and KUBECONFIG say what it would keep"),
    verb(&["create-remote-secret"], REMOTE),
    verb(&["remote-clusters"], REMOTE),
    verb(&["dashboard"], DASHBOARD),
    verb(&["dash"], DASHBOARD),
    verb(&["d"], DASHBOARD),
    verb(&["describe"], DESCRIBE),
    verb(&["des"], DESCRIBE),
    verb(&["envoy-stats"], "`kubectl exec POD -c istio-proxy -- pilot-agent request GET stats` prints them"),
    verb(&["es"], "`kubectl exec POD -c istio-proxy -- pilot-agent request GET stats` prints them"),
    verb(&["injector"], "`kubectl get mutatingwebhookconfigurations` shows the injectors"),
    verb(
        &["internal-debug"],
        "the control plane's port 15014 answers `/debug`; `kubectl port-forward` reaches it",
    ),
    verb(
        &["metrics"],
        "`kubectl exec POD -c istio-proxy -- pilot-agent request GET stats/prometheus` prints them",
    ),
    verb(&["operator"], "Istio removed its operator; `lateen install -f FILE` reads IstioOperator files"),
    verb(&["proxy-status"], "it is `lateen proxy-status`"),
    verb(&["ps"], "it is `lateen proxy-status`"),
    verb(&["revision"], "`lateen tag list` shows revisions with names"),
    verb(&["verify-install"], "`lateen manifest diff` compares, `lateen version` asks the control plane"),
    verb(&["wait"], "`lateen proxy-status` shows how far each proxy follows"),
    verb(&["waypoint"], AMBIENT),
    verb(&["workload"], "WorkloadEntry and WorkloadGroup objects are applied with kubectl"),
    verb(&["ztunnel-config"], AMBIENT),
    verb(&["zc"], AMBIENT),
];

/// Flags of every command that have a value as their next word.
const WITH_VALUE: &[&str] = &["--kubeconfig", "--context", "--namespace", "-n", "--istioNamespace", "-i"];

/// What to say of a command line that was refused, when a verb of istioctl's is the reason.
pub(crate) fn explain(program: &str, args: &[&str]) -> Option<String> {
    let words = words(args);
    let group = matches!(words.first(), Some(&("x" | "experimental" | "exp")));
    let asked = &words[usize::from(group)..];
    let verb = VERBS.iter().find(|verb| asked.starts_with(verb.words))?;
    let prefix = if group { "x " } else { "" };
    let mut text = format!("{program} {prefix}{} is not supported yet", verb.words.join(" "));
    if !verb.instead.is_empty() {
        text = format!("{text}; {}", verb.instead);
    }
    Some(text)
}

/// The words of a command line that are no flags.
fn words<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut args = args.iter();
    while let Some(word) = args.next() {
        if WITH_VALUE.contains(word) {
            args.next();
        } else if !word.starts_with('-') {
            words.push(*word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_that_is_missing_is_said_with_what_fits() {
        let said = |line: &str| explain("istioctl", &line.split(' ').collect::<Vec<_>>());
        let text = said("-n default x envoy-stats productpage").unwrap();
        assert!(text.starts_with("istioctl x envoy-stats is not supported yet; `kubectl exec"), "{text}");
        assert!(said("waypoint list").unwrap().contains("ambient"));
        assert_eq!(said("completion bash").unwrap(), "istioctl completion is not supported yet");
        assert_eq!(said("no-such-verb"), None);
    }

    #[test]
    fn the_whole_verb_comes_before_its_group() {
        for (at, verb) in VERBS.iter().enumerate() {
            let earlier = VERBS[..at].iter().find(|one| verb.words.starts_with(one.words));
            assert!(earlier.is_none(), "{:?} is never found", verb.words);
        }
    }
}
