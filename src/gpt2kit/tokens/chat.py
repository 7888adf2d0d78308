"""Chats and prompt-completion pairs as token ids, with a mask of the tokens the loss is taken on.

GPT-2 has no tokens for roles, so a chat is plain text with the one special token the model knows at the end of each
answer:

    You are brief.            (a system message: its text and an empty line)

    User: Hello!
    Assistant: Hi.<|endoftext|>
    User: Bye!
    Assistant: Bye.<|endoftext|>

`tokenizer.CHAT_TEMPLATE` says the same in Jinja, for other tools.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpt2kit.corpus import Message, Piece
from gpt2kit.tokens.tokenizer import Tokenizer

_ANSWER = "Assistant:"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a document that is encoded on its own.

    Attributes:
        text: its text.
        has_loss: whether a model is trained to predict it.
        ends: whether the end-of-text token stands behind it; it has a loss if the text has.
    """

    text: str
    has_loss: bool = True
    ends: bool = False


def chat_segments(messages: Sequence[Message], *, add_generation_prompt: bool = False) -> list[Segment]:
    """A chat in segments: what is asked without loss, each answer with it and with end-of-text behind it.

    GPT-2's word pattern never runs over the border between "Assistant:" and the space behind it, so encoding both
    sides apart gives the ids of the whole.
    """
    segments: list[Segment] = []
    pending = ""
    for message in messages:
        content = message.content.strip()
        if message.role == "system":
            pending += content + "\n\n"
        elif message.role == "assistant":
            segments += [Segment(pending + _ANSWER, has_loss=False), Segment(" " + content, ends=True)]
            pending = "\n"
        else:
            pending += f"{message.role.capitalize()}: {content}\n"
    if add_generation_prompt:
        pending += _ANSWER
    return [*segments, Segment(pending, has_loss=False)] if pending else segments


def render_chat(
    messages: Sequence[Message], tokenizer: Tokenizer, *, add_generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Turn a chat into ids and a loss mask.

    Args:
        messages: the turns, in order. "system" and "assistant" are treated as shown above, any other role is named
            as it is ("User: ...").
        tokenizer: the tokenizer.
        add_generation_prompt: end with "Assistant:", for a model to go on from.

    Returns:
        The ids, the same as those of `tokenizer.CHAT_TEMPLATE` (except that a literal `<|endoftext|>` inside a message
        stays plain text), and as many numbers that are 1 for the tokens of an assistant's answer and the end-of-text
        behind it, and 0 elsewhere.

    Example:
        ids, mask = render_chat([Message("user", "Hello!"), Message("assistant", "Hi.")], tokenizer)
    """
    segments = chat_segments(messages, add_generation_prompt=add_generation_prompt)
    return join_segments(segments, [tokenizer.encode(segment.text) for segment in segments], tokenizer.end_of_text)


def join_segments(
    segments: Sequence[Segment], ids_of_segments: Sequence[list[int]], end_of_text: int
) -> tuple[list[int], list[int]]:
    """The ids of a document and its loss mask (1 or 0 for each), from those of its segments."""
    ids: list[int] = []
    mask: list[int] = []
    for segment, segment_ids in zip(segments, ids_of_segments, strict=True):
        ids += segment_ids
        if segment.ends:
            ids.append(end_of_text)
        mask += [int(segment.has_loss)] * (len(segment_ids) + segment.ends)
    return ids, mask


def piece_segments(piece: Piece, *, completion_separator: str) -> list[Segment]:
    """What a piece of the corpus is stored as.

    A text is one segment, whose end is left to the caller, since the text may go on with the next piece. A chat ends
    with the end-of-text of its last answer; one that ends with another role gets an end-of-text without loss. A pair
    is `prompt + separator + completion + end-of-text`; the prompt with its separator is encoded apart, as it will be
    when a model is asked.
    """
    if piece.kind == "completion":
        asked = Segment(piece.prompt + completion_separator, has_loss=False)
        return [asked, Segment(piece.completion, ends=True)]
    if piece.kind == "text":
        return [Segment(piece.text)]
    segments = chat_segments(piece.messages)
    if segments and not segments[-1].ends:
        # Behind the last answer stands only the line end before the next turn, which never comes.
        last = segments.pop()
        if piece.messages[-1].role != "assistant":
            segments.append(replace(last, ends=True))
    return segments
