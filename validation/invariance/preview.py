# test: alone=no timeout=120 needs=chromium,python3-h5py,python3-pil,dataset-fashion-mnist
"""run%task = 'preview': views.png and dataset.html of sets whose content is known.

The page's counts, sizes, tree, thumbnails and findings are compared with the IDX files they came
from, its markup by Python's parser, and a browser opens it. Sets with faults (copies, torn labels,
an empty class, a damaged sample) must be told; ranks must not matter; errors must be errors.
"""

import base64
import html.parser
import io
import os
import re
import shutil
import subprocess

import h5py
import numpy as np
from PIL import Image

from whole_run import check, check_clean, error_lines, expect, finish, hirl, prepare
from whole_run import read_idx, write_idx

VOID = {"meta", "img", "path", "rect", "link", "br"}
NAMES = [b"top <b>&\"", b"tr\xc3\xa4user", b"\xff\x01bad"] + [b"class-%d" % i for i in range(3, 10)]


class Page(html.parser.HTMLParser):
    """Which elements there are, with text and parents; complains about what does not nest."""

    def __init__(self, path):
        super().__init__()
        self.stack, self.elements, self.faults = [], [], []
        with open(path, encoding="utf-8") as file:
            self.source = file.read()
        self.feed(self.source)
        if self.stack:
            self.faults.append("open: %s" % self.stack[-1]["tag"])

    def handle_starttag(self, tag, attrs):
        parents = [e for e in self.stack]
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "parents": parents}
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop()["tag"] != tag:
            self.faults.append("</%s> at %s" % (tag, self.getpos()))

    def handle_data(self, data):
        for element in self.stack:
            element["text"] += data

    def having(self, **attrs):
        names = {k.replace("_", "-"): v for k, v in attrs.items()}
        return [e for e in self.elements if all(e["attrs"].get(k) == v for k, v in names.items())]

    def rows(self):
        """data-row: counts of each split."""
        found = [e for e in self.elements if "data-row" in e["attrs"]]
        return {
            int(e["attrs"]["data-row"]): tuple(map(int, e["attrs"]["data-counts"].split()))
            for e in found
        }

    def findings(self):
        items = [e for e in self.elements if e["tag"] == "li"]
        return {e["attrs"]["id"]: e["text"] for e in items}


def preview(folder, *args, ranks=1):
    args = ("deck.nml", "run%task=preview", "run%%output=%s" % folder, *args)
    expect(hirl(*args, ranks=ranks), 0)
    page = Page(os.path.join(folder, "dataset.html"))
    check(not page.faults, "%s: the page's tags nest%s" % (folder, page.faults[:2] or ""))
    own = re.sub('base64,[^"]*', "", page.source)
    links = set(re.findall(r"(?:https?:)?//[\w.]+[^\s'\"]*", own))
    check(not links, "%s: it names nothing outside itself: %s" % (folder, links or "right"))
    return page


def pack(folder, split, images, labels):
    idx = folder + "-idx"
    os.makedirs(idx, exist_ok=True)
    name = "train" if split == "train" else "t10k"
    write_idx("%s/%s-images-idx3-ubyte" % (idx, name), images)
    write_idx("%s/%s-labels-idx1-ubyte" % (idx, name), labels)
    args = ("pack%%source=%s" % idx, "pack%%output=%s" % folder, "pack%%split=%s" % split)
    expect(hirl("pack.nml", *args, ranks=1), 0)


def check_counts():
    """The usual set, on one rank and on two."""
    page = preview("one")
    preview("two", ranks=2)
    for name in ("views.png", "dataset.html"):
        with open("one/" + name, "rb") as a, open("two/" + name, "rb") as b:
            check(a.read() == b.read(), "%s is the same on 1 and 2 ranks" % name)
    labels = [np.bincount(array, minlength=10) for array in (LABELS, VAL_LABELS)]
    wanted = {i: (labels[0][i], labels[1][i]) for i in range(10)}
    check(page.rows() == wanted, "counts of classes: %s" % (page.rows() == wanted or page.rows()))
    sizes = page.having(id="sizes")[0]["text"]
    check(sizes.count("28") == 12, "sizes are 28: %s" % sizes)
    check("272100.0 %" in page.having(id="encodings")[0]["text"], "all of train is raw")
    thumbs = [e for e in page.elements if e["tag"] == "img"]
    worst, nearest = 0, 255
    for e in thumbs:
        row = next(p for p in reversed(e["parents"]) if "data-row" in p["attrs"])
        strip = base64.b64decode(e["attrs"]["src"].split(",")[1], validate=True)
        strip = np.asarray(Image.open(io.BytesIO(strip)).convert("L")).astype(float)
        for i, index in enumerate(map(int, e["attrs"]["data-index"].split())):
            found = strip[4:60, 64 * i + 4 : 64 * i + 60]
            doubled = np.kron(IMAGES.astype(float), np.ones((1, 2, 2)))
            apart = np.mean(np.abs(doubled - found), axis=(1, 2))
            worst = max(worst, apart[index])
            nearest = min(nearest, np.min(np.delete(apart, index)))
            if LABELS[index] != int(row["attrs"]["data-row"]):
                check(False, "sample %d stands in the row of class %s" % (index, row["attrs"]))
    # JPEG of quality 85 quantises by steps of some ten grey levels, rarely met in full.
    check(
        len(thumbs) == 10 and worst < 6 < nearest,
        "%d strips of thumbnails show their samples: %.1f grey levels, others %.1f"
        % (len(thumbs), worst, nearest),
    )
    picture = Image.open("one/views.png")
    # 16 rows; stored, two views: 8 + 3 lines of 22 + 8, each row a line, a tile and 8.
    check(picture.size == (8 + 3 * 168, 82 + 16 * 190), "views.png has %s pixels" % (picture.size,))


def check_faults():
    """What is wrong with a set is told, and nothing else."""
    images, labels = IMAGES[:100].copy(), LABELS[:100].copy()
    labels[labels == 7] = 3
    order = np.argsort(labels, kind="stable")
    images, labels = images[order], labels[order]
    images[60], labels[60] = images[5], (labels[5] + 1) % 7  # torn
    images[61], labels[61] = images[6], labels[6]
    val_images, val_labels = VAL_IMAGES.copy(), VAL_LABELS.copy()
    val_images[3] = images[0]
    pack("faulty", "train", images, labels)
    pack("faulty", "val", val_images, val_labels)
    page = preview("faulty-out", "data%train=faulty/train-*.h5", "data%val=faulty/val-*.h5")
    found = page.findings()
    most, least = np.bincount(labels).max(), np.bincount(labels)[np.bincount(labels) > 0].min()
    wanted = {
        "empty-0": "1 of 10 classes has no sample in train: class 7.",
        "copies-0": "2 samples of train equal another one byte for byte.",
        "torn": "2 samples have equals with another label.",
        "leaked": "1 samples of val are in train, too.",
    }
    # Neighbours of 98 samples in the order of their classes.
    check("class by class" in found.pop("in-order", ""), "a set in order is told")
    if most >= 10 * least:
        wanted["uneven-0"] = found.get("uneven-0")
    # Sample 0 may have another label in val.
    if val_labels[3] != labels[0]:
        wanted["torn"] = "4 samples have equals with another label."
    check(found == wanted, "findings: %s" % (found == wanted or found))


def check_tree():
    """Names of all sorts, and super-classes of super-classes."""
    parent = [10, 10, 10, 10, 10, 11, 11, 11, 11, -1, 12, 12, -1]
    names = NAMES + [b"soft", b"hard", b"all"]
    shutil.copytree("data", "tree")
    for split in ("train", "val"):
        with h5py.File("tree/%s-00000.h5" % split, "r+") as file:
            file["class_name"] = np.array(names, "S24")
            file["class_parent"] = np.array(parent, np.int32)
    page = preview("tree-out", "data%train=tree/train-*.h5", "data%val=tree/val-*.h5")
    rows, count = page.rows(), np.bincount(LABELS, minlength=10)
    soft, hard = count[:5].sum(), count[5:9].sum()
    sums = {10: soft, 11: hard, 12: soft + hard}
    check(
        all(rows[i][0] == n for i, n in sums.items()) and rows[3][0] == count[3],
        "super-classes have the sums of their classes",
    )
    chains = {}
    for e in page.elements:
        if "data-row" in e["attrs"]:
            opened = [p for p in e["parents"] if p["tag"] == "details"]
            chains[int(e["attrs"]["data-row"])] = len(opened)
    # A super-class's own line is in its details.
    wanted = {**{i: 2 for i in range(9)}, 9: 0, 10: 2, 11: 2, 12: 1}
    check(chains == wanted, "each lies in its super-class: %s" % (chains == wanted or chains))
    text = page.having(id="classes")[0]["text"]
    shown = ['top <b>&" 0', "tr\u00e4user 1", "\ufffd\ufffdbad 2"]
    check(all(s in text for s in shown), "names are text, whatever they hold")
    check(page.having(id="fine"), "nothing looks wrong: %s" % page.findings())


def check_damage():
    """A damaged sample, and labels that mean something else in val."""
    with h5py.File("tree/val-00000.h5", "r+") as file:
        file["class_name"][3] = b"another"
    with h5py.File("tree/train-00000.h5", "r+") as file:
        file["data"][int(file["offset"][17])] ^= 255
    args = ("data%train=tree/train-*.h5", "data%val=tree/val-*.h5", "preview%pick=index")
    args += ("preview%first=16", "run%task=preview", "run%output=damaged-out")
    result = expect(hirl("deck.nml", *args, ranks=1), 0)
    told = Page("damaged-out/dataset.html").findings().get("names-differ", "")
    check("class 3 is 'class-3'" in told and "another" in told, "other names in val: %s" % told)
    named = [line for line in result.text.splitlines() if "sample 17" in line]
    check(len(named) == 1 and "checksum" in named[0], "a damaged sample is named: %s" % named)
    sheet = np.asarray(Image.open("damaged-out/views.png"))
    tiles = [sheet[82 + 190 * i + 22 :][:160, 8 : 8 + 160] for i in range(3)]
    inked = [np.sum(np.all(tile == (0x1C, 0x24, 0x30), 2)) for tile in tiles]
    check(inked[1] > 100 and inked[0] < inked[1] > inked[2], "and its tile says so: %s" % inked)


def check_errors():
    for ranks, args, wanted in (
        (2, ("preview%first=272",), "preview%first = 272, but the set has 272 samples"),
        (2, ("run%output=deck.nml/x",), "deck.nml exists and is not a folder"),
        (0, ("data%train=",), "data%train: shards of the training set are needed"),
        (0, ("mask%kind=block", "mask%n_masked=197"), "mask%grid has 196 patches"),
        (0, ("mix%group=3",), "mix%group = 3"),
        (0, ("mask%grid=14",), "mask%grid has 1 items"),
    ):
        given = ("deck.nml", "run%task=preview", *args)
        result = hirl(*given, ranks=ranks) if ranks else hirl("--check", *given)
        lines = error_lines(expect(result, 1).text)
        check(
            len(lines) == 1 and wanted in lines[0],
            "%s: %s" % (" ".join(args), lines[0] if lines else "no message"),
        )


def check_pack_deck():
    """The deck that packed shows what it packed."""
    args = ("run%task=preview", "run%output=packed-out", "pack%split=val")
    expect(hirl("pack.nml", *args, ranks=1), 0)
    rows = Page("packed-out/dataset.html").rows()
    wanted = {i: (n,) for i, n in enumerate(np.bincount(VAL_LABELS, minlength=10))}
    check(rows == wanted, "a deck that packs shows its split")


def check_browser(path):
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-dev-shm-usage", "--user-data-dir=" + os.path.abspath("chromium")]
    command += ["--enable-logging=stderr", "--window-size=1400,1200", "--hide-scrollbars"]
    command += ["--screenshot=" + os.path.abspath("page.png"), "file://" + os.path.abspath(path)]
    result = subprocess.run(command, stderr=subprocess.PIPE, timeout=100, check=False)
    complaints = [l for l in result.stderr.decode(errors="replace").splitlines() if "CONSOLE" in l]
    check(result.returncode == 0 and not complaints, "the browser's complaints: %s" % complaints)
    pixels = np.asarray(Image.open("page.png").convert("RGB")).reshape(-1, 3)
    n_bar = int(np.sum(np.all(pixels == (0x25, 0x63, 0xEB), 1)))
    # Bars of 7 pixels for ten classes, and what is as grey as thumbnails are.
    check(n_bar > 5000, "bars are drawn: %d pixels" % n_bar)
    n_thumb = int(np.sum(np.all(pixels < 8, 1)))
    check(n_thumb > 20000, "thumbnails are shown: %d black pixels" % n_thumb)


prepare()
IMAGES = read_idx("train-images-idx3-ubyte.gz", 16, (28, 28), 272)
LABELS = read_idx("train-labels-idx1-ubyte.gz", 8, (), 272)
VAL_IMAGES = read_idx("t10k-images-idx3-ubyte.gz", 16, (28, 28), 48)
VAL_LABELS = read_idx("t10k-labels-idx1-ubyte.gz", 8, (), 48)
check_counts()
check_faults()
check_tree()
check_damage()
check_errors()
check_pack_deck()
check_browser("one/dataset.html")
check_clean("preview", "one", "two", "faulty-out", "tree-out")
finish()
