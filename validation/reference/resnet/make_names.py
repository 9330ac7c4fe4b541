"""Names and shapes of torchvision's ResNets, without fc and num_batches_tracked: `<variant> <name> <shape>` a line.

usage: make_names.py > names.txt
"""
import torch
import torchvision

print(f"# torch {torch.__version__}, torchvision {torchvision.__version__}")
for variant in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
    for name, value in getattr(torchvision.models, variant)().state_dict().items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            print(variant, name, "x".join(str(d) for d in value.shape))
