"""The other side of `just bench-gpu`: transformers and PyTorch on the same device and the same files.

Owns nothing but the Python side of a measurement. It reads one request, a line of JSON, and writes one answer; sizes,
settings and tokens come from tests/gpu/src/bench.rs. The work is done as the library's users do it: eager attention for
Gemma 2, since the soft cap needs it, gradient checkpointing, weights and moments in the precision of the request.
"""

import json
import pathlib
import resource
import sys
import time

import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaModel

PRODUCTS = 10  # of one timed run, as on the other side


class Bench:
    def __init__(self, device, precision, n_threads, n_runs, folder):
        self.device = torch.device(device)
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.n_runs = n_runs
        self.folder = folder
        self.load_seconds = 0.0
        torch.set_num_threads(n_threads)
        torch.manual_seed(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def sync(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_bytes(self):
        """What the allocator has taken, as on the other side; on the CPU the peak of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def timed(self, what, how, run):
        check = run()
        self.sync()
        seconds = []
        for _ in range(self.n_runs):
            start = time.perf_counter()
            run()
            self.sync()
            seconds.append(time.perf_counter() - start)
        return {"what": what, "seconds": seconds, "peak_bytes": self.peak_bytes(), "check": check, "how": how}

    def loaded(self, kind, **how):
        start = time.perf_counter()
        model = kind.from_pretrained(self.folder, dtype=self.dtype, **how).to(self.device)
        self.sync()
        self.load_seconds = time.perf_counter() - start
        return model

    def ceilings(self, matmul_size, copy_bytes):
        n = matmul_size
        matrix = torch.randn(n, n, device=self.device, dtype=self.dtype) / n**0.5
        chain = matrix.clone()

        def product():
            nonlocal chain
            for _ in range(PRODUCTS):
                chain = chain @ matrix
            chain[0].float().cpu()

        measured = [self.timed("product", "", product)]
        every = torch.zeros(copy_bytes // self.dtype.itemsize, device=self.device, dtype=self.dtype)

        def copy():
            nonlocal every
            every = every + 1.0

        return measured + [self.timed("copy", "", copy)]

    def train(
        self,
        chosen,
        rejected,
        n_prompt,
        micro_batch_pairs,
        form,
        beta,
        gamma_beta_ratio,
        learning_rate,
        max_grad_norm,
    ):
        """Steps of SimPO; `form` is a choice that PyTorch's optimiser does not have."""
        model = self.loaded(AutoModelForCausalLM, attn_implementation="eager").train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.config.use_cache = False
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
        )

        def step():
            total = 0.0
            for first in range(0, len(chosen), micro_batch_pairs):
                part = slice(first, first + micro_batch_pairs)
                ids = torch.tensor(chosen[part] + rejected[part], device=self.device)
                n_predicted = ids.shape[1] - n_prompt
                # One row more than is predicted: the last one has nothing to predict.
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=n_predicted + 1).logits[:, :-1]
                logps = logits.float().log_softmax(-1).gather(-1, ids[:, n_prompt:, None]).squeeze(-1)
                of_chosen, of_rejected = logps.mean(-1).split(len(chosen[part]))
                losses = -F.logsigmoid(beta * (of_chosen - of_rejected - gamma_beta_ratio))
                loss = losses.sum() / len(chosen)
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return total

        name = str(self.dtype).removeprefix("torch.")
        return [self.timed("step", f"gradient checkpointing, weights and moments in {name}", step)]

    def sample(self, batches, n_new, temperature, top_p):
        model = self.loaded(AutoModelForCausalLM, attn_implementation="eager").eval()
        # There is no token to stop at.
        model.generation_config = GenerationConfig(
            max_new_tokens=n_new,
            eos_token_id=None,
            pad_token_id=0,
            use_cache=True,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
        )

        def answer(prompts):
            ids = torch.tensor(prompts, device=self.device)
            with torch.inference_mode():
                answers = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
            assert answers.shape == (len(prompts), ids.shape[1] + n_new), answers.shape

        return [self.timed(f"sample {len(prompts)}", "", lambda: answer(prompts)) for prompts in batches]

    def score(self, conversations, gate_pattern):
        """ArmoRM's head as published, on the body that the library has."""
        model = self.loaded(LlamaModel, attn_implementation="sdpa").eval()
        config = json.loads((pathlib.Path(self.folder) / "config.json").read_text())
        head = self.head(("regression_layer", "gating", "reward_transform_matrix"))
        ids = torch.tensor(conversations, device=self.device)
        n = len(gate_pattern)
        windows = ids.unfold(1, n, 1) == torch.tensor(gate_pattern, device=self.device)
        gate_at = [int(row.all(-1).nonzero()[-1]) for row in windows]
        rows = torch.arange(len(conversations))

        def score():
            with torch.inference_mode():
                hidden = model(input_ids=ids, use_cache=False).last_hidden_state
                x = hidden[rows, gate_at].float()
                for layer in range(config["gating_n_hidden"] + 1):
                    x = F.linear(x, head[f"gating.layers.{layer}.weight"], head[f"gating.layers.{layer}.bias"])
                    x = F.relu(x) if layer < config["gating_n_hidden"] else x
                gate = (x / config["gating_temperature"]).softmax(-1) * head["gating.logit_scale"]
                rewards = hidden[:, -1].float() @ head["regression_layer.weight"].T @ head["reward_transform_matrix"]
                return (gate * rewards).sum(-1).mean().item()

        return [self.timed("score", "", score)]

    def head(self, prefixes):
        found = {}
        for file in sorted(pathlib.Path(self.folder).glob("*.safetensors")):
            with safe_open(file, framework="pt", device=str(self.device)) as tensors:
                names = [name for name in tensors.keys() if name.startswith(prefixes)]
                found |= {name: tensors.get_tensor(name).float() for name in names}
        return found


def main():
    request = json.loads(sys.stdin.readline())
    ((verb, work),) = request.pop("work").items()
    request.pop("kernels")
    bench = Bench(**request)
    measured = getattr(bench, verb)(**work)
    name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "the CPU"
    answer = {
        "library": f"transformers {transformers.__version__} on torch {torch.__version__}",
        "device": name,
        "load_seconds": bench.load_seconds,
        "measured": measured,
    }
    print(json.dumps(answer), flush=True)


main()
