use kapell_model::ErrorCode;

use super::*;

const SECRET: &str = "a secret";
const NOW: Time = Time(1_900_000_000_000_000);

fn sign(secret: &str, time: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn call(header: String, body: &str) -> Call {
    Call {
        signature: Some(header),
        id: None,
        body: body.as_bytes().to_vec(),
    }
}

fn refusal(call: &Call) -> String {
    let error = signed(SECRET, call, NOW).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotAuthenticated);
    error.message
}

#[test]
fn a_signature_is_that_of_rfc_2104_with_sha_256() {
    // Made with `printf '1900000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret'`.
    let right = "72ed0e5dd13bfc77f64aa4c429fea3e565c1a5e870ec38265d7ca5c920763250";
    let header = format!("t=1900000000,v1={right}");
    let found = signed(SECRET, &call(header, "{\"a\":1}"), NOW);
    assert_eq!(found.as_deref(), Ok(right));
}

#[test]
fn a_call_that_was_changed_or_signed_otherwise_is_refused() {
    let right = sign(SECRET, 1_900_000_000, "{}");
    let wrong = [
        call(format!("t=1900000000,v1={right}"), "{} "),
        call(format!("t=1900000001,v1={right}"), "{}"),
        call(format!("t=1900000000,v1={}", &right[2..]), "{}"),
        call(format!("t=1900000000,v1={right}0"), "{}"),
        call("t=1900000000,v1=".to_owned(), "{}"),
        call("t=1900000000".to_owned(), "{}"),
        call(
            format!("t=1900000000,v1={}", sign("other", 1_900_000_000, "{}")),
            "{}",
        ),
    ];
    for call in &wrong {
        assert_eq!(refusal(call), "the signature is wrong", "{call:?}");
    }
    assert!(refusal(&call(format!("v1={right}"), "{}")).contains("no time"));
    assert!(refusal(&call("x".repeat(2_000), "{}")).contains("too long"));
    let unsigned = Call::default();
    assert!(refusal(&unsigned).contains("not signed"));
}

#[test]
fn one_of_several_signatures_is_enough_while_a_secret_is_changed() {
    let old = sign("other", 1_900_000_000, "{}");
    let new = sign(SECRET, 1_900_000_000, "{}");
    let header = format!("t=1900000000, v1={old}, v1={new}, v2=later");
    assert_eq!(signed(SECRET, &call(header, "{}"), NOW), Ok(new));
}

#[test]
fn a_call_counts_within_five_minutes_of_its_time() {
    let seconds = 1_900_000_000;
    for (time, taken) in [
        (seconds - 300, true),
        (seconds + 300, true),
        (seconds - 301, false),
        (seconds + 301, false),
        (i64::MAX, false),
    ] {
        let header = format!("t={time},v1={}", sign(SECRET, time, "{}"));
        let found = signed(SECRET, &call(header, "{}"), NOW);
        assert_eq!(found.is_ok(), taken, "{time}");
    }
}

#[test]
fn a_call_without_a_signature_is_named_by_whoever_calls_or_by_chance() {
    let mut call = Call::default();
    let first = named(&call).unwrap();
    assert_ne!(first, named(&call).unwrap());
    call.id = Some("order-7".to_owned());
    assert_eq!(named(&call).unwrap(), "order-7");
    call.id = Some("x".repeat(300));
    assert_eq!(named(&call).unwrap_err().code, ErrorCode::LimitReached);
}

#[test]
fn the_key_of_addresses_is_sealed_and_one_that_was_not_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(kapell_store::MemoryStore::default());
    let hooks = || {
        let source = crate::KeySource::File(folder.path().join("secret.key"));
        let kept = Arc::new(Secrets::new(Arc::clone(&store), source));
        Hooks::new(Arc::clone(&store), kept)
    };
    let open = blake3::Hash::from_bytes([7; 32]).to_hex().to_string();
    store
        .put_documents(&[(DOCUMENT.to_vec(), Some(open.clone()))])
        .unwrap();
    assert_eq!(hooks().key().unwrap(), [7; 32]);
    let all = store.documents(&[], None, Order::Forward, 100).unwrap();
    assert!(all.iter().all(|(_, text)| !text.contains(&open)), "{all:?}");
    assert_eq!(hooks().key().unwrap(), [7; 32]);
    let listed = hooks().kept.list("default", "", 100).unwrap();
    assert!(listed.secrets.is_empty(), "it is no secret of workflows");
}

/// Strangers call webhooks: what is wrong with a secret, and its name, is for the log.
#[test]
fn a_caller_learns_nothing_of_the_secret_that_calls_are_signed_with() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(kapell_store::MemoryStore::default());
    let source = crate::KeySource::File(folder.path().join("secret.key"));
    let hooks = Hooks::new(
        Arc::clone(&store),
        Arc::new(Secrets::new(Arc::clone(&store), source)),
    );
    let hook = |secret: &str| Hook {
        workflow: "orders".into(),
        name: "hook".into(),
        version: 1,
        path: "hook".into(),
        secret: Some(Template::parse(secret).unwrap()),
    };
    let signed = call("t=1900000000,v1=00".to_owned(), "{}");
    for (secret, call, code) in [
        (
            "${{ secrets.orders_key }}",
            &Call::default(),
            ErrorCode::NotAuthenticated,
        ),
        (
            "${{ secrets.orders_key }}",
            &signed,
            ErrorCode::NotAllowedNow,
        ),
        ("a-${{ orders_key.x }}", &signed, ErrorCode::BadDefinition),
    ] {
        let error = hooks.check(&hook(secret), call).unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(!format!("{error:?}").contains("orders_key"), "{error:?}");
    }
}
