//! The project that most tests of the program use: the shipped pipeline's six stages, over two tiny models of the real
//! architectures, done in a second.
//!
//! Owns the files. Knows nothing of what a test does to them.

use std::fs;
use std::path::Path;

use crate::{Project, fixture};

/// Prompts of a user; the models answer nonsense to them, but they answer.
pub const PROMPTS: &str = r#"{"prompt": "Name a colour.", "answer": "red"}
{"prompt": "Name a fruit.", "answer": "plum"}
{"prompt": "Count to three.", "answer": "1 2 3"}
{"prompt": "Say good morning.", "answer": "Good morning."}
{"prompt": "Spell the word cat.", "answer": "c a t"}
{"prompt": "Name a day.", "answer": "Monday"}
"#;

/// The pipeline; `POLICY` and `REWARD` stand for folders.
const PIPELINE: &str = "\
version: 1
models:
  policy: POLICY
  reward: REWARD
stages:
  prompts:
    ingest: { from: prompts.jsonl, map: { prompt: prompt, reference: answer }, split: { heldout: 0.4 } }
  responses:
    sample: { prompts: prompts, model: policy, n: 3, split: all, max_new_tokens: 6, seed: 1 }
  scores:
    score: { responses: responses, model: reward }
  pairs:
    pair: { scores: scores, ties: drop }
  tuned:
    train:
      pairs: pairs
      model: policy
      objective: { simpo: { beta: 10, gamma_beta_ratio: 0.5 } }
      learning_rate: 1.0e-5
      batch_size: 2
      max_length: 64
      max_prompt_length: 48
  report:
    evaluate:
      prompts: prompts
      candidate: tuned
      baseline: policy
      judge: reward
      split: all
      max_new_tokens: 6
      resamples: 20
";

/// The stages, in plan order.
pub const STAGES: [&str; 6] = ["prompts", "responses", "scores", "pairs", "tuned", "report"];

/// The model folders of a project that has its own, and the fixtures they are copies of.
const MODELS: [(&str, &str, &str); 2] =
    [("POLICY", "policy", "gemma2-tiny"), ("REWARD", "reward", "llama3-armorm-tiny")];

/// What makes a folder a model; fixtures have more files.
const MODEL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// The six stages in the file `pipeline`, with `prompts.jsonl` beside them and the models where the fixtures are.
pub fn six_stages(pipeline: &str) -> Project {
    let project = Project::new();
    write(&project, pipeline, |_, name| fixture(name).display().to_string());
    project
}

/// The same with a copy of the models in the folders `policy` and `reward`, to be damaged.
pub fn six_stages_with_models(pipeline: &str) -> Project {
    let project = Project::new();
    write(&project, pipeline, |folder, name| {
        copy_model(&fixture(name), &project.path().join(folder));
        folder.to_owned()
    });
    project
}

fn write(project: &Project, pipeline: &str, folder_of: impl Fn(&str, &str) -> String) {
    project.write("prompts.jsonl", PROMPTS);
    let put = |text: String, (word, folder, name): &(&str, &str, &str)| text.replace(word, &folder_of(folder, name));
    project.write(pipeline, &MODELS.iter().fold(PIPELINE.to_owned(), put));
}

/// Copies the files that make a folder a model.
pub fn copy_model(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable folder");
    for name in MODEL_FILES.into_iter().filter(|name| from.join(name).is_file()) {
        fs::copy(from.join(name), to.join(name)).expect("a file of the model");
    }
}
