//! Every conversation of the fixture templates, text and ids, and the rules in which Python differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ChatTemplate, Message, TemplateError};
use crate::tokenizer::Tokenizer;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tokenizer")).join(name)
}

fn messages(value: &Value) -> Vec<Message> {
    let turn = |m: &Value| Message::new(m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    value.as_array().unwrap().iter().map(turn).collect()
}

fn check_conversations(folder: &str, file: &str, source: Option<String>) {
    println!("| fixture tokenizer | {folder}: rendered text and ids of {file} | 0 | exact |");
    let tokenizer = Tokenizer::load(&fixture(folder)).unwrap();
    let source = source.unwrap_or_else(|| tokenizer.chat_template().unwrap().to_owned());
    let template = ChatTemplate::compile(&source, tokenizer.specials(), Path::new("template")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(fixture(folder).join(file)).unwrap()).unwrap();
    assert_eq!(rows.len(), 15);
    for row in rows {
        for (prompt, wanted) in [(false, &row["no_generation_prompt"]), (true, &row["generation_prompt"])] {
            let rendered = template.render(&messages(&row["messages"]), prompt);
            match wanted["error"].as_str() {
                Some(wanted) => match rendered.unwrap_err() {
                    TemplateError::Refused { message, .. } => assert_eq!(message, wanted),
                    other => panic!("{other:?} where the template raises {wanted:?}"),
                },
                None => {
                    let text = rendered.unwrap();
                    assert_eq!(text, wanted["text"].as_str().unwrap());
                    let ids = serde_json::to_value(tokenizer.encode(&text).unwrap()).unwrap();
                    assert_eq!(ids, wanted["ids"], "{text:?}");
                }
            }
        }
    }
}

#[test]
fn gemma_conversations() {
    check_conversations("gemma", "conversations.json", None);
}

#[test]
fn llama3_conversations() {
    check_conversations("llama3", "conversations.json", None);
}

#[test]
fn gemma_conversations_in_simpo_training() {
    let source = fs::read_to_string(fixture("gemma").join("chat_template_simpo.jinja")).unwrap();
    check_conversations("gemma", "conversations_simpo.json", Some(source));
}

fn check_render(source: &str, content: &str, wanted: &str) {
    let specials = BTreeMap::from([("bos_token".to_owned(), "<bos>".to_owned())]);
    let template = ChatTemplate::compile(source, &specials, Path::new("t.jinja")).unwrap();
    let rendered = template.render(&[Message::user(content)], false).map_err(|error| error.to_string());
    assert_eq!(rendered.unwrap_or_else(|error| error), wanted, "{source}");
}

#[test]
fn rules_of_the_python_environment() {
    let spaces = "\u{a0}\u{3000}\u{1c}\u{1f} x\u{200b} y\u{feff} \n";
    check_render("{{ messages[0]['content'] | trim }}", spaces, "x\u{200b} y\u{feff}");
    check_render("{{ messages[0].content.strip() }}", spaces, "x\u{200b} y\u{feff}");
    check_render("{{ messages[0]['content'].lstrip() }}|", " a ", "a |");
    check_render("{{ messages[0]['content'].split('|')[-1] }}", "a|b", "b");
    check_render("{%- if true %}\n  {% if true %}\nx\n  {% endif %}\n{%- endif %}\n", "", "x\n");
    check_render(
        "{{ messages[0] | tojson }}",
        "<a href=\"\\u003c\">é",
        r#"{"role": "user", "content": "<a href=\"\\u003c\">é"}"#,
    );
    check_render("{{ tools is none }} {{ none }} {{ nothing }} {{ true }}", "", "True None  True");
    check_render("{{ bos_token }}{% for m in messages %}{{ loop.index0 }}{% break %}{% endfor %}", "", "<bos>0");
    check_render("{{ messages[0]['content'] }}", "<b>&'\"", "<b>&'\"");
}

/// What stands between the tags is rendered, white space is trimmed as around any tag, and what is set inside ends there.
#[test]
fn generation_tags_render_what_is_between_them() {
    check_render("<{% generation %}{{ messages[0].content }}{% endgeneration %}>", "a", "<a>");
    check_render("  {% generation %}\nx\n  {%- endgeneration -%}  \n y", "", "xy");
    check_render("{% for m in messages %}{%- generation -%} {{ m.role }}{% endgeneration %}{% endfor %}", "", "user");
    check_render("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "", "21");
    // Comments, quotes and raw blocks hold no tags.
    check_render("{# {% generation %} #}{{ '{% generation %}' }}", "", "{% generation %}");
    check_render("{{ \"a\\\"{% generation %}\" }}", "", "a\"{% generation %}");
    check_render("{% raw %}{% generation %}{% endraw %}", "", "{% generation %}");
    check_render("{% if '%}' == '{% generation %}' %}no{% endif %}{ % {", "", "{ % {");
}

#[test]
fn faults_after_a_generation_tag_are_where_they_stand_in_the_file() {
    let compiled = |source: &str| ChatTemplate::compile(source, &BTreeMap::new(), Path::new("t.jinja"));
    let fault = |source: &str| {
        let error = compiled(source).unwrap_err();
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    };
    let (with, without) =
        ("{% generation %}\n{% endgeneration %}{% if %}", "{% with       %}\n{% endwith       %}{% if %}");
    assert_eq!(fault(with), fault(without));
    expect_test::expect!["syntax error: unexpected end of input, expected identifier (in chat_template:1)"]
        .assert_eq(&fault("{% generation"));
}

#[test]
fn messages_name_the_file_and_the_roles() {
    check_render(
        "{{ raise_exception('no ' + messages[0].role) }}",
        "",
        "t.jinja: the chat template refuses the conversation (user): no user",
    );
    check_render("{{ messages | nope }}", "", "t.jinja: render the chat template over the conversation (user)");
    let error = ChatTemplate::compile("{% if %}", &BTreeMap::new(), Path::new("t.jinja")).unwrap_err();
    assert_eq!(error.to_string(), "t.jinja: compile the chat template");
}
