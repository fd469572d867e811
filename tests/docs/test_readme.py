"""README.md lists every network and counts the examples that run; links of all pages lead somewhere."""

from __future__ import annotations

import re

import pytest
import yaml
from repository import ROOT

from nvidia_tao_deploy.networks import NETWORKS


def test_every_network_is_listed_once() -> None:
    table = (ROOT / "README.md").read_text().partition("## Networks")[2].partition("\n## ")[0]
    rows = "".join(line for line in table.splitlines() if line.startswith("| "))
    assert sorted(re.findall(r"`([a-z0-9_]+)`", rows)) == sorted(NETWORKS)


def test_the_examples_that_run_on_the_samples_are_counted() -> None:
    builds = [
        yaml.safe_load(path.read_text())["gen_trt_engine"] for path in (ROOT / "specs").glob("*/gen_trt_engine.yaml")
    ]
    ready = [build for build in builds if (ROOT / build["onnx_file"]).is_file()]
    assert f"those of {len(ready)} commands" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "samples/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        path, _, heading = target.partition("#")
        if target.startswith("http"):
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles], target
