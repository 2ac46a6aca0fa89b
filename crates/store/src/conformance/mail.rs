//! Messages between shards wait until they are taken, and are taken once.

use kapell_model::{EntityKey, Shard, ShardSet};

use super::{Case, advanced};
use crate::{Commit, Error, Lease, Mail, Mark, Store};

pub(super) const CASES: &[Case] = &[
    (
        "messages wait in order until a mark is past them",
        messages_wait_until_a_mark_is_past_them,
    ),
    (
        "a message is sent and taken only by who holds the shard",
        only_who_holds_the_shard_sends_and_takes,
    ),
];

fn lock(name: &str) -> EntityKey {
    EntityKey::Lock {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn mail(from: Lease, place: u64, to: &EntityKey) -> Mail {
    Mail {
        from: from.shard,
        number: from.seq << 20 | place,
        to: to.clone(),
        message: vec![0, 255, u8::try_from(place).expect("small")],
    }
}

fn send(store: &dyn Store, from: Lease, mail: Vec<Mail>) -> crate::Result<()> {
    store.commit(&Commit {
        shards: vec![from],
        mail,
        ..Commit::default()
    })
}

fn messages_wait_until_a_mark_is_past_them(store: &dyn Store) {
    let to = lock("a");
    let leases = store
        .acquire(&[Shard(1), Shard(2), to.shard()])
        .expect("acquired");
    let [one, two, own] = [leases[0], leases[1], leases[2]];
    let all = ShardSet::all();
    assert_eq!(store.mail(&all, 9).expect("read"), []);
    // What is to come second is sent first.
    let later = vec![mail(two, 0, &to)];
    send(store, two, later.clone()).expect("sent");
    let first = vec![mail(one, 0, &to), mail(one, 1, &to)];
    send(store, one, first.clone()).expect("sent");
    let again = mail(advanced(one), 0, &to);
    send(store, advanced(one), vec![again.clone()]).expect("sent");
    let waits = [first.clone(), vec![again.clone()], later.clone()].concat();
    assert_eq!(store.mail(&all, 9).expect("read"), waits);
    assert_eq!(store.mail(&all, 2).expect("read"), waits[..2]);
    let others: ShardSet = [Shard(1), Shard(2)].into_iter().collect();
    assert_eq!(store.mail(&others, 9).expect("read"), []);
    let commit = Commit {
        shards: vec![own],
        marks: vec![Mark {
            to: own.shard,
            from: Shard(1),
            number: first[1].number,
        }],
        ..Commit::default()
    };
    store.commit(&commit).expect("taken");
    let own_alone: ShardSet = [own.shard].into_iter().collect();
    assert_eq!(
        store.mail(&own_alone, 9).expect("read"),
        [again, later[0].clone()]
    );
}

fn only_who_holds_the_shard_sends_and_takes(store: &dyn Store) {
    let to = lock("a");
    let leases = store.acquire(&[Shard(1), to.shard()]).expect("acquired");
    let [one, own] = [leases[0], leases[1]];
    let sent = mail(one, 0, &to);
    let refused = store.commit(&Commit {
        shards: vec![own],
        mail: vec![sent.clone()],
        ..Commit::default()
    });
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    send(store, one, vec![sent.clone()]).expect("sent");
    // Another owner came: the one before sends and takes nothing any more.
    store.acquire(&[Shard(1), to.shard()]).expect("acquired");
    let stale = send(store, advanced(one), vec![mail(advanced(one), 0, &to)]);
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let stale = store.commit(&Commit {
        shards: vec![own],
        marks: vec![Mark {
            to: own.shard,
            from: one.shard,
            number: sent.number,
        }],
        ..Commit::default()
    });
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    assert_eq!(store.mail(&ShardSet::all(), 9).expect("read"), [sent]);
}
