//! Chat templates: a conversation to the one text a model was trained on.
//!
//! Owns the rendering rules of Hugging Face's Jinja environment (block trimming, Python's idea of white space and of
//! JSON, `raise_exception`, `{% generation %}`). Knows nothing of tokens; the result already holds the bos where the template writes one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use minijinja_contrib::pycompat;

mod generation;

use generation::without_generation_tags;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`; templates refuse what they do not know.
    pub role: String,
    pub content: String,
}

/// A compiled chat template with its special tokens.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    file: PathBuf,
    specials: BTreeMap<String, String>,
}

/// Why a conversation has no text under a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("{}: compile the chat template", file.display())]
    Compile { file: PathBuf, source: Error },
    /// The template itself refuses the conversation (`raise_exception`).
    #[error("{}: the chat template refuses the conversation ({roles}): {message}", file.display())]
    Refused { file: PathBuf, roles: String, message: String },
    #[error("{}: render the chat template over the conversation ({roles})", file.display())]
    Render { file: PathBuf, roles: String, source: Error },
}

const NAME: &str = "chat_template";

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

impl ChatTemplate {
    /// Compiles a template; `file` is where its source was found and is only named in messages. `specials` maps the
    /// names a template may write (`bos_token`, ..) to the tokens' texts.
    pub fn compile(source: &str, specials: &BTreeMap<String, String>, file: &Path) -> Result<Self, TemplateError> {
        let fail = |source| TemplateError::Compile { file: file.to_owned(), source };
        let mut environment = environment().map_err(fail)?;
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(fail)?;
        Ok(Self { environment, source: source.to_owned(), file: file.to_owned(), specials: specials.clone() })
    }

    /// The text of a conversation; with `add_generation_prompt` it ends with the header of the turn to be written.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let turn = |Message { role, content }: &Message| {
            context! { role => role.as_str(), content => content.as_str() }
        };
        let turns: Vec<Value> = messages.iter().map(turn).collect();
        let context = context! {
            messages => turns,
            tools => (),
            documents => (),
            add_generation_prompt => add_generation_prompt,
            ..Value::from(self.specials.clone())
        };
        let template = self.environment.get_template(NAME);
        template.and_then(|template| template.render(context)).map_err(|error| self.refusal(messages, error))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn refusal(&self, messages: &[Message], error: Error) -> TemplateError {
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        let (file, roles) = (self.file.clone(), roles.join(", "));
        match raised(&error) {
            Some(message) => TemplateError::Refused { file, roles, message },
            None => TemplateError::Render { file, roles, source: error },
        }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What a template says when it calls `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("trim", python_trim);
    environment.add_filter("tojson", python_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    Ok(environment)
}

/// Python's `str.isspace`, which counts four separators that Unicode's White_Space leaves out.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn python_trim(text: &str, chars: Option<&str>) -> String {
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim_matches(is_python_space).to_owned(),
    }
}

/// Methods of Python's strings, lists and dicts; stripping without arguments follows [`is_python_space`].
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text), []) = (value.kind(), value.as_str(), args) {
        match method {
            "strip" => return Ok(text.trim_matches(is_python_space).into()),
            "lstrip" => return Ok(text.trim_start_matches(is_python_space).into()),
            "rstrip" => return Ok(text.trim_end_matches(is_python_space).into()),
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// Python's `json.dumps(.., ensure_ascii=False)`: spaces after separators, and no escapes for HTML.
fn python_json(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<String, Error> {
    let safe = minijinja::filters::tojson(value, indent, args)?;
    let mut json = String::new();
    let mut rest = safe.as_str().unwrap_or_default();
    while let Some(at) = rest.find('\\') {
        json.push_str(&rest[..at]);
        let escape = if rest[at..].starts_with("\\u") { rest.get(at..at + 6) } else { rest.get(at..at + 2) };
        let escape = escape.unwrap_or(&rest[at..]);
        json.push_str(match escape {
            "\\u003c" => "<",
            "\\u003e" => ">",
            "\\u0026" => "&",
            "\\u0027" => "'",
            other => other,
        });
        rest = &rest[at + escape.len()..];
    }
    json.push_str(rest);
    Ok(json)
}

#[cfg(test)]
mod tests;
