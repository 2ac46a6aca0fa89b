//! Every bound of the product, in one place. Each has a clear error at it.

use std::time::Duration;

use jiff::SignedDuration;

/// Steps in one definition, inner graphs included.
pub const STEPS: usize = 10_000;
/// Nesting of groups, loops, switches and foreach in a definition.
pub const NESTING: usize = 32;
/// Nesting of sub-workflow runs.
pub const RUN_DEPTH: u32 = 32;
/// Variables of one foreach.
pub const FOREACH_VARIABLES: usize = 16;
/// Items of one foreach.
pub const FOREACH_ITEMS: usize = 1_000_000;
/// Items of a foreach kept, closed and paged together.
pub const FOREACH_PAGE: usize = 4_096;
/// Iterations of one loop.
pub const LOOP_ITERATIONS: u32 = 1_000_000;
/// Iterations of a loop that does not say `max_iterations`.
pub const LOOP_ITERATIONS_DEFAULT: u32 = 1_000;
/// Bytes of one expression.
pub const EXPRESSION_BYTES: usize = 16 << 10;
/// Bytes of one text with expressions in it.
pub const TEMPLATE_BYTES: usize = 256 << 10;
/// Parameters of one workflow.
pub const PARAMS: usize = 256;
/// Bytes of all parameters of a run as JSON.
pub const PARAMS_BYTES: usize = 1 << 20;
/// Bytes of an output kept inline; a larger one is a blob.
pub const INLINE_OUTPUT_BYTES: usize = 64 << 10;
/// Bytes of one output.
pub const OUTPUT_BYTES: u64 = 64 << 20;
/// Bytes of a workflow file.
pub const DEFINITION_BYTES: usize = 16 << 20;
/// Values in a workflow file: scalars, lists and maps, aliases counted where they are used.
pub const DEFINITION_NODES: usize = 1_000_000;
/// Lists and maps inside each other in a workflow file.
pub const DEFINITION_DEPTH: usize = 240;
/// Errors reported of one workflow file, and as many warnings.
pub const DIAGNOSTICS: usize = 500;
/// Bytes of a bundle, all files together.
pub const BUNDLE_BYTES: u64 = 256 << 20;
/// Files in a bundle.
pub const BUNDLE_FILES: usize = 10_000;
/// Bytes of the list of its files.
pub const BUNDLE_LIST_BYTES: u64 = 16 << 20;
/// Bytes of one artifact.
pub const ARTIFACT_BYTES: u64 = 64 << 30;
/// Bytes of an artifact or a file of a bundle where contents are rows of PostgreSQL.
pub const DATABASE_FILE_BYTES: u64 = 16 << 20;
/// Characters of a name or id.
pub const NAME_CHARS: usize = 128;
/// Bytes of an error message kept with a step.
pub const ERROR_BYTES: usize = 16 << 10;
/// Bytes of the log of one attempt; older lines are rotated out.
pub const LOG_BYTES: u64 = 64 << 20;
/// Bytes of one log line; the rest is cut and counted.
pub const LOG_LINE_BYTES: usize = 64 << 10;
/// Bytes of log lines that wait in a node to be written to PostgreSQL; what comes beyond is dropped, and said
/// to be.
pub const LOG_BUFFER_BYTES: usize = 32 << 20;
/// Bytes of one HTTP response body taken as an output.
pub const HTTP_BODY_BYTES: u64 = 64 << 20;
/// Inputs in one commit.
pub const COMMIT_INPUTS: usize = 4_096;
/// Inputs for which a second commit waits at the store while one is under way.
pub const COMMIT_FOLLOWS: usize = 256;
/// Bytes of events in one commit.
pub const COMMIT_BYTES: usize = 1 << 20;
/// Items rendered and granted at once.
pub const GRANT_BATCH: usize = 1_000;
/// Bytes of a task as it goes to a worker.
pub const TASK_BYTES: usize = 2 << 20;
/// Retries of each kind that a definition may ask for.
pub const RETRIES: u32 = 10_000;
/// Retries after the platform's faults where a definition says nothing.
pub const PLATFORM_RETRIES: u32 = 5;
/// Deliveries that take their worker down before a step fails as `poison`.
pub const POISON_DELIVERIES: u32 = 3;
/// How long an attempt has between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(10);
/// Timeout of a step of `finally` that names none.
pub const FINALLY_TIMEOUT: Duration = Duration::from_mins(10);
/// The longest duration a definition may name: about 100 years.
pub const DURATION_SECONDS: i64 = 100 * 366 * 86_400;
/// After this long an attempt's start is recorded.
pub const RECORD_START_AFTER: Duration = Duration::from_secs(1);
/// How long a worker that is not heard of keeps its session: then what it ran is lost.
pub const SESSION_LEASE: Duration = Duration::from_secs(30);
/// Sessions of workers at once.
pub const SESSIONS: usize = 1_000;
/// Attempts that a worker runs at a time.
pub const SESSION_SLOTS: u32 = 10_000;
/// Attempts that a worker has: in flight to it, running, and ended without an acknowledgement.
pub const SESSION_HELD: usize = 65_536;
/// Queues that a worker names, and its labels.
pub const SESSION_NAMES: usize = 64;
/// Messages on their way to a worker; one that reads no more loses its connection.
pub const SESSION_OUTBOX: usize = 4_096;
/// Queues that workers ever named, which the worker inside the server leaves to them.
pub const WORKER_QUEUES: usize = 10_000;
/// Contents that one worker fetches and sends at a time; others wait.
pub const SESSION_CONTENTS: usize = 64;
/// Contents of all workers at a time, and files that clients fetch; others wait.
pub const CONTENTS: usize = 256;
/// Bytes of log lines that a worker keeps until its server has them; what comes beyond is dropped and
/// counted.
pub const LOG_SPOOL_BYTES: usize = 32 << 20;
/// Runs that hold a place in one run queue or wait for one. Beyond it a start is refused, but for those
/// that are never discarded: of catch-up and backfill there are at most so many as their own bounds say.
pub const RUN_QUEUE: usize = 100_000;
/// Starts that wait in one trigger for room in a run queue; more are refused.
pub const HELD_STARTS: usize = 10_000;
/// Bytes of their parameters.
pub const HELD_BYTES: usize = 8 << 20;
/// After so long a start that found no room is tried again; then after twice as long, and so on.
pub const ROOM_WAIT: Duration = Duration::from_secs(1);
/// The longest of these.
pub const ROOM_WAIT_MOST: Duration = Duration::from_mins(1);
/// Runs of a deleted workflow that its run queue drops in one go.
pub const QUEUE_SWEEP: usize = 1_000;
/// Discarded runs that a run queue still shows, with the reason.
pub const QUEUE_DISCARDS: usize = 20;
/// Keys of `strategy.key` whose last success one run queue remembers.
pub const LAST_SUCCESSES: usize = 1_000;
/// Bytes of the parameters, and of the outputs, of a success that a run queue holds itself.
pub const LAST_SUCCESS_BYTES: usize = 1 << 10;
/// Holders and requests of one lock.
pub const LOCK_REQUESTS: usize = 100_000;
/// Starts of one trigger or backfill in one decision; the rest follows in the next.
pub const TRIGGER_STARTS: usize = 100;
/// A start is late, and one that was missed, after so long.
pub const SCHEDULE_GRACE: SignedDuration = SignedDuration::from_mins(1);
/// Signals that wait in one trigger for others to be joined with; the oldest go first.
pub const JOIN_SIGNALS: usize = 10_000;
/// Bytes of them.
pub const JOIN_BYTES: usize = 8 << 20;
/// Values of `dedupe` that one trigger remembers, for as long as topics keep signals.
pub const DEDUPE_VALUES: usize = 10_000;
/// Due times of one backfill.
pub const BACKFILL: usize = 10_000;
/// Runs of one backfill that are active at once.
pub const BACKFILL_CONCURRENCY: u32 = 1_000;
/// Runs for due times that have not ended and that a trigger remembers; the oldest go first.
pub const DUE_OPEN: usize = 10_000;
/// Stretches of due times whose success a trigger remembers; the oldest go first.
pub const DUE_STRETCHES: usize = 1_000;
/// Due times that are looked at to tell which succeeded under another calendar; older ones are forgotten.
pub const DUE_CARRIED: usize = 10_000;
/// Due times whose failure a trigger remembers; the oldest go first.
pub const DUE_FAILURES: usize = 10_000;
/// Custom resources, labels that are needed, or labels that are preferred: of each so many in one step.
pub const RESOURCE_NAMES: usize = 16;
/// Of one custom resource.
pub const RESOURCE_AMOUNT: i64 = 1_000_000_000;
/// Locks and rates one step names.
pub const LOCKS: usize = 16;
/// Labels of a run.
pub const LABELS: usize = 64;
/// Signals that one step sends.
pub const EMITS: usize = 16;
/// Bytes of the payload and key of a signal as JSON.
pub const SIGNAL_BYTES: usize = 64 << 10;
/// Signals that one topic keeps where nothing else is set; the oldest go first.
pub const TOPIC_SIGNALS: usize = 100_000;
/// Signals that one topic may be set to keep.
pub const TOPIC_SIGNALS_MOST: usize = 1_000_000;
/// Bytes of the signals that one topic keeps; the oldest go first.
pub const TOPIC_BYTES: usize = 64 << 20;
/// How long a topic keeps a signal where nothing else is set.
pub const TOPIC_KEEPS: Duration = Duration::from_hours(7 * 24);
/// Those that listen to one topic.
pub const TOPIC_SUBSCRIPTIONS: usize = 200_000;
/// Those that a topic tells of a signal in one commit; the others are told in the next.
pub const TOPIC_TELLS: usize = 1_000;
/// Kept signals that a run is told of at once.
pub const SIGNALS_PAGE: usize = 64;
/// Equalities by which a subscription is found.
pub const SUBSCRIPTION_EQUALS: usize = 8;
/// Bytes of a text that a subscription is found by; a longer one is compared by who listens.
pub const SUBSCRIPTION_TEXT: usize = 256;
/// Breakpoints that somebody sets on one run.
pub const BREAKPOINTS: usize = 100;
/// Runs in a row of which each was started by a signal of the one before.
pub const HOPS: u32 = 100;
/// Notices of one channel that wait to be delivered; the oldest are given up.
pub const NOTICES: usize = 10_000;
/// Notices of one channel that could not be delivered and are kept to be looked at; the oldest go.
pub const NOTICES_FAILED: usize = 1_000;
/// Bytes of the parameters in a notice; larger ones are left out.
pub const NOTICE_PARAMS_BYTES: usize = 4 << 10;
/// Characters of an error's message in a notice.
pub const NOTICE_ERROR_CHARS: usize = 2_000;
/// Tries to deliver a notice.
pub const NOTICE_TRIES: u32 = 12;
/// Channels that notices are posted to at the same time.
pub const NOTICE_SENDERS: usize = 32;
/// The longest wait that a receiver's or server's `Retry-After` is kept for.
pub const RETRY_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Workflows that metrics tell apart; those of more are counted together.
pub const METRIC_WORKFLOWS: usize = 100;
/// Workers of other processes that metrics tell apart; more are counted together.
pub const METRIC_WORKERS: usize = 200;
/// Successes of a workflow whose durations tell how long the next one takes.
pub const PACES: usize = 50;
/// Successes without which nothing is said of the next one.
pub const PACES_LEAST: usize = 5;
/// How old, or how far ahead, the time in the signature of a webhook's call may be.
pub const WEBHOOK_WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// Calls of one webhook within twice that time; more are refused, since an older one could come again.
pub const WEBHOOK_CALLS: usize = 60_000;
/// Bytes of the header that signs a webhook's call.
pub const WEBHOOK_SIGNATURE: usize = 1 << 10;
/// Triggers of one workflow.
pub const TRIGGERS: usize = 64;
/// Signals that one trigger joins.
pub const SIGNAL_SOURCES: usize = 16;
/// Due times, from the year 2000 on, of which the nearest say how long the jitter of a cron may be.
pub const JITTER_DUE_TIMES: usize = 100;
/// Due times that one catch-up makes up for.
pub const CATCHUP: u32 = 10_000;
/// People who must agree to one approval.
pub const APPROVALS: u32 = 100;
/// Environment variables of one step, those of the workflow and its defaults included.
pub const ENV_VARIABLES: usize = 256;
/// What `limit` and `total` of a strategy and `max` of a lock may be at most.
pub const AT_ONCE: u32 = 1_000_000;
/// Runs that a retention keeps at most.
pub const KEPT_RUNS: u32 = 1_000_000_000;
/// Characters of an owner that a workflow is given, and of the name of whoever changes it.
pub const OWNER_CHARS: usize = 1_000;
/// Workflows in one deploy.
pub const DEPLOY: usize = 1_000;
/// Rows in one page of a list.
pub const LIST_PAGE: usize = 1_000;
/// Tokens of a server, those that hold no more but are still listed included.
pub const TOKENS: usize = 10_000;
/// Entries of the audit log; older ones are dropped.
pub const AUDIT_ENTRIES: u64 = 1_000_000;
/// Entries of the audit log that one page looks at for those that are asked for.
pub const AUDIT_LOOK: usize = 20_000;
/// Entries of the audit log that wait to be written.
pub const AUDIT_WAITING: usize = 20_000;
/// Connections that a server holds open.
pub const CONNECTIONS: usize = 4_096;
/// Connections from one address.
pub const CONNECTIONS_PER_ADDRESS: usize = 1_024;
/// Bytes of the headers of one request.
pub const HEADER_BYTES: usize = 64 << 10;
/// Headers of one request.
pub const HEADERS: usize = 100;
/// Requests that one connection of HTTP/2 has under way.
pub const STREAMS: u32 = 256;
/// Clients whose rate of requests is remembered.
pub const RATED_CLIENTS: usize = 65_536;
/// Bytes of one document: what lists show of an entity, or a named record of the server.
pub const DOCUMENT_BYTES: usize = 4 << 20;
/// Secrets of one namespace.
pub const SECRETS: usize = 10_000;
/// Bytes of one secret.
pub const SECRET_BYTES: usize = 64 << 10;
/// Changes of runs that are kept for subscribers who come back.
pub const FEED_CHANGES: usize = 10_000;
/// Changes that one subscriber may be behind.
pub const FEED_BEHIND: usize = 1_024;
/// Subscribers to events at once.
pub const SUBSCRIBERS: usize = 2_048;
/// Bytes of one message between nodes.
pub const NODE_MESSAGE_BYTES: usize = 16 << 20;
/// Requests that one node has under way at another.
pub const NODE_REQUESTS: usize = 4_096;
/// Hints from one node that wait to be sent to another.
pub const NODE_HINTS: usize = 1_024;
/// Bytes about attempts at workers of another node that wait to be sent to it; beyond that the connection starts
/// anew.
pub const NODE_WORK_BYTES: usize = 256 << 20;
/// Messages of that.
pub const NODE_WORK: usize = 1 << 18;
/// Bytes of the address of a node.
pub const NODE_ADDRESS_BYTES: usize = 512;
/// Nodes of one cluster that a node talks to.
pub const NODES: usize = 1_000;
/// Runs that one call starts.
pub const BATCH_STARTS: usize = 1_000;
/// Runs that one page of a bulk operation takes.
pub const BULK_RUNS: usize = 1_000;
