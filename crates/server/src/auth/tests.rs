use kapell_store::MemoryStore;

use super::*;

fn tokens() -> Arc<Tokens> {
    Arc::new(Tokens::new(Arc::new(MemoryStore::default()), false))
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
    let tokens = Arc::new(Tokens::new(Arc::clone(&store) as Arc<dyn Store>, false));
    assert!(!tokens.any().unwrap());
    let made = tokens.create(&new("ci", &[Scope::Run])).unwrap();
    let shown = format!("Bearer {}", made.secret);
    let again = Arc::new(Tokens::new(store, false));
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
    let caller = tokens.check(&shown, peer()).unwrap();
    assert!(caller.still_may());
    let revoked = tokens.revoke("ci", "bob").unwrap();
    assert_eq!(revoked.revoked_by.as_deref(), Some("bob"));
    assert_eq!(code(&shown), ErrorCode::NotAuthenticated);
    assert!(!caller.still_may(), "what it opened ends");
    assert!(!tokens.any().unwrap());
    // The name is free again, and the id still means the first.
    tokens.create(&new("ci", &[Scope::Run])).unwrap();
    assert_eq!(tokens.revoke(&made.token.id, "eve").unwrap(), revoked);
}

#[test]
fn what_another_server_makes_and_revokes_is_known() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let here = Arc::new(Tokens::new(Arc::clone(&store), true));
    let there = Arc::new(Tokens::new(store, true));
    assert!(!there.any().unwrap());
    let made = here.create(&new("ci", &[Scope::Run])).unwrap();
    let shown = format!("Bearer {}", made.secret);
    let becomes = |let_in: bool| {
        let is_so = || there.check(&shown, peer()).is_ok() == let_in;
        let tries = (0..2_000).take_while(|_| !is_so());
        tries.for_each(|_| std::thread::park_timeout(Duration::from_millis(10)));
        assert!(is_so());
    };
    becomes(true);
    here.revoke("ci", "bob").unwrap();
    becomes(false);
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
        about: None,
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
        ..Default::default()
    };
    let rest = second.list(&query, 10).unwrap();
    let left: Vec<&str> = rest.entries.iter().map(|entry| &*entry.what).collect();
    assert_eq!((left, rest.next), (vec!["one"], None));
}

#[test]
fn entries_are_found_by_who_what_and_when() {
    let audit = Audit::new(Arc::new(MemoryStore::default()));
    let now = clock::now();
    let ago = |minutes: i64| Time(now.0 - minutes * 60_000_000);
    for (minutes, who, what, about) in [
        (50, "ann", "POST /api/v1/runs", "workflow `sales`, run 1"),
        (40, "bob", "POST /api/v1/runs", "workflow `other`, run 2"),
        (30, "ann", "DELETE /api/v1/workflows/sales", ""),
        (20, "bob", "PATCH /api/v1/workflows/sales", "paused"),
        (10, "ann", "PUT /api/v1/secrets/token", ""),
    ] {
        let mut entry = entry(what, ago(minutes));
        entry.who = who.to_owned();
        entry.about = Some(about.to_owned());
        audit.record(entry, None);
    }
    audit.close();
    let asked = |query: kapell_api::http::AuditQuery, limit| {
        let page = audit.list(&query, limit).unwrap();
        let numbers: Vec<u64> = page.entries.iter().map(|entry| entry.number).collect();
        (numbers, page.next)
    };
    let query = kapell_api::http::AuditQuery::default;
    let who = |who: &str| Some(who.to_owned());
    let what = |what: &str| Some(what.to_owned());
    assert_eq!(asked(query(), 9), (vec![5, 4, 3, 2, 1], None));
    let mut ann = query();
    ann.who = who("ann");
    assert_eq!(asked(ann.clone(), 9), (vec![5, 3, 1], None));
    assert_eq!(asked(ann.clone(), 2), (vec![5, 3], Some(3)));
    ann.before = Some(3);
    assert_eq!(asked(ann, 2), (vec![1], None));
    let mut sales = query();
    sales.what = what("SALES");
    assert_eq!(asked(sales.clone(), 9), (vec![4, 3, 1], None));
    sales.since = Some(ago(35));
    assert_eq!(asked(sales.clone(), 9), (vec![4, 3], None));
    sales.who = who("bob");
    assert_eq!(asked(sales, 9), (vec![4], None));
}

#[test]
fn a_change_in_this_process_has_an_entry_and_one_of_a_request_adds_to_its_own() {
    let audit = Audit::new(Arc::new(MemoryStore::default()));
    let said = |made: Option<&u8>| format!("made {}", made.copied().unwrap_or_default());
    assert_eq!(audit.change("POST", "/things", said, || Ok(7)).unwrap(), 7);
    let refused = || Err(Error::new(ErrorCode::NotAllowedNow, "no"));
    audit.change("POST", "/things", said, refused).unwrap_err();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let of_request = About::default();
    let handler = async {
        let work = carried(|| audit.change("POST", "/things", said, || Ok(8)).unwrap());
        assert_eq!(
            std::thread::scope(|scope| scope.spawn(work).join().unwrap()),
            8
        );
        about(|| "x".repeat(5_000));
    };
    runtime.block_on(of_request.clone().within(handler));
    let text = of_request.said().unwrap();
    assert!(
        text.starts_with("made 8; xxx") && text.len() <= 1_024,
        "{text}"
    );
    audit.close();
    let page = audit
        .list(&kapell_api::http::AuditQuery::default(), 9)
        .unwrap();
    let told: Vec<_> = page
        .entries
        .iter()
        .map(|entry| (&*entry.what, entry.status, entry.about.as_deref()))
        .collect();
    let what = "POST /api/v1/things";
    assert_eq!(
        told,
        [(what, 409, Some("made 0")), (what, 200, Some("made 7"))]
    );
    assert!(page.entries[0].from.starts_with("process "));
    about(|| unreachable!("there is no request"));
}
