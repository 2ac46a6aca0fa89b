use super::*;
use kapell_api::task::{HttpCredentials, HttpRequest};
use kapell_model::FailureKind;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::TcpListener;

/// A server that gives each connection the next of these answers and tells what it was asked.
pub(super) fn server(answers: Vec<String>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 65536];
            let count = stream.read(&mut request).unwrap();
            let _ = sender.send(String::from_utf8_lossy(&request[..count]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

pub(super) fn request(url: &str, change: impl FnOnce(&mut HttpRequest)) -> Work {
    let mut request = HttpRequest {
        method: "GET".into(),
        url: url.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        auth: None,
    };
    change(&mut request);
    Work::Http {
        request: Box::new(request),
        process: Box::new(process()),
    }
}

#[test]
fn an_answer_becomes_the_output() {
    let setup = setup();
    let (url, asked) = server(vec![answer(
        "201 Created",
        "Content-Type: application/json; charset=utf-8\r\nX-A: b\r\n",
        r#"{"id":7}"#,
    )]);
    let ended = setup.run(request(&format!("{url}/v1?a=1"), |request| {
        request.method = "POST".into();
        request.query = vec![("q".into(), "ä &".into())];
        request.headers = vec![("X-Token".into(), secret("token"))];
        request.body = Some(("application/json", "{}".into()));
        request.auth = Some(HttpCredentials::Basic {
            user: SecretText::plain("me"),
            password: SecretText::plain("pw"),
        });
    }));
    let value = ended.value().to_json();
    assert_eq!(
        (
            &value["status"],
            &value["body"]["id"],
            &value["headers"]["x-a"]
        ),
        (&201.into(), &7.into(), &"b".into())
    );
    let asked = asked.recv_timeout(PATIENCE).unwrap().to_lowercase();
    for wanted in [
        "post /v1?a=1&q=%c3%a4%20%26 http/1.1",
        "x-token: s3cret+value/long",
        "idempotency-key: idempotent",
        "traceparent: 00-",
        "authorization: basic bwu6cHc=",
    ] {
        assert!(
            asked.contains(&wanted.to_lowercase()),
            "{wanted} is missing in {asked}"
        );
    }
}

#[test]
fn statuses_tell_whose_fault_it_is() {
    let setup = setup();
    let (url, _asked) = server(vec![
        answer("404 Not Found", "", "nothing here"),
        answer("429 Too Many Requests", "Retry-After: 7\r\n", ""),
        answer(
            "503 Service Unavailable",
            "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n",
            "",
        ),
    ]);
    let error = setup.run(request(&url, |_| {})).error().clone();
    assert_eq!(
        (error.kind, error.reason.as_str(), error.http_status),
        (FailureKind::User, "http_status", Some(404))
    );
    assert!(error.message.contains("nothing here"), "{}", error.message);
    let error = setup.run(request(&url, |_| {})).error().clone();
    assert_eq!(
        (error.kind, error.retry_after),
        (FailureKind::Platform, Some(Duration::from_secs(7)))
    );
    let error = setup.run(request(&url, |_| {})).error().clone();
    assert_eq!(
        (error.kind, error.http_status),
        (FailureKind::Platform, Some(503))
    );
}

#[test]
fn no_answer_is_the_platforms_fault() {
    let setup = setup();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = setup
        .run(request(&format!("http://{free}/"), |_| {}))
        .error()
        .clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::Platform, "connection")
    );
    let error = setup.run(request("nonsense", |_| {})).error().clone();
    assert_eq!(
        (error.kind, error.permanent),
        (FailureKind::User, true),
        "{error:?}"
    );
}

#[test]
fn redirects_have_a_bound() {
    let setup = setup();
    let (url, _asked) = server(vec![answer("302 Found", "Location: /again\r\n", ""); 8]);
    let error = setup.run(request(&url, |_| {})).error().clone();
    assert_eq!(error.kind, FailureKind::User);
    assert!(error.message.contains("redirects"), "{}", error.message);
}

#[test]
fn a_silent_server_can_be_cancelled_or_times_out() {
    let setup = setup();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let offer = setup.offer(request(&url, |_| {}));
    let (_stream, _) = listener.accept().unwrap();
    setup.cancel(offer);
    assert!(matches!(setup.ended(offer).outcome, Outcome::Cancelled));
    let Work::Http {
        request,
        mut process,
    } = request(&url, |_| {})
    else {
        unreachable!()
    };
    process.timeout = Some(Duration::from_millis(200));
    assert_eq!(
        setup.run(Work::Http { request, process }).error().kind,
        FailureKind::Timeout
    );
}

#[test]
fn a_cancelled_request_frees_its_thread() {
    // More than there are threads: had they stayed with a silent server, the last request would wait.
    let many = 40;
    let setup = setup_with(|config| config.capacity.slots = many, Containment::Cgroups);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let offers: Vec<Offer> = (0..many)
        .map(|_| setup.offer(request(&url, |_| {})))
        .collect();
    let _open: Vec<_> = (0..8).map(|_| silent.accept().unwrap()).collect();
    for offer in &offers {
        setup.cancel(*offer);
    }
    for offer in offers {
        assert!(matches!(setup.ended(offer).outcome, Outcome::Cancelled));
    }
    let (url, _asked) = server(vec![answer("200 OK", "", "still there")]);
    setup.run(request(&url, |_| {})).value();
}

/// An authority made for this test: its certificate as PEM, and one that it signed for `localhost`.
fn authority() -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own_key = KeyPair::generate().unwrap();
    let own = parameters.self_signed(&own_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(parameters, own_key))
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    (own.pem(), signed.der().clone(), key)
}

/// A server with this certificate; it answers one request.
fn tls_server(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        // A client that does not trust us ends here.
        if stream.read(&mut [0; 4096]).is_ok() {
            let _ = stream.write_all(answer("200 OK", "", "in private").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    url
}

#[test]
fn a_certificate_is_trusted_by_the_authorities_it_is_told_of() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (authority, certificate, key) = authority();
    std::fs::write(file.path(), authority).unwrap();
    let server = || tls_server(certificate.clone(), key.clone_key());
    let trusting = setup_with(
        |config| {
            let entry = ("SSL_CERT_FILE".into(), file.path().into());
            config.inherit_env.push(entry);
        },
        Containment::Cgroups,
    );
    let value = trusting.run(request(&server(), |_| {})).value().to_json();
    assert_eq!(value["body"], "in private");
    let error = setup().run(request(&server(), |_| {})).error().clone();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (FailureKind::Platform, "connection")
    );
    assert!(error.message.contains("certificate"), "{}", error.message);
}

#[test]
fn addresses_that_give_credentials_away_are_refused() {
    let setup = setup();
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://0.0.0.0:1/",
    ] {
        let error = setup.run(request(url, |_| {})).error().clone();
        assert_eq!(error.reason, "refused", "{url}: {}", error.message);
        assert!(
            error.permanent && error.message.contains("http.allow"),
            "{}",
            error.message
        );
    }
}

#[test]
fn a_redirect_and_a_name_lead_nowhere_that_is_refused() {
    let setup = setup_with(
        |config| config.http.deny = vec!["127.0.0.2/32".parse().unwrap()],
        Containment::Cgroups,
    );
    let (url, asked) = server(vec![answer(
        "302 Found",
        "Location: http://127.0.0.2:1/secret\r\n",
        "",
    )]);
    let error = setup.run(request(&url, |_| {})).error().clone();
    asked.recv().unwrap();
    assert_eq!(error.reason, "refused", "{}", error.message);
    // Where clouds keep their metadata is refused without a word of the configuration, however it is said.
    for place in [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "0xa9fea9fe",
    ] {
        let setup = super::setup();
        let to = format!("Location: http://{place}/latest/meta-data/\r\n");
        let (url, _asked) = server(vec![answer("302 Found", &to, "")]);
        let error = setup.run(request(&url, |_| {})).error().clone();
        assert_eq!(error.reason, "refused", "{place}: {}", error.message);
    }
    // A name is as good as what it stands for.
    let setup = setup_with(
        |config| {
            let all = ["127.0.0.0/8", "::1"];
            config.http.deny = all.iter().map(|text| text.parse().unwrap()).collect();
        },
        Containment::Cgroups,
    );
    let error = setup
        .run(request("http://localhost:1/", |_| {}))
        .error()
        .clone();
    assert_eq!(error.reason, "refused", "{}", error.message);
    assert!(
        error.message.contains("`localhost` is "),
        "{}",
        error.message
    );
}

#[test]
fn an_answer_that_repeats_a_secret_is_kept_without_it() {
    let setup = setup();
    let told = "X-Echo: Bearer s3cret+value/long\r\nContent-Type: application/json\r\n";
    let (url, _asked) = server(vec![
        answer("200 OK", told, r#"{"headers":{"a":"s3cret+value/long"}}"#),
        answer("200 OK", "", "bWU6czNjcmV0K3ZhbHVlL2xvbmc="),
        answer(
            "400 Bad Request",
            "",
            &format!("{}s3cret+value/long", "x".repeat(990)),
        ),
    ]);
    let with = || {
        request(&url, |request| {
            request.headers = vec![("X-Token".into(), secret("token"))];
        })
    };
    let value = setup.run(with()).value().to_json();
    assert_eq!(value["headers"]["x-echo"], "Bearer ***");
    assert_eq!(value["body"]["headers"]["a"], "***");
    let log = setup.log_text("step");
    assert!(
        log.iter().any(|line| line.contains("was hidden")),
        "{log:?}"
    );
    let value = setup.run(with()).value().to_json();
    let body = value["body"].as_str().unwrap();
    assert!(body.contains("***") && !body.contains("czNjcmV0"), "{body}");
    let error = setup.run(with()).error().clone();
    assert!(!error.message.contains("s3cret"), "{}", error.message);
}
