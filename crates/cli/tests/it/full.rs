//! A data directory whose disk is full. It takes a file system of its own, which takes the right to mount
//! one: where that is missing the test says so.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::place::Place;
use crate::server::{Server, ask};

/// A small file system in memory, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    #[expect(
        clippy::print_stderr,
        reason = "whoever reads the log wants to know what was skipped"
    )]
    fn new(place: &Place) -> Option<Self> {
        let path = place.path("disk");
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "kapell-test"])
            .arg(&path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                eprintln!("skipped: cannot mount: {why}");
                None
            }
            Err(error) => {
                eprintln!("skipped: no mount command: {error}");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for bytes in [1 << 20, 4 << 10, 1] {
            while ballast.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const WORKFLOW: &str = "workflow: w\nparams: { n: { type: int, default: 0 } }\nsteps:\n  a: { set: { n: \"${{ params.n }}\" } }\n";

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn post(server: &Server, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
    let address = server.url.split_once("//").unwrap().1;
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
    let (status, _, answer) = ask(address, &head, &body.to_string());
    (status, answer)
}

fn get(server: &Server, path: &str) -> (u16, serde_json::Value) {
    let address = server.url.split_once("//").unwrap().1;
    let (status, _, answer) = ask(address, &format!("GET {path} HTTP/1.1"), "");
    (status, answer)
}

/// Starts runs until one is refused for want of room; how many were made.
fn start_until_refused(server: &Server, disk: &Disk) -> u64 {
    let start = json!({ "workflow": "w", "params": {}, "by": "ann" });
    for made in 0.. {
        // What a failed write left in the log is room for smaller ones.
        disk.fill();
        let (status, body) = post(server, "/api/v1/runs", &start);
        if status == 507 {
            assert_eq!(body["code"], "disk-full", "{body}");
            return made;
        }
        assert!(status < 300, "{status}: {body}");
    }
    unreachable!()
}

#[test]
fn a_server_without_room_refuses_and_goes_on_by_itself() {
    let place = Place::with("w.yaml", WORKFLOW);
    let Some(disk) = Disk::new(&place) else {
        return;
    };
    let data = text(&disk.0.join("data"));
    let server = Server::with(place, &["--data-dir", &data]);
    let url = server.url.clone();
    let kapell = |arguments: &[&str]| {
        let arguments = [arguments, &["--server", &url]].concat();
        server.place.kapell(&arguments)
    };
    assert_eq!(kapell(&["deploy", "w.yaml"]).status, 0);
    assert_eq!(kapell(&["start", "w", "--watch"]).status, 0);
    disk.fill();
    let made = 1 + start_until_refused(&server, &disk);
    for command in [
        vec!["start", "w"],
        vec!["signal", "send", "x"],
        vec!["workflow", "pause", "w"],
    ] {
        let said = kapell(&command);
        assert_eq!(said.status, 1, "{command:?}: {}", said.all());
        assert!(
            said.errors.contains("disk-full"),
            "{command:?}: {}",
            said.all()
        );
    }
    assert_eq!(
        kapell(&["show", "last"]).status,
        0,
        "what is there is shown"
    );
    assert_eq!(kapell(&["why", "last"]).status, 0);
    disk.make_room();
    // Nobody asks for anything meanwhile but whether it is ready.
    while get(&server, "/health/ready").0 != 200 {
        std::thread::yield_now();
    }
    let runs = get(&server, "/api/v1/runs?limit=1000").1;
    let runs = runs["runs"].as_array().unwrap().len() as u64;
    assert_eq!(runs, made, "what was refused takes no effect");
    let said = kapell(&["signal", "show", "x", "--json"]);
    assert!(!said.out.contains("payload"), "{}", said.all());
    assert_eq!(kapell(&["start", "w", "--watch"]).status, 0);
    assert_eq!(server.end(), 0);
}

#[test]
fn a_command_on_a_full_directory_is_refused_and_a_server_waits_for_room() {
    let place = Place::with("w.yaml", WORKFLOW);
    let Some(disk) = Disk::new(&place) else {
        return;
    };
    let data = text(&disk.0.join("data"));
    place.good(&["run", "w.yaml", "--data-dir", &data]);
    let refused = loop {
        disk.fill();
        let said = place.kapell(&["start", "w", "--data-dir", &data]);
        if said.status != 0 {
            break said;
        }
    };
    assert!(refused.errors.contains("disk-full"), "{}", refused.all());
    let full = place.kapell(&["secret", "set", "token", "--data-dir", &data]);
    assert!(!full.errors.contains("bad-secret-key"), "{}", full.all());
    let arguments = ["server", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let mut server = place.start(&arguments);
    disk.make_room();
    server.until("answers at");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, 0);
}
