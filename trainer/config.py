"""What a run is: frozen values with units in their names, read once from a recipe and passed down in pieces.

The classes say what each value means and which are allowed; fields.py finds every mistake; recipe files are TOML and
lie in recipes/. No torch here: the command line reads recipes on machines that cannot train.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from .errors import Problem, RecipeInvalid
from .fields import Pattern, Range, build, check_ranges
from .recipe_file import find_recipe, line_of, read_toml

Count = Annotated[int, Range(least=1)]
# A run is called <recipe name>-<date>-<time>, which must fit the 63 letters of a host or unit name.
RecipeName = Annotated[str, Pattern("[a-z0-9][a-z0-9-]{0,46}", "of 1 to 47 lower-case letters, digits and hyphens")]
CorpusName = Annotated[str, Pattern("[a-z0-9][a-z0-9-]{0,62}", "of 1 to 63 lower-case letters, digits and hyphens")]
Positive = Annotated[float, Range(above=0.0)]
NotNegative = Annotated[float, Range(least=0.0)]
Fraction = Annotated[float, Range(least=0.0, most=1.0)]
Decay = Annotated[float, Range(least=0.0, below=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network. `width % heads` must be 0 and `width / heads` even, because rotary positions turn pairs."""

    layers: Count
    """Blocks, each one attention and one feed-forward of two edge layers."""
    width: Count
    """Channels of the residual stream."""
    heads: Count
    context_tokens: Annotated[int, Range(least=2)]
    """Tokens (bytes) of one training sequence; generation never looks back further."""
    edge_hidden: Count
    """Channels between the two edge layers of a feed-forward."""
    grid_cells: Count = 5
    """Cells G of each spline's grid; an edge holds G + 3 spline coefficients and one SiLU weight."""
    grid_limit: Positive = 3.0
    """The grid spans [-limit, limit]; inputs are normalised to a root mean square of 1 first."""
    edge_form: Literal["dense", "cell"] = "cell"
    """How the bases are evaluated: all of them, or the four live ones. The values are the same; cell is quicker."""
    vocab_size: Annotated[int, Range(least=257, most=65536)] = 257
    """256 bytes and the end-of-document mark; more only pads the embedding."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.width % self.heads:
            text = f"wanted a divisor of width {self.width}, found {self.heads}"
            raise RecipeInvalid("ModelConfig", [Problem(key="heads", text=text)])
        if self.head_size % 2:
            text = f"wanted an even width / heads for rotary positions, found {self.width} / {self.heads}"
            raise RecipeInvalid("ModelConfig", [Problem(key="heads", text=text)])

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is read."""

    corpus: CorpusName
    """A name that `kanctl train prepare` made: <data>/corpora/<corpus>/."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay; the optimiser gets this and nothing else."""

    lr_peak: Positive
    lr_final_fraction: Fraction = 0.1
    """The last step's learning rate over the peak's."""
    warmup_steps: Annotated[int, Range(least=0)]
    beta1: Decay = 0.9
    beta2: Decay = 0.95
    weight_decay: NotNegative = 0.1
    """Decoupled; on matrices and edge weights, not on vectors."""
    clip_norm: NotNegative = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""

    def __post_init__(self) -> None:
        check_ranges(self)


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
    """What computes. ZeRO stage 3 is left out: a rank could not write the whole model by itself."""

    zero_stage: Literal[0, 1, 2] = 1
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
    """Plain nested values, as config.json holds them; from_dict gives the equal config back."""
    return asdict(config)


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
