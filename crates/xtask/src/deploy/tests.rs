use std::collections::BTreeSet;

use gtmpl_ng::Value as Given;
use serde_json::json;

use super::*;
use crate::root;

#[test]
fn what_is_in_the_folder_fits_together() {
    let chart = Chart::read(&root()).unwrap();
    assert_eq!(problems(&root(), &chart).unwrap(), Vec::<String>::new());
    let cases: Vec<&str> = chart.cases.keys().map(String::as_str).collect();
    assert_eq!(cases, ["all", "default", "empty", "pools"]);
}

#[test]
fn each_kind_of_object_comes_of_some_values() {
    let chart = Chart::read(&root()).unwrap();
    let rendered =
        ["all", "default", "empty"].map(|case| chart.render(&chart.cases[case]).unwrap().objects);
    for (kind, all, default, empty) in [
        ("StatefulSet", 1, 1, 1),
        ("Deployment", 2, 1, 0),
        ("Service", 2, 2, 2),
        ("ServiceAccount", 1, 1, 1),
        ("PodDisruptionBudget", 3, 2, 1),
        ("Secret", 3, 0, 0),
        ("ScaledObject", 1, 0, 0),
        ("HorizontalPodAutoscaler", 1, 0, 0),
        ("ServiceMonitor", 1, 0, 0),
        ("PrometheusRule", 2, 0, 0),
        ("ConfigMap", 1, 0, 0),
        ("NetworkPolicy", 2, 0, 0),
        ("Ingress", 1, 0, 0),
    ] {
        let count = |all: &Vec<Value>| {
            let all = all.iter();
            all.filter(|object| objects::kind(object) == kind).count()
        };
        let found = rendered.each_ref().map(count);
        assert_eq!(found, [all, default, empty], "{kind}");
    }
}

#[test]
fn values_of_a_pool_go_before_those_of_all_pools() {
    let chart = Chart::read(&root()).unwrap();
    let rendered = chart.render(&chart.cases["pools"]).unwrap();
    let pool = |name: &str| {
        let mut all = rendered.objects.iter();
        let found = all.find(|object| object["metadata"]["name"] == name);
        found.unwrap()["spec"].clone()
    };
    assert_eq!(pool("prod-kapell-default")["replicas"], 3);
    let reports = pool("prod-kapell-reports");
    assert_eq!(reports["replicas"], json!(null));
    let pod = &reports["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 630);
    let args = [
        "worker",
        "--slots",
        "2",
        "--grace",
        "600",
        "--pool",
        "reports",
        "--label",
        "pool=reports",
    ];
    assert_eq!(pod["containers"][0]["args"], json!(args));
    // What it does not say it has from all.
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "4Gi");
}

/// A chart whose objects are changed has the problem that the change makes.
#[test]
fn what_does_not_fit_is_found() {
    let chart = Chart::read(&root()).unwrap();
    let values = &chart.cases["all"];
    let outside = objects::outside(values);
    let text = serde_json::to_string(&chart.render(values).unwrap().objects).unwrap();
    for (from, to, problem) in [
        (
            "\"serviceName\":\"flows-nodes\"",
            "\"serviceName\":\"flows\"",
            "its pods have no names",
        ),
        ("KAPELL_STORE", "KAPELL_STOER", "Kapell does not know"),
        (
            "\"targetPort\":\"api\"",
            "\"targetPort\":\"http\"",
            "leads to no port",
        ),
        (
            "\"key\":\"url\",\"name\":\"flows-database\"",
            "\"key\":\"url\",\"name\":\"flows\"",
            "no Secret",
        ),
        ("\"key\":\"url\"", "\"key\":\"uri\"", "no Secret"),
        (
            "\"matchLabels\":{\"pool\":\"flows-gpu\"}",
            "\"matchLabels\":{\"pool\":\"flows\"}",
            "nothing records",
        ),
        ("policy/v1", "policy/v1beta1", "no such kind"),
        (
            "\"mountPath\":\"/tmp\",\"name\":\"tmp\"",
            "\"mountPath\":\"/tmp\",\"name\":\"temp\"",
            "other volumes",
        ),
        (
            "\"port\":\"api\",\"scheme\"",
            "\"port\":\"web\",\"scheme\"",
            "asks at no port",
        ),
        (
            "\"runAsNonRoot\":true",
            "\"runAsNonRoot\":false",
            "may run as root",
        ),
        (
            "\"terminationGracePeriodSeconds\":60",
            "\"terminationGracePeriodSeconds\":30",
            "killed before",
        ),
        (
            "\"kapell/pool\":\"gpu\"",
            "\"kapell/pool\":\"gpu x\"",
            "the label",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let changed: Vec<Value> = serde_json::from_str(&text.replace(from, to)).unwrap();
        let found = objects::problems(&changed, &outside);
        assert!(
            found.iter().any(|found| found.contains(problem)),
            "{from}: {found:?}"
        );
    }
}

#[test]
fn a_metric_or_label_that_is_not_there_is_found() {
    let known = Known::read(&kapell_server::metrics::reference_markdown());
    let problems = |expression: &str| known.used(expression).1;
    let fine = r#"sum by (le) (rate(kapell_run_duration_seconds_bucket{workflow=~"a,b"}[5m]))"#;
    assert_eq!(problems(fine), Vec::<String>::new());
    for (expression, problem) in [
        (
            "sum(kapell_runs_total)",
            "no server has a metric kapell_runs_total",
        ),
        (
            "kapell_run_duration_seconds",
            "no server has a metric kapell_run_duration_seconds",
        ),
        (
            r#"kapell_runs{status="x",queue="q"}"#,
            "kapell_runs has no label queue",
        ),
        ("up == 0", "it asks for nothing: up == 0"),
    ] {
        assert!(
            problems(expression).contains(&problem.to_owned()),
            "{expression}"
        );
    }
}

#[test]
fn prometheus_takes_rules_and_panels() {
    let dashboard = read_json(&root(), "deploy/grafana/kapell.json").unwrap();
    if !tools::promtool(&root(), &dashboard).unwrap() {
        eprintln!("skipped: no promtool (on Debian and Ubuntu in the package prometheus)");
    }
}

#[test]
fn yaml_is_read_as_all_readers_read_it() {
    let text = "a: &a { b: 1, c: [x, 'on', 1.5] }\nd: { <<: *a, b: 2 }\n---\n- true\n- ~\n- '01'\n";
    let read = yaml::documents(text).unwrap();
    let first = json!({"b": 1, "c": ["x", "on", 1.5]});
    let second = json!({"b": 2, "c": ["x", "on", 1.5]});
    assert_eq!(read[0], json!({"a": first, "d": second}));
    assert_eq!(read[1], json!([true, null, "01"]));
    for text in ["a: yes", "a: 0440", "a: 1\na: 2", "a: [", "a: !!str 1"] {
        assert!(yaml::documents(text).is_err(), "{text}");
    }
}

/// What Go's templates give with sprig's functions.
#[test]
fn templates_have_helms_functions() {
    for (template, expected) in [
        (r#"{{ default "a" "" }}{{ default "a" "b" }}"#, "ab"),
        (
            r#"{{ "0123456789" | trunc 4 }}{{ "ab-" | trimSuffix "-" }}"#,
            "0123ab",
        ),
        (r#"{{ quote "a\"b" }}{{ 1 | quote }}"#, r#""a\"b""1""#),
        (
            "{{ .n | toString }} {{ .n | int64 }} {{ .big | toString }}",
            "30 30 1e+06",
        ),
        (r#"{{ kindIs "float64" .n }}{{ add .n 30 }}"#, "true60"),
        (
            r#"{{ join "," (list "a" 1) }}{{ contains "b" "abc" }}"#,
            "a,1true",
        ),
        (
            r#"{{ toYaml (dict "b" (list 1 "x") "a" dict) | nindent 2 }}"#,
            "\n  \"a\": {}\n  \"b\": \n    - 1\n    - \"x\"",
        ),
        (
            r#"{{ $m := mergeOverwrite (dict "a" 1 "b" (dict "c" true "d" 1)) (dict "b" (dict "c" false)) }}{{ toYaml $m }}"#,
            "\"a\": 1\n\"b\": \n  \"c\": false\n  \"d\": 1",
        ),
    ] {
        let number = |number: f64| Given::Number(gtmpl_ng::Number::float(number));
        let context = Given::Map(
            [
                ("n".to_owned(), number(30.0)),
                ("big".to_owned(), number(1_000_000.0)),
            ]
            .into(),
        );
        let given = functions::rendered(template, &context).unwrap();
        assert_eq!(given, expected, "{template}");
    }
}

#[test]
fn compose_parts_that_do_not_fit_are_found() {
    let text = read(&root(), "deploy/compose.yml").unwrap();
    for (from, to, problem) in [
        ("  ops-token:\n", "", "the volume ops-token is not named"),
        (
            "[\"127.0.0.1:7421:7420\"]",
            "[\"127.0.0.1:7420:7420\"]",
            "or taken",
        ),
        ("hostname: node2", "hostname: node3", "do not reach it"),
        (",http://node3:7420", "", "workers ask"),
        (
            "./grafana/kapell.json",
            "./grafana/board.json",
            "there is no",
        ),
        (
            "KAPELL_SERVER_INSECURE",
            "KAPELL_SERVER_UNSAFE",
            "does not know",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let file = yaml::document(&text.replacen(from, to, 1)).unwrap();
        let found: BTreeSet<String> = compose::problems(&root().join("deploy"), &file)
            .into_iter()
            .collect();
        assert!(
            found.iter().any(|found| found.contains(problem)),
            "{from}: {found:?}"
        );
    }
}

#[test]
fn an_image_that_starts_nothing_is_found() {
    assert_eq!(of_image("").len(), 3);
    let file = read(&root(), "deploy/Dockerfile").unwrap();
    let changed = file.replace("KAPELL_DATA_DIR", "KAPELL_DATA");
    assert_eq!(
        of_image(&changed),
        ["Dockerfile: Kapell does not know KAPELL_DATA"]
    );
}
