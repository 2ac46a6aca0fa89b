//! Cron expressions: which field of one is wrong, and the form in which it is kept.

use std::sync::Arc;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::date;
use jiff::tz::TimeZone;

use crate::limits;
use crate::yaml::{Node, Span, source_offset};

use super::Context;

/// A field of a cron expression: its name and what it may hold.
type Field = (&'static str, &'static str);

const FIELDS: [Field; 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or `L` for the last"),
    ("month", "1 to 12, or `JAN` to `DEC`"),
    (
        "day of the week",
        "0 to 7, where 0 and 7 are Sunday, or `SUN` to `SAT`",
    ),
];

/// Names of common expressions.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Reads an expression of five fields, or six with seconds first.
fn compile(text: &str) -> Option<Cron> {
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build()
        .parse(text)
        .ok()
}

/// The shortest time between two due times of an expression that was read, by the wall clock: among the
/// first [`limits::JITTER_DUE_TIMES`] from the year 2000 on. None if it has no two.
pub(crate) fn shortest_gap(text: &str) -> Option<SignedDuration> {
    let cron = compile(text)?;
    let mut due = date(2000, 1, 1).at(0, 0, 0, 0);
    let mut shortest = None;
    for number in 0..limits::JITTER_DUE_TIMES {
        let Ok(next) = cron.find_next_occurrence(&due, number == 0) else {
            break;
        };
        if number > 0 {
            let gap = next.duration_since(due);
            shortest = Some(shortest.map_or(gap, |least: SignedDuration| least.min(gap)));
        }
        due = next;
    }
    shortest
}

impl Context<'_> {
    /// `cron`: five or six fields, one space between them.
    pub(crate) fn cron(&mut self, node: &Node) -> Option<Arc<str>> {
        let fixed =
            "the schedule is fixed; let the trigger's `when` decide, or start runs by a signal";
        let text = self.literal(node, "cron", fixed)?;
        let text = text.trim();
        if text.starts_with('@') {
            return self.nickname(node, text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let first = match fields.len() {
            5 => 1,
            6 => 0,
            found => {
                self.error_hint(
                    "bad-cron",
                    node.span,
                    format!("`cron` has five fields, or six with seconds, and this has {found}"),
                    "minute, hour, day of the month, month, day of the week: `0 2 * * *` is two o'clock every day",
                );
                return None;
            }
        };
        let wrong = fields
            .iter()
            .zip(first..)
            .find(|(field, place)| !field_is_fine(field, *place));
        if let Some((field, place)) = wrong {
            let (name, may) = FIELDS[place];
            let at = self.part(node, field);
            self.error_hint(
                "bad-cron",
                at,
                format!("`{field}` is no {name}"),
                format!(
                    "it is {may}, `*`, a range `a-b`, a list `a,b`, or one of them in steps `*/n`"
                ),
            );
            return None;
        }
        let kept = fields.join(" ");
        let from = date(2000, 1, 1).to_zoned(TimeZone::UTC).ok()?;
        let comes =
            compile(&kept).is_some_and(|cron| cron.find_next_occurrence(&from, true).is_ok());
        if !comes {
            self.error_hint(
                "bad-cron",
                node.span,
                format!("`{kept}` is never due"),
                "no month that it names has such a day",
            );
            return None;
        }
        Some(kept.into())
    }

    fn nickname(&mut self, node: &Node, text: &str) -> Option<Arc<str>> {
        let found = NICKNAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        if found.is_none() {
            let near = self.nearest(text, NICKNAMES.iter().map(|(name, _)| *name));
            let hint = near.map_or_else(
                || "write the five fields, as in `0 2 * * *`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("there is no schedule `{text}`");
            self.error_hint("bad-cron", node.span, message, hint);
        }
        found.map(|(_, cron)| (*cron).into())
    }

    /// The place of a part of a scalar's text; the whole if it is not in it.
    fn part(&self, node: &Node, part: &str) -> Span {
        let text = node.scalar().map_or("", |scalar| &*scalar.text);
        // A field as a word of its own, not as a piece of another.
        let mut from = 0;
        for word in text.split_whitespace() {
            let at = from + text[from..].find(word).unwrap_or(0);
            if word == part {
                let start = source_offset(self.text, node, at);
                return Span {
                    start,
                    end: start + part.len(),
                };
            }
            from = at + word.len();
        }
        node.span
    }
}

/// Whether one field is right by itself.
fn field_is_fine(field: &str, place: usize) -> bool {
    let mut alone = ["*"; 6];
    alone[0] = "0";
    alone[place] = field;
    // Words inside a field are names of days or months, and nothing else: the parser replaces them
    // wherever they stand.
    let words = field
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty());
    let mut named = words.map(|word| match place {
        3 => matches!(word, "L" | "W" | "LW" | "l" | "w" | "lw"),
        4 => is_month(word),
        5 => {
            is_day(word.strip_suffix(['L', 'l']).unwrap_or(word)) || word.eq_ignore_ascii_case("L")
        }
        _ => false,
    });
    !field.contains('+') && named.all(|fine| fine) && compile(&alone.join(" ")).is_some()
}

fn is_month(word: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    MONTHS.iter().any(|month| month.eq_ignore_ascii_case(word))
}

fn is_day(word: &str) -> bool {
    const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    DAYS.iter().any(|day| day.eq_ignore_ascii_case(word))
}
