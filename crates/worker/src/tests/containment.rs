use super::*;
use crate::os::{Command, Spawner};
use std::os::fd::AsFd;

/// Leaves a daemon behind: in a session of its own, its output elsewhere, its environment empty if
/// `clean`.
fn daemon(pid_file: &Path, clean: &str) -> String {
    format!(
        "setsid {clean} sh -c 'echo $$ > {0}; exec sleep 300' >/dev/null 2>&1 </dev/null & while ! test -s {0}; do sleep 0.01; done",
        pid_file.display()
    )
}

#[test]
fn a_background_process_ends_with_its_script() {
    let setup = setup();
    let pid_file = setup.dir.path().join("pid");
    let ended = setup.run(shell(&format!(
        "sleep 300 & echo $! > {}",
        pid_file.display()
    )));
    assert!(ended.took < Duration::from_secs(10));
    wait_until_dead(&wait_for_file(&pid_file));
}

#[test]
fn a_daemon_without_a_trace_ends_with_its_attempt() {
    let setup = setup();
    let pid_file = setup.dir.path().join("pid");
    setup
        .run(shell(&daemon(&pid_file, "env -i PATH=/usr/bin:/bin")))
        .value();
    wait_until_dead(&wait_for_file(&pid_file));
}

#[test]
fn without_cgroups_a_daemon_is_found_by_its_mark() {
    let setup = setup_with(|_| {}, Containment::Marks);
    let pid_file = setup.dir.path().join("pid");
    setup.run(shell(&daemon(&pid_file, ""))).value();
    wait_until_dead(&wait_for_file(&pid_file));
}

#[test]
fn a_daemon_ends_with_a_cancelled_attempt() {
    let setup = setup();
    let pid_file = setup.dir.path().join("pid");
    let offer = setup.offer(shell(&format!("{}; exec sleep 300", daemon(&pid_file, ""))));
    let pid = wait_for_file(&pid_file);
    setup.cancel(offer);
    assert!(matches!(setup.ended(offer).outcome, Outcome::Cancelled));
    wait_until_dead(&pid);
}

#[test]
fn closed_output_is_no_end() {
    let setup = setup();
    setup
        .run(shell("exec >&- 2>&-; sleep 0.2; printf 7 > $KAPELL_OUTPUT"))
        .value()
        .as_int()
        .expect("the output");
}

#[test]
fn children_start_where_clone3_is_refused() {
    std::thread::spawn(|| {
        let mut spawner = Spawner::new().unwrap().without_clone3();
        let nothing = std::fs::File::open("/dev/null").unwrap();
        let command = Command {
            program: c"/bin/sh",
            argv: &[c"sh".into(), c"-c".into(), c"exit 5".into()],
            env: &[],
            directory: c"/",
            fds: &[nothing.as_fd(), nothing.as_fd(), nothing.as_fd()],
            cgroup: None,
            join: &[],
            data_limit: None,
        };
        let child = spawner.spawn(&command).unwrap();
        let mut fds = [rustix::event::PollFd::new(
            &child.pidfd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
        assert_eq!(crate::os::reap(child.pid).unwrap().unwrap().code(), Some(5));
    })
    .join()
    .unwrap();
}

#[test]
fn a_first_start_loses_nothing() {
    assert!(setup().lost.is_empty());
}

#[test]
fn without_cgroups_a_daemon_without_a_trace_ends_with_its_attempt() {
    let setup = setup_with(|_| {}, Containment::Marks);
    let pid_file = setup.dir.path().join("pid");
    setup
        .run(shell(&daemon(&pid_file, "env -i PATH=/usr/bin:/bin")))
        .value();
    wait_until_dead(&wait_for_file(&pid_file));
}

#[test]
fn without_cgroups_a_daemon_that_may_be_anothers_ends_with_the_other() {
    let setup = setup_with(|_| {}, Containment::Marks);
    let at = |name: &str| setup.dir.path().join(name);
    let other = setup.offer(shell(&format!(
        "echo here > {}; until test -e {}; do sleep 0.01; done",
        at("begun").display(),
        at("gate").display()
    )));
    wait_for_file(&at("begun"));
    setup
        .run(shell(&daemon(&at("pid"), "env -i PATH=/usr/bin:/bin")))
        .value();
    let pid = wait_for_file(&at("pid"));
    assert!(
        is_alive(&pid),
        "nothing tells yet that it is not the other's"
    );
    std::fs::write(at("gate"), "").unwrap();
    setup.ended(other).value();
    wait_until_dead(&pid);
}
