//! Maps with known keys: what is unknown, missing, or not of this version is said here.

use crate::language::{Key, Others, Section, Shape};
use crate::yaml::{Entry, Kind, Node, Span};

use super::Context;

/// The entries of a map that was held against its [`Section`].
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    section: &'static Section,
    /// Of the whole map.
    pub(crate) span: Span,
}

impl<'n> Fields<'n> {
    /// The value of a key of the section.
    ///
    /// `None` also where the key has no value, which was said.
    pub(crate) fn get(&self, key: &'static str) -> Option<&'n Node> {
        self.entry(key)
            .map(|entry| &entry.value)
            .filter(|value| !value.is_null() || self.section.key(key).is_some_and(may_be_null))
    }

    /// The entry of a key of the section.
    pub(crate) fn entry(&self, key: &'static str) -> Option<&'n Entry> {
        debug_assert!(
            self.section.key(key).is_some(),
            "`{key}` is not in the table of {}",
            self.section.title
        );
        self.entries.iter().find(|entry| &*entry.key == key)
    }

    /// Entries that are not keys of the section.
    pub(crate) fn others(&self) -> impl Iterator<Item = &'n Entry> {
        let section = self.section;
        self.entries
            .iter()
            .filter(move |entry| section.key(&entry.key).is_none())
    }

    /// Entries whose key is a verb.
    pub(crate) fn verbs(&self) -> impl Iterator<Item = &'n Entry> {
        let section = self.section;
        self.entries
            .iter()
            .filter(move |entry| section.key(&entry.key).is_some_and(|key| key.verb))
    }
}

/// Whether null is a value of the key.
fn may_be_null(key: &Key) -> bool {
    matches!(key.shape, Shape::Value | Shape::Empty)
}

impl Context<'_> {
    /// The fields of a map; `None` if it is none, which is said.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        section: &'static Section,
    ) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            if !node.is_broken() {
                let keys: Vec<&str> = section
                    .keys
                    .iter()
                    .filter(|key| !key.is_later())
                    .map(|key| key.name)
                    .take(6)
                    .collect();
                self.error_hint(
                    "wrong-form",
                    node.span,
                    format!("{} is a map, not {}", section.name, node.what()),
                    format!(
                        "its keys are {}{}",
                        keys.join(", "),
                        if keys.len() == 6 { ", …" } else { "" }
                    ),
                );
            }
            return None;
        };
        for entry in entries {
            self.known(entry, section);
        }
        for key in section.keys.iter().filter(|key| key.required) {
            if !entries.iter().any(|entry| &*entry.key == key.name) {
                let span = Span {
                    start: node.span.start,
                    end: node.span.start,
                };
                self.error_hint(
                    "missing-key",
                    span,
                    format!("{} needs `{}`", section.name, key.name),
                    key.doc,
                );
            }
        }
        Some(Fields {
            entries,
            section,
            span: node.span,
        })
    }

    fn known(&mut self, entry: &Entry, section: &'static Section) {
        let name = &*entry.key;
        match section.key(name) {
            Some(key) if key.is_later() => {
                self.error(
                    "not-available",
                    entry.key_span,
                    format!("`{name}` is not available in this version"),
                );
            }
            Some(key) => {
                if entry.value.is_null() && !may_be_null(key) {
                    self.error_hint(
                        "empty-value",
                        entry.key_span,
                        format!("`{name}` has no value"),
                        "give it one, or leave the key out",
                    );
                }
            }
            None => match section.others {
                Others::Extensions if name.starts_with("x-") => {}
                Others::Names(_) => {}
                Others::Refused | Others::Extensions => self.unknown_key(entry, section),
            },
        }
    }

    fn unknown_key(&mut self, entry: &Entry, section: &'static Section) {
        let name = &*entry.key;
        let near = self.nearest(
            name,
            section
                .keys
                .iter()
                .filter(|key| !key.is_later())
                .map(|key| key.name),
        );
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if matches!(section.others, Others::Extensions) => {
                "keys for anchors and for tools start with `x-`".to_owned()
            }
            None => {
                let keys: Vec<&str> = section
                    .keys
                    .iter()
                    .filter(|key| !key.is_later() && !key.verb)
                    .map(|key| key.name)
                    .collect();
                format!("the keys here are {}", keys.join(", "))
            }
        };
        self.error_hint(
            "unknown-key",
            entry.key_span,
            format!("{} has no key `{name}`", section.name),
            hint,
        );
    }

    /// The entries of a map whose keys the user names; none if it is no map, which is said.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        if let Kind::Map(entries) = &node.kind {
            return entries;
        }
        if !node.is_broken() && !node.is_null() {
            self.error_hint(
                "wrong-form",
                node.span,
                format!("{what} is a map, not {}", node.what()),
                "write `name: value`, one a line",
            );
        }
        &[]
    }

    /// The items of a list.
    pub(crate) fn items<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.kind {
            Kind::List(items) => items,
            Kind::Broken => &[],
            Kind::Scalar(_) | Kind::Map(_) => {
                if !node.is_null() {
                    self.error_hint(
                        "wrong-form",
                        node.span,
                        format!("{what} is a list, not {}", node.what()),
                        "write `[a, b]`, or `- a` on lines of their own",
                    );
                }
                &[]
            }
        }
    }

    /// The items of a list, or the one value alone.
    pub(crate) fn one_or_many<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.kind {
            Kind::Scalar(_) if !node.is_null() => std::slice::from_ref(node),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Broken => self.items(node, what),
        }
    }
}
