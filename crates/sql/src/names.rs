//! Names of tables of earlier runs: `responses@prev`, `scores@r17`, `pairs@tag:gold`. The parser below takes all but the
//! last for one name; here the pieces of that, too, become one. Refuses to know what runs and tags there are.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError, Word};

use crate::error::SqlError;
use crate::session::only_query;

/// The tables a query asks for, as a session would look them up: `pairs`, `pairs.dropped@r3`, `pairs@tag:gold`.
///
/// # Errors
/// What is wrong with the text, with the place in it.
pub fn table_names(query: &str) -> Result<Vec<String>, SqlError> {
    let statement = only_query(query)?;
    let (tables, _) = resolve_table_references(&statement, true).map_err(|error| SqlError::of_plan(query, &error))?;
    Ok(tables.iter().map(ToString::to_string).collect())
}

/// The statements of a text.
pub(crate) fn statements(text: &str) -> Result<Vec<Statement>, SqlError> {
    let fault = |error| SqlError::of_plan(text, &error);
    let tokens = tokens(text).map_err(|error| fault(ParserError::from(error).into()))?;
    let parsed = DFParserBuilder::new(tokens).build().and_then(|mut parser| parser.parse_statements());
    parsed.map(Vec::from).map_err(fault)
}

/// The tokens of a text, in which the name of an earlier table is one word.
pub(crate) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let mut joined: Vec<TokenWithSpan> = Vec::new();
    // A tag that is open takes the pieces that touch it.
    let mut in_tag = false;
    for token in Tokenizer::new(&GenericDialect {}, text).tokenize_with_location()? {
        let touches = joined.last().is_some_and(|last| last.span.end == token.span.start);
        let piece = if touches { joined.last().and_then(|last| piece(last, &token, in_tag)) } else { None };
        in_tag = match (piece, joined.last_mut()) {
            (Some(name), Some(last)) => {
                last.span.end = token.span.end;
                let opens = matches!(token.token, Token::Colon);
                last.token = Token::make_word(&name, Some('"'));
                in_tag || opens
            }
            _ => {
                joined.push(token);
                false
            }
        };
    }
    Ok(joined)
}

/// The name that a word and the token behind it are together, if they are one.
fn piece(last: &TokenWithSpan, next: &TokenWithSpan, in_tag: bool) -> Option<String> {
    let Token::Word(Word { value, quote_style, .. }) = &last.token else { return None };
    // A quoted name is kept as it is written; in others, the case of letters does not count.
    let name = if quote_style.is_some() { value.clone() } else { value.to_lowercase() };
    match &next.token {
        Token::Word(run) if run.quote_style.is_none() && run.value.starts_with('@') && !name.contains('@') => {
            Some(name + &run.value.to_lowercase())
        }
        Token::Colon if !in_tag && name.ends_with("@tag") => Some(name + ":"),
        Token::Word(tag) if in_tag && tag.quote_style.is_none() => Some(name + &tag.value.to_lowercase()),
        Token::Number(digits, _) if in_tag => Some(name + digits),
        Token::Minus if in_tag => Some(name + "-"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &[&str]) {
        assert_eq!(table_names(query).expect("a query"), expected);
    }

    #[test]
    fn an_earlier_table_is_a_name_with_or_without_quotes() {
        check("select * from responses@prev", &["responses@prev"]);
        check("select * from Responses@R17", &["responses@r17"]);
        check("select * from pairs.dropped@r3", &["pairs.dropped@r3"]);
        check("select * from pairs@tag:gold", &["pairs@tag:gold"]);
        check("select * from pairs.dropped@tag:v2-final_1 where 1 < 2", &["pairs.dropped@tag:v2-final_1"]);
        check(r#"select * from "pairs@tag:gold" "#, &["pairs@tag:gold"]);
        check(r#"select * from "tuned[lr=1e-5]"@tag:gold"#, &["tuned[lr=1e-5]@tag:gold"]);
        check(r#"select * from "tuned[lr=1e-5]@r2" "#, &["tuned[lr=1e-5]@r2"]);
        check(
            "select a.x, pairs@tag:gold.x from pairs@tag:gold join scores@r17 a using (x)",
            &["pairs@tag:gold", "scores@r17"],
        );
    }

    #[test]
    fn what_touches_no_tag_stays_what_it_is() {
        check("select x::int, -1, pairs.margin-1 from pairs", &["pairs"]);
        check("select pairs@tag:gold.margin-1 from pairs@tag:gold", &["pairs@tag:gold"]);
        check("with last as (select 1) select * from last, pairs@prev", &["pairs@prev"]);
        check("select 'a@tag:b' from pairs", &["pairs"]);
    }
}
