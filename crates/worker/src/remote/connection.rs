//! One connection after another: hello, welcome, then both sides talk until it ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use kapell_api::client::NODES_HEADER;
use kapell_api::task::Task;
use kapell_api::worker::{PROTOCOL, decode, encode, proto};
use kapell_model::SessionId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::lease::Lease;
use super::{Event, Inner, Server, link};
use crate::shared::Far;

/// Between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Messages to the server on their way.
const MESSAGES: usize = 8;

/// Why a connection has ended, or was never made.
enum End {
    /// For a reason that passes.
    Away(String),
    /// The server does not want this worker.
    Refused(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let why = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::ResourceExhausted => Self::Refused(why),
            // Who asks is looked at before gRPC is: such an answer is no message, only its status tells.
            _ if why.contains("status: 401") || why.contains("status: 403") => {
                Self::Refused("its token is not known there, or holds no more".to_owned())
            }
            _ => Self::Away(why),
        }
    }
}

/// Keeps a connection until the worker has gone.
pub(crate) async fn keep(inner: &Arc<Inner>) {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    while !inner.outbox.is_gone() {
        let mut welcome = false;
        let end = connect(inner, &mut welcome).await;
        inner.contents.disconnected();
        if inner.outbox.has_left() {
            inner.outbox.went();
            return;
        }
        if welcome {
            (pause, told) = (FIRST_PAUSE, String::new());
        }
        let (why, event) = match end {
            _ if inner.outbox.is_gone() => return,
            End::Away(why) => (why.clone(), Event::Away(why)),
            End::Refused(why) => (why.clone(), Event::Refused(why)),
        };
        if why != told {
            told = why;
            // Whoever listened may have gone.
            let _ = inner.events.send(event);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = gone(inner) => {}
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn gone(inner: &Inner) {
    while !inner.outbox.is_gone() {
        inner.outbox.wake.notified().await;
    }
}

async fn connect(inner: &Arc<Inner>, welcomed: &mut bool) -> End {
    // Whatever the server grants it grants later.
    let asked_at = Lease::clock();
    let caller = match link::connect(&inner.config.server).await {
        Ok(caller) => caller,
        Err(why) => return End::Away(why),
    };
    let (to, messages) = mpsc::channel(MESSAGES);
    let hello = proto::FromWorker {
        hello: Some(inner.hello()),
        ..proto::FromWorker::default()
    };
    if to.send(hello).await.is_err() {
        return End::Away("the connection ended at once".to_owned());
    }
    let mut calling = caller.clone();
    let opening = async {
        let answer = calling.session(ReceiverStream::new(messages)).await?;
        let said = answer.metadata().get(NODES_HEADER);
        if let Some(said) = said.and_then(|said| said.to_str().ok())
            && let Server::At(target) = &inner.config.server
        {
            target.learn(said);
        }
        let mut inbound = answer.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first.and_then(|first| first.welcome)))
    };
    let opened = tokio::time::timeout(2 * link::PATIENCE, opening).await;
    let (inbound, welcome) = match opened {
        Ok(Ok((inbound, Some(welcome)))) => (inbound, welcome),
        Ok(Ok((_, None))) => return End::Away("the server said no welcome".to_owned()),
        Ok(Err(status)) => return status.into(),
        Err(_) => return End::Away("the server said no welcome in time".to_owned()),
    };
    *welcomed = true;
    let session = SessionId(welcome.session);
    inner.welcome(&welcome, asked_at);
    inner.contents.connected(caller, session);
    // Whoever listened may have gone.
    let _ = inner.events.send(Event::Welcome(session, welcome.resumed));
    tokio::select! {
        end = read(inner, session, inbound) => end,
        end = write(inner, to) => end,
        end = beat(inner) => end,
    }
}

async fn read(
    inner: &Arc<Inner>,
    session: SessionId,
    mut inbound: Streaming<proto::FromServer>,
) -> End {
    loop {
        match inbound.message().await {
            Ok(Some(message)) => {
                if let Err(error) = inner.hear(session, message) {
                    return End::Away(error.to_string());
                }
            }
            Ok(None) => return End::Away("the server ended the connection".to_owned()),
            Err(status) => return status.into(),
        }
    }
}

async fn write(inner: &Inner, to: mpsc::Sender<proto::FromWorker>) -> End {
    loop {
        while let Some(message) = inner.outbox.compose() {
            let last = message.leaving;
            if to.send(message).await.is_err() {
                return End::Away("the server takes nothing".to_owned());
            }
            if last {
                // The stream ends once this was sent; then there is nothing to read any more.
                drop(to);
                let _ = tokio::time::timeout(link::PATIENCE, std::future::pending::<()>()).await;
                return End::Away("gone".to_owned());
            }
        }
        inner.outbox.wake.notified().await;
    }
}

async fn beat(inner: &Inner) -> End {
    while let Some(pause) = inner.lease.pause() {
        tokio::time::sleep(pause).await;
        inner.outbox.beat(inner.lease.beat());
    }
    std::future::pending().await
}

impl Inner {
    fn hello(&self) -> proto::Hello {
        let session = self.session.lock();
        let lost = session.lost.iter().map(|lost| proto::LostAttempt {
            attempt: Some(encode::attempt(lost.run, lost.place, lost.offer)),
            explained: lost.explained,
        });
        let capacity = proto::Resources {
            cpu_millis: self.capacity.cpu_millis,
            memory_bytes: self.capacity.memory_bytes,
            gpus: self.capacity.gpus,
            custom: self.config.resources.clone().into_iter().collect(),
        };
        let mut hello = proto::Hello {
            protocol: PROTOCOL,
            name: self.config.name.clone(),
            version: self.config.version.clone(),
            labels: self.config.labels.clone().into_iter().collect(),
            queues: self.config.queues.clone(),
            capacity: Some(capacity),
            slots: u32::try_from(self.capacity.slots).unwrap_or(u32::MAX),
            runtimes: self.runtimes.clone(),
            session: session.id.0,
            same_process: session.same_process,
            lost: lost.collect(),
            spot: self.config.spot,
            pool: self.config.pool.clone().unwrap_or_default(),
            number: self.hellos.fetch_add(1, Ordering::Relaxed) + 1,
            ..proto::Hello::default()
        };
        drop(session);
        self.outbox.hello(&mut hello);
        hello
    }

    fn welcome(&self, welcome: &proto::Welcome, asked_at: Duration) {
        let mut session = self.session.lock();
        if !welcome.resumed {
            if session.same_process {
                // Its session was over, so what is here runs elsewhere by now.
                self.abandon();
            }
            self.outbox.forget();
        }
        session.enter(SessionId(welcome.session));
        let length = Duration::from_millis(u64::from(welcome.lease_millis));
        self.lease.begin(length, asked_at);
        self.outbox.again(welcome.logs_taken);
    }

    fn hear(
        &self,
        session: SessionId,
        message: proto::FromServer,
    ) -> Result<(), decode::Malformed> {
        if !message.taken.is_empty() {
            self.outbox.taken(&message.taken);
        }
        if message.logs_taken > 0 {
            self.outbox.logs_taken(message.logs_taken);
        }
        if message.beat > 0 {
            self.lease.renewed(message.beat);
        }
        if !message.tasks.is_empty() {
            let tasks = message.tasks.into_iter();
            let tasks = tasks
                .map(|task| decode::task(session, task))
                .collect::<Result<_, _>>()?;
            self.offer(tasks);
        }
        if message.batch > 0 {
            self.outbox.received(message.batch);
        }
        if !message.stops.is_empty() {
            let stops = message.stops.iter();
            let stops: Vec<_> = stops
                .map(|stop| decode::attempt(Some(stop)))
                .collect::<Result<_, _>>()?;
            self.cancel(&stops);
        }
        if let Some(drain) = message.drain {
            let grace = Duration::from_millis(u64::from(drain.grace_millis));
            // Whoever listened may have gone.
            let _ = self.events.send(Event::Drain(grace));
        }
        Ok(())
    }
}

/// What the worker asks of its server, from its first moment on.
#[derive(Default)]
pub(crate) struct FarSide(OnceLock<Weak<Inner>>);

impl FarSide {
    /// This is the worker.
    pub(crate) fn set(&self, inner: &Arc<Inner>) {
        // Set once, when it starts.
        let _ = self.0.set(Arc::downgrade(inner));
    }

    /// The worker, once it is there.
    pub(crate) fn inner(&self) -> Option<Arc<Inner>> {
        self.0.get().and_then(Weak::upgrade)
    }
}

impl Far for FarSide {
    fn secret(&self, task: &Task, name: &str) -> Result<Option<String>, String> {
        let inner = self.inner().ok_or("the worker is not connected")?;
        let of = (task.run, task.place, task.offer);
        inner
            .contents
            .secret(of, name)
            .map_err(|error| error.to_string())
    }

    fn log(&self, task: &Task, offset: u64, text: &[u8]) {
        if let Some(inner) = self.inner() {
            let of = (task.run, task.place, task.offer);
            inner.outbox.log(of, offset, text);
        }
    }
}
