//! Files that steps gave.

use std::io::Write;
use std::sync::Arc;

use kapell_api::client::{ArtifactCalls, DebugCalls, Result, RunCalls};
use kapell_api::http::{Evaluate, RecordQuery};
use kapell_api::record::{Record, StepRecord};
use kapell_api::task::Artifact;
use kapell_expr::{BlobRef, Value};
use kapell_model::{Error, ErrorCode, RunId, limits};
use serde_json::Value as Json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Service;
use super::blob::unread;
use crate::contents::{self, PATIENCE, Passing};

/// Names of artifacts that are said where another was asked for.
const NAMED: usize = 10;

impl Service {
    /// The artifact that a name means in the output of a step.
    pub(crate) fn artifact_of(&self, run: RunId, step: &str, name: &str) -> Result<Artifact> {
        let record = self.record(run, &RecordQuery::with(step))?;
        let output = recorded(&record.steps, step).and_then(|step| step.output.clone());
        let output = match output {
            Some(output) => output,
            None => self.large_output(&record, step)?,
        };
        let given = output.as_map();
        let found = given.and_then(|given| given.get(name));
        if let Some(artifact) = found.and_then(Artifact::from_value) {
            return Ok(artifact);
        }
        let names: Vec<String> = given
            .into_iter()
            .flat_map(|given| given.iter())
            .filter(|(_, value)| Artifact::from_value(value).is_some())
            .take(NAMED)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let message = format!("the step `{step}` of run {run} gave no file `{name}`");
        let hint = if names.is_empty() {
            "what is named under `artifacts: { out: … }` of a step that succeeded can be fetched"
                .to_owned()
        } else {
            format!("it gave {}", names.join(", "))
        };
        Err(Error::new(ErrorCode::FileNotFound, message).hint(hint))
    }

    /// The output of a step or item that is too large to be recorded whole.
    fn large_output(&self, record: &Record, path: &str) -> Result<Value> {
        let (id, item) = match path.strip_suffix(']').and_then(|path| path.split_once('[')) {
            Some((id, item)) => (id, item.parse::<usize>().ok()),
            None => (path, None),
        };
        let run = record.run;
        if !record.steps.iter().any(|step| step.id == id) {
            let message = format!("run {run} has no step `{path}`, or it gave nothing");
            return Err(Error::new(ErrorCode::StepNotFound, message)
                .hint("`kapell show` lists the steps with their paths"));
        }
        let of = Evaluate {
            step: String::new(),
            expression: format!("steps.{id}.output"),
        };
        // A step without an output has no files.
        let seen = self.evaluate(run, &of).map(|seen| seen.value);
        let mut output = self.loaded(seen.unwrap_or_default())?;
        if let Some(item) = item {
            output = self.loaded(output[item].take())?;
        }
        Ok(Value::from_json(&output))
    }

    /// A value, or the content of the blob that it is.
    fn loaded(&self, value: Json) -> Result<Json> {
        let blob = &value["$blob"];
        let (Some(hash), Some(size)) = (blob["hash"].as_str(), blob["size"].as_u64()) else {
            return Ok(value);
        };
        let blob = BlobRef {
            hash: hash.into(),
            size,
        };
        let bytes = self.blobs.get(&blob, limits::OUTPUT_BYTES);
        let bytes = bytes.map_err(|error| unread(&error))?;
        super::read("an output", serde_json::from_slice(&bytes))
    }

    /// The content of an artifact, in parts, once there is a place for it.
    pub(crate) async fn artifact_parts(
        &self,
        artifact: Artifact,
    ) -> Result<mpsc::Receiver<std::io::Result<Vec<u8>>>> {
        let place = self.content_place().await?;
        let blobs = Arc::clone(&self.blobs);
        Ok(contents::parts(blobs, &self.data_dir, artifact.blob, place))
    }

    async fn content_place(&self) -> Result<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.contents).acquire_owned();
        match tokio::time::timeout(PATIENCE, places).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Error::new(
                ErrorCode::TooManyRequests,
                "too many files are on their way, and none of them gets on",
            )),
        }
    }
}

impl ArtifactCalls for Service {
    fn artifact(&self, run: RunId, step: &str, name: &str, to: &mut dyn Write) -> Result<u64> {
        let artifact = self.artifact_of(run, step, name)?;
        let passing = Passing::new(&self.data_dir);
        let copied = self
            .blobs
            .get_file(&artifact.blob, &passing.0)
            .and_then(|()| std::fs::File::open(&passing.0))
            .and_then(|mut file| std::io::copy(&mut file, to));
        copied.map_err(|error| unread(&error))
    }
}

/// The step or item at a path.
fn recorded<'r>(steps: &'r [StepRecord], path: &str) -> Option<&'r StepRecord> {
    steps.iter().find_map(|step| {
        if step.path == path {
            return Some(step);
        }
        let items = step.items.as_ref().map(|items| &*items.shown);
        recorded(items.unwrap_or_default(), path).or_else(|| recorded(&step.children, path))
    })
}
