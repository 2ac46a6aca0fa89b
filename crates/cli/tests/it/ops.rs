//! Secrets, configuration, backups: what somebody who runs a Kapell does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::place::{HOLD, Place};

const SECRET: &str = "hunter2-and-more";

const USER: &str = "\
workflow: user
steps:
  use:
    shell: echo \"the token is $TOKEN\"; test \"${#TOKEN}\" = 16
    env: { TOKEN: \"${{ secrets.token }}\" }
";

/// Runs a command with this on its standard input; its status and all that it printed.
fn fed(mut command: Command, input: &str) -> (i32, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code().unwrap(), said)
}

/// Everything below the data directory, as bytes.
fn stored(place: &Place) -> Vec<u8> {
    let mut all = Vec::new();
    let mut folders = vec![place.path(".kapell")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                all.extend(std::fs::read(entry.path()).unwrap());
            }
        }
    }
    all
}

fn holds(all: &[u8], text: &str) -> bool {
    all.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_secret_is_used_by_a_step_and_shown_nowhere() {
    let place = Place::with("user.yaml", USER);
    let said = place.kapell(&["run", "user.yaml"]);
    assert_eq!(said.status, 1, "there is no such secret yet");
    let set = place.command(&["secret", "set", "token"]);
    let (status, said) = fed(set, &format!("{SECRET}\n"));
    assert_eq!(status, 0, "{said}");
    place.good(&["run", "user.yaml"]);
    let logs = place.good(&["logs"]).out;
    assert!(
        logs.contains("the token is") && !logs.contains(SECRET),
        "{logs}"
    );
    let list = place.json(&["secret", "list", "--json"]);
    assert_eq!(list["secrets"][0]["name"], "token");
    assert_eq!(list["secrets"][0]["by"], "ann");
    let all = stored(&place);
    assert!(holds(&all, "the token is") && !holds(&all, SECRET));
    place.good(&["secret", "rotate"]);
    place.good(&["run", "user.yaml"]);
    // A variable of the process that works goes before it.
    let mut own = place.command(&["run", "user.yaml"]);
    let own = own.env("KAPELL_SECRET_token", "another").output().unwrap();
    assert_eq!(own.status.code(), Some(1));
    place.good(&["secret", "delete", "token"]);
    assert_eq!(place.kapell(&["secret", "delete", "token"]).status, 2);
    assert_eq!(place.kapell(&["run", "user.yaml"]).status, 1);
}

#[test]
fn a_secret_that_cannot_be_kept_is_said_without_its_value() {
    let place = Place::new();
    for name in ["bad-name", ""] {
        let set = place.command(&["secret", "set", name]);
        let (status, said) = fed(set, SECRET);
        assert_eq!(status, 2, "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
    let (status, said) = fed(place.command(&["secret", "set", "empty"]), "\n");
    assert_eq!(status, 2, "{said}");
}

#[test]
fn the_configuration_says_what_holds_and_who_says_so() {
    let place = Place::with("kapell.toml", "[worker]\nslots = 3\n");
    let key = |arguments: &[&str], name: &str| {
        let mut command = place.command(&[&["config", "--json"], arguments].concat());
        let output = command
            .env("KAPELL_SECRETS_KEY", "hidden")
            .output()
            .unwrap();
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = all
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["key"] == name);
        let found = found.unwrap();
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("value"), text("from"))
    };
    let said = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(key(&[], "worker.slots"), said("3", "file"));
    assert_eq!(key(&[], "log.format"), said("text", "default"));
    assert_eq!(
        key(&[], "secrets.key"),
        said("(hidden)", "KAPELL_SECRETS_KEY")
    );
    let flag = ["--data-dir", "elsewhere"];
    assert_eq!(key(&flag, "data_dir"), said("elsewhere", "--data-dir"));
    place.write("kapell.toml", "[worker]\nslot = 3\n");
    let refused = place.kapell(&["list"]);
    assert_eq!(refused.status, 2);
    assert!(refused.errors.contains("bad-config") && refused.errors.contains("worker.slots"));
    place.write("kapell.toml", "[http]\ndeny = [\"everything\"]\n");
    assert!(
        place
            .kapell(&["list"])
            .errors
            .contains("`everything` is no network")
    );
    // The example that is printed can be read.
    place.write(
        "kapell.toml",
        &place
            .command(&["--config", "/dev/null", "config", "--example"])
            .output()
            .map(|output| String::from_utf8(output.stdout).unwrap())
            .unwrap(),
    );
    place.good(&["config"]);
}

#[test]
fn what_kapell_says_of_itself_can_be_json() {
    let place = Place::with("hold.yaml", HOLD);
    let mut run = place.command(&["run", "hold.yaml", "-p", "mark=/"]);
    let output = run
        .env("KAPELL_LOG", "trace")
        .env("KAPELL_LOG_FORMAT", "json")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<serde_json::Value> = errors
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty(), "{errors}");
    for line in lines {
        assert!(line["at"].is_string() && line["level"].is_string() && line["message"].is_string());
    }
}

#[test]
fn a_backup_is_made_while_work_goes_on_and_comes_back() {
    let place = Place::with("hold.yaml", HOLD);
    let mark = format!("mark={}", place.path("mark").display());
    let mut run = place.start(&["run", "hold.yaml", "-p", &mark]);
    run.until("quick");
    place.good(&["backup", "one.tar"]);
    place.write("mark", "");
    assert_eq!(run.end().0, 0);
    let again = place.kapell(&["backup", "one.tar"]);
    assert_eq!(again.status, 2, "{}", again.all());
    place.good(&["restore", "one.tar", "--data-dir", "other"]);
    let list = place.json(&["list", "--json", "--data-dir", "other"]);
    assert_eq!(list["runs"][0]["status"], "running", "as it was then");
    place.good(&["resume", "--data-dir", "other"]);
    let list = place.json(&["list", "--json", "--data-dir", "other"]);
    assert_eq!(list["runs"][0]["status"], "succeeded");
}

#[test]
fn metrics_are_answered_where_work_is_done() {
    let place = Place::with("hold.yaml", HOLD);
    let mark = format!("mark={}", place.path("mark").display());
    let mut run = place.start(&["run", "hold.yaml", "-p", &mark, "--slots", "3"]);
    run.until("quick");
    let page = loop {
        let mut socket = UnixStream::connect(place.path(".kapell/kapell.sock")).unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: kapell\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        if page.contains("kapell_worker_busy_attempts{worker=\"(here)\"} 1\n") {
            break page;
        }
    };
    for line in [
        "kapell_worker_slots{worker=\"(here)\"} 3",
        "kapell_queue_in_flight_attempts{queue=\"default\"} 1",
        "kapell_queue_startable_attempts{queue=\"default\"} 0",
        "kapell_run_created_total{trigger=\"manual\"} 1",
        "kapell_runs{workflow=\"hold\",status=\"running\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    place.write("mark", "");
    assert_eq!(run.end().0, 0);
}
