"""A language model with a linear head on its hidden state, and the folder that it is kept in.

<run>/finetunes/<name>/model.safetensors   the whole model as it was tuned, and the head
<run>/finetunes/<name>/meta.json           labels, pooling, the run's config, how it was tuned, what it reached
Letters: B batch, T tokens, D width, C classes.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kanctl.errors import BadInputError

from ..checkpoint import sync_files
from ..config import from_dict
from ..errors import CheckpointInvalid, TrainingFailed
from ..model import KanLM

Pooling = Literal["last", "mean"]
FINETUNES = "finetunes"


class Classifier(nn.Module):
    """Logits of each class for each text."""

    def __init__(self, model: KanLM, classes: int, pooling: Pooling, *, frozen: bool = False) -> None:
        """`frozen`: the head alone learns."""
        super().__init__()
        self.model = model
        # The layer draws start values of its own, replaced below: the caller's generator must not notice.
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Linear(model.config.width, classes)
        # All classes are equally likely at first.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.pooling = pooling
        self.frozen = frozen
        if frozen:
            model.requires_grad_(False)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        """(B, C) of rows that begin with a mark and end with padding, as batches.Batch has them."""
        pooled: Tensor = self.head(self.pooled(tokens_BT, length_B))
        return pooled

    def pooled(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        """(B, D): the hidden state of each text's last token, or the mean over its bytes."""
        hidden_BTD = self.model.hidden(tokens_BT)
        if self.pooling == "last":
            return hidden_BTD[torch.arange(len(tokens_BT), device=tokens_BT.device), length_B - 1]
        index_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        # Token 0 is the mark before the text.
        is_text_BT = (index_T > 0) & (index_T < length_B[:, None])
        return (hidden_BTD * is_text_BT[..., None]).sum(1) / is_text_BT.sum(1, keepdim=True)

    def train(self, mode: bool = True) -> "Classifier":
        """Dropout in a frozen model would only be noise."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self


def begin_folder(run_dir: Path, name: str) -> Path:
    """The folder to fill, before any time is spent. Raises BadInputError for a name that is taken, TrainingFailed."""
    final = run_dir / FINETUNES / name
    if final.exists():
        raise BadInputError(f"{final} is there already", "--name another, or remove the folder")
    partial = final.with_name(f"{name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise TrainingFailed(
            f"{partial} cannot be made: {error.strerror}", "is the disk full, or not yours?"
        ) from error
    return partial


def save_classifier(classifier: Classifier, partial: Path, meta: dict[str, Any]) -> Path:
    """Fill the folder that begin_folder gave, and give it its name. Raises TrainingFailed; no half one is left."""
    weights = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    final = partial.with_suffix("")
    try:
        save_file(weights, partial / "model.safetensors")
        (partial / "meta.json").write_text(json.dumps({**meta, "pooling": classifier.pooling}, indent=2) + "\n")
        sync_files(partial)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingFailed(f"{final} could not be written: {error}", "free space there, then tune again") from error
    return final


def load_classifier(folder: Path, device: str = "cpu") -> tuple[Classifier, list[str]]:
    """A tuned model ready to use, and its labels in the order of its logits. Raises CheckpointInvalid."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        config = from_dict(meta["config"], source=str(folder / "meta.json"))
        classifier = Classifier(KanLM(config.model, seed=config.seed), len(meta["labels"]), meta["pooling"])
        classifier.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise CheckpointInvalid(f"{folder} holds no tuned model: {error}", "kanctl train finetune makes one") from error
    return classifier.to(device).eval(), list(meta["labels"])
