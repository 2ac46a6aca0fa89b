//! One secret as the store keeps it.

use aes_gcm_siv::aead::{Aead, Payload};
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kapell_api::client::Result;
use kapell_model::{Error, ErrorCode, Time};
use serde::{Deserialize, Serialize};

use super::damaged;
use super::keys::{Ring, bad_key};

/// Bytes of a nonce; one that comes twice would only tell that two values are the same (RFC 8452).
const NONCE_BYTES: usize = 12;

/// A sealed value.
#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    /// Which key seals it.
    key: String,
    /// Base64.
    nonce: String,
    /// Base64.
    text: String,
    /// When the value was set.
    pub(super) set_at: Time,
    /// By whom.
    pub(super) by: String,
}

impl Sealed {
    /// Seals a value with the first key.
    pub(super) fn seal(
        ring: &Ring,
        name: (&str, &str),
        value: &str,
        by: &str,
        set_at: Time,
    ) -> Result<Self> {
        let key = ring.current();
        let mut nonce = [0; NONCE_BYTES];
        let failed = |what: String| Error::new(ErrorCode::Internal, what);
        getrandom::fill(&mut nonce).map_err(|error| failed(format!("no randomness: {error}")))?;
        let id = key.id();
        let text = Aes256GcmSiv::new(key.bytes().into()).encrypt(
            &Nonce::from(nonce),
            Payload {
                msg: value.as_bytes(),
                aad: &bound_to(name, &id),
            },
        );
        let text = text.map_err(|_| failed("a secret cannot be sealed".to_owned()))?;
        Ok(Self {
            key: id,
            nonce: BASE64_STANDARD.encode(nonce),
            text: BASE64_STANDARD.encode(text),
            set_at,
            by: by.to_owned(),
        })
    }

    /// The value.
    pub(super) fn open(&self, ring: &Ring, name: (&str, &str)) -> Result<String> {
        let key = ring.find(&self.key).ok_or_else(|| {
            bad_key(format!(
                "the secret `{}` is sealed with another key, {}",
                name.1, self.key
            ))
            .hint("put the file of keys back that was in use, or set the secret again")
        })?;
        let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| damaged());
        let nonce: [u8; NONCE_BYTES] = bytes(&self.nonce)?.try_into().map_err(|_| damaged())?;
        let opened = Aes256GcmSiv::new(key.bytes().into()).decrypt(
            &Nonce::from(nonce),
            Payload {
                msg: &bytes(&self.text)?,
                aad: &bound_to(name, &self.key),
            },
        );
        String::from_utf8(opened.map_err(|_| damaged())?).map_err(|_| damaged())
    }

    /// As the store keeps it.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
    }

    /// Reads [`Sealed::to_json`].
    pub(super) fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|_| damaged())
    }
}

/// What a sealed value is bound to. Names hold no zero byte.
fn bound_to((namespace, name): (&str, &str), key: &str) -> Vec<u8> {
    [namespace, name, key].join("\0").into_bytes()
}
