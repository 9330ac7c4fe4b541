# test: alone=no timeout=300 needs=chromium,python3-h5py,python3-pil,dataset-fashion-mnist
"""report.html of a run that was restarted, opened in a real browser.

Chromium runs the page without a window and prints what it made of it. The points of the charts are
turned back into numbers and compared with metrics.jsonl; a copy of the page moves the pointer and
clicks, and what it then shows is compared too. A picture of it must hold the colours of the lines.
"""

import html
import os
import re
import subprocess

import numpy as np
from PIL import Image

from whole_run import check, check_clean, expect, finish, hirl, metrics, prepare

CHARTS = ("loss", "knn", "lr", "rate", "time", "grad")
N_STEPS, N_BATCHES = 20, 8
ACTIONS = """<script>
const figure = document.getElementById('chart-loss'), svg = figure.querySelector('svg');
const box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent('pointermove',
  { clientX: box.right - 12 * box.width / 640, clientY: box.top + 50, bubbles: true }));
document.querySelector('#chart-knn .legend button').click();
</script></body>"""


def chromium(page, *options, is_broken=False):
    """What it printed. It complains about a page that is broken, and about no other."""
    command = [
        "chromium",
        "--headless=new",
        "--no-sandbox",  # which root may not have
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--window-size=1400,1200",
        "--user-data-dir=" + os.path.abspath("chromium"),
        "--enable-logging=stderr",
        *options,
        "file://" + os.path.abspath(page),
    ]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False
    )
    errors = result.stderr.decode(errors="replace").splitlines()
    console = [line for line in errors if "CONSOLE" in line]
    check(
        result.returncode == 0 and is_broken == bool(console),
        "%s: the browser's complaints: %s" % (page, console[0] if console else "none"),
    )
    return result.stdout.decode(errors="replace")


def chart_of(dom, name):
    found = re.search(r'<figure class="chart" id="chart-%s">.*?</figure>' % name, dom, re.S)
    return found.group(0) if found else ""


def series_of(chart):
    """Points of each line of a chart in the units of its axes, and half a pixel's last digit."""
    x0, x1 = (float(v) for v in re.search(r'data-x="(\S+) (\S+)"', chart).groups())
    y0, y1 = (float(v) for v in re.search(r'data-y="(\S+) (\S+)"', chart).groups())
    lines = {}
    groups = re.findall(r'<g class="series[^>]*data-name="([^"]*)">(.*?)</g>', chart, re.S)
    for name, group in groups:
        text = " ".join(re.findall(r'<polyline points="([^"]*)"', group))
        points = np.array([[float(v) for v in p.split(",")] for p in text.split()]).reshape(-1, 2)
        x = x0 + (points[:, 0] - 58) / (628 - 58) * (x1 - x0)
        y = y0 + (240 - points[:, 1]) / (240 - 12) * (y1 - y0)
        lines[html.unescape(name)] = np.stack((x, y), 1)
    return lines, 0.006 * max((x1 - x0) / 570, 0), 0.006 * (y1 - y0) / 228


def check_line(what, found, wanted, x_bound, y_bound):
    """Written with two digits after the point, 0.005 of a pixel apart at most."""
    wanted = np.array(wanted, float)
    fine = found is not None and found.shape == wanted.shape
    fine = fine and np.all(np.abs(found - wanted) <= (x_bound, y_bound))
    check(fine, "%s: %d points are where the numbers are" % (what, len(wanted)))
    if not fine:
        print(found, wanted, x_bound, y_bound, sep="\n")


def check_values(dom, run):
    lines = metrics(os.path.join(run, "metrics.jsonl"))
    steps = [line for line in lines if "loss" in line]
    for name, key, label in (
        ("loss", "loss_moco", "moco"),
        ("loss", "loss", "total"),
        ("lr", "lr", "lr"),
        ("rate", "images_per_s", "images_per_s"),
        ("grad", "grad_norm", "grad_norm"),
    ):
        found, x_bound, y_bound = series_of(chart_of(dom, name))
        wanted = [(line["step"] / N_BATCHES, line[key]) for line in steps]
        check_line("%s, %s" % (name, label), found.get(label), wanted, x_bound, y_bound)
    found, x_bound, y_bound = series_of(chart_of(dom, "knn"))
    key = "knn_top1_k5"
    wanted = [(line["step"] / N_BATCHES, line[key]) for line in lines if key in line]
    check_line("knn, k = 5", found.get("k = 5"), wanted, x_bound, y_bound)
    found, x_bound, y_bound = series_of(chart_of(dom, "time"))
    # Times have six digits after the point.
    parts = ("t_compute", "t_h2d", "t_comm")
    shares = [
        (line["step"] / N_BATCHES, 100 * sum(line[part] for part in parts) / line["t_step"])
        for line in steps
    ]
    both = found.get("communication")
    check_line("time, compute and communication", both, shares, x_bound, y_bound)
    restarts = [line["step"] for line in lines if "restart" in line]
    marks = re.search(r'class="restart" d="([^"]*)"', chart_of(dom, "loss"))
    places = [float(x) for x in re.findall(r"M([\d.]+)", marks.group(1))] if marks else []
    wanted = [58 + 570 * step / N_STEPS for step in restarts]
    check(
        len(restarts) == 2 and np.allclose(places, wanted, atol=0.06),
        "restarts at steps %s are marked" % restarts,
    )


def check_page(dom, run):
    with open(os.path.join(run, "report.html")) as file:
        page = file.read()
    check('data-ready="yes"' in dom, "the page's script ran to its end")
    for name in CHARTS:
        chart = chart_of(dom, name)
        ticks = {kind: len(re.findall(r'<text class="%s"' % kind, chart)) for kind in "xy"}
        check(min(ticks.values()) >= 3, "chart %s is there, its axes have ticks %s" % (name, ticks))
    own = re.sub(r"<pre.*?</pre>", "", page, flags=re.S)
    check(not re.search(r"\b(nan|inf)\b", own), "no NaN")
    links = set(re.findall(r"(?:https?:)?//[\w.]+[^\s'\"]*", own))
    check(
        links <= {"http://www.w3.org/2000/svg"} and "src=" not in page and "url(#clip" in page,
        "it names nothing outside itself",
    )
    for name in ("deck.short.nml", "deck.full.nml"):
        with open(os.path.join(run, name)) as file:
            deck = [line for line in file.read().splitlines() if line and line[0] != "!"]
        shown = re.search(r'<pre id="%s">(.*?)</pre>' % name[:-4].replace(".", "-"), dom, re.S)
        check(
            shown and all(line in html.unescape(shown.group(1)) for line in deck),
            "it shows the %d lines of %s" % (len(deck), name),
        )
    build = re.search(r'<table id="build">(.*?)</table>', dom, re.S)
    names = ("version", "commit", "compiler", "mpi", "hdf5")
    check(build and all("<th>%s</th>" % name in build.group(1) for name in names), "and the build")


def check_actions(run):
    with open(os.path.join(run, "report.html")) as file:
        page = file.read()
    with open("broken.html", "w") as file:
        file.write(page.replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>'))
    chromium("broken.html", "--dump-dom", is_broken=True)
    with open("moved.html", "w") as file:
        file.write(page.replace("</body>", ACTIONS))
    dom = chromium("moved.html", "--dump-dom")
    tip = re.search(r'<div class="tip"[^>]*>([^<]*)</div>', chart_of(dom, "loss"))
    last = [line for line in metrics(os.path.join(run, "metrics.jsonl")) if "loss" in line][-1]
    shown = dict(re.findall(r"(\w+): ([\d.]+)", tip.group(1))) if tip else {}
    check(
        tip
        and "epoch 2.50, step 20" in tip.group(1)
        and abs(float(shown.get("total", 0)) - last["loss"]) < 1e-3 * last["loss"],
        "the pointer shows the last values: %s" % (tip.group(1).split("\n") if tip else "nothing"),
    )
    pattern = r'<g class="series[^"]*hidden"[^>]*data-name="([^"]*)"'
    hidden = re.findall(pattern, chart_of(dom, "knn"))
    check(hidden == ["k = 5"], "a click on a legend hides its line: %s" % hidden)


def check_picture(run):
    chromium(os.path.join(run, "report.html"), "--screenshot=" + os.path.abspath("page.png"))
    pixels = np.asarray(Image.open("page.png").convert("RGB")).reshape(-1, 3).astype(int)
    for name, color in (("the first line", 0x2563EB), ("restarts", 0xB4234A)):
        # Thin lines cover a pixel in part: what counts is the way from white to the colour.
        way = np.array([color >> 16, color >> 8 & 255, color & 255]) - 255.0
        share = (pixels - 255) @ way / (way @ way)
        apart = np.max(np.abs(pixels - 255 - share[:, None] * way), axis=1)
        n = int(np.sum((share > 0.4) & (apart <= 12)))
        # A chart is 400 pixels wide and half of that high.
        check(n > 100, "the picture has %d pixels in the colour of %s" % (n, name))


prepare()
args = ("deck.nml", "run%output='run <b> & co'", "run%log_every=2", "knn%every_epochs=1")
for stop in (5, 12, 0):
    expect(hirl(*args, "run%%max_steps=%d" % stop), 0)
    with open("run <b> & co/report.html") as file:
        whole = file.read().endswith("</html>\n")
    check(whole, "a whole page after %s steps" % (stop or N_STEPS))
dom = chromium("run <b> & co/report.html", "--dump-dom")
check("<h1>run &lt;b&gt; &amp; co</h1>" in dom, "the folder's name is text")
check_page(dom, "run <b> & co")
check_values(dom, "run <b> & co")
check_actions("run <b> & co")
check_picture("run <b> & co")
check_clean("report", "run <b> & co")
finish()
