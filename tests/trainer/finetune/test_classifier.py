"""The hidden state that the head reads: of the text alone, whatever stands beside it in the batch."""

import json
from pathlib import Path

import pytest
import torch

from kanctl.errors import BadInputError
from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe, to_dict
from kanctl.trainer.errors import CheckpointInvalid
from kanctl.trainer.finetune.batches import by_length, encode, one_epoch, stack
from kanctl.trainer.finetune.classifier import Classifier, begin_folder, load_classifier, save_classifier
from kanctl.trainer.model import END_OF_DOCUMENT, KanLM

TEXTS = [b"a", b"four", b"rather longer", b"the longest of these!"]
MODELS = {
    "softmax": [],
    "ada": ['model.mixers=["ada"]', "model.ada.chunk=8"],
    "multires": ['model.mixers=["multires"]', "model.multires.window=4", "model.multires.levels=[4]"],
    "kalman": ['model.mixers=["kalman"]'],
    "grove": ["model.channel=grove"],
    "reversible": ["model.reversible=true"],
    "not isolated": ["model.isolate_documents=false"],
    "knowledge": ["model.knowledge=true"],
}


def small_model(small_config: RunConfig, *overrides: str) -> KanLM:
    return KanLM(apply_overrides(small_config, overrides).model, seed=3).double().eval()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_does_not_change_what_is_read_of_a_text(small_config: RunConfig, kind: str, pooling: str) -> None:
    classifier = Classifier(small_model(small_config, *MODELS[kind]), 2, pooling)  # type: ignore[arg-type]
    texts = [encode(text, 24) for text in TEXTS]
    together = stack(texts, torch.arange(4), "cpu")
    with torch.no_grad():
        pooled_BD = classifier.pooled(together.tokens_BT, together.length_B)
        for index in range(4):
            alone = stack(texts, torch.tensor([index]), "cpu")
            torch.testing.assert_close(
                pooled_BD[index], classifier.pooled(alone.tokens_BT, alone.length_B)[0], rtol=1e-9, atol=1e-9
            )


def test_last_and_mean_are_of_the_texts_own_bytes(small_config: RunConfig) -> None:
    model = small_model(small_config)
    batch = stack([encode(text, 24) for text in TEXTS], torch.tensor([1, 3]), "cpu")
    hidden_BTD = model.hidden(batch.tokens_BT)
    for pooling, wanted in (("last", hidden_BTD[0, 4]), ("mean", hidden_BTD[0, 1:5].mean(0))):
        classifier = Classifier(model, 2, pooling)  # type: ignore[arg-type]
        torch.testing.assert_close(classifier.pooled(batch.tokens_BT, batch.length_B)[0], wanted)


def test_logits_of_the_model_are_its_hidden_states_through_the_embedding(small_config: RunConfig) -> None:
    for kind in ("softmax", "reversible"):
        model = small_model(small_config, *MODELS[kind])
        tokens_BT = torch.tensor([[256, 1, 2, 3]])
        torch.testing.assert_close(model(tokens_BT), model.hidden(tokens_BT) @ model.embedding.weight.T)


def test_a_text_is_a_document_of_its_own_and_cut_to_the_context() -> None:
    assert encode(b"ab", 24) == [END_OF_DOCUMENT, 97, 98]
    assert encode(b"abcdef", 4) == [END_OF_DOCUMENT, 97, 98, 99]


def test_an_epoch_has_every_text_once_in_an_order_of_its_own() -> None:
    texts = [encode(b"x" * (1 + n % 17), 24) for n in range(100)]
    orders = [torch.cat(list(one_epoch(texts, 8, 1, epoch))).tolist() for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(100))
    assert sorted(torch.cat(list(by_length(texts, 8))).tolist()) == list(range(100))
    waste = sum(
        len(index_B) * max(len(texts[i]) for i in index_B) - sum(len(texts[i]) for i in index_B)
        for index_B in one_epoch(texts, 8, 1, 0)
    )
    assert waste < 0.2 * sum(map(len, texts)), "texts of a batch are alike in length"


def test_a_tuned_model_is_kept_whole_and_read_again(tmp_path: Path) -> None:
    config = load_recipe("gpt")
    classifier = Classifier(KanLM(config.model, seed=1), 3, "last")
    torch.nn.init.normal_(classifier.head.weight)
    meta = {"config": to_dict(config), "labels": ["a", "b", "c"]}
    folder = save_classifier(classifier, begin_folder(tmp_path, "one"), meta)
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "model.safetensors"]
    again, labels = load_classifier(folder)
    batch = stack([encode(text, 24) for text in TEXTS], torch.arange(4), "cpu")
    assert labels == ["a", "b", "c"]
    assert torch.equal(again(batch.tokens_BT, batch.length_B), classifier.eval()(batch.tokens_BT, batch.length_B))
    with pytest.raises(BadInputError, match="is there already"):
        begin_folder(tmp_path, "one")


def test_a_folder_that_is_no_tuned_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="holds no tuned model"):
        load_classifier(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"labels": []}))
    with pytest.raises(CheckpointInvalid, match="config"):
        load_classifier(tmp_path)
