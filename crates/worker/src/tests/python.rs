use super::*;
use kapell_api::log::Stream;
use kapell_model::FailureKind;
use kapell_model::spec::PythonSource;

fn code(source: &str, with: Value) -> Work {
    call(PythonSource::Code(source.into()), "run", 1, |process| {
        process.with.value = with;
    })
}

fn call(
    source: PythonSource,
    function: &str,
    concurrency: u32,
    change: impl FnOnce(&mut Process),
) -> Work {
    let mut process = process();
    change(&mut process);
    Work::Python {
        source,
        function: function.into(),
        requirements: Vec::new(),
        concurrency,
        process: Box::new(process),
    }
}

fn map(json: &str) -> Value {
    Value::from_json(&serde_json::from_str(json).unwrap())
}

#[test]
fn a_function_gets_its_arguments_and_gives_its_value() {
    let setup = setup();
    let source =
        "def run(a, b=2):\n    print('sum', a + b)\n    return {'sum': a + b, 'list': (1, 2)}\n";
    assert_eq!(
        setup.run(code(source, map(r#"{"a":1}"#))).json(),
        r#"{"list":[1,2],"sum":3}"#
    );
    let lines = setup.log("step");
    assert_eq!(
        (lines[0].text.as_str(), lines[0].stream),
        ("sum 3", Stream::Stdout)
    );
}

#[test]
fn hosts_stay_warm() {
    let setup = setup();
    let source = "import os\ncalls = 0\ndef run():\n    global calls\n    calls += 1\n    return [os.getpid(), calls]\n";
    let first = setup
        .run(code(source, Value::Null))
        .value()
        .as_list()
        .unwrap()[0]
        .clone();
    let second = setup.run(code(source, Value::Null));
    assert_eq!(second.value(), &Value::list(vec![first, Value::Int(2)]));
}

#[test]
fn arguments_are_converted_by_annotation() {
    let source = r#"
import dataclasses, datetime, enum, pathlib, typing
class Color(enum.Enum):
    RED = "red"
@dataclasses.dataclass
class Point:
    x: int
    on: datetime.date = datetime.date(2000, 1, 1)
def run(n: int, f: float, d: datetime.date, t: datetime.datetime, w: datetime.timedelta, p: Point,
        c: Color, path: pathlib.Path, many: list[Point], maybe: typing.Optional[int] = None):
    assert type(f) is float and isinstance(d, datetime.date) and t.tzinfo and isinstance(path, pathlib.Path)
    return {"n": n, "f": f, "d": d, "t": t, "w": w, "p": p, "c": c, "path": path, "many": many, "maybe": maybe}
"#;
    let with = r#"{"n":3.0,"f":2,"d":"2026-01-31","t":"2026-01-31T07:00:00Z","w":"1h30m","p":{"x":1,"on":"2026-02-01"},"c":"red","path":"a/b","many":[{"x":2}]}"#;
    assert_eq!(
        setup().run(code(source, map(with))).json(),
        r#"{"c":"red","d":"2026-01-31","f":2.0,"many":[{"on":"2000-01-01","x":2}],"maybe":null,"n":3,"p":{"on":"2026-02-01","x":1},"path":"a/b","t":"2026-01-31T07:00:00+00:00","w":"PT5400S"}"#
    );
}

#[test]
fn a_wrong_call_is_permanent_and_says_what_is_wrong() {
    let setup = setup();
    let source = "def run(rate: float, day=None):\n    return rate\n";
    for (with, words) in [
        ("{}", "needs the parameter `rate`"),
        (r#"{"rate":1,"dya":2}"#, "did you mean `day`?"),
        (
            r#"{"rate":"fast"}"#,
            "`rate`: expected a float, got \"fast\"",
        ),
    ] {
        let error = setup.run(code(source, map(with))).error().clone();
        assert!(
            error.permanent && error.message.contains(words),
            "{error:?}"
        );
        assert_eq!(error.kind, FailureKind::User);
    }
    let error = setup.run(code("x = 1\n", Value::Null)).error().clone();
    assert!(
        error.permanent && error.message.contains("no function `run`"),
        "{error:?}"
    );
}

#[test]
fn an_exception_comes_back_with_its_traceback() {
    let setup = setup();
    let error = setup
        .run(code(
            "def run():\n    raise ValueError('no rows')\n",
            Value::Null,
        ))
        .error()
        .clone();
    assert_eq!(
        (
            error.reason.as_str(),
            error.message.as_str(),
            error.permanent
        ),
        ("exception", "ValueError: no rows", false)
    );
    let traceback = error.traceback.unwrap();
    assert!(
        traceback.contains("raise ValueError('no rows')") && !traceback.contains("kapell_host"),
        "{traceback}"
    );
    let fail = "import kapell\ndef run(retry):\n    kapell.fail('bad data', retry=retry)\n";
    let error = setup
        .run(code(fail, map(r#"{"retry":false}"#)))
        .error()
        .clone();
    assert_eq!(
        (error.message.as_str(), error.permanent),
        ("bad data", true)
    );
    assert!(
        !setup
            .run(code(fail, map(r#"{"retry":true}"#)))
            .error()
            .permanent
    );
}

#[test]
fn what_json_cannot_hold_is_an_error_that_says_so() {
    let setup = setup();
    let error = setup
        .run(code("def run():\n    return [float('nan')]\n", Value::Null))
        .error()
        .clone();
    assert!(error.message.contains("NaN"), "{}", error.message);
    let error = setup
        .run(code("def run():\n    return object()\n", Value::Null))
        .error()
        .clone();
    assert!(
        error.message.contains("holds a object"),
        "{}",
        error.message
    );
}

#[test]
fn a_host_that_dies_loses_only_its_own_task() {
    let setup = setup();
    let crash = "import os, sys\ndef run(how):\n    print('last words', file=sys.stderr)\n    os.kill(os.getpid(), 11) if how else os._exit(4)\n";
    let error = setup
        .run(code(crash, map(r#"{"how":false}"#)))
        .error()
        .clone();
    assert_eq!(
        (error.reason.as_str(), error.exit_code),
        ("exit_code", Some(4))
    );
    assert!(error.message.contains("last words"), "{}", error.message);
    let error = setup
        .run(code(crash, map(r#"{"how":true}"#)))
        .error()
        .clone();
    assert_eq!(error.reason, "signal");
    assert_eq!(
        setup
            .run(code("def run():\n    return 1\n", Value::Null))
            .json(),
        "1"
    );
}

#[test]
fn a_cancelled_function_is_gone() {
    let setup = setup();
    let ready = setup.dir.path().join("ready");
    let source = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef run(file):\n    open(file, 'w').write(str(os.getpid()) + '\\n')\n    time.sleep(60)\n";
    let source = source.replace(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef run(file):\n",
        "def run(file):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n",
    );
    let offer = setup.offer(code(
        &source,
        Value::map([("file", Value::from(ready.display().to_string()))]),
    ));
    let pid = wait_for_file(&ready);
    setup.cancel(offer);
    assert!(matches!(setup.ended(offer).outcome, Outcome::Cancelled));
    wait_until_dead(&pid);
    assert_eq!(
        setup
            .run(code("def run():\n    return 1\n", Value::Null))
            .json(),
        "1"
    );
}

#[test]
fn a_timeout_ends_a_function() {
    let setup = setup();
    let work = call(
        PythonSource::Code("import time\ndef run():\n    time.sleep(60)\n".into()),
        "run",
        1,
        |process| {
            process.timeout = Some(Duration::from_millis(300));
        },
    );
    assert_eq!(setup.run(work).error().kind, FailureKind::Timeout);
}

#[test]
fn output_goes_to_the_log_of_the_task_that_printed_it() {
    let setup = setup_with(|config| config.capacity.slots = 1, Containment::Cgroups);
    let source = "import subprocess\ndef run(n):\n    print('python', n)\n    subprocess.run(['echo', 'child', str(n)])\n";
    let offers: Vec<Offer> = (0..20)
        .map(|n| {
            setup.offer(call(
                PythonSource::Code(source.into()),
                "run",
                1,
                |process| {
                    process.path = format!("step{n}").into();
                    process.with.value = Value::map([("n", Value::Int(n))]);
                },
            ))
        })
        .collect();
    for offer in offers {
        setup.ended(offer).value();
    }
    for n in 0..20 {
        assert_eq!(
            setup.log_text(&format!("step{n}")),
            [format!("python {n}"), format!("child {n}")]
        );
    }
}

#[test]
fn a_function_of_a_file_sees_its_bundle_and_a_fresh_directory() {
    let setup = setup();
    let bundle = setup.bundle(&[
        ("train.py", "import shape\nfrom pathlib import Path\ndef fit():\n    old = sorted(p.name for p in Path('.').iterdir())\n    Path('junk').write_text('x')\n    return [old, shape.NAME, open('data.txt').read()]\n", false),
        ("shape.py", "NAME = 'round'\n", false),
        ("data.txt", "rows", false),
    ]);
    for _ in 0..3 {
        let work = call(PythonSource::File("train.py".into()), "fit", 1, |process| {
            process.bundle = Some(bundle.clone());
        });
        assert_eq!(
            setup.run(work).json(),
            r#"[["data.txt","shape.py","train.py"],"round","rows"]"#
        );
    }
}

#[test]
fn several_tasks_share_a_host_if_the_task_asks_for_it() {
    let setup = setup();
    // Each waits for the other: alone neither would end.
    let source = "import threading, os\nmeet = threading.Barrier(2)\ndef run(n):\n    meet.wait(20)\n    print('here', n)\n    return os.getpid()\n";
    let offers: Vec<Offer> = (0..2)
        .map(|n| {
            setup.offer(call(
                PythonSource::Code(source.into()),
                "run",
                2,
                |process| {
                    process.path = format!("step{n}").into();
                    process.with.value = Value::map([("n", Value::Int(n))]);
                },
            ))
        })
        .collect();
    let pids: Vec<String> = offers
        .iter()
        .map(|offer| setup.ended(*offer).json())
        .collect();
    assert_eq!(pids[0], pids[1]);
    assert_eq!(setup.log_text("step1"), ["here 1"]);
}

#[test]
fn a_large_value_goes_in_and_comes_out() {
    let setup = setup();
    let text = "x".repeat(3 << 20);
    let ended = setup.run(code(
        "def run(text):\n    return text + '!'\n",
        Value::map([("text", Value::from(text))]),
    ));
    assert!(matches!(ended.value(), Value::Blob(blob) if blob.size > 3 << 20));
}

#[test]
fn hosts_make_room_for_other_keys() {
    let setup = setup_with(|config| config.capacity.slots = 1, Containment::Cgroups);
    for namespace in ["a", "b", "a", "c"] {
        let work = call(
            PythonSource::Code(
                "import os\ndef run():\n    return os.environ['KAPELL_NAMESPACE']\n".into(),
            ),
            "run",
            1,
            |process| {
                process.namespace = namespace.into();
            },
        );
        assert_eq!(setup.run(work).value().as_str(), Some(namespace));
    }
}

#[test]
fn a_missing_python_is_named() {
    let setup = setup_with(
        |config| config.python = Some("/no/such/python".into()),
        Containment::Cgroups,
    );
    let error = setup
        .run(code("def run():\n    pass\n", Value::Null))
        .error()
        .clone();
    assert_eq!(error.reason, "spawn");
    assert!(
        error.message.contains("/no/such/python"),
        "{}",
        error.message
    );
}

/// A wheel is a zip file: made by hand it needs no network and no build.
fn wheel(folder: &Path) -> PathBuf {
    let path = folder.join("tinything-1-py3-none-any.whl");
    let script = "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z:\n    z.writestr('tinything.py', 'VALUE = 5\\n')\n    z.writestr('tinything-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tinything\\nVersion: 1\\n')\n    z.writestr('tinything-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n    z.writestr('tinything-1.dist-info/RECORD', '')\n";
    assert!(
        std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

#[test]
fn requirements_are_installed_once() {
    let setup = setup();
    let work = |requirement: &Path| {
        let mut process = process();
        process.path = "installed".into();
        Work::Python {
            source: PythonSource::Code(
                "import tinything\ndef run():\n    return tinything.VALUE\n".into(),
            ),
            function: "run".into(),
            requirements: vec![requirement.display().to_string().into()],
            concurrency: 1,
            process: Box::new(process),
        }
    };
    let wheel = wheel(setup.dir.path());
    assert_eq!(setup.run(work(&wheel)).json(), "5");
    assert_eq!(setup.run(work(&wheel)).json(), "5");
    let notes = setup.log("installed");
    let installs = notes
        .iter()
        .filter(|line| line.stream == Stream::System && line.text.starts_with("installing "));
    assert_eq!(installs.count(), 1);
    let missing = setup.run(work(Path::new("/no/such/package.whl")));
    assert_eq!(missing.error().reason, "requirements", "{missing:?}");
}

#[test]
fn memory_over_the_bound_is_out_of_memory() {
    let work = || {
        let source = "def run():\n    return len(bytearray(400 << 20))\n";
        call(PythonSource::Code(source.into()), "run", 1, |process| {
            process.resources.memory_bytes = 200 << 20;
        })
    };
    // By a cgroup the process is killed; without one the allocation fails.
    for containment in [Containment::Cgroups, Containment::Marks] {
        let setup = setup_with(|_| {}, containment);
        let error = setup.run(work()).error().clone();
        assert_eq!(
            (error.kind, error.reason.as_str()),
            (FailureKind::User, "oom"),
            "{containment:?}: {error:?}"
        );
    }
}

#[test]
fn of_several_tasks_one_loads_the_code() {
    let setup = setup();
    let folder = setup.dir.path().join("loads");
    std::fs::create_dir(&folder).unwrap();
    let source = format!(
        "import os, tempfile, time\ntempfile.mkstemp(dir={:?})\ntime.sleep(0.3)\ndef run():\n    return os.getpid()\n",
        folder.display().to_string()
    );
    let offers: Vec<Offer> = (0..4)
        .map(|_| {
            let source = PythonSource::Code(source.as_str().into());
            setup.offer(call(source, "run", 4, |_| {}))
        })
        .collect();
    for offer in offers {
        setup.ended(offer).value();
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

/// A `uv` in a folder of its own; none where it cannot be had.
fn uv(folder: &Path) -> Option<PathBuf> {
    let run = |program: &Path, arguments: &[&str]| {
        let status = std::process::Command::new(program)
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let home = folder.join("uv");
    let made = run(&python(), &["-m", "venv", home.to_str()?])
        && run(&home.join("bin/python"), &["-m", "pip", "install", "uv"]);
    made.then(|| home.join("bin/uv"))
}

#[test]
fn requirements_are_installed_by_uv() {
    let folder = TempDir::new().unwrap();
    let Some(uv) = uv(folder.path()) else {
        return;
    };
    let setup = setup_with(|config| config.uv = Some(uv), Containment::Cgroups);
    let work = |requirement: String| {
        Work::Python {
        source: PythonSource::Code(
            "import pathlib, sys, tinything\ndef run():\n    return [tinything.VALUE, 'uv = ' in pathlib.Path(sys.prefix, 'pyvenv.cfg').read_text()]\n".into(),
        ),
        function: "run".into(),
        requirements: vec![requirement.into()],
        concurrency: 1,
        process: Box::new(process()),
    }
    };
    let ended = setup.run(work(wheel(folder.path()).display().to_string()));
    assert_eq!(ended.json(), "[5,true]");
    let error = setup
        .run(work("/no/such/package.whl".to_owned()))
        .error()
        .clone();
    assert_eq!(error.reason, "requirements");
}

#[test]
fn a_uv_that_is_asked_for_must_be_there() {
    let setup = setup_with(
        |config| config.uv = Some("/no/such/uv".into()),
        Containment::Cgroups,
    );
    let work = Work::Python {
        source: PythonSource::Code("def run():\n    return 1\n".into()),
        function: "run".into(),
        requirements: vec!["anything".into()],
        concurrency: 1,
        process: Box::new(process()),
    };
    let error = setup.run(work).error().clone();
    assert_eq!(error.reason, "requirements");
    assert!(error.message.contains("/no/such/uv"), "{}", error.message);
}

#[test]
fn code_that_failed_to_load_is_loaded_again() {
    let setup = setup_with(|config| config.capacity.slots = 1, Containment::Cgroups);
    let gate = setup.dir.path().join("gate");
    let source = format!(
        "import os\nif not os.path.exists({:?}):\n    raise RuntimeError('not yet')\ndef run():\n    return 7\n",
        gate.display().to_string()
    );
    let error = setup.run(code(&source, Value::Null)).error().clone();
    assert!(error.message.contains("not yet"), "{}", error.message);
    std::fs::write(gate, "").unwrap();
    assert_eq!(setup.run(code(&source, Value::Null)).json(), "7");
}

#[test]
fn what_a_function_returns_or_raises_is_kept_without_its_secret() {
    let setup = setup();
    let with = |source: &str| {
        call(PythonSource::Code(source.into()), "run", 1, |process| {
            process.with.value = map(r#"{"token":null}"#);
            process.with.secrets = vec![("/token".into(), secret("token"))];
        })
    };
    let quoted = "import urllib.parse\ndef run(token):\n    q = urllib.parse.quote(token)\n    print(q)\n    return [token, {token: q}, urllib.parse.quote_plus('a ' + token), len(token)]\n";
    let json = setup.run(with(quoted)).json();
    assert_eq!(json, r#"["***",{"***":"***"},"a+***",17]"#);
    let log = setup.log_text("step");
    assert_eq!(log[0], "***");
    assert!(log[1].contains("was hidden"), "{log:?}");
    let raises = "def run(token):\n    raise ValueError('no ' + token)\n";
    let error = setup.run(with(raises)).error().clone();
    assert_eq!(error.message, "ValueError: no ***");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    let big = "def run(token):\n    return ['x' * 100000, token]\n";
    let ended = setup.run(with(big));
    let Value::Blob(blob) = ended.value() else {
        panic!("{ended:?}")
    };
    let stored = setup.blobs.get(blob, u64::MAX).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("s3cret"));
}
