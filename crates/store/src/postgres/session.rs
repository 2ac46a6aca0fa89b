//! One connection, with its settings and what was prepared on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Failure;
use super::runtime::Runtime;
use super::url::PostgresUrl;
use crate::{Error, Result};

/// How long the server may work on one statement.
const STATEMENT: Duration = Duration::from_secs(30);

/// How long it is waited for, from when a statement is sent.
const ANSWER: Duration = Duration::from_secs(35);

/// How long connecting may take, all hosts together.
const CONNECT: Duration = Duration::from_secs(15);

/// Statements that are kept prepared on a connection: more than there are.
const PREPARED: usize = 128;

/// The oldest server that is good enough.
const OLDEST: i32 = 150_000;

/// Plans use the indexes that are made for them, whatever the server believes of how many rows there are: a
/// table that was empty when a plan was made is not empty any more.
const SETTINGS: &str = "
    SET statement_timeout = '30s'; SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '15s';
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
    SET client_min_messages = 'warning'; SET jit = off;
    SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET enable_hashjoin = off; SET enable_mergejoin = off;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// Values of a statement.
pub(super) type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// Where to connect to, and with which settings.
#[derive(Clone)]
pub(super) struct Dial {
    url: PostgresUrl,
    tls: MakeRustlsConnect,
    /// Beside those that all have.
    settings: &'static str,
}

impl Dial {
    /// A connection, and what drives it. Runs on the runtime's thread.
    pub(super) async fn connect(self) -> std::result::Result<(Client, AbortHandle), Failure> {
        let connected = timeout(CONNECT, async {
            let (client, connection) = self.url.config.connect(self.tls).await?;
            let driver = tokio::spawn(async move {
                // Who waits for an answer is told the same.
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to PostgreSQL ended");
                }
            });
            let schema = &self.url.schema;
            let settings = format!(
                "SET search_path = \"{schema}\";{SETTINGS};{}",
                self.settings
            );
            client.batch_execute(&settings).await?;
            Ok((client, driver.abort_handle()))
        });
        connected
            .await
            .unwrap_or_else(|_| Err(Failure::broken("connecting takes too long")))
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Dial,
    runtime: Arc<Runtime>,
}

impl Connector {
    pub(super) fn new(url: &PostgresUrl, runtime: Arc<Runtime>) -> Result<Self> {
        let dial = Dial {
            tls: url.tls()?,
            url: url.clone(),
            settings: "",
        };
        Ok(Self { dial, runtime })
    }

    pub(super) fn with_settings(&self, settings: &'static str) -> Self {
        let dial = Dial {
            settings,
            ..self.dial.clone()
        };
        Self {
            dial,
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// Without the runtime, for what runs on it.
    pub(super) fn dial(&self) -> Dial {
        self.dial.clone()
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    pub(super) fn connect(&self) -> std::result::Result<Session, Failure> {
        let connected = self.runtime.spawn(self.dial().connect());
        let connected = self.runtime.wait(connected);
        let (client, driver) = connected.map_err(|error| Failure::broken(error.to_string()))??;
        let mut session = Session {
            runtime: Arc::clone(&self.runtime),
            client,
            driver,
            prepared: HashMap::new(),
            pid: 0,
        };
        let about = "SELECT pg_backend_pid(), current_setting('server_version_num')::int";
        let rows = session.query(about, &[])?;
        let row = rows.first().ok_or_else(|| Failure::corrupt("no answer"))?;
        session.pid = row.get(0);
        if row.get::<_, i32>(1) < OLDEST {
            return Err(Error::Unusable("PostgreSQL 15 or later is needed".to_owned()).into());
        }
        Ok(session)
    }
}

/// A connection. Whoever has it is the only one who uses it.
pub(super) struct Session {
    runtime: Arc<Runtime>,
    client: Client,
    driver: AbortHandle,
    prepared: HashMap<String, Statement>,
    /// The process of the server that works for it.
    pid: i32,
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a statement, which is prepared the first time.
    pub(super) fn query(
        &mut self,
        sql: &str,
        params: Params<'_>,
    ) -> std::result::Result<Vec<Row>, Failure> {
        self.query_watched(sql, params, ANSWER, |_| false)
    }

    /// As [`Session::query`]; each time that `patience` has passed `late` is asked whether to go on.
    pub(super) fn query_watched(
        &mut self,
        sql: &str,
        params: Params<'_>,
        patience: Duration,
        mut late: impl FnMut(i32) -> bool,
    ) -> std::result::Result<Vec<Row>, Failure> {
        let (client, prepared) = (&self.client, &mut self.prepared);
        let mut asked = std::pin::pin!(async {
            let statement = if let Some(statement) = prepared.get(sql) {
                statement.clone()
            } else {
                if prepared.len() >= PREPARED {
                    prepared.clear();
                }
                let statement = client.prepare(sql).await?;
                prepared.insert(sql.to_owned(), statement.clone());
                statement
            };
            client.query(&statement, params).await
        });
        loop {
            let answer = self
                .runtime
                .wait(async { timeout(patience, &mut asked).await });
            match answer {
                Ok(answer) => return answer.map_err(Failure::from),
                Err(_) if late(self.pid) => {}
                Err(_) => {
                    self.driver.abort();
                    return Err(Failure::broken("PostgreSQL does not answer in time"));
                }
            }
        }
    }

    /// Runs statements as they are; the first column of what the last one finds, as text.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn simple(&mut self, sql: &str) -> std::result::Result<Vec<String>, Failure> {
        use tokio_postgres::SimpleQueryMessage::{CommandComplete, Row};
        let mut found = Vec::new();
        let mut ended = false;
        for message in self.runtime.wait(self.client.simple_query(sql))? {
            match message {
                Row(row) => {
                    if std::mem::take(&mut ended) {
                        found.clear();
                    }
                    found.push(row.get(0).unwrap_or_default().to_owned());
                }
                CommandComplete(_) => ended = true,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Runs statements without values.
    pub(super) fn run(&mut self, sql: &str) -> std::result::Result<(), Failure> {
        let client = &self.client;
        let ran = self
            .runtime
            .wait(async { timeout(ANSWER, client.batch_execute(sql)).await });
        if let Ok(ran) = ran {
            return ran.map_err(Failure::from);
        }
        self.driver.abort();
        Err(Failure::broken("PostgreSQL does not answer in time"))
    }
}

const _: () = assert!(STATEMENT.as_secs() < ANSWER.as_secs());
