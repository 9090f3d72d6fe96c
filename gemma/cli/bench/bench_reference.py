"""Times gemma_pytorch for `gemma bench --compare-python`, which holds this script as text.

The first argument is JSON: the checkout, the config's fields, the checkpoint, the device. Then a
line of JSON on standard input is a test, and a line on standard output its seconds, or an error.
"""

import contextlib
import json
import os
import sys
import time


def make_config(gemma, fields, dtype):
    config = gemma.config
    fields = dict(fields)
    fields["architecture"] = config.Architecture[fields["architecture"]]
    kinds, bases = fields["attn_types"], fields["rope_wave_length"]
    fields["attn_types"] = kinds and [config.AttentionType[kind] for kind in kinds]
    fields["rope_wave_length"] = bases and {
        config.AttentionType[kind]: base for kind, base in bases.items()
    }
    return config.GemmaConfig(**fields, dtype=dtype, tokenizer=None)


def fill(model):
    """Any numbers: speed does not depend on what they are. A block of them is repeated."""
    block = torch.randn(1 << 20) * 0.02
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        numbers = block if flat.is_floating_point() else block * 1000
        for part in flat.split(len(block)):
            part.copy_(numbers[: len(part)])


class Reference:
    def __init__(self, checkout, fields, ckpt, device):
        sys.path.insert(0, checkout)
        import gemma
        import gemma.config
        import gemma.model

        # Tokens are given as ids.
        gemma.model.tokenizer.Tokenizer = lambda path: None
        self.gemma, self.fields, self.ckpt, self.device = gemma, fields, ckpt, device
        self.models = {}

    def model(self, dtype):
        if dtype not in self.models:
            config = make_config(self.gemma, self.fields, dtype)
            torch.set_default_dtype(config.get_dtype())
            model = self.gemma.model.GemmaForCausalLM(config)
            if self.ckpt:
                model.load_weights(self.ckpt)
            else:
                fill(model)
            self.models[dtype] = model.to(self.device).eval()
        return self.models[dtype]

    def seconds(self, dtype, threads, prompt, steps, depth, sampled):
        """`prompt` tokens at once, then steps of one: what generate() does with them."""
        model = self.model(dtype)
        torch.set_default_dtype(model.config.get_dtype())
        torch.set_num_threads(threads)
        with torch.device(self.device):
            return self.timed(model, prompt, steps, depth, sampled)

    def timed(self, model, prompt, steps, depth, sampled):
        config = model.config
        length = depth + prompt + steps
        shape = (1, length, config.num_key_value_heads, config.head_dim)
        caches = [
            tuple(torch.zeros(shape, dtype=config.get_dtype()) for _ in "kv")
            for _ in range(config.num_hidden_layers)
        ]
        everything = torch.full((1, 1, length, length), -2.3819763e38).to(torch.float)
        mask = torch.triu(everything, diagonal=1)
        window = config.sliding_window_size
        local_mask = mask + torch.tril(everything, diagonal=-window) if window else None
        temperatures = torch.tensor([1.0], dtype=torch.float) if sampled else None
        top_ps, top_ks = torch.tensor([0.95], dtype=torch.float), torch.tensor([64])

        tokens = torch.randint(config.vocab_size, (1, prompt))
        positions = torch.arange(depth, depth + prompt)
        output = torch.tensor([prompt - 1])
        start = time.perf_counter()
        for index in range(depth + prompt, length + 1):
            chosen, _ = model(
                input_token_ids=tokens,
                input_positions=positions,
                kv_write_indices=None,
                kv_caches=caches,
                mask=mask.index_select(2, positions),
                output_positions=output,
                temperatures=temperatures,
                top_ps=top_ps,
                top_ks=top_ks,
                local_mask=local_mask.index_select(2, positions) if window else None,
            )
            tokens, positions = chosen.reshape(1, 1), torch.tensor([index])
            output = torch.tensor(0)
        tokens.item()  # Waits for a GPU.
        return time.perf_counter() - start


def one_line(error):
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def main():
    # What libraries print is kept out of the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    try:
        global torch
        import torch

        reference = Reference(**json.loads(sys.argv[1]))
    except Exception as error:
        answer(error=one_line(error))
        return
    answer(ready=torch.__version__)
    for line in sys.stdin:
        try:
            answer(seconds=reference.seconds(**json.loads(line)))
        except Exception as error:
            answer(error=one_line(error))


with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
    main()
