//! Secrets.

use kapell_api::client::{Result, SecretCalls};
use kapell_api::http::{RotatedSecrets, SecretPage, SetSecret};
use kapell_node::clock;

use super::{Service, page};
use crate::register::NAMESPACE;

impl SecretCalls for Service {
    fn set_secret(&self, name: &str, secret: &SetSecret) -> Result<()> {
        let path = format!("/secrets/{name}");
        self.audit.change(
            "PUT",
            &path,
            |_| String::new(),
            || {
                self.secrets
                    .set(NAMESPACE, name, &secret.value, &secret.by, clock::now())
            },
        )
    }

    fn secrets(&self, after: &str, limit: usize) -> Result<SecretPage> {
        self.secrets.list(NAMESPACE, after, page(limit))
    }

    fn delete_secret(&self, name: &str) -> Result<()> {
        let path = format!("/secrets/{name}");
        self.audit.change(
            "DELETE",
            &path,
            |_| String::new(),
            || self.secrets.delete(NAMESPACE, name),
        )
    }

    fn rotate_secrets(&self) -> Result<RotatedSecrets> {
        let what = |done: Option<&RotatedSecrets>| {
            done.map_or_else(String::new, |done| format!("{} secrets", done.secrets))
        };
        self.audit
            .change("POST", "/secret-keys", what, || self.secrets.rotate())
    }
}
