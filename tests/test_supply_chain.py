"""What others run: workflows that run what `.ci/run` runs, and locks, with nothing in them that can change."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits_and_jobs_may_only_read(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


def test_a_push_is_checked_by_the_same_script() -> None:
    runs = [step.get("run") for step in steps(ROOT / ".github" / "workflows" / "check.yml")]
    assert ".ci/run" in runs


def test_what_is_published_are_targets_of_the_dockerfile() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text("utf-8"))
    wanted = {entry["target"] for entry in workflow["jobs"]["images"]["strategy"]["matrix"]["include"]}
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert wanted <= set(stages)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run_and_are_what_bash_takes(path: Path) -> None:
    assert os.access(path, os.X_OK)
    first = path.read_text("utf-8").splitlines()[0]
    if first == "#!/usr/bin/env bash":
        subprocess.run([shutil.which("bash") or "bash", "-n", str(path)], check=True)


def test_a_folder_that_dependabot_watches_is_there() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text("utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "docker", "github-actions"}
    for update in updates:
        assert (ROOT / update["directory"].lstrip("/")).is_dir()


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.name)
def test_a_lock_has_hashes_for_every_package_and_no_address(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    pinned = re.findall(r"^([a-z0-9._-]+)==\S+ .*\\$", "\n".join(lines), re.MULTILINE)
    assert len(pinned) == sum(not line.startswith((" ", "#")) for line in lines)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
