//! Tokens and the audit log.

use kapell_api::client::{Result, TokenCalls};
use kapell_api::http::{AuditPage, AuditQuery, CreatedToken, NewToken, TokenPage, TokenView};

use super::{Service, page};

impl TokenCalls for Service {
    fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        let what = |_: Option<&CreatedToken>| {
            let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.name()).collect();
            format!("token `{}` with {}", new.name, scopes.join(","))
        };
        self.audit
            .change("POST", "/tokens", what, || self.tokens.create(new))
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<TokenPage> {
        self.tokens.list(after, page(limit))
    }

    fn revoke_token(&self, token: &str, by: &str) -> Result<TokenView> {
        let what = |revoked: Option<&TokenView>| {
            revoked.map_or_else(String::new, |token| format!("token `{}`", token.name))
        };
        self.audit
            .change("DELETE", &format!("/tokens/{token}"), what, || {
                self.tokens.revoke(token, by)
            })
    }

    fn audit(&self, which: &AuditQuery) -> Result<AuditPage> {
        self.audit.list(which, page(which.limit))
    }
}
