"""PyTorch's first example, trained by several workers.

After https://github.com/pytorch/examples/blob/main/mnist/main.py (BSD-3-Clause, the PyTorch
authors): its network, optimiser, schedule, batch size, options and messages, written anew. Lines
that differ because of Phalanx are marked with `# phalanx`. The functions train() and test() of the
original, and its loop over epochs, are one call.

    python examples/torch_mnist.py --epochs 2 --workers 2
    python examples/torch_mnist.py --epochs 1 --limit 6000      # quick
"""

import argparse

import mnist
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adadelta
from torch.optim.lr_scheduler import StepLR

import phalanx  # phalanx


class Net(nn.Module):
    """Two convolutions, two linear layers, dropout after each pair."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        )
        self.classes = nn.Sequential(
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)
        )

    def forward(self, x):
        """Logarithms of the classes' probabilities."""
        return functional.log_softmax(self.classes(self.features(x)), dim=1)


def as_tensors(images, labels):
    """Images with mean 0 and deviation 1 over MNIST, and a channel axis; labels as they are."""
    scaled = torch.from_numpy(images / 255).float().unsqueeze(1)
    return (scaled - 0.1307) / 0.3081, torch.from_numpy(labels)


def main():
    """Read the options, train, test."""
    parser = argparse.ArgumentParser(description="PyTorch's MNIST example")
    parser.add_argument("--batch-size", type=int, default=64, help="samples in a step")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=1.0, help="learning rate")
    parser.add_argument("--gamma", type=float, default=0.7, help="its factor after each epoch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-model", action="store_true", help="write mnist_cnn.pt")
    parser.add_argument("--limit", type=int, help="train and test on so many samples only")
    parser.add_argument("--workers", type=int, default=-1, help="-1: one a core")  # phalanx
    parser.add_argument("--shards", type=int, default=4, help="slices of a step")  # phalanx
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    data = mnist.load(args.limit)
    train_set = as_tensors(data.x_train, data.y_train)
    test_set = as_tensors(data.x_test, data.y_test)

    model = Net()
    optimizer = Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)

    run = phalanx.fit(  # phalanx: instead of train(), test() and the loop over epochs
        model,
        train_set,
        loss=functional.nll_loss,
        optimizer=optimizer,
        scheduler=scheduler,
        validation=test_set,
        metrics="accuracy",
        epochs=args.epochs,
        batch_size=args.batch_size,
        workers=args.workers,
        shards=args.shards,
        seed=args.seed,
        verbose=True,
    )
    loss, accuracy = run.history["val_loss"][-1], run.history["val_accuracy"][-1]
    print(f"Test set ({data.name}): average loss {loss:.4f}, accuracy {accuracy:.2%}")
    print(f"{run.workers} workers, {run.shards} shards, {run.seconds:.1f} s")  # phalanx
    print(f"digest {run.digest}")  # phalanx

    if args.save_model:
        torch.save(model.state_dict(), "mnist_cnn.pt")


if __name__ == "__main__":
    main()
