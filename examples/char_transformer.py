"""A small GPT that writes Python, character by character, trained by several workers.

After nanoGPT by Andrej Karpathy, https://github.com/karpathy/nanoGPT (MIT): the network of its
model.py and the settings of its train.py for characters on a CPU (4 layers, 4 heads, width 128,
context 64, AdamW with decay of matrices only, warm-up and a cosine by step, gradients clipped to
norm 1), written anew. The text is the source of Python's standard library instead of Shakespeare's.
Lines that differ because of Phalanx are marked with `# phalanx`: the loop over steps is one call.

    python examples/char_transformer.py --epochs 2 --workers 2
    python examples/char_transformer.py --epochs 1 --characters 200000      # quick
"""

import argparse
import math

import standard_library
import torch
from torch import nn
from torch.nn import functional

import phalanx  # phalanx

CONTEXT = 64  # characters that the next one is told from
WIDTH, HEADS, LAYERS = 128, 4, 4


class Attention(nn.Module):
    """Each character looks at those before it."""

    def __init__(self):
        super().__init__()
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):  # [B, T, WIDTH] -> the same
        rows, length, _ = x.shape
        parts = self.queries_keys_values(x).view(rows, length, 3, HEADS, WIDTH // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))


class Block(nn.Module):
    """Attention, then two linear layers, each added to what comes in."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(WIDTH, bias=False), Attention())
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH, bias=False),
            nn.Linear(WIDTH, 4 * WIDTH, bias=False),
            nn.GELU(),
            nn.Linear(4 * WIDTH, WIDTH, bias=False),
        )

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.mlp(x)


class GPT(nn.Module):
    """Characters [B, T] -> logits of the next of each [B, T, V]."""

    def __init__(self, n_characters):
        super().__init__()
        self.characters = nn.Embedding(n_characters, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, n_characters, bias=False)
        self.head.weight = self.characters.weight  # tied
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                to_residual = name.endswith(("out.weight", "mlp.3.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS if to_residual else 1))

    def forward(self, text):
        x = self.characters(text) + self.positions.weight[: text.shape[1]]
        return self.head(self.norm(self.blocks(x)))

    @torch.no_grad()
    def write(self, text, n_characters, temperature=0.8):
        """Go on from text [1, T] by so many characters."""
        for _ in range(n_characters):
            logits = self(text[:, -CONTEXT:])[:, -1] / temperature
            text = torch.cat([text, torch.multinomial(logits.softmax(dim=1), 1)], dim=1)
        return text


def next_character(logits, text):
    """Mean loss over all characters of all samples."""
    return functional.cross_entropy(logits.flatten(0, 1), text.flatten())


def warmed_cosine(n_steps, warm_up=100, least=0.1):
    """Of step t: up to 1 in a straight line, then down a cosine to `least`."""
    warm_up = min(warm_up, n_steps // 10)

    def factor(t):
        if t < warm_up:
            return (t + 1) / (warm_up + 1)
        done = min(1.0, (t - warm_up) / max(1, n_steps - warm_up))
        return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2

    return factor


def windows(text):
    """Every CONTEXT characters and, for each of them, the next one: two arrays [n, CONTEXT]."""
    n = (len(text) - 1) // CONTEXT
    starts = torch.arange(n)[:, None] * CONTEXT + torch.arange(CONTEXT)
    return text[starts], text[starts + 1]


def main():
    """Read the options, train, write a sample."""
    parser = argparse.ArgumentParser(description="A small GPT on Python's standard library")
    parser.add_argument("--batch-size", type=int, default=64, help="windows in a step")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--characters", type=int, default=1_000_000, help="length of the text")
    parser.add_argument("--sample", type=int, default=400, help="characters to write in the end")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--workers", type=int, default=-1, help="-1: one a core")  # phalanx
    parser.add_argument("--shards", type=int, default=4, help="slices of a step")  # phalanx
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    sources = standard_library.sources("*.py")
    text = "".join(source for source in sources.values() if source.isascii())[: args.characters]
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    numbers = torch.tensor([number[character] for character in text])
    n_training = len(text) * 9 // 10
    train_set, val_set = windows(numbers[:n_training]), windows(numbers[n_training:])
    print(f"{len(text):,} characters, {len(alphabet)} of them different")

    model = GPT(len(alphabet))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    n_steps = args.epochs * math.ceil(len(train_set[0]) / args.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmed_cosine(n_steps))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {n_steps} steps")

    run = phalanx.fit(  # phalanx: instead of the loop over steps
        model,
        train_set,
        loss=next_character,
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_every="step",
        clip_norm=1.0,
        validation=val_set,
        epochs=args.epochs,
        batch_size=args.batch_size,
        workers=args.workers,
        shards=args.shards,
        seed=args.seed,
        verbose=True,
    )

    model.eval()
    start = torch.tensor([[number[character] for character in "\ndef "]])
    print("".join(alphabet[i] for i in model.write(start, args.sample)[0]))
    print(f"{run.workers} workers, {run.shards} shards, {run.seconds:.1f} s")  # phalanx
    print(f"digest {run.digest}")  # phalanx


if __name__ == "__main__":
    main()
