"""Chat, complete, embed: resolve a Model, lease its Runner, make the Prompt, stream Events."""

from puna.inference.inference import Inference

__all__ = ["Inference"]
