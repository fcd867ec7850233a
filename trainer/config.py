"""What a run is: frozen values with units in their names, read once from a recipe and passed down in pieces.

The classes say what each value means and which are allowed; fields.py finds every mistake; recipe files are TOML and
lie in recipes/. No torch here: the command line reads recipes on machines that cannot train.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from .errors import Problem, RecipeInvalid
from .fields import Pattern, Range, build, check_ranges
from .model_config import Count, Decay, ModelConfig, Positive
from .recipe_file import find_recipe, line_of, read_toml

# A run is called <recipe name>-<date>-<time>, which must fit the 63 letters of a host or unit name.
RecipeName = Annotated[str, Pattern("[a-z0-9][a-z0-9-]{0,46}", "of 1 to 47 lower-case letters, digits and hyphens")]
CorpusName = Annotated[str, Pattern("[a-z0-9][a-z0-9-]{0,62}", "of 1 to 63 lower-case letters, digits and hyphens")]
NotNegative = Annotated[float, Range(least=0.0)]
Fraction = Annotated[float, Range(least=0.0, most=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is read."""

    corpus: CorpusName
    """A name that `kanctl train prepare` made: <data>/corpora/<corpus>/."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights are updated, and the learning rate; the optimiser gets this and nothing else."""

    kind: Literal["adamw", "muon", "kalman", "kalman-diagonal"] = "adamw"
    """muon, kalman: that for matrices, and for the rest AdamW, or the diagonal form; kalman-diagonal: that for all."""
    lr_peak: Positive
    schedule: Literal["cosine", "warmup-stable-decay"] = "cosine"
    """How the rate falls after the warm-up: half a cosine, or level and then in a line to the end."""
    decay_fraction: Fraction = 0.2
    """Of a warmup-stable-decay schedule: the share of all steps, at the end, in which the rate falls."""
    lr_final_fraction: Fraction = 0.1
    """The last step's learning rate over the peak's."""
    warmup_steps: Annotated[int, Range(least=0)]
    beta1: Decay = 0.9
    beta2: Decay = 0.95
    weight_decay: NotNegative = 0.1
    """Decoupled; on matrices and edge weights, not on vectors."""
    momentum: Decay = 0.95
    """Of muon and kalman, on matrices."""
    refresh_steps: Count = 10
    """kalman looks at the layers' inputs every so many steps, at first more often."""
    forgetting: Decay = 0.99
    """kalman: the share of the inputs' second moment that a step leaves; the first looks count alike."""
    damping: Positive = 0.1
    """kalman: added to the inputs' second moment, whose mean diagonal is 1; the measurement noise of the filter."""
    clip_norm: NotNegative = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.kind.startswith("kalman") and self.beta1 == 0:
            text = f"wanted a number above 0 with optim.kind = {self.kind}: it is what the filter keeps, found 0"
            raise RecipeInvalid("OptimConfig", [Problem(key="beta1", text=text)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, how much at once, and how often to report."""

    steps: Count
    sequences_per_rank: Count
    """Sequences of context_tokens that each process takes per step."""
    log_every_steps: Count = 10
    eval_every_steps: Count
    eval_sequences: Count
    """Validation sequences of one evaluation, over all processes."""
    checkpoint_every_steps: Count
    keep_checkpoints: Count = 2
    """The newest so many stay on disk."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What computes."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where this process sees a GPU, else the CPU."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that decides a run, apart from the machines. Two runs of one config on one world size are equal."""

    name: RecipeName
    """The recipe's name; new runs are called after it."""
    seed: Annotated[int, Range(least=0, most=2**32 - 1)] = 1
    """Seeds the weights and the order of the data."""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    engine: EngineConfig

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.optim.warmup_steps >= self.train.steps:
            text = f"wanted fewer than train.steps = {self.train.steps}, found {self.optim.warmup_steps}"
            raise RecipeInvalid("RunConfig", [Problem(key="optim.warmup_steps", text=text)])
        if self.engine.zero_stage == 3 and self.model.reversible:
            # Found by trying: their backward pass meets weights that were given back after the forward pass.
            text = "wanted at most 2 with model.reversible = true, which computes blocks twice, found 3"
            raise RecipeInvalid("RunConfig", [Problem(key="engine.zero_stage", text=text)])


def load_recipe(path_or_name: str | Path) -> RunConfig:
    """The run that a recipe describes: a shipped one by its name (tiny), any other by its path.

    Raises RecipeInvalid with every mistake of the file and its line.
    """
    path = find_recipe(path_or_name)
    text, tree = read_toml(path)
    try:
        return build(RunConfig, tree, f"recipe {path}")
    except RecipeInvalid as error:
        problems = [replace(problem, line=line_of(text, problem.key)) for problem in error.problems]
        raise RecipeInvalid(
            error.source, problems, "correct the recipe; kanctl/trainer/config.py lists every key"
        ) from error


def apply_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The same run with values replaced: each override reads like `train.steps=100`. Raises RecipeInvalid."""
    tree = to_dict(config)
    problems = [problem for word in overrides for problem in _override(tree, word)]
    try:
        changed = build(RunConfig, tree, "overrides")
    except RecipeInvalid as error:
        raise RecipeInvalid(error.source, [*problems, *error.problems]) from error
    if problems:
        raise RecipeInvalid("overrides", problems)
    return changed


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested values, as config.json holds them, lists too; from_dict gives the equal config back."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return tree


def from_dict(tree: Mapping[str, object], source: str = "config.json") -> RunConfig:
    """The run of such a tree. Raises RecipeInvalid, which names `source`."""
    return build(RunConfig, tree, source)


def _override(tree: dict[str, Any], word: str) -> Iterator[Problem]:
    """Set one value in the tree, or say why not."""
    key, equals, value = word.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not name:
        yield Problem(key="", text=f"wanted KEY=VALUE like train.steps=100, found {word!r}")
        return
    branch = tree
    for section in sections:
        branch = branch.setdefault(section, {})
        if not isinstance(branch, dict):
            yield Problem(key=key, text=f"{section} is a value, not a section")
            return
    branch[name] = _parse_value(value.strip())


def _parse_value(text: str) -> object:
    """A TOML value; anything that is none, such as a bare word, is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text
