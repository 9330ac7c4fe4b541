#!/usr/bin/python3
# test: timeout=600 needs=mpicc,gcc
"""Views per second of processor time, one thread, 375 x 500 to 224: `views_*` compares a package for any x86-64, whose
loops are chosen at run time, with the build under test for this processor, and `views_oldest_*` says what the same
package would do without that choice. All must make the same bits.
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "invariance"))
import instruction_sets as sets


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("HIRL_TMP")) as folder:
        results = sets.measure(sets.build(list(sets.SETS), sets.ALL, folder), 1)
    form = "bench: views_%s ours = %.0f peer = %.0f ratio = %.2f unit = views/s"
    for recipe, (native, _) in results["native"].items():
        package, oldest = results["package"][recipe][0], results["oldest"][recipe][0]
        print(form % (recipe, package, native, package / native))
        print(form % ("oldest_" + recipe, oldest, native, oldest / native))
    found = sets.differences(results)
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
