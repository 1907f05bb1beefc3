"""The native library: which variant this processor takes, why there is none, and its functions with their types.

`native_build.py` builds the variants, each for one set of instructions. `why_not` and `variant` load no more than the
portable one, which is small, and import nothing heavy: the server's process may ask. Nothing is kept between calls, so
an installation that is mended is seen; a library that was loaded stays so.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puna.errors import LoadFailed, PunaError
from puna.settings import CPU_VARIANTS, SettingError

if TYPE_CHECKING:
    from ctypes import CDLL

ABI = 5
"""What `puna_abi` has to answer: changed on both sides whenever a function or a structure changes its meaning."""

VARIABLE = "PUNA_CPU_VARIANT"

_BUILT = Path(__file__).parent / "native" / "built"
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_PORTABLE = "portable"
_SANITIZED = "-sanitized"
_REMEDY = "install Puna again, or 'python -m native_build library' in its source tree"


def signatures() -> Mapping[str, tuple[Any, list[Any]]]:
    """Every function of the library: what it returns, and its arguments."""
    from ctypes import c_char_p, c_float, c_int32, c_int64, c_void_p

    return {
        "puna_abi": (c_int32, []),
        "puna_variant": (c_char_p, []),
        "puna_supported": (c_int32, [c_char_p]),
        "puna_struct_bytes": (c_int64, [c_int32]),
        "puna_format": (c_int32, [c_int32]),
        "puna_packed_bytes": (c_int64, [c_int32, c_int64, c_int64]),
        "puna_pack": (
            c_int32,
            [c_int32, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_float, c_void_p, c_int64, c_int64, c_int64],
        ),
        "puna_unpack": (c_int32, [c_int32, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
        "puna_block_bytes": (c_int64, [c_int32, c_int32, c_int32]),
        "puna_convolution_bytes": (c_int64, [c_int32]),
        "puna_delta_bytes": (c_int64, [c_int32, c_int32, c_int32]),
        "puna_state_bytes": (c_int64, [c_int32, c_int32]),
        "puna_create": (c_void_p, [c_void_p, c_int32, c_char_p, c_int64]),
        "puna_destroy": (None, [c_void_p]),
        "puna_step": (c_int32, [c_void_p, c_void_p, c_char_p, c_int64]),
        "puna_spent": (c_int32, [c_void_p, c_int32, c_void_p]),
        "puna_read": (c_int32, [c_void_p, c_void_p, c_int64]),
        "puna_angles": (c_int32, [c_void_p, c_int64, c_void_p, c_void_p]),
        "puna_product": (c_int32, [c_void_p, c_void_p, c_int32, c_void_p]),
        "puna_choose_room": (c_int64, [c_int32]),
        "puna_choose": (
            c_int32,
            [c_void_p, c_void_p, c_int64, c_int64, c_int32, c_void_p, c_int32, c_void_p, c_int64, c_char_p, c_int64],
        ),
    }


def load(name: str | None = None) -> CDLL:
    """The library, its functions declared; a call releases the GIL. `name`: a variant, else as `variant` says.

    SettingError for a variant that was named and cannot be had; LoadFailed where there is no library, or another one
    than this version's.
    """
    return opened(variant() if name is None else name)


def variant(wish: str | None = None) -> str:
    """The variant that `load` takes here: `wish`, or what PUNA_CPU_VARIANT names, else the best for the processor.

    Errors as of `load`.
    """
    wish = os.environ.get(VARIABLE, "").strip() if wish is None else wish
    return pick(_built(), _supported(), wish)


def variants() -> list[str]:
    """All that are built and that this processor runs: sanitized ones if `variant` is one, else the others.

    A process either has the sanitizers' runtime from its start, or cannot load them. Errors as of `load`.
    """
    supported, sanitized = _supported(), variant().endswith(_SANITIZED)
    return [n for n in _built() if n.partition("-")[0] in supported and n.endswith(_SANITIZED) is sanitized]


def better() -> str | None:
    """A variant that would be taken here if it were built, else None. Errors as of `load`."""
    best = pick(CPU_VARIANTS, _supported())
    return best if best not in _built() else None


def why_not(wish: str | None = None) -> str | None:
    """Why the library cannot be used here as things are set up, in words; None if it can. `wish`: as of `variant`."""
    try:
        variant(wish)
    except PunaError as error:
        return error.message
    return None


def pick(built: Collection[str], supported: Collection[str], wish: str = "") -> str:
    """Of the libraries that are `built`, the best of the `supported` variants, or the `wish` ('': none).

    A build of a developer's is taken only if it is named: `avx2-gcc` is one of the variant `avx2`.
    SettingError if the wish cannot be had, LoadFailed if nothing can.
    """
    able = [name for name in CPU_VARIANTS if name in built and name in supported]
    if wish:
        if wish in built and wish.partition("-")[0] in supported:
            return wish
        kept = "is not built" if wish not in built else "needs instructions that this processor does not have"
        raise SettingError(VARIABLE, wish, f"{' or '.join(able) or 'nothing'} on this machine: that variant {kept}")
    if not able:
        raise LoadFailed("the cpu engine's library is not built for this processor")
    return able[0]


def opened(label: str) -> CDLL:
    """The library of that label, whether or not the processor runs it. LoadFailed where it is missing or not ours."""
    from ctypes import CDLL

    path = _BUILT / f"{label}{_SUFFIX}"
    try:
        library = CDLL(str(path))
        for name, (result, arguments) in signatures().items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        raise LoadFailed(f"the cpu engine's library cannot be loaded: {error}") from error
    except AttributeError as error:
        raise LoadFailed(f"the cpu engine's library {path.name} is not of this version of Puna: {_REMEDY}") from error
    said = (library.puna_abi(), library.puna_variant().decode())
    if said != (ABI, label.partition("-")[0]):
        raise LoadFailed(f"the cpu engine's library {path.name} is not of this version of Puna: {_REMEDY}")
    return library


def digest(name: str | None = None) -> str:
    """Of the library that `load` takes: of its very bytes. Errors as of `load`."""
    path = _BUILT / f"{variant() if name is None else name}{_SUFFIX}"
    return sha256(path.read_bytes()).hexdigest()


def _built() -> list[str]:
    """Labels of what is there. LoadFailed says why nothing is."""
    found = [path.name.removesuffix(_SUFFIX) for path in _BUILT.glob(f"*{_SUFFIX}")]
    if _PORTABLE in found:
        return found
    try:
        failure = json.loads((_BUILT / "built.json").read_text(encoding="utf-8"))["failure"]
    except (OSError, ValueError, LookupError, TypeError):
        failure = None
    raise LoadFailed(
        f"the cpu engine's library could not be built: {failure}"
        if failure
        else f"the cpu engine's library is missing: {_REMEDY}"
    )


def _supported() -> list[str]:
    """The variants that this processor, under this system, can run."""
    asked = opened(_PORTABLE)
    found = [name for name in CPU_VARIANTS if asked.puna_supported(name.encode())]
    if not found:
        raise LoadFailed("the cpu engine needs a newer processor (x86-64-v2: SSE4.2 and POPCNT)")
    return found
