//! Tokens and the audit log.

use super::{Client, Result, encoded, query};
use crate::http::{AuditPage, AuditQuery, CreatedToken, NewToken, TokenPage, TokenView};

/// What can be asked of tokens and the audit log.
pub trait TokenCalls: Send + Sync {
    /// Makes a token.
    fn create_token(&self, new: &NewToken) -> Result<CreatedToken>;
    /// Tokens by id, after one.
    fn tokens(&self, after: &str, limit: usize) -> Result<TokenPage>;
    /// Ends a token: by its id, or by its name if one valid token has it.
    fn revoke_token(&self, token: &str, by: &str) -> Result<TokenView>;
    /// Changes, newest first.
    fn audit(&self, which: &AuditQuery) -> Result<AuditPage>;
}

impl TokenCalls for Client {
    fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        self.post("/tokens", new)
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<TokenPage> {
        self.get(&format!("/tokens?after={}&limit={limit}", encoded(after)))
    }

    fn revoke_token(&self, token: &str, by: &str) -> Result<TokenView> {
        self.delete(&format!("/tokens/{}?by={}", encoded(token), encoded(by)))
    }

    fn audit(&self, which: &AuditQuery) -> Result<AuditPage> {
        self.get(&format!("/audit{}", query(which)))
    }
}
