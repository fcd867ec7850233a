"""The steps of a playbook, before it runs."""

import pytest

from kanctl.cli.context import playbooks_dir
from kanctl.cli.provisioning.steps import read_steps, select_steps
from kanctl.errors import BadInputError

SITE = read_steps(playbooks_dir() / "site.yml")


def test_the_steps_of_the_site_are_read_through_its_imports():
    names = [step.name for step in SITE]

    assert names[0] == "preflight"
    assert {"base", "trainer", "exporter"} <= set(names)


def test_tags_leave_their_steps_and_those_that_always_run():
    assert [step.name for step in select_steps(SITE, ["trainer"])] == ["preflight", "trainer"]
    assert select_steps(SITE, []) == SITE
    assert select_steps(SITE, ["all"]) == SITE


def test_every_step_can_be_asked_for_by_its_name():
    for step in SITE:
        assert step in select_steps(SITE, [step.name])


def test_a_wrong_tag_is_refused_with_the_nearest():
    with pytest.raises(BadInputError, match="--tags names trianer") as caught:
        select_steps(SITE, ["base", "trianer"])
    assert caught.value.next_step == "did you mean trainer?"
