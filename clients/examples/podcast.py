"""Turn a document into a podcast of two hosts, into a file that can be played while it is being made.

python clients/examples/podcast.py README.md --out podcast.opus                     the script by rules
python clients/examples/podcast.py README.md --llm-url http://127.0.0.1:11434/v1 --llm-model llama3.2   by an LLM
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import textwrap
import urllib.request
from pathlib import Path

from streamer_client import Audio, AudioFileWriter, connect

QUESTIONS = ("What should we know about {}?", "And what about {}?", "Tell me more about {}.", "How is it with {}?")
PROMPT = (
    "Make a short podcast dialogue of this document, for two hosts: S1 explains, S2 asks. Answer with the dialogue "
    "alone; begin every turn with [S1] or [S2]. Plain sentences that can be read aloud, no markup.\n\n"
)

Turns = list[tuple[str, str]]


def by_rules(document: str) -> Turns:
    """S2 makes a question of each heading, S1 answers with the paragraphs under it."""
    text = re.sub(r"```.*?(```|\Z)", "", document, flags=re.DOTALL)
    turns: Turns = []
    for block in re.split(r"\n\s*\n|\n(?=#)", text):
        heading, _, body = block.strip().partition("\n") if block.lstrip().startswith("#") else ("", "", block)
        topic = spoken(heading)
        if topic and not turns:
            turns += [("S1", f"Welcome! Today we talk about {topic}."), ("S2", "I am curious. Please begin.")]
        elif topic:
            turns.append(("S2", topic if topic.endswith("?") else QUESTIONS[len(turns) % 4].format(topic)))
        if spoken(body):
            turns.append(("S1", spoken(body)))
    return turns


def spoken(markdown: str) -> str:
    """The words of a piece of Markdown; empty if there is nothing to say."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]*>", r"\1", markdown)
    text = re.sub(r"^\s*(#+|[-*+>]|\d+\.)\s|[*`\[\]]", "", text, flags=re.MULTILINE)
    text = " ".join(re.sub(r"[_|]", " ", text).split())
    return text if re.search(r"\w", text) else ""


def by_llm(document: str, url: str, model: str, key: str) -> Turns:
    """Ask any endpoint that speaks OpenAI's chat completions."""
    asked = {"model": model, "messages": [{"role": "user", "content": PROMPT + document}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        text = json.load(answer)["choices"][0]["message"]["content"]
    return [(speaker, spoken(words)) for speaker, words in re.findall(r"\[(S[12])\]([^\[]+)", text) if spoken(words)]


async def main(given: argparse.Namespace) -> None:
    """Write the script, then speak it turn by turn into the file."""
    document = given.document.read_text(encoding="utf-8")
    if given.llm_url:
        turns = await asyncio.to_thread(by_llm, document, given.llm_url, given.llm_model, given.llm_key)
    else:
        turns = by_rules(document)
    if not turns:
        raise SystemExit("there is no dialogue in it")
    made_ms = reported_ms = 0.0
    async with connect(given.url, voices={"S1": given.host, "S2": given.guest}, seed=given.seed) as dialogue:
        with AudioFileWriter(given.out, dialogue.ready.audio) as file:
            for speaker, text in turns:
                print(f"{speaker}: {text}", flush=True)
                for part in textwrap.wrap(text, dialogue.ready.limits.max_text_chars - len("[S1] ")):
                    async for event in dialogue.say(f"[{speaker}] {part}"):
                        if isinstance(event, Audio):
                            file.write(event)
                            made_ms += event.duration_ms
                            # Nobody listens yet: the server need not keep to the pace of speech.
                            if made_ms - reported_ms >= 1000:
                                reported_ms = made_ms
                                await dialogue.played(round(made_ms))
    print(f"wrote {given.out}: {made_ms / 1000:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--out", type=Path, default=Path("podcast.opus"), help=".opus or .wav")
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--host", default="heart", help="voice")
    parser.add_argument("--guest", default="joe", help="voice")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--llm-url", help="write the script with an LLM; for example http://127.0.0.1:11434/v1")
    parser.add_argument("--llm-model", default="gpt-4o-mini")
    parser.add_argument("--llm-key", default="none")
    asyncio.run(main(parser.parse_args()))
