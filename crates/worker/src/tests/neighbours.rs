//! What an attempt that is to run alone shares its worker with: nothing.

use super::*;
use kapell_model::spec::PythonSource;

fn offer_alone(setup: &Setup, work: Work) -> Offer {
    let task = Task {
        alone: true,
        ..setup.task(work)
    };
    let offer = task.offer;
    setup.worker.offer(vec![task]);
    offer
}

#[test]
fn a_suspect_runs_without_neighbours() {
    let setup = setup();
    let (log, gate) = (setup.dir.path().join("log"), setup.dir.path().join("gate"));
    let script = |name: &str, between: &str| {
        shell(&format!(
            "echo {name} begins >> {0}; {between}; echo {name} ends >> {0}",
            log.display()
        ))
    };
    let until_gate = format!("until test -e {}; do sleep 0.01; done", gate.display());
    let first = setup.offer(script("first", &until_gate));
    wait_for_file(&log);
    let suspect = offer_alone(&setup, script("suspect", "sleep 0.2"));
    let last = setup.offer(script("last", "true"));
    // Room for it there is: only the first being there keeps it back.
    assert_eq!(setup.worker.usage().slots, 1);
    std::fs::write(&gate, "").unwrap();
    for offer in [first, suspect, last] {
        setup.ended(offer).value();
    }
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "first begins\nfirst ends\nsuspect begins\nsuspect ends\nlast begins\nlast ends\n"
    );
}

#[test]
fn a_request_is_no_neighbour() {
    let setup = setup();
    let (begun, gate) = (
        setup.dir.path().join("begun"),
        setup.dir.path().join("gate"),
    );
    let suspect = offer_alone(
        &setup,
        shell(&format!(
            "echo here > {}; until test -e {}; do sleep 0.01; done",
            begun.display(),
            gate.display()
        )),
    );
    wait_for_file(&begun);
    let (url, _) = http::server(vec![http::answer("200 OK", "", "beside")]);
    setup.run(http::request(&url, |_| {})).value();
    std::fs::write(&gate, "").unwrap();
    setup.ended(suspect).value();
}

/// Two tasks meet in one host; then one of them, told to, takes it down.
fn meeting(name: &'static str, deadly: bool, folder: &Path) -> Work {
    let source = "import os, pathlib, signal, time\n\
        def run(name, deadly, folder):\n\
        \x20   folder = pathlib.Path(folder)\n\
        \x20   tries = len(list(folder.glob(name + '*')))\n\
        \x20   (folder / f'{name}{tries}').touch()\n\
        \x20   while tries == 0 and len(list(folder.glob('*0'))) < 2:\n\
        \x20       time.sleep(0.01)\n\
        \x20   if deadly:\n\
        \x20       os.kill(os.getpid(), signal.SIGKILL)\n\
        \x20   while tries == 0:\n\
        \x20       time.sleep(1)\n\
        \x20   return name\n";
    let mut process = process();
    process.path = name.into();
    process.with.value = Value::map([
        ("name", Value::from(name)),
        ("deadly", Value::Bool(deadly)),
        ("folder", Value::from(folder.display().to_string())),
    ]);
    Work::Python {
        source: PythonSource::Code(source.into()),
        function: "run".into(),
        requirements: Vec::new(),
        concurrency: 2,
        process: Box::new(process),
    }
}

#[test]
fn who_took_a_shared_host_down_shows_when_each_runs_alone() {
    let setup = setup();
    let folder = setup.dir.path().join("tries");
    std::fs::create_dir(&folder).unwrap();
    let both = [("deadly", true), ("harmless", false)];
    let first = both.map(|(name, deadly)| setup.offer(meeting(name, deadly, &folder)));
    for offer in first {
        let outcome = setup.ended(offer).outcome;
        assert!(
            matches!(
                outcome,
                Outcome::Lost {
                    explained: false,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
    let [deadly, harmless] =
        both.map(|(name, deadly)| offer_alone(&setup, meeting(name, deadly, &folder)));
    assert_eq!(setup.ended(deadly).error().reason, "signal");
    assert_eq!(setup.ended(harmless).value().as_str(), Some("harmless"));
}
