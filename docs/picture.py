"""Make the picture of the README, `docs/report.png`, from the charts and verdicts of an experiment.

Usage: python docs/picture.py [FOLDER]    the folder that `verydeep reproduce` wrote; docs/imagenette if none is named

Needs Chromium, which draws it.
"""

import json
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from verydeep.reproduction.report import MARKS

HERE = Path(__file__).parent
SIZE = "1280,1090"
STYLE = """
body { font: 15px 'DejaVu Sans', sans-serif; color: #1b2026; margin: 20px 28px }
h1 { font-size: 26px; margin: 0 0 14px }
div { display: grid; grid-template-columns: 1fr 1fr; gap: 4px 40px; align-items: start }
img { width: 100%; display: block }
p { color: #555c66; margin: 2px 0 12px; line-height: 1.35 }
span { display: block; overflow: hidden; aspect-ratio: 1.34; width: 74% }
ol { columns: 2; column-gap: 40px; margin: 10px 0 0; padding: 0; list-style-position: inside; line-height: 1.7 }
b { display: inline-block; width: 1.4em; text-align: center }
"""


def page(folder: Path) -> str:
    """Return the page that is drawn; of the learning curves only the first panel is seen."""
    results = json.loads((folder / "results.json").read_text())
    chart = {name: f"<img src='{(folder / name).resolve().as_uri()}.svg'>" for name in ("depth", "loss", "gains")}
    claims = "".join(f"<li><b>{MARKS[one['verdict']]}</b>{escape(one['says'])}</li>" for one in results["findings"])
    return f"""<!doctype html><meta charset="utf-8"><style>{STYLE}</style>
<h1>The VGG paper on {escape(results["source"]["name"])}, {len(results["seeds"])} seeds</h1>
<div><section>{chart["depth"]}
<p>Test error at one scale by weight layers; bars are 95% intervals, small points seeds.</p>
<span>{chart["loss"]}</span><p>Training loss of every seed at S = 256.</p></section>
<section>{chart["gains"]}<p>What each idea of the paper adds: left of the line it lowers the error.</p></section></div>
<ol>{claims}</ol>
<p>The paper's claims: ✓ holds &nbsp; ◐ in part &nbsp; ✗ reversed &nbsp; ? cannot be told</p>"""


def main() -> None:
    """Draw the picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "imagenette"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "page.html"
        file.write_text(page(folder), encoding="utf-8")
        picture = f"--screenshot={HERE / 'report.png'}"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}", picture)
        subprocess.run(["chromium", *options, file.as_uri()], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
