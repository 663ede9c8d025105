"""An LSTM that reads words in both directions, trained by several workers.

After "Bidirectional LSTM on IMDB" by François Chollet,
https://keras.io/examples/nlp/bidirectional_lstm_imdb/ (Apache-2.0): its layers, compilation and
flow, written anew; narrower, and on text that needs no download. Where the original tells good
reviews from bad ones, this tells what 24 words from Python's standard library were: documentation
(docstrings and comments), or code. Only words count: no punctuation, no capitals. A fifth of the
files is kept back for validation. Lines that differ because of Phalanx are marked `# phalanx`.

    python examples/lstm_text.py --epochs 2 --workers 2
    python examples/lstm_text.py --epochs 1 --limit 2000      # quick
"""

import argparse
import io
import os
import re
import tokenize
from collections import Counter

os.environ.setdefault("KERAS_BACKEND", "torch")  # phalanx

import keras
import numpy as np
import standard_library
from keras import layers

import phalanx  # phalanx

MAX_FEATURES = 5000  # the most frequent words; the others all look alike
MAXLEN = 24  # words in a passage
PASSED_OVER = (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def words_of(text):
    """The words of a program: those of its documentation, and those of its code."""
    documentation, code, statement = [], [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            documentation.append(token.string)
        elif token.type == tokenize.NEWLINE:
            is_string = all(part.type == tokenize.STRING for part in statement)
            (documentation if is_string else code).extend(part.string for part in statement)
            statement = []
        elif token.type not in PASSED_OVER:
            statement.append(token)
    return [re.findall("[a-z]+", " ".join(parts).lower()) for parts in (documentation, code)]


def passages_of(texts):
    """Passages of MAXLEN words, and for each whether it is code, in an order drawn by chance."""
    passages = [
        (words[start : start + MAXLEN], kind)
        for text in texts
        for kind, words in enumerate(words_of(text))
        for start in range(0, len(words) - MAXLEN + 1, MAXLEN)
    ]
    order = np.random.default_rng(0).permutation(len(passages))
    return [passages[i] for i in order]


parser = argparse.ArgumentParser(description="Documentation or code? A bidirectional LSTM")
parser.add_argument("--batch-size", type=int, default=128, help="samples in a step")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--limit", type=int, default=8000, help="passages to train on")
parser.add_argument("--workers", type=int, default=-1, help="-1: one a core")  # phalanx
args = parser.parse_args()
keras.utils.set_random_seed(1)

# Prepare the text
sources = standard_library.sources("*.py")
for_training, for_validation = standard_library.parted(list(sources), one_in=5)
train = passages_of(sources[name] for name in for_training)[: args.limit]
val = passages_of(sources[name] for name in for_validation)[: args.limit // 4]
frequent = Counter(word for words, _ in train for word in words).most_common(MAX_FEATURES - 1)
number = {word: i for i, (word, _) in enumerate(frequent, 1)}


def as_arrays(passages):
    """Numbers of the words [n, MAXLEN] and kinds [n]."""
    numbers = [[number.get(word, 0) for word in words] for words, _ in passages]
    return np.array(numbers, np.int32), np.array([kind for _, kind in passages], np.float32)


x_train, y_train = as_arrays(train)
x_val, y_val = as_arrays(val)
print(f"{len(x_train)} training passages, {y_train.mean():.0%} of them code")
print(f"{len(x_val)} validation passages, {y_val.mean():.0%} of them code")

# Build the model
inputs = keras.Input(shape=(MAXLEN,), dtype="int32")
x = layers.Embedding(MAX_FEATURES, 32)(inputs)
x = layers.Bidirectional(layers.LSTM(32, return_sequences=True))(x)
x = layers.Bidirectional(layers.LSTM(32))(x)
outputs = layers.Dense(1, activation="sigmoid")(x)
model = keras.Model(inputs, outputs)
model.summary()

# Train it and try it
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
history = phalanx.fit(  # phalanx: instead of model.fit(
    model,  # phalanx
    x_train,
    y_train,
    batch_size=args.batch_size,
    epochs=args.epochs,
    validation_data=(x_val, y_val),
    workers=args.workers,  # phalanx
)

print(f"Validation accuracy {history.history['val_accuracy'][-1]:.2%}")
shown = model.predict(x_val[:6], verbose=0)[:, 0]
for (words, kind), code in zip(val, shown, strict=False):
    print(f"{code:4.0%} code, was {('text', 'code')[kind]}: {' '.join(words)[:70]}")
print(f"{history.run.workers} workers, {history.run.shards} shards")  # phalanx
print(f"digest {history.run.digest}")  # phalanx
