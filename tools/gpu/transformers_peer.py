#!/usr/bin/env python3
"""transformers on the same device: a llama of random bf16 weights, torch's SDPA, a static cache.

Answers each line of JSON on stdin, {"do": "load" | "prefill" | "decode", ...}, with one on stdout;
what it cannot do it answers with {"error"}. TORCHDYNAMO_DISABLE=1 in its environment keeps generate()
from compiling the model.
"""

import json
import os
import sys
import time

SEED = 1


class Peer:
    def load(self, shape, context, device="cuda"):
        import torch
        import transformers
        self.torch, self.device = torch, device
        config = transformers.LlamaConfig(
            hidden_size=shape["hidden"], intermediate_size=shape["ffn"],
            num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"], vocab_size=shape["vocab"],
            max_position_embeddings=context, tie_word_embeddings=shape["tied"],
            bos_token_id=None, eos_token_id=None, pad_token_id=None)
        config._attn_implementation = "sdpa"
        torch.manual_seed(SEED)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self.model = transformers.LlamaForCausalLM(config)
        self.model.eval()
        self.vocab = shape["vocab"]
        return {"torch": torch.__version__, "transformers": transformers.__version__,
                "attention": self.model.config._attn_implementation,
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "dtype": str(next(self.model.parameters()).dtype)}

    def prefill(self, tokens):
        """Seconds until the first token of a prompt."""
        return {"seconds": self.generate(tokens, 1)}

    def decode(self, depth, tokens):
        """Seconds of one token after the first, behind a prompt of `depth`."""
        first = self.generate(depth, 1)
        return {"seconds": (self.generate(depth, tokens + 1) - first) / tokens}

    def wait(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def generate(self, prompt_tokens, new_tokens):
        torch = self.torch
        ids = torch.randint(0, self.vocab, (1, prompt_tokens), device=self.device)
        self.wait()
        begin = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                min_new_tokens=new_tokens, do_sample=False, cache_implementation="static")
        self.wait()
        seconds = time.perf_counter() - begin
        if out.shape[1] != prompt_tokens + new_tokens:
            raise RuntimeError("%d tokens were made, not %d" % (out.shape[1] - prompt_tokens,
                                                               new_tokens))
        return seconds


def main():
    # Libraries may print; what is asked for has a channel of its own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = Peer()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(peer, asked.pop("do"))(**asked)
        except Exception as error:  # the caller says in its report what this was
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
