"""Run the Python examples of the documents: every ```python block, in order, file by file.

A block whose opening line says ```python no-run is read by people only.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

BLOCK = re.compile(r"^```python *\n(.*?)^```", re.MULTILINE | re.DOTALL)


def check(path: Path) -> int:
    """Run the blocks of one document in one namespace; return how many there were."""
    text = path.read_text()
    namespace: dict[str, object] = {"__name__": "__main__"}
    n_blocks = 0
    for block in BLOCK.finditer(text):
        # Blank lines in front keep the line numbers of tracebacks those of the document.
        first = text.count("\n", 0, block.start(1))
        code = compile("\n" * first + block.group(1), str(path), "exec")
        exec(code, namespace)
        n_blocks += 1
    return n_blocks


def main(names: list[str]) -> int:
    for name in names:
        try:
            n_blocks = check(Path(name))
        except Exception:
            traceback.print_exc()
            print(f"an example of {name} failed", file=sys.stderr)
            return 1
        print(f"{name}: {n_blocks} examples ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
