use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::{Client, HttpServer, NODES_HEADER, Target};

#[test]
fn a_connection_that_was_closed_between_two_requests_is_opened_again() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    // Each connection is closed after one answer, without a word of it.
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = socket.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.map(Result::unwrap).find(String::is_empty).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let target = Target::Http(Box::new(HttpServer::new(&url, None, None).unwrap()));
    let client = Client::to(target).unwrap();
    assert!(client.get::<bool>("/once").unwrap());
    let closed = || {
        let connection = client.connection.lock();
        connection
            .as_ref()
            .is_none_or(hyper::client::conn::http1::SendRequest::is_closed)
    };
    while !closed() {
        std::thread::yield_now();
    }
    assert!(client.post::<bool>("/again", &()).unwrap());
    server.join().unwrap();
}

/// Answers requests with this body, and this of where nodes are, one connection each.
fn node(answers: usize, nodes: &str) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let nodes = if nodes.is_empty() {
        String::new()
    } else {
        format!("{NODES_HEADER}: {nodes}\r\n")
    };
    let answering = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..answers {
            let (mut stream, _) = socket.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            asked.push(lines.next().unwrap().unwrap());
            lines.map(Result::unwrap).find(String::is_empty).unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{nodes}Connection: close\r\nContent-Length: 4\r\n\r\ntrue"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (url, answering)
}

/// An address where nobody is.
fn nobody() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

fn client(urls: &str) -> Client {
    let server = HttpServer::new(urls, None, None).unwrap();
    Client::to(Target::Http(Box::new(server))).unwrap()
}

#[test]
fn where_nobody_is_the_next_address_is_asked() {
    let (url, answering) = node(1, "");
    let client = client(&format!("{},{url}", nobody()));
    assert!(client.post::<bool>("/there", &()).unwrap());
    let asked = answering.join().unwrap();
    assert!(asked[0].contains("/there"), "{asked:?}");
}

#[test]
fn a_node_tells_where_others_are_and_they_are_asked_when_it_is_gone() {
    let (second, answers) = node(1, "");
    let (first, answered) = node(1, &format!("https://elsewhere:1,{second},nonsense"));
    let client = client(&first);
    assert!(client.get::<bool>("/first").unwrap());
    answered.join().unwrap();
    assert!(client.post::<bool>("/second", &()).unwrap());
    let asked = answers.join().unwrap();
    assert!(asked[0].contains("/second"), "{asked:?}");
}

#[test]
fn what_changes_nothing_is_asked_of_another_when_a_connection_ends_early() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (second, answers) = node(1, "");
    // It takes the request, and is gone.
    let gone = std::thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = silent.accept().unwrap();
            let lines = BufReader::new(stream).lines();
            lines.map(Result::unwrap).find(String::is_empty).unwrap();
        }
    });
    let urls = format!("{url},{second}");
    let error = client(&urls).post::<bool>("/change", &()).unwrap_err();
    assert_eq!(error.code, kapell_model::ErrorCode::ServerUnreachable);
    assert!(client(&urls).get::<bool>("/look").unwrap());
    gone.join().unwrap();
    let asked = answers.join().unwrap();
    assert!(asked[0].contains("/look"), "{asked:?}");
}

#[test]
fn a_token_that_goes_encrypted_never_goes_otherwise() {
    let server = HttpServer::new("https://a.example,https://b.example", None, None).unwrap();
    server.learn("http://c.example,https://d.example");
    assert_eq!(
        server.known(),
        ["a.example:443", "b.example:443", "d.example:443"]
    );
    let plain = HttpServer::new("http://a.example", None, None).unwrap();
    plain.learn("http://a.example,http://c.example,https://d.example");
    assert_eq!(plain.known(), ["a.example:80", "c.example:80"]);
    plain.learn("http://e.example");
    assert_eq!(plain.known(), ["a.example:80", "e.example:80"]);
    for bad in ["", "http://a.example,", "a.example,http://b.example"] {
        assert!(HttpServer::new(bad, None, None).is_err(), "{bad}");
    }
}
