//! Secrets.

use hyper::Method;
use hyper::body::Bytes;
use kapell_model::{Error, ErrorCode};

use super::{Client, Result, encoded};
use crate::http::{RotatedSecrets, SecretPage, SetSecret};

/// What can be asked of secrets.
pub trait SecretCalls: Send + Sync {
    /// Keeps a value under a name; one that was there is replaced.
    fn set_secret(&self, name: &str, secret: &SetSecret) -> Result<()>;
    /// Names of secrets after one.
    fn secrets(&self, after: &str, limit: usize) -> Result<SecretPage>;
    /// Removes a secret.
    fn delete_secret(&self, name: &str) -> Result<()>;
    /// Seals all of them with a new key.
    fn rotate_secrets(&self) -> Result<RotatedSecrets>;
}

impl SecretCalls for Client {
    fn set_secret(&self, name: &str, secret: &SetSecret) -> Result<()> {
        let body = serde_json::to_vec(secret)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        let path = format!("/secrets/{}", encoded(name));
        self.call(Method::PUT, &path, body.into(), "application/json")
    }

    fn secrets(&self, after: &str, limit: usize) -> Result<SecretPage> {
        self.get(&format!("/secrets?after={}&limit={limit}", encoded(after)))
    }

    fn delete_secret(&self, name: &str) -> Result<()> {
        let path = format!("/secrets/{}", encoded(name));
        self.call(Method::DELETE, &path, Bytes::new(), "application/json")
    }

    fn rotate_secrets(&self) -> Result<RotatedSecrets> {
        self.post("/secret-keys", &())
    }
}
