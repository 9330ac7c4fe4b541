"""Five steps of PyTorch's SGD and AdamW on given gradients: `<rule> <step> <parameter values>` a line.

Parameters start at sin(1..6); the gradient of step t is cos(t + i). Parameter 2 (of two) has no gradient in step 3. Float64.
usage: make_reference.py > steps.txt
"""
import numpy as np
import torch

torch.set_default_dtype(torch.float64)
print(f"# torch {torch.__version__}")


def grad(t, first, shape):
    n = int(np.prod(shape))
    return torch.cos(torch.arange(first, first + n, dtype=torch.float64) + t).reshape(shape)


RULES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01),
}
for rule, make in RULES.items():
    a = torch.nn.Parameter(torch.sin(torch.arange(1.0, 5.0)).reshape(2, 2))
    b = torch.nn.Parameter(torch.sin(torch.arange(5.0, 7.0)))
    optimizer = make([a, b])
    for t in range(1, 6):
        a.grad = grad(t, 0, (2, 2))
        b.grad = None if t == 3 else grad(t, 4, (2,))
        optimizer.step()
        print(rule, t, *(f"{v:.12g}" for v in torch.cat([a.detach().flatten(), b.detach()])))
