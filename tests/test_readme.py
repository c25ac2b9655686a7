"""What the README shows is what the program says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def block(name: str) -> str:
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"<!-- {name}:begin -->\n```(?:\w*)\n(.*?)```\n<!-- {name}:end -->", text, re.DOTALL)
    assert found, f"README.md has no block {name}"
    return found.group(1)


def test_the_readme_shows_the_help_as_it_is() -> None:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )

    assert block("help") == done.stdout, "write it anew: COLUMNS=100 harness --help"


def test_the_readmes_recipe_is_a_recipe(tmp_path: Path) -> None:
    from harness.specs.load import load_recipe

    recipe = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert recipe
    (tmp_path / "r.yaml").write_text(recipe.group(1))

    assert load_recipe(tmp_path / "r.yaml").recipe == "demo"


def test_the_readmes_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))

    assert named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)
