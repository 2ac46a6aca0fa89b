//! What must hold among the objects of the chart, and that no schema sees: names that are referred to are
//! there, selectors find what they are for, variables and commands are known.

use std::collections::BTreeSet;

use kapell_model::config::KEYS;
use serde_json::{Map, Value};

use super::chart::NAMESPACE;

/// What the chart may make.
const KINDS: [(&str, &str); 13] = [
    ("ConfigMap", "v1"),
    ("Deployment", "apps/v1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2"),
    ("Ingress", "networking.k8s.io/v1"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
    ("PodDisruptionBudget", "policy/v1"),
    ("PrometheusRule", "monitoring.coreos.com/v1"),
    ("ScaledObject", "keda.sh/v1alpha1"),
    ("Secret", "v1"),
    ("Service", "v1"),
    ("ServiceAccount", "v1"),
    ("ServiceMonitor", "monitoring.coreos.com/v1"),
    ("StatefulSet", "apps/v1"),
];

/// Variables that are no keys of the configuration.
const VARIABLES: [&str; 4] = [
    "KAPELL_CA",
    "KAPELL_CONFIG",
    "KAPELL_SERVER",
    "KAPELL_TOKEN",
];

/// True for a variable that Kapell reads.
pub(super) fn is_known(variable: &str) -> bool {
    let of_keys = KEYS.iter().any(|key| {
        key.variable == Some(variable) || key.environment().as_deref() == Some(variable)
    });
    of_keys || VARIABLES.contains(&variable) || variable.starts_with("KAPELL_SECRET_")
}

/// All objects of one release, and the problems found in them.
pub(super) struct Objects<'a> {
    all: &'a [Value],
    /// Secrets that are there already, with their keys.
    outside: &'a BTreeSet<(String, String)>,
    problems: Vec<String>,
}

/// Everything that does not hold.
pub(super) fn problems(all: &[Value], outside: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut objects = Objects {
        all,
        outside,
        problems: Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for object in all {
        objects.about(object);
        let name = named(object);
        if !seen.insert(name.clone()) {
            objects.problem(&name, "is there twice");
        }
        match kind(object) {
            "Deployment" | "StatefulSet" => objects.workload(object),
            "Service" => objects.service(object),
            "PodDisruptionBudget" => {
                let found = objects.selected(&object["spec"]["selector"]["matchLabels"]);
                if found != 1 {
                    objects.problem(&name, &format!("selects {found} workloads"));
                }
            }
            "NetworkPolicy" => {
                let found = objects.selected(&object["spec"]["podSelector"]["matchLabels"]);
                let none = found == 0 && objects.any("Deployment");
                if none {
                    objects.problem(&name, "selects no pods");
                }
            }
            "HorizontalPodAutoscaler" | "ScaledObject" => objects.scaler(object),
            "ServiceMonitor" => objects.monitor(object),
            "Ingress" => objects.ingress(object),
            _ => {}
        }
    }
    objects.problems
}

pub(super) fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn named(object: &Value) -> String {
    format!("{} {}", kind(object), name(object))
}

/// The pod that a workload makes.
pub(super) fn pod(object: &Value) -> &Value {
    &object["spec"]["template"]
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// True if a selector has something to find, and all of it is among these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
    })
}

/// As names of objects, and of parts of names under which they are reached.
fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_label(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends(text.chars().next())
        && ends(text.chars().last())
}

impl Objects<'_> {
    fn problem(&mut self, of: &str, what: &str) {
        self.problems.push(format!("{of}: {what}"));
    }

    fn any(&self, wanted: &str) -> bool {
        self.all.iter().any(|object| kind(object) == wanted)
    }

    fn find(&self, wanted: &str, called: &str) -> Option<&Value> {
        let mut all = self.all.iter();
        all.find(|object| kind(object) == wanted && name(object) == called)
    }

    fn workloads(&self) -> impl Iterator<Item = &Value> {
        let is_one = |object: &&Value| matches!(kind(object), "Deployment" | "StatefulSet");
        self.all.iter().filter(is_one)
    }

    /// How many workloads have pods with these labels.
    fn selected(&self, selector: &Value) -> usize {
        self.workloads()
            .filter(|object| selects(selector, &pod(object)["metadata"]["labels"]))
            .count()
    }

    fn about(&mut self, object: &Value) {
        let of = named(object);
        let version = object["apiVersion"].as_str().unwrap_or_default();
        if !KINDS.contains(&(kind(object), version)) {
            self.problem(&of, &format!("`{version}` has no such kind here"));
        }
        if !is_name(name(object)) {
            self.problem(&of, "this is no name");
        }
        let labels = [
            &object["metadata"]["labels"],
            &pod(object)["metadata"]["labels"],
        ];
        for (key, value) in labels.into_iter().filter_map(Value::as_object).flatten() {
            if !value.as_str().is_some_and(is_label) {
                self.problem(&of, &format!("the label {key} cannot be {value}"));
            }
        }
        if object["metadata"]["labels"]["app.kubernetes.io/instance"].is_null() {
            self.problem(&of, "it is not said whose it is");
        }
    }

    fn workload(&mut self, object: &Value) {
        let of = named(object);
        let selector = &object["spec"]["selector"]["matchLabels"];
        if self.selected(selector) != 1 {
            self.problem(&of, "its selector finds other pods than its own");
        }
        let spec = &pod(object)["spec"];
        let account = spec["serviceAccountName"].as_str().unwrap_or("default");
        if account != "default" && self.find("ServiceAccount", account).is_none() {
            self.problem(&of, &format!("there is no service account {account}"));
        }
        if spec["automountServiceAccountToken"] != false {
            self.problem(&of, "its pods have a token of Kubernetes");
        }
        if spec["securityContext"]["runAsNonRoot"] != true {
            self.problem(&of, "its pods may run as root");
        }
        for constraint in list(&spec["topologySpreadConstraints"]) {
            if constraint["labelSelector"]["matchLabels"] != *selector {
                self.problem(&of, "it is spread by other labels than its own");
            }
        }
        let grace = spec["terminationGracePeriodSeconds"].as_i64();
        for container in list(&spec["containers"]) {
            self.container(&of, spec, container);
            let asked = list(&container["args"]).iter();
            let mut asked = asked.skip_while(|argument| *argument != "--grace").skip(1);
            let asked = asked.next().and_then(Value::as_str);
            if asked.and_then(|asked| asked.parse().ok()) >= grace {
                self.problem(&of, "it is killed before its grace is over");
            }
        }
        if kind(object) != "StatefulSet" {
            return;
        }
        let domain = object["spec"]["serviceName"].as_str().unwrap_or_default();
        let headless = self.find("Service", domain);
        if headless.is_none_or(|service| service["spec"]["clusterIP"] != "None") {
            self.problem(&of, "its pods have no names");
        }
        let reached = format!("://$(POD_NAME).{domain}.{NAMESPACE}.svc:7420");
        let env = list(&spec["containers"][0]["env"]);
        let said = env
            .iter()
            .find(|variable| variable["name"] == "KAPELL_SERVER_ADVERTISE")
            .and_then(|variable| variable["value"].as_str());
        if !said.is_some_and(|said| said.ends_with(&reached)) {
            self.problem(
                &of,
                &format!("its nodes do not say that they are at {reached}"),
            );
        }
    }

    fn container(&mut self, of: &str, pod: &Value, container: &Value) {
        let context = &container["securityContext"];
        if context["allowPrivilegeEscalation"] != false || context["readOnlyRootFilesystem"] != true
        {
            self.problem(of, "its container may do too much");
        }
        if container["image"]
            .as_str()
            .is_none_or(|image| !image.contains(':'))
        {
            self.problem(of, "its image has no version");
        }
        let names = |value: &Value| -> BTreeSet<String> {
            let names = list(value).iter().filter_map(|one| one["name"].as_str());
            names.map(str::to_owned).collect()
        };
        if names(&container["volumeMounts"]) != names(&pod["volumes"]) {
            self.problem(of, "it has other volumes than it uses");
        }
        let ports = names(&container["ports"]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port = &container[probe]["httpGet"]["port"];
            if !port.is_null() && !port.as_str().is_some_and(|port| ports.contains(port)) {
                self.problem(of, &format!("the {probe} asks at no port of it"));
            }
        }
        let mut seen = BTreeSet::new();
        for variable in list(&container["env"]) {
            let name = variable["name"].as_str().unwrap_or_default();
            if !seen.insert(name) {
                self.problem(of, &format!("{name} is said twice"));
            }
            if name.starts_with("KAPELL_") && !is_known(name) {
                self.problem(of, &format!("Kapell does not know {name}"));
            }
            let secret = &variable["valueFrom"]["secretKeyRef"];
            if !secret.is_null() {
                let text = |key: &str| secret[key].as_str().unwrap_or_default().to_owned();
                let wanted = (text("name"), text("key"));
                let made = self.find("Secret", &wanted.0);
                let made = made.is_some_and(|made| made["stringData"][&wanted.1].is_string());
                if made == self.outside.contains(&wanted) {
                    self.problem(of, &format!("{name}: no Secret {wanted:?}, or two"));
                }
            }
        }
    }

    fn service(&mut self, object: &Value) {
        let of = named(object);
        let selector = &object["spec"]["selector"];
        if self.selected(selector) != 1 {
            self.problem(&of, "finds no pods, or too many");
        }
        for port in list(&object["spec"]["ports"]) {
            let target = &port["targetPort"];
            let found = self.workloads().any(|workload| {
                let pod = pod(workload);
                selects(selector, &pod["metadata"]["labels"])
                    && list(&pod["spec"]["containers"])
                        .iter()
                        .flat_map(|container| list(&container["ports"]))
                        .any(|port| port["name"] == *target)
            });
            if !found {
                self.problem(&of, &format!("leads to no port {target}"));
            }
        }
    }

    fn scaler(&mut self, object: &Value) {
        let of = named(object);
        let target = object["spec"]["scaleTargetRef"]["name"].as_str();
        match self.find("Deployment", target.unwrap_or_default()) {
            None => self.problem(&of, "there is nothing to scale"),
            Some(target) if !target["spec"]["replicas"].is_null() => {
                self.problem(&of, "the chart says how many replicas there are too");
            }
            Some(_) => {}
        }
        for metric in list(&object["spec"]["metrics"]) {
            let metric = &metric["external"]["metric"];
            let rules = self
                .all
                .iter()
                .filter(|rule| kind(rule) == "PrometheusRule");
            let groups = rules.flat_map(|rule| list(&rule["spec"]["groups"]));
            let recorded = groups.flat_map(|group| list(&group["rules"])).any(|rule| {
                rule["record"] == metric["name"]
                    && selects(&metric["selector"]["matchLabels"], &rule["labels"])
            });
            if !recorded {
                self.problem(&of, "nothing records what it goes by");
            }
        }
    }

    fn monitor(&mut self, object: &Value) {
        let of = named(object);
        let selector = &object["spec"]["selector"]["matchLabels"];
        let mut found = self.all.iter().filter(|object| {
            kind(object) == "Service" && selects(selector, &object["metadata"]["labels"])
        });
        let (Some(service), None) = (found.next(), found.next()) else {
            self.problem(&of, "finds no Service, or two: all would be counted twice");
            return;
        };
        let ports = list(&service["spec"]["ports"]);
        for endpoint in list(&object["spec"]["endpoints"]) {
            if !ports.iter().any(|port| port["name"] == endpoint["port"]) {
                self.problem(&of, "asks at a port that the Service lacks");
            }
        }
    }

    fn ingress(&mut self, object: &Value) {
        let of = named(object);
        let rules = list(&object["spec"]["rules"]).iter();
        for path in rules.flat_map(|rule| list(&rule["http"]["paths"])) {
            let to = &path["backend"]["service"];
            let service = self.find("Service", to["name"].as_str().unwrap_or_default());
            let ports = service.map_or(&[][..], |service| list(&service["spec"]["ports"]));
            if !ports.iter().any(|port| port["name"] == to["port"]["name"]) {
                self.problem(&of, "leads nowhere");
            }
        }
    }
}

/// The Secrets that values name as being there already, with their keys.
pub(super) fn outside(values: &Value) -> BTreeSet<(String, String)> {
    let sections = [
        ("database", "url"),
        ("secretsKey", "value"),
        ("token", "value"),
    ];
    sections
        .iter()
        .filter_map(|(section, given)| {
            let section: &Map<String, Value> = values[section].as_object()?;
            let text = |key: &str| section.get(key).and_then(Value::as_str).unwrap_or_default();
            let exists = text(given).is_empty();
            exists.then(|| (text("existingSecret").to_owned(), text("key").to_owned()))
        })
        .collect()
}
