//! Models of a hub as a user meets them: fetched into the cache that the hub's own tools share, told about, gone on with
//! after a kill, refused with what would help. And the token that is needed for that, which nobody ever sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::{Expect, expect};
use serde_json::Value;
use sluice_tests::hub::{COMMIT, Hub, Trouble, git_sha1, sha256};
use sluice_tests::{Project, Said, binary, fixture};

const TOKEN: &str = "hf_ThisIsTheSecretOfTheTest";
const MODEL: &str = "hf://someone/model";

/// The files of a fixture that its README does not explain away, and some that are for other uses of a model.
fn model(name: &str) -> Vec<(String, Vec<u8>)> {
    let names = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let files = names.into_iter().filter_map(|file| Some((file.to_owned(), fs::read(fixture(name).join(file)).ok()?)));
    let others =
        ["README.md", "pytorch_model.bin", "onnx/config.json"].map(|other| (other.to_owned(), b"other".to_vec()));
    files.chain(others).collect()
}

/// Two shards of bytes that mean nothing, with the index that names them.
fn shards() -> Vec<(String, Vec<u8>)> {
    let bytes = |factor: usize, n: usize| (0..n).map(|i| (i * factor % 251) as u8).collect::<Vec<u8>>();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    [
        ("config.json", b"{}".to_vec()),
        ("consolidated.safetensors", bytes(3, 70_000)),
        ("model-00001-of-00002.safetensors", bytes(7, 300_000)),
        ("model-00002-of-00002.safetensors", bytes(11, 100_000)),
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("tokenizer.json", b"{\"model\": 1}".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// The binary in a project, with the hub where it is and the cache in `hub`.
fn command(project: &Project, hub: &Hub, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(project.path()).env("SLUICE_COMMAND", "sluice");
    for name in
        ["SLUICE_LOG", "NO_COLOR", "COLUMNS", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"]
    {
        command.env_remove(name);
    }
    command.env("HF_HUB_CACHE", "hub").env("HF_TOKEN_PATH", "no-token").env("HF_ENDPOINT", hub.endpoint());
    command
}

fn said(mut command: Command) -> Said {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Said { out: text(stdout), err: text(stderr), code: status.code().unwrap_or(-1) }
}

fn call(project: &Project, hub: &Hub, arguments: &[&str]) -> Said {
    said(command(project, hub, arguments))
}

/// A text with what differs from call to call replaced.
fn steady(text: &str, hub: &Hub) -> String {
    let text = text.replace(&hub.endpoint(), "HUB");
    let lines = text.lines().map(|line| match line.split_once("fetched in ") {
        Some((before, _)) => format!("{before}fetched in TIME\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[track_caller]
fn check(project: &Project, hub: &Hub, arguments: &[&str], code: i32, expected: Expect) {
    expected.assert_eq(&steady(&call(project, hub, arguments).ended(code).err, hub));
}

/// All files below a folder, with `/` between the parts, sorted; a link with what it points to.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(here) = waiting.pop() {
        for entry in fs::read_dir(here).expect("a folder").flatten() {
            let (path, name) =
                (entry.path(), entry.path().strip_prefix(folder).expect("below it").display().to_string());
            match fs::read_link(&path) {
                Ok(target) => found.push(format!("{name} -> {}", target.display())),
                Err(_) if path.is_dir() => waiting.push(path),
                Err(_) => found.push(name),
            }
        }
    }
    found.sort();
    found
}

/// Whether a text stands in any file below a folder.
fn holds(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut waiting = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(here) = waiting.pop() {
        for path in fs::read_dir(here).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                waiting.push(path);
            } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())) {
                found.push(path);
            }
        }
    }
    found
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

#[test]
fn a_model_is_fetched_into_the_layout_of_the_hubs_own_tools() {
    let files = shards();
    let (hub, project) = (Hub::new(files.clone(), None), Project::new());
    let fetched = call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
    expect![[r#"
        fetching hf://someone/model (commit 11c9b309abf7): 5 files, 400.1 kB, 98 B of it there already, to hub/models--someone--model
        fetched in TIME
    "#]]
    .assert_eq(&steady(&fetched.err, &hub));
    assert_eq!(fetched.out, format!("hub/models--someone--model/snapshots/{COMMIT}\n"));

    let digest = |name: &str| {
        let bytes = &files.iter().find(|(known, _)| known == name).expect("a file of the hub").1;
        if name.ends_with(".safetensors") { sha256(bytes) } else { git_sha1(bytes) }
    };
    let names = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    let mut expected: Vec<String> = names.iter().map(|name| format!("blobs/{}", digest(name))).collect();
    expected.push("refs/main".to_owned());
    expected.extend(names.iter().map(|name| format!("snapshots/{COMMIT}/{name} -> ../../blobs/{}", digest(name))));
    expected.sort();
    let repository = project.path().join("hub/models--someone--model");
    assert_eq!(tree(&repository), expected);
    assert_eq!(fs::read_to_string(repository.join("refs/main")).ok().as_deref(), Some(COMMIT));
    for name in names {
        let bytes =
            fs::read(repository.join("snapshots").join(COMMIT).join(name)).expect("a link that leads somewhere");
        assert!(files.contains(&(name.to_owned(), bytes)), "{name}");
    }

    // What is there is not fetched again: only the list is asked for.
    hub.asked();
    call(&project, &hub, &["model", "fetch", &format!("{MODEL}@{COMMIT}"), "--json"]).ended(0);
    assert_eq!(hub.asked().len(), 1);
    assert_eq!(tree(&repository), expected);
}

#[test]
fn every_verb_over_a_model_takes_one_of_the_hub() {
    let (hub, project) = (Hub::new(model("gemma2-tiny"), None), Project::new());
    let generate =
        ["generate", "--model", MODEL, "--prompt", "Name a colour.", "--greedy", "--max-new-tokens", "3", "--json"];
    let first = call(&project, &hub, &generate).ended(0);
    assert_eq!(lines(&first.out).len(), 1);
    expect![[r#"
        fetching hf://someone/model (commit 11c9b309abf7): 6 files, 947.6 kB, to hub/models--someone--model
        fetched in TIME
    "#]]
    .assert_eq(&steady(&first.err, &hub));
    hub.asked();
    let second = call(&project, &hub, &generate).ended(0);
    assert_eq!((second.out, second.err.as_str()), (first.out, ""));
    let inspected = call(&project, &hub, &["model", "inspect", MODEL, "--json", "--offline"]).ended(0);
    assert_eq!(lines(&inspected.out)[0]["architecture"], "Gemma2ForCausalLM");
    project.write("pairs.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n");
    call(&project, &hub, &["logprobs", "--model", MODEL, "--input", "pairs.jsonl"]).ended(0);
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn without_the_network_the_folder_and_a_command_are_named() {
    let (hub, project) = (Hub::new(shards(), None), Project::new());
    let inspect = ["model", "inspect", MODEL, "--offline"];
    check(
        &project,
        &hub,
        &inspect,
        6,
        expect![[r#"
            error: `hf://someone/model`: looked in hub/models--someone--model/snapshots/main; fetch it with `hf download someone/model --revision main`
        "#]],
    );
    check(
        &project,
        &hub,
        &["model", "fetch", MODEL, "--offline"],
        6,
        expect![[r#"
            error: `hf://someone/model` is not fetched: --offline or HF_HUB_OFFLINE says to use the local cache alone
        "#]],
    );
    let mut by_variable = command(&project, &hub, &inspect[..3]);
    by_variable.env("HF_HUB_OFFLINE", "1");
    said(by_variable).ended(6);
    assert_eq!(hub.asked().len(), 0);
    // A library has fetched the tokenizer alone.
    project.write(&format!("hub/models--someone--model/snapshots/{COMMIT}/tokenizer.json"), "{}");
    project.write("hub/models--someone--model/refs/main", COMMIT);
    check(
        &project,
        &hub,
        &inspect,
        6,
        expect![[r#"
            error: `hf://someone/model`: hub/models--someone--model/snapshots/11c9b309abf73637e4b6f9a3fa1e92e615547819 lacks config.json, model.safetensors; fetch the rest with `hf download someone/model --revision main`
        "#]],
    );
    // A hub that is not there.
    let mut unreachable = command(&project, &hub, &["model", "fetch", MODEL]);
    unreachable.env("HF_ENDPOINT", "http://127.0.0.1:9/");
    let err = said(unreachable).ended(6).err;
    let first = err.lines().next().unwrap_or_default();
    expect![
        "error: `hf://someone/model`: http://127.0.0.1:9 cannot be reached; what is in the local cache works without it"
    ]
    .assert_eq(first);
}

#[test]
fn what_the_hub_refuses_is_told_with_what_would_help() {
    let project = Project::new();
    let hub = Hub::new(shards(), Some(TOKEN));
    let fetch = ["model", "fetch", MODEL];
    check(
        &project,
        &hub,
        &fetch,
        6,
        expect![[r#"
            error: `hf://someone/model`: the hub refuses access to it (401): it is gated; accept the licence on HUB/someone/model, and give a token: `token: ${env:HF_TOKEN}` beside the model's `from`, or HF_TOKEN in the environment
        "#]],
    );
    let mut wrong = command(&project, &hub, &fetch);
    wrong.env("HF_TOKEN", "hf_AnotherOne");
    expect![[r#"
        error: `hf://someone/model`: the hub refuses access to it with the token of HF_TOKEN (401); accept the licence on HUB/someone/model with the account that the token is of, and see that the token may read gated models
    "#]]
    .assert_eq(&steady(&said(wrong).ended(6).err, &hub));
    let mut malformed = command(&project, &hub, &fetch);
    malformed.env("HF_TOKEN", "two words");
    let err = said(malformed).ended(2).err;
    expect![[r#"
        error: HF_TOKEN has a blank or a character that no token has
    "#]]
    .assert_eq(&err);
    project.write("no-token", &format!("{TOKEN}\n"));
    call(&project, &hub, &fetch).ended(0);

    let (hub, project) = (Hub::new(shards(), None), Project::new());
    check(
        &project,
        &hub,
        &["model", "fetch", "hf://someone/modle"],
        6,
        expect![[r#"
            error: `hf://someone/modle`: the hub has no such model or revision (404); look on HUB/someone/modle whether owner, name and revision are right
        "#]],
    );
    check(
        &project,
        &hub,
        &["model", "fetch", "hf://someone/model@v2"],
        6,
        expect![[r#"
            error: `hf://someone/model@v2`: the hub has no revision `v2` of it (404); HUB/someone/model/tree/main lists its branches
        "#]],
    );
    hub.trouble([Trouble::Answers { what: "tokenizer.json", status: "403 Forbidden", code: "GatedRepo" }]);
    let err = call(&project, &hub, &fetch).ended(6).err;
    assert!(err.contains("(403): it is gated"), "{err}");
    hub.trouble([Trouble::Answers { what: "", status: "503 Service Unavailable", code: "" }]);
    let err = call(&project, &hub, &fetch).ended(6).err;
    assert!(
        err.contains("the hub answers 503 Service Unavailable for the list of its files; try again later"),
        "{err}"
    );
    let no_weights = Hub::new([("config.json".to_owned(), b"{}".to_vec()), ("a.bin".to_owned(), Vec::new())], None);
    check(
        &project,
        &no_weights,
        &fetch,
        6,
        expect![[r#"
            error: `hf://someone/model`: it has no weights in safetensors (model.safetensors, or shards with model.safetensors.index.json); it has a.bin, config.json
        "#]],
    );
}

const FIRST: &str = "model-00001-of-00002.safetensors";

#[test]
fn a_body_that_ends_early_is_gone_on_with() {
    let (hub, project) = (Hub::new(shards(), None), Project::new());
    // Each connection brings a part.
    hub.trouble([Trouble::Cut { file: FIRST, after: 120_000 }]);
    call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
    let asked = hub.asked();
    let ranges: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.path.contains("/elsewhere/model-00001"))
        .filter_map(|asked| asked.range.as_deref())
        .collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=120000-", "bytes=240000-"]);

    // One that brings no more is given up, and the next call goes on.
    let project = Project::new();
    hub.trouble([Trouble::Cut { file: FIRST, after: 0 }]);
    let err = call(&project, &hub, &["model", "fetch", MODEL]).ended(6).err;
    assert!(
        err.contains(&format!("{FIRST} ended after 0 of 300000 bytes; run again, and it goes on from there")),
        "{err}"
    );
    // A hub, or something before it, that knows no ranges.
    hub.trouble([Trouble::Stalls { file: FIRST, after: 100_000 }]);
    killed_at(&project, &hub, 100_000);
    hub.trouble([Trouble::IgnoresRanges]);
    call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
}

#[test]
fn a_killed_fetch_goes_on_where_it_stopped() {
    let (hub, project) = (Hub::new(shards(), None), Project::new());
    hub.trouble([Trouble::Stalls { file: FIRST, after: 200_000 }]);
    killed_at(&project, &hub, 200_000);
    let repository = project.path().join("hub/models--someone--model");
    assert!(!repository.join("refs/main").exists(), "no snapshot has a name before it is whole");
    hub.trouble([]);
    hub.asked();
    let said = call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
    expect![[r#"
        fetching hf://someone/model (commit 11c9b309abf7): 5 files, 400.1 kB, 200.1 kB of it there already, to hub/models--someone--model
        fetched in TIME
    "#]]
    .assert_eq(&steady(&said.err, &hub));
    let range = hub
        .asked()
        .into_iter()
        .find(|asked| asked.path.contains("/elsewhere/model-00001"))
        .and_then(|asked| asked.range);
    assert_eq!(range.as_deref(), Some("bytes=200000-"));

    // Killed between the last byte and the rename: nothing is asked for, it is only named.
    let blob = repository.join("blobs").join(sha256(&shards()[2].1));
    fs::rename(&blob, blob.with_extension("incomplete")).expect("a blob");
    call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
    assert!(blob.is_file());
    assert!(hub.asked().iter().all(|asked| !asked.path.contains("model-00001")));
}

/// Fetches, and kills the process when so many bytes of the first shard are on disk and no more come.
fn killed_at(project: &Project, hub: &Hub, n_bytes: u64) {
    let mut child = command(project, hub, &["model", "fetch", MODEL, "--quiet"]).spawn().expect("the binary starts");
    hub.wait_for_stall();
    let partial = project.path().join("hub/models--someone--model/blobs").join(sha256(&shards()[2].1));
    let partial = partial.with_extension("incomplete");
    while fs::metadata(&partial).map_or(0, |file| file.len()) < n_bytes {
        assert!(child.try_wait().expect("a child").is_none(), "the fetch ended by itself");
        std::thread::yield_now();
    }
    child.kill().expect("the fetch is alive");
    child.wait().expect("the fetch is over");
}

#[test]
fn a_file_that_is_not_the_one_of_the_list_is_no_file_of_the_cache() {
    let (hub, project) = (Hub::new(shards(), None), Project::new());
    hub.trouble([Trouble::Longer { file: FIRST }]);
    let err = call(&project, &hub, &["model", "fetch", MODEL]).ended(6).err;
    assert!(
        err.contains(&format!("{FIRST} should have 300000 bytes by the hub's list, and is sent with 300001")),
        "{err}"
    );
    hub.trouble([Trouble::Differs { file: FIRST }]);
    let err = call(&project, &hub, &["model", "fetch", MODEL]).ended(6).err;
    assert!(err.contains("it is thrown away: run again"), "{err}");
    let repository = project.path().join("hub/models--someone--model");
    let left: Vec<String> =
        tree(&repository).into_iter().filter(|name| name.contains(&sha256(&shards()[2].1))).collect();
    assert_eq!(left, Vec::<String>::new());
    // A small file is digested as Git does. It came before the weights, so that only another cache asks for it.
    let other = Project::new();
    hub.trouble([Trouble::Differs { file: "tokenizer.json" }]);
    let err = call(&other, &hub, &["model", "fetch", MODEL]).ended(6).err;
    assert!(err.contains("tokenizer.json came with the digest"), "{err}");
    hub.trouble([]);
    call(&project, &hub, &["model", "fetch", MODEL]).ended(0);
}

/// A pipeline whose policy is gated.
const PIPELINE: &str = "\
version: 1
models:
  policy: { from: hf://someone/model, token: ${env:MY_TOKEN} }
stages:
  prompts: { ingest: { from: prompts.jsonl } }
  responses: { sample: { prompts: prompts, model: policy, split: all, n: 2, max_new_tokens: 3 } }
";

fn gated(policy: &str) -> (Hub, Project) {
    let project = Project::new();
    project.write("prompts.jsonl", "{\"prompt\": \"Name a colour.\"}\n{\"prompt\": \"Name a day.\"}\n");
    project.write("p.yaml", &PIPELINE.replace("{ from: hf://someone/model, token: ${env:MY_TOKEN} }", policy));
    (Hub::new(model("gemma2-tiny"), Some(TOKEN)), project)
}

#[test]
fn a_run_fetches_what_a_plan_says_it_will() {
    let (hub, project) = gated("{ from: hf://someone/model, token: ${file:secrets/token} }");
    project.write("secrets/token", &format!("{TOKEN}\n"));
    let plan = call(&project, &hub, &["plan", "p.yaml"]).ended(0);
    expect![[r#"
        stage      kind    state  rows  why
        prompts    ingest  run       -  never ran
        responses  sample  run       -  never ran
        2 stages: 2 to run
          no estimate: nothing like this has run here yet
    "#]]
    .assert_eq(&plan.out);
    call(&project, &hub, &["run", "p.yaml", "prompts", "--quiet"]).ended(0);
    let plan = call(&project, &hub, &["plan", "p.yaml"]).ended(0);
    expect![[r#"
        stage      kind    state  rows  why
        prompts    ingest  hit       2  -
        responses  sample  run      ~4  hf://someone/model is not in the local cache; a run fetches it
        2 stages: 1 hit, 1 to run
          no estimate: nothing like this has run here yet
    "#]]
    .assert_eq(&plan.out);
    call(&project, &hub, &["check", "p.yaml"]).ended(0);
    call(&project, &hub, &["check", "p.yaml", "--offline"]).ended(6);
    call(&project, &hub, &["status", "p.yaml"]).ended(0);
    assert_eq!(hub.asked().len(), 0, "only a run uses the network");

    let events = lines(&call(&project, &hub, &["run", "p.yaml", "--json"]).ended(0).out);
    let names: Vec<&str> = events.iter().take(3).filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["fetch_started", "fetch_finished", "run_started"]);
    assert_eq!((&events[0]["commit"], &events[0]["files"]), (&COMMIT.into(), &6.into()));
    // Which commit it was is told with the result.
    let shown = lines(&call(&project, &hub, &["show", "responses", "--rows", "0", "--json"]).ended(0).out).remove(0);
    assert_eq!(shown["facts"]["model_commit"], format!("{COMMIT} of hf://someone/model"));
    let again = call(&project, &hub, &["run", "--offline"]).ended(0);
    assert!(again.out.starts_with("nothing to do"), "{}", again.out);
    // The model's content is in the key, and neither the place it came from nor the token.
    project.write(
        "p.yaml",
        &PIPELINE.replace(
            "{ from: hf://someone/model, token: ${env:MY_TOKEN} }",
            &fixture("gemma2-tiny").display().to_string(),
        ),
    );
    let plan = call(&project, &hub, &["plan", "--exit-code", "--offline"]).ended(0);
    assert!(plan.out.ends_with("2 stages: all up to date, nothing to do\n"), "{}", plan.out);
}

#[test]
fn a_token_is_sent_to_the_hub_and_seen_nowhere() {
    let (hub, project) = gated("{ from: hf://someone/model, token: ${env:MY_TOKEN} }");
    let mut run = command(&project, &hub, &["run", "p.yaml", "-vv"]);
    run.env("MY_TOKEN", TOKEN).env("SLUICE_LOG", "trace");
    let first = said(run).ended(0);
    let asked = hub.asked();
    let bearer = format!("Bearer {TOKEN}");
    for asked in &asked {
        // Weights lie on another host, with an address that is proof enough.
        let expected = (asked.host != "localhost").then_some(&bearer);
        assert_eq!(asked.authorization.as_ref(), expected, "{asked:?}");
    }
    assert!(asked.iter().any(|asked| asked.host == "localhost"), "{asked:?}");
    assert!(first.err.contains("ureq"), "the log is at its most talkative");
    assert!(!first.out.contains(TOKEN) && !first.err.contains(TOKEN));

    // Another token, and a reference to another place: no key sees it.
    let mut other = command(&project, &hub, &["run", "p.yaml", "--json"]);
    other.env("MY_TOKEN", "hf_Another");
    let other = said(other).ended(0).out;
    project.edit("p.yaml", "${env:MY_TOKEN}", "${file:no/such/file}");
    let third = call(&project, &hub, &["run", "p.yaml", "--json"]).ended(0).out;
    for report in [other, third] {
        let report = lines(&report).pop().expect("a report");
        let states: Vec<&str> =
            report["stages"].as_array().into_iter().flatten().filter_map(|s| s["state"].as_str()).collect();
        assert_eq!(states, ["hit", "hit"]);
    }
    for folder in ["hub", ".sluice"] {
        assert_eq!(holds(&project.path().join(folder), TOKEN), Vec::<PathBuf>::new());
    }
    // Only for a fetch is it looked up, and then a missing one is told with its place.
    fs::remove_dir_all(project.path().join("hub")).expect("the cache");
    expect![[r#"
          error: `models.policy.token` is needed to fetch hf://someone/model, and there is no file ./no/such/file
           ╭─[p.yaml:3:46]
         2 │ models:
         3 │   policy: { from: hf://someone/model, token: ${file:no/such/file} }
           ·                                              ────────────────────
         4 │ stages:
           ╰────

        error: 1 fault in p.yaml
    "#]]
    .assert_eq(&call(&project, &hub, &["run", "p.yaml"]).ended(2).err);
    project.edit("p.yaml", "${file:no/such/file}", "${env:SLUICE_NO_SUCH_VARIABLE}");
    let err = call(&project, &hub, &["run", "p.yaml"]).ended(2).err;
    assert!(err.contains("and the environment variable `SLUICE_NO_SUCH_VARIABLE` is not set"), "{err}");
}

#[test]
fn a_secret_written_out_is_refused_and_not_repeated() {
    let (hub, project) = gated(&format!("{{ from: hf://someone/model, token: {TOKEN} }}"));
    let err = call(&project, &hub, &["check", "p.yaml"]).ended(2).err;
    expect![[r#"
          error: model `policy`: `token` must be `${env:NAME}` or `${file:PATH}`, never the secret itself
           ╭─[p.yaml:3:46]
         2 │ models:
         3 │   policy: { from: hf://someone/model, token: *************************** }
           ·                                              ───────────────────────────
         4 │ stages:
           ╰────
          help: put it into an environment variable or a file, and name that here

        error: 1 fault in p.yaml
    "#]]
    .assert_eq(&err);
    let set = format!("models.policy.token={TOKEN}");
    let arguments = ["check", "p.yaml", "--json", "--set", &set];
    let said = call(&project, &hub, &arguments).ended(2);
    assert!(!said.out.contains(TOKEN) && !said.err.contains(TOKEN), "{}", said.out);
}
