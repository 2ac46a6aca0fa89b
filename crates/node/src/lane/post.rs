//! Messages between entities: those of this lane within its commit, those of other owners by mail.
//!
//! A message to an entity of this lane becomes part of the commit of what sends it. One to an entity of a shard
//! that is not held here is written beside that commit, and waits in the store until the shard's owner has taken
//! it: it reads what waits when it takes over a shard, every two seconds, and when somebody says that there is
//! something. What it takes is part of the same commit as the mark that says so, so each message is taken
//! once, and those of one shard to another in the order in which they were sent.
//!
//! So what one shard here says to another goes by mail too while the store may have mail of the one to the other
//! that was not read: right after either was taken over, and until what went by mail itself has come.
//!
//! Whoever must know that what was sent has arrived asks the shard's owner to settle it: it is answered once what
//! waited in the store by then is taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kapell_engine::{Ask, Message};
use kapell_model::{EntityKey, Error, ErrorCode, Shard, ShardSet, Time};
use kapell_store::{Mail, Mark, VersionRow};

use super::{Lane, Output, ToEntity, start};
use crate::batch::Batch;
use crate::request::{Answer, ReplyId};

/// Messages read at a time.
pub(crate) const MAIL: usize = 4_096;

/// How often messages are looked for, where others may send some.
const LOOK_MICROS: i64 = 2_000_000;

/// Numbers of messages that one commit gives a shard.
const NUMBERS: u64 = 1 << 20;

/// Messages that came by mail.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// Read and not taken yet, in order.
    waits: VecDeque<Mail>,
    /// The last message taken for a shard from another, also where the commit that says so is under way.
    taken: BTreeMap<(Shard, Shard), u64>,
    /// A read is under way.
    asked: bool,
    /// Something may have come since that read was asked for.
    again: bool,
    /// When messages were looked for last.
    looked_at: Time,
    /// Reads asked for so far.
    reads: u64,
    /// The last read that found all that waited.
    whole: u64,
    /// Who waits until all that the read of this number finds is taken, for which shard.
    settling: VecDeque<(u64, Shard, ReplyId)>,
    /// Shards that were taken over: the read that finds what was sent from them and to them before.
    unread: BTreeMap<Shard, u64>,
    /// What went by mail from here to a shard that is held here.
    own: BTreeMap<(Shard, Shard), OwnMail>,
}

/// Mail from one shard here to another.
#[derive(Clone, Copy, Debug, Default)]
struct OwnMail {
    /// Messages that are not durable yet.
    under_way: usize,
    /// The read that finds those that are.
    read: u64,
}

impl Post {
    /// Forgets what is of these shards: their next owner goes by the store.
    pub(super) fn forget(&mut self, shards: &ShardSet) {
        self.waits.retain(|mail| !shards.contains(mail.to.shard()));
        self.taken.retain(|(to, _), _| !shards.contains(*to));
        self.unread.retain(|shard, _| !shards.contains(*shard));
        self.own
            .retain(|(from, to), _| !shards.contains(*from) && !shards.contains(*to));
    }

    /// True if the store may have mail of one shard to another, both held here, that was not taken.
    fn is_behind(&self, from: Shard, to: Shard) -> bool {
        from != to
            && (self.unread.contains_key(&from)
                || self.unread.contains_key(&to)
                || self.own.contains_key(&(from, to)))
    }

    /// Mail that is not durable yet is for a shard that is held here.
    fn goes_round(&mut self, from: Shard, to: Shard) {
        self.own.entry((from, to)).or_default().under_way += 1;
    }

    /// Nothing that was found is left to be taken.
    fn caught_up(&mut self) {
        let whole = self.whole;
        self.unread.retain(|_, read| *read > whole);
        self.own
            .retain(|_, mail| mail.under_way > 0 || mail.read > whole);
    }

    /// True if messages wait that were read.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waits.is_empty()
    }
}

/// What is asked about is owned by another node, or by none.
pub(crate) fn not_here() -> Error {
    Error::new(ErrorCode::NotHere, "another node owns what this is about")
        .hint("ask again in a moment; `kapell nodes` lists the nodes")
}

/// What a batch takes of others' messages.
pub(super) fn marks(batch: &mut Batch) -> Vec<Mark> {
    let marks = std::mem::take(&mut batch.marks).into_iter();
    marks
        .map(|((to, from), number)| Mark { to, from, number })
        .collect()
}

impl Lane {
    /// Messages are taken once what sends them has decided all it has to, in the order in which they were
    /// sent.
    pub(super) fn send(&mut self, from: Shard, to: EntityKey, message: Message) {
        self.outbox.push_back((from, to, message));
    }

    /// Gives every message to the entity that it is for, or to the mail.
    pub(super) fn post(&mut self) {
        while let Some((from, to, message)) = self.outbox.pop_front() {
            let held = self.leases.contains_key(&to.shard());
            if held && !self.post.is_behind(from, to.shard()) {
                self.hand_over(to, message);
            } else if let Some(bytes) = message.to_bytes() {
                if held {
                    self.post.goes_round(from, to.shard());
                }
                self.open.bytes += bytes.len();
                self.open.mail.push((from, to, bytes));
            } else {
                // Both live in the shard of one workflow: it was lost while they talked.
                tracing::error!(?to, ?message, "a message has nobody to go to");
                self.broken = true;
            }
        }
    }

    /// Shards were taken over: nothing goes past what waits for them in the store, and what is on its way there.
    pub(super) fn mail_before(&mut self, shards: &ShardSet) {
        let read = self.post.reads + 1;
        self.post
            .unread
            .extend(shards.iter().map(|shard| (shard, read)));
        let open = self.open.mail.iter().map(|(from, to, _)| (*from, to));
        let under_way = self.committing.iter().flat_map(|under| &under.commit.mail);
        let under_way = under_way.map(|mail| (mail.from, &mail.to));
        let ways = open.chain(under_way).map(|(from, to)| (from, to.shard()));
        let new: Vec<(Shard, Shard)> = ways.filter(|(_, to)| shards.contains(*to)).collect();
        for (from, to) in new {
            self.post.goes_round(from, to);
        }
    }

    /// Mail is durable: what is for shards here is looked for at once.
    pub(super) fn mail_written(&mut self, mail: &[Mail]) {
        let read = self.post.reads + 1;
        let mut here = false;
        for mail in mail {
            if let Some(own) = self.post.own.get_mut(&(mail.from, mail.to.shard())) {
                own.under_way = own.under_way.saturating_sub(1);
                own.read = read;
                here = true;
            }
        }
        if here {
            self.look_for_mail();
        }
    }

    /// An entity of this lane gets a message.
    fn hand_over(&mut self, to: EntityKey, message: Message) {
        match message {
            Message::StartChild(child) => self.start(start::Making::from_parent(*child)),
            Message::StartTriggered(start) => self.start(start::Making::from_trigger(*start)),
            Message::Asked(ask) => self.submit(to, ToEntity::Ask(None, *ask), true),
            message if !self.heard.wants(&to, &message) => {}
            message if self.went_past(&to, &message) => {}
            message => self.submit(to, ToEntity::Message(Box::new(message)), true),
        }
    }

    /// An input is for an entity whose shard is not held here. What a worker reports is not acknowledged, so it
    /// is said again, to whoever holds the shard.
    pub(super) fn elsewhere(&mut self, input: ToEntity) {
        if input.report().is_none() {
            self.refuse(input, &not_here());
        }
    }

    /// What is asked of entities of this lane is decided in the open batch, which is not sealed before each of
    /// them has; what is asked of others' goes by mail that is part of the same commit.
    pub(super) fn ask_together(
        &mut self,
        reply: ReplyId,
        versions: Vec<VersionRow>,
        asks: Vec<(EntityKey, Ask)>,
    ) {
        let Some(own) = self.leases.keys().next().copied() else {
            self.reply(reply, Err(not_here()));
            return;
        };
        self.open.versions.extend(versions);
        let mut sent = BTreeSet::new();
        for (key, ask) in asks {
            if self.leases.contains_key(&key.shard()) {
                self.submit(key, ToEntity::Ask(None, ask), true);
            } else {
                sent.insert(key.shard());
                self.send(own, key, Message::Asked(Box::new(ask)));
            }
        }
        self.post();
        let answer = if sent.is_empty() {
            Answer::Done
        } else {
            Answer::Sent(sent.into_iter().collect())
        };
        self.reply(reply, Ok(answer));
    }

    /// Answers once everything that waits for a shard by now is taken.
    pub(super) fn settle(&mut self, reply: ReplyId, shard: Shard) {
        if !self.leases.contains_key(&shard) {
            self.reply(reply, Err(not_here()));
            return;
        }
        // A read under way may have been done already.
        let read = self.post.reads + 1;
        self.look_for_mail();
        self.post.settling.push_back((read, shard, reply));
    }

    /// Answers those whose read was whole, once nothing of it is left to be taken.
    fn settled(&mut self) {
        if self.post.is_waiting() {
            return;
        }
        self.post.caught_up();
        let whole = self.post.whole;
        while let Some((_, shard, reply)) = self
            .post
            .settling
            .pop_front_if(|(read, _, _)| *read <= whole)
        {
            let held = self.leases.contains_key(&shard);
            let answer = if held {
                Ok(Answer::Done)
            } else {
                Err(not_here())
            };
            self.reply(reply, answer);
        }
    }

    /// Forgets all messages that were read: the store has what was not taken. Clients that wait are told the
    /// error.
    pub(super) fn drop_mail(&mut self, error: &Error) {
        for (_, _, reply) in std::mem::take(&mut self.post).settling {
            self.out.push(Output::Reply(reply, Err(error.clone())));
        }
    }

    /// Messages as they are stored, numbered by the commit that writes them: before it advances the shards.
    pub(super) fn numbered(&self, mail: Vec<(Shard, EntityKey, Vec<u8>)>) -> Vec<Mail> {
        let mut places: BTreeMap<Shard, u64> = BTreeMap::new();
        let mut numbered = Vec::with_capacity(mail.len());
        for (from, to, message) in mail {
            let seq = self.leases.get(&from).map_or(0, |lease| lease.seq);
            let place = places.entry(from).or_default();
            numbered.push(Mail {
                from,
                number: seq * NUMBERS + (*place).min(NUMBERS - 1),
                to,
                message,
            });
            *place += 1;
        }
        numbered
    }

    /// When messages are to be looked for without anybody's word; none where nobody sends any.
    pub(super) fn mail_at(&self) -> Option<Time> {
        let looks = !self.config.alone && !self.post.asked && !self.leases.is_empty();
        looks.then(|| Time(self.post.looked_at.0 + LOOK_MICROS))
    }

    /// Looks for messages that wait.
    pub(super) fn look_for_mail(&mut self) {
        if self.post.asked {
            self.post.again = true;
            return;
        }
        self.post.asked = true;
        self.post.looked_at = self.now;
        self.post.reads += 1;
        self.out.push(Output::FindMail(self.held_shards()));
    }

    /// Messages were read.
    pub(super) fn mail(&mut self, result: kapell_store::Result<Vec<Mail>>) {
        self.post.asked = false;
        match result {
            Ok(mail) => {
                // A full page may not be all.
                if mail.len() >= MAIL {
                    self.post.again = true;
                } else {
                    self.post.whole = self.post.reads;
                }
                self.post.waits = mail.into();
                self.take_mail();
            }
            Err(error) => {
                tracing::error!(%error, "messages could not be read; trying again");
                self.post.asked = true;
                let shards = self.held_shards();
                self.read_again(Output::FindMail(shards));
            }
        }
    }

    /// Takes messages that wait and fit the open batch.
    pub(super) fn take_mail(&mut self) {
        while !self.is_full() && !self.broken {
            let Some(mail) = self.post.waits.pop_front() else {
                break;
            };
            let way = (mail.to.shard(), mail.from);
            let before = self.post.taken.get(&way).copied();
            if !self.leases.contains_key(&way.0) || before.is_some_and(|last| last >= mail.number) {
                continue;
            }
            self.post.taken.insert(way, mail.number);
            self.open.marks.insert(way, mail.number);
            self.open.inputs += 1;
            match Message::from_bytes(&mail.message) {
                Ok(message) => self.hand_over(mail.to, message),
                Err(error) => {
                    tracing::error!(to = ?mail.to, %error, "a message cannot be read: it is dropped");
                }
            }
            self.post();
        }
        self.settled();
        if self.post.again && !self.post.is_waiting() && !self.post.asked {
            self.post.again = false;
            self.look_for_mail();
        }
    }
}
