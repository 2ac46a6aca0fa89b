//! Definitions as they are registered.

use kapell_model::Time;
use kapell_store::VersionRow;

use crate::world::NAMESPACE;

/// A definition as it is registered.
pub(crate) fn version_row(
    definition: &serde_json::Value,
    created_at: Time,
) -> Result<VersionRow, String> {
    let text = definition.to_string();
    let parsed = kapell_model::parse("sim.yaml", &text);
    let Some(spec) = parsed.spec else {
        let problems: Vec<String> = parsed
            .diagnostics
            .iter()
            .map(|problem| {
                let around = text.get(problem.span.clone()).unwrap_or("");
                format!("{} `{around}`", problem.message)
            })
            .collect();
        return Err(format!("{}\n{text}", problems.join("\n")));
    };
    let stored = serde_json::to_string(&*spec).map_err(|error| error.to_string())?;
    Ok(VersionRow {
        namespace: NAMESPACE.into(),
        workflow: spec.workflow.clone(),
        version: 1,
        hash: blake3::hash(text.as_bytes()).to_hex().as_str().into(),
        spec: stored.into(),
        source: text.into(),
        bundle: None,
        created_at,
        author: "".into(),
    })
}
