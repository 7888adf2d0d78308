"""Chats and prompt-completion pairs as token ids, with a mask of the tokens the loss is taken on.

GPT-2 has no tokens for roles, so a chat is plain text with the one special token the model knows at the end of each
answer:

    You are brief.            (a system message: its text and an empty line)

    User: Hello!
    Assistant: Hi.<|endoftext|>
    User: Bye!
    Assistant: Bye.<|endoftext|>

`CHAT_TEMPLATE` says the same in Jinja; it is saved with the tokenizer, so that other tools make the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt2kit.corpus import Message
    from gpt2kit.tokens.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{{- message['content'] | trim + '\\n\\n' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- 'Assistant: ' + message['content'] | trim + eos_token + '\\n' -}}"
    "{%- else -%}"
    "{{- message['role'] | capitalize + ': ' + message['content'] | trim + '\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
_ANSWER = "Assistant:"


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
        The ids, the same as those of `CHAT_TEMPLATE` (except that a literal `<|endoftext|>` inside a message stays
        plain text), and as many numbers that are 1 for the tokens of an assistant's answer and the end-of-text
        behind it, and 0 elsewhere.

    Example:
        ids, mask = render_chat([Message("user", "Hello!"), Message("assistant", "Hi.")], tokenizer)
    """
    ids: list[int] = []
    mask: list[int] = []
    pending = ""
    for message in messages:
        content = message.content.strip()
        if message.role == "system":
            pending += content + "\n\n"
        elif message.role == "assistant":
            # GPT-2's word pattern never runs over the border between ":" and a space, so encoding both sides apart
            # gives the ids of the whole.
            asked = tokenizer.encode(pending + _ANSWER)
            answer = [*tokenizer.encode(" " + content), tokenizer.end_of_text]
            ids += asked + answer
            mask += [0] * len(asked) + [1] * len(answer)
            pending = "\n"
        else:
            pending += f"{message.role.capitalize()}: {content}\n"
    if add_generation_prompt:
        pending += _ANSWER
    rest = tokenizer.encode(pending)
    return ids + rest, mask + [0] * len(rest)


def chat_document(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """A chat as a document of the token store: as `render_chat`, and ending with end-of-text.

    Returns:
        The ids up to and with the end-of-text of the last answer; where a chat ends with another role, end-of-text is
        put behind it, with no loss.
    """
    ids, mask = render_chat(messages, tokenizer)
    if messages and messages[-1].role == "assistant":
        length = len(ids) - ids[::-1].index(tokenizer.end_of_text)
        return ids[:length], mask[:length]
    return [*ids, tokenizer.end_of_text], [*mask, 0]


def completion_document(
    prompt: str, completion: str, tokenizer: Tokenizer, *, separator: str
) -> tuple[list[int], list[int]]:
    """A prompt-completion pair as a document: `prompt + separator + completion + end-of-text`.

    The prompt with its separator is encoded apart, as it will be when a model is asked.

    Returns:
        The ids, and a mask that is 1 on the completion and its end-of-text.
    """
    asked = tokenizer.encode(prompt + separator)
    answer = [*tokenizer.encode(completion), tokenizer.end_of_text]
    return asked + answer, [0] * len(asked) + [1] * len(answer)
