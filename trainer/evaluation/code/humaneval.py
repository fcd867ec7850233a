"""pass@k: the share of problems that at least one of k programs of a model solves, beside what can be had without one.

Source: Chen et al. 2021, arXiv 2107.03374, section 2.1.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ...generate import SampleConfig, generate
from ...model import KanLM
from ..measures import Measure
from .probe import require_tight
from .problems import CodeProblem, read_problems
from .sandbox import Outcome, Sandbox, SandboxLimits

# Where a function's body has ended: arXiv 2107.03374, section 2.1.
STOPS = (b"\nclass", b"\ndef", b"\n#", b"\nif", b"\nprint")
EMPTY_BODY = "    pass\n"
TASK = "code"
UNIT = "share of problems"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOptions:
    """How many programs are written for each problem, how, and what each may use."""

    samples: int = 10
    """Programs for each problem; pass@k is told for every k of `ks` up to it."""
    ks: tuple[int, ...] = (1, 10, 100)
    temperature: float = 0.2
    """0.2 is best for pass@1, 0.8 for pass@100: arXiv 2107.03374, figure 5."""
    top_p: float = 0.95
    tokens: int = 400
    """Bytes of one completion at most."""
    batch: int = 32
    """Completions written at once."""
    most_problems: int | None = None
    """Only the first so many of the file."""
    seed: int = 0
    workers: int = field(default_factory=lambda: max(1, len(os.sched_getaffinity(0))))
    """Sandboxes at one time."""
    limits: SandboxLimits = field(default_factory=SandboxLimits)

    def __post_init__(self) -> None:
        least = min(self.samples, self.tokens, self.batch, self.workers, *self.ks)
        if least < 1 or (self.most_problems is not None and self.most_problems < 1):
            raise ValueError(f"wanted numbers of at least 1, found {self}")


def code_measures(
    model: KanLM, problems_path: Path, options: CodeOptions, progress: Callable[[str], None] = lambda line: None
) -> list[Measure]:
    """The model's pass@k, between empty bodies and the solutions that the file brings, run in this sandbox too.

    Everything that can be wrong is asked before the model writes its first byte. Raises RowsInvalid for the file,
    MissingToolError without bubblewrap or where its sandbox does not hold, CheckpointInvalid for a broken model.
    """
    problems = read_problems(problems_path)[: options.most_problems]
    sandbox = Sandbox(options.limits)
    require_tight(sandbox)
    progress(f"{len(problems)} problems: the solutions that the file brings, and empty bodies")
    solved = _share_solved(sandbox, problems, [problem.canonical_solution for problem in problems], options)
    empty = _share_solved(sandbox, problems, [EMPTY_BODY] * len(problems), options)
    bodies = _write(model, problems, options, progress)
    asked = [problem for problem in problems for _ in range(options.samples)]
    outcomes = _run_all(sandbox, asked, bodies, options)
    progress(f"{len(outcomes)} programs: {_tally(outcomes)}")
    right = [
        sum(outcome.verdict == "passed" for outcome in outcomes[start : start + options.samples])
        for start in range(0, len(outcomes), options.samples)
    ]
    baselines = {"a body of `pass`": empty, "the file's own solutions": solved}
    measures = []
    for k in sorted({k for k in options.ks if k <= options.samples}):
        value = sum(pass_at_k(options.samples, count, k) for count in right) / len(right)
        measure = Measure(
            task=TASK, name=f"pass@{k}", value=value, unit=UNIT, count=len(problems), baselines=baselines
        )  # fmt: skip
        measures.append(measure)
    return measures


def pass_at_k(samples: int, right: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n programs, c of them right, hold a right one.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"wanted 0 <= right <= samples and 1 <= k <= samples, found {right}, {samples}, {k}")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _write(
    model: KanLM, problems: Sequence[CodeProblem], options: CodeOptions, progress: Callable[[str], None]
) -> list[bytes]:
    """Bodies: `samples` for each problem, in the problems' order. A row's seed follows from its place alone."""
    prompts = [problem.prompt.encode() for problem in problems for _ in range(options.samples)]
    bodies: list[bytes] = []
    while len(bodies) < len(prompts):
        config = SampleConfig(
            tokens=options.tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            stops=STOPS,
            seed=options.seed + len(bodies),
        )
        written = generate(model, prompts[len(bodies) : len(bodies) + options.batch], config)
        bodies += [one.text for one in written]
        progress(f"{len(bodies)} of {len(prompts)} programs written")
    return bodies


def _share_solved(
    sandbox: Sandbox, problems: Sequence[CodeProblem], bodies: Sequence[str], options: CodeOptions
) -> float:
    outcomes = _run_all(sandbox, problems, bodies, options)
    return sum(outcome.verdict == "passed" for outcome in outcomes) / len(outcomes)


def _run_all(
    sandbox: Sandbox, problems: Sequence[CodeProblem], bodies: Sequence[str | bytes], options: CodeOptions
) -> list[Outcome]:
    """Each problem with its body, several at once: threads, since each waits for a process of its own."""
    programs = [problem.program(body) for problem, body in zip(problems, bodies, strict=True)]
    with ThreadPoolExecutor(options.workers) as pool:
        return list(pool.map(sandbox.run, programs))


def _tally(outcomes: Sequence[Outcome]) -> str:
    verdicts = [outcome.verdict for outcome in outcomes]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
