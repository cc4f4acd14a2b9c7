//! Everything a user can get wrong, on the real binary: what is said, how the program ends, and that nothing is left
//! half-written. A case is a recipe of a damaged project, what is called, and pieces of what must be said.

#[path = "bad_input/damage.rs"]
mod damage;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sluice_tests::binary;

use crate::damage::Damage::{self, *};
use crate::damage::{POLICY, PROMPTS, REWARD, project};

/// Damages a sound project, calls the program, and looks at what it says. The exit code stands before the excerpts.
#[track_caller]
fn check(damages: &[Damage], arguments: &[&str], code: i32, excerpts: &[&str]) {
    let project = project();
    damages.iter().for_each(|damage| damage.apply(&project));
    let said = project.sluice(arguments).ended(code);
    let text = format!("{}{}", said.out, said.err);
    for excerpt in excerpts {
        assert!(text.contains(excerpt), "\n`{excerpt}` is not in\n{text}");
    }
    for rust in ["panicked", "RUST_BACKTRACE", "unwrap()"] {
        assert!(!text.contains(rust), "\n`{rust}` is in\n{text}");
    }
    // Whatever failed, no attempt is left behind.
    if let Ok(attempts) = fs::read_dir(project.path().join(".sluice/tmp")) {
        assert_eq!(attempts.count(), 0, "{text}");
    }
}

const RUN: &[&str] = &["run", "p.yaml", "--quiet"];

#[track_caller]
fn check_run(damages: &[Damage], code: i32, excerpts: &[&str]) {
    check(damages, RUN, code, excerpts);
}

/// A run with one value set from outside.
#[track_caller]
fn check_set(set: &str, code: i32, excerpts: &[&str]) {
    check(&[], &[RUN, &["--set", set]].concat(), code, excerpts);
}

#[test]
fn prompt_files() {
    let write = |text: &'static str| Write(PROMPTS, text);
    check_run(&[Remove(PROMPTS)], 2, &["no file matches `prompts.jsonl`", "p.yaml:7:21"]);
    check_run(
        &[Edit("p.yaml", "from: prompts.jsonl", "from: in/*.jsonl")],
        2,
        &["no file matches `in/*.jsonl`", "beside it there is `p.yaml`, `policy`, `prompts.jsonl`, `reward`"],
    );
    check_run(&[Edit("p.yaml", "from: prompts.jsonl", "from: policy")], 2, &["policy is a folder; name the files"]);
    check_run(&[write("")], 3, &["stage `prompts` failed", "prompts.jsonl has no rows"]);
    check_run(
        &[write(
            "{\"prompt\": \" \", \"answer\": \"\"}\n{\"prompt\": null, \"answer\": \"\"}\n{\"prompt\": \"\\n\"}\n",
        )],
        3,
        &["none of 3 rows gives a prompt: 3 have no text in the prompt column"],
    );
    check_run(
        &[write("{\"prompt\": \"one\", \"answer\": \"a\"}\n{\"prompt\": \"two\",\n")],
        3,
        &["prompts.jsonl:2: the line is not JSON from character 17 on: EOF while parsing"],
    );
    check_run(
        &[write("[{\"prompt\": \"one\"}]\n")],
        3,
        &["prompts.jsonl:1: the line is a list; each line must be a JSON object"],
    );
    check_run(
        &[write("{\"prompt\": \"one\", \"answer\": \"a\"}\n{\"prompt\": \"two\", \"answer\": {\"b\": 1}}\n")],
        3,
        &["prompts.jsonl:2: `answer` is an object, and a text in line 1"],
    );
    check_run(
        &[Bytes(PROMPTS, b"{\"prompt\": \"one\"}\n{\"prompt\": \"caf\xe9\"}\n")],
        3,
        &["prompts.jsonl:2: the line is not UTF-8 text from byte 16 on"],
    );
    check_run(
        &[Bytes(PROMPTS, b"\xef\xbb\xbf{\"prompt\": \"one\", \"answer\": \"a\"}\n")],
        3,
        &["prompts.jsonl:1: the file begins with a byte order mark"],
    );
    check_run(
        &[write("{\"prompt\": [\"one\"], \"answer\": \"a\"}\n")],
        3,
        &["column `prompt` of prompts.jsonl is List(Utf8), but `map.prompt` is read from text"],
    );
    check_run(
        &[write("{\"promt\": \"one\", \"answer\": \"a\"}\n")],
        3,
        &["prompts.jsonl has no column `prompt`", "did you mean `promt`?"],
    );
    check_run(
        &[Write("prompts.txt", "{}"), Edit("p.yaml", "from: prompts.jsonl", "from: prompts.txt")],
        3,
        &["the extension of prompts.txt is none of parquet, jsonl, ndjson and csv", "as in `format: jsonl`"],
    );
    check_run(
        &[Write("prompts.parquet", "PAR1 and no more"), Edit("p.yaml", "from: prompts.jsonl", "from: prompts.parquet")],
        3,
        &["read prompts.parquet as Parquet", "because: invalid Parquet file"],
    );
    check_run(
        &[Write("prompts.csv", "prompt,answer\n"), Edit("p.yaml", "from: prompts.jsonl", "from: prompts.csv")],
        3,
        &["the files have no rows"],
    );
    let condition = |text: &str| format!("stages.prompts.ingest.where={text}");
    check_set(&condition("lenght(prompt) < 5"), 3, &["invalid function 'lenght'; did you mean 'length'?"]);
    check_set(&condition("promt = 'a'"), 3, &["at 1:1: there is no column `promt`; there is `prompt`, `answer`"]);
    check_set(&condition("length(prompt) > 5000"), 3, &["none of 6 rows gives a prompt: 6 do not meet `where`"]);
    check_set(
        "stages.report.evaluate.split=heldout",
        2,
        &["stage `report` answers the prompts of `prompts` that are held out, and none is", "--set:1:"],
    );
}

#[test]
fn a_csv_file_may_have_line_breaks_in_quotes() {
    let csv = "prompt,answer\r\n\"two\nlines, and \"\"quotes\"\"\",x\r\nplain,y\r\n";
    let damages = [Write("prompts.csv", csv), Edit("p.yaml", "from: prompts.jsonl", "from: prompts.csv")];
    let project = project();
    damages.iter().for_each(|damage| damage.apply(&project));
    project.sluice([RUN, &["prompts"]].concat()).ended(0);
    let rows = project.sluice(["sql", "p.yaml", "select prompt, source_row from prompts", "--json"]).ended(0).out;
    let expected = r#"[{"prompt":"two\nlines, and \"quotes\"","source_row":0},{"prompt":"plain","source_row":1}]"#;
    assert_eq!(rows.trim(), expected);
}

#[test]
fn model_folders() {
    let config = |old: &'static str, new: &'static str| Edit("policy/config.json", old, new);
    check_run(&[RemoveFolder("reward")], 2, &["there is no folder reward, which should hold the model", "p.yaml:4:11"]);
    check_run(&[Remove("reward/config.json")], 2, &["read reward/config.json", "p.yaml:4:11"]);
    check_run(&[Remove("reward/tokenizer.json")], 2, &["read reward/tokenizer.json"]);
    check_run(&[Remove(REWARD)], 2, &["reward: holds neither model.safetensors nor model.safetensors.index.json"]);
    check_run(&[Write("policy/config.json", "{")], 2, &["policy/config.json: not a JSON object"]);
    check_run(
        &[config("\"Gemma2ForCausalLM\"", "\"OtherForCausalLM\"")],
        2,
        &["`architectures` names `OtherForCausalLM`; known are Gemma2ForCausalLM"],
    );
    check_run(
        &[config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 999999999")],
        2,
        &["`num_hidden_layers` is 999999999; a whole number from 1 to"],
    );
    check_run(
        &[config("\"vocab_size\": 512", "\"vocab_size\": 500")],
        2,
        &["policy/tokenizer.json: has 512 ids, and the embedding has 500 rows; each id needs a row"],
    );
    check_run(
        &[config("\"vocab_size\": 512", "\"vocab_size\": 600")],
        2,
        &["policy/tokenizer.json: has 512 ids, and the embedding has 600 rows"],
    );
    check_run(
        &[Edit("p.yaml", "policy: policy", "policy: reward"), Edit("p.yaml", "reward: reward", "reward: policy")],
        2,
        &[
            "`sample.model` is `policy`, a reward model (LlamaForRewardModelWithGating); a causal language model is needed",
            "`score.model` is `reward`, a causal language model (Gemma2ForCausalLM); a reward model is needed",
            "4 faults in p.yaml",
        ],
    );
    check_set("models.policy=hf://nobody/nothing", 6, &["fetch it with `hf download nobody/nothing"]);
    check(&[Remove("reward/config.json")], &["model", "inspect", "reward"], 2, &["read reward/config.json"]);
}

const UP: &str = "model.layers.0.mlp.up_proj.weight";

/// Weights that are not those of the configuration are told by the plan, at the model's place in the file, before anything
/// runs.
#[test]
fn weights_of_another_model() {
    let both = |damages: &[Damage], excerpts: &[&str]| {
        check(damages, &["plan", "p.yaml"], 2, excerpts);
        check_run(damages, 2, excerpts);
    };
    const OTHER: &str = "config.json in that folder describes another model";
    const EXTRA: &str = "config.json in that folder describes a model without them";
    both(
        &[Rename(POLICY, UP)],
        &[
            "policy/model.safetensors: tensor `model.layers.0.mlp.up_proj.weight` is missing; shape [128, 64] is needed",
            OTHER,
            "p.yaml:3:11",
            "1 fault in p.yaml",
        ],
    );
    both(
        &[Transpose(POLICY, UP)],
        &[
            "policy/model.safetensors: tensor `model.layers.0.mlp.up_proj.weight` has shape [64, 128]; [128, 64] is needed",
            OTHER,
            "p.yaml:3:11",
        ],
    );
    both(
        &[Add(POLICY, "score.weight", &[1, 64])],
        &[
            "policy/model.safetensors: holds 1 tensor that the model does not have: `score.weight`",
            EXTRA,
            "p.yaml:3:11",
        ],
    );
    // A reward model's own head is looked at as well, and both models are told of at once.
    both(
        &[Transpose(REWARD, "gating.layers.0.weight"), Add(POLICY, "surplus", &[1])],
        &[
            "reward/model.safetensors: tensor `gating.layers.0.weight` has shape [",
            "p.yaml:4:11",
            "`surplus`",
            "2 faults in p.yaml",
        ],
    );
    let layers = Edit("policy/config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
    both(&[layers], &["holds 11 tensors that the model does not have: `model.layers.3.input_layernorm.weight`", EXTRA]);
    // What only looks at models says the same.
    check(&[Transpose(POLICY, UP)], &["model", "inspect", "policy"], 2, &["has shape [64, 128]; [128, 64] is needed"]);
}

#[test]
fn weights() {
    let file = |excerpt: &'static str| ["policy/model.safetensors: ", excerpt];
    let run = |damage: Damage, code: i32, excerpt: &'static str| check_run(&[damage], code, &file(excerpt));
    run(NotANumber(POLICY, UP), 2, "tensor `model.layers.0.mlp.up_proj.weight` is NaN at element 7");
    run(
        Retype(POLICY, UP),
        2,
        "tensor `model.layers.0.mlp.up_proj.weight` is stored as I32; F32, F16 or BF16 is needed",
    );
    run(Lie(POLICY, UP), 2, "is F32 [128, 64] and needs 32768 bytes; its offsets are");
    run(Enlarge(POLICY, UP), 2, "needs more bytes than can be counted");
    run(Truncate(POLICY, 700_000), 2, "bytes of tensors and holds");
    run(Truncate(POLICY, 500), 2, "says that its header has");
    run(Truncate(POLICY, 3), 2, "is 3 bytes long; a header length of 8 bytes is needed first");
    run(Bytes(POLICY, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"), 2, "says that its header has 9223372036854775807 bytes");
    run(Write(POLICY, "version https://git-lfs.github.com/spec/v1\n"), 2, "is a text that begins with `version`");
    // A broken reward model is told before anything is sampled.
    let cut = ["reward/model.safetensors: says that its header has", "p.yaml:4:11", "1 fault in p.yaml"];
    check_run(&[Truncate(REWARD, 700)], 2, &cut);
    check(&[Truncate(REWARD, 700)], &["plan", "p.yaml"], 2, &cut);
    check_run(
        &[NotANumber(REWARD, "regression_layer.weight")],
        2,
        &["reward/model.safetensors: tensor `regression_layer.weight` is NaN at element 7", "p.yaml:4:11"],
    );
    check_run(
        &[Index("reward", "model-00001-of-00002.safetensors")],
        2,
        &["model.safetensors.index.json: names the shard `model-00001-of-00002.safetensors`, which is missing"],
    );
    check_run(&[Index("reward", "../other.safetensors")], 2, &["a plain file name is needed"]);
    check_run(
        &[Fill(REWARD, "regression_layer.weight", 3e38)],
        1,
        &["stage `scores` failed", "the reward model's weights are damaged or overflow"],
    );
    check_run(
        &[Fill(POLICY, "model.norm.weight", 3e38)],
        1,
        &["stage `responses` failed", "look at the policy's weights", "logit 0 is NaN"],
    );
    check_run(
        &[Fill(REWARD, "regression_layer.weight", 0.0)],
        3,
        &["all 6 prompts dropped: 6 tie; look at the scores, or set `ties: first`"],
    );
}

/// What a model's files say that is odd and no fault is told once, however many stages read them.
#[test]
fn warnings_about_models() {
    let project = project();
    project.edit("policy/config.json", "\"vocab_size\": 512", "\"vocab_size\": 512, \"colour\": \"blue\"");
    let warning = "warning: policy/config.json: `colour`";
    let said = project.sluice(["run", "p.yaml"]).ended(0);
    assert_eq!(
        (said.out.matches(warning).count(), said.err.matches(warning).count()),
        (1, 1),
        "{}{}",
        said.out,
        said.err
    );
    // It stays with the results, and a run with nothing to do does not say it again.
    let shown = project.sluice(["show", "p.yaml", "responses"]).ended(0).out;
    assert_eq!(shown.matches(warning).count(), 1, "{shown}");
    let again = project.sluice(["run", "p.yaml"]).ended(0);
    assert!(!format!("{}{}", again.out, again.err).contains("warning"));
}

#[test]
fn chat_templates() {
    let template = |text: &'static str| Write("policy/chat_template.jinja", text);
    check_run(&[template("{{ raise_exception('not today') }}")], 1, &["refuses the conversation (user): not today"]);
    check_run(&[template("{{ bos_token }")], 2, &["policy/chat_template.jinja: compile the chat template"]);
    check_run(&[template("{{ nothing.here.below }}")], 1, &["undefined value"]);
    check_run(
        &[Bytes("policy/chat_template.jinja", b"caf\xe9")],
        2,
        &["read policy/chat_template.jinja", "valid UTF-8"],
    );
}

#[test]
fn lengths_and_counts() {
    let sample = |rest: &str| format!("stages.responses.sample.{rest}");
    check_set(&sample("n=0"), 2, &["`sample.n` must be a whole number from 1 to 10000, not 0", "--set:1:27"]);
    check_set(&sample("n=4000000000"), 2, &["`sample.n` must be a whole number from 1 to 10000"]);
    check_set(&sample("n=1"), 3, &["all 6 prompts dropped: 6 single_candidate; sample with `n: 2` or more"]);
    check_set(
        &sample("temperature=-1"),
        2,
        &["`sample.temperature` must be a number from 0 (the most likely token) to 100"],
    );
    check_set(&sample("temperature=0"), 2, &["`sample.n` must be 1 at temperature 0"]);
    check_set(&sample("temperature=1e-30"), 3, &["all 6 prompts dropped: 6 identical; sample at a higher temperature"]);
    check_set(&sample("top_p=1.5"), 2, &["`sample.top_p` must be a number above 0 and at most 1, not 1.5"]);
    check_set(&sample("stop=[nothing]"), 1, &["`stop` names `nothing`, which is no single token"]);
    check_set("stages.tuned.train.learning_rate=1e10", 1, &["the loss is NaN; the weights were not changed"]);
    let context =
        |folder: &'static str, length: &'static str| Edit(folder, "\"max_position_embeddings\": 8192", length);
    check_run(
        &[context("policy/config.json", "\"max_position_embeddings\": 20")],
        3,
        &["leave no room for an answer in the policy's context of 20 tokens", "\"Spell the word cat.\"", "`where`"],
    );
    check_run(
        &[context("reward/config.json", "\"max_position_embeddings\": 20")],
        3,
        &["17 of 17 conversations are longer than the reward model's context of 20 tokens", "lower `max_new_tokens`"],
    );
    let long = format!("{{\"prompt\": \"a\", \"answer\": \"{}\"}}\n", "word ".repeat(9000));
    let rows = "version: 1
models: { policy: policy }
stages:
  rows: { ingest: { from: prompts.jsonl, map: { response: answer }, split: { heldout: 0 } } }
  tuned: { train: { rows: rows, model: policy, objective: { sft: {} }, learning_rate: 1.0e-4, max_length: 100000 } }
";
    check_run(
        &[Write("p.yaml", rows), Text(PROMPTS, long)],
        3,
        &["row 0 of prompts.jsonl has", "more than the 8192 positions of the model"],
    );
    check_run(
        &[
            Edit("p.yaml", "reward: reward", "reward: reward\n  other: other"),
            Copy("policy", "other"),
            Fill("other/model.safetensors", "model.norm.weight", 0.5),
            Edit("p.yaml", "model: policy\n      objective", "model: other\n      objective"),
        ],
        3,
        &["6 of 6 pairs were answered by policy", "or set `off_policy: allow`"],
    );
}

#[test]
fn pipeline_files() {
    const CHECK: &[&str] = &["check", "p.yaml"];
    let check_file = |damage: Damage, excerpts: &[&str]| check(&[damage], CHECK, 2, excerpts);
    let edit = |old: &'static str, new: &'static str| Edit("p.yaml", old, new);
    check_file(edit("  policy: policy", "\tpolicy: policy"), &["tabs disallowed", "p.yaml:3:"]);
    check_file(edit("from: prompts.jsonl", "from: \"prompts.jsonl"), &["unclosed quote", "p.yaml:7:21"]);
    check_file(edit("n: 3,", "n: 3, n: 4,"), &["`n` stands here twice"]);
    check_file(edit("n: 3,", "n: [3],"), &["`sample.n` must be a whole number from 1 to 10000, not a list"]);
    check_file(edit("ties: drop", "ties: frist"), &["must be `drop` or `first`, not `frist`", "did you mean `first`?"]);
    check_file(edit("scores: scores", "scores: tuned"), &["`pair.scores` reads `tuned`, which is a checkpoint"]);
    check_file(edit("candidate: tuned", "candidate: pairs"), &["where a checkpoint is expected"]);
    check_file(edit("from: prompts.jsonl", "form: prompts.jsonl"), &["lacks `from`", "rename `form` to `from`"]);
    check_file(Bytes("p.yaml", b"version: 1\n# caf\xe9\n"), &["p.yaml:2:6: the file is not UTF-8 text from here on"]);
    check_file(Write("p.yaml", ""), &["the file lacks `stages`", "the file lacks `version`", "2 faults"]);
    check_file(Write("p.yaml", "version: 1\nstages: {}\n"), &["`stages` is empty", "p.yaml:2:1"]);
    check_file(
        Text("p.yaml", format!("a: {}", "[".repeat(100_000))),
        &["p.yaml:1:68: this is not YAML: recursion limit"],
    );
    let circle = "version: 1
stages:
  a: { sql: { from: [b], query: 'select 1' } }
  b: { sql: { from: [a], query: 'select 1' } }
";
    check_file(Write("p.yaml", circle), &["stages read each other in a circle: `a` ← `b` ← `a`"]);
    check(&[], &["check", "p.yaml", "--profile", "big"], 2, &["there is no profile `big`", "the file has no profiles"]);
    check_set("stages.pair.pair.ties=first", 2, &["`stages` has no `pair` to set", "did you mean `pairs`?"]);
    check(&[], &["run", "p.yaml", "respones"], 2, &["there is no stage `respones`", "did you mean `responses`?"]);
    check(&[], &["run", "q.yaml"], 2, &["there is no file q.yaml"]);
    let query = |text: &'static str| {
        Text(
            "p.yaml",
            format!(
                "version: 1\nstages:\n  prompts: {{ ingest: {{ from: prompts.jsonl }} }}\n  q: {{ sql: {{ from: [prompts], query: \"{text}\" }} }}\n"
            ),
        )
    };
    check_run(&[query("select * frm prompts")], 2, &["at 1:10: expected: end of statement, found: frm"]);
    check_run(&[query("select * from promts")], 2, &["the query reads `promts`, which is not in `from`"]);
    check_run(&[query("select random() from prompts")], 2, &["`random()` gives another value at each run"]);
    check_run(&[query("drop table prompts")], 2, &["only a query can be answered"]);
}

#[test]
fn stores() {
    let at = |store: &'static str| [RUN, &["--store", store]].concat();
    check(&[Write(".sluice/format", "sluice-store 999\n")], RUN, 2, &["has format 999, this program reads up to 1"]);
    check(&[Write(".sluice/format", "")], RUN, 2, &["`.sluice/format` should say `sluice-store N`"]);
    check(&[], &at("policy"), 2, &["`policy` is a folder with other files in it, not a store"]);
    check(&[], &at("p.yaml"), 2, &["`p.yaml` is a file, not a store"]);
    if cfg!(target_os = "linux") {
        check(
            &[],
            &at("/sys/store"),
            1,
            &["the store is read-only; make the folder writable, or choose another store"],
        );
    }
}

/// A limit on the size of files stands for a full disk: both come when buffers are flushed, not where a row is written.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_grow_is_named() {
    let project = project();
    let limited = |blocks: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", blocks]).arg(binary()).args(RUN);
        let output = shell.current_dir(project.path()).output().expect("a shell");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("output is UTF-8")
    };
    for (blocks, file) in [("0", ".sluice/.gitignore"), ("2", "/prompts.parquet"), ("200", "/checkpoint/")] {
        let said = limited(blocks);
        assert!(said.contains(file) && said.contains("File too large"), "{said}");
        assert_eq!(damage::files(&project, ".sluice/tmp"), Vec::<PathBuf>::new());
    }
    project.sluice(RUN).ended(0);
}

#[test]
fn damage_to_a_finished_store_is_told_or_healed() {
    let project = project();
    project.sluice(RUN).ended(0);
    let n_states = |word: &str| {
        let plan = project.sluice(["plan", "p.yaml"]).ended(0).out;
        plan.lines().filter(|line| line.split_whitespace().nth(2) == Some(word)).count()
    };
    assert_eq!(n_states("hit"), 6);
    // A record that does not read is computed again, and nothing else is: the result is the same.
    let record = damage::files(&project, ".sluice/records").remove(0);
    damage::replace(&record, b"{\"schema_version\": 1");
    project.sluice(RUN).ended(0);
    assert_eq!(n_states("hit"), 6);
    // So are outputs that are gone.
    fs::remove_dir_all(project.path().join(".sluice/objects")).expect("a writable store");
    fs::remove_dir_all(project.path().join(".sluice/checkpoints")).expect("a writable store");
    assert_eq!(n_states("hit"), 0);
    project.sluice(RUN).ended(0);
    assert_eq!(n_states("hit"), 6);
    // Bytes that have changed are no result, wherever they are read.
    for table in damage::files(&project, ".sluice/objects") {
        let mut bytes = fs::read(&table).expect("a stored table");
        bytes[20] ^= 1;
        damage::replace(&table, &bytes);
    }
    let said = project.sluice(["sql", "p.yaml", "select * from pairs"]).ended(4);
    assert!(said.err.contains("is damaged") && said.err.contains("the next run makes it again"), "{}", said.err);
    // A run that reads them makes them again.
    let said = project.sluice(["run", "p.yaml", "--set", "stages.pairs.pair.min_margin=0.01"]).ended(0);
    assert!(said.err.contains("its output `scores` is damaged, and is made again"), "{}", said.err);
}

#[test]
fn one_off_verbs() {
    let generate = ["generate", "--model", "policy", "--greedy", "--max-new-tokens", "2"];
    let rows = |text: &'static str, excerpt: &str| {
        check(&[Write("in.jsonl", text)], &[&generate[..], &["--input", "in.jsonl"]].concat(), 2, &[excerpt]);
    };
    rows("", "in.jsonl has no rows");
    rows("{\"prompt\": \"a\"}\n{\"prompt\":\n", "in.jsonl:2: not a JSON object: EOF while parsing a value");
    rows("{\"promt\": \"a\"}\n", "row 0: has none of `prompt`, `messages`, `text` and `token_ids`");
    rows("{\"prompt\": \"a\", \"text\": \"b\"}\n", "row 0: has `prompt` and `text`; one of them is needed");
    rows("{\"token_ids\": [2, 600]}\n", "row 0: token 600 is none of the model's 512");
    rows("{\"token_ids\": []}\n", "row 0: there is no token to begin with");
    rows(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
        "row 0: `messages` ends with the role `assistant`",
    );
    rows("{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}]}\n", "refuses the conversation (system)");
    check(
        &[Bytes("in.jsonl", b"{\"prompt\": \"a\"}\n{\"prompt\": \"caf\xe9\"}\n")],
        &[&generate[..], &["--input", "in.jsonl"]].concat(),
        2,
        &["in.jsonl:2:16: the file is not UTF-8 text"],
    );
    let long = format!("{{\"prompt\": \"{}\"}}\n", "word ".repeat(9000));
    check(
        &[Text("in.jsonl", long)],
        &[&generate[..], &["--input", "in.jsonl"]].concat(),
        2,
        &["row 0: its", "leave no room for an answer in the model's context of 8192"],
    );
    check(&[], &["generate", "--model", "reward", "--prompt", "a"], 2, &["a causal language model is needed"]);
    check(&[], &["generate", "--model", "policy", "--prompt", "a", "--temperature", "-1"], 2, &["temperature is -1"]);
    check(&[], &["generate", "--model", "policy", "--prompt", "a", "--n", "4000000000"], 2, &["is not in 1..=10000"]);
    check(&[], &["generate", "--model", "nowhere", "--prompt", "a"], 2, &["nowhere: is not a folder"]);

    let score = ["score", "--model", "reward", "--input", "in.jsonl"];
    let judged = |text: &'static str, excerpt: &str| check(&[Write("in.jsonl", text)], &score, 2, &[excerpt]);
    judged("{\"prompt\": \"a\"}\n", "row 0: has no `messages`");
    judged(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
        "row 0: `messages` ends with the role `user`",
    );
    judged("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n", "never opens an assistant turn");

    let logprobs = ["logprobs", "--model", "policy", "--input", "in.jsonl"];
    let pair = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
    check(
        &[Write("in.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\"}\n")],
        &logprobs,
        2,
        &["row 0: has no `rejected`"],
    );
    check(
        &[Write("in.jsonl", pair)],
        &[&logprobs[..], &["--beta", "nan"]].concat(),
        2,
        &["a number above 0 is needed"],
    );
    let long = format!("{{\"prompt\": \"{}\", \"chosen\": \"b\", \"rejected\": \"c\"}}\n", "word ".repeat(9000));
    check(
        &[Text("in.jsonl", long)],
        &[&logprobs[..], &["--max-length", "100000"]].concat(),
        2,
        &["row 0: its", "more than the model's context of 8192; lower --max-length"],
    );
}
