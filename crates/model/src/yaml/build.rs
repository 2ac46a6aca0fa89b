//! The tree from the parser's events: duplicate keys, aliases, merges, bounds.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, ScalarStyle, ScanError, Tag};

use super::{Entry, Kind, Node, Problem, Scalar, Span, Style};
use crate::limits;

/// Turns the parser's character indices into byte offsets.
pub(super) struct Offsets {
    /// The byte offset of each character; none where every character is one byte.
    bytes: Option<Vec<usize>>,
    len: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self {
            bytes,
            len: text.len(),
        }
    }

    fn byte(&self, marker: &Marker) -> usize {
        match &self.bytes {
            None => marker.index().min(self.len),
            Some(bytes) => bytes.get(marker.index()).copied().unwrap_or(self.len),
        }
    }

    pub(super) fn span(&self, span: saphyr_parser::Span) -> Span {
        Span {
            start: self.byte(&span.start),
            end: self.byte(&span.end),
        }
    }
}

/// A collection that is being read.
struct Frame {
    start: usize,
    anchor: usize,
    /// Nodes in the tree before it, to know how many it holds.
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(MapContent),
}

/// What a map takes next.
#[derive(Default)]
enum Pending {
    #[default]
    Key,
    /// The value of this key.
    Value(Arc<str>, Span),
    /// The value of a key that was refused.
    Refused,
}

#[derive(Default)]
struct MapContent {
    entries: Vec<Entry>,
    seen: HashMap<Arc<str>, Span>,
    key: Pending,
    merges: Vec<Node>,
}

/// Builds the tree from the parser's events.
pub(super) struct Builder<'t> {
    text: &'t str,
    pub(super) offsets: Offsets,
    stack: Vec<Frame>,
    /// What an alias stands for, and its number of nodes.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    pub(super) root: Option<Node>,
    pub(super) problems: Vec<Problem>,
}

impl<'t> Builder<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            offsets: Offsets::new(text),
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn problem(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: &str,
    ) {
        self.problems.push(Problem {
            code,
            span,
            message: message.into(),
            hint: Some(hint.to_owned()),
        });
    }

    /// Takes one event; false ends the reading.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(
                        "yaml",
                        span,
                        "a second document starts here",
                        "a file holds one workflow: remove the `---`",
                    );
                }
                self.documents == 1
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = Kind::Scalar(Scalar {
                    text: Arc::from(&*text),
                    style: style_of(style),
                });
                self.scalar(kind, anchor, tag.as_deref(), span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(Content::List(Vec::new()), anchor, tag.as_deref(), span)
            }
            Event::MappingStart(anchor, tag) => self.open(
                Content::Map(MapContent::default()),
                anchor,
                tag.as_deref(),
                span,
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(id) => self.alias(id, span),
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> bool {
        self.nodes += nodes;
        if self.nodes > limits::DEFINITION_NODES {
            let message = format!(
                "more than {} values, aliases counted where they are used",
                limits::DEFINITION_NODES
            );
            self.problem(
                "limit",
                span,
                message,
                "split the workflow, or use fewer aliases of large values",
            );
            return false;
        }
        true
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        let written = self.text.get(span.start..span.end).unwrap_or_default();
        let shown = written
            .split_whitespace()
            .next()
            .filter(|text| text.starts_with('!'));
        let shown = shown.map_or_else(|| format!("!{}", tag.suffix), str::to_owned);
        let hint = if shown.starts_with("!!") {
            "put the value in quotes if it is text, and leave the tag out".to_owned()
        } else {
            // `! x` is a tag without a name, and its value.
            let named = shown.trim_start_matches('!');
            let value = if named.is_empty() {
                let rest = self.text.get(span.end..).unwrap_or_default();
                let line = rest.split(['\n', '#', ',', '}']).next();
                let own = written.trim_start_matches('!').trim();
                if own.is_empty() {
                    line.unwrap_or_default().trim()
                } else {
                    own
                }
            } else {
                named
            };
            format!(
                "YAML reads a leading `!` as a tag; for an expression write `\"${{{{ !{value} }}}}\"`, for text put it in quotes"
            )
        };
        self.problem(
            "yaml-tag",
            span,
            format!("`{shown}` is a YAML tag, and tags are not used here"),
            &hint,
        );
        true
    }

    fn scalar(&mut self, kind: Kind, anchor: usize, tag: Option<&Tag>, span: Span) -> bool {
        let kind = if self.refuse_tag(tag, span) {
            Kind::Broken
        } else {
            kind
        };
        let node = Node { span, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), 1));
        }
        self.count(1, span) && self.place(node)
    }

    fn open(&mut self, content: Content, anchor: usize, tag: Option<&Tag>, span: Span) -> bool {
        self.refuse_tag(tag, span);
        if self.stack.len() >= limits::DEFINITION_DEPTH {
            let message = format!(
                "more than {} lists and maps inside each other",
                limits::DEFINITION_DEPTH
            );
            self.problem(
                "limit",
                span,
                message,
                "move the inner part to a workflow of its own",
            );
            return false;
        }
        if !self.count(1, span) {
            return false;
        }
        self.stack.push(Frame {
            start: span.start,
            anchor,
            nodes_before: self.nodes,
            content,
        });
        true
    }

    fn close(&mut self, span: Span) -> bool {
        let Some(frame) = self.stack.pop() else {
            return false;
        };
        let flow = matches!(self.text.as_bytes().get(frame.start), Some(b'{' | b'['));
        let (first, last, kind) = match frame.content {
            Content::List(items) => (
                items.first().map(|item| item.span.start),
                items.last().map(|item| item.span.end),
                Kind::List(items),
            ),
            Content::Map(map) => {
                let entries = self.merge(map);
                (
                    entries.first().map(|entry| entry.key_span.start),
                    entries.last().map(|entry| entry.value.span.end),
                    Kind::Map(entries),
                )
            }
        };
        let span = if flow {
            Span {
                start: frame.start,
                end: span.end,
            }
        } else {
            let start = first.unwrap_or(frame.start);
            Span {
                start,
                end: last.unwrap_or(span.end).max(start),
            }
        };
        let node = Node { span, kind };
        if frame.anchor > 0 {
            self.anchors.insert(
                frame.anchor,
                (node.clone(), self.nodes - frame.nodes_before + 1),
            );
        }
        self.place(node)
    }

    fn alias(&mut self, id: usize, span: Span) -> bool {
        let Some((_, nodes)) = self.anchors.get(&id) else {
            self.problem(
                "yaml",
                span,
                "an alias inside the value that its anchor names",
                "a value cannot contain itself",
            );
            return self.place(Node {
                span,
                kind: Kind::Broken,
            });
        };
        let nodes = *nodes;
        if !self.count(nodes, span) {
            return false;
        }
        let node = self.anchors.get(&id).map(|(node, _)| node.clone());
        node.is_some_and(|node| self.place(node))
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node) -> bool {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map(map) => match std::mem::take(&mut map.key) {
                Pending::Key => return self.key(&node),
                Pending::Refused => {}
                Pending::Value(key, _) if &*key == "<<" => map.merges.push(node),
                Pending::Value(key, key_span) => map.entries.push(Entry {
                    key,
                    key_span,
                    value: node,
                }),
            },
        }
        true
    }

    /// Takes the key of the next entry of the innermost map.
    fn key(&mut self, node: &Node) -> bool {
        let text = self.text;
        let Some(Frame {
            content: Content::Map(map),
            ..
        }) = self.stack.last_mut()
        else {
            return false;
        };
        let Some(scalar) = node.scalar() else {
            map.key = Pending::Refused;
            if !node.is_broken() {
                self.problem(
                    "yaml",
                    node.span,
                    format!("a key is text, not {}", node.what()),
                    "quote it if braces or brackets are meant as text",
                );
            }
            return true;
        };
        let key = scalar.text.clone();
        if let Some(first) = map.seen.get(&key).filter(|_| &*key != "<<") {
            let hint = format!(
                "it is first set on line {}; keep one of them",
                line_of(text, first.start)
            );
            map.key = Pending::Refused;
            self.problem(
                "duplicate-key",
                node.span,
                format!("`{key}` is set twice"),
                &hint,
            );
            return true;
        }
        map.seen.insert(key.clone(), node.span);
        map.key = Pending::Value(key, node.span);
        true
    }

    /// The entries of a map with those of its `<<` added behind its own.
    fn merge(&mut self, map: MapContent) -> Vec<Entry> {
        let mut entries = map.entries;
        let mut seen = map.seen;
        let sources = map.merges.into_iter().flat_map(|node| match node.kind {
            Kind::List(items) => items,
            Kind::Map(_) | Kind::Scalar(_) | Kind::Broken => vec![node],
        });
        for source in sources {
            let Kind::Map(merged) = source.kind else {
                if !source.is_broken() {
                    self.problem(
                        "yaml",
                        source.span,
                        format!("`<<` takes a map or a list of maps, not {}", source.what()),
                        "name a map: `<<: *anchor`",
                    );
                }
                continue;
            };
            for entry in merged {
                if seen.insert(entry.key.clone(), entry.key_span).is_none() {
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// Says why the text is not YAML; where.
    pub(super) fn syntax_error(&mut self, error: &ScanError) -> usize {
        let at = self.offsets.byte(error.marker());
        let start = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |next| at + next);
        let line = &self.text[start..end];
        let span = Span {
            start: at,
            end: (at + 1).min(self.text.len()).max(at),
        };
        if error.info().contains("unknown anchor") {
            let rest = self.text[at..].trim_start_matches('*');
            let name: String = rest
                .chars()
                .take_while(|c| !c.is_whitespace() && !",]}".contains(*c))
                .collect();
            self.problem(
                "yaml",
                span,
                format!("`*{name}` is an alias, and no anchor `&{name}` stands before it"),
                "write `&name` at the value that it stands for, or put it in quotes if it is text",
            );
            return at;
        }
        let (message, hint) = match line.rfind("${{") {
            Some(open) if !line[open..].contains("}}") => (
                "a `${{` without its `}}`".to_owned(),
                "write `\"${{ … }}\"`: the closing braces, then the closing quote".to_owned(),
            ),
            Some(_) if !error.info().contains("quoted") => (
                format!("this is not YAML: {}", error.info()),
                "quote the expression: `\"${{ … }}\"`, or `'${{ … }}'` around double quotes"
                    .to_owned(),
            ),
            _ => (
                format!("this is not YAML: {}", error.info()),
                advice(error.info(), line),
            ),
        };
        self.problem("yaml", span, message, &hint);
        at
    }
}

/// The line of an offset, counted only when a message needs it.
fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

fn advice(info: &str, line: &str) -> String {
    if info.contains("tab") {
        "indent with spaces; YAML does not allow tabs".to_owned()
    } else if info.contains("quoted scalar") {
        "the quote that opens here is never closed, or its text is not indented".to_owned()
    } else if line.matches(": ").count() > 1 || info.contains("mapping values") {
        "a value that holds `: ` needs quotes; else check the indentation".to_owned()
    } else if info.contains("recursion") {
        "too many brackets inside each other".to_owned()
    } else {
        "check the indentation, quotes and brackets here and just above".to_owned()
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::Single,
        ScalarStyle::DoubleQuoted => Style::Double,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}
