"""A page as a real browser shows it: headless Chromium, no network, no driver."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK = """
<script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const found = {
    title: page.title,
    width: page.documentElement.scrollWidth,
    shown: view.innerWidth,
    room: page.documentElement.clientWidth,
    text: page.body.textContent,
    cells: [...page.querySelectorAll("tr")].map(row => [...row.cells].map(cell => cell.innerText.trim())),
    headings: [...page.querySelectorAll("h1, h2, h3, h4")].map(heading => [heading.tagName, heading.innerText]),
    images: [...page.images].map(image => [image.naturalWidth, image.alt]),
    drawings: [...page.querySelectorAll("svg[role=img]")].map(svg => svg.getAttribute("aria-label")),
    scripts: page.scripts.length,
    ids: [...page.querySelectorAll("[id]")].map(element => element.id),
    fetched: view.performance.getEntriesByType("resource").map(entry => entry.name),
  };
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


@dataclass(frozen=True)
class Look:
    """What a browser found on a page, and what it had to say.

    Attributes:
        found: see `LOOK`.
        console: lines of its console.
    """

    found: dict[str, Any]
    console: list[str]


def look(page: str, folder: Path, width: int = 400) -> Look:
    """Opens a page in a frame of this width, in CSS pixels; the page itself stays as it is."""
    chromium = shutil.which("chromium")
    assert chromium, "These tests open pages in a real browser: install Debian's package `chromium`"
    outside = folder / "outside.html"
    frame = f'<iframe id="page" width="{width}" height="3000" frameborder="0" srcdoc="{html.escape(page)}"></iframe>'
    outside.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>{LOOK.replace("<script>", frame + "<script>")}'
    )
    quiet = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    place = [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--dump-dom", outside.as_uri()]
    done = subprocess.run([chromium, *quiet, *place], capture_output=True, text=True, check=True, timeout=120)
    written = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written
    assert written[1], f"the page did not load: {done.stderr}"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Look(json.loads(html.unescape(written[1])), console)
