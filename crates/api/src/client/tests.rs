use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::{Client, HttpServer, Target};

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
