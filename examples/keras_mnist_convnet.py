"""Keras's first example, trained by several workers.

After "Simple MNIST convnet" by François Chollet, https://keras.io/examples/vision/mnist_convnet/
(Apache-2.0): its network, compilation, batch size, epochs and messages, written anew. Lines that
differ because of Phalanx are marked with `# phalanx`.

    python examples/keras_mnist_convnet.py --epochs 2 --workers 2
    python examples/keras_mnist_convnet.py --epochs 1 --limit 6000      # quick
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # phalanx

import keras
import mnist
from keras import layers

import phalanx  # phalanx

parser = argparse.ArgumentParser(description="Keras's simple convnet on MNIST")
parser.add_argument("--batch-size", type=int, default=128, help="samples in a step")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--limit", type=int, help="train and test on so many samples only")
parser.add_argument("--workers", type=int, default=-1, help="-1: one a core")  # phalanx
args = parser.parse_args()
keras.utils.set_random_seed(1)

num_classes = 10
data = mnist.load(args.limit)
x_train = data.x_train[..., None].astype("float32") / 255  # with an axis for the one channel
x_test = data.x_test[..., None].astype("float32") / 255
y_train = keras.utils.to_categorical(data.y_train, num_classes)
y_test = keras.utils.to_categorical(data.y_test, num_classes)
print(f"{data.name}: {len(x_train)} training samples, {len(x_test)} test samples")

model = keras.Sequential()
model.add(keras.Input(shape=x_train.shape[1:]))
for filters in (32, 64):
    model.add(layers.Conv2D(filters, 3, activation="relu"))
    model.add(layers.MaxPooling2D(2))
model.add(layers.Flatten())
model.add(layers.Dropout(0.5))
model.add(layers.Dense(num_classes, activation="softmax"))
model.summary()

model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])

history = phalanx.fit(  # phalanx: instead of model.fit(
    model,  # phalanx
    x_train,
    y_train,
    batch_size=args.batch_size,
    epochs=args.epochs,
    validation_split=0.1,
    workers=args.workers,  # phalanx
)

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Test set ({data.name}): loss {loss:.4f}, accuracy {accuracy:.2%}")
print(f"{history.run.workers} workers, {history.run.shards} shards")  # phalanx
print(f"digest {history.run.digest}")  # phalanx
