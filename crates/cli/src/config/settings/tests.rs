use kapell_model::config::{
    DATA_DIR, HTTP_DENY, LOG_FORMAT, METRICS_ENABLED, RETENTION_AGE, WORKER_SLOTS,
};

use super::*;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Error> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kapell.toml");
    std::fs::write(&file, text).unwrap();
    let variable = |name: &str| {
        let mut found = variables.iter();
        let found = found.find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let names: Vec<String> = variables
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    Settings::read(Some(file), variable, &names)
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let text = "data_dir = \"/srv/k\"\n[worker]\nslots = 3\n[retention]\nage = \"7d\"\n";
    let mut settings = read(text, &[("KAPELL_WORKER_SLOTS", "5")]).unwrap();
    assert_eq!(
        settings.get(&LOG_FORMAT),
        (Value::Text("text".to_owned()), From::Default)
    );
    assert_eq!(settings.text(&DATA_DIR), "/srv/k");
    assert_eq!(
        settings.span(&RETENTION_AGE),
        SignedDuration::from_hours(7 * 24)
    );
    let variable = From::Variable("KAPELL_WORKER_SLOTS".to_owned());
    assert_eq!(settings.get(&WORKER_SLOTS), (Value::Number(5), variable));
    settings.flag(&WORKER_SLOTS, Value::Number(7));
    assert_eq!(settings.number(&WORKER_SLOTS), 7);
    let old = read(text, &[("KAPELL_SLOTS", "6")]).unwrap();
    assert_eq!(old.number(&WORKER_SLOTS), 6);
}

#[test]
fn the_address_of_a_channel_can_stand_in_a_variable() {
    let text = "[notify.channels.On_call]\nkind = \"slack\"\nurl = \"https://old\"\n";
    let variables = [
        ("KAPELL_NOTIFY_CHANNELS_ON_CALL_URL", "https://new"),
        ("KAPELL_NOTIFY_CHANNELS_DATA_TEAM_URL", "https://team"),
        ("KAPELL_NOTIFY_CHANNELS__URL", "https://nobody"),
    ];
    let settings = read(text, &variables).unwrap();
    let said: Vec<String> = settings
        .named("notify.channels")
        .into_iter()
        .map(|(own, key, value)| format!("{own} {key} {value}"))
        .collect();
    assert_eq!(
        said,
        [
            "On_call kind slack",
            "On_call url https://new",
            "data-team url https://team"
        ]
    );
    let shown: Vec<(String, From)> = settings
        .all()
        .into_iter()
        .filter(|(path, ..)| path.split('.').next_back() == Some("url"))
        .map(|(path, _, _, from)| (path, from))
        .collect();
    let variable = |name: &str| From::Variable(name.to_owned());
    assert_eq!(
        shown,
        [
            (
                "notify.channels.On_call.url".to_owned(),
                variable("KAPELL_NOTIFY_CHANNELS_ON_CALL_URL")
            ),
            (
                "notify.channels.data-team.url".to_owned(),
                variable("KAPELL_NOTIFY_CHANNELS_DATA_TEAM_URL")
            ),
        ]
    );
    let bad = read("", &[("KAPELL_NOTIFY_CHANNELS_X_KIND", "fax")]).unwrap_err();
    assert!(
        bad.message.contains("KAPELL_NOTIFY_CHANNELS_X_KIND"),
        "{bad:?}"
    );
}

#[test]
fn the_example_says_what_holds_anyway() {
    let example = config::example_toml();
    let settings = read(&example, &[]).unwrap();
    assert!(KEYS.iter().all(|key| settings.get(key).1 == From::Default));
    let said: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
        .zip(example.lines())
        .fold(String::new(), |text, (said, line)| {
            text + said.unwrap_or(line) + "\n"
        });
    let settings = read(&said, &[]).unwrap();
    assert_eq!(settings.named("notify.channels").len(), 4);
    for key in KEYS.iter().filter(|key| !key.section.ends_with('*')) {
        let expected = (key.default_value(), From::File);
        assert_eq!(settings.get(key), expected, "{}", key.path());
    }
}

#[test]
fn what_is_not_known_or_of_another_type_is_said_with_its_place() {
    for (text, message, hint) in [
        ("[worker]\nslot = 3", "`worker.slot`", "worker.slots"),
        (
            "[nothing]\nwhatever = 3",
            "`nothing.whatever`",
            "kapell config",
        ),
        (
            "[worker]\nslots = \"3\"",
            "`worker.slots`",
            "a number from 0",
        ),
        (
            "[worker]\nslots = 99999",
            "`worker.slots`",
            "a number from 0",
        ),
        ("[retention]\nage = 7", "`retention.age`", "7d"),
        ("[log]\nformat = \"xml\"", "`log.format`", "`json`"),
        ("[http]\ndeny = \"10.0.0.0/8\"", "`http.deny`", "list"),
        ("[metrics]\nenabled = \"yes\"", "`metrics.enabled`", "true"),
        ("worker = 3", "`worker`", "worker."),
        ("= nonsense", "no TOML", "kapell.toml"),
    ] {
        let error = read(text, &[]).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadConfig, "{text}");
        assert!(error.message.contains(message), "{}", error.message);
        let said = error.hint.unwrap();
        assert!(said.contains(hint), "{said}");
    }
    let error = read("", &[("KAPELL_METRICS_ENABLED", "yes")]).unwrap_err();
    assert!(
        error.message.contains("KAPELL_METRICS_ENABLED"),
        "{}",
        error.message
    );
    let error = Settings::read(Some("/nowhere/kapell.toml".into()), |_| None, &[]).unwrap_err();
    assert!(
        error.message.contains("/nowhere/kapell.toml"),
        "{}",
        error.message
    );
    let settings = read(
        "[http]\ndeny = [\"10.0.0.0/8\"]\n[metrics]\nenabled = false",
        &[],
    )
    .unwrap();
    assert_eq!(settings.list(&HTTP_DENY), ["10.0.0.0/8"]);
    assert!(!settings.is_on(&METRICS_ENABLED));
}
