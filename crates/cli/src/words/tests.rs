use super::*;

#[test]
fn a_line_is_shown_as_a_terminal_leaves_it() {
    for (line, shown) in [
        ("\u{1b}[1;31mred\u{1b}[0m and plain", "red and plain"),
        (" 10%\r 50%\r100%", "100%"),
        ("windows\r", "windows"),
        ("a\tb", "a    b"),
        (
            "\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{7} after",
            "link after",
        ),
        ("bell\u{7}", "bell\u{fffd}"),
        ("cut\u{1b}[", "cut"),
    ] {
        assert_eq!(printed(line), shown, "{line:?}");
    }
}

#[test]
fn wide_characters_take_two_columns() {
    assert_eq!(columns("日本 x"), 6);
    assert_eq!(start("日本 x", 3), "日");
    assert_eq!(start("e\u{301}f", 1), "e\u{301}");
    assert_eq!(start("plain", 99), "plain");
}

#[test]
fn instants_in_sentences_are_shown_without_what_is_known() {
    let now = "2030-01-31T10:00:00Z".parse::<Timestamp>().unwrap().into();
    let said = local("try 2 at 2030-01-31T10:00:03.018245Z, after: it broke", now);
    let [before, after] = said.split(", after").collect::<Vec<_>>()[..] else {
        panic!("{said}");
    };
    assert!(
        before.starts_with("try 2 at ") && before.len() == 17,
        "{said}"
    );
    assert_eq!(after, ": it broke");
    let far = local("the time 2031-05-05T00:00:00Z", now);
    assert!(far.starts_with("the time 2031-05-0"), "{far}");
    assert_eq!(local("no instant: 12Z, Z", now), "no instant: 12Z, Z");
}
