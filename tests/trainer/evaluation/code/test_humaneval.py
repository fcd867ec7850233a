"""pass@k: the formula against counting, the rows against completions known beforehand, the real problems."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from kanctl.errors import MissingToolError
from kanctl.trainer.config import RunConfig
from kanctl.trainer.errors import RowsInvalid
from kanctl.trainer.evaluation.code import CodeOptions, Sandbox, code_measures, humaneval, pass_at_k, read_problems
from kanctl.trainer.generate import SampleConfig, Written
from kanctl.trainer.model import KanLM

RIGHT = b"    return 2 * x\n"
WRONG = b"    return x\n"


@pytest.fixture(scope="module")
def model(micro_config: RunConfig) -> KanLM:
    """An untrained model: it writes noise."""
    return KanLM(micro_config.model, seed=1)


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(samples: int) -> None:
    for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        draws = list(itertools.combinations(range(samples), k))
        share = sum(any(number < right for number in draw) for draw in draws) / len(draws)
        assert math.isclose(pass_at_k(samples, right, k), share, abs_tol=1e-12)


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_has_no_meaning(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="wanted 0 <= right"):
        pass_at_k(samples, right, k)


def test_rows_tell_pass_at_k_beside_an_empty_body_and_what_the_harness_reaches(
    model: KanLM, three_problems: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def write(_model: KanLM, prompts: Sequence[bytes], config: SampleConfig) -> list[Written]:
        """The first of each four programs is right, for `double` alone."""
        places = range(config.seed - 100, config.seed - 100 + len(prompts))
        seeds.extend(places)
        return [Written(text=RIGHT if place % 4 == 0 else WRONG, ended="stop") for place in places]

    monkeypatch.setattr(humaneval, "generate", write)
    said: list[str] = []
    options = CodeOptions(samples=4, ks=(4, 1, 10), batch=5, seed=100, limits=sandbox.limits)
    rows = code_measures(model, three_problems, options, said.append)
    assert seeds == list(range(12)), "a program's seed follows from its place, whatever the batches are"
    assert [(row.name, row.value) for row in rows] == [
        ("pass@1", pytest.approx(0.25 / 3)),
        ("pass@4", pytest.approx(1 / 3)),
    ]
    for row in rows:
        # An empty body passes the third problem.
        assert row.baselines == {"a body of `pass`": pytest.approx(1 / 3), "the file's own solutions": 1.0}
        assert (row.task, row.count) == ("code", 3)
    assert said[-1] == "12 programs: 11 failed, 1 passed"


def test_an_untrained_model_solves_nothing_and_one_seed_gives_the_same_rows(
    model: KanLM, three_problems: Path, sandbox: Sandbox
) -> None:
    options = CodeOptions(samples=2, ks=(1, 2), tokens=8, most_problems=1, limits=sandbox.limits)
    rows = code_measures(model, three_problems, options)
    assert [row.value for row in rows] == [0.0, 0.0]
    assert code_measures(model, three_problems, options) == rows


def test_nothing_is_written_before_file_and_sandbox_were_found_good(
    model: KanLM, three_problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(humaneval, "generate")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(RowsInvalid, match="task_id"):
        code_measures(model, bad, CodeOptions())
    monkeypatch.setattr("kanctl.programs.SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="bwrap"):
        code_measures(model, three_problems, CodeOptions())


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"ks": (0,)}, {"tokens": 0}, {"most_problems": 0}])
def test_options_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="wanted numbers of at least 1"):
        CodeOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_all_solutions_of_humaneval_pass_and_no_empty_body_does(sandbox: Sandbox, shared_data: Path) -> None:
    path = shared_data / "HumanEval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    problems = read_problems(path)
    assert len(problems) == 164
    options = CodeOptions()
    relaxed = Sandbox(options.limits)
    solutions = [problem.canonical_solution for problem in problems]
    assert humaneval._share_solved(relaxed, problems, solutions, options) == 1.0
    assert humaneval._share_solved(relaxed, problems, ["    pass\n"] * 164, options) == 0.0
