"""An ordinary Hugging Face Trainer script: a causal language model learns to say what a film review thinks.

    python examples/trainer_sentiment.py MODEL reviews.csv

It knows nothing of shared-seed. To train without backprop, change one line::

-    trainer = Trainer(model=model, args=args, train_dataset=rows)
+    trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[SharedSeedCallback()])

after ``from shared_seed import SharedSeedCallback``.
"""

import argparse
import csv
import json
import random

from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("reviews", help="CSV with the columns text and label, 0 or 1")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--batch", type=int, default=16)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32")


def encode(row: dict) -> dict:
    """Token ids whose labels are the answer alone, padded to one length."""
    prompt = tokenizer(f"{row['text']} It was", add_special_tokens=False)["input_ids"][-39:]
    answer = tokenizer([" terrible", " great"][int(row["label"])], add_special_tokens=False)["input_ids"][:1]
    ids, padding = prompt + answer, 40 - len(prompt) - len(answer)
    return {
        "input_ids": [tokenizer.pad_token_id or 0] * padding + ids,
        "attention_mask": [0] * padding + [1] * len(ids),
        "labels": [-100] * (40 - len(answer)) + answer,
    }


with open(options.reviews, newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["label"] in ("0", "1")]
random.Random(0).shuffle(rows)
rows = [encode(row) for row in rows[: options.steps * options.batch]]

args = TrainingArguments(
    output_dir="out",
    max_steps=options.steps,
    per_device_train_batch_size=options.batch,
    per_device_eval_batch_size=options.batch,
    learning_rate=2e-5,
    logging_steps=max(1, options.steps // 10),
    save_strategy="no",
    report_to=[],
    use_cpu=True,
)
trainer = Trainer(model=model, args=args, train_dataset=rows)
trainer.train()
losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print(json.dumps({"losses": losses, "optimizer_state": len(trainer.optimizer.state) if trainer.optimizer else 0}))
