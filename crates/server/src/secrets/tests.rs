use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use kapell_store::MemoryStore;
use tempfile::TempDir;

use super::*;

struct World {
    store: MemoryStore,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            folder: TempDir::new().unwrap(),
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("secret.key")
    }

    fn secrets(&self) -> Secrets {
        let store = Arc::new(self.store.clone());
        Secrets::new(store, KeySource::File(self.file()))
    }

    fn stored(&self) -> Vec<(Vec<u8>, String)> {
        self.store.documents(b"", None, Order::Forward, 99).unwrap()
    }
}

fn set(secrets: &Secrets, name: &str, value: &str) {
    secrets.set("default", name, value, "ada", Time(7)).unwrap();
}

#[test]
fn a_value_comes_back_and_is_nowhere_in_the_open() {
    let world = World::new();
    let secrets = world.secrets();
    assert_eq!(secrets.open("default", "token").unwrap(), None);
    assert!(
        !world.file().exists(),
        "nothing is made before it is needed"
    );
    set(&secrets, "token", "hunter2 \u{1f511}");
    let open = |name| world.secrets().open("default", name).unwrap();
    assert_eq!(open("token").as_deref(), Some("hunter2 \u{1f511}"));
    assert_eq!(open("tok"), None);
    assert_eq!(secrets.open("other", "token").unwrap(), None);
    for (key, body) in world.stored() {
        assert!(!format!("{key:?} {body}").contains("hunter2"), "{body}");
    }
    let mode = fs::metadata(world.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    set(&secrets, "token", "new");
    assert_eq!(open("token").as_deref(), Some("new"));
    secrets.delete("default", "token").unwrap();
    assert_eq!(open("token"), None);
    let error = secrets.delete("default", "token").unwrap_err();
    assert_eq!(error.code, ErrorCode::SecretNotFound);
}

#[test]
fn a_value_opens_under_its_own_name_alone() {
    let world = World::new();
    let secrets = world.secrets();
    set(&secrets, "mine", "a value");
    let (_, body) = world.stored().remove(0);
    let moved = document("default", "yours");
    world.store.put_documents(&[(moved, Some(body))]).unwrap();
    let error = secrets.open("default", "yours").unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreCorrupt);
    assert!(!error.message.contains("a value"));
}

#[test]
fn lists_say_when_and_by_whom_and_go_on() {
    let world = World::new();
    let secrets = world.secrets();
    for name in ["b", "a", "c"] {
        set(&secrets, name, "x");
    }
    secrets.set("other", "z", "x", "bob", Time(8)).unwrap();
    let names = |after: &str, limit| {
        let page = secrets.list("default", after, limit).unwrap();
        let names: Vec<String> = page.secrets.into_iter().map(|one| one.name).collect();
        (names.join(" "), page.next)
    };
    assert_eq!(names("", 9), ("a b c".to_owned(), None));
    assert_eq!(names("", 2), ("a b".to_owned(), Some("b".to_owned())));
    assert_eq!(names("b", 2), ("c".to_owned(), None));
    let other = secrets.list("other", "", 9).unwrap().secrets.remove(0);
    assert_eq!((other.by.as_str(), other.set_at), ("bob", Time(8)));
}

#[test]
fn a_rotation_seals_everything_anew_and_forgets_the_old_key() {
    let world = World::new();
    let secrets = world.secrets();
    // More than are written at once.
    for number in 0..AT_ONCE + 5 {
        set(&secrets, &format!("s{number}"), &format!("value {number}"));
    }
    // What the server keeps for itself is sealed again too, and is no secret that somebody set.
    secrets.set("", "own", "key", "kapell", Time(1)).unwrap();
    let old = fs::read_to_string(world.file()).unwrap();
    let before = world.stored();
    let rotated = secrets.rotate().unwrap();
    assert_eq!(rotated.secrets, AT_ONCE + 5);
    let new = fs::read_to_string(world.file()).unwrap();
    assert_eq!(new.lines().count(), 1);
    assert_ne!(old, new);
    for number in 0..AT_ONCE + 5 {
        let value = secrets.open("default", &format!("s{number}")).unwrap();
        assert_eq!(value, Some(format!("value {number}")));
    }
    // With the old key alone nothing opens any more, and what was copied before still would.
    let given = Secrets::new(
        Arc::new(world.store.clone()),
        KeySource::Given(old.trim().to_owned()),
    );
    let error = given.open("default", "s1").unwrap_err();
    assert_eq!(error.code, ErrorCode::BadSecretKey);
    let copy = MemoryStore::new();
    let documents: Vec<_> = before
        .into_iter()
        .map(|(key, body)| (key, Some(body)))
        .collect();
    copy.put_documents(&documents).unwrap();
    let copied = Secrets::new(Arc::new(copy), KeySource::Given(old.trim().to_owned()));
    assert_eq!(
        copied.open("default", "s1").unwrap().as_deref(),
        Some("value 1")
    );
}

#[test]
fn a_rotation_that_was_cut_short_loses_nothing() {
    let world = World::new();
    let secrets = world.secrets();
    set(&secrets, "a", "one");
    // As if it had died right after the new key was written.
    world.secrets().source.change(Change::AddNew).unwrap();
    set(&secrets, "b", "two");
    assert_eq!(
        secrets.open("default", "a").unwrap().as_deref(),
        Some("one")
    );
    secrets.rotate().unwrap();
    for (name, value) in [("a", "one"), ("b", "two")] {
        assert_eq!(
            secrets.open("default", name).unwrap().as_deref(),
            Some(value)
        );
    }
    assert_eq!(fs::read_to_string(world.file()).unwrap().lines().count(), 1);
}

#[test]
fn a_lost_key_is_not_replaced_while_something_is_sealed_with_it() {
    let world = World::new();
    let secrets = world.secrets();
    set(&secrets, "a", "one");
    fs::remove_file(world.file()).unwrap();
    for refused in [
        secrets
            .set("default", "b", "two", "ada", Time(7))
            .unwrap_err(),
        secrets.open("default", "a").unwrap_err(),
    ] {
        assert_eq!(refused.code, ErrorCode::BadSecretKey, "{}", refused.message);
    }
    assert!(!world.file().exists());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let world = World::new();
    let secrets = world.secrets();
    set(&secrets, "a", "one");
    fs::set_permissions(world.file(), Permissions::from_mode(0o640)).unwrap();
    let error = secrets.open("default", "a").unwrap_err();
    assert!(
        error.hint.unwrap().contains("chmod 600"),
        "{}",
        error.message
    );
}

#[test]
fn bad_names_values_and_keys_are_refused() {
    let world = World::new();
    let secrets = world.secrets();
    for name in [
        "",
        "1a",
        "a-b",
        "a.b",
        "a b",
        "é",
        &"x".repeat(limits::NAME_CHARS + 1),
    ] {
        let error = secrets
            .set("default", name, "x", "ada", Time(7))
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest, "{name}");
    }
    let long = "x".repeat(limits::SECRET_BYTES + 1);
    let error = secrets
        .set("default", "a", &long, "ada", Time(7))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitReached);
    assert!(secrets.set("default", "a", "", "ada", Time(7)).is_err());
    for given in ["", "short", "AAAA,", BASE64_OF_31] {
        let given = Secrets::new(
            Arc::new(world.store.clone()),
            KeySource::Given(given.to_owned()),
        );
        let error = given.set("default", "a", "x", "ada", Time(7)).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadSecretKey);
    }
    assert!(world.stored().is_empty());
}

const BASE64_OF_31: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

#[test]
fn nodes_of_one_cluster_have_one_key() {
    let world = World::new();
    let first = world.secrets();
    first.agree().unwrap();
    world.secrets().agree().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let file = KeySource::File(elsewhere.path().join("secret.key"));
    let other = Secrets::new(Arc::new(world.store.clone()), file);
    let refused = other.agree().map_err(|error| error.code);
    assert_eq!(refused, Err(ErrorCode::BadSecretKey));
    // A copy of the key is one, also of the key after a rotation.
    first.rotate().unwrap();
    let copied = fs::read(world.file()).unwrap();
    fs::write(elsewhere.path().join("secret.key"), copied).unwrap();
    other.agree().unwrap();
}
