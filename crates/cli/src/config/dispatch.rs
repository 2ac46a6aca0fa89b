//! In which order work is granted, as the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_model::config::{self as keys, Value};
use kapell_node::{DispatchSettings, Order, Quota};

use super::Settings;

/// What the keys under `dispatch` say.
pub(super) fn of(settings: &Settings) -> DispatchSettings {
    let order = match settings.text(&keys::DISPATCH_ORDER).as_str() {
        "round-robin" => Order::RoundRobin,
        "age" => Order::Age,
        _ => Order::Fair,
    };
    let weights = settings.named("dispatch.namespaces").into_iter();
    let weights = weights.filter_map(|(namespace, key, value)| match (key, value) {
        ("weight", Value::Number(weight)) => {
            Some((Arc::from(namespace), u32::try_from(*weight).ok()?))
        }
        _ => None,
    });
    let mut quotas: BTreeMap<Arc<str>, Quota> = BTreeMap::new();
    for (namespace, key, value) in settings.named("dispatch.namespaces") {
        let Value::Number(bound) = value else {
            continue;
        };
        let mut of = |set: fn(&mut Quota) -> &mut Option<u64>, bound: u64| {
            *set(quotas.entry(namespace.into()).or_default()) = Some(bound);
        };
        match key {
            "steps" => of(|quota| &mut quota.steps, *bound),
            "cpu" => of(|quota| &mut quota.cpu_millis, bound.saturating_mul(1_000)),
            "gpu" => of(|quota| &mut quota.gpus, *bound),
            _ => {}
        }
    }
    let aging = settings.span(&keys::DISPATCH_AGING);
    DispatchSettings {
        order,
        weights: weights.collect(),
        quotas,
        aging_micros: i64::try_from(aging.as_micros()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> DispatchSettings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kapell.toml");
        std::fs::write(&file, text).unwrap();
        of(&Settings::read(Some(file), |_| None, &[]).unwrap())
    }

    #[test]
    fn nothing_said_is_fair_with_aging() {
        let dispatch = read("");
        assert_eq!(dispatch.order, Order::Fair);
        assert_eq!(
            dispatch.aging_micros,
            DispatchSettings::default().aging_micros
        );
        assert!(dispatch.weights.is_empty());
        assert!(dispatch.quotas.is_empty());
    }

    #[test]
    fn order_aging_and_weights_are_taken() {
        let dispatch = read(
            "[dispatch]\norder = \"age\"\naging = \"0s\"\n\
             [dispatch.namespaces.etl]\nweight = 3\nsteps = 20\ncpu = 16\ngpu = 0\n",
        );
        assert_eq!(dispatch.order, Order::Age);
        assert_eq!(dispatch.aging_micros, 0);
        assert_eq!(dispatch.weights[&Arc::from("etl")], 3);
        let quota = Quota {
            steps: Some(20),
            cpu_millis: Some(16_000),
            gpus: Some(0),
        };
        assert_eq!(dispatch.quotas[&Arc::from("etl")], quota);
    }
}
