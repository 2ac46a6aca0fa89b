//! Schemas of types that live in crates which know nothing of the wire.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// A schema that is referred to by its name.
macro_rules! named {
    ($($(#[doc = $doc:literal])+ $name:ident = $make:expr;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    let text = concat!($($doc),+).trim();
                    RefOr::T(Schema::Object($make.description(Some(text)).build()))
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($name))
                }
            }
        )+
    };
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn count() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(0))
}

fn words(words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

named! {
    /// The id of a run: 26 characters of Crockford's base 32, which sort as runs were made.
    RunId = text()
        .min_length(Some(26))
        .max_length(Some(26))
        .pattern(Some("^[0-7][0-9a-hjkmnp-tv-z]{25}$"))
        .examples([serde_json::json!("01k9z3w6t80wd4qy2m7f5g8h1j")]);
    /// A place in a list of runs: what `next` said, or the id of a run.
    RunCursor = text()
        .min_length(Some(26))
        .max_length(Some(47))
        .pattern(Some(r"^[0-7][0-9a-hjkmnp-tv-z]{25}(\.-?[0-9]{1,18})?$"))
        .examples([serde_json::json!("01k9z3w6t80wd4qy2m7f5g8h1j.1764244800000000")]);
    /// A moment: RFC 3339, in UTC.
    Timestamp = text()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples([serde_json::json!("2030-01-31T10:00:00Z")]);
    /// Where a run stands.
    RunStatus = words(kapell_model::RunStatus::ALL.map(kapell_model::RunStatus::name));
    /// Where a step stands.
    StepStatus = words(kapell_model::StepStatus::ALL.map(kapell_model::StepStatus::name));
    /// Whose fault a failure is.
    FailureKind = words(["user", "timeout", "platform"]);
    /// A stable code of a failure.
    ErrorCode = words(kapell_model::ErrorCode::ALL.iter().map(|code| code.name()));
    /// Bytes that are stored by their hash.
    Blob = ObjectBuilder::new()
        .property("hash", text().pattern(Some("^[0-9a-f]{64}$")).description(Some("BLAKE3 of the content.")))
        .required("hash")
        .property("size", count().description(Some("Bytes of the content.")))
        .required("size");
    /// A span of time.
    Duration = ObjectBuilder::new()
        .property("secs", count().description(Some("Whole seconds.")))
        .required("secs")
        .property("nanos", count().description(Some("Nanoseconds beyond them.")))
        .required("nanos");
}
