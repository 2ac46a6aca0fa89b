//! Calls to hosts and their answers.

use std::sync::Arc;

use kapell_api::log::Stream;
use kapell_api::task::{TaskError, Usage};
use kapell_expr::Value;
use kapell_model::limits;
use serde::Deserialize;

use super::Ready;
use crate::attempt::Phase;
use crate::executor::{self, Executor};
use crate::failure;
use crate::input;
use crate::launch::Job;
use crate::output;
use crate::shared::Message;

/// Bytes of an answer besides its value.
const ANSWER_EXTRA: usize = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    i: u64,
    #[serde(default, deserialize_with = "present")]
    v: Option<Value>,
    x: Option<Exception>,
    out: Option<String>,
    err: Option<String>,
    #[serde(default)]
    cpu: u64,
    #[serde(default)]
    mem: u64,
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    #[serde(default)]
    permanent: bool,
    #[serde(default)]
    oom: bool,
    exit: Option<i32>,
    traceback: Option<String>,
}

impl Executor {
    /// Sends a task to a host.
    pub(super) fn call(&mut self, number: u64, job: &Arc<Job>, ready: Ready) {
        let Ready {
            dir,
            masker,
            call,
            code,
            ..
        } = ready;
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        let Some(attempt) = self.attempts.get_mut(&job.key) else {
            return;
        };
        if let Some((_, timer)) = host.idle.take() {
            self.timers.clear(timer);
        }
        let mut frame = vec![0; 4];
        let directory = dir.files.to_string_lossy();
        frame.extend_from_slice(
            format!(
                r#"{{"i":{},{call},"d":{}"#,
                job.key,
                super::json(&*directory)
            )
            .as_bytes(),
        );
        if let Some((hash, code)) = code
            && host.codes.insert(hash)
        {
            frame.extend_from_slice(format!(r#","c":{}"#, super::json(&*code)).as_bytes());
        }
        let mut variables = input::identity(&job.task);
        variables.push(("TMPDIR", dir.tmp.to_string_lossy().into_owned()));
        variables.push(("PWD", directory.into_owned()));
        variables.retain(|(name, value)| host.variables.get(name) != Some(value));
        if !variables.is_empty() {
            let changed: serde_json::Map<_, _> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
                .collect();
            frame.extend_from_slice(format!(r#","e":{}"#, super::json(&changed)).as_bytes());
            host.variables.extend(variables);
        }
        frame.push(b'}');
        let size = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
        frame[..4].copy_from_slice(&size.to_le_bytes());
        attempt.dir = Some(dir);
        attempt.log.mask_with(Arc::clone(&masker));
        attempt.masker = masker;
        attempt.phase = Phase::InHost(number);
        host.tasks.push(job.key);
        host.outgoing.extend_from_slice(&frame);
        host.write();
        self.started(job.key);
    }

    /// A host can be written to, or has said something.
    pub(crate) fn read_frames(&mut self, number: u64) {
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        host.write();
        let mut incoming = std::mem::take(&mut host.incoming);
        let _ = executor::read(&mut host.socket, &mut self.buffer, usize::MAX, |bytes| {
            incoming.extend_from_slice(bytes);
        });
        let mut from = 0;
        while let Some(size) = incoming.get(from..from + 4) {
            let size = size
                .iter()
                .rev()
                .fold(0_usize, |size, byte| size << 8 | usize::from(*byte));
            if size > usize::try_from(limits::OUTPUT_BYTES).unwrap_or(usize::MAX) + ANSWER_EXTRA {
                self.too_large(number);
                return;
            }
            let Some(frame) = incoming.get(from + 4..from + 4 + size) else {
                break;
            };
            from += 4 + size;
            match serde_json::from_slice(frame) {
                Ok(answer) => self.answer(number, answer),
                Err(error) => {
                    tracing::warn!(%error, "a Python host said what cannot be understood");
                    self.kill_host(number);
                }
            }
        }
        incoming.drain(..from);
        if let Some(host) = self.hosts.hosts.get_mut(&number) {
            host.incoming = incoming;
        }
    }

    fn too_large(&mut self, number: u64) {
        let tasks = self
            .hosts
            .hosts
            .get_mut(&number)
            .map(|host| std::mem::take(&mut host.tasks))
            .unwrap_or_default();
        for task in tasks {
            let message = format!(
                "the return value holds more than {} bytes; pass large data as an artifact",
                limits::OUTPUT_BYTES
            );
            self.end_with(task, Err(failure::user("output", message)));
        }
        self.kill_host(number);
    }

    fn answer(&mut self, number: u64, answer: Answer) {
        if let Some(text) = answer.out.as_ref().or(answer.err.as_ref()) {
            let stream = if answer.out.is_some() {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            if let Some(attempt) = self.attempts.get_mut(&answer.i) {
                attempt.log.feed(self.now, stream, text.as_bytes());
            }
            return;
        }
        self.drain_host(number);
        let Some(host) = self.hosts.hosts.get_mut(&number) else {
            return;
        };
        host.tasks.retain(|task| *task != answer.i);
        let (key, is_idle, dying) = (Arc::clone(&host.key), host.tasks.is_empty(), host.dying);
        if let Some(attempt) = self.attempts.get_mut(&answer.i) {
            attempt.usage = Some(Usage {
                cpu_millis: answer.cpu,
                memory_bytes: answer.mem,
            });
            self.settle_call(answer);
        }
        if is_idle && !dying {
            self.set_idle(number);
        }
        if !dying {
            self.pump(&key);
            self.pump_others(&key);
        }
    }

    /// The output or error of a call.
    fn settle_call(&mut self, answer: Answer) {
        let key = answer.i;
        let Some(attempt) = self.attempts.get_mut(&key) else {
            return;
        };
        attempt.log.finish(self.now);
        let lines = std::mem::take(&mut attempt.log.outputs);
        let (job, over) = (Arc::clone(&attempt.job), attempt.log.outputs_over);
        let result = match (answer.x, answer.v) {
            (Some(exception), _) if exception.exit != Some(0) => Err(exception.into_error()),
            (_, value) => Ok(value.unwrap_or_default()),
        };
        let (Some(process), Some(dir)) = (job.process(), &attempt.dir) else {
            return;
        };
        let plain = lines.is_empty()
            && !over
            && process.output_file.is_none()
            && process.artifacts_out.is_empty();
        match result {
            Ok(value) if plain && value.size() <= limits::INLINE_OUTPUT_BYTES / 6 => {
                let (now, log) = (self.now, std::cell::RefCell::new(&mut attempt.log));
                let keeping = output::Keeping {
                    blobs: &*self.shared.blobs,
                    masker: &attempt.masker,
                    note: &|text| log.borrow_mut().note(now, text),
                };
                let value = output::hidden(value, &keeping);
                self.end_with(key, Ok(value));
            }
            Ok(value) => {
                let left = output::Left {
                    files: dir.files.clone(),
                    output: None,
                    lines,
                    lines_over: over,
                };
                attempt.phase = Phase::Collecting;
                let shared = Arc::clone(&self.shared);
                let masker = Arc::clone(&attempt.masker);
                self.shared.errands.run(move || {
                    let result = match job.process() {
                        Some(process) => shared.keeping(key, &masker, |keeping| {
                            output::collect_with(value, process, &left, keeping)
                        }),
                        None => Ok(Value::Null),
                    };
                    shared.inbox.send(Message::Collected(job.key, result));
                });
            }
            Err(error) => self.end_with(key, Err(error)),
        }
    }

    /// Reads what a host has printed so far into the log of the task that runs in it.
    pub(super) fn drain_host(&mut self, number: u64) {
        self.read_host_output(number, Stream::Stdout);
        self.read_host_output(number, Stream::Stderr);
    }
}

impl Exception {
    fn into_error(self) -> Box<TaskError> {
        let message = if self.kind.is_empty() {
            self.message
        } else {
            format!("{}: {}", self.kind, self.message)
        };
        let reason = if self.oom {
            "oom"
        } else if self.exit.is_some() {
            "exit_code"
        } else {
            "exception"
        };
        Box::new(TaskError {
            permanent: self.permanent,
            exit_code: self.exit,
            traceback: self.traceback,
            ..*failure::user(reason, message)
        })
    }
}
