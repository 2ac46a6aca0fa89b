//! `kapell token`: who may ask a server.

use kapell_api::http::{NewToken, Scope, TokenView};
use kapell_model::{Error, ErrorCode, Time};
use kapell_node::clock;

use crate::args::{Token, TokenCreate, TokenList, TokenRevoke};
use crate::config::Config;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, words};

/// Tokens of one page.
const PAGE: usize = 1_000;

pub(crate) fn token(token: &Token, config: &Config, printer: &mut Printer) -> Ended {
    match token {
        Token::Create(create) => make(create, config, printer),
        Token::List(list) => show(list, config, printer),
        Token::Revoke(revoke) => end(revoke, config, printer),
    }
}

fn make(create: &TokenCreate, config: &Config, printer: &mut Printer) -> Ended {
    let expires = create.expires.as_deref();
    let new = NewToken {
        name: create.name.clone(),
        scopes: create
            .scope
            .iter()
            .map(|name| scope(name))
            .collect::<Result<_, _>>()?,
        namespaces: create.namespace.clone(),
        expires_at: expires
            .map(|when| words::instant(when, clock::now(), false))
            .transpose()?,
        by: config.user.clone(),
    };
    let session = session::open(config, Need::Record)?;
    let created = session.api().create_token(&new)?;
    session.close();
    if create.json {
        printer.json(&created)?;
        return Ok(Exit::Success);
    }
    printer.notes(&[
        Line::default()
            .with(GREEN, "✓ ")
            .with(PLAIN, format!("token {} ", created.token.id))
            .with(
                DIM,
                "for KAPELL_TOKEN, or the header `Authorization: Bearer …`;",
            ),
        Line::default().with(DIM, "  it is not shown again"),
    ]);
    printer.plain(created.secret)?;
    Ok(Exit::Success)
}

fn scope(name: &str) -> Result<Scope, Error> {
    let found = Scope::ALL.into_iter().find(|scope| scope.name() == name);
    found.ok_or_else(|| {
        Error::new(
            ErrorCode::BadRequest,
            format!("`{name}` is no scope of a token"),
        )
        .hint("one of read, run, write, admin")
    })
}

fn show(list: &TokenList, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let mut tokens = Vec::new();
    let mut after = String::new();
    loop {
        let page = session.api().tokens(&after, PAGE)?;
        tokens.extend(page.tokens);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    session.close();
    if list.json {
        printer.json(&tokens)?;
        return Ok(Exit::Success);
    }
    if tokens.is_empty() {
        printer.plain("there are no tokens")?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    let lines: Vec<Line> = tokens.iter().map(|token| row(token, now)).collect();
    printer.lines(&lines)?;
    Ok(Exit::Success)
}

fn row(token: &TokenView, now: Time) -> Line {
    let mut line = Line::default().with(DIM, token.id.as_str());
    line.pad(18);
    line.push(BOLD, words::cut(&token.name, 30));
    line.pad(50);
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.name()).collect();
    line.push(PLAIN, scopes.join(","));
    line.pad(72);
    let state = match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!(
            "revoked {} by {}",
            words::moment(at),
            token.revoked_by.as_deref().unwrap_or("somebody")
        ),
        (None, Some(at)) if at <= now => format!("over since {}", words::moment(at)),
        (None, Some(at)) => format!("until {}", words::moment(at)),
        (None, None) => "until it is revoked".to_owned(),
    };
    line.with(PLAIN, state)
        .with(DIM, format!(", made by {}", token.created_by))
}

fn end(revoke: &TokenRevoke, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Record)?;
    let token = session.api().revoke_token(&revoke.token, &config.user)?;
    session.close();
    printer.line(Line::default().with(GREEN, "✓ ").with(
        PLAIN,
        format!(
            "token {} of {} lets nobody in any more",
            token.id, token.name
        ),
    ))?;
    Ok(Exit::Success)
}
