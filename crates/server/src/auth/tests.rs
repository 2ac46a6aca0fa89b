use std::time::Duration;

use kapell_store::MemoryStore;

use super::*;

fn tokens() -> Tokens {
    Tokens::new(Arc::new(MemoryStore::default()))
}

fn new(name: &str, scopes: &[Scope]) -> NewToken {
    NewToken {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        namespaces: Vec::new(),
        expires_at: None,
        by: "ann".to_owned(),
    }
}

fn peer() -> Peer {
    Peer::Remote(([192, 0, 2, 7], 4_711).into())
}

#[test]
fn a_token_lets_in_until_it_is_revoked_and_another_process_knows_it() {
    let store = Arc::new(MemoryStore::default());
    let tokens = Tokens::new(Arc::clone(&store) as Arc<dyn Store>);
    assert!(!tokens.any().unwrap());
    let made = tokens.create(&new("ci", &[Scope::Run])).unwrap();
    let shown = format!("Bearer {}", made.secret);
    let again = Tokens::new(store);
    for tokens in [&tokens, &again] {
        assert_eq!(tokens.check(&shown, peer()).unwrap().name(), Some("ci"));
    }
    let code = |shown: &str| tokens.check(shown, peer()).unwrap_err().code;
    for wrong in [
        "",
        "Bearer",
        "Bearer x",
        "Basic x",
        &format!("{shown}0"),
        &shown.replace("kapell", "capell"),
    ] {
        assert_eq!(code(wrong), ErrorCode::NotAuthenticated, "{wrong}");
    }
    let revoked = tokens.revoke("ci", "bob").unwrap();
    assert_eq!(revoked.revoked_by.as_deref(), Some("bob"));
    assert_eq!(code(&shown), ErrorCode::NotAuthenticated);
    assert!(!tokens.any().unwrap());
    // The name is free again, and the id still means the first.
    tokens.create(&new("ci", &[Scope::Run])).unwrap();
    assert_eq!(tokens.revoke(&made.token.id, "eve").unwrap(), revoked);
}

#[test]
fn a_token_allows_its_scopes_in_its_namespaces() {
    let tokens = tokens();
    let caller = |new: &NewToken| {
        let made = tokens.create(new).unwrap();
        tokens
            .check(&format!("bearer {}", made.secret), peer())
            .unwrap()
    };
    let run = caller(&new("run", &[Scope::Read, Scope::Run]));
    let allowed =
        |caller: &Caller, namespace| Scope::ALL.map(|scope| caller.may(scope, namespace).is_ok());
    assert_eq!(allowed(&run, "default"), [true, true, false, false]);
    let admin = caller(&new("admin", &[Scope::Admin]));
    assert_eq!(allowed(&admin, "any"), [true; 4]);
    let mut one = new("one", &[Scope::Read]);
    one.namespaces = vec!["sales".to_owned()];
    let one = caller(&one);
    assert_eq!(allowed(&one, "sales"), [true, false, false, false]);
    assert_eq!(allowed(&one, "default"), [false; 4]);
}

#[test]
fn what_makes_no_token_is_refused() {
    let tokens = tokens();
    tokens.create(&new("taken", &[Scope::Read])).unwrap();
    let mut over = new("over", &[Scope::Read]);
    over.expires_at = Some(Time(1));
    for (bad, code) in [
        (new("", &[Scope::Read]), ErrorCode::BadRequest),
        (new("a\nb", &[Scope::Read]), ErrorCode::BadRequest),
        (new("none", &[]), ErrorCode::BadRequest),
        (over, ErrorCode::BadRequest),
        (new("taken", &[Scope::Read]), ErrorCode::NotAllowedNow),
    ] {
        assert_eq!(tokens.create(&bad).unwrap_err().code, code, "{bad:?}");
    }
    let error = tokens.revoke("nobody", "ann").unwrap_err();
    assert_eq!(error.code, ErrorCode::TokenNotFound);
}

#[test]
fn a_burst_of_a_second_is_let_through_and_then_the_rate() {
    let rates = Rates::new(10);
    let take = |weight, millis: i64| {
        rates.take(
            Client::of([192, 0, 2, 7].into()),
            weight,
            Time(millis * 1_000),
        )
    };
    for _ in 0..10 {
        take(1, 0).unwrap();
    }
    assert_eq!(take(1, 0).unwrap_err(), Duration::from_millis(100));
    take(1, 100).unwrap();
    take(1, 100).unwrap_err();
    // One that weighs more than a second's worth gets through alone.
    take(100, 5_000).unwrap();
    take(1, 5_000).unwrap_err();
    // A clock that was set back stops nobody for long.
    rates
        .take(Client::Token("x".into()), 1, Time(1_000_000_000))
        .unwrap();
    rates.take(Client::Token("x".into()), 1, Time(0)).unwrap();
}

#[test]
fn addresses_of_one_network_of_ipv6_are_one_client() {
    let client = |text: &str| Client::of(text.parse().unwrap());
    assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
    assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    assert_eq!(client("::ffff:192.0.2.7"), client("192.0.2.7"));
}

fn entry(what: &str, at: Time) -> kapell_api::http::AuditEntry {
    kapell_api::http::AuditEntry {
        number: 0,
        at,
        who: "ann".to_owned(),
        token: None,
        from: "socket".to_owned(),
        what: what.to_owned(),
        status: 200,
    }
}

#[test]
fn the_audit_log_numbers_on_after_a_restart_and_drops_what_is_old() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let first = Audit::new(Arc::clone(&store));
    first.record(entry("old", Time(0)), None);
    first.record(entry("one", clock::now()), first.room().ok());
    first.close();
    let second = Audit::new(store);
    second.record(entry("two", clock::now()), None);
    second.close();
    let query = kapell_api::http::AuditQuery::default();
    let page = second.list(&query, 1).unwrap();
    assert_eq!((page.entries[0].number, page.next), (3, Some(3)));
    let query = kapell_api::http::AuditQuery {
        before: page.next,
        limit: 0,
    };
    let rest = second.list(&query, 10).unwrap();
    let left: Vec<&str> = rest.entries.iter().map(|entry| &*entry.what).collect();
    assert_eq!((left, rest.next), (vec!["one"], None));
}
