"""`verify`: read every byte of stored models, name what is damaged, and mend it where that is asked."""

from __future__ import annotations

from puna.cli.connect import store
from puna.cli.progress import error_console, reporter, stopping
from puna.client.verification import DamagedFile, VerifiedStore
from puna.errors import PunaError
from puna.types import Progress


class Damaged(PunaError):
    """What is stored is not what was stored."""


async def verify(model: str, *, every: bool, repair: bool, insecure: bool) -> None:
    """Damaged when something is and stays so."""
    console = error_console()
    found: list[DamagedFile] = []
    counts = VerifiedStore(0, 0, 0)
    async with store() as server:
        with stopping("Stopped: not everything was read.", console), reporter(console) as shown:
            async for step in server.verify(model, repair=repair, insecure=insecure):
                match step:
                    case Progress():
                        shown.show(step)
                    case DamagedFile():
                        found.append(step)
                    case _:
                        counts = step
    for file in found:
        print(line(file))
    left = [file for file in found if not file.mended]
    if left:
        models = sorted({file.model for file in left})
        cure = "" if repair else f". Mend them with: puna verify {models[0] if len(models) == 1 else '--all'} --repair"
        raise Damaged(f"{_files(len(left))} of {', '.join(models)} {'is' if len(left) == 1 else 'are'} damaged{cure}")
    what = "all models" if every else model
    print(f"verified {what} ({counts.models}): every byte is as it was stored")


def line(file: DamagedFile) -> str:
    """One file, in one line."""
    digest = f" ({file.digest})" if file.digest else ""
    if file.mended:
        return f"repaired: {file.words}{digest}"
    return f"damaged: {file.words}{digest}" + (f"; cannot be repaired: {file.reason}" if file.reason else "")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
