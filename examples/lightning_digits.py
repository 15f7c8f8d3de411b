"""An ordinary Lightning script: a small convolutional net learns to read handwritten digits.

    python examples/lightning_digits.py

It knows nothing of shared-seed. To train without backprop, change one line, and import nothing::

-    trainer = Trainer(max_epochs=options.epochs, logger=logger)
+    trainer = Trainer(max_epochs=options.epochs, logger=logger, strategy="shared_seed")
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--width", type=int, default=8)
parser.add_argument("--out", default="out")
options = parser.parse_args()
seed_everything(0)


class Digits(LightningModule):
    """Two convolutions and a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * width, 10),
        )

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
data = TensorDataset(images, torch.tensor(digits.target))
training, held_out = torch.utils.data.random_split(data, [1500, len(data) - 1500])

logger = CSVLogger(options.out, name=None)
trainer = Trainer(max_epochs=options.epochs, logger=logger)
module = Digits(options.width)
loader, test_loader = DataLoader(training, 50, shuffle=True), DataLoader(held_out, 297)
trainer.fit(module, loader, test_loader)
with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
    lines = list(csv.DictReader(file))
print(
    json.dumps(
        {
            "losses": [float(line["loss"]) for line in lines if line.get("loss")],
            "accuracy": [float(line["accuracy"]) for line in lines if line.get("accuracy")],
            "optimizer_state": len(trainer.optimizers[0].state) if trainer.optimizers else 0,
        }
    )
)
