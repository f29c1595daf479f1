"""The agent that the tests of the chat page talk to, served by `dev`. It knows about paint and tyres; the rest is a script."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

from agent_worker import Turn, Worker
from agent_worker.agent.tools import ToolCall
from agent_worker.scripted.model import scripted
from selfhost_transport.turns.values import Json

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

TYRES = """For gravel, width and pressure matter more than tread:

1. **40 to 45 mm** wide, so that the tyre floats over loose stones instead of cutting into them.
2. *Tubeless*, at 2.2 to 2.8 bar: it swallows small cuts, and does not pinch on edges.
3. A **smooth centre** with knobs at the shoulders. It rolls easily on the road between, and holds in corners.

If you ride more road than gravel, take 38 mm and a bit more pressure. In wet forests take knobs across the whole width; \
they cost about two watts on tarmac, which no one notices on the way home.
"""

HOSTILE = """<script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2">

[first](javascript:window.hacked=3) [second](data:text/html,<b>x</b>) [third](/metrics) ![pixel](https://tracker.example/p.png)

Text with <b onclick="window.hacked = 4">tags</b> in it.
"""

CODE = "```python\n" + "def volume(width: float, height: float) -> float:  # of a wall\n" * 200 + "```\n"

ANSWERS = {"paint": MARKDOWN, "tyres": TYRES}


@worker.agent("guide")
async def guide(turn: Turn) -> None:
    """Answer from the texts above, or as the scripted model does."""
    text = await turn.text()
    wanted = re.match(r"show: (\w+)(?: rate=(\d+))?", text)
    if wanted is not None:
        shown = {"markdown": MARKDOWN, "hostile": HOSTILE, "long": _long(), "code": CODE}[wanted[1]]
        await turn.pipe(_paced(shown, int(wanted[2] or 0)))
    elif text.startswith("Order"):
        await _order(turn)
    elif found := next((answer for word, answer in ANSWERS.items() if word in text), None):
        await turn.pipe(_paced(found, 30))
    else:
        await scripted(turn)


async def _order(turn: Turn) -> None:
    """Order paint, once someone has allowed it."""
    async with turn.message():
        answers = await turn.answers()
        if not answers:
            await turn.pipe(_paced("I have put the order together. It costs €215.70 in all.", 0))
            order: dict[str, Json] = {"paint": "matt, white", "litres": 8.5, "deliver_to": "12 Mill Lane"}
            await turn.suspend([ToolCall("order_paint", order, needs_approval=True)])
        if answers[-1].approved:
            await turn.tool(answers[-1].call, _ordered)
        await turn.pipe(_paced("Done." if answers[-1].approved else "Then I leave it.", 0))


async def _ordered(paint: str, litres: float, deliver_to: str) -> Json:
    """The shop's answer."""
    return {"order": "A-1207", "arrives": "Thursday"}


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
