//! The border between a prompt and its response in a rendered conversation.
//!
//! Owns on which side the header of the response lies. Knows nothing of tokens.

use serde::Serialize;
use sluice_lm::template::{ChatTemplate, Message, TemplateError};
use thiserror::Error;

/// Where the header that opens a response (`<start_of_turn>model` and its newline) is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseHeader {
    /// In the prompt: not trained, not in the mean. What most trainers do.
    Prompt,
    /// In the response: trained and counted in the mean, as in the reference SimPO trainer.
    Response,
}

/// A rendered prompt and the rendered response that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub prompt: String,
    /// Up to and including what the template writes after a response.
    pub response: String,
}

/// A conversation that does not part into prompt and response.
#[derive(Debug, Error)]
pub enum TurnError {
    #[error("render a prompt of {n_messages} messages with its response")]
    Render { n_messages: usize, source: TemplateError },
    #[error(
        "the chat template renders a prompt of {n_messages} messages differently once a response follows; \
         a trained response must extend the text that sampling starts from"
    )]
    NotAPrefix { n_messages: usize },
}

/// Renders `prompt` followed by an assistant turn of `response`, and parts the text between them.
///
/// The response is what the whole text has beyond the prompt's, so any template works that renders a conversation as an
/// extension of its start, also one that refuses a lone assistant turn.
pub fn split_turn(
    template: &ChatTemplate,
    prompt: &[Message],
    response: &str,
    header: ResponseHeader,
) -> Result<Turn, TurnError> {
    let n_messages = prompt.len();
    let render = |messages: &[Message], opens_response| {
        template.render(messages, opens_response).map_err(|source| TurnError::Render { n_messages, source })
    };
    let prompt_text = render(prompt, header == ResponseHeader::Prompt)?;
    let conversation = [prompt, &[Message::assistant(response)]].concat();
    let whole = render(&conversation, false)?;
    match whole.strip_prefix(&prompt_text) {
        Some(rest) => Ok(Turn { response: rest.to_owned(), prompt: prompt_text }),
        None => Err(TurnError::NotAPrefix { n_messages }),
    }
}
