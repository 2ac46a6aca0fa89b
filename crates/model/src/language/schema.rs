//! The JSON Schema of the language, for editors.

use serde_json::{Map, Value, json};

use super::{Key, Others, STEP, Section, Shape, WORKFLOW};

/// The schema of a workflow file, draft 2020-12, with a description on every key.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut root = section(&WORKFLOW, &mut definitions);
    if let Some(fields) = root.as_object_mut() {
        fields.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        fields.insert("title".into(), "Kapell workflow".into());
        fields.insert("$defs".into(), Value::Object(definitions));
    }
    root
}

fn section(of: &'static Section, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in of.keys.iter().filter(|key| !key.is_later()) {
        properties.insert(key.name.into(), property(key, definitions));
    }
    let required: Vec<&str> = of
        .keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let verbs: Vec<Value> = of
        .keys
        .iter()
        .filter(|key| key.verb && !key.is_later())
        .map(|key| json!({ "required": [key.name] }))
        .collect();
    let mut schema = json!({ "type": "object", "description": of.doc, "properties": properties });
    match of.others {
        Others::Refused => schema["additionalProperties"] = false.into(),
        Others::Extensions => {
            schema["patternProperties"] = json!({ "^x-": {} });
            schema["additionalProperties"] = false.into();
        }
        Others::Names(shape) => schema["additionalProperties"] = form(shape, definitions),
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !verbs.is_empty() {
        schema["oneOf"] = verbs.into();
    }
    schema
}

fn property(key: &'static Key, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = form(&key.shape, definitions);
    let doc = match key.default {
        "" => key.doc.to_owned(),
        default => format!("{} Default: {default}.", key.doc),
    };
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".into(), doc.into());
    }
    schema
}

/// Text that holds an expression.
fn expression() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{\\{" })
}

fn form(shape: &'static Shape, definitions: &mut Map<String, Value>) -> Value {
    match shape {
        // Plain numbers and words keep their text, so every scalar is text here.
        Shape::Literal | Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Value => json!({}),
        Shape::Condition | Shape::Expression => {
            json!({ "type": "string", "pattern": "^\\$\\{\\{" })
        }
        Shape::Empty => json!({ "type": ["null", "object"], "maxProperties": 0 }),
        Shape::Unset => json!({ "type": "null" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number(min) => json!({ "type": "number", "minimum": min }),
        Shape::Duration => {
            json!({ "type": "string", "pattern": "^([0-9.]+(ms|s|m|h|d|w)\\s*)+$", "examples": ["10s", "5m", "1h30m", "2d"] })
        }
        Shape::Size => json!({ "type": ["string", "integer"], "examples": ["512Mi", "4Gi"] }),
        Shape::Share => json!({ "type": ["string", "integer"], "examples": ["90%", 8] }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Type => json!({
            "type": "string",
            "examples": ["string", "int", "float", "bool", "date", "timestamp", "duration", "list<string>", "map<any>", "any", "file"],
        }),
        Shape::Dyn(inner) => json!({ "anyOf": [form(inner, definitions), expression()] }),
        Shape::List(item) => json!({ "type": "array", "items": form(item, definitions) }),
        Shape::OneOrMany(item) => {
            let one = form(item, definitions);
            json!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
        Shape::Map(value) => {
            json!({ "type": "object", "additionalProperties": form(value, definitions) })
        }
        Shape::AnyOf(shapes) => {
            let forms: Vec<Value> = shapes
                .iter()
                .map(|shape| form(shape, definitions))
                .collect();
            json!({ "anyOf": forms })
        }
        Shape::Steps => {
            json!({ "type": "object", "additionalProperties": reference(&STEP, definitions) })
        }
        Shape::Section(of) => reference(of, definitions),
    }
}

fn reference(of: &'static Section, definitions: &mut Map<String, Value>) -> Value {
    if !definitions.contains_key(of.title) {
        // A place holder first: sections contain each other.
        definitions.insert(of.title.into(), Value::Null);
        let schema = section(of, definitions);
        definitions.insert(of.title.into(), schema);
    }
    json!({ "$ref": format!("#/$defs/{}", of.title) })
}
