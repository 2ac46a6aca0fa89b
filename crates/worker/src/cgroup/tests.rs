//! What is written to and read from the files of version 2, on a directory like one.

use super::*;

fn version2(root: &Path) -> (Cgroups, Group) {
    let path = root.join("0");
    fs::create_dir(&path).unwrap();
    for file in ["cgroup.procs", "cgroup.kill"] {
        fs::write(path.join(file), "").unwrap();
    }
    let cgroups = Cgroups {
        unified: Some(root.to_owned()),
        unified_limits: true,
        ..Cgroups::none()
    };
    let unified = Unified {
        directory: File::open(&path).unwrap(),
        procs: File::open(path.join("cgroup.procs")).unwrap(),
        path,
        pooled: false,
    };
    let group = Group {
        unified: Some(unified),
        ..Group::default()
    };
    (cgroups, group)
}

fn needs(cpu_millis: u64, memory_bytes: u64) -> TaskResources {
    TaskResources {
        cpu_millis,
        memory_bytes,
        ..TaskResources::default()
    }
}

#[test]
fn bounds_are_written_as_version_2_wants_them() {
    let root = tempfile::tempdir().unwrap();
    let (cgroups, mut group) = version2(root.path());
    cgroups.bound(&mut group, &needs(2500, 48 << 20)).unwrap();
    let read = |file: &str| fs::read_to_string(root.path().join("0").join(file)).unwrap();
    assert_eq!(read("memory.max"), "50331648");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("cpu.weight"), "250");
    assert_eq!(group.data_limit, None);
}

#[test]
fn a_kill_for_want_of_memory_and_the_peak_are_read() {
    let root = tempfile::tempdir().unwrap();
    let (cgroups, mut group) = version2(root.path());
    cgroups.bound(&mut group, &needs(0, 48 << 20)).unwrap();
    let write = |file: &str, text: &str| fs::write(root.path().join("0").join(file), text).unwrap();
    write(
        "memory.events",
        "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n",
    );
    assert!(!group.out_of_memory(), "a failed allocation kills nobody");
    write(
        "memory.events",
        "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n",
    );
    assert!(group.out_of_memory());
    assert_eq!(group.peak_memory(), None);
    write("memory.peak", "50331648\n");
    assert_eq!(group.peak_memory(), Some(48 << 20));
}

#[test]
fn what_a_process_left_is_killed_and_the_process_itself_is_not_left() {
    let root = tempfile::tempdir().unwrap();
    let (_, mut group) = version2(root.path());
    let read = || fs::read_to_string(root.path().join("0/cgroup.kill")).unwrap();
    let list = |text: &str| fs::write(root.path().join("0/cgroup.procs"), text).unwrap();
    list("");
    group.kill_rest(41);
    list("41\n");
    group.kill_rest(41);
    assert_eq!(read(), "");
    list("41\n42\n");
    group.kill_rest(41);
    assert_eq!(read(), "1");
}

#[test]
fn the_own_group_is_found_in_either_version() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["two/own", "memory/old"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let at = |folder: &str| root.path().join(folder);
    let mounts = format!(
        "proc /proc proc rw 0 0\ncgroup {} cgroup rw,relatime,memory 0 0\ncgroup2 {} cgroup2 rw 0 0\n",
        at("memory").display(),
        at("two").display()
    );
    let own = "4:memory:/old\n0::/own\n";
    assert_eq!(place(&mounts, own, None), Some(at("two/own")));
    assert_eq!(place(&mounts, own, Some("memory")), Some(at("memory/old")));
    assert_eq!(place(&mounts, own, Some("cpu")), None);
    // A container sees a path of its host: then its own mount is the group.
    assert_eq!(place(&mounts, "0::/docker/abc\n", None), Some(at("two")));
}
