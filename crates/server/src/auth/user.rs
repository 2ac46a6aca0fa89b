//! What the system calls its users.

/// The user whose process this is.
pub fn own_name() -> String {
    name_of(rustix::process::getuid().as_raw())
}

/// The name of a user, or its number where there is none.
pub(crate) fn name_of(uid: u32) -> String {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&known, uid).unwrap_or_else(|| format!("user {uid}"))
}

fn named(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let mut entries = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|entry| entry.get(2) == Some(&&*uid))?;
    let name = entry.first().filter(|name| !name.is_empty())?;
    Some((*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn users_have_the_names_of_the_system() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(named(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(named(passwd, 0).as_deref(), Some("root"));
        assert_eq!(named(passwd, 100), None);
        assert_eq!(named("", 0), None);
    }
}
