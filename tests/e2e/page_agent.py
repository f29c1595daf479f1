"""The agent that the tests of the chat page talk to, served by `dev`: what begins with `show:` it shows, the rest is a script."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

from agent_worker import Turn, Worker
from agent_worker.scripted.model import scripted

worker = Worker()

MARKDOWN = """Here is the plan for the **three** rooms, with what each of them costs.

### Costs

| Room | Area | Paint | Price |
|:-----|-----:|:-----:|------:|
| Kitchen | 14 m² | 2 coats | €96.00 |
| Hall | 9 m² | 1 coat | €41.50 |
| Study | 11 m² | 2 coats | €78.20 |

The area of a wall is $A_{wall} = w \\cdot h$, so a litre of paint covers \\( 8\\,m^2 \\).

- [x] Measure the walls
- [ ] Buy the paint, see [the shop](https://example.com/paint?room=1&coat=2)
- [ ] Ask for `matt` or `satin`

```python
def litres(walls: list[tuple[float, float]], coats: int = 2) -> float:
    \"\"\"How much paint the walls need.\"\"\"
    area = sum(width * height for width, height in walls)
    return round(area * coats / 8, 1)  # 8 m² a litre
```

> Prices &amp; areas are estimates.
"""

HOSTILE = """<script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2">

[first](javascript:window.hacked=3) [second](data:text/html,<b>x</b>) [third](/metrics) ![pixel](https://tracker.example/p.png)

Text with <b onclick="window.hacked = 4">tags</b> in it.
"""


@worker.agent("guide")
async def guide(turn: Turn) -> None:
    """Answer from the texts above, or as the scripted model does."""
    wanted = re.match(r"show: (\w+)(?: rate=(\d+))?", await turn.text())
    if wanted is None:
        await scripted(turn)
        return
    text = {"markdown": MARKDOWN, "hostile": HOSTILE, "long": _long()}[wanted[1]]
    rate = int(wanted[2] or 0)
    await turn.pipe(_paced(text, rate))


def _long() -> str:
    """Ten thousand tokens, with everything in it that is slow to draw."""
    return "".join(_paragraphs())


def _paragraphs() -> Iterator[str]:
    for number in range(50):
        yield (
            f"### Part {number}\n\n"
            + "one two **three** four `five` six [seven](https://example.com) eight. " * 14
            + "\n\n"
        )
        yield "| a | b |\n|--|--|\n" + "| one | two |\n" * 5 + "\n"
        yield "```python\n" + f"value_{number} = compute({number})  # a remark\n" * 10 + "```\n\n"


async def _paced(text: str, rate: int) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for count, token in enumerate(re.findall(r"\s*\S+|\s+$", text)):
        if rate and (delay := began + count / rate - loop.time()) > 0:
            await asyncio.sleep(delay)
        yield token
