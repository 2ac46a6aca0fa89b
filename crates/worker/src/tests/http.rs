use super::*;
use kapell_api::task::{HttpCredentials, HttpRequest};
use kapell_model::FailureKind;
use std::io::{Read, Write};
use std::net::TcpListener;

/// A server that gives each connection the next of these answers and tells what it was asked.
fn server(answers: Vec<String>) -> (String, Receiver<String>) {
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

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn request(url: &str, change: impl FnOnce(&mut HttpRequest)) -> Work {
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
