"""What a batch costs those who chat: the rate of interactive clients, with a batch beside them and without.

    python bench/background.py http://127.0.0.1:11434 MODEL [--clients 16] [--seconds 60] [--lines 1000] [--tokens 48]

Clients ask one request after the other. Their rate is measured alone, then beside a batch, then alone again: the first
and the last say how quiet the machine is. The ratio of the middle to the mean of both is what matters.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import time

from openai import AsyncOpenAI

WORDS = "Tell me about the sea, the weather, a town, a train, a tree, a river, a book and a song in a few words."


async def rate(openai: AsyncOpenAI, model: str, clients: int, seconds: float, tokens: int) -> float:
    """Tokens a second of all clients together."""
    until = time.perf_counter() + seconds
    made = 0

    async def client(number: int) -> None:
        nonlocal made
        turn = 0
        while time.perf_counter() < until:
            turn += 1
            content = f"{WORDS} Number {number} in turn {turn}."
            answer = await openai.chat.completions.create(
                model=model, messages=[{"role": "user", "content": content}], max_tokens=tokens,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            if time.perf_counter() < until and answer.usage is not None:
                made += answer.usage.completion_tokens

    await asyncio.gather(*(client(number) for number in range(clients)))
    return made / seconds


async def batch(openai: AsyncOpenAI, model: str, lines: int, tokens: int) -> str:
    text = "\n".join(
        json.dumps(
            {
                "custom_id": f"{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": model,
                    "messages": [{"role": "user", "content": f"{WORDS} Line {number}."}],
                    "max_tokens": tokens,
                    "ignore_eos": True,
                },
            }
        )
        for number in range(lines)
    )
    file = await openai.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")
    made = await openai.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return made.id


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    async with AsyncOpenAI(base_url=f"{asked.url}/v1", api_key="none", timeout=600) as openai:
        measure = (openai, asked.model, asked.clients, asked.seconds, asked.tokens)
        await rate(openai, asked.model, asked.clients, 5, asked.tokens)  # loads the model
        before = await rate(*measure)
        id_ = await batch(openai, asked.model, asked.lines, asked.tokens)
        beside = await rate(*measure)
        counts = (await openai.batches.retrieve(id_)).request_counts
        await openai.batches.cancel(id_)
        await asyncio.sleep(2)  # it ends at once
        after = await rate(*measure)
    alone = (before + after) / 2
    done = counts.completed if counts is not None else 0
    print(
        f"alone {before:.1f} and {after:.1f} tokens a second, beside a batch {beside:.1f}: {beside / alone:.3f} of it"
    )
    print(f"lines answered meanwhile: {done}")


if __name__ == "__main__":
    asyncio.run(main())
