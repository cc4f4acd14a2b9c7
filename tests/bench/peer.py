"""The other side of `just bench-tiny`: Hugging Face `generate` and a SimPO step in PyTorch.

Owns nothing but the Python side of a measurement. Sizes, settings and the order of measurements come from
tests/examples/bench_tiny.rs: one JSON object a line on standard input, one answer a line on standard output.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig


class Peer:
    """A model for sampling and the same model in training."""

    def hello(self, threads):
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        return {"name": f"transformers {transformers.__version__} on torch {torch.__version__}"}

    def load(self, folder, learning_rate):
        def model():
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")

        self.policy = model().eval()
        self.trained = model().train()
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
        )
        torch.manual_seed(1)
        return {"parameters": sum(parameter.numel() for parameter in self.policy.parameters())}

    def sample(self, prompts, new_tokens, temperature, top_p):
        """Every row to its last token: there is no token to stop at. A temperature of null is greedy decoding."""
        sampled = temperature is not None
        how = {"temperature": temperature, "top_p": top_p, "top_k": 0} if sampled else {}
        self.policy.generation_config = GenerationConfig(
            max_new_tokens=new_tokens, eos_token_id=None, pad_token_id=0, use_cache=True, do_sample=sampled, **how
        )
        start = time.perf_counter()
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            answers = self.policy.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
        seconds = time.perf_counter() - start
        new = answers[:, ids.shape[1] :]
        assert new.shape == (len(prompts), new_tokens), new.shape
        return {"seconds": seconds, "token_ids": new.tolist()}

    def step(self, chosen, rejected, prompt_tokens, beta, gamma_beta_ratio, max_grad_norm):
        """One optimiser step on rows of one length: forward over chosen and rejected together, as the reference has it."""
        start = time.perf_counter()
        ids = torch.tensor(chosen + rejected)
        logits = self.trained(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :-1]
        token_logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        means = token_logps[:, prompt_tokens - 1 :].mean(-1)
        chosen_means, rejected_means = means.split(len(chosen))
        loss = -F.logsigmoid(beta * (chosen_means - rejected_means - gamma_beta_ratio)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def memory(self):
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main():
    peer = Peer()
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("do")
        print(json.dumps(getattr(peer, verb)(**request)), flush=True)


main()
