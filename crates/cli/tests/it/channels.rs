//! `kapell channel`, with a receiver that answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::place::Place;
use crate::server::Server;

const FAILS: &str = "\
workflow: fails
notify: { to: on-call }
steps:
  a: { shell: \"exit 3\" }
";

/// What came: the head in small letters, and the body.
type Post = (String, Value);

/// Answers one post after another with these statuses. The address, and what comes.
fn receiver(statuses: &'static [&'static str]) -> (String, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (came, coming) = channel();
    std::thread::spawn(move || {
        for status in statuses {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                head.push_str(&line.to_lowercase());
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.into_inner().write_all(answer.as_bytes()).unwrap();
            came.send((head, serde_json::from_slice(&body).unwrap()))
                .unwrap();
        }
    });
    (url, coming)
}

fn key(post: &Post) -> &str {
    let line = post
        .0
        .lines()
        .find(|line| line.starts_with("idempotency-key:"));
    line.unwrap()
}

#[test]
fn notices_are_tried_out_shown_sent_again_and_forgotten() {
    let (url, posts) = receiver(&[
        "200 OK",
        "500 Broken",
        "400 Bad",
        "204 Taken",
        "503 Busy",
        "404 Gone",
    ]);
    let text = format!("[notify.channels.on-call]\nurl = \"{url}\"\n");
    let place = Place::with("kapell.toml", &text);
    place.write("fails.yaml", FAILS);
    let server = Server::with(place, &[]);
    let place = &server.place;
    let counts = |waiting: u64, failed: u64| {
        place.until(&["channel", "list", "--json"], |page| {
            let all = page["channels"].as_array().unwrap().first();
            let of = |key: &str| all.map_or(0, |channel| channel[key].as_u64().unwrap());
            (of("waiting"), of("failed")) == (waiting, failed)
        })
    };
    let tested = place.good(&["channel", "test", "on-call"]).out;
    assert_eq!(tested, "delivered a test to on-call\n");
    assert_eq!(posts.recv().unwrap().1["event"], "test");
    let tested = place.kapell(&["channel", "test", "on-call"]);
    assert!(
        tested.status == 1 && tested.out.contains("not delivered: ") && tested.out.contains("500"),
        "{}",
        tested.all()
    );
    posts.recv().unwrap();
    assert_eq!(
        place.good(&["channel", "list"]).out,
        "no notice waits, and none was given up\n"
    );
    // Given up at once, as it is refused for good.
    assert_eq!(place.kapell(&["run", "fails.yaml"]).status, 1);
    let first = posts.recv().unwrap();
    assert_eq!(
        (&first.1["event"], &first.1["workflow"]),
        (&"failed".into(), &"fails".into())
    );
    counts(0, 1);
    let listed = place.good(&["channel", "list"]).out;
    assert!(
        listed.contains("on-call  0 waiting  1 given up  0 delivered"),
        "{listed}"
    );
    let shown = place.good(&["channel", "show", "on-call"]).out;
    assert!(
        shown.contains("given up  tried 1 time") && shown.contains("400"),
        "{shown}"
    );
    let number =
        place.json(&["channel", "show", "on-call", "--json"])["failed"][0]["number"].to_string();
    let again = place.good(&["channel", "again", "on-call", &number]).out;
    assert!(
        again.starts_with("1 notice of on-call are sent "),
        "{again}"
    );
    let second = posts.recv().unwrap();
    assert_eq!(key(&first), key(&second), "it is the same notice");
    place.until(&["channel", "show", "on-call", "--json"], |view| {
        view["delivered"] == 1
    });
    // One that waits cannot be forgotten, only sent now.
    assert_eq!(place.kapell(&["run", "fails.yaml"]).status, 1);
    posts.recv().unwrap();
    counts(1, 0);
    let shown = place.until(&["channel", "show", "on-call", "--json"], |view| {
        view["queue"][0]["tries"] == 1
    });
    let number = shown["queue"][0]["number"].to_string();
    let shown = place.good(&["channel", "show", "on-call"]).out;
    assert!(shown.contains("waits  next try"), "{shown}");
    let refused = place.kapell(&["channel", "forget", "on-call", &number]);
    assert!(
        refused.status == 2 && refused.errors.contains("was given up"),
        "{}",
        refused.all()
    );
    place.good(&["channel", "again", "on-call"]);
    posts.recv().unwrap();
    counts(0, 1);
    let forgotten = place.json(&["channel", "forget", "on-call", "--json"]);
    assert_eq!(forgotten["notices"][0].to_string(), number);
    counts(0, 0);
    for verb in ["show", "test", "again"] {
        let said = place.kapell(&["channel", verb, "nowhere"]);
        assert!(
            said.status != 0 || said.out.contains('0'),
            "{verb}: {}",
            said.all()
        );
    }
    assert_eq!(server.end(), 0);
}
