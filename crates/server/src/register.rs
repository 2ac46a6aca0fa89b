//! From a file's text to a version in the store.

use std::sync::Arc;

use kapell_api::http::RegisterWorkflow;
use kapell_expr::BlobRef;
use kapell_model::spec::Spec;
use kapell_model::{Error, ErrorCode, Time};
use kapell_store::VersionRow;

/// The namespace of everything that is registered here.
pub const NAMESPACE: &str = "default";

/// Parses the text again, whoever sent it, and makes the row of its version; with what it means.
pub(crate) fn checked(
    workflow: &RegisterWorkflow,
    now: Time,
) -> Result<(VersionRow, Arc<Spec>), Error> {
    let parsed = kapell_model::parse(&workflow.file, &workflow.source);
    let Some(spec) = parsed.spec else {
        let errors: Vec<_> = parsed
            .diagnostics
            .iter()
            .filter(|problem| problem.is_error())
            .collect();
        let first = errors.first().map_or_else(String::new, |first| {
            format!(
                ": line {}, column {}: {}",
                first.line, first.column, first.message
            )
        });
        let count = match errors.len() {
            1 => "a problem".to_owned(),
            count => format!("{count} problems"),
        };
        return Err(Error::new(
            ErrorCode::BadDefinition,
            format!("`{}` has {count}{first}", workflow.file),
        )
        .hint("`kapell validate FILE` shows them all"));
    };
    let bad = |error: serde_json::Error| Error::new(ErrorCode::Internal, error.to_string());
    let text = serde_json::to_string(&*spec).map_err(bad)?;
    let bundle = workflow
        .bundle
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .map_err(bad)?;
    let row = VersionRow {
        namespace: NAMESPACE.into(),
        workflow: spec.workflow.clone(),
        version: 0,
        hash: version_hash(&text, workflow.bundle.as_ref()).into(),
        spec: text.into(),
        source: workflow.source.as_str().into(),
        bundle: bundle.map(Into::into),
        created_at: now,
        author: workflow.by.as_str().into(),
    };
    Ok((row, spec))
}

/// The hash of a version: BLAKE3 over the normalised definition and the hash of its bundle's list.
pub fn version_hash(spec: &str, bundle: Option<&BlobRef>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(spec.len() as u64).to_le_bytes());
    hasher.update(spec.as_bytes());
    if let Some(bundle) = bundle {
        hasher.update(bundle.hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
