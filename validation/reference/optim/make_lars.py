#!/usr/bin/python3
"""Writes lars.txt: parameters after three and six steps of LARS in its published forms, in float64,
written from their descriptions: You et al. 2017 as MMSelfSup has it (`lars`), LARC without clipping
around PyTorch's SGD as SwAV uses it (`larc`), MoCo v3's and MAE's (`joint`).

    /usr/bin/python3 validation/reference/optim/make_lars.py

Parameters a [3, 4], b [2, 3] (begins as zeros), c [5], d [2, 2, 3, 3], e [7]; number i of all of
them begins at sin(i + 1). The gradient of step t is cos(i + t); d's is zero in step 2, c has none
in step 3, and step 4 scales all by 0.5. The learning rate of step t is 0.1 t. A line: form,
nesterov, 1-d parameters adapted, 1-d parameters decayed, step, values of all parameters.
"""

import os
import sys

import numpy as np

SHAPES = {"a": (3, 4), "b": (2, 3), "c": (5,), "d": (2, 2, 3, 3), "e": (7,)}
MOMENTUM, DECAY, TRUST, EPS = 0.9, 0.01, 0.02, 0.01


def size(x):
    return float(np.sqrt(np.sum(x * x)))


def lars(p, g, v, lr, decay, is_adapted, nesterov):
    rate = 1.0
    if is_adapted and size(p) != 0 and size(g) != 0:
        rate = TRUST * size(p) / (size(g) + decay * size(p) + EPS)
    d = rate * lr * (g + decay * p)
    v[...] = MOMENTUM * v + d
    p -= d + MOMENTUM * v if nesterov else v


def sgd(p, d, v, lr, nesterov):
    v[...] = MOMENTUM * v + d
    p -= lr * (d + MOMENTUM * v if nesterov else v)


def larc(p, g, v, lr, decay, is_adapted, nesterov):
    if not is_adapted:
        d = g + decay * p
    elif size(p) != 0 and size(g) != 0:
        d = (g + decay * p) * (TRUST * size(p) / (size(g) + decay * size(p) + EPS))
    else:
        d = g.copy()
    sgd(p, d, v, lr, nesterov)


def joint(p, g, v, lr, decay, is_adapted, nesterov):
    d = g + decay * p
    if is_adapted and size(p) > 0 and size(d) > 0:
        d = d * (TRUST * size(p) / size(d))
    sgd(p, d, v, lr, nesterov)


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "lars.txt"), "w") as file:
        version = sys.version.split()[0]
        file.write("# make_lars.py, Python %s, NumPy %s\n" % (version, np.__version__))
        for rule in (lars, larc, joint):
            for case in range(8):
                nesterov, adapt_1d, decay_1d = case & 1, case >> 1 & 1, case >> 2
                params, first = {}, 0
                for name, shape in SHAPES.items():
                    i = first + np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
                    first += i.size
                    params[name] = [i, np.sin(i + 1) * (name != "b"), np.zeros(shape)]
                for t in range(1, 7):
                    for name, (i, p, v) in params.items():
                        if name == "c" and t == 3:
                            continue
                        g = np.cos(i + t) * (0.5 if t == 4 else 1) * (name != "d" or t != 2)
                        is_1d = p.ndim == 1
                        decay = DECAY if decay_1d or not is_1d else 0.0
                        rule(p, g, v, 0.1 * t, decay, bool(adapt_1d) or not is_1d, nesterov)
                    if t in (3, 6):
                        values = np.concatenate([p.ravel() for i, p, v in params.values()])
                        words = [rule.__name__, nesterov, adapt_1d, decay_1d, t]
                        words += ["%.10g" % value for value in values]
                        file.write(" ".join(map(str, words)) + "\n")


main()
