"""`just check-transformers`, second half: loads exported checkpoints with transformers and compares.

Takes the folder that tests/examples/export.rs wrote: a checkpoint folder and a file of expectations for each case.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 9e-4  # ten times the difference between the library's own f32 and f64 on these models


def compare(folder, expected):
    """The largest difference, and the faults beside it."""
    faults = []
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(expected["messages"], tokenize=False)
    if text != expected["text"]:
        faults.append(f"the template writes {text!r}, and not {expected['text']!r}")
    ids = tokenizer(expected["text"], add_special_tokens=False)["input_ids"]
    if ids != expected["token_ids"]:
        faults.append("the tokenizer gives other ids")
    kind = AutoModelForCausalLM if "logits" in expected else AutoModelForSequenceClassification
    model, loading = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    faults += [f"{what}: {sorted(names)}" for what, names in loading.items() if names]
    with torch.inference_mode():
        output = model.eval()(torch.tensor([expected["token_ids"]])).logits[0]
    ours = torch.tensor(expected["logits"] if "logits" in expected else [expected["score"]])
    if output.shape != ours.shape:
        return float("nan"), faults + [f"the shapes are {list(output.shape)} and {list(ours.shape)}"]
    return (output - ours).abs().max().item(), faults


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = pathlib.Path(sys.argv[1])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, tolerance {TOLERANCE}")
    n_faults = n_cases = 0
    for file in sorted(folder.glob("*.json")):
        difference, faults = compare(file.with_suffix(""), json.loads(file.read_text()))
        if not difference <= TOLERANCE:
            faults.append("the outputs differ")
        print(f"{file.stem:14} largest difference {difference:.2e}  {'; '.join(faults) or 'the same'}")
        n_cases, n_faults = n_cases + 1, n_faults + bool(faults)
    print(f"{n_cases - n_faults} passed, {n_faults} failed")
    sys.exit(1 if n_faults or not n_cases else 0)


main()
